//! What every bus promises, as tests that take one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bus::{BusError, Consumer, Delivery, MAX_RECORD_BYTES, NewRecord, Partition, ReadLimits, StoredRecord};
use events::Topic;

use crate::{bus::Bed, support::bus as test_bus};

pub const LIMITS: ReadLimits = ReadLimits {
    records: 500,
    bytes: 1 << 20,
    wait: Duration::from_millis(200),
};
const PATIENCE: Duration = Duration::from_secs(60);

pub fn record(topic: Topic, key: &str, value: impl Into<Vec<u8>>) -> NewRecord {
    NewRecord {
        topic,
        key: key.into(),
        headers: vec![
            ("ce_id".into(), format!("id of {key}").into()),
            ("n".into(), "é".into()),
        ],
        value: value.into(),
    }
}

fn numbered(topic: Topic, keys: u32, each: u32) -> Vec<NewRecord> {
    (0..each)
        .flat_map(|n| (0..keys).map(move |key| record(topic, &format!("k{key}"), n.to_string())))
        .collect()
}

/// Asks until something other than [`Delivery::Idle`] comes.
pub async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    let until = Instant::now() + PATIENCE;
    loop {
        match consumer.next(LIMITS).await.unwrap() {
            Delivery::Idle => assert!(Instant::now() < until, "nothing was delivered"),
            delivery => return delivery,
        }
    }
}

/// Commits as a stage does: again, when the bus says that it may pass. A group that moves on to its next generation, on a
/// machine that is busy, may take longer over it than one call waits.
async fn commit(consumer: &mut Box<dyn Consumer>, partition: Partition, next_offset: i64) {
    let until = Instant::now() + PATIENCE;
    while let Err(error) = consumer.commit(partition, next_offset).await {
        let passes = error.is_transient() && !matches!(error, BusError::NotOwner { .. });
        assert!(passes && Instant::now() < until, "{error}");
    }
}

/// Takes `count` records without committing; lets go of what is revoked.
pub async fn take(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<(Partition, StoredRecord)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        match next(consumer).await {
            Delivery::Batch { partition, records } => {
                assert!(!records.is_empty());
                taken.extend(records.into_iter().map(|record| (partition, record)));
            }
            Delivery::Revoke(partitions) => consumer.release(&partitions).await.unwrap(),
            _ => {}
        }
    }
    assert_eq!(taken.len(), count);
    taken
}

/// Takes what comes until the member owns `count` partitions; answers revocations. Batches are dropped.
pub async fn until_owning(consumer: &mut Box<dyn Consumer>, owned: &mut BTreeSet<Partition>, count: usize) {
    let until = Instant::now() + PATIENCE;
    while owned.len() != count {
        assert!(Instant::now() < until, "owns {} and not {count}", owned.len());
        follow(consumer, owned).await;
    }
}

async fn follow(consumer: &mut Box<dyn Consumer>, owned: &mut BTreeSet<Partition>) {
    match consumer.next(LIMITS).await.unwrap() {
        Delivery::Assign(partitions) => owned.extend(partitions),
        Delivery::Revoke(partitions) => {
            consumer.release(&partitions).await.unwrap();
            owned.retain(|partition| !partitions.contains(partition));
        }
        Delivery::Lost(partitions) => owned.retain(|partition| !partitions.contains(partition)),
        Delivery::Batch { .. } | Delivery::Idle => {}
    }
}

fn all_partitions(topic: Topic) -> BTreeSet<Partition> {
    (0..test_bus::PARTITIONS)
        .map(|number| Partition { topic, number })
        .collect()
}

