//! Texts that people send: a record on `inbound` each, and STOP and START take effect at once.
//!
//! A text that came in parts is one reply, once all are there ([`whole`]); one that stays incomplete is given up as it is
//! after a while ([`crate::sweep`]) and is then never a keyword. STOP shuts the phone off from marketing, whoever's it is,
//! and is written into the consent of every contact with this phone; START is the reverse. Everything can be done again
//! without a difference, so a redelivered batch does no harm.
//!
//! An answer goes through the pipeline like any message: a job whose id follows from the reply. STOP is answered by the
//! reply that shut the phone off; any other keyword once in ten minutes ([`Tx::reply_answers_claim`]). What is no keyword
//! and sounds as if somebody wanted to be left alone is kept for a person; nothing is concluded from it.

use std::collections::{BTreeMap, HashMap};

use bus::NewRecord;
use domain::{Cause, Consent, MessageId, Phone, keyword, phone::PhoneKey};
use events::{Callback, Inbound, Job, Record as _, Topic};
use gateways::{Heard, key::sender, understand};
use jiff::Timestamp;
use resources::{Snapshot, keyword::meaning};
use serde_json::Map;
use store::{
    StoreError, Tx,
    contacts::ContactChange,
    reply_parts::{ReplyKey, ReplyPart, Review},
    suppressions::Scope,
};
use uuid::Uuid;

/// A reply of a batch.
pub(crate) struct Reply {
    pub(crate) input: usize,
    pub(crate) id: Uuid,
    pub(crate) gateway: String,
    pub(crate) received_at: Timestamp,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) text: String,
    /// How many texts it came in.
    pub(crate) parts: u16,
    /// Parts are missing: never a keyword.
    pub(crate) incomplete: bool,
}

/// A part of a reply, and which record of the batch brought it.
pub(crate) struct Piece {
    pub(crate) input: usize,
    pub(crate) part: ReplyPart,
}

/// Who a change of consent is recorded by.
const BY: &str = "reply";

/// Keeps the parts of a batch; the replies that are whole now.
pub(crate) async fn whole(pieces: Vec<Piece>, snapshot: &Snapshot, tx: &mut Tx) -> Result<Vec<Reply>, StoreError> {
    let inputs: HashMap<ReplyKey, usize> = pieces
        .iter()
        .map(|piece| (piece.part.key.clone(), piece.input))
        .collect();
    let parts: Vec<ReplyPart> = pieces.into_iter().map(|piece| piece.part).collect();
    let kept = tx.reply_parts_put(&parts).await?;
    let mut texts: BTreeMap<ReplyKey, Vec<ReplyPart>> = BTreeMap::new();
    for part in kept {
        texts.entry(part.key.clone()).or_default().push(part);
    }
    Ok(texts
        .into_iter()
        .filter(|(key, parts)| parts.len() == usize::from(key.total))
        .filter_map(|(key, parts)| {
            let input = inputs.get(&key).copied().unwrap_or_default();
            together(&parts, snapshot, input, false)
        })
        .collect())
}

/// One reply out of its parts, in their order. `None`: their gateway is not configured any more.
pub(crate) fn together(parts: &[ReplyPart], snapshot: &Snapshot, input: usize, incomplete: bool) -> Option<Reply> {
    let first = parts.first()?;
    let gateway = snapshot.gateways.get(&first.key.gateway)?;
    let mut fragments = Vec::with_capacity(parts.len());
    let (mut sender, mut texts) = (String::new(), Vec::new());
    for part in parts {
        let callback = Callback::from_bytes(Callback::KIND, &part.callback).ok()?;
        for heard in understand(&callback, gateway).ok()? {
            if let Heard::Inbound {
                from,
                text,
                part: Some(fragment),
                ..
            } = heard
            {
                sender = from;
                texts.push(text);
                fragments.push(fragment);
            }
        }
    }
    let text = match incomplete {
        true => texts.join(" … "),
        false => domain::sms::join(&fragments).ok()?,
    };
    Some(Reply {
        input,
        id: first.id,
        gateway: first.key.gateway.clone(),
        received_at: parts.iter().map(|part| part.received_at).max()?,
        from: sender,
        to: first.key.recipient.clone(),
        text,
        parts: first.key.total.into(),
        incomplete,
    })
}

/// What a reply asks to be sent back.
struct Wish {
    input: usize,
    id: Uuid,
    contact_id: String,
    template: String,
    at: Timestamp,
}

