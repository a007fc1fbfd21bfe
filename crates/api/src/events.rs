//! Publishing business events: each is checked by itself, and what is good goes onto the bus before the answer.
//!
//! The checks: ids, source and contact id of 1 to 200 characters without control characters; a type of 1 to 200 ASCII
//! letters, digits, `.`, `_`, `-` that is not tamtam's own; a time from 1970 up to a day from now (a clock or a time zone
//! that is wrong, not a year 9999, is what a day forgives); data of up to 256 KiB without NUL, which PostgreSQL cannot
//! keep. A contact that is not known is no error: it may come later.

use bus::NewRecord;
use domain::MessageId;
use events::{Envelope, Topic};
use jiff::{SignedDuration, Timestamp};

use crate::{Api, ApiError, Caller, Role, trace::of_record};

/// Events in one call.
pub const MAX_BATCH: usize = 10_000;
/// An event's data as JSON.
pub const MAX_DATA_BYTES: usize = 256 * 1024;
const MAX_ID_CHARS: usize = 200;
/// What is handed to the bus in one append.
const APPEND_BYTES: usize = 8 * 1024 * 1024;

/// An event as a transport read it. Nothing of it was checked but that `data` is a JSON object.
#[derive(Clone, PartialEq, Default)]
pub struct NewEvent {
    pub id: String,
    pub source: String,
    pub kind: String,
    pub contact_id: String,
    /// Absent: the moment of its arrival.
    pub time: Option<Timestamp>,
    /// A JSON object, serialized; empty: `{}`.
    pub data: Vec<u8>,
}

impl std::fmt::Debug for NewEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewEvent")
            .field("source", &self.source)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// What was wrong with one item of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemError {
    /// Stable, for programs.
    pub code: &'static str,
    pub field: &'static str,
    /// For people; it never repeats what was sent.
    pub message: String,
}

impl ItemError {
    pub fn new(code: &'static str, field: &'static str, message: impl Into<String>) -> ItemError {
        ItemError {
            code,
            field,
            message: message.into(),
        }
    }
}

/// A batch after its checks.
#[derive(Debug, Default)]
pub struct Checked {
    /// What is to be appended.
    pub records: Vec<NewRecord>,
    /// One an item, in their order.
    pub results: Vec<Result<(), ItemError>>,
}

impl Api {
    /// Publishes a batch; the answer has one result an item, in their order, and comes when all that were accepted are
    /// durable. An item that the transport could not read comes as its error.
    pub async fn events_publish(
        &self,
        caller: &Caller,
        items: Vec<Result<NewEvent, ItemError>>,
        trace: Option<&str>,
    ) -> Result<Vec<Result<(), ItemError>>, ApiError> {
        let checked = self.events_check(caller, items, trace)?;
        self.events_append(checked.records).await?;
        Ok(checked.results)
    }

    /// The first half of publishing: no waiting. What is accepted is acknowledged only after [`Api::events_append`].
    pub fn events_check(
        &self,
        caller: &Caller,
        items: Vec<Result<NewEvent, ItemError>>,
        trace: Option<&str>,
    ) -> Result<Checked, ApiError> {
        caller.require(&[Role::Events])?;
        if items.len() > MAX_BATCH {
            return Err(ApiError::invalid(
                "events",
                format!("{} events in one call: expected up to {MAX_BATCH}", items.len()),
            ));
        }
        let now = self.clock.now();
        let mut results = Vec::with_capacity(items.len());
        let mut records = Vec::with_capacity(items.len());
        for item in items {
            results.push(item.and_then(|event| {
                check(&event, now)?;
                records.push(self.to_record(event, now, trace));
                Ok(())
            }));
        }
        metrics::counter!("tamtam_events_accepted_total").increment(records.len() as u64);
        metrics::counter!("tamtam_events_rejected_total").increment((results.len() - records.len()) as u64);
        Ok(Checked { records, results })
    }

    /// The second half: returns when all are durable. Records of several checks may come in one append, in their order.
    pub async fn events_append(&self, mut records: Vec<NewRecord>) -> Result<(), ApiError> {
        while !records.is_empty() {
            let mut bytes = 0;
            let whole = records.iter().position(|record| {
                bytes += record.value.len();
                bytes >= APPEND_BYTES
            });
            let rest = whole.map_or_else(Vec::new, |last| records.split_off(last + 1));
            self.log.append(records).await?;
            records = rest;
        }
        Ok(())
    }

    /// Whether a new trace is sampled.
    pub(crate) fn sampled(&self) -> bool {
        self.sample_ratio > 0.0 && rand::random::<f64>() < self.sample_ratio
    }

    fn to_record(&self, event: NewEvent, now: Timestamp, trace: Option<&str>) -> NewRecord {
        let trace = of_record(trace, self.sampled(), &event.id);
        let envelope = Envelope {
            id: event.id,
            source: event.source,
            kind: event.kind,
            time: Some(event.time.unwrap_or(now)),
            subject: Some(event.contact_id.clone()),
            traceparent: Some(trace),
        };
        NewRecord {
            topic: Topic::Events,
            key: event.contact_id,
            headers: envelope.into_headers(),
            value: if event.data.is_empty() {
                b"{}".to_vec()
            } else {
                event.data
            },
        }
    }
}

