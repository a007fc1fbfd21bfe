//! Which gateway a message goes to, and how fast: rates over several dispatchers at a real gateway, a rate for each sender,
//! gateways for one class, and a slow gateway beside a quick one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use domain::{Class, Phone, State};
use events::Outbound;
use gateways::Outcome;
use jiff::{SignedDuration, Timestamp};
use simulator::Script;

use crate::{
    dispatcher_stand::{Stand, accept, eventually, most_within, outbound},
    support::simulator::Simulator,
};

fn many(numbers: std::ops::Range<usize>, class: Class) -> Vec<Outbound> {
    numbers.map(|number| outbound(number, class)).collect()
}

const RATE: u32 = 200;

const MAIN: &str = r#"
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
async fn all_dispatchers_together_keep_the_rate_and_use_it_through_rebalances() {
    let stand = Stand::new(MAIN).await;
    let fake = stand.fake("main");
    let total = 2_400;
    stand.append(&many(0..total, Class::Marketing)).await;
    // One, then four, then two: each hand-over shares anew.
    let first = stand.start();
    eventually("one sends", || fake.sent().len() >= 400).await;
    let (second, third, fourth) = (stand.start(), stand.start(), stand.start());
    eventually("four send", || fake.sent().len() >= 1_200).await;
    second.stop().await;
    third.stop().await;
    eventually("all is sent", || fake.times().len() == total).await;
    stand.until_committed().await;
    first.stop().await;
    fourth.stop().await;
    assert!(fake.times().values().all(|times| *times == 1));
    let sent = fake.sent();
    let most = most_within(Duration::from_secs(1), &sent);
    assert!(f64::from(most) <= f64::from(RATE) * 1.02, "{most} parts in a second");
    // The machine is busy with other tests at times, which is not ours: the best two seconds say what is possible.
    let used = f64::from(most_within(Duration::from_secs(2), &sent)) / 2.0;
    assert!(used >= f64::from(RATE) * 0.95, "{used} parts a second");
}

const SENDERS: &str = r#"
[[gateway]]
name = "main"
kind = "smpp"
address = "127.0.0.1:1"
system_id = "tamtam"
rate = 1000
sender_rate = 40
window = 100

[policy]
quiet_hours = "off"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_keeps_its_rate_and_holds_up_no_other() {
    let stand = Stand::new(SENDERS).await;
    let fake = stand.fake("main");
    let mut records = many(0..240, Class::Marketing);
    // Behind 200 of one sender come 40 of others.
    for (number, record) in records.iter_mut().enumerate() {
        record.sender = if number < 200 {
            "BUSY".into()
        } else {
            format!("OTHER{}", number % 4)
        };
    }
    let senders: HashMap<uuid::Uuid, String> = records
        .iter()
        .map(|record| (record.message_id, record.sender.clone()))
        .collect();
    stand.append(&records).await;
    let dispatcher = stand.start();
    eventually("all are sent", || fake.sent().len() == records.len()).await;
    stand.until_committed().await;
    dispatcher.stop().await;
    let mut sent = fake.sent();
    sent.sort_by_key(|sent| sent.at);
    let of = |reference: &uuid::Uuid| senders[reference].as_str();
    let busy: Vec<Instant> = sent
        .iter()
        .filter(|sent| of(&sent.reference) == "BUSY")
        .map(|sent| sent.at)
        .collect();
    for window in busy.windows(42) {
        assert!(
            window[41] - window[0] >= Duration::from_secs(1),
            "42 parts of one sender within {:?}",
            window[41] - window[0]
        );
    }
    // The others were behind in every partition, and were done long before.
    let last_other = sent.iter().rposition(|sent| of(&sent.reference) != "BUSY").unwrap();
    assert!(last_other < 160, "the last of the others went as number {last_other}");
    assert!(fake.times().values().all(|times| *times == 1));
}

const CLASSES: &str = r#"
[[gateway]]
name = "orders"
kind = "smpp"
address = "127.0.0.1:1"
system_id = "tamtam"
rate = 1000
priority = 1
classes = ["transactional"]

[[gateway]]
name = "sales"
kind = "smpp"
address = "127.0.0.1:1"
system_id = "tamtam"
rate = 1000
priority = 2

