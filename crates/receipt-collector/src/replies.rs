//! Texts that people send: a record on `inbound` each, and STOP and START take effect at once.
//!
//! STOP shuts the phone off from marketing, whoever's it is, and is written into the consent of every contact with this
//! phone; START is the reverse. Both can be done again without a difference, so a redelivered batch does no harm.

use std::collections::HashMap;

use bus::NewRecord;
use domain::{Consent, Phone, phone::PhoneKey};
use events::{Inbound, Topic};
use gateways::key::sender;
use jiff::Timestamp;
use store::{StoreError, Tx, contacts::ContactChange, suppressions::Scope};
use uuid::Uuid;

use crate::keywords::{self, Keyword};

/// A reply of a batch.
pub(crate) struct Reply {
    pub(crate) input: usize,
    pub(crate) id: Uuid,
    pub(crate) gateway: String,
    pub(crate) received_at: Timestamp,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) text: String,
    /// One of several texts that belong together: never a keyword by itself.
    pub(crate) is_part: bool,
}

/// Who a change of consent is recorded by.
const BY: &str = "reply";

pub(crate) async fn take<'a>(
    replies: Vec<Reply>,
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
    for (reply, phone) in replies.iter().zip(&phones) {
        let hash = key.hash(phone);
        let contacts = owners.get(phone.e164()).map(Vec::as_slice).unwrap_or_default();
        let keyword = match reply.is_part {
            true => None,
            false => keywords::keyword(&reply.text),
        };
        match keyword {
            Some(Keyword::Stop) => {
                tx.suppression_put(&hash, Scope::Marketing, BY, reply.received_at)
                    .await?;
                consents.extend(contacts.iter().map(|id| (id.as_str(), Consent::No)));
            }
            Some(Keyword::Start) => {
                tx.suppression_lift(&hash).await?;
                let given = Consent::Given(Some(reply.received_at));
                consents.extend(contacts.iter().map(|id| (id.as_str(), given)));
            }
            Some(Keyword::Help | Keyword::Contact) | None => {}
        }
        // Two contacts may share a phone: the reply belongs to the one that was written to last.
        let contact = contacts
            .iter()
            .find(|id| last.contains_key(*id))
            .or_else(|| contacts.first());
        let hash = hex(&hash);
        let record = Inbound {
            id: reply.id,
            contact_id: contact.cloned(),
            phone_hash: hash.clone(),
            gateway: reply.gateway.clone(),
            to: reply.to.chars().take(20).collect(),
            keyword: keyword.map(|keyword| keyword.as_str().to_owned()),
            needs_review: keywords::needs_review(&reply.text),
            received_at: reply.received_at,
            in_reply_to: contact.and_then(|id| last.get(id)).copied(),
        };
        let word = keyword.map_or("none", Keyword::as_str);
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