pub async fn records_come_back_whole_and_in_the_order_of_their_key(bed: &Bed) {
    let sent = numbered(Topic::Events, 10, 50);
    for batch in sent.chunks(37) {
        bed.log.append(batch.to_vec()).await.unwrap();
    }
    let mut consumer = bed.log.subscribe("g", &[Topic::Events]).await.unwrap();
    let taken = take(&mut consumer, sent.len()).await;
    let mut by_key: HashMap<&str, Vec<u32>> = HashMap::new();
    let mut next_offset: BTreeMap<Partition, i64> = BTreeMap::new();
    for (partition, record) in &taken {
        // Each partition's offsets from 0 on, without a gap.
        assert_eq!(record.offset, *next_offset.get(partition).unwrap_or(&0));
        next_offset.insert(*partition, record.offset + 1);
        assert_eq!(
            partition.number,
            bus::partition_for(record.key.as_bytes(), test_bus::PARTITIONS),
            "not where Kafka's default partitioner puts it"
        );
        let headers: [events::Header; 2] = [
            ("ce_id".into(), format!("id of {}", record.key).into()),
            ("n".into(), "é".into()),
        ];
        assert_eq!(record.headers, headers);
        assert!(record.timestamp_ms > 1_500_000_000_000);
        by_key
            .entry(&record.key)
            .or_default()
            .push(String::from_utf8(record.value.clone()).unwrap().parse().unwrap());
    }
    assert_eq!(by_key.len(), 10);
    for (key, values) in by_key {
        assert_eq!(values, (0..50).collect::<Vec<_>>(), "key {key}");
    }
    // Odd keys and values: none is taken amiss.
    let odd: Vec<NewRecord> = ["", "\u{0}", "key, \"quoted\" \\ {}", "💥"]
        .into_iter()
        .map(|key| record(Topic::Inbound, key, [0u8, 255, 10]))
        .collect();
    bed.log.append(odd.clone()).await.unwrap();
    let mut consumer = bed.log.subscribe("g2", &[Topic::Inbound]).await.unwrap();
    let mut keys: Vec<String> = take(&mut consumer, odd.len())
        .await
        .into_iter()
        .map(|(_, r)| r.key)
        .collect();
    let mut expected: Vec<String> = odd.into_iter().map(|record| record.key).collect();
    keys.sort();
    expected.sort();
    assert_eq!(keys, expected);
}

pub async fn what_was_not_committed_is_delivered_again(bed: &Bed) {
    bed.log.append(numbered(Topic::Jobs, 5, 10)).await.unwrap();
    let mut first = bed.log.subscribe("g", &[Topic::Jobs]).await.unwrap();
    let before = take(&mut first, 50).await;
    drop(first);
    let mut second = bed.another().await.subscribe("g", &[Topic::Jobs]).await.unwrap();
    let after = take(&mut second, 50).await;
    let sorted = |mut records: Vec<(Partition, StoredRecord)>| {
        records.sort_by_key(|(partition, record)| (*partition, record.offset));
        records
    };
    assert_eq!(sorted(before), sorted(after));
}

pub async fn the_commit_says_where_the_next_owner_begins(bed: &Bed) {
    bed.log.append(numbered(Topic::Jobs, 1, 20)).await.unwrap();
    let mut first = bed.log.subscribe("g", &[Topic::Jobs]).await.unwrap();
    let taken = take(&mut first, 20).await;
    let partition = taken[0].0;
    // The last commit counts.
    for next_offset in [5, 9, 12] {
        commit(&mut first, partition, next_offset).await;
    }
    let lag = bed.log.lag("g", &[Topic::Jobs]).await.unwrap();
    assert_eq!(lag.len(), test_bus::PARTITIONS as usize);
    for lag in lag {
        let expected = if lag.partition == partition { (12, 20) } else { (0, 0) };
        assert_eq!((lag.committed, lag.end), expected);
    }
    let untouched = bed.log.lag("another", &[Topic::Jobs]).await.unwrap();
    assert_eq!(untouched.iter().map(|lag| lag.end - lag.committed).sum::<i64>(), 20);
    first.close().await.unwrap();
    let mut second = bed.another().await.subscribe("g", &[Topic::Jobs]).await.unwrap();
    let offsets: Vec<i64> = take(&mut second, 8).await.into_iter().map(|(_, r)| r.offset).collect();
    assert_eq!(offsets, (12..20).collect::<Vec<_>>());
}

