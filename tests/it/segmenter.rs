//! From events to jobs: the step as a function, and what a running segmenter does with bad events.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use ::bus::Partition;
use domain::{Cause, Consent};
use events::{DeadLetter, Envelope, Job, Record as _, Topic};
use jiff::{SignedDuration, Timestamp};
use resources::{Snapshot, parse_toml};
use segmenter::Segmenter;
use serde_json::json;
use stage::{Clock, Input, Live, Output, Step};
use store::Store;
use uuid::Uuid;

use crate::{
    segmenter_stand::{RESOURCES, Stand, contact, contacts, distinct},
    stage::{event, eventually, records},
    support::database::database,
};

/// The step alone, as a function.
struct Alone {
    store: Store,
    step: Segmenter,
    time: Arc<AtomicI64>,
    offset: i64,
}

impl Alone {
    async fn new(now: &str) -> Alone {
        let store = database().await;
        let mut snapshot = Snapshot::default();
        for resource in parse_toml(RESOURCES).unwrap() {
            snapshot.insert(resource, 1);
        }
        let time = Arc::new(AtomicI64::new(now.parse::<Timestamp>().unwrap().as_second()));
        let clock = {
            let time = time.clone();
            Clock::from_fn(move || Timestamp::from_second(time.load(Ordering::SeqCst)).unwrap())
        };
        let key = store.phone_key().await.unwrap();
        Alone {
            step: Segmenter::new(Live::fixed(snapshot), clock, key),
            store,
            time,
            offset: 0,
        }
    }

    fn event(&mut self, id: &str, contact: &str, kind: &str, seconds: i64, data: serde_json::Value) -> Input {
        self.offset += 1;
        let now = Timestamp::from_second(self.time.load(Ordering::SeqCst)).unwrap();
        Input {
            partition: Partition {
                topic: Topic::Events,
                number: 0,
            },
            offset: self.offset,
            key: contact.into(),
            envelope: Envelope {
                id: id.into(),
                source: "shop".into(),
                kind: kind.into(),
                time: Some(now + SignedDuration::from_secs(seconds)),
                subject: Some(contact.into()),
                traceparent: None,
            },
            value: data.to_string().into_bytes(),
        }
    }

    async fn run(&self, batch: &[Input]) -> Output {
        let batch: Vec<&Input> = batch.iter().collect();
        let mut tx = self.store.begin().await.unwrap();
        let output = self.step.run(Topic::Events, &batch, &mut tx).await.unwrap();
        tx.commit().await.unwrap();
        output
    }
}

fn jobs(output: &Output) -> Vec<(String, String, Job)> {
    output
        .emit
        .iter()
        .map(|record| {
            let job = Job::from_bytes(Job::KIND, &record.value).unwrap();
            let Cause::Trigger { trigger, event_id, .. } = job.cause.clone() else {
                panic!()
            };
            (trigger, event_id, job)
        })
        .collect()
}

fn names(output: &Output) -> Vec<(String, String)> {
    jobs(output)
        .into_iter()
        .map(|(trigger, event, _)| (trigger, event))
        .collect()
}

fn pair(trigger: &str, event: &str) -> (String, String) {
    (trigger.into(), event.into())
}

#[tokio::test]
async fn an_event_is_decided_once_and_emitted_again_the_same() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    let batch = [
        alone.event(
            "c1",
            "42",
            "contact.updated",
            0,
            json!({"phone": "0692123456", "region": "north"}),
        ),
        alone.event("o1", "42", "order.placed", -60, json!({"amount": 10})),
        // One batch, and yet the first order does not see the second.
        alone.event("o2", "42", "order.placed", -30, json!({"amount": 0})),
        alone.event("o1", "42", "order.placed", -60, json!({"amount": 10})),
        // Nobody knows this one: the renderer says so.
        alone.event("o3", "nobody", "order.placed", 0, json!({"amount": 5})),
        // Older than a day: history.
        alone.event("o4", "42", "order.placed", -100_000, json!({"amount": 5})),
        alone.event("bad", "42", "order.placed", 0, json!([1])),
    ];
    let first = alone.run(&batch).await;
    assert_eq!(
        names(&first),
        [pair("confirm", "o1"), pair("second-order", "o2"), pair("confirm", "o3")]
    );
    let job = &jobs(&first)[0].2;
    assert_eq!(job.deadline, Some("2026-06-01T10:59:00Z".parse().unwrap()));
    assert_eq!(
        (&job.values["shop"], &job.event["amount"]),
        (&json!("Saint-Denis"), &json!(10))
    );
    assert_eq!(first.dead.len(), 1);
    let known = alone.store.contact_get("42").await.unwrap().unwrap();
    assert_eq!(known.phone.unwrap().e164(), "+262692123456");

    // Delivered again, later: the same to the byte, whatever the time.
    alone.time.fetch_add(3_600, Ordering::SeqCst);
    let again = alone.run(&batch).await;
    let once: BTreeSet<Vec<u8>> = first.emit.iter().map(|record| record.value.clone()).collect();
    let twice: BTreeSet<Vec<u8>> = again.emit.iter().map(|record| record.value.clone()).collect();
    assert_eq!(once, twice);
    // Three are planned, and nobody has decided on them; by the clock on the wall that is long ago.
    let audit = alone.store.audit(None, None).await.unwrap();
    assert_eq!((audit.violations, audit.pending), (3, 0), "{audit:?}");
    let lost = |violation: &store::audit::Violation| violation.kind == "event-message-lost";
    assert!(audit.examples.iter().all(lost), "{audit:?}");
}

