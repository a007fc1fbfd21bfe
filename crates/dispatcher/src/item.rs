//! A record on its way: read once, checked for everything that later steps rely on.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bus::{NewRecord, StoredRecord};
use domain::{Cause, phone::PhoneKey, sms::Encoding};
use events::{Envelope, Record, record::Outbound};
use jiff::Timestamp;
use stage::trace::{self, RecordTrace};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{dead, offsets::Token};

/// A text to be sent. It is handed on from queue to queue, which copies an address this way and not all of it.
pub(crate) type Item = Box<Outgoing>;

#[derive(Debug)]
pub(crate) struct Outgoing {
    pub token: Token,
    pub record: Outbound,
    pub encoding: Encoding,
    pub phone_hash: Vec<u8>,
    pub campaign: Option<Uuid>,
    /// Its own span, and what its receipts carry on.
    pub trace: RecordTrace,
    /// Since when it waits for a gateway that is up.
    pub waits_since: Option<Instant>,
    /// A claim of it was not answered by the database.
    pub claimed_perhaps: bool,
}

impl Outgoing {
    /// The dead letter of a record whose bytes are not kept: they are made again.
    pub(crate) fn dead_letter(&self, reason: &str, now: Timestamp) -> NewRecord {
        let topic = self.token.partition.topic;
        let id = self.record.message_id.hyphenated().to_string();
        let trace = Some(self.trace.traceparent());
        let again = NewRecord::wrap(
            topic,
            &self.record.contact_id,
            id,
            self.record.rendered_at,
            trace,
            &self.record,
        );
        let stored = StoredRecord {
            offset: self.token.offset,
            timestamp_ms: now.as_millisecond(),
            key: again.key,
            headers: again.headers,
            value: again.value,
        };
        dead::letter(self.token.partition, &stored, reason, now)
    }
}

/// The most parts of one message: the concatenation header counts in one byte (3GPP 23.040, 9.2.3.24.1).
const MAX_PARTS: u16 = 255;

/// Reads a record; the reason why it cannot be sent repeats nothing of it.
pub(crate) fn read(token: Token, stored: &StoredRecord, key: &PhoneKey) -> Result<Item, String> {
    let envelope = Envelope::from_headers(&stored.headers).map_err(|error| error.to_string())?;
    let record = Outbound::from_bytes(&envelope.kind, &stored.value).map_err(|error| error.to_string())?;
    let encoding: Encoding = record
        .encoding
        .parse()
        .map_err(|_| "field `encoding` is none of ours: expected GSM-7 or UCS-2".to_owned())?;
    if !(1..=MAX_PARTS).contains(&record.parts) {
        return Err(format!("field `parts` is {}: expected 1 to {MAX_PARTS}", record.parts));
    }
    if record.attempt >= i32::MAX as u32 {
        return Err("field `attempt` is out of range".into());
    }
    if record.text.is_empty() || record.sender.is_empty() {
        return Err("field `text` or `sender` is empty".into());
    }
    let campaign = match &record.cause {
        Cause::Campaign { campaign_id } => Some(
            campaign_id
                .parse()
                .map_err(|_| "field `campaign_id` is no UUID".to_owned())?,
        ),
        _ => None,
    };
    if has_nul(&record) {
        return Err("a field holds a NUL character, which the ledger cannot keep".into());
    }
    let phone_hash = key.hash(&record.phone);
    Ok(Box::new(Outgoing {
        token,
        encoding,
        phone_hash,
        campaign,
        trace: trace::continue_from(crate::GROUP, envelope.traceparent.as_deref(), &envelope.id),
        record,
        waits_since: None,
        claimed_perhaps: false,
    }))
}

fn has_nul(record: &Outbound) -> bool {
    let cause = match &record.cause {
        Cause::Trigger {
            trigger,
            event_source,
            event_id,
        } => [trigger.as_str(), event_source, event_id],
        Cause::Campaign { campaign_id } => [campaign_id.as_str(), "", ""],
        Cause::Direct { idempotency_key } => [idempotency_key.as_str(), "", ""],
    };
    let others = [
        record.contact_id.as_str(),
        &record.template,
        record.variant.as_deref().unwrap_or_default(),
    ];
    cause.iter().chain(&others).any(|text| text.contains('\0'))
}

/// The messages that are under way here, each at most once. A second record of one (a repeat by the renderer, or the
/// partition came back while the first was in flight) waits until the first is written, and then finds its outcome in the
/// ledger.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Uuid, VecDeque<Item>>>);

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, VecDeque<Item>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the item back when it is the first of its message.
    pub(crate) fn enter(&self, item: Item) -> Option<Item> {
        match self.lock().entry(item.record.message_id) {
            std::collections::hash_map::Entry::Occupied(mut waiting) => {
                waiting.get_mut().push_back(item);
                None
            }
            std::collections::hash_map::Entry::Vacant(first) => {
                first.insert(VecDeque::new());
                Some(item)
            }
        }
    }

    /// The message's first record is done with; the next one, if any, takes its place.
    pub(crate) fn leave(&self, message: Uuid) -> Option<Item> {
        let mut flights = self.lock();
        let waiting = flights.get_mut(&message)?;
        let next = waiting.pop_front();
        if next.is_none() {
            flights.remove(&message);
        }
        next
    }
}

#[cfg(test)]
pub(crate) mod sample {
    use domain::{Class, Phone, State};
    use store::messages::MessageRow;

    use super::*;

    pub(crate) fn outbound(class: Class) -> Outbound {
        let at = Timestamp::from_second(1_000).unwrap();
        Outbound {
            message_id: Uuid::from_u128(1),
            contact_id: "42".into(),
            cause: Cause::Direct {
                idempotency_key: "k".into(),
            },
            class,
            phone: Phone::from_e164("+262692000000"),
            sender: "BOUTIQUE".into(),
            text: "Bonjour".into(),
            encoding: "GSM-7".into(),
            parts: 1,
            template: "t".into(),
            variant: None,
            language: None,
            time_zone: None,
            caused_at: at,
            planned_at: at,
            rendered_at: at,
            deadline: None,
            cost_micros: 0,
            attempt: 0,
            purpose: None,
        }
    }

    /// The row of its first claim.
    pub(crate) fn claimed_row(item: &Item) -> MessageRow {
        let record = &item.record;
        MessageRow {
            contact_id: record.contact_id.clone(),
            message_id: record.message_id,
            class: record.class,
            state: State::Sending,
            reason: None,
            gateway_code: None,
            cause: record.cause.clone(),
            template: record.template.clone(),
            variant: None,
            encoding: Some(record.encoding.clone()),
            parts: record.parts,
            cost_micros: 0,
            phone_hash: None,
            gateway: Some("main".into()),
            owner: None,
            epoch: None,
            attempt: 1,
            caused_at: record.caused_at,
            planned_at: record.planned_at,
            rendered_at: Some(record.rendered_at),
            claimed_at: Some(record.rendered_at),
            accepted_at: None,
            settled_at: None,
            changed_at: record.rendered_at,
            decided_by: None,
            purpose: None,
            traceparent: None,
        }
    }
}
