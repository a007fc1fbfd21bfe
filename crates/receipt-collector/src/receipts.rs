//! Receipts of a batch: to their parts, by our reference where there is none, and kept where there is neither.
//!
//! | receipt | what becomes of it |
//! |---|---|
//! | of a part that is known | the part moves, and the message when its parts say so. A word that we do not know is kept with the part |
//! | that bears our reference of one message, with the id of another's part | as one without a part: the reference decides |
//! | without a part, with our reference | while the message may still be answered it waits. Then one receipt settles the message where it has one part, or where the gateway takes a text whole and answers with one id; where each part has receipts of its own, its id is taken for the next part, and the message is delivered when as many are as it has parts |
//! | without a part, `accepted` | nothing: that it was accepted is known when its part is |
//! | anything else | it is kept and shown, also where its word is none that we know, and joined when its part comes |

use std::collections::{HashMap, HashSet};

use bus::NewRecord;
use domain::State;
use events::Topic;
use jiff::Timestamp;
use resources::{
    Gateway, Snapshot,
    gateway::{GatewayKind, LongText},
};
use stage::trace;
use store::{
    StoreError, Tx,
    messages::{MessageRow, Said, Settle},
    parts::{AdoptedPart, PartOf, PartRow, PartState, match_id},
    unmatched::{SETTLED_BY_REFERENCE, Unmatched},
};
use uuid::Uuid;

/// A receipt of a batch.
pub(crate) struct Told {
    /// Which record of the batch said it.
    pub(crate) input: usize,
    pub(crate) id: Uuid,
    pub(crate) gateway: String,
    /// As the gateway said it.
    pub(crate) remote_id: String,
    pub(crate) forms: Vec<String>,
    /// `None`: a word that we do not know.
    pub(crate) state: Option<State>,
    pub(crate) code: Option<String>,
    pub(crate) at: Timestamp,
    pub(crate) received_at: Timestamp,
    pub(crate) reference: Option<Uuid>,
}

impl Told {
    /// Our own reference. A gateway whose ids are UUIDs and which repeats nothing of ours is read as if it did.
    fn reference(&self) -> Option<Uuid> {
        self.reference
            .filter(|reference| Uuid::parse_str(self.remote_id.trim()).as_ref() != Ok(reference))
    }

    /// Whether the part may be the one that it speaks of.
    fn may_be_of(&self, part: &PartRow) -> bool {
        self.reference().is_none_or(|reference| reference == part.message_id)
    }

    fn keep(self, reference: Option<Uuid>, waits: bool) -> Unmatched {
        Unmatched {
            id: self.id,
            gateway: self.gateway,
            remote_id: self.remote_id,
            match_ids: self.forms,
            state: self.state,
            code: self.code,
            at: self.at,
            received_at: self.received_at,
            reference,
            waits,
        }
    }
}

/// A receipt without a part of its own.
struct Homeless {
    told: Told,
    /// Its id is that of another message's part.
    is_taken: bool,
}

/// Which record of the batch a message's receipt goes back to, and which messages have it from this very batch, which was
/// here before.
#[derive(Default)]
struct Trail {
    causes: HashMap<Uuid, usize>,
    repeated: HashSet<Uuid>,
    /// What was said of messages whose part keeps no state of its own.
    said: HashMap<Uuid, (State, Timestamp)>,
}

impl Trail {
    /// Whether a message that has not moved stands where this batch says, because it was here before.
    fn is_repeated(&self, row: &MessageRow) -> bool {
        let said = self.said.get(&row.message_id);
        self.repeated.contains(&row.message_id)
            || said.is_some_and(|(state, at)| row.state == *state && same_instant(row.changed_at, *at))
    }
}

