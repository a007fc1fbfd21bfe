//! Texts that people send: a record on `inbound` each, and STOP and START take effect at once.
//!
//! A text that came in parts is one reply, once all are there ([`whole`]); one that stays incomplete is given up as it is
//! after a while ([`crate::sweep`]) and is then never a keyword. STOP shuts the phone off from marketing, whoever's it is,
//! and is written into the consent of every contact with this phone; START is the reverse. Everything can be done again
//! without a difference, so a redelivered batch does no harm.
//!
//! What a gateway brings again because our answer was lost is another record on `callbacks` and the same reply, by the
//! gateway's own id where it gives one: it is dropped ([`drop_repeats`]), or a START would lift what was stopped since.
//!
//! An answer goes through the pipeline like any message: a job whose id follows from the reply. A phone gets the answer of a
//! keyword once in ten minutes ([`Tx::reply_answers_claim`]), whether it was shut off before, and whoever's it is: where it
//! is no contact's, the job itself says where to. What is no keyword and sounds as if somebody wanted to be left alone is
//! kept for a person; nothing is concluded from it.

use std::collections::{BTreeMap, HashMap};

use bus::NewRecord;
use data_encoding::HEXLOWER;
use domain::{Cause, Consent, MessageId, Phone, keyword, phone::PhoneKey, sms::Fragment};
use events::{Callback, Inbound, Job, Record as _, Topic};
use gateways::{Heard, key::sender as phone_of, understand};
use jiff::Timestamp;
use resources::{Snapshot, keyword::meaning};
use serde_json::Map;
use store::{
    StoreError, Tx,
    contacts::ContactChange,
    replies::HeardReply,
    reply_parts::{ReplyKey, ReplyPart, Review},
    suppressions::Scope,
};
use uuid::Uuid;

/// A reply of a batch.
pub(crate) struct Reply {
    pub(crate) input: usize,
    pub(crate) id: Uuid,
    /// From the record that brought it; its id, where the gateway gives none.
    pub(crate) origin: Uuid,
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
    /// As a reply's.
    pub(crate) origin: Uuid,
    pub(crate) part: ReplyPart,
}

/// Who a change of consent is recorded by.
const BY: &str = "reply";

/// Leaves out what a gateway brought before, as a whole or in parts.
pub(crate) async fn drop_repeats(
    replies: &mut Vec<Reply>,
    pieces: &mut Vec<Piece>,
    tx: &mut Tx,
) -> Result<(), StoreError> {
    let texts = replies.iter().map(|reply| (reply.id, reply.origin, reply.received_at));
    let parts = pieces
        .iter()
        .map(|piece| (piece.part.id, piece.origin, piece.part.received_at));
    let heard: Vec<HeardReply> = texts
        .chain(parts)
        // One that is named by its record is never another's repeat.
        .filter(|(id, origin, _)| id != origin)
        .map(|(id, origin, received_at)| HeardReply {
            id,
            origin,
            received_at,
        })
        .collect();
    let repeated = tx.replies_repeated(&heard).await?;
    if !repeated.is_empty() {
        metrics::counter!("tamtam_replies_total", "keyword" => "repeated").increment(repeated.len() as u64);
        replies.retain(|reply| !repeated.contains(&reply.origin));
        pieces.retain(|piece| !repeated.contains(&piece.origin));
    }
    Ok(())
}

/// Keeps the parts of a batch; the replies that are whole now.
pub(crate) async fn whole(
    pieces: Vec<Piece>,
    snapshot: &Snapshot,
    key: &PhoneKey,
    tx: &mut Tx,
) -> Result<Vec<Reply>, StoreError> {
    let brought: HashMap<Uuid, usize> = pieces.iter().map(|piece| (piece.part.id, piece.input)).collect();
    let parts: Vec<ReplyPart> = pieces.into_iter().map(|piece| piece.part).collect();
    let kept = tx.reply_parts_put(&parts).await?;
    let mut texts: BTreeMap<ReplyKey, Vec<ReplyPart>> = BTreeMap::new();
    for part in kept {
        texts.entry(part.key.clone()).or_default().push(part);
    }
    Ok(texts
        .into_iter()
        .filter(|(text, parts)| parts.len() == usize::from(text.total))
        .filter_map(|(_, parts)| {
            // Of a part that comes twice the first is kept: a text of which only such came was whole before.
            let input = parts.iter().filter_map(|part| brought.get(&part.id)).max()?;
            together(&parts, snapshot, key, *input, false)
        })
        .collect())
}

