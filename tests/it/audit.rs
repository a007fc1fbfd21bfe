//! The conservation check: it holds on what was done in order, and finds what was not.

use api::Role;
use domain::{Cause, Class, MessageId, Reason, State};
use events::Topic;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use store::{
    Deferred, Store,
    campaigns::ChunkMember,
    messages::{Counts, Verdict},
    trigger_log::{EventKey, Firing},
};
use uuid::Uuid;

use crate::support::{campaign::drafted, database::database, process::run, server::Server};

const CAMPAIGN: Uuid = Uuid::from_u128(0xC0FFEE);

async fn campaign(store: &Store, members: usize) {
    let now = Timestamp::now();
    let new = drafted(CAMPAIGN, "sale", "age > 30", "sale");
    let mut tx = store.begin().await.unwrap();
    tx.campaign_create(&new, "test", now).await.unwrap();
    let campaign = tx
        .campaign_launch(CAMPAIGN, None, "age > 30", "test", now)
        .await
        .unwrap();
    let members: Vec<ChunkMember> = (0..members)
        .map(|number| ChunkMember {
            contact_id: format!("c{number:03}"),
            suppress: None,
        })
        .collect();
    assert!(tx.campaign_chunk_plan(&campaign, &members, &[], 0, now).await.unwrap());
    tx.commit().await.unwrap();
}

fn verdict(cause: Cause, contact: &str, state: State, reason: Option<Reason>) -> Verdict {
    let now = Timestamp::now();
    Verdict {
        contact_id: contact.into(),
        message_id: MessageId::derive(&cause, contact).0,
        cause,
        class: Class::Marketing,
        template: "sale".into(),
        variant: None,
        state,
        reason,
        encoding: None,
        parts: 1,
        cost_micros: 0,
        phone_hash: None,
        caused_at: now,
        planned_at: now,
        rendered_at: None,
        decided_by: None,
        at: now,
    }
}

async fn decide(store: &Store, verdicts: &[Verdict]) {
    let mut tx = store.begin().await.unwrap();
    tx.messages_decide(verdicts).await.unwrap();
    tx.commit().await.unwrap();
}

fn of_campaign() -> Cause {
    Cause::Campaign {
        campaign_id: CAMPAIGN.to_string(),
    }
}

fn message(cause: &Cause, contact: &str) -> String {
    MessageId::derive(cause, contact).to_string()
}

/// Writes something that our own code never writes.
async fn wrong(store: &Store, statement: &'static str) {
    let done = sqlx::query(statement).execute(store.pool()).await.unwrap();
    assert!(done.rows_affected() > 0, "{statement}");
}

/// A message that was planned now and is in `state`; its id.
async fn decided(store: &Store, cause: Cause, contact: &str, state: State) -> String {
    let id = message(&cause, contact);
    decide(store, &[verdict(cause, contact, state, None)]).await;
    id
}

fn direct() -> Cause {
    Cause::Direct {
        idempotency_key: "k".into(),
    }
}

/// What is found, each with its ids.
async fn found(store: &Store) -> Vec<(&'static str, String)> {
    let examples = store.audit(None, None).await.unwrap().examples;
    examples.into_iter().map(|found| (found.kind, found.id)).collect()
}

async fn kinds(store: &Store) -> Vec<&'static str> {
    let audit = store.audit(None, None).await.unwrap();
    let mut kinds: Vec<&str> = audit.examples.iter().map(|violation| violation.kind).collect();
    kinds.dedup();
    assert_eq!(audit.violations == 0, kinds.is_empty());
    kinds
}

