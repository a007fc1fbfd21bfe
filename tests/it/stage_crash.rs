//! Each crash point of the stages, of the pump of deferred records and of campaign expansion, with a process that dies
//! there: what `docs/reliability.md` says of it is so. Whatever died where, what was asked for comes out under one id, on
//! PostgreSQL exactly once and on Kafka perhaps again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use domain::{Class, Consent, Phone, contact::ContactChange};
use events::Topic;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use store::deferred::Deferred;
use uuid::Uuid;

use crate::{
    dispatcher_stand::{Stand, outbound},
    stage::{event, id_of},
    support::{bus, campaign::drafted, process::Process, simulator::eventually, tamtam::resources},
};

/// What the dying process is given to do.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// An event, which a trigger answers.
    Event,
    /// A record that is due.
    Deferred,
    /// A campaign to three people.
    Campaign,
}

fn cases() -> Vec<(&'static str, Work)> {
    let mut cases = vec![
        ("stage-before-step", Work::Event),
        ("stage-after-step", Work::Event),
        ("stage-before-append", Work::Event),
        ("stage-before-commit", Work::Event),
        ("stage-after-commit", Work::Event),
        ("deferred-before-append", Work::Deferred),
        ("deferred-after-append", Work::Deferred),
        ("deferred-before-commit", Work::Deferred),
        ("deferred-after-commit", Work::Deferred),
        ("expansion-before-plan", Work::Campaign),
        ("expansion-after-plan", Work::Campaign),
        ("expansion-before-append", Work::Campaign),
        ("expansion-after-append", Work::Campaign),
        ("expansion-after-done", Work::Campaign),
    ];
    if bus::is_kafka() {
        // On PostgreSQL records and offset are one statement of the transaction.
        cases.push(("stage-after-append", Work::Event));
        cases.push(("stage-before-offset", Work::Event));
        cases.push(("stage-after-offset", Work::Event));
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn each_crash_point_of_a_stage_loses_nothing_and_doubles_nothing() {
    stream::iter(cases())
        .for_each_concurrent(3, |(point, work)| async move { dies(point, work).await })
        .await;
}

const PEOPLE: usize = 3;

async fn dies(point: &'static str, work: Work) {
    let stand = Stand::new(&resources("127.0.0.1:1", 10)).await;
    let people: Vec<ContactChange> = (0..PEOPLE)
        .map(|number| ContactChange {
            id: format!("c{number}"),
            phone: Some(Some(Phone::from_e164(format!("+262692{number:06}")))),
            region: Some(Some("north".into())),
            marketing_consent: Some(Consent::Given(None)),
            ..ContactChange::default()
        })
        .collect();
    let mut tx = stand.store.begin().await.unwrap();
    tx.contacts_upsert(&people, "test", "test", Timestamp::now())
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let mut environment: BTreeMap<String, String> = stand.environment().into_iter().collect();
    let start = |environment: BTreeMap<String, String>, name: &'static str| {
        let path = directory.path().to_owned();
        tokio::task::spawn_blocking(move || {
            Process::start_named(&path, name, &["segmenter", "--free-ports"], &environment)
        })
    };
    environment.insert("FAILPOINTS".into(), format!("{point}=return(abort)"));
    let mut dying = start(environment.clone(), "dying").await.unwrap();
    let (topic, expected) = give(&stand, work).await;
    let status = tokio::task::spawn_blocking(move || dying.wait()).await.unwrap();
    assert!(!status.success(), "{point}: it was to die and ended with {status}");

    environment.remove("FAILPOINTS");
    let next = start(environment, "next").await.unwrap();
    let ids = async || -> Vec<String> { stand.all(topic).await.iter().map(id_of).collect() };
    eventually(&format!("{point}: what was asked for"), || async {
        let distinct: BTreeSet<String> = ids().await.into_iter().collect();
        (distinct.len() >= expected).then_some(())
    })
    .await;
    done(&stand, work, point).await;
    let ids = ids().await;
    let distinct: BTreeSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), expected, "{point}: {ids:?}");
    if !bus::is_kafka() {
        assert_eq!(ids.len(), expected, "{point}: in one transaction with its cause");
    }
    drop(next);
}

/// Gives it work; where what comes of it is found, and how much that is.
async fn give(stand: &Stand, work: Work) -> (Topic, usize) {
    match work {
        Work::Event => {
            let order = event("o1", "c1", "order.placed", br#"{"amount":12.5}"#);
            stand.log.append(vec![order]).await.unwrap();
            (Topic::Jobs, 1)
        }
        Work::Deferred => {
            let record = outbound(1, Class::Transactional);
            let id = record.message_id.to_string();
            let topic = Topic::OutboundTransactional;
            let new = bus_record(topic, &record, &id);
            let row = Deferred {
                id: format!("{id}:outbound:1"),
                due_at: Some(Timestamp::now()),
                parked: None,
                campaign_id: None,
                gateway: None,
                topic,
                key: new.key,
                headers: new.headers,
                value: new.value,
            };
            let mut tx = stand.store.begin().await.unwrap();
            tx.deferred_put(&[row]).await.unwrap();
            tx.commit().await.unwrap();
            (topic, 1)
        }
        Work::Campaign => {
            let (id, where_) = (Uuid::from_u128(0xCAFE), "region = \"north\"");
            let new = drafted(id, "sale", where_, "sale");
            let mut tx = stand.store.begin().await.unwrap();
            tx.campaign_create(&new, "test", Timestamp::now()).await.unwrap();
            tx.campaign_launch(id, None, where_, "test", Timestamp::now())
                .await
                .unwrap();
            tx.commit().await.unwrap();
            (Topic::Jobs, PEOPLE)
        }
    }
}

fn bus_record(topic: Topic, record: &events::Outbound, id: &str) -> ::bus::NewRecord {
    ::bus::NewRecord::wrap(topic, &record.contact_id, id.to_owned(), Timestamp::now(), None, record)
}

/// Waits until nothing is left to be done, which could still double something.
async fn done(stand: &Stand, work: Work, point: &str) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let left = match work {
            Work::Event => match stand.log.lag("segmenter", &[Topic::Events]).await {
                Ok(lags) => lags.iter().map(|lag| lag.end - lag.committed).sum(),
                Err(error) if error.is_transient() => i64::MAX,
                Err(error) => panic!("{error}"),
            },
            Work::Deferred => stand.store.deferred_count().await.unwrap().0,
            Work::Campaign => sqlx::query_scalar("select count(*) from campaign_chunks where done_at is null")
                .fetch_one(stand.store.pool())
                .await
                .unwrap(),
        };
        if left == 0 {
            return;
        }
        assert!(Instant::now() < until, "{point}: {left} are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
