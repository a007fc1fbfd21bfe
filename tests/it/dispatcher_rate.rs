//! The rate as a real gateway sees it, over SMPP and over HTTP, while dispatchers come and go.
//!
//! Only the upper limit is asserted: how much of the rate is used depends on what else the machine does. So does when the
//! simulator finds time to count what has arrived, which a pause of the whole machine can push into one second: what is over
//! the rate by itself is so each time, so the best of a few rounds counts.

use std::time::Duration;

use domain::{Class, Phone};
use events::Outbound;
use simulator::Script;

use crate::{
    dispatcher_stand::{Stand, outbound},
    support::simulator::{Simulator, eventually},
};

const ROUNDS: usize = 3;
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

/// The busiest second at each of the two simulators while dispatchers go from one to four to two.
async fn round(rate: u32, text: &str) -> [u32; 2] {
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
    let first = stand.start_real();
    taken(total / 6).await;
    let (second, third, fourth) = (stand.start_real(), stand.start_real(), stand.start_real());
    taken(total / 2).await;
    second.stop().await;
    third.stop().await;
    taken(total).await;
    first.stop().await;
    fourth.stop().await;
    let stats = [smpp.stats().await, http.stats().await];
    for stats in &stats {
        assert_eq!((stats.distinct, stats.duplicates), (total, 0));
    }
    smpp.stop().await;
    http.stop().await;
    stats.map(|stats| stats.busiest_second)
}

async fn within(rate: u32, text: &str) {
    let mut best = [u32::MAX; 2];
    for _ in 0..ROUNDS {
        let busiest = round(rate, text).await;
        best = [best[0].min(busiest[0]), best[1].min(busiest[1])];
        if best.iter().all(|busiest| f64::from(*busiest) <= f64::from(rate) * 1.02) {
            return;
        }
        // Whatever held the machine up may be over.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("at a rate of {rate} the busiest seconds over SMPP and HTTP were {best:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_second_at_the_gateway_is_over_the_rate_while_dispatchers_come_and_go() {
    within(200, "Bonjour").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_several_parts_are_within_the_rate_too() {
    within(150, &"Bonjour ".repeat(40)).await;
}
