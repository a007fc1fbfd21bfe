//! The examples for analysts, run on records that the code wrote: kcat, Python and DuckDB. They need a real Kafka.

use std::{path::PathBuf, process::Command};

use ::bus::NewRecord;
use domain::{Cause, Class, Reason, State};
use events::{Receipt, Topic};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{bus, database::database};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Two messages of three that a gateway took are delivered, in 1 and 3 seconds; one is of the control group.
fn receipts(start: Timestamp) -> Vec<Receipt> {
    let receipt = |number: u128, state, reason, accepted: Option<i64>, at: i64| {
        let accepted_at = accepted.map(|seconds| start + SignedDuration::from_secs(seconds));
        let at = start + SignedDuration::from_secs(at);
        Receipt {
            message_id: Uuid::from_u128(number),
            contact_id: format!("c{number}"),
            cause: Cause::Campaign {
                campaign_id: Uuid::from_u128(99).to_string(),
            },
            class: Class::Marketing,
            state,
            reason,
            gateway_code: None,
            template: "sale".into(),
            variant: None,
            gateway: accepted_at.map(|_| "main".into()),
            encoding: Some("GSM-7".into()),
            parts: 1,
            cost_micros: 45_000,
            phone_hash: Some("00ff".into()),
            at,
            caused_at: start,
            planned_at: Some(start),
            rendered_at: None,
            claimed_at: None,
            accepted_at,
            latency_ms: None,
            delivery_ms: None,
            decided_by: None,
        }
    };
    let mut all = Vec::new();
    for (number, seconds) in [(1, 1), (2, 3)] {
        all.push(receipt(number, State::Accepted, None, Some(10), 10));
        all.push(receipt(number, State::Delivered, None, Some(10), 10 + seconds));
    }
    all.push(receipt(3, State::Accepted, None, Some(10), 10));
    all.push(receipt(4, State::Suppressed, Some(Reason::ControlGroup), None, 1));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_for_analysts_give_their_figures() {
    if !bus::is_kafka() {
        // Kafka's own clients are what is tested here: `make test-kafka`.
        return;
    }
    let store = database().await;
    let bus = bus::start(&store).await;
    let kafka = bus.kafka.clone().unwrap();
    let start: Timestamp = "2026-06-01T10:00:00Z".parse().unwrap();
    let receipts = receipts(start);
    let wrap = |receipt: &Receipt| {
        NewRecord::wrap(
            Topic::Receipts,
            &receipt.contact_id,
            receipt.stable_id(),
            receipt.at,
            None,
            receipt,
        )
    };
    // All of them twice, as a crash leaves them.
    let records = receipts.iter().chain(&receipts).map(wrap).collect();
    bus.log.append(records).await.unwrap();
    let event = |contact: &str, kind: &str, day: i64| {
        let time = start + SignedDuration::from_hours(24 * day);
        let envelope = events::Envelope {
            id: format!("{contact}-{kind}"),
            source: "shop".into(),
            kind: kind.into(),
            time: Some(time),
            subject: Some(contact.into()),
            traceparent: None,
        };
        NewRecord {
            topic: Topic::Events,
            key: contact.into(),
            headers: envelope.into_headers(),
            value: b"{}".to_vec(),
        }
    };
    let done = vec![
        event("c1", "order.placed", 1),
        event("c2", "order.placed", 8),
        event("c3", "cart.updated", 1),
        event("c4", "order.placed", 2),
    ];
    bus.log.append(done).await.unwrap();

    let lines = output(
        Command::new(root().join("deploy/analysts/kcat.sh"))
            .env("BROKERS", &kafka.brokers)
            .env("PREFIX", &kafka.prefix),
    );
    let mut ids: Vec<&str> = lines.lines().filter_map(|line| line.split('\t').next()).collect();
    ids.sort_unstable();
    let mut expected: Vec<String> = receipts.iter().map(Receipt::stable_id).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected);

    let told = output(
        Command::new(root().join(".cache/analysts/bin/python"))
            .arg(root().join("deploy/analysts/delivery.py"))
            .args(["--brokers", &kafka.brokers, "--prefix", &kafka.prefix]),
    );
    let report: Value = serde_json::from_str(&told).unwrap();
    let hour = &report["by_hour_and_gateway"][0];
    assert_eq!(
        (&hour["hour"], &hour["gateway"]),
        (&"2026-06-01T10:00Z".into(), &"main".into())
    );
    assert_eq!((&hour["taken"], &hour["delivered"]), (&3.into(), &2.into()));
    assert_eq!(report["seconds_to_delivery"][0]["p50"], 2.0);
    let conversions = report["campaign_conversions"].as_array().unwrap();
    let figures: Vec<_> = conversions
        .iter()
        .map(|row| {
            (
                row["control"].as_bool().unwrap(),
                row["contacts"].as_i64().unwrap(),
                row["converted"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(figures, [(false, 3, 1), (true, 1, 1)]);
}