#[tokio::test]
async fn a_batch_with_an_event_that_is_known_leads_to_what_its_events_would_alone() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    let known = alone.event("o1", "42", "order.placed", -60, json!({"amount": 10}));
    assert_eq!(
        names(&alone.run(std::slice::from_ref(&known)).await),
        [pair("confirm", "o1")]
    );
    // Before the batch learns of it a contact is changed, and new events are decided on.
    for number in [2, 3] {
        let moved = json!({"region": "north", "city": format!("city {number}")});
        let batch = [
            alone.event(&format!("c{number}"), "42", "contact.updated", 0, moved),
            alone.event(&format!("o{number}"), "42", "order.placed", -30, json!({"amount": 20})),
            known.clone(),
        ];
        let fires = [pair("confirm", &format!("o{number}")), pair("confirm", "o1")];
        let seconds: &[_] = match number {
            2 => &[pair("second-order", "o2")],
            _ => &[],
        };
        let mut expected: Vec<_> = fires.iter().chain(seconds).cloned().collect();
        expected.sort_unstable();
        let mut names = names(&alone.run(&batch).await);
        names.sort_unstable();
        assert_eq!(names, expected);
        let city = alone.store.contact_get("42").await.unwrap().unwrap().city;
        assert_eq!(city, Some(format!("city {number}")));
    }
    let planned: Vec<(String, i32)> = sqlx::query_as("select event_id, planned from history order by 1")
        .fetch_all(alone.store.pool())
        .await
        .unwrap();
    assert_eq!(planned, [("o1".into(), 1), ("o2".into(), 2), ("o3".into(), 1)]);
}

#[tokio::test]
async fn conditions_see_history_and_once_per_holds_within_a_batch_and_after_it() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    contacts(
        &alone.store,
        &[contact("42", None, "north"), contact("43", None, "south")],
    )
    .await;
    // The late one makes three: only the second of its time is a second order.
    let batch: Vec<Input> = ["42", "43"]
        .iter()
        .flat_map(|id| {
            (0..3)
                .map(|number| alone.event(&format!("{id}-{number}"), id, "order.placed", number - 10, json!({})))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(names(&alone.run(&batch).await), [pair("second-order", "42-1")]);
}

#[tokio::test]
async fn once_per_counts_what_the_same_batch_decided() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    let mut snapshot = Snapshot::default();
    let toml = "[[trigger]]\nname = \"x\"\non = \"x\"\ntemplate = \"t\"\nonce_per = \"1h\"";
    snapshot.insert(parse_toml(toml).unwrap().remove(0), 1);
    let time = alone.time.clone();
    let clock = Clock::from_fn(move || Timestamp::from_second(time.load(Ordering::SeqCst)).unwrap());
    alone.step = Segmenter::new(Live::fixed(snapshot), clock, alone.store.phone_key().await.unwrap());
    let two = [
        alone.event("a", "42", "x", 0, json!({})),
        alone.event("b", "42", "x", 0, json!({})),
        alone.event("c", "43", "x", 0, json!({})),
    ];
    assert_eq!(names(&alone.run(&two).await), [pair("x", "a"), pair("x", "c")]);
    let soon = [alone.event("d", "42", "x", 0, json!({}))];
    assert!(alone.run(&soon).await.emit.is_empty());
    alone.time.fetch_add(3_601, Ordering::SeqCst);
    let later = [alone.event("e", "42", "x", 0, json!({}))];
    assert_eq!(names(&alone.run(&later).await), [pair("x", "e")]);
}