/// Writes what the receipts say; the receipts of ours that follow.
pub(crate) async fn take<'a>(
    told: Vec<Told>,
    snapshot: &Snapshot,
    tx: &mut Tx,
    cause: impl Fn(usize) -> Option<&'a str>,
) -> Result<Vec<NewRecord>, StoreError> {
    let mut trail = Trail::default();
    let (mut rows, told) = at_once(told, &mut trail, tx).await?;
    count("matched", rows.len());
    let keys: Vec<(String, Vec<String>)> = told
        .iter()
        .map(|told| (told.gateway.clone(), told.forms.clone()))
        .collect();
    let parts = tx.parts_match(&keys).await?;
    let mut changes = Vec::with_capacity(told.len());
    let (mut notes, mut homeless) = (Vec::new(), Vec::new());
    for (told, found) in told.into_iter().zip(parts) {
        let is_taken = found.is_some();
        let part = found.filter(|part| told.may_be_of(part));
        match (part, told.state) {
            (Some(part), Some(state)) => {
                trail.causes.insert(part.message_id, told.input);
                if part.state == state && same_instant(part.at, told.at) {
                    trail.repeated.insert(part.message_id);
                }
                let of = part.of();
                if of.alone {
                    trail.said.insert(of.message_id, (state, told.at));
                }
                let said = PartState {
                    gateway: told.gateway,
                    match_id: part.match_id,
                    state,
                    code: told.code,
                    at: told.at,
                };
                changes.push((said, of));
            }
            (Some(part), None) => notes.push((told.gateway, part.match_id, told.code.unwrap_or_default())),
            (None, Some(State::Accepted)) => {}
            (None, _) => homeless.push(Homeless { told, is_taken }),
        }
    }
    count("matched", changes.len());
    count("unknown-code", notes.len());
    rows.extend(tx.receipts_apply(&changes).await?);
    tx.parts_note(&notes).await?;
    if !homeless.is_empty() {
        rows.extend(by_reference(homeless, snapshot, &mut trail, tx).await?);
    }
    let mut emit = Vec::with_capacity(rows.len());
    for (row, moved) in rows {
        if !moved && !trail.is_repeated(&row) {
            continue;
        }
        let receipt = row.to_receipt();
        let id = receipt.stable_id();
        // The message's own way goes on here; where nobody traces it, the callback's does.
        let own = (row.traceparent.as_deref()).map(|parent| trace::continue_from(crate::STAGE, Some(parent), &id));
        let trace = match &own {
            Some(own) => Some(own.traceparent()),
            None => trail.causes.get(&row.message_id).and_then(|input| cause(*input)),
        };
        emit.push(NewRecord::wrap(
            Topic::Receipts,
            &row.contact_id,
            id,
            receipt.at,
            trace,
            &receipt,
        ));
    }
    Ok(emit)
}

/// Settles what one receipt alone says everything of, which are most; what moved, and the receipts that are left.
async fn at_once(
    told: Vec<Told>,
    trail: &mut Trail,
    tx: &mut Tx,
) -> Result<(Vec<(MessageRow, bool)>, Vec<Told>), StoreError> {
    let (mut places, mut said) = (Vec::with_capacity(told.len()), Vec::with_capacity(told.len()));
    for (place, told) in told.iter().enumerate() {
        if let (Some(state), Some(form)) = (told.state, told.forms.first()) {
            places.push(place);
            said.push(Said {
                gateway: &told.gateway,
                remote_id: form,
                state,
                code: told.code.as_deref(),
                at: told.at,
                message_id: told.reference(),
            });
        }
    }
    let settled = tx.receipts_settle(&said).await?;
    let mut rows = Vec::with_capacity(settled.len());
    let mut is_done = vec![false; told.len()];
    for (number, row) in settled {
        let Some(place) = places.get(number).copied() else {
            continue;
        };
        is_done[place] = true;
        trail.causes.insert(row.message_id, told[place].input);
        rows.push((row, true));
    }
    let left = told.into_iter().zip(is_done).filter(|(_, done)| !done);
    Ok((rows, left.map(|(told, _)| told).collect()))
}