pub async fn a_newcomer_gets_its_share_when_the_owner_lets_go(bed: &Bed) {
    bed.log.append(numbered(Topic::Events, 40, 5)).await.unwrap();
    let mut old = bed.log.subscribe("g", &[Topic::Events]).await.unwrap();
    let mut owned = BTreeSet::new();
    let mut delivered: BTreeMap<Partition, i64> = BTreeMap::new();
    while delivered.values().sum::<i64>() < 200 {
        match next(&mut old).await {
            Delivery::Assign(partitions) => owned.extend(partitions),
            Delivery::Batch { partition, records } => {
                delivered.insert(partition, records.last().unwrap().offset + 1);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(owned, all_partitions(Topic::Events));
    let epochs: BTreeMap<Partition, i64> = owned
        .iter()
        .map(|partition| (*partition, old.epoch(*partition)))
        .collect();

    let released = Arc::new(AtomicBool::new(false));
    let newcomer = tokio::spawn({
        let (log, released) = (bed.another().await, released.clone());
        async move {
            let mut consumer = log.subscribe("g", &[Topic::Events]).await.unwrap();
            let mut owned = BTreeSet::new();
            let mut first_offsets = BTreeMap::new();
            while owned.len() < 2 {
                match next(&mut consumer).await {
                    Delivery::Assign(partitions) => {
                        assert!(
                            partitions.is_empty() || released.load(Ordering::SeqCst),
                            "given away before the owner let go"
                        );
                        owned.extend(partitions);
                    }
                    Delivery::Batch { partition, records } => {
                        first_offsets.entry(partition).or_insert(records[0].offset);
                    }
                    other => panic!("{other:?}"),
                }
            }
            // Nothing is left for it to read of what was committed before it was let go.
            for _ in 0..3 {
                if let Delivery::Batch { partition, records } = consumer.next(LIMITS).await.unwrap() {
                    first_offsets.entry(partition).or_insert(records[0].offset);
                }
            }
            (consumer, owned, first_offsets)
        }
    });
    let revoked = match next(&mut old).await {
        Delivery::Revoke(partitions) => partitions,
        other => panic!("{other:?}"),
    };
    assert_eq!(revoked.len(), 2);
    // What is under way can still be committed.
    let mut refused = BTreeSet::new();
    for partition in &revoked {
        let Some(done) = delivered.get(partition).copied() else {
            continue;
        };
        if !bed.is_mock() {
            commit(&mut old, *partition, done).await;
        } else if let Err(error) = old.commit(*partition, done).await {
            assert!(error.is_transient(), "{error}");
            refused.insert(*partition);
        }
    }
    released.store(true, Ordering::SeqCst);
    old.release(&revoked).await.unwrap();
    let old = tokio::spawn(async move {
        loop {
            match old.next(LIMITS).await.unwrap() {
                Delivery::Revoke(partitions) => old.release(&partitions).await.unwrap(),
                Delivery::Lost(lost) => panic!("lost {lost:?}"),
                _ => {}
            }
        }
    });
    let (mut consumer, theirs, first_offsets) = newcomer.await.unwrap();
    assert_eq!(theirs, revoked.iter().copied().collect());
    assert!(
        first_offsets.keys().all(|partition| refused.contains(partition)),
        "committed records were delivered again: {first_offsets:?}"
    );
    for partition in &theirs {
        if !bed.is_kafka() {
            assert!(consumer.epoch(*partition) > epochs[partition]);
        }
        let done = delivered.get(partition).copied().unwrap_or(0);
        commit(&mut consumer, *partition, done).await;
    }
    let theirs_not = owned.difference(&theirs).next().copied().unwrap();
    let refused = consumer.commit(theirs_not, 1).await;
    assert!(matches!(refused, Err(BusError::NotOwner { .. })), "{refused:?}");
    old.abort();
}

pub async fn the_partitions_of_a_dead_member_are_taken_over(bed: &Bed) {
    let mut dying = bed.log.subscribe("g", &[Topic::Events]).await.unwrap();
    let mut living = bed.another().await.subscribe("g", &[Topic::Events]).await.unwrap();
    let (mut first, mut second) = (BTreeSet::new(), BTreeSet::new());
    let until = Instant::now() + PATIENCE;
    while (first.len(), second.len()) != (2, 2) {
        assert!(Instant::now() < until, "{first:?} {second:?}");
        follow(&mut dying, &mut first).await;
        follow(&mut living, &mut second).await;
    }
    assert!(first.is_disjoint(&second));
    bed.log.append(numbered(Topic::Events, 20, 1)).await.unwrap();
    drop(dying);
    until_owning(&mut living, &mut second, 4).await;
    assert_eq!(second, all_partitions(Topic::Events));
}

/// What a close needs to run on is gone when it begins: the member leaves all the same, and its thread comes back.
pub async fn a_member_closed_while_its_runtime_ends_leaves(bed: &Bed) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let log = bed.apart();
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let (go, goes) = std::sync::mpsc::channel();
    let (done, is_done) = tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        let log = log.await;
        let mut member = log.subscribe("g", &[Topic::Events]).await.unwrap();
        until_owning(&mut member, &mut BTreeSet::new(), 4).await;
        ready.send(()).unwrap();
        // Blocks on purpose: a task that yields would be dropped.
        goes.recv().unwrap();
        let _ = futures::poll!(member.close());
        done.send(()).unwrap();
    });
    is_ready.await.unwrap();
    runtime.shutdown_background();
    go.send(()).unwrap();
    let mut living = bed.log.subscribe("g", &[Topic::Events]).await.unwrap();
    until_owning(&mut living, &mut BTreeSet::new(), 4).await;
    is_done.await.unwrap();
}