#[tokio::test]
async fn what_a_campaign_planned_is_where_the_ledger_says_or_on_its_way() {
    let store = database().await;
    campaign(&store, 5).await;
    decide(
        &store,
        &[
            verdict(of_campaign(), "c000", State::Suppressed, Some(Reason::NoConsent)),
            verdict(of_campaign(), "c001", State::Expired, Some(Reason::DeadlinePassed)),
            verdict(of_campaign(), "c002", State::Deferred, Some(Reason::QuietHours)),
        ],
    )
    .await;
    assert_eq!(
        store.campaign_counts(CAMPAIGN).await.unwrap(),
        Counts {
            planned: 5,
            suppressed: 1,
            expired: 1,
            pending: 3,
            ..Counts::default()
        }
    );
    let audit = store.audit(None, None).await.unwrap();
    assert_eq!((audit.violations, audit.pending), (0, 3), "{:?}", audit.examples);
    // Finished, and three never arrived anywhere.
    let mut tx = store.begin().await.unwrap();
    let campaign = tx.campaign_locked(CAMPAIGN).await.unwrap();
    assert!(tx.campaign_expanded(&campaign, Timestamp::now()).await.unwrap());
    tx.campaign_finish(CAMPAIGN, Timestamp::now()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(kinds(&store).await, ["campaign-finished-with-messages-on-their-way"]);
    // One waits in the ledger, two were planned and are nowhere.
    let found = store.audit(None, None).await.unwrap().examples;
    assert_eq!(found[0].messages, [message(&of_campaign(), "c002")]);
    assert_eq!(found[0].contacts, ["c003", "c004"]);
    // More than were planned.
    let more: Vec<Verdict> = (2..7)
        .map(|number| {
            verdict(
                of_campaign(),
                &format!("c{number:03}"),
                State::Cancelled,
                Some(Reason::CampaignCancelled),
            )
        })
        .collect();
    decide(&store, &more).await;
    assert_eq!(kinds(&store).await, ["campaign-more-than-planned"]);
    // Those that no chunk planned.
    let found = store.audit(None, None).await.unwrap().examples;
    let mut strangers = ["c005", "c006"].map(|contact| message(&of_campaign(), contact));
    strangers.sort_unstable();
    assert_eq!(found[0].messages, strangers);
    let later = Timestamp::now() + SignedDuration::from_secs(60);
    let nothing = store.audit(Some(later), None).await.unwrap();
    assert_eq!((nothing.violations, nothing.checked), (0, 0));
}

async fn fired(store: &Store, trigger: &str, planned_at: Timestamp) {
    let firing = Firing {
        contact_id: "42".into(),
        trigger: trigger.into(),
        event_source: "shop".into(),
        event_id: "e1".into(),
        template: "order".into(),
        caused_at: planned_at,
        planned_at,
        deadline: None,
        vars: Map::new(),
        suppress: None,
    };
    let mut tx = store.begin().await.unwrap();
    tx.trigger_log_put(&[firing]).await.unwrap();
    tx.commit().await.unwrap();
}

fn of_trigger(trigger: &str) -> Cause {
    Cause::Trigger {
        trigger: trigger.into(),
        event_source: "shop".into(),
        event_id: "e1".into(),
    }
}

#[tokio::test]
async fn a_campaigns_sum_is_that_of_its_chunks() {
    let store = database().await;
    campaign(&store, 5).await;
    assert!(kinds(&store).await.is_empty());
    wrong(&store, "update campaigns set planned = planned + 1").await;
    assert_eq!(found(&store).await, [("campaign-chunks", CAMPAIGN.to_string())]);
}

#[tokio::test]
async fn a_message_has_a_campaign_that_is_there() {
    let store = database().await;
    let id = decided(&store, of_campaign(), "c000", State::Deferred).await;
    assert_eq!(found(&store).await, [("message-of-no-campaign", id)]);
}

#[tokio::test]
async fn a_trigger_sends_one_message_for_an_event() {
    let store = database().await;
    fired(&store, "confirm", Timestamp::now()).await;
    decided(&store, of_trigger("confirm"), "42", State::Deferred).await;
    assert!(kinds(&store).await.is_empty());
    wrong(
        &store,
        "insert into messages (contact_id, message_id, class, state, trigger, event_source, event_id, template, caused_at,
             planned_at, changed_at)
         select contact_id, gen_random_uuid(), class, state, trigger, event_source, event_id, template, caused_at, planned_at,
             changed_at from messages",
    )
    .await;
    assert_eq!(found(&store).await, [("event-more-than-planned", "e1".to_owned())]);
}

#[tokio::test]
async fn a_message_is_one_contacts() {
    let store = database().await;
    let id = decided(&store, direct(), "42", State::Deferred).await;
    wrong(
        &store,
        "insert into messages (contact_id, message_id, class, state, idempotency_key, template, caused_at, planned_at, changed_at)
         select '43', message_id, class, state, idempotency_key, template, caused_at, planned_at, changed_at from messages",
    )
    .await;
    assert_eq!(found(&store).await, [("message-twice", id)]);
}

#[tokio::test]
async fn a_message_looks_as_its_state_demands() {
    let store = database().await;
    let id = decided(&store, direct(), "42", State::Deferred).await;
    for (statement, said) in [
        ("update messages set settled_at = now()", "settled_at does not fit"),
        (
            "update messages set settled_at = null, state = 40",
            "accepted by nobody",
        ),
        ("update messages set state = 20", "claimed by nobody"),
        ("update messages set state = 30", "no reason"),
        ("update messages set state = 7", "no such state"),
        ("update messages set state = 51", "settled_at does not fit, no reason"),
    ] {
        wrong(&store, statement).await;
        let examples = store.audit(None, None).await.unwrap().examples;
        let told: Vec<_> = examples.iter().map(|one| (one.kind, one.id.as_str())).collect();
        assert_eq!(told, [("message-malformed", id.as_str())], "{statement}");
        assert!(
            examples[0].detail.ends_with(said),
            "{statement}: {}",
            examples[0].detail
        );
    }
}

#[tokio::test]
async fn a_claim_is_answered_within_an_hour() {
    let store = database().await;
    let id = decided(&store, direct(), "42", State::Deferred).await;
    wrong(
        &store,
        "update messages set state = 20, owner = gen_random_uuid(), attempt = 1, claimed_at = now() - interval '59 minutes'",
    )
    .await;
    assert!(kinds(&store).await.is_empty(), "it may still be");
    wrong(&store, "update messages set claimed_at = now() - interval '61 minutes'").await;
    assert_eq!(found(&store).await, [("claim-never-answered", id)]);
}