/// Whether an event may go onto the bus.
pub fn check(event: &NewEvent, now: Timestamp) -> Result<(), ItemError> {
    check_id("id", &event.id)?;
    check_id("source", &event.source)?;
    check_id("contact_id", &event.contact_id)?;
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if event.kind.is_empty() {
        return Err(ItemError::new(
            "missing",
            "type",
            "expected an event type such as `order.placed`",
        ));
    }
    if event.kind.len() > 200 || !event.kind.bytes().all(good) {
        return Err(ItemError::new(
            "bad_value",
            "type",
            "expected an event type such as `order.placed`: 1 to 200 letters, digits, `.`, `_` or `-` (ASCII)",
        ));
    }
    if event.kind.starts_with("tamtam.") {
        return Err(ItemError::new(
            "reserved",
            "type",
            "types that begin with `tamtam.` are tamtam's own: expected another",
        ));
    }
    if let Some(time) = event.time {
        let latest = now
            .checked_add(SignedDuration::from_hours(24))
            .unwrap_or(Timestamp::MAX);
        if time < Timestamp::UNIX_EPOCH || time > latest {
            return Err(ItemError::new(
                "out_of_range",
                "time",
                format!("expected a time from 1970-01-01T00:00:00Z up to a day from now ({latest:.0})"),
            ));
        }
    }
    if event.data.len() > MAX_DATA_BYTES {
        return Err(ItemError::new(
            "too_large",
            "data",
            format!(
                "{} bytes of data as JSON: expected up to {MAX_DATA_BYTES}",
                event.data.len()
            ),
        ));
    }
    if has_nul(&event.data) {
        return Err(ItemError::new(
            "bad_value",
            "data",
            "a NUL character (\\u0000) cannot be kept: expected text without it",
        ));
    }
    Ok(())
}

/// An id of a system outside: any text of a bounded length without control characters.
pub fn check_id(field: &'static str, id: &str) -> Result<(), ItemError> {
    if id.is_empty() {
        return Err(ItemError::new(
            "missing",
            field,
            format!("`{field}` is missing or empty"),
        ));
    }
    // Most ids are far shorter in bytes than the limit in characters; only the others are counted.
    if id.len() > MAX_ID_CHARS && id.chars().count() > MAX_ID_CHARS {
        return Err(ItemError::new(
            "too_long",
            field,
            format!("expected 1 to {MAX_ID_CHARS} characters"),
        ));
    }
    if id.chars().any(char::is_control) {
        return Err(ItemError::new(
            "bad_value",
            field,
            "a control character cannot stand in an id: expected text without it",
        ));
    }
    Ok(())
}

/// Whether JSON holds an escaped NUL (a bare one is no JSON). An escaped backslash before `u0000` is none.
pub(crate) fn has_nul(json: &[u8]) -> bool {
    let mut escaped = false;
    for (at, byte) in json.iter().enumerate() {
        if escaped {
            escaped = false;
            if *byte == b'u' && json[at + 1..].starts_with(b"0000") {
                return true;
            }
        } else {
            escaped = *byte == b'\\';
        }
    }
    false
}

/// The id of a direct message; here because gRPC and HTTP both name it before the job is written.
pub(crate) fn direct_message_id(idempotency_key: &str, contact_id: &str) -> MessageId {
    MessageId::derive(
        &domain::Cause::Direct {
            idempotency_key: idempotency_key.to_owned(),
        },
        contact_id,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> NewEvent {
        NewEvent {
            id: "e1".into(),
            source: "shop".into(),
            kind: "order.placed".into(),
            contact_id: "42".into(),
            time: None,
            data: b"{}".to_vec(),
        }
    }

    #[test]
    fn each_bad_field_is_named() {
        let now: Timestamp = "2026-06-01T10:00:00Z".parse().unwrap();
        let with = |change: fn(&mut NewEvent)| {
            let mut event = event();
            change(&mut event);
            check(&event, now).map_err(|error| (error.code, error.field))
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|event| event.id.clear()), Err(("missing", "id")));
        assert_eq!(
            with(|event| event.source = "é".repeat(201)),
            Err(("too_long", "source"))
        );
        assert_eq!(with(|event| event.source = "é".repeat(200)), Ok(()));
        assert_eq!(
            with(|event| event.contact_id = "a\0".into()),
            Err(("bad_value", "contact_id"))
        );
        assert_eq!(
            with(|event| event.kind = "order placed".into()),
            Err(("bad_value", "type"))
        );
        assert_eq!(
            with(|event| event.kind = "tamtam.timer.v1".into()),
            Err(("reserved", "type"))
        );
        let at = |text: &str| {
            let event = NewEvent {
                time: Some(text.parse().unwrap()),
                ..event()
            };
            check(&event, now).map_err(|error| (error.code, error.field))
        };
        assert_eq!(at("9999-12-30T00:00:00Z"), Err(("out_of_range", "time")));
        assert_eq!(at("1969-12-31T23:59:59Z"), Err(("out_of_range", "time")));
        assert_eq!(at("2026-06-02T09:59:59Z"), Ok(()));
        assert_eq!(at("2026-06-02T10:00:01Z"), Err(("out_of_range", "time")));
        assert_eq!(
            with(|event| event.data = vec![b' '; MAX_DATA_BYTES + 1]),
            Err(("too_large", "data"))
        );
        assert_eq!(
            with(|event| event.data = br#"{"a":"\u0000"}"#.to_vec()),
            Err(("bad_value", "data"))
        );
        assert_eq!(with(|event| event.data = br#"{"a":"\\u0000"}"#.to_vec()), Ok(()));
    }
}
