//! Golden files: the bytes of every record and of its envelope, as they were once written, under `golden/`.
//!
//! Old records must be readable for ever and analysts rely on the fields, so a file is never changed: a new field makes a
//! new file beside it. A kind without a file fails here.

use std::{fs, path::PathBuf};

use domain::{Cause, Class, Phone, Reason, State};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{Callback, Click, DeadLetter, Envelope, Inbound, Job, Outbound, Receipt, Record, Timer};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn at(second: i64) -> Timestamp {
    Timestamp::new(1_780_000_000 + second, 123_456_000).unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => panic!("an object"),
    }
}

fn trigger() -> Cause {
    Cause::Trigger {
        trigger: "order-confirmation".into(),
        event_source: "shop".into(),
        event_id: "o-1".into(),
    }
}

/// What is written today equals the file, and the file is read as what it was written from.
fn check<R: Record + PartialEq + std::fmt::Debug>(record: &R) {
    check_file(record, &format!("{}.json", R::KIND));
}

fn check_file<R: Record + PartialEq + std::fmt::Debug>(record: &R, name: &str) {
    let golden = fs::read(path(name)).unwrap_or_else(|_| {
        panic!(
            "golden/{name} is missing; it would be\n{}",
            String::from_utf8_lossy(&record.to_bytes())
        )
    });
    let golden = golden.trim_ascii_end();
    assert_eq!(
        String::from_utf8_lossy(&record.to_bytes()),
        String::from_utf8_lossy(golden),
        "{name}"
    );
    assert_eq!(&R::from_bytes(R::KIND, golden).unwrap(), record, "{name}");
    // A field of a later version is passed over; a later version of the record is refused.
    let mut wider: Map<String, Value> = serde_json::from_slice(golden).unwrap();
    wider.insert("added_later".into(), json!(1));
    assert_eq!(
        &R::from_bytes(R::KIND, &serde_json::to_vec(&wider).unwrap()).unwrap(),
        record
    );
    let next = R::KIND.replace(".v1", ".v2");
    assert!(R::from_bytes(&next, golden).unwrap_err().to_string().contains(&next));
}

#[test]
fn every_record_is_as_it_was() {
    let (message_id, contact_id) = (Uuid::from_u128(7), "42".to_owned());
    check(&Job {
        message_id,
        contact_id: contact_id.clone(),
        cause: Cause::Campaign {
            campaign_id: "c-1".into(),
        },
        template: "flash-sale".into(),
        caused_at: at(0),
        planned_at: at(1),
        deadline: Some(at(3_600)),
        event: object(json!({"amount": 49.9, "category": "shoes"})),
        values: object(json!({"article": "chaussures d'été"})),
        deferrals: 1,
        suppress: Some(Reason::Budget),
        phone: None,
    });
    check(&Timer {
        trigger: "cart-reminder".into(),
        contact_id: contact_id.clone(),
        event_id: "c-9".into(),
        event_source: "shop".into(),
        event_type: "cart.updated".into(),
        event_time: at(0),
        data: object(json!({"total": 12})),
    });
    check(&Outbound {
        message_id,
        contact_id: contact_id.clone(),
        cause: Cause::Direct {
            idempotency_key: "k-1".into(),
        },
        class: Class::Transactional,
        phone: Phone::from_e164("+262692123456"),
        sender: "BOUTIQUE".into(),
        text: "O'Brien & Söhne <5 \"{é\"".into(),
        encoding: "GSM-7".into(),
        parts: 1,
        template: "hello".into(),
        variant: Some("a".into()),
        language: Some("fr".into()),
        time_zone: Some("Indian/Reunion".into()),
        caused_at: at(0),
        planned_at: at(1),
        rendered_at: at(2),
        deadline: None,
        cost_micros: 45_000,
        attempt: 2,
        purpose: None,
    });
    check(&Callback {
        gateway: "main".into(),
        transport: "http".into(),
        received_at: at(5),
        meta: object(json!({"method": "POST"})),
        body: b"id=1&stat=DELIVRD\xff".to_vec(),
    });
    check(&Receipt {
        message_id,
        contact_id: contact_id.clone(),
        cause: trigger(),
        class: Class::Marketing,
        state: State::Failed,
        reason: Some(Reason::Undeliverable),
        gateway_code: Some("UNDELIV/012".into()),
        template: "order-confirmation".into(),
        variant: None,
        gateway: Some("main".into()),
        encoding: Some("UCS-2".into()),
        parts: 2,
        cost_micros: 90_000,
        phone_hash: Some("00ff".into()),
        at: at(9),
        caused_at: at(0),
        planned_at: Some(at(1)),
        rendered_at: Some(at(2)),
        accepted_at: Some(at(3)),
        claimed_at: None,
        latency_ms: None,
        delivery_ms: None,
        decided_by: None,
    });
    check(&Inbound {
        id: Uuid::from_u128(8),
        contact_id: Some(contact_id.clone()),
        phone_hash: "00ff".into(),
        gateway: "main".into(),
        to: "36200".into(),
        keyword: Some("stop".into()),
        needs_review: false,
        received_at: at(10),
        in_reply_to: Some(message_id),
        parts: None,
    });
    check(&Click {
        id: Uuid::from_u128(10),
        contact_id: contact_id.clone(),
        message_id,
        code: "0aZ9bY8cX7d".into(),
        url: "https://shop.example/offer".into(),
        at: at(12),
    });
    check(&DeadLetter {
        id: Uuid::from_u128(9),
        stage: "renderer".into(),
        topic: "jobs".into(),
        partition: 3,
        offset: 17,
        reason: "malformed".into(),
        failed_at: at(11),
        key: contact_id,
        headers: vec![("ce_id".into(), "x".into())],
        value: vec![0, 1, 255],
    });
}