pub async fn three_members_share_evenly(bed: &Bed) {
    let topics = [Topic::OutboundTransactional, Topic::OutboundBulk];
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push((
            bed.another().await.subscribe("g", &topics).await.unwrap(),
            BTreeSet::new(),
        ));
    }
    let until = Instant::now() + PATIENCE;
    loop {
        for (consumer, owned) in &mut members {
            follow(consumer, owned).await;
        }
        let mut counts: Vec<usize> = members.iter().map(|(_, owned)| owned.len()).collect();
        counts.sort_unstable();
        if counts == [2, 3, 3] {
            break;
        }
        assert!(Instant::now() < until, "{counts:?}");
    }
    let mut all = BTreeSet::new();
    for (_, owned) in &members {
        for partition in owned {
            assert!(all.insert(*partition), "{partition:?} has two owners");
        }
    }
    assert_eq!(all.len(), 8);
}

pub async fn a_record_over_the_limit_is_refused_and_one_at_the_limit_is_not(bed: &Bed) {
    let large = record(Topic::Events, "k", vec![b'x'; 2 << 20]);
    let refused = bed
        .log
        .append(vec![record(Topic::Events, "k", "before"), large])
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            BusError::TooLarge {
                topic: Topic::Events,
                ..
            }
        ),
        "{refused}"
    );
    assert!(!refused.is_transient());
    assert!(
        refused.to_string().contains("over the limit of 1048576 bytes"),
        "{refused}"
    );
    let mut largest = record(Topic::Events, "k", Vec::new());
    // Hard to compress, as a picture would be.
    let mut state = 1_u32;
    largest.value = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(MAX_RECORD_BYTES - largest.size())
    .collect();
    assert_eq!(largest.size(), MAX_RECORD_BYTES);
    bed.log.append(vec![largest.clone()]).await.unwrap();
    let mut consumer = bed.log.subscribe("g", &[Topic::Events]).await.unwrap();
    let taken = take(&mut consumer, 1).await;
    assert!(
        taken[0].1.value == largest.value,
        "nothing of the refused call was written, all of the other"
    );
}

pub async fn a_seek_reads_again(bed: &Bed) {
    bed.log.append(numbered(Topic::Jobs, 1, 30)).await.unwrap();
    let mut consumer = bed.log.subscribe("g", &[Topic::Jobs]).await.unwrap();
    let partition = take(&mut consumer, 30).await[0].0;
    for from in [10, 25, 0] {
        consumer.seek(partition, from).await.unwrap();
        let offsets: Vec<i64> = take(&mut consumer, usize::try_from(30 - from).unwrap())
            .await
            .into_iter()
            .map(|(_, record)| record.offset)
            .collect();
        assert_eq!(offsets, (from..30).collect::<Vec<_>>());
    }
    bed.log.append(numbered(Topic::Jobs, 1, 1)).await.unwrap();
    assert_eq!(take(&mut consumer, 1).await[0].1.offset, 30);
    let elsewhere = Partition {
        topic: Topic::Events,
        number: 0,
    };
    assert!(matches!(
        consumer.seek(elsewhere, 0).await,
        Err(BusError::NotOwner { .. })
    ));
}