pub(crate) async fn take<'a>(
    replies: Vec<Reply>,
    snapshot: &Snapshot,
    key: &PhoneKey,
    now: Timestamp,
    tx: &mut Tx,
    trace: impl Fn(usize) -> Option<&'a str>,
) -> Result<Vec<NewRecord>, StoreError> {
    if replies.is_empty() {
        return Ok(Vec::new());
    }
    let phones: Vec<Phone> = replies.iter().map(|reply| sender(&reply.from)).collect();
    let numbers: Vec<&str> = phones.iter().map(Phone::e164).collect();
    let owners = tx.contacts_by_phone(&numbers).await?;
    let all: Vec<&str> = owners.values().flatten().map(String::as_str).collect();
    let last = tx.messages_last_to(&all).await?;

    let mut emit = Vec::with_capacity(replies.len());
    // Of several replies of one person the last word holds.
    let mut consents: HashMap<&str, Consent> = HashMap::new();
    let (mut reviews, mut wishes, mut claims) = (Vec::new(), Vec::new(), Vec::new());
    for (reply, phone) in replies.iter().zip(&phones) {
        let hash = key.hash(phone);
        let contacts = owners.get(phone.e164()).map(Vec::as_slice).unwrap_or_default();
        let meant = match reply.incomplete {
            true => None,
            false => meaning(&snapshot.policy.keywords, &reply.text, phone, &reply.to),
        };
        // Whether this reply is the one that is answered, where that is known by now.
        let mut decides = None;
        match meant.as_ref().map(|meant| meant.keyword) {
            Some("stop") => {
                tx.suppression_put(&hash, Scope::Marketing, BY, reply.received_at)
                    .await?;
                let since = tx.suppression_since(&hash).await?;
                decides = Some(since.is_some_and(|(source, since)| {
                    source == BY && since.as_microsecond() == reply.received_at.as_microsecond()
                }));
                consents.extend(contacts.iter().map(|id| (id.as_str(), Consent::No)));
            }
            Some("start") => {
                tx.suppression_lift(&hash).await?;
                let given = Consent::Given(Some(reply.received_at));
                consents.extend(contacts.iter().map(|id| (id.as_str(), given)));
            }
            _ => {}
        }
        // Two contacts may share a phone: the reply belongs to the one that was written to last.
        let contact = contacts
            .iter()
            .find(|id| last.contains_key(*id))
            .or_else(|| contacts.first());
        let needs_review = meant.is_none() && (keyword::needs_review(&reply.text) || incomplete_stop(reply));
        if needs_review {
            reviews.push(Review {
                id: reply.id,
                contact_id: contact.cloned(),
                phone_hash: hash.clone(),
                gateway: reply.gateway.clone(),
                text: reply.text.clone(),
                received_at: reply.received_at,
            });
        }
        if let (Some(contact), Some(template)) = (contact, meant.as_ref().and_then(|meant| meant.answer)) {
            let word = meant.as_ref().map(|meant| meant.keyword.to_owned()).unwrap_or_default();
            if decides != Some(false) {
                wishes.push(Wish {
                    input: reply.input,
                    id: reply.id,
                    contact_id: contact.clone(),
                    template: template.to_owned(),
                    at: reply.received_at,
                });
                if decides.is_none() {
                    claims.push((hash.clone(), word, reply.id, reply.received_at));
                }
            }
        }
        let hash = hex(&hash);
        let record = Inbound {
            id: reply.id,
            contact_id: contact.cloned(),
            phone_hash: hash.clone(),
            gateway: reply.gateway.clone(),
            to: reply.to.chars().take(20).collect(),
            keyword: meant.as_ref().map(|meant| meant.keyword.to_owned()),
            needs_review,
            received_at: reply.received_at,
            in_reply_to: contact.and_then(|id| last.get(id)).copied(),
            parts: Some(reply.parts).filter(|parts| *parts > 1),
        };
        // Words of the installation's own are no labels: anybody could add many.
        let word = match meant.as_ref().map(|meant| meant.keyword) {
            Some(word @ ("stop" | "start" | "help" | "contact")) => word.to_owned(),
            Some(_) => "own".to_owned(),
            None => "none".to_owned(),
        };
        metrics::counter!("tamtam_replies_total", "keyword" => word).increment(1);
        let key = contact.unwrap_or(&hash);
        emit.push(NewRecord::wrap(
            Topic::Inbound,
            key,
            reply.id.to_string(),
            reply.received_at,
            trace(reply.input),
            &record,
        ));
    }
    let asked: Vec<Uuid> = claims.iter().map(|claim| claim.2).collect();
    let claimed = tx.reply_answers_claim(&claims).await?;
    emit.extend(
        wishes
            .iter()
            .filter(|wish| !asked.contains(&wish.id) || claimed.contains(&wish.id))
            .map(|wish| answer(wish, trace(wish.input))),
    );
    tx.reply_reviews_put(&reviews).await?;
    let mut changes: Vec<ContactChange> = consents
        .into_iter()
        .map(|(id, consent)| ContactChange {
            id: id.to_owned(),
            marketing_consent: Some(consent),
            ..ContactChange::default()
        })
        .collect();
    changes.sort_by(|one, other| one.id.cmp(&other.id));
    if !changes.is_empty() {
        tx.contacts_upsert(&changes, BY, BY, now).await?;
    }
    Ok(emit)
}

/// What is left of a text may have been a STOP.
fn incomplete_stop(reply: &Reply) -> bool {
    reply.incomplete && reply.text.split(" … ").any(|part| keyword::keyword(part).is_some())
}

/// The job of an answer: decided by the reply alone, so that it is the same however often it is made.
fn answer(wish: &Wish, trace: Option<&str>) -> NewRecord {
    let cause = Cause::Direct {
        idempotency_key: format!("reply:{}", wish.id.hyphenated()),
    };
    let id = MessageId::derive(&cause, &wish.contact_id);
    let job = Job {
        message_id: id.0,
        contact_id: wish.contact_id.clone(),
        cause,
        template: wish.template.clone(),
        caused_at: wish.at,
        planned_at: wish.at,
        deadline: None,
        event: Map::new(),
        values: Map::new(),
        deferrals: 0,
        suppress: None,
    };
    NewRecord::wrap(Topic::Jobs, &wish.contact_id, id.to_string(), wish.at, trace, &job)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
