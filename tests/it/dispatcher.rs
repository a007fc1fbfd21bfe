//! The dispatcher on a real bus and a real database, before gateways that do what each test says.

use std::{
    collections::HashSet,
    sync::{Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use domain::{Class, Reason, State};
use events::{DeadLetter, Outbound, Record, Topic};
use gateways::Outcome;
use jiff::{SignedDuration, Timestamp};
use store::suppressions::Scope;
use uuid::Uuid;

use crate::{
    dispatcher_stand::{Fake, Stand, accept, eventually, most_within, of_campaign, outbound},
    support::{campaign::drafted, simulator},
};

const FAST: &str = r#"
[[gateway]]
name = "main"
kind = "smpp"
address = "127.0.0.1:1"
system_id = "tamtam"
rate = 100000
window = 1000
prefixes = ["+262"]

[policy]
quiet_hours = "off"
"#;

fn many(count: usize, class: Class) -> Vec<Outbound> {
    (0..count).map(|number| outbound(number, class)).collect()
}

fn unknown(_: &gateways::Submission, _: usize) -> Outcome {
    Outcome::Unknown {
        code: None,
        parts: Vec::new(),
    }
}

async fn campaign(stand: &Stand) -> Uuid {
    let id = Uuid::from_u128(0xCAFE);
    let new = drafted(id, "sale", "age > 30", "sale");
    let mut tx = stand.store.begin().await.unwrap();
    tx.campaign_create(&new, "test", Timestamp::now()).await.unwrap();
    tx.campaign_launch(id, None, "age > 30", "test", Timestamp::now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_is_sent_once_and_told_of() {
    let stand = Stand::new(FAST).await;
    let fake = stand.fake("main");
    let mut records = many(150, Class::Marketing);
    records.extend(many(150, Class::Transactional));
    stand.append(&records).await;
    // The renderer repeats itself after a crash; somebody writes to a place that no gateway serves; somebody writes rubbish.
    stand.append(&records[100..120]).await;
    let mut elsewhere = outbound(999, Class::Transactional);
    elsewhere.phone = domain::Phone::from_e164("+33612345678");
    stand.append(std::slice::from_ref(&elsewhere)).await;
    let rubbish = bus::NewRecord {
        topic: Topic::OutboundBulk,
        key: "x".into(),
        headers: outbound_headers("tamtam.outbound.v9"),
        value: b"{}".to_vec(),
    };
    stand.log.append(vec![rubbish]).await.unwrap();
    let dispatcher = stand.start();
    stand.until(&records, |row| row.state == State::Accepted).await;
    stand
        .until(std::slice::from_ref(&elsewhere), |row| {
            row.reason == Some(Reason::NoGateway)
        })
        .await;
    stand.until_committed().await;
    dispatcher.stop().await;
    assert!(fake.times().values().all(|times| *times == 1));
    assert_eq!(fake.times().len(), records.len());
    assert_eq!(fake.closed.load(Ordering::SeqCst), 1, "unbound on stop");

    let receipts = stand.all(Topic::Receipts).await;
    let ids: HashSet<String> = receipts.iter().map(|record| header(record, "ce_id")).collect();
    assert_eq!(ids.len(), records.len() + 1);
    let letters: Vec<DeadLetter> = stand
        .all(Topic::DeadLetters)
        .await
        .iter()
        .map(|record| DeadLetter::from_bytes(DeadLetter::KIND, &record.value).unwrap())
        .collect();
    assert_eq!(letters.len(), 1);
    assert!(
        letters[0].reason.contains("tamtam.outbound.v9"),
        "{}",
        letters[0].reason
    );

    // After the outcome, all that a repeat does is to make the same receipt again.
    stand.append(&records[..1]).await;
    let dispatcher = stand.start();
    stand.until_committed().await;
    dispatcher.stop().await;
    assert_eq!(fake.times().len(), records.len());
    let again = stand.all(Topic::Receipts).await;
    let id = format!("{}:accepted", records[0].message_id);
    let same: Vec<_> = again.iter().filter(|record| header(record, "ce_id") == id).collect();
    assert!(same.len() >= 2);
    assert!(same.iter().all(|record| record.value == same[0].value));
    assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0);
}

fn header(record: &bus::StoredRecord, name: &str) -> String {
    let found = record.headers.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.to_string()).unwrap()
}

fn outbound_headers(kind: &str) -> Vec<events::Header> {
    [
        ("ce_specversion", "1.0"),
        ("ce_id", "1"),
        ("ce_source", "x"),
        ("ce_type", kind),
    ]
    .map(|(name, value)| (events::text(name), events::text(value)))
    .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_dispatcher_had_in_flight_is_unknown_or_sent_again_under_the_same_reference() {
    let stand = Stand::new(FAST).await;
    let fake = stand.fake("main");
    fake.hangs.store(true, Ordering::SeqCst);
    let (marketing, transactional) = (many(400, Class::Marketing), many(100, Class::Transactional));
    stand.append(&marketing).await;
    stand.append(&transactional).await;
    let killed = stand.start();
    eventually("500 are in flight", || fake.in_flight.load(Ordering::SeqCst) == 500).await;
    killed.kill();
    fake.hangs.store(false, Ordering::SeqCst);
    let next = stand.start();
    stand.until(&transactional, |row| row.state == State::Accepted).await;
    stand.until(&marketing, |row| row.state == State::Unknown).await;
    stand.until_committed().await;
    next.stop().await;
    let times = fake.times();
    assert!(
        marketing.iter().all(|record| times[&record.message_id] == 1),
        "0 duplicates of marketing"
    );
    assert!(transactional.iter().all(|record| times[&record.message_id] == 2));
    let receipts = stand.receipts().await;
    let unknown = receipts.iter().filter(|receipt| receipt.state == State::Unknown);
    assert_eq!(
        unknown.map(|receipt| receipt.message_id).collect::<HashSet<_>>().len(),
        marketing.len()
    );
    assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_flight_waits_too_while_the_gateway_is_down() {
    let stand = Stand::new(FAST).await;
    let fake = stand.fake("main");
    fake.hangs.store(true, Ordering::SeqCst);
    let (sales, orders) = (many(20, Class::Marketing), many(20, Class::Transactional));
    stand.append(&sales).await;
    stand.append(&orders).await;
    let killed = stand.start();
    eventually("40 are in flight", || fake.in_flight.load(Ordering::SeqCst) == 40).await;
    killed.kill();
    fake.hangs.store(false, Ordering::SeqCst);
    fake.up.store(false, Ordering::SeqCst);
    let next = stand.start();
    stand.until(&sales, |row| row.state == State::Unknown).await;
    stand.until(&orders, |row| row.state == State::Deferred).await;
    stand.until_committed().await;
    fake.up.store(true, Ordering::SeqCst);
    stand.pass(60);
    stand.until(&orders, |row| row.state == State::Accepted).await;
    next.stop().await;
    let times = fake.times();
    assert!(sales.iter().all(|record| times[&record.message_id] == 1));
    assert!(orders.iter().all(|record| times[&record.message_id] == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_in_flight_are_drained_by_a_stop() {
    let stand = Stand::new(FAST).await;
    let fake = stand.fake("main");
    *fake.delay.lock().unwrap() = Duration::from_secs(2);
    let records = many(1_600, Class::Marketing);
    stand.append(&records).await;
    let stopped = stand.start();
    eventually("1,000 are in flight", || fake.in_flight.load(Ordering::SeqCst) == 1_000).await;
    stopped.stop().await;
    assert_eq!(fake.in_flight.load(Ordering::SeqCst), 0);
    *fake.delay.lock().unwrap() = Duration::ZERO;
    let next = stand.start();
    stand.until(&records, |row| row.state == State::Accepted).await;
    next.stop().await;
    assert_eq!(
        fake.most_in_flight.load(Ordering::SeqCst),
        1_000,
        "never over the window"
    );
    assert!(fake.times().values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_cancel_stop_and_deadline_take_effect_before_the_gateway() {
    let stand = Stand::new(FAST).await;
    let fake = stand.fake("main");
    let id = campaign(&stand).await;
    let mut tx = stand.store.begin().await.unwrap();
    tx.campaign_pause(id, "test", Timestamp::now()).await.unwrap();
    let stopped = outbound(1, Class::Marketing);
    tx.suppression_put(
        &stand.key.hash(&stopped.phone),
        Scope::Marketing,
        "reply",
        Timestamp::now(),
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let mut late = outbound(2, Class::Transactional);
    late.deadline = Some(Timestamp::now() - SignedDuration::from_secs(1));
    let parked: Vec<Outbound> = (10..40).map(|number| of_campaign(number, id)).collect();
    stand.append(&parked).await;
    stand.append(&[stopped.clone(), late.clone()]).await;
    let dispatcher = stand.start();
    stand.until(&parked, |row| row.state == State::Deferred).await;
    stand.until(&[stopped], |row| row.reason == Some(Reason::Stopped)).await;
    stand
        .until(&[late], |row| row.reason == Some(Reason::DeadlinePassed))
        .await;
    stand.until_committed().await;
    assert_eq!(stand.store.deferred_count().await.unwrap(), (30, 30));
    assert!(fake.sent().is_empty());

    let mut tx = stand.store.begin().await.unwrap();
    tx.campaign_resume(id, "test", Timestamp::now()).await.unwrap();
    tx.commit().await.unwrap();
    stand.until(&parked, |row| row.state == State::Accepted).await;

    let mut tx = stand.store.begin().await.unwrap();
    tx.campaign_pause(id, "test", Timestamp::now()).await.unwrap();
    tx.commit().await.unwrap();
    // The dispatcher hears of it within a moment.
    let mut sent = parked.len();
    for number in 1_000.. {
        let one = of_campaign(number, id);
        stand.append(std::slice::from_ref(&one)).await;
        stand
            .until(std::slice::from_ref(&one), |row| row.state != State::Sending)
            .await;
        match stand.row(&one).await.unwrap().state {
            State::Accepted => sent += 1,
            _ => break,
        }
    }
    let waiting: Vec<Outbound> = (50..60).map(|number| of_campaign(number, id)).collect();
    stand.append(&waiting).await;
    stand.until(&waiting, |row| row.state == State::Deferred).await;
    let mut tx = stand.store.begin().await.unwrap();
    tx.campaign_cancel(id, "test", Timestamp::now()).await.unwrap();
    tx.commit().await.unwrap();
    stand
        .until(&waiting, |row| row.reason == Some(Reason::CampaignCancelled))
        .await;
    dispatcher.stop().await;
    assert_eq!(fake.sent().len(), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn marketing_waits_for_its_hours_and_transactional_does_not() {
    let stand = Stand::new(&FAST.replace("\"off\"", "\"00:00-00:01\"")).await;
    // The window of a minute is closed now, wherever the minute is.
    let day = 86_400;
    let second_of_day = (Timestamp::now().as_second() + 4 * 3_600).rem_euclid(day);
    if second_of_day < 120 {
        stand.pass(600);
    }
    let mut hurried = outbound(1, Class::Marketing);
    hurried.deadline = Some(stand.clock().now() + SignedDuration::from_secs(60));
    let (patient, order) = (outbound(2, Class::Marketing), outbound(3, Class::Transactional));
    stand.append(&[hurried.clone(), patient.clone(), order.clone()]).await;
    let dispatcher = stand.start();
    stand.until(&[order], |row| row.state == State::Accepted).await;
    stand
        .until(std::slice::from_ref(&hurried), |row| row.state == State::Expired)
        .await;
    stand
        .until(std::slice::from_ref(&patient), |row| {
            (row.state, row.reason) == (State::Deferred, Some(Reason::QuietHours))
        })
        .await;
    let waiting = stand.store.deferred_next_due().await.unwrap().unwrap();
    stand.pass(waiting.as_second() - stand.clock().now().as_second() + 5);
    stand.until(&[patient], |row| row.state == State::Accepted).await;
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_succeed_later_is_tried_again_from_the_database() {
    let stand = Stand::new(FAST).await;
    let fake = stand.fake("main");
    let refused: HashSet<Uuid> = many(5, Class::Marketing)
        .iter()
        .map(|record| record.message_id)
        .collect();
    let tried = Mutex::new(HashSet::new());
    fake.behaves(move |submission, number| {
        let again = !tried.lock().unwrap().insert(submission.reference);
        match (again, refused.contains(&submission.reference)) {
            (false, _) => Outcome::Retry {
                code: "0x14".into(),
                throttled: number % 2 == 0,
            },
            (true, true) => Outcome::Refused {
                code: "0x0B".into(),
                reason: Reason::InvalidPhone,
            },
            (true, false) => accept(submission, number),
        }
    });
    let records = many(20, Class::Marketing);
    stand.append(&records).await;
    let dispatcher = stand.start();
    stand
        .until(&records, |row| row.attempt >= 1 && row.state != State::Sending)
        .await;
    // It is durable: the dispatcher that tried first need not be there any more.
    dispatcher.stop().await;
    stand.pass(10);
    let dispatcher = stand.start();
    stand
        .until(&records, |row| row.attempt == 2 && row.state > State::Sending)
        .await;
    dispatcher.stop().await;
    let mut failed = 0;
    for record in &records {
        let row = stand.row(record).await.unwrap();
        match row.state {
            State::Accepted => assert_eq!(row.gateway_code, None),
            State::Failed => {
                failed += 1;
                assert_eq!(
                    (row.reason, row.gateway_code.as_deref()),
                    (Some(Reason::InvalidPhone), Some("0x0B"))
                );
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(failed, 5);
    assert!(fake.times().values().all(|times| *times == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_named_and_only_transactional_is_sent_again() {
    let stand = Stand::new(FAST).await;
    let fake = stand.fake("main");
    let tried = Mutex::new(HashSet::new());
    fake.behaves(
        move |submission, number| match tried.lock().unwrap().insert(submission.reference) {
            true => unknown(submission, number),
            false => accept(submission, number),
        },
    );
    let (sale, order) = (outbound(1, Class::Marketing), outbound(2, Class::Transactional));
    stand.append(&[sale.clone(), order.clone()]).await;
    let dispatcher = stand.start();
    stand
        .until(std::slice::from_ref(&sale), |row| row.state == State::Unknown)
        .await;
    stand.pass(10);
    stand
        .until(std::slice::from_ref(&order), |row| row.state == State::Accepted)
        .await;
    dispatcher.stop().await;
    let times = fake.times();
    assert_eq!((times[&sale.message_id], times[&order.message_id]), (1, 2));
}

const TWO: &str = r#"
[[gateway]]
name = "first"
kind = "smpp"
address = "127.0.0.1:1"
system_id = "tamtam"
rate = 100000
window = 20
priority = 1

[[gateway]]
name = "second"
kind = "smpp"
address = "127.0.0.1:1"
system_id = "tamtam"
rate = 100000
window = 20
priority = 2

[policy]
quiet_hours = "off"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn another_gateway_takes_over_and_gives_back() {
    let stand = Stand::new(TWO).await;
    let (first, second) = (stand.fake("first"), stand.fake("second"));
    let dispatcher = stand.start();
    let up = many(50, Class::Marketing);
    stand.append(&up).await;
    stand.until(&up, |row| row.gateway.as_deref() == Some("first")).await;
    // Its answers stop coming: after a few the other one takes over, and nothing is sent twice.
    first.behaves(unknown);
    let failing: Vec<Outbound> = (100..300).map(|number| outbound(number, Class::Marketing)).collect();
    stand.append(&failing).await;
    stand.until(&failing, |row| row.state >= State::Unknown).await;
    assert!(first.sent().len() < 50 + 60, "{}", first.sent().len());
    assert!(second.sent().len() > 140);
    first.behaves(accept);
    let sent = Instant::now();
    let mut number = 1_000;
    while first.in_flight.load(Ordering::SeqCst) == 0 && stand_back(&first, sent) < 20 {
        assert!(sent.elapsed() < Duration::from_secs(60), "it never came back");
        let probe = outbound(number, Class::Transactional);
        stand.append(std::slice::from_ref(&probe)).await;
        stand.until(&[probe], |row| row.state == State::Accepted).await;
        number += 1;
    }
    dispatcher.stop().await;
    let mut times = first.times();
    for (message, count) in second.times() {
        *times.entry(message).or_default() += count;
    }
    assert!(times.values().all(|times| *times == 1));
}

/// What it took since then.
fn stand_back(fake: &Fake, since: Instant) -> usize {
    fake.sent().iter().filter(|sent| sent.at > since).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_every_gateway_is_down() {
    let stand = Stand::new(TWO).await;
    let (first, second) = (stand.fake("first"), stand.fake("second"));
    first.up.store(false, Ordering::SeqCst);
    // This one is up and takes nothing over.
    second.behaves(|_, _| Outcome::Unreachable);
    let mut records = many(300, Class::Marketing);
    let mut hurried = outbound(900, Class::Transactional);
    hurried.deadline = Some(Timestamp::now() + SignedDuration::from_secs(8));
    stand.append(&records).await;
    stand.append(std::slice::from_ref(&hurried)).await;
    let dispatcher = stand.start();
    stand
        .until(&records, |row| row.state == State::Deferred && row.attempt == 0)
        .await;
    stand.until_committed().await;
    stand.pass(30);
    stand
        .until(&[hurried], |row| row.reason == Some(Reason::DeadlinePassed))
        .await;
    first.up.store(true, Ordering::SeqCst);
    records.extend((400..500).map(|number| outbound(number, Class::Marketing)));
    stand.append(&records[300..]).await;
    stand.pass(600);
    stand.until(&records, |row| row.state == State::Accepted).await;
    dispatcher.stop().await;
    assert!(first.times().values().all(|times| *times == 1));
    assert_eq!(first.times().len(), records.len());
}

const SLOW: &str = r#"
[[gateway]]
name = "main"
kind = "smpp"
address = "127.0.0.1:1"
system_id = "tamtam"
rate = 200
window = 50

[policy]
quiet_hours = "off"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_is_kept_and_used_and_transactional_goes_first() {
    let stand = Stand::new(SLOW).await;
    let fake = stand.fake("main");
    let mut records = many(700, Class::Marketing);
    for (number, record) in records.iter_mut().enumerate() {
        record.parts = 1 + (number % 3 == 0) as u16;
    }
    stand.append(&records).await;
    let dispatcher = stand.start();
    eventually("the backlog is under way", || fake.sent().len() > 50).await;
    let mut waits = Vec::new();
    // The first one may wait for the group to come together.
    for number in 0..11 {
        let order = outbound(number, Class::Transactional);
        let start = Instant::now();
        stand.append(std::slice::from_ref(&order)).await;
        eventually("it is sent", || fake.times().contains_key(&order.message_id)).await;
        waits.push(start.elapsed());
    }
    eventually("all is sent", || fake.sent().len() == 711).await;
    stand.until_committed().await;
    dispatcher.stop().await;
    waits.remove(0);
    waits.sort();
    // The machine may be busy with other tests; behind the backlog it would be seconds.
    assert!(waits[5] < Duration::from_millis(250), "{waits:?}");
    assert!(waits[9] < Duration::from_millis(1_000), "{waits:?}");
    let sent = fake.sent();
    let most = most_within(Duration::from_secs(1), &sent);
    assert!(most <= 204, "{most} parts in a second");
    // Over the whole run the machine may be busy with other tests for a while.
    let used = most_within(Duration::from_secs(2), &sent);
    assert!(used >= 380, "{used} parts in two seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_dispatchers_share_the_rate() {
    let stand = Stand::new(SLOW).await;
    let fake = stand.fake("main");
    let records = many(1_600, Class::Marketing);
    stand.append(&records).await;
    let first = stand.start();
    eventually("the first one sends", || fake.sent().len() > 100).await;
    let second = stand.start();
    eventually("both send", || fake.sent().len() > 900).await;
    first.stop().await;
    eventually("all is sent", || fake.times().len() == records.len()).await;
    stand.until(&records, |row| row.state == State::Accepted).await;
    second.stop().await;
    assert!(fake.times().values().all(|times| *times == 1));
    let most = most_within(Duration::from_secs(1), &fake.sent());
    assert!(most <= 204, "{most} parts in a second");
    let owners: HashSet<Option<Uuid>> = {
        let mut owners = HashSet::new();
        for record in &records {
            owners.insert(stand.row(record).await.unwrap().owner);
        }
        owners
    };
    assert_eq!(owners.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_message_goes_out_at_once() {
    let stand = Stand::new(FAST).await;
    let fake = stand.fake("main");
    let dispatcher = stand.start();
    let warm = outbound(0, Class::Transactional);
    stand.append(std::slice::from_ref(&warm)).await;
    stand.until(&[warm], |row| row.state == State::Accepted).await;
    let mut waits = Vec::new();
    for number in 1..=20 {
        let order = outbound(number, Class::Transactional);
        let start = Instant::now();
        stand.append(std::slice::from_ref(&order)).await;
        loop {
            if let Some(sent) = fake.sent().iter().find(|sent| sent.reference == order.message_id) {
                waits.push(sent.at - start);
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    dispatcher.stop().await;
    waits.sort();
    assert!(waits[10] < Duration::from_millis(100), "{waits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_written_side_by_side_and_no_offset_passes_one_that_waits() {
    let stand = Stand::new(FAST).await;
    let fake = stand.fake("main");
    fake.hangs.store(true, Ordering::SeqCst);
    let records = many(2_500, Class::Marketing);
    stand.append(&records).await;
    let dispatcher = stand.start();
    eventually("a window is under way", || {
        fake.in_flight.load(Ordering::SeqCst) == 1_000
    })
    .await;

    // Somebody holds the row of one that is under way, so what became of it cannot be written yet.
    let held = fake.sent()[0].reference;
    let mut holding = stand.store.pool().begin().await.unwrap();
    sqlx::query("select from messages where message_id = $1 for update")
        .bind(held)
        .execute(&mut *holding)
        .await
        .unwrap();
    fake.hangs.store(false, Ordering::SeqCst);
    // A batch waits with it, and in the end what is less than a whole one. All others go on.
    let others_are_accepted = || async {
        let count: i64 = sqlx::query_scalar("select count(*) from messages where state = $1")
            .bind(State::Accepted.code())
            .fetch_one(stand.store.pool())
            .await
            .unwrap();
        (count >= 1_500).then_some(())
    };
    simulator::eventually("others are accepted beside one that waits", others_are_accepted).await;
    let place = stand.place(Topic::OutboundBulk, held).await;
    let lags = stand.log.lag(dispatcher::GROUP, &[Topic::OutboundBulk]).await.unwrap();
    let lag = lags.iter().find(|lag| lag.partition == place.0).unwrap();
    assert!(lag.committed <= place.1, "{lag:?} passes {place:?}");

    holding.rollback().await.unwrap();
    stand.until(&records, |row| row.state == State::Accepted).await;
    stand.until_committed().await;
    dispatcher.stop().await;
    assert!(fake.times().values().all(|times| *times == 1));
    assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0);
}
