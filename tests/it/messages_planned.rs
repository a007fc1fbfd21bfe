//! Where a message is between being planned and being decided on: told over HTTP and by the command, until the ledger knows.

use api::Role;
use domain::{Cause, Class, MessageId, Phone, Reason, State, contact::ContactChange};
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use store::{campaigns::ChunkMember, messages::Verdict, trigger_log::Firing};
use uuid::Uuid;

use crate::support::{campaign::drafted, server::Server};

const CAMPAIGN: Uuid = Uuid::from_u128(0xC0FFEE);
const PHONE: &str = "+262692000042";

fn of_campaign() -> Cause {
    Cause::Campaign {
        campaign_id: CAMPAIGN.to_string(),
    }
}

fn of_trigger() -> Cause {
    Cause::Trigger {
        trigger: "confirm".into(),
        event_source: "shop".into(),
        event_id: "e1".into(),
    }
}

fn id(cause: &Cause, contact: &str) -> String {
    MessageId::derive(cause, contact).to_string()
}

/// A campaign to 41 (in the control group), 42 and 44, planned as one chunk whose jobs are not on the bus.
async fn campaign(server: &Server, now: Timestamp) {
    let new = drafted(CAMPAIGN, "Soldes", "age > 30", "sale");
    let contact = ContactChange {
        id: "42".into(),
        phone: Some(Some(Phone::from_e164(PHONE))),
        ..ContactChange::default()
    };
    let mut tx = server.store.begin().await.unwrap();
    tx.contacts_upsert(&[contact], "test", "test", now).await.unwrap();
    tx.campaign_create(&new, "test", now).await.unwrap();
    let campaign = tx
        .campaign_launch(CAMPAIGN, None, "age > 30", "test", now)
        .await
        .unwrap();
    let members = [("41", Some(Reason::ControlGroup)), ("42", None), ("44", None)].map(|(id, suppress)| ChunkMember {
        contact_id: id.into(),
        suppress,
    });
    assert!(tx.campaign_chunk_plan(&campaign, &members, &[], 0, now).await.unwrap());
    tx.commit().await.unwrap();
}

fn suppressed(cause: Cause, contact: &str, now: Timestamp) -> Verdict {
    Verdict {
        contact_id: contact.into(),
        message_id: MessageId::derive(&cause, contact).0,
        cause,
        class: Class::Marketing,
        template: "sale".into(),
        variant: None,
        state: State::Suppressed,
        reason: Some(Reason::NoPhone),
        encoding: None,
        parts: 0,
        cost_micros: 0,
        phone_hash: None,
        caused_at: now,
        planned_at: now,
        rendered_at: None,
        decided_by: None,
        at: now,
    }
}

/// What is planned for a contact: the campaign or trigger, and where it is.
async fn planned(server: &Server, contact: &str) -> Vec<Value> {
    let listed = server.get(&format!("/v1/messages?contact_id={contact}")).await;
    listed["planned"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_campaign_is_found_from_its_chunk_to_the_ledger() {
    let server = Server::start().await;
    let now = Timestamp::now();
    campaign(&server, now).await;
    let message = id(&of_campaign(), "42");
    let show = format!("/v1/messages/{message}/show");

    // An id alone leads nowhere, and that is said; another contact's message it is not.
    let (status, problem) = server.send(Method::GET, &show, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        problem["detail"].as_str().unwrap().contains("with its contact"),
        "{problem}"
    );
    for contact in ["43", "44"] {
        let (status, _) = server
            .send(Method::GET, &format!("{show}?contact_id={contact}"), None)
            .await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{contact}");
    }
    assert!(
        planned(&server, "43").await.is_empty(),
        "it falls into the chunk and is not on its list"
    );

    // Before its record is on the bus.
    let told = server.get(&format!("{show}?contact_id=42")).await;
    let explanation = told["explanation"].as_str().unwrap();
    assert!(
        explanation.starts_with("planned by campaign Soldes at ") && explanation.ends_with("put on the bus"),
        "{explanation}"
    );
    assert_eq!(
        (&told["planned"]["id"], &told["message"]),
        (&json!(message), &Value::Null)
    );
    let control = planned(&server, "41").await;
    assert_eq!(control[0]["reason"], "control-group");

    // On the bus.
    let mut tx = server.store.begin().await.unwrap();
    let chunk = tx.campaign_chunk_claim().await.unwrap().unwrap();
    tx.campaign_chunk_done(&chunk, now).await.unwrap();
    tx.commit().await.unwrap();
    let told = server.get(&format!("{show}?contact_id=42")).await;
    assert!(
        told["explanation"]
            .as_str()
            .unwrap()
            .contains("on its way to a gateway"),
        "{told}"
    );
    let log = told["log"].as_array().unwrap();
    assert_eq!(log.last().unwrap()["what"], "put on the bus");
    assert_eq!(planned(&server, "41").await[0]["reason"], "control-group");

    // As the command tells it, by its id and as one of the contact's.
    let command = |arguments: &[&str]| {
        let output = server.command(Role::Read, &[&["message"], arguments].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = command(&["show", &message, "--contact", "42"]);
    assert_eq!(code, Some(0));
    assert!(
        text.starts_with("planned by campaign Soldes at ") && text.contains("on its way to a gateway"),
        "{text}"
    );
    let (_, text) = command(&["show", "--contact", "42"]);
    assert!(
        text.starts_with(&format!("{message}  planned by campaign Soldes at ")),
        "{text}"
    );
    let (_, text) = command(&["list", "42"]);
    assert!(
        text.lines().nth(1).unwrap().starts_with(&format!("{message}  planned")),
        "{text}"
    );
    assert_eq!(command(&["show", &message]).0, Some(1));
    assert_eq!(command(&["show"]).0, Some(2));

    // In the ledger: it is a message like any other, and no more planned.
    let mut tx = server.store.begin().await.unwrap();
    tx.messages_decide(&[suppressed(of_campaign(), "42", now)])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let told = server.get(&format!("{show}?contact_id=42")).await;
    assert_eq!(
        (&told["message"]["state"], &told["planned"]),
        (&json!("suppressed"), &Value::Null)
    );
    assert!(planned(&server, "42").await.is_empty());
}

#[tokio::test]
async fn a_message_of_a_trigger_is_found_until_the_ledger_has_it() {
    let server = Server::start().await;
    let now = Timestamp::now();
    let firing = |event: &str| Firing {
        contact_id: "42".into(),
        trigger: "confirm".into(),
        event_source: "shop".into(),
        event_id: event.into(),
        template: "order".into(),
        caused_at: now,
        planned_at: now,
        deadline: None,
        vars: Map::new(),
        suppress: None,
    };
    let mut tx = server.store.begin().await.unwrap();
    tx.trigger_log_put(&[firing("e1"), firing("e2")]).await.unwrap();
    tx.messages_decide(&[suppressed(
        Cause::Trigger {
            trigger: "confirm".into(),
            event_source: "shop".into(),
            event_id: "e2".into(),
        },
        "42",
        now,
    )])
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let waiting = planned(&server, "42").await;
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert_eq!(waiting[0]["id"], id(&of_trigger(), "42"));
    let explanation = waiting[0]["explanation"].as_str().unwrap();
    assert!(
        explanation.starts_with("planned by trigger confirm on event e1 at ")
            && explanation.contains("on its way to a gateway"),
        "{explanation}"
    );
}