pub async fn a_paused_partition_gives_nothing(bed: &Bed) {
    let mut consumer = bed.log.subscribe("g", &[Topic::Jobs]).await.unwrap();
    let mut owned = BTreeSet::new();
    until_owning(&mut consumer, &mut owned, 4).await;
    let paused = *owned.iter().next().unwrap();
    consumer.pause(&[paused]).unwrap();
    // More than fits a small buffer.
    let sent = numbered(Topic::Jobs, 40, 150);
    let of_paused = sent
        .iter()
        .filter(|record| bus::partition_for(record.key.as_bytes(), 4) == paused.number)
        .count();
    assert!(of_paused > 1_000);
    bed.log.append(sent.clone()).await.unwrap();
    for (partition, _) in take(&mut consumer, sent.len() - of_paused).await {
        assert_ne!(partition, paused);
    }
    for _ in 0..3 {
        assert!(matches!(consumer.next(LIMITS).await.unwrap(), Delivery::Idle));
    }
    consumer.resume(&[paused]).unwrap();
    let offsets: Vec<i64> = take(&mut consumer, of_paused)
        .await
        .into_iter()
        .map(|(_, r)| r.offset)
        .collect();
    assert_eq!(offsets, (0..i64::try_from(of_paused).unwrap()).collect::<Vec<_>>());
}

pub async fn giving_up_the_wait_loses_nothing(bed: &Bed) {
    let sent = numbered(Topic::Events, 20, 100);
    let appender = tokio::spawn({
        let (log, sent) = (bed.log.clone(), sent.clone());
        async move {
            for batch in sent.chunks(100) {
                log.append(batch.to_vec()).await.unwrap();
            }
        }
    });
    let mut consumer = bed.log.subscribe("g", &[Topic::Events]).await.unwrap();
    let mut next_offset: BTreeMap<Partition, i64> = BTreeMap::new();
    let mut patience = Duration::from_micros(100);
    let until = Instant::now() + PATIENCE;
    while next_offset.values().sum::<i64>() < i64::try_from(sent.len()).unwrap() {
        assert!(Instant::now() < until, "{next_offset:?}");
        // From too short for anything to come, up to long enough.
        patience = (patience * 3 / 2).min(Duration::from_millis(50));
        match tokio::time::timeout(patience, consumer.next(LIMITS)).await {
            Err(_) => {}
            Ok(Ok(Delivery::Batch { partition, records })) => {
                for record in records {
                    let expected = next_offset.entry(partition).or_insert(0);
                    assert_eq!(record.offset, *expected);
                    *expected += 1;
                }
                patience = Duration::from_micros(100);
            }
            Ok(other) => drop(other.unwrap()),
        }
    }
    appender.await.unwrap();
}

pub async fn batches_keep_to_the_limits_and_bursts_are_waited_for(bed: &Bed) {
    // 8 at once, about 12 MB: more than is taken at a time, and no call fails for it.
    let body = "x".repeat(1_500);
    let mut appenders = Vec::new();
    for appender in 0..8 {
        let (log, body) = (bed.another().await, body.clone());
        appenders.push(tokio::spawn(async move {
            let records = (0..1_000)
                .map(|n| record(Topic::Events, &format!("k{appender}-{n}"), body.clone()))
                .collect();
            log.append(records).await.unwrap();
        }));
    }
    let limits = ReadLimits {
        records: 70,
        bytes: 20_000,
        wait: Duration::from_millis(200),
    };
    let mut consumer = bed.log.subscribe("g", &[Topic::Events]).await.unwrap();
    let mut count = 0;
    let until = Instant::now() + PATIENCE;
    while count < 8_000 {
        assert!(Instant::now() < until, "{count} of 8000");
        if let Delivery::Batch { records, .. } = consumer.next(limits).await.unwrap() {
            // One may go over the bytes, and only the last.
            assert!(records.len() <= 20_000 / 1_500 + 1, "{}", records.len());
            count += records.len();
        }
    }
    for appender in appenders {
        appender.await.unwrap();
    }
    let tight = ReadLimits {
        records: 3,
        bytes: 1,
        ..limits
    };
    let partition = Partition {
        topic: Topic::Events,
        number: 0,
    };
    assert_eq!(bed.log.read(partition, 0, tight).await.unwrap().len(), 1);
}

