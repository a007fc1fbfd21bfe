//! The step on `callbacks`: understand, correlate, settle, emit.
//!
//! A batch costs a constant number of statements: one to find the parts, then locks, reads and writes over all of them.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use bus::{NewRecord, Partition};
use domain::{State, phone::PhoneKey, sms::Fragment};
use events::{Callback, Record as _, Topic};
use gateways::{Heard, key::sender};
use jiff::Timestamp;
use resources::{Gateway, Snapshot};
use stage::{Clock, Input, Live, Output, Step, StepError};
use store::{
    StoreError, Tx,
    messages::{MessageRow, Settle},
    parts::{PartRow, PartState},
    reply_parts::{ReplyKey, ReplyPart},
    unmatched::{SETTLED_BY_REFERENCE, Unmatched},
};
use uuid::Uuid;

use crate::{
    appender::Edge,
    forms::forms,
    given_up::{self, GivenUp},
    joined::{Joined, TRANSPORT},
    replies::{self, Piece, Reply},
};

pub(crate) struct Callbacks {
    live: Live,
    clock: Clock,
    phone_key: PhoneKey,
    edge: Edge,
}

/// A receipt of a batch.
struct Told {
    /// Which record of the batch said it.
    input: usize,
    id: Uuid,
    gateway: String,
    forms: Vec<String>,
    state: State,
    code: Option<String>,
    at: Timestamp,
    received_at: Timestamp,
    reference: Option<Uuid>,
}

/// A word that we do not know, about a part that we may.
struct Unheard {
    gateway: String,
    forms: Vec<String>,
    code: String,
}

impl Callbacks {
    pub(crate) fn new(live: Live, clock: Clock, phone_key: PhoneKey, edge: Edge) -> Callbacks {
        Callbacks {
            live,
            clock,
            phone_key,
            edge,
        }
    }
}

/// What a batch holds, once it is read.
#[derive(Default)]
struct Read {
    told: Vec<Told>,
    unheard: Vec<Unheard>,
    replies: Vec<Reply>,
    pieces: Vec<Piece>,
    dead: Vec<(i64, String)>,
}

impl Read {
    fn input(&mut self, index: usize, input: &Input, partition: Partition, snapshot: &Snapshot, phones: &PhoneKey) {
        if let Err(reason) = self.callback(index, input, partition, snapshot, phones) {
            self.dead.push((input.offset, reason));
        }
    }

