//! Contacts, history and opt-outs in a real PostgreSQL.

use domain::{Consent, Phone, contact::ContactChange};
use events::BusinessEvent;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use store::{
    Deferred, Store,
    contacts::Change::{self, Created, Unchanged, Updated},
    suppressions::Scope,
    trigger_log::{EventKey, Firing},
};

use crate::support::database::database;

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn change(id: &str, fields: Value) -> ContactChange {
    ContactChange::from_json(id, fields.as_object().unwrap(), Some("RE")).unwrap()
}

async fn upsert(store: &Store, changes: &[ContactChange]) -> Vec<Change> {
    let mut tx = store.begin().await.unwrap();
    let answers = tx.contacts_upsert(changes, "ana", "import", now()).await.unwrap();
    tx.commit().await.unwrap();
    answers
}

async fn rows<T>(store: &Store, sql: &'static str) -> Vec<T>
where
    T: Send + Unpin + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
{
    sqlx::query_as(sql).fetch_all(store.pool()).await.unwrap()
}

#[tokio::test]
async fn changes_are_merged_in_order_and_written_once() {
    let store = database().await;
    let changes = [
        change(
            "b",
            json!({"first_name": "Ana", "phone": "0692123456", "marketing_consent": true, "points": 1}),
        ),
        change("a", json!({})),
        change("b", json!({"first_name": null, "city": "Saint-Denis", "points": 2})),
        change("b", json!({"city": "Saint-Denis"})),
    ];
    assert_eq!(upsert(&store, &changes).await, [Created, Created, Updated, Unchanged]);
    assert_eq!(upsert(&store, &changes[3..]).await, [Unchanged]);
    let contact = store.contact_get("b").await.unwrap().unwrap();
    let expected = json!({"phone": "+262692123456", "city": "Saint-Denis", "marketing_consent": true, "points": 2});
    assert_eq!(Value::Object(contact.to_json()), expected);
    assert!(store.contact_get("c").await.unwrap().is_none());

    // Consent: given, given again with its date, taken back, unset. What does not change is not written down.
    for (consent, answer) in [
        (json!("2026-01-31T10:00:00Z"), Updated),
        (json!(true), Unchanged),
        (json!(false), Updated),
        (json!(false), Unchanged),
        (json!(null), Updated),
    ] {
        assert_eq!(
            upsert(&store, &[change("b", json!({"marketing_consent": consent}))]).await,
            [answer],
            "{consent}"
        );
    }
    let log: Vec<(String, bool, String, String, String)> = rows(
        &store,
        "select contact_id, given, to_char(at at time zone 'UTC', 'YYYY-MM-DD'), source, recorded_by from consent_log order by id",
    )
    .await;
    let entry = |given: bool, day: &str| ("b".into(), given, day.to_owned(), "import".into(), "ana".into());
    assert_eq!(
        log,
        [
            entry(true, "2026-11-24"),
            entry(true, "2026-01-31"),
            entry(false, "2026-11-24")
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_batches_with_the_same_contacts_wait_for_each_other() {
    let store = database().await;
    let batch = |field: &'static str| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut created = 0;
            for round in 0..20 {
                // Some alone in their batch's half, most in both: some insertions go plainly and some meet the other's.
                let mut changes: Vec<ContactChange> = (0..150)
                    .map(|number| {
                        change(
                            &format!("{}", (number * 7 + round) % 180 + round * 30),
                            json!({field: round}),
                        )
                    })
                    .collect();
                if field == "two" {
                    changes.reverse();
                }
                created += upsert(&store, &changes)
                    .await
                    .iter()
                    .filter(|answer| **answer == Created)
                    .count();
            }
            created
        })
    };
    let (one, two) = (batch("one"), batch("two"));
    let created = one.await.unwrap() + two.await.unwrap();
    // Each was created by one of them, and none lost what the other wrote.
    let contacts: Vec<(i64, i64)> = rows(
        &store,
        "select count(*), count(*) filter (where attributes ?& array['one', 'two']) from contacts",
    )
    .await;
    assert_eq!(contacts, [(created as i64, created as i64)]);
}

#[tokio::test]
async fn who_was_thought_to_be_new_and_is_not_is_changed() {
    let store = database().await;
    // c200 has a history and is no contact yet.
    sqlx::query("insert into strangers values ('c200')")
        .execute(store.pool())
        .await
        .unwrap();
    let create = async |numbers: std::ops::Range<u32>, city: &str| {
        let changes: Vec<ContactChange> = numbers
            .map(|number| change(&format!("c{number}"), json!({"city": city, "marketing_consent": true})))
            .collect();
        let mut tx = store.begin().await.unwrap();
        let answers = tx.contacts_create(&changes, "ana", "import", now()).await.unwrap();
        tx.commit().await.unwrap();
        answers
    };
    assert_eq!(create(0..150, "Saint-Denis").await, vec![Created; 150]);
    let answers = create(100..250, "Saint-Paul").await;
    assert_eq!(answers[..50], vec![Updated; 50]);
    assert_eq!(answers[50..], vec![Created; 100]);
    let there: Vec<(i64, i64, i64, i64)> = rows(
        &store,
        "select count(*), count(*) filter (where city = 'Saint-Paul'), (select count(*) from consent_log),
             (select count(*) from strangers) from contacts",
    )
    .await;
    // Each consent is written down once.
    assert_eq!(there, [(250, 150, 250, 0)]);
}

fn event(id: &str, kind: &str, contact: &str, time: &str) -> BusinessEvent {
    BusinessEvent {
        id: id.into(),
        source: "shop".into(),
        kind: kind.into(),
        contact_id: contact.into(),
        time: time.parse().unwrap(),
        data: json!({"amount": 1}).as_object().cloned().unwrap(),
    }
}

#[tokio::test]
async fn history_is_kept_once() {
    let store = database().await;
    let orders = [
        event("2", "order.placed", "a", "2026-11-02T00:00:00Z"),
        event("1", "order.placed", "a", "2026-11-01T00:00:00Z"),
        event("2", "order.placed", "a", "2026-11-02T00:00:00Z"),
        event("3", "visit", "a", "2026-11-03T00:00:00Z"),
        event("1", "order.placed", "b", "2026-11-04T00:00:00Z"),
    ];
    let mut tx = store.begin().await.unwrap();
    assert_eq!(tx.history_put(&orders).await.unwrap(), [true, true, false, true, true]);
    assert_eq!(tx.history_put(&orders[1..3]).await.unwrap(), [false, false]);
    let key = |event_id| EventKey {
        contact_id: "a",
        source: "shop",
        event_id,
    };
    tx.history_planned_add(&[(key("1"), 1), (key("1"), 2), (key("none"), 1)])
        .await
        .unwrap();
    let since = Some("2026-11-02T00:00:00Z".parse().unwrap());
    let all = tx.history_for(&["a", "b", "c"], &["order.placed"], None).await.unwrap();
    assert_eq!(all["a"], [orders[1].clone(), orders[0].clone()]);
    assert_eq!((all.len(), all["b"].len()), (2, 1));
    assert_eq!(
        tx.history_for(&["a"], &["order.placed", "visit"], since).await.unwrap()["a"].len(),
        2
    );
    tx.commit().await.unwrap();
    let planned: Vec<(String, i32)> = rows(
        &store,
        "select event_id, planned from history where contact_id = 'a' order by 1",
    )
    .await;
    assert_eq!(planned, [("1".into(), 3), ("2".into(), 0), ("3".into(), 0)]);
}

#[tokio::test]
async fn an_opt_out_outlives_its_contact() {
    let store = database().await;
    let key = store.phone_key().await.unwrap();
    let hash = |phone: &str| key.hash(&Phone::from_e164(phone));
    assert_eq!(
        hash("+262692123456"),
        store
            .phone_key()
            .await
            .unwrap()
            .hash(&Phone::from_e164("+262692123456"))
    );
    assert_eq!(hash("+262692123456").len(), 32);
    let fields =
        |phone: &str, consent: bool| json!({"phone": phone, "marketing_consent": consent, "first_name": "Ana"});
    let people = [
        change("no", fields("+262692000001", false)),
        change("yes", fields("+262692000002", true)),
        change("stopped", fields("+262692000003", true)),
    ];
    upsert(&store, &people).await;
    let mut tx = store.begin().await.unwrap();
    tx.suppression_put(&hash("+262692000003"), Scope::Marketing, "reply", now())
        .await
        .unwrap();
    tx.history_put(&[
        event("1", "visit", "no", "2026-11-01T00:00:00Z"),
        event("2", "order.placed", "no", "2026-11-01T00:00:00Z"),
    ])
    .await
    .unwrap();
    tx.history_planned_add(&[(
        EventKey {
            contact_id: "no",
            source: "shop",
            event_id: "2",
        },
        1,
    )])
    .await
    .unwrap();
    tx.trigger_log_put(&[Firing {
        contact_id: "no".into(),
        trigger: "t".into(),
        event_source: "shop".into(),
        event_id: "2".into(),
        template: "t".into(),
        caused_at: now(),
        planned_at: now(),
        deadline: None,
        vars: json!({"name": "Ana"}).as_object().cloned().unwrap(),
        suppress: None,
    }])
    .await
    .unwrap();
    tx.deferred_put(&[Deferred {
        id: "timer".into(),
        due_at: Some(now()),
        parked: None,
        campaign_id: None,
        gateway: None,
        topic: events::Topic::Events,
        key: "no".into(),
        headers: Vec::new(),
        value: b"Ana".to_vec(),
    }])
    .await
    .unwrap();
    let erased = tx
        .contacts_erase(&["no", "yes", "nobody", "stopped"], &key, now())
        .await;
    assert_eq!(erased.unwrap(), [true, true, false, true]);
    let shut_off = tx
        .suppressions_get(&["+262692000001", "+262692000002", "+262692000003"].map(hash))
        .await
        .unwrap();
    assert_eq!(shut_off.len(), 2);
    assert!(!shut_off.contains_key(&hash("+262692000002")));

    // The next import does not undo it, and whoever says START is reached again, unless blocked.
    let mut again = people.clone();
    let mut named_by_id = [change("stopped", json!({"marketing_consent": true}))];
    again[0].marketing_consent = Some(Consent::Given(None));
    assert_eq!(tx.contacts_keep_opt_outs(&mut again, &key).await.unwrap(), 2);
    tx.contacts_upsert(&again, "ana", "import", now()).await.unwrap();
    assert_eq!(tx.contacts_keep_opt_outs(&mut named_by_id, &key).await.unwrap(), 1);
    let consents = tx.contacts_get(&["no", "yes", "stopped"]).await.unwrap();
    assert_eq!(consents["no"].marketing_consent, Consent::No);
    assert_eq!(consents["yes"].marketing_consent, Consent::Given(None));
    assert_eq!(consents["stopped"].marketing_consent, Consent::No);
    // Named in one change, consented to in the next.
    let mut in_turn = [
        change("new", json!({"phone": "+262692000003"})),
        change("new", json!({"marketing_consent": true})),
        change("new", json!({"phone": "+262692000009", "marketing_consent": true})),
    ];
    assert_eq!(tx.contacts_keep_opt_outs(&mut in_turn, &key).await.unwrap(), 1);
    assert_eq!(in_turn[1].marketing_consent, Some(Consent::No));
    assert!(tx.suppression_lift(&hash("+262692000003")).await.unwrap());
    tx.suppression_put(&hash("+262692000003"), Scope::All, "console", now())
        .await
        .unwrap();
    tx.suppression_put(&hash("+262692000003"), Scope::Marketing, "reply", now())
        .await
        .unwrap();
    // The STOP that lay under the block is gone, the block is not.
    assert!(tx.suppression_lift(&hash("+262692000003")).await.unwrap());
    let left = tx.suppressions_get(&[hash("+262692000003")]).await.unwrap();
    assert_eq!(left[&hash("+262692000003")], Scope::All);
    tx.commit().await.unwrap();

    // Nothing of what "no" was or did is left; what the audit adds up is, without its content.
    let left: Vec<(Map<String, Value>,)> = rows::<(sqlx::types::Json<Map<String, Value>>,)>(
        &store,
        "select data from history union all select vars from trigger_log",
    )
    .await
    .into_iter()
    .map(|(json,)| (json.0,))
    .collect();
    assert_eq!(left, [(Map::new(),), (Map::new(),)]);
    let deferred: Vec<(i64,)> = rows(&store, "select count(*) from deferred where value = 'Ana'").await;
    assert_eq!(deferred, [(0,)]);
}
