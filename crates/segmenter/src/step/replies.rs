//! Replies, as events of the contact's history: `sms.replied`, with the message that was answered and the keyword. So
//! `did sms.replied(keyword = "points") within 7 days` works in audiences, and a trigger can start on one.

use events::{BusinessEvent, Inbound, Record as _};
use serde_json::{Map, json};
use stage::Input;

use super::item::micros;

/// The event's type.
const REPLIED: &str = "sms.replied";

/// Reads a record of `inbound`; `None`: nobody that we know sent it. The error is a dead letter's reason.
pub(super) fn read(input: &Input) -> Result<Option<BusinessEvent>, String> {
    let inbound = Inbound::from_bytes(&input.envelope.kind, &input.value).map_err(|error| error.to_string())?;
    let Some(contact_id) = inbound.contact_id else {
        return Ok(None);
    };
    if contact_id.is_empty() || contact_id != input.key {
        return Err("the record's key is not the reply's contact id".into());
    }
    let mut data = Map::new();
    if let Some(message) = inbound.in_reply_to {
        data.insert("message_id".into(), json!(message.hyphenated().to_string()));
    }
    if let Some(keyword) = inbound.keyword {
        data.insert("keyword".into(), json!(keyword));
    }
    data.insert("needs_review".into(), json!(inbound.needs_review));
    data.insert("gateway".into(), json!(inbound.gateway));
    data.insert("to".into(), json!(inbound.to));
    Ok(Some(BusinessEvent {
        id: inbound.id.hyphenated().to_string(),
        source: "tamtam".into(),
        kind: REPLIED.into(),
        contact_id,
        time: micros(inbound.received_at),
        data,
    }))
}

#[cfg(test)]
mod tests {
    use events::Envelope;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_reply_is_an_event_of_its_contact_and_a_strangers_is_none() {
        let mut inbound = Inbound {
            id: Uuid::from_u128(1),
            contact_id: Some("42".into()),
            phone_hash: "00ff".into(),
            gateway: "main".into(),
            to: "36105".into(),
            keyword: Some("points".into()),
            needs_review: false,
            received_at: "2026-06-01T10:00:00.123456789Z".parse().unwrap(),
            in_reply_to: Some(Uuid::from_u128(2)),
            parts: None,
        };
        let input = |inbound: &Inbound, key: &str| Input {
            partition: bus::Partition {
                topic: events::Topic::Inbound,
                number: 0,
            },
            offset: 0,
            key: key.into(),
            envelope: Envelope {
                id: inbound.id.to_string(),
                source: "tamtam".into(),
                kind: Inbound::KIND.into(),
                time: Some(inbound.received_at),
                subject: Some(key.into()),
                traceparent: None,
            },
            value: inbound.to_bytes(),
        };
        let event = read(&input(&inbound, "42")).unwrap().unwrap();
        assert_eq!((event.kind.as_str(), event.contact_id.as_str()), ("sms.replied", "42"));
        assert_eq!(event.time.to_string(), "2026-06-01T10:00:00.123456Z");
        assert_eq!(event.data["keyword"], "points");
        assert_eq!(event.data["message_id"], "00000000-0000-0000-0000-000000000002");
        assert!(read(&input(&inbound, "43")).is_err());
        inbound.contact_id = None;
        assert_eq!(read(&input(&inbound, "00ff")), Ok(None));
    }
}
