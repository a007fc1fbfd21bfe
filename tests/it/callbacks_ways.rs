//! What comes back by HTTP on the whole way, from a gateway's own shape to the ledger and the analysts' topics.

use std::collections::BTreeSet;

use ::bus::StoredRecord;
use domain::{Class, Consent, Phone, State};
use events::{Click, Inbound, Outbound, Receipt, Record, Topic};
use jiff::Timestamp;
use reqwest::Client;
use serde_json::{Value, json};
use simulator::Script;
use stage::Clock;
use store::{contacts::ContactChange, links::ShortLink};
use tokio::net::TcpListener;

use crate::{
    callbacks::{Call, FORM, JSON, client, collector, holds},
    contract,
    dispatcher_stand::{Stand, outbound},
    support::simulator::{Simulator, eventually},
};

fn read<R: Record>(records: &[StoredRecord]) -> Vec<R> {
    records
        .iter()
        .map(|record| R::from_bytes(R::KIND, &record.value).unwrap())
        .collect()
}

/// Every record is as its schema says, and no phone or text is anywhere in it.
fn names_nobody(kind: &str, records: &[StoredRecord], secrets: &BTreeSet<String>) {
    let schema = contract::written_schema(kind);
    for record in records {
        let value: Value = serde_json::from_slice(&record.value).unwrap();
        let none: [&str; 0] = [];
        assert_eq!(contract::deviations(&schema, &value), none, "{kind}: {value}");
        for secret in secrets {
            assert!(!holds(record, secret), "{kind} holds `{secret}`: {value}");
        }
    }
}

