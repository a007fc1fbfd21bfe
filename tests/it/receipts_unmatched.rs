//! Receipts that find no part at once: placed by our reference, kept and shown.

use ::bus::NewRecord;
use api::Role;
use domain::{Class, State};
use events::{Callback, Outbound, Topic};
use jiff::{SignedDuration, Timestamp};
use resources::gateway::LongText;
use serde_json::{Value, json};
use simulator::Script;
use store::{
    messages::{AttemptOutcome, ClaimWant, Claimant, Settled},
    unmatched::Unmatched,
};
use uuid::Uuid;

use crate::{
    receipts::{Stand, message, smpp},
    support::{
        process::run,
        server::Server,
        simulator::{Simulator, eventually},
    },
};

/// A message as a gateway answered it; with its id.
async fn answered(stand: &Stand, number: usize, settled: Settled, remote_ids: &[&str]) -> Uuid {
    let message = message(number, Class::Marketing, "Bonjour");
    let owner = Uuid::from_u128(9);
    let now = Timestamp::now();
    let want = ClaimWant {
        message_id: message.message_id,
        contact_id: message.contact_id.clone(),
        cause: message.cause.clone(),
        class: message.class,
        template: message.template.clone(),
        variant: None,
        encoding: message.encoding.clone(),
        parts: message.parts,
        cost_micros: message.cost_micros,
        phone_hash: vec![number as u8; 32],
        caused_at: now,
        planned_at: now,
        rendered_at: now,
        attempt: 0,
        gateway: "web".into(),
        epoch: 1,
        traceparent: None,
        again: false,
    };
    let claimant = Claimant {
        owner,
        now,
        resend_transactional: true,
        max_attempts: 12,
    };
    let outcome = AttemptOutcome {
        contact_id: message.contact_id,
        message_id: message.message_id,
        owner,
        attempt: 1,
        settled,
        gateway: "web".into(),
        gateway_code: None,
        remote_ids: remote_ids.iter().map(|id| (*id).to_owned()).collect(),
        total: 1,
        at: now,
        claimed: None,
    };
    let mut tx = stand.store.begin().await.unwrap();
    assert!(tx.messages_claim(&[want], &claimant).await.unwrap()[0].granted);
    tx.messages_outcome(&[outcome]).await.unwrap();
    tx.commit().await.unwrap();
    message.message_id
}

/// What the gateway `web`, of Twilio's shape, calls back with.
async fn called_back(stand: &Stand, queries: &[String]) {
    let now = Timestamp::now();
    let record = |(number, query): (usize, &String)| {
        let callback = Callback {
            gateway: "web".into(),
            transport: "http".into(),
            received_at: now + SignedDuration::from_micros(number as i64),
            meta: json!({ "query": query }).as_object().cloned().unwrap(),
            body: Vec::new(),
        };
        // One key: they are read in their order.
        NewRecord::wrap(Topic::Callbacks, "web", format!("c{number}"), now, None, &callback)
    };
    let records = queries.iter().enumerate().map(record).collect();
    stand.bus.log.append(records).await.unwrap();
}