/// Deliveries of ten say that there is more until there is none.
pub async fn a_member_knows_whether_it_is_behind(bed: &Bed) {
    const RECORDS: usize = 100;
    let sent = (0..RECORDS)
        .map(|n| record(Topic::Events, "k", n.to_string()))
        .collect();
    bed.log.append(sent).await.unwrap();
    let mut consumer = bed.log.subscribe("g", &[Topic::Events]).await.unwrap();
    let limits = ReadLimits { records: 10, ..LIMITS };
    let until = Instant::now() + PATIENCE;
    let (mut read, mut said) = (0, Vec::new());
    while read < RECORDS {
        assert!(Instant::now() < until, "{read} were read");
        if let Delivery::Batch { records, .. } = consumer.next(limits).await.unwrap() {
            read += records.len();
            said.push((read, consumer.is_behind()));
        }
    }
    // What is fetched comes in pieces, and what looks like the end of one may not be the last.
    assert!(said.iter().any(|(_, behind)| *behind), "{said:?}");
    while !matches!(consumer.next(limits).await.unwrap(), Delivery::Idle) {
        assert!(Instant::now() < until, "there is no end");
    }
    assert!(!consumer.is_behind());
    consumer.close().await.unwrap();
}

pub async fn concurrent_appenders_never_make_a_reader_skip(bed: &Bed) {
    let mut appenders = Vec::new();
    for appender in 0..6 {
        let log = bed.another().await;
        appenders.push(tokio::spawn(async move {
            for batch in 0..40 {
                // Of several topics and partitions, in an order of each one's own.
                let mut records: Vec<NewRecord> = (0..12)
                    .map(|n| {
                        let topic = [Topic::Events, Topic::Jobs][(n + appender) % 2];
                        record(
                            topic,
                            &format!("k{}", (n * 7 + appender) % 16),
                            format!("{appender} {batch} {n}"),
                        )
                    })
                    .collect();
                if appender % 2 == 1 {
                    records.reverse();
                }
                log.append(records).await.unwrap();
            }
        }));
    }
    let mut consumer = bed.log.subscribe("g", &[Topic::Events, Topic::Jobs]).await.unwrap();
    let mut next_offset: BTreeMap<Partition, i64> = BTreeMap::new();
    let mut values = BTreeSet::new();
    while values.len() < 6 * 40 * 12 {
        if let Delivery::Batch { partition, records } = next(&mut consumer).await {
            for record in records {
                let expected = next_offset.entry(partition).or_insert(0);
                assert_eq!(record.offset, *expected, "skipped in {partition:?}");
                *expected += 1;
                assert!(values.insert(record.value), "twice");
            }
        }
    }
    for appender in appenders {
        appender.await.unwrap();
    }
}

pub async fn reading_without_a_group(bed: &Bed) {
    bed.log.append(numbered(Topic::Receipts, 1, 25)).await.unwrap();
    let bounds = bed.log.bounds(Topic::Receipts).await.unwrap();
    assert_eq!(bounds.len(), test_bus::PARTITIONS as usize);
    let full = bounds.iter().find(|bounds| bounds.end > 0).unwrap();
    assert_eq!((full.first, full.end), (0, 25));
    let mut limits = ReadLimits { records: 10, ..LIMITS };
    let mut offsets = Vec::new();
    let mut from = 0;
    while from < 25 {
        let records = bed.log.read(full.partition, from, limits).await.unwrap();
        assert!(!records.is_empty() && records.len() <= 10);
        offsets.extend(records.iter().map(|record| record.offset));
        from = offsets.last().unwrap() + 1;
    }
    assert_eq!(offsets, (0..25).collect::<Vec<_>>());
    // At the end it waits, and is woken by what comes.
    limits.wait = Duration::from_millis(10);
    assert!(bed.log.read(full.partition, 25, limits).await.unwrap().is_empty());
    limits.wait = PATIENCE;
    let (waited, appended) = tokio::join!(
        bed.log.read(full.partition, 25, limits),
        bed.log.append(numbered(Topic::Receipts, 1, 1)),
    );
    appended.unwrap();
    assert_eq!(waited.unwrap()[0].offset, 25);
    bed.log.ping().await.unwrap();
}