    fn callback(
        &mut self,
        index: usize,
        input: &Input,
        partition: Partition,
        snapshot: &Snapshot,
        phones: &PhoneKey,
    ) -> Result<(), String> {
        let callback = Callback::from_bytes(&input.envelope.kind, &input.value).map_err(|error| error.to_string())?;
        let id = |number: usize| stable_id(partition, input.offset, number);
        let reply_id = |number: usize, remote_id: Option<String>, from: &str| match remote_id {
            Some(remote_id) => domain::id::reply_id(&callback.gateway, &remote_id, &phones.hash(&sender(from))),
            None => id(number),
        };
        if callback.transport == TRANSPORT {
            let joined = Joined::from_callback(&callback).ok_or("a joined receipt that cannot be read")?;
            let state = joined.state().ok_or("a joined receipt without a state of ours")?;
            self.told.push(Told {
                input: index,
                id: id(0),
                gateway: callback.gateway,
                forms: joined.forms,
                state,
                code: joined.code,
                at: joined.at,
                received_at: callback.received_at,
                reference: joined.reference,
            });
            return Ok(());
        }
        if callback.transport == given_up::TRANSPORT {
            let reply = GivenUp::read(&callback, index).ok_or("a reply in parts that cannot be read")?;
            self.replies.push(reply);
            return Ok(());
        }
        let gateway: &Gateway = snapshot
            .gateways
            .get(&callback.gateway)
            .ok_or("its gateway is not configured any more")?;
        let heard = gateways::understand(&callback, gateway).map_err(|error| error.to_string())?;
        for (number, heard) in heard.into_iter().enumerate() {
            match heard {
                Heard::Receipt {
                    remote_id,
                    state: Some(state),
                    code,
                    at,
                    reference,
                } => self.told.push(Told {
                    input: index,
                    id: id(number),
                    gateway: callback.gateway.clone(),
                    forms: forms(&remote_id, gateway.receipt_ids),
                    state,
                    code,
                    at,
                    received_at: callback.received_at,
                    reference,
                }),
                Heard::Receipt { remote_id, code, .. } => self.unheard.push(Unheard {
                    gateway: callback.gateway.clone(),
                    forms: forms(&remote_id, gateway.receipt_ids),
                    code: code.unwrap_or_default(),
                }),
                Heard::Inbound {
                    id: remote_id,
                    from,
                    to,
                    part: Some(fragment),
                    ..
                } => {
                    let ids = (reply_id(number, remote_id, &from), id(number));
                    let piece = piece(index, ids, &callback, &from, to, &fragment, phones);
                    self.pieces.extend(piece);
                }
                Heard::Inbound {
                    id: remote_id,
                    from,
                    to,
                    text,
                    ..
                } => self.replies.push(Reply {
                    input: index,
                    id: reply_id(number, remote_id, &from),
                    origin: id(number),
                    gateway: callback.gateway.clone(),
                    received_at: callback.received_at,
                    from,
                    to,
                    text,
                    parts: 1,
                    incomplete: false,
                }),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Step for Callbacks {
    fn name(&self) -> &'static str {
        "receipt-collector"
    }

    fn topics(&self) -> &'static [Topic] {
        &[Topic::Callbacks]
    }

    async fn run(&self, partition: Partition, batch: &[Input], tx: &mut Tx) -> Result<Output, StepError> {
        self.edge.calm().await;
        let snapshot = self.live.current();
        let mut read = Read::default();
        for (index, input) in batch.iter().enumerate() {
            read.input(index, input, partition, &snapshot, &self.phone_key);
        }
        let Read {
            told,
            unheard,
            mut replies,
            mut pieces,
            dead,
        } = read;
        let trace = |input: usize| batch.get(input).and_then(|input| input.envelope.traceparent.as_deref());
        let mut emit = self.receipts(told, unheard, tx, trace).await?;
        replies::drop_repeats(&mut replies, &mut pieces, tx).await?;
        replies.extend(replies::whole(pieces, &snapshot, &self.phone_key, tx).await?);
        // In the order in which they came, also between whole ones and those in parts.
        replies.sort_by_key(|reply| reply.input);
        let now = self.clock.now();
        emit.extend(replies::take(replies, &snapshot, &self.phone_key, now, tx, trace).await?);
        Ok(Output { emit, dead })
    }
}

impl Callbacks {
    async fn receipts<'a>(
        &self,
        told: Vec<Told>,
        unheard: Vec<Unheard>,
        tx: &mut Tx,
        trace: impl Fn(usize) -> Option<&'a str>,
    ) -> Result<Vec<NewRecord>, StoreError> {
        let keys: Vec<(String, Vec<String>)> = told
            .iter()
            .map(|told| (told.gateway.clone(), told.forms.clone()))
            .chain(unheard.iter().map(|word| (word.gateway.clone(), word.forms.clone())))
            .collect();
        let parts = tx.parts_match(&keys).await?;
        let (of_told, of_unheard) = parts.split_at(told.len().min(parts.len()));
        let notes: Vec<(String, String, String)> = unheard
            .into_iter()
            .zip(of_unheard)
            .filter_map(|(word, part)| Some((word.gateway, part.as_ref()?.match_id.clone(), word.code)))
            .collect();
        if !notes.is_empty() {
            metrics::counter!("tamtam_receipts_total", "result" => "unknown-code").increment(notes.len() as u64);
        }

        let (mut changes, mut of) = (Vec::with_capacity(told.len()), Vec::with_capacity(told.len()));
        // Which record a message's receipt goes back to, and which messages have it from a callback of this batch.
        let mut causes: HashMap<Uuid, usize> = HashMap::new();
        let mut repeated: HashSet<Uuid> = HashSet::new();
        let mut homeless = Vec::new();
        for (told, part) in told.into_iter().zip(of_told) {
            match part {
                Some(part) => {
                    causes.insert(part.message_id, told.input);
                    if is_repeated(&told, part) {
                        repeated.insert(part.message_id);
                    }
                    of.push((part.contact_id.clone(), part.message_id));
                    changes.push(PartState {
                        gateway: told.gateway,
                        match_id: part.match_id.clone(),
                        state: told.state,
                        code: told.code,
                        at: told.at,
                    });
                }
                // That it was accepted is known when its part is.
                None if told.state == State::Accepted => {}
                None => homeless.push(told),
            }
        }
        metrics::counter!("tamtam_receipts_total", "result" => "matched").increment(changes.len() as u64);
        let mut rows = tx.receipts_apply(&changes, &of).await?;
        tx.parts_note(&notes).await?;
        if !homeless.is_empty() {
            metrics::counter!("tamtam_receipts_total", "result" => "unmatched").increment(homeless.len() as u64);
            rows.extend(self.by_reference(homeless, &mut causes, &mut repeated, tx).await?);
        }
        let mut emit = Vec::with_capacity(rows.len());
        for (row, moved) in rows {
            if !moved && !repeated.contains(&row.message_id) {
                continue;
            }
            let receipt = row.to_receipt();
            let trace = causes.get(&row.message_id).and_then(|input| trace(*input));
            emit.push(NewRecord::wrap(
                Topic::Receipts,
                &row.contact_id,
                receipt.stable_id(),
                receipt.at,
                trace,
                &receipt,
            ));
        }
        Ok(emit)
    }

    /// Receipts whose part is not known. They are kept for their part; where our own reference came with them, and no part
    /// will come that it could wait for, it settles the message.
    async fn by_reference(
        &self,
        homeless: Vec<Told>,
        causes: &mut HashMap<Uuid, usize>,
        repeated: &mut HashSet<Uuid>,
        tx: &mut Tx,
    ) -> Result<Vec<(MessageRow, bool)>, StoreError> {
        let (mut unmatched, mut settles) = (Vec::new(), Vec::new());
        let references: Vec<Uuid> = homeless.iter().filter_map(|told| told.reference).collect();
        let rows = tx.messages_by_id(&references).await?;
        for told in homeless {
            let mut waits_for = None;
            if let Some(reference) = told.reference
                && let Some(row) = rows.get(&reference)
                // One receipt speaks for the whole message only where there is one part.
                && row.parts <= 1
            {
                let again = row.state == told.state && same_instant(row.changed_at, told.at);
                if SETTLED_BY_REFERENCE.contains(&row.state) || again {
                    causes.insert(reference, told.input);
                    if again {
                        repeated.insert(reference);
                    }
                    settles.push(Settle {
                        contact_id: row.contact_id.clone(),
                        message_id: reference,
                        state: told.state,
                        reason: None,
                        gateway_code: told.code,
                        at: told.at,
                    });
                    continue;
                }
                // Its outcome is being written: then its part finds the receipt, or the outcome is unknown.
                waits_for = Some(reference).filter(|_| !row.state.is_terminal());
            }
            unmatched.push(Unmatched {
                id: told.id,
                gateway: told.gateway,
                match_ids: told.forms,
                state: told.state,
                code: told.code,
                at: told.at,
                received_at: told.received_at,
                reference: waits_for,
            });
        }
        tx.callbacks_unmatched_put(&unmatched).await?;
        match settles.is_empty() {
            true => Ok(Vec::new()),
            false => tx.messages_settle(&settles).await,
        }
    }
}

/// A part of a reply, to be kept until the others are there.
fn piece(
    input: usize,
    (id, origin): (Uuid, Uuid),
    callback: &Callback,
    from: &str,
    to: String,
    fragment: &Fragment,
    phones: &PhoneKey,
) -> Option<Piece> {
    let part = fragment.part?;
    Some(Piece {
        input,
        origin,
        part: ReplyPart {
            key: ReplyKey {
                phone_hash: phones.hash(&sender(from)),
                recipient: to.chars().filter(|character| *character != '\0').take(30).collect(),
                gateway: callback.gateway.clone(),
                reference: part.reference,
                wide: part.wide,
                total: part.total,
            },
            sequence: part.sequence,
            id,
            callback: callback.to_bytes(),
            received_at: callback.received_at,
        },
    })
}

/// Whether the part has its state from this very callback: then the batch was here before, and what it emitted may not
/// have got out.
fn is_repeated(told: &Told, part: &PartRow) -> bool {
    part.state == told.state && same_instant(part.at, told.at)
}

/// The store keeps microseconds.
fn same_instant(kept: Timestamp, at: Timestamp) -> bool {
    kept.as_microsecond() == at.as_microsecond()
}

/// An id that the record decides, for what it leads to.
fn stable_id(partition: Partition, offset: i64, number: usize) -> Uuid {
    let mut bytes = [0_u8; 16];
    bytes[..3].copy_from_slice(b"cb:");
    bytes[4..6].copy_from_slice(&(partition.number as u16).to_be_bytes());
    bytes[9] = u8::try_from(number).unwrap_or(u8::MAX);
    // 48 bits of offset, clear of the version and the variant.
    bytes[10..].copy_from_slice(&offset.to_be_bytes()[2..]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_what_a_record_leads_to_differ() {
        let partition = |number| Partition {
            topic: Topic::Callbacks,
            number,
        };
        let mut ids = HashSet::new();
        for number in 0..3 {
            for offset in [0, 1, 255, 256, 1 << 40] {
                for index in 0..3 {
                    ids.insert(stable_id(partition(number), offset, index));
                }
            }
        }
        assert_eq!(ids.len(), 45);
    }
}
