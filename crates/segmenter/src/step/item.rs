//! What a record on `events` is: a business event, a change of a contact, or a trigger's timer.

use domain::contact::ContactChange;
use events::{BusinessEvent, Record as _, Timer};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use stage::Input;

const MAX_ID_CHARS: usize = 200;

/// A record, read and checked.
#[derive(Debug)]
pub(super) enum Item {
    Event(BusinessEvent),
    /// `contact.updated`
    Changed(Box<ContactChange>),
    /// `contact.erased`: the contact's id.
    Erased(String),
    Timer(Timer),
}

/// Reads a record; the error is a dead letter's reason and repeats nothing of what was sent.
pub(super) fn read(input: &Input, now: Timestamp, region: Option<&str>) -> Result<Item, String> {
    let kind = input.envelope.kind.as_str();
    if kind.starts_with("tamtam.") {
        if kind != Timer::KIND {
            let shown: String = kind.chars().take(100).collect();
            return Err(format!(
                "`ce_type` is `{shown}`: expected a business event's type or `{}`",
                Timer::KIND
            ));
        }
        return Timer::from_bytes(kind, &input.value)
            .map(Item::Timer)
            .map_err(|error| error.to_string());
    }
    let contact_id = match &input.envelope.subject {
        Some(subject) => subject.as_str(),
        None => input.key.as_str(),
    };
    if contact_id.is_empty() {
        return Err("neither `ce_subject` nor the key names a contact: expected the contact's id".into());
    }
    for (name, text) in [
        ("ce_subject", contact_id),
        ("ce_id", &input.envelope.id),
        ("ce_source", &input.envelope.source),
        ("ce_type", kind),
    ] {
        if text.chars().count() > MAX_ID_CHARS || text.chars().any(char::is_control) {
            return Err(format!(
                "`{name}` is too long or holds a control character: expected 1 to {MAX_ID_CHARS} characters"
            ));
        }
    }
    let time = input.envelope.time.unwrap_or(now);
    let latest = now
        .checked_add(SignedDuration::from_hours(24))
        .unwrap_or(Timestamp::MAX);
    if time < Timestamp::UNIX_EPOCH || time > latest {
        return Err(format!(
            "`ce_time` is out of range: expected a time from 1970-01-01T00:00:00Z up to a day from now ({latest:.0})"
        ));
    }
    let data = data(&input.value)?;
    match kind {
        "contact.updated" => ContactChange::from_json(contact_id, &data, region)
            .map(|change| Item::Changed(Box::new(change)))
            .map_err(|error| error.to_string()),
        "contact.erased" => Ok(Item::Erased(contact_id.to_owned())),
        _ => Ok(Item::Event(BusinessEvent {
            id: input.envelope.id.clone(),
            source: input.envelope.source.clone(),
            kind: kind.to_owned(),
            contact_id: contact_id.to_owned(),
            time: micros(time),
            data,
        })),
    }
}

/// An event without data is one with none: `{}`.
fn data(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    let data = match serde_json::from_slice(bytes) {
        Ok(Value::Object(data)) => data,
        Ok(_) => return Err("the data is no JSON object: expected one such as `{\"amount\": 12.5}`".into()),
        Err(error) => {
            return Err(format!(
                "the data is malformed JSON ({:?} error at line {} column {}): expected a JSON object",
                error.classify(),
                error.line(),
                error.column()
            ));
        }
    };
    if data.iter().any(|(name, value)| name.contains('\0') || has_nul(value)) {
        return Err("a NUL character (\\u0000) in the data cannot be kept: expected text without it".into());
    }
    Ok(data)
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// As PostgreSQL keeps it, so that what is decided again from the log is the same to the byte.
pub(super) fn micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use events::Envelope;

    use super::*;

    fn input(change: impl FnOnce(&mut Input)) -> Input {
        let mut input = Input {
            partition: bus::Partition {
                topic: events::Topic::Events,
                number: 0,
            },
            offset: 0,
            key: "42".into(),
            envelope: Envelope {
                id: "e1".into(),
                source: "shop".into(),
                kind: "order.placed".into(),
                time: Some("2026-06-01T10:00:00.123456789Z".parse().unwrap()),
                subject: Some("42".into()),
                traceparent: None,
            },
            value: br#"{"amount": 12.5}"#.to_vec(),
        };
        change(&mut input);
        input
    }

    fn of(input: &Input) -> Result<Item, String> {
        read(input, "2026-06-01T12:00:00Z".parse().unwrap(), Some("RE"))
    }

    #[test]
    fn an_event_is_read_to_the_microsecond() {
        let Ok(Item::Event(event)) = of(&input(|_| {})) else {
            panic!()
        };
        assert_eq!(event.time.to_string(), "2026-06-01T10:00:00.123456Z");
        assert_eq!(event.data["amount"], 12.5);
        let Ok(Item::Event(event)) = of(&input(|input| {
            input.envelope.subject = None;
            input.value.clear();
        })) else {
            panic!()
        };
        assert_eq!((event.contact_id.as_str(), event.data.len()), ("42", 0));
    }

    #[test]
    fn a_change_of_a_contact_names_its_bad_field_and_not_the_value() {
        let change = |data: &str| {
            of(&input(|input| {
                input.envelope.kind = "contact.updated".into();
                input.value = data.as_bytes().to_vec();
            }))
        };
        let Ok(Item::Changed(change_made)) = change(r#"{"phone": "0692 12 34 56", "city": null, "size": 38}"#) else {
            panic!()
        };
        assert_eq!(change_made.phone.unwrap().unwrap().e164(), "+262692123456");
        assert_eq!((change_made.city, change_made.region), (Some(None), None));
        for (data, field) in [
            (r#"{"phone": "555-0199"}"#, "phone"),
            (r#"{"birth_date": "31/03/0199"}"#, "birth_date"),
            (r#"{"basket": {"a": "0199"}}"#, "basket"),
        ] {
            let reason = change(data).unwrap_err();
            assert!(reason.contains(field) && !reason.contains("0199"), "{reason}");
        }
    }

    #[test]
    fn each_kind_of_bad_record_says_what_is_wrong() {
        let reason = |change: fn(&mut Input)| of(&input(change)).map(|_| ()).unwrap_err();
        let said = [
            (reason(|input| input.value = b"{\"a\":".to_vec()), "malformed JSON"),
            (reason(|input| input.value = b"[1]".to_vec()), "no JSON object"),
            (reason(|input| input.value = br#"{"a":["x\u0000"]}"#.to_vec()), "NUL"),
            (
                reason(|input| input.envelope.time = "9999-12-01T00:00:00Z".parse().ok()),
                "out of range",
            ),
            (
                reason(|input| input.envelope.kind = "tamtam.job.v1".into()),
                "tamtam.job.v1",
            ),
            (
                reason(|input| input.envelope.kind = "tamtam.timer.v2".into()),
                "tamtam.timer.v2",
            ),
            (
                reason(|input| input.envelope.kind = "tamtam.timer.v1".into()),
                "malformed tamtam.timer.v1",
            ),
            (reason(|input| input.envelope.id = "x".repeat(201)), "ce_id"),
            (
                reason(|input| {
                    input.envelope.subject = None;
                    input.key.clear();
                }),
                "ce_subject",
            ),
        ];
        for (reason, expected) in said {
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
