//! What the PostgreSQL log adds to the contract: one transaction with the stage's writes, fencing by epoch, retention.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bus::{BusConfig, BusError, Committed, Delivery, Log, Partition, PostgresConfig, ReadLimits};
use events::Topic;
use jiff::{SignedDuration, Timestamp};
use store::Store;

use crate::{
    bus_contract::{LIMITS, record, take, until_owning},
    support::{bus as test_bus, database},
};

async fn open(store: &Store) -> std::sync::Arc<dyn Log> {
    let log = bus::open(BusConfig::Postgres(PostgresConfig {
        pool: store.pool().clone(),
    }))
    .await
    .unwrap();
    log.topics_ensure(&test_bus::topics()).await.unwrap();
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_offset_and_writes_share_one_transaction() {
    let store = database::database().await;
    let log = open(&store).await;
    let transactional = log.transactional().unwrap();
    log.append(vec![record(Topic::Events, "k", "in")]).await.unwrap();
    let mut consumer = log.subscribe("g", &[Topic::Events]).await.unwrap();
    let (partition, input) = take(&mut consumer, 1).await.remove(0);
    let epoch = consumer.epoch(partition);
    let done = Committed {
        partition,
        epoch,
        next_offset: input.offset + 1,
    };
    let mut outputs = log.subscribe("out", &[Topic::Jobs]).await.unwrap();

    for commit in [false, true] {
        let mut tx = store.begin().await.unwrap();
        let output = [record(Topic::Jobs, "k", "out")];
        transactional
            .finish_in(tx.connection(), "g", &[done], &output)
            .await
            .unwrap();
        // Nothing is visible before the commit.
        assert!(
            log.bounds(Topic::Jobs)
                .await
                .unwrap()
                .iter()
                .all(|bounds| bounds.end == 0)
        );
        if commit {
            tx.commit().await.unwrap();
            transactional.announce(&output);
        } else {
            drop(tx);
        }
        let lag = log.lag("g", &[Topic::Events]).await.unwrap();
        let committed: i64 = lag.iter().map(|lag| lag.committed).sum();
        assert_eq!(committed, i64::from(commit));
    }
    assert_eq!(take(&mut outputs, 1).await[0].1.value, b"out");
    assert!(matches!(outputs.next(LIMITS).await.unwrap(), Delivery::Idle));

    // Somebody else takes over: the old owner's transaction is refused whole.
    drop(consumer);
    let mut successor = log.subscribe("g", &[Topic::Events]).await.unwrap();
    until_owning(&mut successor, &mut BTreeSet::new(), 4).await;
    assert!(successor.epoch(partition) > epoch);
    for output in [vec![], vec![record(Topic::Jobs, "k", "late")]] {
        let mut tx = store.begin().await.unwrap();
        let refused = transactional.finish_in(tx.connection(), "g", &[done], &output).await;
        assert!(matches!(refused, Err(BusError::NotOwner { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_is_waited_for_and_not_passed() {
    let store = database::database().await;
    let log = open(&store).await;
    let mut consumer = log.subscribe("g", &[Topic::Events]).await.unwrap();
    until_owning(&mut consumer, &mut BTreeSet::new(), 4).await;
    let mut tx = store.begin().await.unwrap();
    let transactional = log.transactional().unwrap();
    transactional
        .append_in(tx.connection(), &[record(Topic::Events, "k", "first")])
        .await
        .unwrap();
    let second = tokio::spawn({
        let log = log.clone();
        async move { log.append(vec![record(Topic::Events, "k", "second")]).await }
    });
    let next = consumer.next(LIMITS).await.unwrap();
    assert!(matches!(next, Delivery::Idle), "{next:?}");
    assert!(!second.is_finished());
    tx.commit().await.unwrap();
    second.await.unwrap().unwrap();
    let values: Vec<Vec<u8>> = take(&mut consumer, 2).await.into_iter().map(|(_, r)| r.value).collect();
    assert_eq!(values, [b"first".to_vec(), b"second".to_vec()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_is_woken_at_once() {
    let store = database::database().await;
    let (here, there) = (open(&store).await, open(&store).await);
    let mut consumer = there.subscribe("g", &[Topic::Events]).await.unwrap();
    until_owning(&mut consumer, &mut BTreeSet::new(), 4).await;
    let limits = ReadLimits {
        wait: Duration::from_secs(5),
        ..LIMITS
    };
    let mut fastest = Duration::MAX;
    for _ in 0..10 {
        let waiting = tokio::spawn(async move {
            loop {
                if let Delivery::Batch { .. } = consumer.next(limits).await.unwrap() {
                    return (consumer, Instant::now());
                }
            }
        });
        let started = Instant::now();
        here.append(vec![record(Topic::Events, "k", "v")]).await.unwrap();
        let (back, arrived) = waiting.await.unwrap();
        consumer = back;
        fastest = fastest.min(arrived - started);
    }
    // Polling would take half a second on average.
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_drops_whole_segments_and_readers_go_on_at_the_first_that_is_left() {
    let store = database::database().await;
    let log = open(&store).await;
    let settings: Vec<_> = test_bus::topics()
        .into_iter()
        .map(|mut topic| {
            topic.retention = Duration::from_secs(8 * 3600);
            topic
        })
        .collect();
    log.topics_ensure(&settings).await.unwrap();
    let start = Timestamp::now();
    let hours = |hours: i64| start + SignedDuration::from_hours(hours);
    let mut consumer = log.subscribe("g", &[Topic::Events]).await.unwrap();
    let mut partition = None;
    // A record every two hours, each in a segment of its own.
    for n in 0..6_i64 {
        log.append(vec![record(Topic::Events, "k", n.to_string())])
            .await
            .unwrap();
        let (found, read) = take(&mut consumer, 1).await.remove(0);
        assert_eq!(read.offset, n, "reading goes on across segments");
        partition = Some(found);
        assert_eq!(
            bus::postgres_maintain(store.pool(), hours(2 * n + 2)).await.unwrap(),
            u64::from(n == 5)
        );
    }
    let partition = partition.unwrap();
    let first = |bounds: Vec<bus::Bounds>| bounds.into_iter().find(|b| b.partition == partition).unwrap().first;
    // Closed at hours 2, 4, 6, …; at hour 12 the first is ten hours old.
    assert_eq!(first(log.bounds(Topic::Events).await.unwrap()), 1);
    assert_eq!(bus::postgres_maintain(store.pool(), hours(15)).await.unwrap(), 2);
    assert_eq!(first(log.bounds(Topic::Events).await.unwrap()), 3);
    let offsets = |records: Vec<bus::StoredRecord>| records.into_iter().map(|r| r.offset).collect::<Vec<_>>();
    // One segment at a time; what was dropped is passed over.
    assert_eq!(offsets(log.read(partition, 0, LIMITS).await.unwrap()), [3]);
    consumer.seek(partition, 0).await.unwrap();
    let read: Vec<i64> = take(&mut consumer, 3)
        .await
        .into_iter()
        .map(|(_, r)| r.offset)
        .collect();
    assert_eq!(read, [3, 4, 5]);
    let lag = log.lag("g", &[Topic::Events]).await.unwrap();
    assert_eq!(lag.iter().map(|lag| lag.end - lag.committed).sum::<i64>(), 3);
    // An idle topic's last segment is not rolled for nothing, and appends go on after everything is gone.
    assert_eq!(bus::postgres_maintain(store.pool(), hours(100)).await.unwrap(), 3);
    assert_eq!(bus::postgres_maintain(store.pool(), hours(200)).await.unwrap(), 0);
    log.append(vec![record(Topic::Events, "k", "after")]).await.unwrap();
    assert_eq!(take(&mut consumer, 1).await[0].1.offset, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_over_takes_moments() {
    let store = database::database().await;
    let log = open(&store).await;
    let mut dying = log.subscribe("g", &[Topic::Events]).await.unwrap();
    until_owning(&mut dying, &mut BTreeSet::new(), 4).await;
    let mut waiting = log.subscribe("g", &[Topic::Events]).await.unwrap();
    // It is a member, and has nothing as long as the owner is not asked.
    assert!(matches!(waiting.next(LIMITS).await.unwrap(), Delivery::Idle));
    let died = Instant::now();
    drop(dying);
    until_owning(&mut waiting, &mut BTreeSet::new(), 4).await;
    assert!(died.elapsed() < Duration::from_secs(10), "{:?}", died.elapsed());
    let foreign = Partition {
        topic: Topic::Jobs,
        number: 0,
    };
    assert_eq!(waiting.epoch(foreign), 0);
}

/// Ends a group's sessions as a server that loses its network or restarts would.
fn cut_sessions(url: &str, group: &str) {
    let psql = std::fs::read_dir("/usr/lib/postgresql")
        .unwrap()
        .map(|version| version.unwrap().path().join("bin/psql"))
        .find(|psql| psql.exists())
        .unwrap();
    // Tests that run beside this one have groups of the same name in databases of their own.
    let cut = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where application_name = 'tamtam {group}' and datname = current_database()"
    );
    let done = std::process::Command::new(psql)
        .args(["--no-psqlrc", "--quiet", "--command", &cut, url])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_session_loses_its_partitions_and_joins_again() {
    let url = database::empty_database().await;
    let store = Store::connect(&url, 5, Duration::from_secs(10)).await.unwrap();
    store.migrate().await.unwrap();
    let log = open(&store).await;
    log.append(vec![record(Topic::Events, "k", "v")]).await.unwrap();
    let mut consumer = log.subscribe("g", &[Topic::Events]).await.unwrap();
    let (partition, read) = take(&mut consumer, 1).await.remove(0);
    let epoch = consumer.epoch(partition);
    tokio::task::spawn_blocking(move || cut_sessions(&url, "g"))
        .await
        .unwrap();
    // Neither a batch nor an error comes before the loss is told.
    let lost = loop {
        match consumer.next(LIMITS).await.unwrap() {
            Delivery::Lost(lost) => break lost,
            Delivery::Idle => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(lost.len(), 4);
    let refused = consumer.commit(partition, 1).await;
    assert!(matches!(refused, Err(BusError::NotOwner { .. })), "{refused:?}");
    // It joins again by itself and reads what was not committed, under another epoch.
    let again = take(&mut consumer, 1).await.remove(0);
    assert_eq!(again, (partition, read));
    assert!(consumer.epoch(partition) > epoch);
    consumer.commit(partition, 1).await.unwrap();
}

/// The last version whose log has a row a record.
const ROWS: i64 = 68;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_version_wrote_is_read_after_the_migration() {
    let url = database::empty_database().await;
    let store = Store::connect(&url, 5, Duration::from_secs(10)).await.unwrap();
    let migrations = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let migrator = sqlx::migrate::Migrator::new(migrations).await.unwrap();
    migrator.run_to(ROWS, store.pool()).await.unwrap();
    sqlx::query("select log.topic_ensure('events', 1, '7 d', now())")
        .execute(store.pool())
        .await
        .unwrap();
    let append =
        "select log.append((select array[id] from log.topics), '{0}', '{3}', '{1,1,1}', '{0,1,2}', $1, $2, $3)";
    let mut keys = vec!["k".as_bytes(), "\u{0}é".as_bytes(), b""];
    let mut headers = vec![r#"["a","1","a","\u0000 \"é\""]"#, "[]", r#"["n","v"]"#];
    let values: Vec<Vec<u8>> = vec![vec![0, 255, 7], Vec::new(), vec![b'x'; 5_000]];
    for _ in 0..2 {
        sqlx::query(append)
            .bind(&keys)
            .bind(&headers)
            .bind(&values)
            .execute(store.pool())
            .await
            .unwrap();
        // The second half is in a segment of its own.
        let _: i32 = sqlx::query_scalar("select log.segment_open((select id from log.topics), now())")
            .fetch_one(store.pool())
            .await
            .unwrap();
    }
    store.migrate().await.unwrap();

    let log = open(&store).await;
    log.append(vec![record(Topic::Events, "k", "new")]).await.unwrap();
    let mut consumer = log.subscribe("g", &[Topic::Events]).await.unwrap();
    let read: Vec<bus::StoredRecord> = (take(&mut consumer, 7).await.into_iter())
        .map(|(_, record)| record)
        .collect();
    keys.extend(keys.clone());
    headers.extend(headers.clone());
    let old: Vec<_> = read.iter().filter(|record| record.value != b"new").collect();
    assert_eq!(old.len(), 6);
    for (place, record) in old.into_iter().enumerate() {
        assert_eq!(record.offset, i64::try_from(place).unwrap());
        assert_eq!(record.key.as_bytes(), keys[place]);
        assert_eq!(record.value, values[place % 3]);
        let texts: Vec<&str> = (record.headers.iter())
            .flat_map(|(name, value)| [&**name, &**value])
            .collect();
        let expected: Vec<String> = serde_json::from_str(headers[place]).unwrap();
        assert_eq!(texts, expected);
    }
}