[policy]
quiet_hours = "off"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_may_be_for_one_class() {
    let stand = Stand::new(CLASSES).await;
    let (orders, sales) = (many(0..20, Class::Transactional), many(0..20, Class::Marketing));
    stand.append(&orders).await;
    stand.append(&sales).await;
    let dispatcher = stand.start();
    stand.until(&orders, |row| row.state == State::Accepted).await;
    stand.until(&sales, |row| row.state == State::Accepted).await;
    dispatcher.stop().await;
    assert_eq!(stand.fake("orders").sent().len(), 20);
    for sent in stand.fake("orders").sent() {
        assert!(orders.iter().any(|record| record.message_id == sent.reference));
    }
    assert_eq!(stand.fake("sales").sent().len(), 20);
}

const SLOW_AND_QUICK: &str = r#"
[[gateway]]
name = "slow"
kind = "smpp"
address = "127.0.0.1:1"
system_id = "tamtam"
rate = 10
prefixes = ["+262"]

[[gateway]]
name = "quick"
kind = "smpp"
address = "127.0.0.1:1"
system_id = "tamtam"
rate = 1000
window = 100
prefixes = ["+33"]

[policy]
quiet_hours = "off"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_gateway_does_not_hold_up_the_bulk_of_another() {
    let stand = Stand::new(SLOW_AND_QUICK).await;
    let (slow, quick) = (stand.fake("slow"), stand.fake("quick"));
    // More than is ever in memory stands before the quick gateway's records, on the same partitions: at the slow one's rate
    // it would take eighteen minutes.
    let blocking = many(0..10_800, Class::Marketing);
    let mut behind = many(20_000..20_300, Class::Marketing);
    for (number, record) in behind.iter_mut().enumerate() {
        record.phone = Phone::from_e164(format!("+336120{number:05}"));
    }
    stand.append(&blocking).await;
    stand.append(&behind).await;
    let dispatcher = stand.start();
    stand.until(&behind, |row| row.state == State::Accepted).await;
    dispatcher.stop().await;
    assert_eq!(quick.sent().len(), 300);
    assert!(slow.sent().len() < 1_000);
    // What was put off is in the database and comes back as the slow gateway has sent the rest: nothing is lost.
    let (waiting, parked) = stand.store.deferred_count().await.unwrap();
    assert_eq!(parked, 0);
    assert!(waiting > 6_000, "{waiting}");
    // So does it when the rate is not what it was thought to be.
    let next = stand.start();
    stand
        .apply(&SLOW_AND_QUICK.replace("rate = 10\n", "rate = 2000\n"))
        .await;
    stand.until(&blocking, |row| row.state == State::Accepted).await;
    next.stop().await;
    assert_eq!(slow.sent().len(), blocking.len());
    assert!(slow.times().values().all(|times| *times == 1));
    assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_pauses_gets_nothing_meanwhile_and_no_burst_after() {
    let stand = Stand::new(MAIN).await;
    let fake = stand.fake("main");
    let records = many(0..700, Class::Marketing);
    stand.append(&records).await;
    let dispatcher = stand.start();
    eventually("it sends", || fake.sent().len() >= 100).await;
    let until = Instant::now() + Duration::from_secs(1);
    *fake.pauses_until.lock().unwrap() = Some(until);
    let begun = Instant::now();
    eventually("the pause is over", || Instant::now() >= until).await;
    let during = fake
        .sent()
        .iter()
        .filter(|sent| sent.at > begun && sent.at < until)
        .count();
    // One may have been on its way when it began.
    assert!(during <= 1, "{during} went out while it paused");
    eventually("all are sent", || fake.sent().len() == records.len()).await;
    stand.until_committed().await;
    dispatcher.stop().await;
    let most = most_within(Duration::from_secs(1), &fake.sent());
    assert!(f64::from(most) <= f64::from(RATE) * 1.02, "{most} parts in a second");
    assert!(fake.times().values().all(|times| *times == 1));
}

const TWO: &str = r#"
[[gateway]]
name = "first"
kind = "smpp"
address = "127.0.0.1:1"
system_id = "tamtam"
rate = 100
window = 10
priority = 1

[[gateway]]
name = "second"
kind = "smpp"
address = "127.0.0.1:1"
system_id = "tamtam"
rate = 1000
window = 10
priority = 2

[policy]
quiet_hours = "off"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_gateway_that_throttles_goes_by_another_and_it_gets_its_own_back() {
    let stand = Stand::new(TWO).await;
    let (first, second) = (stand.fake("first"), stand.fake("second"));
    let throttled = |_: &gateways::Submission, _: usize| Outcome::Retry {
        code: "0x58".into(),
        throttled: true,
    };
    first.behaves(throttled);
    let records = many(0..400, Class::Marketing);
    stand.append(&records).await;
    let dispatcher = stand.start();
    // What was thrown back waits for its time; the rest is through long before the first one's rate would have it.
    eventually("the other one takes over", || second.sent().len() >= 300).await;
    let thrown_back = first.sent().len();
    assert!(
        thrown_back < 100,
        "{thrown_back} were tried at a gateway that throttles"
    );
    let taken = Arc::new(Mutex::new(Vec::new()));
    let notes = taken.clone();
    first.behaves(move |submission, number| {
        notes.lock().unwrap().push(submission.reference);
        accept(submission, number)
    });
    stand.pass(600);
    stand.until(&records, |row| row.state == State::Accepted).await;
    // And back: the first one is preferred again as soon as it takes what it gets.
    let before = taken.lock().unwrap().len();
    eventually_sent(&stand, || taken.lock().unwrap().len() > before + 10).await;
    dispatcher.stop().await;
    let mut accepted_by: HashMap<uuid::Uuid, usize> = second.times();
    for reference in taken.lock().unwrap().iter() {
        *accepted_by.entry(*reference).or_default() += 1;
    }
    assert!(accepted_by.values().all(|times| *times == 1));
}

/// Sends one message after the other until it is so.
async fn eventually_sent(stand: &Stand, mut there: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    for number in 10_000.. {
        if there() {
            return;
        }
        assert!(Instant::now() < until, "it never came back");
        let probe = outbound(number, Class::Transactional);
        stand.append(std::slice::from_ref(&probe)).await;
        stand.until(&[probe], |row| row.state == State::Accepted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cut_connection_moves_nothing_to_another_gateway() {
    let stand = Stand::new(TWO).await;
    let (first, second) = (stand.fake("first"), stand.fake("second"));
    let records = many(0..200, Class::Marketing);
    stand.append(&records).await;
    first.hangs.store(true, Ordering::SeqCst);
    let dispatcher = stand.start();
    eventually("a window is in flight", || first.in_flight.load(Ordering::SeqCst) == 10).await;
    // The connection breaks: all that was in flight fails at once, and it is back within a moment.
    let cut = first.sent().len();
    first.behaves(move |submission, number| match number <= cut {
        true => Outcome::Unknown {
            code: None,
            parts: Vec::new(),
        },
        false => accept(submission, number),
    });
    let begun = Instant::now();
    first.up.store(false, Ordering::SeqCst);
    first.hangs.store(false, Ordering::SeqCst);
    eventually("they failed", || first.in_flight.load(Ordering::SeqCst) == 0).await;
    first.up.store(true, Ordering::SeqCst);
    // On a machine that is busy the moment may have been a long one.
    let was_short = begun.elapsed() < Duration::from_millis(400);
    stand
        .until(&records, |row| matches!(row.state, State::Accepted | State::Unknown))
        .await;
    dispatcher.stop().await;
    let elsewhere = second.sent().len();
    assert!(!was_short || elsewhere == 0, "{elsewhere} went by the other one");
    assert_eq!(first.times().len() + elsewhere, records.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_the_validity_that_the_gateway_is_told() {
    let simulator = Simulator::start(Script {
        receipts: false,
        ..Script::default()
    })
    .await;
    let stand = Stand::new(&MAIN.replace("127.0.0.1:1", &simulator.smpp)).await;
    let (mut hurried, patient) = (outbound(1, Class::Transactional), outbound(2, Class::Transactional));
    hurried.deadline = Some(Timestamp::now() + SignedDuration::from_secs(7_200));
    stand.append(&[hurried.clone(), patient.clone()]).await;
    let dispatcher = stand.start_real();
    stand
        .until(&[hurried.clone(), patient.clone()], |row| row.state == State::Accepted)
        .await;
    dispatcher.stop().await;
    let shown = simulator.messages().await;
    let validity = |record: &Outbound| {
        let id = record.message_id.to_string();
        let found = shown.iter().find(|shown| shown["reference"] == id.as_str()).unwrap();
        found["validity"].clone()
    };
    assert!(validity(&patient).is_null());
    let told = validity(&hurried).as_str().unwrap().to_owned();
    // YYMMDDhhmmss000R: a little less than two hours, relative to its arrival.
    let (hours, minutes): (i64, i64) = (told[6..8].parse().unwrap(), told[8..10].parse().unwrap());
    assert!(told.starts_with("000000") && told.ends_with("000R"), "{told}");
    assert!((110..=120).contains(&(hours * 60 + minutes)), "{told}");
    simulator.stop().await;
}