/// Messages by OVH and by Vonage, each in its own shape on the whole way: receipts until the ledger has them, replies until
/// analysts have them, and a click; and what analysts have names nobody.
#[tokio::test(flavor = "multi_thread")]
async fn ovhs_and_vonages_callbacks_go_the_whole_way_and_name_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let simulator = Simulator::start(Script {
        receipt_delay_ms: 200,
        receipt_jitter_ms: 200,
        failed_percent: 30.0,
        enroute_percent: 50.0,
        duplicate_percent: 10.0,
        // OVH is not told where to report with each message.
        callback_url: Some(format!("{address}/callbacks/ovh?secret=s3cret")),
        ..Script::default()
    })
    .await;
    let stand = Stand::new(&format!(
        r#"
[[gateway]]
name = "ovh"
kind = "http"
address = "{0}/ovh/1.0/sms/service/jobs"
system_id = "application:consumer"
password = "secret"
rate = 1000
window = 20
prefixes = ["+2626920000"]
callback_secret = "s3cret"
http = {{ profile = "ovh" }}

[[gateway]]
name = "vonage"
kind = "http"
address = "{0}/vonage/sms/json"
system_id = "key"
password = "secret"
rate = 1000
window = 20
prefixes = ["+2626920001"]
callback_url = "{address}/callbacks/vonage?secret=s3cret"
callback_secret = "s3cret"
http = {{ profile = "vonage" }}

[policy]
quiet_hours = "off"
"#,
        simulator.http
    ))
    .await;
    let contact = |number: usize| ContactChange {
        id: format!("contact-{number}"),
        phone: Some(Some(Phone::from_e164(format!("+262692{number:06}")))),
        marketing_consent: Some(Consent::Given(None)),
        ..ContactChange::default()
    };
    let mut tx = stand.store.begin().await.unwrap();
    tx.contacts_upsert(&[contact(3), contact(103)], "test", "test", Timestamp::now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let _dispatcher = stand.start_real();
    let _collector = collector(&stand, Clock::system(), listener).await;
    let messages: Vec<Outbound> = (0..40)
        .chain(100..140)
        .map(|number| {
            // Every other one in two parts: of OVH with one id, of Vonage with two, each with receipts of its own.
            let parts = 1 + u16::from(number % 2 == 1);
            Outbound {
                text: "Le mot est zanzibar. ".repeat(if parts == 1 { 1 } else { 9 }),
                parts,
                ..outbound(number, Class::Transactional)
            }
        })
        .collect();
    stand.append(&messages).await;
    stand.until(&messages, |row| row.state.is_terminal()).await;
    let shown = simulator.messages().await;
    let mut ends: BTreeSet<(String, State)> = BTreeSet::new();
    for message in &messages {
        let row = stand.row(message).await.unwrap();
        let id = message.message_id.to_string();
        let shown = shown.iter().find(|shown| shown["reference"] == id.as_str()).unwrap();
        assert_eq!(row.state.as_str(), shown["outcome"], "{id}");
        let gateway = row.gateway.unwrap();
        let ids = stand.store.message_parts_of(message.message_id).await.unwrap().len();
        let expected = if gateway == "vonage" {
            usize::from(message.parts)
        } else {
            1
        };
        assert_eq!(ids, expected, "{gateway}");
        ends.insert((gateway, row.state));
    }
    let all_ends = ["ovh", "vonage"].map(|gateway| [State::Delivered, State::Failed].map(|end| (gateway.into(), end)));
    assert_eq!(ends, all_ends.into_iter().flatten().collect());

    // Replies, and one of a person that nobody knows.
    let client = client();
    let ovh = |from: &str, text: &str| {
        let body = format!("senderid=%2B{from}&number=36105&message={text}");
        Call::new("/callbacks/ovh?secret=s3cret", FORM, body)
    };
    let vonage = |from: &str, text: &str, id: &str| {
        let body = json!({ "msisdn": from, "to": "36105", "messageId": id, "text": text, "type": "text" });
        Call::new("/callbacks/vonage?secret=s3cret", JSON, body.to_string())
    };
    for call in [
        ovh("262692000003", "STOP"),
        ovh("262692000099", "Bonjour+zanzibar"),
        vonage("262692000103", "STOP", "IN-1"),
        vonage("262692000103", "Encore zanzibar", "IN-2"),
    ] {
        assert_eq!(call.status(&client, &address).await, 200);
    }
    let inbound = eventually("four replies", || async {
        let records = stand.all(Topic::Inbound).await;
        (records.len() >= 4).then_some(records)
    })
    .await;
    let mut seen: Vec<_> = read::<Inbound>(&inbound)
        .into_iter()
        .map(|one| (one.gateway, one.contact_id, one.keyword, one.to, one.phone_hash))
        .collect();
    seen.sort();
    let hash = |e164: &str| -> String {
        let hash = stand.key.hash(&Phone::from_e164(e164));
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let expected = |gateway: &str, contact: Option<&str>, keyword: Option<&str>, e164: &str| {
        let (contact, keyword) = (contact.map(str::to_owned), keyword.map(str::to_owned));
        (gateway.to_owned(), contact, keyword, "36105".to_owned(), hash(e164))
    };
    assert_eq!(
        seen,
        [
            expected("ovh", None, None, "+262692000099"),
            expected("ovh", Some("contact-3"), Some("stop"), "+262692000003"),
            expected("vonage", Some("contact-103"), None, "+262692000103"),
            expected("vonage", Some("contact-103"), Some("stop"), "+262692000103"),
        ]
    );
    for number in [3, 103] {
        eventually("the opt-out", || async {
            let contact = stand.store.contact_get(&format!("contact-{number}")).await.unwrap();
            (contact.unwrap().marketing_consent == Consent::No).then_some(())
        })
        .await;
    }

    // A link is followed whose address says who was written to.
    let link = ShortLink {
        code: "0aZ9bY8cX7d".into(),
        url: "https://shop.example/offre?tel=262692000003".into(),
        contact_id: messages[3].contact_id.clone(),
        message_id: messages[3].message_id,
    };
    let mut tx = stand.store.begin().await.unwrap();
    tx.links_put(std::slice::from_ref(&link), Timestamp::now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let patient = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent("Mozilla/5.0 (Linux; Android 14) Mobile Safari/537.36")
        .build()
        .unwrap();
    let led = patient.get(format!("{address}/l/{}", link.code)).send().await.unwrap();
    assert_eq!(led.status(), 302);
    let clicks = eventually("the click", || async {
        let records = stand.all(Topic::Clicks).await;
        (!records.is_empty()).then_some(records)
    })
    .await;
    assert_eq!(read::<Click>(&clicks)[0].url, "https://shop.example/offre");

    // With and without its country code; a phone's last digits alone stand in many an id.
    let mut secrets: BTreeSet<String> = ["zanzibar", "Bonjour", "Encore", "262692000099", "692000099"]
        .map(str::to_owned)
        .into();
    for message in &messages {
        let digits = message.phone.e164().trim_start_matches('+');
        secrets.insert(digits.to_owned());
        secrets.insert(digits.trim_start_matches("262").to_owned());
    }
    let receipts = stand.all(Topic::Receipts).await;
    assert!(receipts.len() > messages.len());
    names_nobody(Receipt::KIND, &receipts, &secrets);
    names_nobody(Inbound::KIND, &inbound, &secrets);
    names_nobody(Click::KIND, &clicks, &secrets);
    simulator.stop().await;
}