/// Fields that were added since: each record as it was first, above, is still read.
#[test]
fn records_with_fields_that_were_added_are_as_they_were() {
    check_file(
        &Job {
            message_id: Uuid::from_u128(7),
            contact_id: "00ff".into(),
            cause: Cause::Direct {
                idempotency_key: "reply:r-1".into(),
            },
            template: "stopped".into(),
            caused_at: at(0),
            planned_at: at(0),
            deadline: None,
            event: Map::new(),
            values: Map::new(),
            deferrals: 0,
            suppress: None,
            phone: Some(Phone::from_e164("+262692123456")),
        },
        "tamtam.job.v1.2.json",
    );
    check_file(
        &Receipt {
            message_id: Uuid::from_u128(7),
            contact_id: "42".into(),
            cause: trigger(),
            class: Class::Transactional,
            state: State::Delivered,
            reason: None,
            gateway_code: Some("DELIVRD".into()),
            template: "order-confirmation".into(),
            variant: None,
            gateway: Some("main".into()),
            encoding: Some("GSM-7".into()),
            parts: 1,
            cost_micros: 45_000,
            phone_hash: Some("00ff".into()),
            at: at(9),
            caused_at: at(0),
            planned_at: Some(at(1)),
            rendered_at: Some(at(2)),
            claimed_at: Some(at(3)),
            accepted_at: Some(at(4)),
            latency_ms: Some(4_000),
            delivery_ms: Some(5_000),
            decided_by: None,
        },
        "tamtam.receipt.v1.2.json",
    );
    check_file(
        &Receipt {
            message_id: Uuid::from_u128(7),
            contact_id: "42".into(),
            cause: trigger(),
            class: Class::Marketing,
            state: State::Deferred,
            reason: Some(Reason::QuietHours),
            gateway_code: None,
            template: "flash-sale".into(),
            variant: None,
            gateway: None,
            encoding: None,
            parts: 0,
            cost_micros: 0,
            phone_hash: Some("00ff".into()),
            at: at(9),
            caused_at: at(0),
            planned_at: Some(at(1)),
            rendered_at: None,
            claimed_at: None,
            accepted_at: None,
            latency_ms: None,
            delivery_ms: None,
            decided_by: Some("policy 7, territories 2026-11-24".into()),
        },
        "tamtam.receipt.v1.3.json",
    );
    check_file(
        &Outbound {
            message_id: Uuid::from_u128(7),
            contact_id: "42".into(),
            cause: trigger(),
            class: Class::Marketing,
            phone: Phone::from_e164("+262692123456"),
            sender: "BOUTIQUE".into(),
            text: "Votre lettre".into(),
            encoding: "GSM-7".into(),
            parts: 1,
            template: "newsletter".into(),
            variant: None,
            language: None,
            time_zone: None,
            caused_at: at(0),
            planned_at: at(1),
            rendered_at: at(2),
            deadline: None,
            cost_micros: 0,
            attempt: 0,
            purpose: Some("newsletter".into()),
        },
        "tamtam.outbound.v1.2.json",
    );
    check_file(
        &Inbound {
            id: Uuid::from_u128(8),
            contact_id: None,
            phone_hash: "00ff".into(),
            gateway: "main".into(),
            to: "36200".into(),
            keyword: None,
            needs_review: true,
            received_at: at(10),
            in_reply_to: None,
            parts: Some(2),
        },
        "tamtam.inbound.v1.2.json",
    );
}

#[test]
fn the_envelope_is_as_it_was() {
    let envelope = Envelope {
        id: "o-1".into(),
        source: "shop".into(),
        kind: "order.placed".into(),
        time: Some(at(0)),
        subject: Some("42".into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
    };
    let golden = fs::read_to_string(path("envelope.headers")).unwrap();
    let written: String = envelope
        .clone()
        .into_headers()
        .into_iter()
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    assert_eq!(written, golden);
    let read: Vec<crate::Header> = golden
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (crate::text(name), crate::text(value)))
        .collect();
    assert_eq!(Envelope::from_headers(&read).unwrap(), envelope);
}

/// A record that gets a schema gets a file.
#[test]
fn every_schema_has_its_file() {
    for topic in crate::Topic::ALL {
        let schema = topic.spec().schema;
        // A business event's value is its own.
        if schema.starts_with("tamtam.") {
            assert!(path(&format!("{schema}.json")).exists(), "golden/{schema}.json");
        }
    }
}