/// One reply out of its parts, in their order. `None`: their gateway is not configured any more.
pub(crate) fn together(
    parts: &[ReplyPart],
    snapshot: &Snapshot,
    key: &PhoneKey,
    input: usize,
    incomplete: bool,
) -> Option<Reply> {
    let first = parts.first()?;
    let gateway = snapshot.gateways.get(&first.key.gateway)?;
    let mut fragments = Vec::with_capacity(parts.len());
    let (mut sender, mut texts) = (String::new(), Vec::new());
    for part in parts {
        let callback = Callback::from_bytes(Callback::KIND, &part.callback).ok()?;
        for heard in understand(&callback, gateway).ok()? {
            // A callback may hold other texts, too.
            if let Heard::Inbound {
                from,
                text,
                part: Some(fragment),
                ..
            } = heard
                && is_part(part, &fragment)
                && key.hash(&phone_of(&from)) == part.key.phone_hash
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
        origin: first.id,
        gateway: first.key.gateway.clone(),
        received_at: parts.iter().map(|part| part.received_at).max()?,
        from: sender,
        to: first.key.recipient.clone(),
        text,
        parts: first.key.total.into(),
        incomplete,
    })
}

fn is_part(kept: &ReplyPart, fragment: &Fragment) -> bool {
    fragment.part.is_some_and(|part| part.sequence == kept.sequence)
        && fragment.key() == Some((kept.key.reference, kept.key.wide, kept.key.total))
}

/// What a reply asks to be sent back.
struct Wish {
    input: usize,
    id: Uuid,
    contact_id: String,
    /// Where it goes if it is no contact's.
    phone: Option<Phone>,
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
    let phones: Vec<Phone> = replies.iter().map(|reply| phone_of(&reply.from)).collect();
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
        match meant.as_ref().map(|meant| meant.keyword) {
            Some("stop") => {
                tx.suppression_put(&hash, Scope::Marketing, BY, reply.received_at)
                    .await?;
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
        let name = HEXLOWER.encode(&hash);
        if let Some(meant) = &meant
            && let Some(template) = meant.answer
            && (contact.is_some() || can_be_written_to(phone))
        {
            claims.push((hash, meant.keyword.to_owned(), reply.id, reply.received_at));
            wishes.push(Wish {
                input: reply.input,
                id: reply.id,
                contact_id: contact.unwrap_or(&name).clone(),
                phone: contact.is_none().then(|| phone.clone()),
                template: template.to_owned(),
                at: reply.received_at,
            });
        }
        let record = Inbound {
            id: reply.id,
            contact_id: contact.cloned(),
            phone_hash: name.clone(),
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
        let key = contact.unwrap_or(&name);
        emit.push(NewRecord::wrap(
            Topic::Inbound,
            key,
            reply.id.to_string(),
            reply.received_at,
            trace(reply.input),
            &record,
        ));
    }
    let claimed = tx.reply_answers_claim(&claims).await?;
    emit.extend(
        wishes
            .iter()
            .filter(|wish| claimed.contains(&wish.id))
            .map(|wish| answer(wish, trace(wish.input))),
    );
    tx.reply_reviews_put(&reviews).await?;
    let mut changes: Vec<ContactChange> = consents
        .into_iter()
        .map(|(id, consent)| ContactChange {
            id: id.to_owned(),
            marketing_consent: Some(consent),
            withdraws_all: consent == Consent::No,
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

/// A sender may also be a short code or a name.
fn can_be_written_to(phone: &Phone) -> bool {
    let digits = phone.e164().strip_prefix('+').unwrap_or_default();
    (8..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
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
        phone: wish.phone.clone(),
    };
    NewRecord::wrap(Topic::Jobs, &wish.contact_id, id.to_string(), wish.at, trace, &job)
}