#[tokio::test]
async fn events_outside_a_triggers_dates_start_nothing() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    let mut snapshot = Snapshot::default();
    let toml = "[[trigger]]\nname = \"x\"\non = \"x\"\ntemplate = \"t\"\nfrom = \"2026-06-01T09:00:00Z\"\n\
                until = \"2026-06-01T09:30:00Z\"";
    snapshot.insert(parse_toml(toml).unwrap().remove(0), 1);
    let time = alone.time.clone();
    let clock = Clock::from_fn(move || Timestamp::from_second(time.load(Ordering::SeqCst)).unwrap());
    alone.step = Segmenter::new(Live::fixed(snapshot), clock, alone.store.phone_key().await.unwrap());
    let batch = [
        alone.event("before", "42", "x", -3_601, json!({})),
        alone.event("first", "42", "x", -3_600, json!({})),
        alone.event("last", "42", "x", -1_801, json!({})),
        alone.event("after", "42", "x", -1_800, json!({})),
    ];
    assert_eq!(names(&alone.run(&batch).await), [pair("x", "first"), pair("x", "last")]);
}

#[tokio::test]
async fn an_erased_contact_is_gone_and_comes_back_as_new() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    let batch = [
        alone.event(
            "u1",
            "42",
            "contact.updated",
            0,
            json!({"first_name": "Marie", "city": "Saint-Pierre"}),
        ),
        alone.event("b1", "42", "basket.seen", 0, json!({"a": 1})),
        alone.event("e1", "42", "contact.erased", 0, json!({})),
        alone.event("u2", "42", "contact.updated", 0, json!({"first_name": "Anne"})),
        alone.event("u3", "43", "contact.updated", 0, json!({"birth_date": "yesterday"})),
    ];
    let output = alone.run(&batch).await;
    let known = alone.store.contact_get("42").await.unwrap().unwrap();
    assert_eq!((known.first_name.as_deref(), known.city), (Some("Anne"), None));
    assert!(output.dead[0].1.contains("birth_date"), "{output:?}");
}

#[tokio::test]
async fn a_changed_contact_stays_opted_out() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    let fields = |consent: bool| json!({"phone": "0692000042", "marketing_consent": consent});
    let batch = [
        alone.event("u1", "42", "contact.updated", 0, fields(false)),
        alone.event("e1", "42", "contact.erased", 0, json!({})),
        // The next export of the shop's system brings it back, and with a consent of its own making.
        alone.event("u2", "42", "contact.updated", 0, fields(true)),
        alone.event(
            "u3",
            "43",
            "contact.updated",
            0,
            json!({"phone": "0692000043", "marketing_consent": true}),
        ),
    ];
    assert!(alone.run(&batch).await.dead.is_empty());
    let consent = async |id: &str| alone.store.contact_get(id).await.unwrap().unwrap().marketing_consent;
    assert_eq!(
        (consent("42").await, consent("43").await),
        (Consent::No, Consent::Given(None))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_are_dead_letters_and_the_rest_goes_on() {
    let stand = Stand::new().await;
    let process = stand.start();
    let mut published = vec![
        event("b1", "42", "order.placed", b"{\"amount\":"),
        event("b2", "42", "order.placed", b"\"text\""),
        event("b3", "42", "tamtam.job.v9", b"{}"),
        event("b4", "42", "order.placed", br#"{"a": "\u0000"}"#),
        event("b5", "42", "contact.updated", br#"{"phone": "12"}"#),
        event("b6", "42", "order.placed", b"{}"),
        event("good", "42", "order.placed", br#"{"amount": 1}"#),
    ];
    for header in &mut published[5].headers {
        if header.0 == "ce_time" {
            header.1 = "9999-12-01T00:00:00Z".into();
        }
    }
    stand.log.append(published).await.unwrap();
    eventually("the good one is there", || async {
        distinct(&stand.jobs().await).len() == 1
    })
    .await;
    eventually("the others are dead letters", || async {
        records(&*stand.log, Topic::DeadLetters).await.len() >= 6
    })
    .await;
    process.stop().await;
    let letters: BTreeMap<Uuid, DeadLetter> = records(&*stand.log, Topic::DeadLetters)
        .await
        .iter()
        .map(|record| DeadLetter::from_bytes(DeadLetter::KIND, &record.value).unwrap())
        .map(|letter| (letter.id, letter))
        .collect();
    assert_eq!(letters.len(), 6);
    assert!(
        letters
            .values()
            .all(|letter| letter.stage == "segmenter" && !letter.reason.is_empty())
    );
}
