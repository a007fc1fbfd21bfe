//! Clicks on short links, as events of the contact's history: `sms.clicked`, with the message and the address. So
//! `did sms.clicked within 7 days` works in audiences, and a trigger can start on one.

use events::{BusinessEvent, Click, Record as _};
use serde_json::{Map, json};
use stage::Input;

use super::item::{Item, micros};

/// The event's type.
const CLICKED: &str = "sms.clicked";

/// Reads a record of `clicks`; the error is a dead letter's reason.
pub(super) fn read(input: &Input) -> Result<Item, String> {
    let click = Click::from_bytes(&input.envelope.kind, &input.value).map_err(|error| error.to_string())?;
    if click.contact_id.is_empty() || click.contact_id != input.key {
        return Err("the record's key is not the click's contact id".into());
    }
    let mut data = Map::new();
    data.insert("message_id".into(), json!(click.message_id.hyphenated().to_string()));
    data.insert("url".into(), json!(click.url));
    Ok(Item::Event(BusinessEvent {
        id: click.id.hyphenated().to_string(),
        source: "tamtam".into(),
        kind: CLICKED.into(),
        contact_id: click.contact_id,
        time: micros(click.at),
        data,
    }))
}

#[cfg(test)]
mod tests {
    use events::Envelope;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_click_is_an_event_of_its_contact() {
        let click = Click {
            id: Uuid::from_u128(1),
            contact_id: "42".into(),
            message_id: Uuid::from_u128(2),
            code: "0123456789A".into(),
            url: "https://shop.example/offer".into(),
            at: "2026-06-01T10:00:00.123456789Z".parse().unwrap(),
        };
        let mut input = Input {
            partition: bus::Partition {
                topic: events::Topic::Clicks,
                number: 0,
            },
            offset: 0,
            key: "42".into(),
            envelope: Envelope {
                id: click.id.to_string(),
                source: "tamtam".into(),
                kind: Click::KIND.into(),
                time: Some(click.at),
                subject: Some("42".into()),
                traceparent: None,
            },
            value: click.to_bytes(),
        };
        let Ok(Item::Event(event)) = read(&input) else { panic!() };
        assert_eq!((event.kind.as_str(), event.contact_id.as_str()), ("sms.clicked", "42"));
        assert_eq!(event.time.to_string(), "2026-06-01T10:00:00.123456Z");
        assert_eq!(event.data["url"], "https://shop.example/offer");
        input.key = "43".into();
        assert!(read(&input).is_err());
        input.envelope.kind = "tamtam.click.v2".into();
        assert!(read(&input).unwrap_err().contains("tamtam.click.v2"));
    }
}