async fn listed(stand: &Stand) -> Vec<Unmatched> {
    stand.store.unmatched_list(None, None, 100).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_settles_the_message_that_it_names_and_what_finds_none_is_kept() {
    let stand = Stand::new(vec![resources::Gateway {
        system_id: Some("account".into()),
        ..resources::Gateway::http("web", "http://127.0.0.1:1/", "twilio")
    }])
    .await;
    let collector = stand.collector().await;
    let named = answered(&stand, 1, Settled::Unknown, &[]).await;
    let other = answered(&stand, 2, Settled::Accepted, &["SMaa"]).await;
    let last = answered(&stand, 3, Settled::Accepted, &["SMbb"]).await;
    let stranger = Uuid::from_u128(0xDEAD);
    let said = |id: &str, status: &str, reference: &str| format!("MessageSid={id}&MessageStatus={status}{reference}");
    called_back(
        &stand,
        &[
            // The id of one message's part, and the reference of another: that is who it is of.
            said("SMaa", "delivered", &format!("&reference={named}")),
            // The same with the reference of nobody's.
            said("SMaa", "failed", &format!("&reference={stranger}")),
            // A word that we do not know, of a part and of none; and one that says no more than that it was taken.
            said("SMbb", "mystery", ""),
            said("SMcc", "mystery", ""),
            said("SMdd", "sent", ""),
            said("SMee", "delivered", ""),
            said("SMbb", "delivered", &format!("&reference={last}")),
        ],
    )
    .await;
    stand.reaches(last, State::Delivered).await;
    stand.reaches(named, State::Delivered).await;
    assert_eq!(stand.row(other).await.unwrap().state, State::Accepted);
    let parts = stand.store.message_parts_of(last).await.unwrap();
    assert_eq!(parts[0].code.as_deref(), Some("mystery"));
    let kept = listed(&stand).await;
    let kept: Vec<_> = kept
        .iter()
        .map(|one| (one.remote_id.as_str(), one.state, one.code.as_deref(), one.reference))
        .collect();
    assert_eq!(
        kept,
        [
            ("SMee", Some(State::Delivered), Some("delivered"), None),
            ("SMcc", None, Some("mystery"), None),
            ("SMaa", Some(State::Failed), Some("failed"), Some(stranger)),
        ]
    );

    // Their parts come after all: one is delivered, the other has said something that nobody knows.
    let late = answered(&stand, 4, Settled::Accepted, &["SMee"]).await;
    let unheard = answered(&stand, 5, Settled::Accepted, &["SMcc"]).await;
    assert_eq!(stand.row(late).await.unwrap().state, State::Delivered);
    let parts = stand.store.message_parts_of(unheard).await.unwrap();
    assert_eq!(
        (parts[0].state, parts[0].code.as_deref()),
        (State::Accepted, Some("mystery"))
    );
    assert_eq!(listed(&stand).await.len(), 1);
    collector.stop().await;
}

/// A text of several parts whose answers are lost: each part has a receipt of its own, or one speaks for all.
#[tokio::test(flavor = "multi_thread")]
async fn receipts_settle_a_long_text_whose_answer_was_lost() {
    let simulator = Simulator::start(Script {
        ambiguous_percent: 100.0,
        receipt_references: true,
        receipt_delay_ms: 200,
        receipt_jitter_ms: 200,
        duplicate_percent: 30.0,
        ..Script::default()
    })
    .await;
    let gateway = |name: &str, long_text, prefix: &str| resources::Gateway {
        name: name.into(),
        system_id: Some(name.into()),
        prefixes: vec![prefix.into()],
        long_text,
        ..smpp(&simulator)
    };
    let stand = Stand::new(vec![
        gateway("split", LongText::Udh, "+2626920000"),
        gateway("whole", LongText::Payload, "+2626920001"),
    ])
    .await;
    let collector = stand.collector().await;
    let long = "Réduction sur tout jusqu'à dimanche. ".repeat(8);
    let messages: Vec<Outbound> = (96..104)
        .map(|number| message(number, Class::Marketing, &long))
        .collect();
    assert!(messages[0].parts > 1);
    stand.send(&messages).await;
    for message in &messages {
        let row = stand.reaches(message.message_id, State::Delivered).await;
        assert_eq!(row.accepted_at, None, "its answer was lost");
        let parts = stand.store.message_parts_of(message.message_id).await.unwrap();
        match row.gateway.as_deref() {
            Some("split") => assert_eq!(parts.len(), usize::from(row.parts)),
            _ => assert!(parts.is_empty()),
        }
    }
    collector.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unmatched_receipts_are_listed_over_http_and_by_the_command() {
    let server = Server::start().await;
    let start: Timestamp = "2026-06-01T10:00:00Z".parse().unwrap();
    let kept = |number: u128, gateway: &str, state| Unmatched {
        id: Uuid::from_u128(number),
        gateway: gateway.into(),
        remote_id: format!("00{number}F"),
        match_ids: vec![format!("{number}f"), format!("{number}")],
        state,
        code: Some("UNDELIV:011".into()),
        at: start,
        received_at: start + SignedDuration::from_mins(number as i64),
        reference: (number == 2).then(|| Uuid::from_u128(7)),
        waits: false,
    };
    let mut tx = server.store.begin_by_key().await.unwrap();
    tx.callbacks_unmatched_put(&[
        kept(1, "main", Some(State::Failed)),
        kept(2, "main", None),
        kept(3, "other", Some(State::Delivered)),
    ])
    .await
    .unwrap();
    tx.commit().await.unwrap();

    let get = async |query: &str| {
        let told = server.get(&format!("/v1/receipts/unmatched{query}")).await;
        told["receipts"].as_array().unwrap().clone()
    };
    let all = get("").await;
    assert_eq!(
        all[1],
        json!({
            "gateway": "main", "remote_id": "002F", "code": "UNDELIV:011", "received_at": "2026-06-01T10:02:00Z",
            "message_id": Uuid::from_u128(7),
        })
    );
    let ids = |rows: &[Value]| -> Vec<String> {
        let id = |row: &Value| row["remote_id"].as_str().unwrap().to_owned();
        rows.iter().map(id).collect()
    };
    assert_eq!(ids(&all), ["003F", "002F", "001F"]);
    assert_eq!(ids(&get("?gateway=main&limit=1").await), ["002F"]);
    assert_eq!(ids(&get("?since=2026-06-01T10:03:00Z").await), ["003F"]);
    let asked =
        |role, query: &str| server.request(reqwest::Method::GET, &format!("/v1/receipts/unmatched{query}"), role);
    for (role, query, status) in [
        (Role::Read, "", 200),
        (Role::Events, "", 403),
        (Role::Read, "?limit=0", 400),
    ] {
        assert_eq!(
            asked(role, query).send().await.unwrap().status(),
            status,
            "{role} {query}"
        );
    }

    let directory = tempfile::tempdir().unwrap();
    let environment = [("TAMTAM_API_KEY", server.key(Role::Read))];
    let command = |arguments: &[&str]| {
        let arguments = [&["receipts", "unmatched"], arguments, &["--server", &server.http]].concat();
        let output = tokio::task::block_in_place(|| run(directory.path(), &arguments, &environment));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = command(&["--gateway", "other"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines,
        [
            vec!["gateway", "remote_id", "state", "code", "received_at", "message_id"],
            vec!["other", "003F", "delivered", "UNDELIV:011", "2026-06-01T10:03:00Z"],
        ]
    );
    let told: Value =
        serde_json::from_str(&command(&["--since", "2026-06-01T10:02:00Z", "--limit", "1", "--json"])).unwrap();
    assert_eq!(ids(told["receipts"].as_array().unwrap()), ["003F"]);
}

/// What was kept too long is forgotten, in all its forms.
#[tokio::test]
async fn unmatched_receipts_are_forgotten() {
    let server = Server::start().await;
    let now = Timestamp::now();
    let receipt = Unmatched {
        id: Uuid::from_u128(1),
        gateway: "main".into(),
        remote_id: "12345678".into(),
        match_ids: vec!["12345678".into(), "bc614e".into()],
        state: Some(State::Failed),
        code: None,
        at: now,
        received_at: now,
        reference: None,
        waits: false,
    };
    let mut tx = server.store.begin_by_key().await.unwrap();
    tx.callbacks_unmatched_put(&[receipt]).await.unwrap();
    tx.commit().await.unwrap();
    eventually("the clock of the database to go on", || async {
        let mut tx = server.store.begin_by_key().await.unwrap();
        let forgotten = tx.callbacks_unmatched_drop(Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
        (forgotten == 2).then_some(())
    })
    .await;
    assert!(server.store.unmatched_list(None, None, 10).await.unwrap().is_empty());
}