pub async fn a_topic_that_is_not_there_is_named(bed: &Bed) {
    // A bus of another prefix or database has no topics.
    let log = match &bed.store {
        Some(_) if !bed.is_kafka() => {
            let empty = crate::support::database::database().await;
            bus::open(bus::BusConfig::Postgres(bus::PostgresConfig {
                pool: empty.pool().clone(),
            }))
            .await
            .unwrap()
        }
        _ => bus::open(bus::BusConfig::Kafka(test_bus::kafka_config().await))
            .await
            .unwrap(),
    };
    let unknown = |error: BusError| {
        assert!(matches!(error, BusError::UnknownTopic(_)), "{error:?}");
        assert!(error.to_string().contains("tamtam migrate"), "{error}");
    };
    unknown(log.append(vec![record(Topic::Jobs, "k", "v")]).await.unwrap_err());
    unknown(log.subscribe("g", &[Topic::Jobs]).await.map(|_| ()).unwrap_err());
    unknown(log.bounds(Topic::Jobs).await.unwrap_err());
    unknown(log.lag("g", &[Topic::Jobs]).await.unwrap_err());
}

pub async fn topics_grow_and_never_shrink(bed: &Bed) {
    let mut consumer = bed.log.subscribe("g", &[Topic::Jobs]).await.unwrap();
    let mut owned = BTreeSet::new();
    until_owning(&mut consumer, &mut owned, 4).await;
    let mut settings = test_bus::topics();
    for (partitions, expected) in [(6, 6), (2, 6), (6, 6)] {
        for topic in &mut settings {
            topic.partitions = partitions;
            topic.retention = Duration::from_secs(3600);
        }
        bed.log.topics_ensure(&settings).await.unwrap();
        assert_eq!(bed.log.bounds(Topic::Jobs).await.unwrap().len(), expected);
    }
    // A member of before gets the new ones too.
    until_owning(&mut consumer, &mut owned, 6).await;
}

pub async fn everything_is_read_once_while_members_come_and_go(bed: &Bed) {
    const EACH: u32 = 150;
    let appender = tokio::spawn({
        let log = bed.log.clone();
        async move {
            for n in 0..EACH {
                let records = (0..20)
                    .map(|key| record(Topic::Events, &format!("k{key}"), format!("{key} {n}")))
                    .collect();
                log.append(records).await.unwrap();
            }
        }
    });
    let seen = Arc::new(std::sync::Mutex::new(HashMap::<Vec<u8>, u32>::new()));
    let done = Arc::new(AtomicBool::new(false));
    let mut members = Vec::new();
    for member in 0..4 {
        let (log, seen, done) = (bed.another().await, seen.clone(), done.clone());
        members.push(tokio::spawn(async move {
            let mut turns = 0;
            let mut consumer = log.subscribe("g", &[Topic::Events]).await.unwrap();
            while !done.load(Ordering::SeqCst) {
                match consumer.next(LIMITS).await.unwrap() {
                    Delivery::Batch { partition, records } => {
                        // Committed in the same breath: no member dies in between, so each record is done once.
                        let next_offset = records.last().unwrap().offset + 1;
                        commit(&mut consumer, partition, next_offset).await;
                        let mut seen = seen.lock().unwrap();
                        for record in records {
                            *seen.entry(record.value).or_default() += 1;
                        }
                    }
                    Delivery::Revoke(partitions) => consumer.release(&partitions).await.unwrap(),
                    Delivery::Lost(partitions) => panic!("{partitions:?} lost"),
                    Delivery::Assign(_) | Delivery::Idle => {}
                }
                turns += 1;
                // Two of them leave in order now and then, and come back.
                if member < 2 && turns % (30 + 10 * member) == 0 {
                    consumer.close().await.unwrap();
                    consumer = log.subscribe("g", &[Topic::Events]).await.unwrap();
                }
            }
            consumer.close().await.unwrap();
        }));
    }
    appender.await.unwrap();
    let until = Instant::now() + PATIENCE;
    while seen.lock().unwrap().len() < 20 * EACH as usize {
        assert!(
            Instant::now() < until,
            "{} of {}",
            seen.lock().unwrap().len(),
            20 * EACH
        );
        assert!(members.iter().all(|member| !member.is_finished()), "a member ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    done.store(true, Ordering::SeqCst);
    for member in members {
        member.await.unwrap();
    }
    assert!(seen.lock().unwrap().values().all(|times| *times == 1), "read twice");
    let lag = bed.log.lag("g", &[Topic::Events]).await.unwrap();
    assert!(lag.iter().all(|lag| lag.committed == lag.end), "{lag:?}");
}
