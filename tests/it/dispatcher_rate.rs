//! The rate as a real gateway sees it, over SMPP and over HTTP, while dispatchers come and go.
//!
//! Only the upper limit is asserted: over the whole run, which nothing can push over it, and in each second, wherever it
//! begins. What is on its way while the machine stands still comes together with what is sent after, and no dispatcher can
//! know; so it is measured how late tasks get their turn meanwhile, and the rate has to hold to the 2 % where that is no more
//! than what the limiter allows for. That it does so by construction is a test of `limiter`, on its own clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{Class, Phone};
use events::Outbound;
use simulator::Script;

use crate::{
    dispatcher_stand::{Stand, outbound},
    support::simulator::{Simulator, eventually},
};

const MESSAGES: usize = 1_200;

/// The number's gateway by its prefix.
fn records(prefix: &str, first: usize, text: &str) -> Vec<Outbound> {
    let parts = domain::sms::measure(text).parts;
    (first..first + MESSAGES / usize::from(parts))
        .map(|number| {
            let mut record = outbound(number, Class::Marketing);
            record.phone = Phone::from_e164(format!("{prefix}{number:06}"));
            record.text = text.into();
            record.parts = parts;
            record
        })
        .collect()
}

/// How much longer one submission may be on its way than another: the limiter's allowance.
const WAY: f64 = 0.020;
/// What a dispatcher catches up with at once, as a part of its rate.
const BURST: f64 = 0.05;

/// How late a task gets its turn at most, in microseconds, for as long as this is held.
struct Lateness(Arc<AtomicU64>);

impl Lateness {
    fn watch() -> Lateness {
        let most = Arc::new(AtomicU64::new(0));
        let told = Arc::downgrade(&most);
        tokio::spawn(async move {
            loop {
                let due = tokio::time::Instant::now() + Duration::from_millis(2);
                tokio::time::sleep_until(due).await;
                let Some(most) = told.upgrade() else { return };
                most.fetch_max(due.elapsed().as_micros() as u64, Ordering::Relaxed);
            }
        });
        Lateness(most)
    }

    fn seconds(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / 1e6
    }
}

/// Two gateways with so many parts a second each, while dispatchers go from one to four to two.
#[expect(
    clippy::print_stdout,
    reason = "how close to the rate the busiest second is, is this machine's"
)]
async fn within(rate: u32, text: &str) {
    let script = || Script {
        receipts: false,
        ..Script::default()
    };
    let (smpp, http) = (Simulator::start(script()).await, Simulator::start(script()).await);
    let stand = Stand::new(&format!(
        r#"
[[gateway]]
name = "smpp"
kind = "smpp"
address = "{}"
system_id = "tamtam"
rate = {rate}
window = 50
prefixes = ["+262"]

[[gateway]]
name = "http"
kind = "http"
address = "{}/vonage/json"
system_id = "account"
rate = {rate}
window = 50
prefixes = ["+33"]

[gateway.http]
profile = "vonage"

[policy]
quiet_hours = "off"
"#,
        smpp.smpp, http.http
    ))
    .await;
    let (one, other) = (records("+262692", 0, text), records("+336120", 50_000, text));
    // Both kinds on every partition, so that neither waits for the other.
    for (one, other) in one.chunks(50).zip(other.chunks(50)) {
        stand.append(one).await;
        stand.append(other).await;
    }
    let total = one.len() as u64;
    let taken = async |part: u64| {
        eventually("they arrive", || async {
            let (one, other) = (smpp.stats().await, http.stats().await);
            (one.distinct.min(other.distinct) >= part).then_some(())
        })
        .await;
    };
    let lateness = Lateness::watch();
    let first = stand.start_real();
    taken(1).await;
    let begun = Instant::now();
    taken(total / 6).await;
    let (second, third, fourth) = (stand.start_real(), stand.start_real(), stand.start_real());
    taken(total / 2).await;
    second.stop().await;
    third.stop().await;
    taken(total).await;
    let seconds = begun.elapsed().as_secs_f64();
    first.stop().await;
    fourth.stop().await;
    let stats = [smpp.stats().await, http.stats().await];
    for stats in &stats {
        assert_eq!((stats.distinct, stats.duplicates), (total, 0));
    }
    smpp.stop().await;
    http.stop().await;
    // One task writes a submission, another one reads it, and where a connection is new a third one takes that.
    let way = 3.0 * lateness.seconds();
    let busiest = stats.map(|stats| stats.busiest_second);
    println!(
        "busiest seconds {busiest:?} at a rate of {rate}, on a way of up to {:.0} ms",
        way * 1_000.0
    );
    let most = f64::from(rate) * if way <= WAY { 1.02 } else { 1.02 + BURST + way };
    assert!(
        busiest.iter().all(|busiest| f64::from(*busiest) <= most),
        "busiest seconds {busiest:?} at a rate of {rate}, on a way of up to {:.0} ms",
        way * 1_000.0
    );
    // What had come when the first was seen, and a second's more: nobody saves up more than that.
    let parts = total * u64::from(domain::sms::measure(text).parts);
    let most = f64::from(rate) * (1.02 * seconds + 1.0);
    assert!(
        parts as f64 <= most,
        "{parts} parts in {seconds:.2} s at a rate of {rate}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dispatchers_that_come_and_go_stay_within_the_rate_together() {
    within(200, "Bonjour").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_several_parts_are_within_the_rate_too() {
    within(150, &"Bonjour ".repeat(40)).await;
}