/// Receipts without a part: placed by our reference as far as they can be, kept otherwise.
async fn by_reference(
    homeless: Vec<Homeless>,
    snapshot: &Snapshot,
    trail: &mut Trail,
    tx: &mut Tx,
) -> Result<Vec<(MessageRow, bool)>, StoreError> {
    // Also one that is an id at the same time: where there is such a message of ours, it is meant.
    let references: Vec<Uuid> = homeless.iter().filter_map(|one| one.told.reference).collect();
    let rows = tx.messages_by_id(&references).await?;
    let (mut unmatched, mut settles) = (Vec::new(), Vec::new());
    let (mut adopted, mut changes) = (Vec::new(), Vec::new());
    for Homeless { told, is_taken } in homeless {
        let row = told.reference.and_then(|reference| rows.get(&reference));
        let (Some(row), Some(state)) = (row, told.state) else {
            let reference = row.map(|row| row.message_id).or(told.reference());
            unmatched.push(told.keep(reference, false));
            continue;
        };
        let again = row.state == state && same_instant(row.changed_at, told.at);
        let is_open = SETTLED_BY_REFERENCE.contains(&row.state);
        if (is_open || again)
            && (row.parts <= 1 || speaks_for_all(snapshot.gateways.get(&told.gateway).map(AsRef::as_ref)))
        {
            trail.causes.insert(row.message_id, told.input);
            if again {
                trail.repeated.insert(row.message_id);
            }
            settles.push(Settle {
                contact_id: row.contact_id.clone(),
                message_id: row.message_id,
                state,
                reason: None,
                gateway_code: told.code,
                at: told.at,
            });
        } else if is_open && !is_taken {
            trail.causes.insert(row.message_id, told.input);
            let id = told.forms.first().cloned().unwrap_or_default();
            let part_id = match_id(&id);
            let of = PartOf {
                contact_id: row.contact_id.clone(),
                message_id: row.message_id,
                alone: false,
            };
            adopted.push(AdoptedPart {
                gateway: told.gateway.clone(),
                remote_id: match match_id(&told.remote_id) == part_id {
                    true => told.remote_id,
                    false => id,
                },
                contact_id: row.contact_id.clone(),
                message_id: row.message_id,
                at: told.at,
            });
            let said = PartState {
                gateway: told.gateway,
                match_id: part_id,
                state,
                code: told.code,
                at: told.at,
            };
            changes.push((said, of));
        } else {
            // While its outcome is being written it waits: then its part finds it, or the outcome is unknown.
            let waits = !is_open && !row.state.is_terminal();
            unmatched.push(told.keep(Some(row.message_id), waits));
        }
    }
    count("by-reference", settles.len() + changes.len());
    count("unmatched", unmatched.len());
    tx.callbacks_unmatched_put(&unmatched).await?;
    let mut moved = match settles.is_empty() {
        true => Vec::new(),
        false => tx.messages_settle(&settles).await?,
    };
    if !adopted.is_empty() {
        tx.parts_adopt(&adopted).await?;
        moved.extend(tx.receipts_apply(&changes).await?);
    }
    Ok(moved)
}

/// Whether a gateway takes a text of several parts whole, answers with one id and reports on all of it at once.
fn speaks_for_all(gateway: Option<&Gateway>) -> bool {
    let Some(gateway) = gateway else { return false };
    match gateway.kind {
        GatewayKind::Smpp => gateway.long_text == LongText::Payload,
        // A `*` in the place of the id is an id a part.
        GatewayKind::Http => (gateway.http_description().ok())
            .and_then(|http| http.answer?.id)
            .is_some_and(|place| !place.split('/').any(|step| step == "*")),
    }
}

fn count(result: &'static str, receipts: usize) {
    if receipts > 0 {
        metrics::counter!("tamtam_receipts_total", "result" => result).increment(receipts as u64);
    }
}

/// The store keeps microseconds.
fn same_instant(kept: Timestamp, at: Timestamp) -> bool {
    kept.as_microsecond() == at.as_microsecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(remote_id: &str, reference: Option<Uuid>) -> Told {
        Told {
            input: 0,
            id: Uuid::nil(),
            gateway: "main".into(),
            remote_id: remote_id.into(),
            forms: vec![remote_id.into()],
            state: Some(State::Delivered),
            code: None,
            at: Timestamp::UNIX_EPOCH,
            received_at: Timestamp::UNIX_EPOCH,
            reference,
        }
    }

    #[test]
    fn a_receipt_is_of_the_message_that_it_refers_to() {
        let (ours, other) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let part = PartRow {
            gateway: "main".into(),
            remote_id: "a1".into(),
            match_id: "a1".into(),
            contact_id: "42".into(),
            message_id: ours,
            part: 1,
            total: 1,
            state: State::Accepted,
            at: Timestamp::UNIX_EPOCH,
        };
        assert!(told("a1", None).may_be_of(&part));
        assert!(told("a1", Some(ours)).may_be_of(&part));
        assert!(!told("a1", Some(other)).may_be_of(&part));
        // The gateway's own id, read as a reference because it says none.
        assert!(told(&other.to_string(), Some(other)).may_be_of(&part));
    }

    #[test]
    fn who_takes_a_text_whole_reports_on_all_of_it() {
        let payload = Gateway {
            long_text: LongText::Payload,
            ..Gateway::smpp("main", "h:1", "tamtam")
        };
        assert!(speaks_for_all(Some(&payload)));
        assert!(!speaks_for_all(Some(&Gateway::smpp("main", "h:1", "tamtam"))));
        assert!(!speaks_for_all(None));
        for (profile, expected) in [("twilio", true), ("ovh", true), ("kannel", true), ("vonage", false)] {
            let gateway = Gateway::http("main", "http://h/", profile);
            assert_eq!(speaks_for_all(Some(&gateway)), expected, "{profile}");
        }
    }
}