#[tokio::test]
async fn what_was_planned_is_not_on_its_way_for_ever() {
    let store = database().await;
    let long_ago = Timestamp::now() - SignedDuration::from_hours(9 * 24);
    fired(&store, "confirm", Timestamp::now()).await;
    fired(&store, "remind", long_ago).await;
    let old = MessageId::derive(&direct(), "42").0;
    let queued = Verdict {
        planned_at: long_ago,
        ..verdict(direct(), "42", State::Queued, None)
    };
    decide(&store, &[queued, verdict(direct(), "43", State::Queued, None)]).await;
    let audit = store.audit(None, None).await.unwrap();
    assert_eq!((audit.violations, audit.pending), (2, 2), "{:?}", audit.examples);
    assert_eq!(
        found(&store).await,
        [
            ("event-message-lost", "e1".to_owned()),
            ("message-lost", old.to_string())
        ]
    );
    assert!(audit.examples[0].detail.contains("trigger remind"));
    assert_eq!(audit.examples[0].contacts, ["42"]);
    let before = store.audit(None, Some(long_ago)).await.unwrap();
    assert_eq!(before.violations, 0, "the period holds");

    // What comes back later is on its way, however long it takes.
    let mut tx = store.begin().await.unwrap();
    tx.deferred_put(&[Deferred {
        id: format!("{}:later", old.hyphenated()),
        due_at: Some(Timestamp::now() + SignedDuration::from_hours(24)),
        parked: None,
        campaign_id: None,
        gateway: None,
        topic: Topic::Jobs,
        key: "42".into(),
        headers: Vec::new(),
        value: Vec::new(),
    }])
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let audit = store.audit(None, None).await.unwrap();
    assert_eq!((audit.violations, audit.pending), (0, 4), "{:?}", audit.examples);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_every_id_and_fails() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for number in 0..12 {
        let contact = format!("c{number:03}");
        ids.push(decided(&server.store, of_campaign(), &contact, State::Deferred).await);
    }
    ids.sort_unstable();
    let directory = tempfile::tempdir().unwrap();
    let environment = [("TAMTAM_API_KEY", server.key(Role::Read))];
    let command = |arguments: &[&str]| {
        let arguments = [&["audit"], arguments, &["--server", &server.http]].concat();
        let output = tokio::task::block_in_place(|| run(directory.path(), &arguments, &environment));
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let told = |arguments: &[&str]| {
        let (code, text) = command(arguments);
        assert_eq!(code, Some(1), "{text}");
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["violations"], 12);
        let id = |violation: &Value| violation["id"].as_str().unwrap().to_owned();
        let ids: Vec<String> = told["examples"].as_array().unwrap().iter().map(id).collect();
        (told["checked"].as_i64().unwrap(), ids)
    };
    assert_eq!(told(&["--json"]), (12, ids.clone()));
    assert_eq!(told(&["--json", "--limit", "3"]), (12, ids[..3].to_vec()));
    let (code, text) = command(&[]);
    assert_eq!(code, Some(1));
    for id in &ids {
        assert!(
            text.contains(&format!("message-of-no-campaign  {id}  campaign ")),
            "{text}"
        );
    }
    assert_eq!(command(&["--limit", "0"]).0, Some(2));
    campaign(&server.store, 12).await;
    let (code, text) = command(&[]);
    assert_eq!(code, Some(0), "{text}");
}

#[tokio::test]
async fn what_an_event_started_is_decided_once_for_each_trigger() {
    let store = database().await;
    let now = Timestamp::now();
    let event = events::BusinessEvent {
        id: "e1".into(),
        source: "shop".into(),
        kind: "order.placed".into(),
        contact_id: "42".into(),
        time: now,
        data: Map::new(),
    };
    let key = EventKey {
        contact_id: "42",
        source: "shop",
        event_id: "e1",
    };
    let mut tx = store.begin().await.unwrap();
    tx.history_put(&[event]).await.unwrap();
    tx.commit().await.unwrap();
    fired(&store, "confirm", now).await;
    assert_eq!(kinds(&store).await, ["event-planned"], "a decision without its count");
    let mut tx = store.begin().await.unwrap();
    tx.history_planned_add(&[(key, 1)]).await.unwrap();
    tx.commit().await.unwrap();
    let audit = store.audit(None, None).await.unwrap();
    assert_eq!((audit.violations, audit.pending), (0, 1), "its job is on its way");
    decide(
        &store,
        &[verdict(
            of_trigger("confirm"),
            "42",
            State::Suppressed,
            Some(Reason::NoPhone),
        )],
    )
    .await;
    let audit = store.audit(None, None).await.unwrap();
    assert_eq!((audit.violations, audit.pending), (0, 0));
    decide(
        &store,
        &[verdict(
            of_trigger("nobody"),
            "42",
            State::Suppressed,
            Some(Reason::NoPhone),
        )],
    )
    .await;
    assert_eq!(kinds(&store).await, ["message-of-no-event"]);
}
