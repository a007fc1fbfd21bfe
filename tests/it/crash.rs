//! The crash test that sets the tone: every role is killed with SIGKILL in the middle of 5,000 messages and started
//! again, and what comes out is counted at the gateway.
//!
//! The simulator and the database are processes of their own and live on; everything else is killed in turn, each time
//! when so many more messages have reached the gateway, so each kill falls into the middle of work. The messages are a
//! campaign's: marketing, so nothing may be sent twice, and what was in flight at the dispatcher's death is `unknown`.
//! `TAMTAM_CRASH_RUNS=n` repeats it.

use std::collections::BTreeSet;

use crate::support::{
    fleet::{Fleet, ROLES},
    process::eventually,
    tamtam::{PATIENCE, orders, stats},
};

const MESSAGES: usize = 5_000;
/// Parts a second: the run takes some seconds, so that there is a middle.
const RATE: u32 = 1_200;

fn runs() -> usize {
    std::env::var("TAMTAM_CRASH_RUNS")
        .ok()
        .map_or(1, |runs| runs.parse().expect("TAMTAM_CRASH_RUNS: expected a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_is_killed_in_the_middle_of_a_campaign() {
    for number in 1..=runs() {
        let mut fleet = Fleet::start(RATE, MESSAGES).await;
        let id = fleet.launch();

        for (step, role) in ROLES.into_iter().enumerate() {
            // From the first messages on, and the last kill well before the end.
            fleet.until_taken(MESSAGES * (step * 3 + 1) / 24);
            fleet.kill_and_start(role);
        }

        let status = fleet.installation.settled(fleet.console(), &id);
        let counted = stats(&fleet.simulator);
        let count = |name: &str| status[name].as_u64().unwrap();
        assert_eq!(counted["duplicates"], 0, "run {number}: {counted} {status}");
        assert_eq!(count("planned"), MESSAGES as u64, "run {number}: {status}");
        assert_eq!(
            count("delivered") + count("unknown"),
            MESSAGES as u64,
            "run {number}: nothing else happens here: {status}"
        );
        // Whatever the gateway took is delivered or, where its answer was lost, unknown; nothing was sent unrecorded.
        let taken = counted["distinct"].as_u64().unwrap();
        assert!(
            taken >= count("delivered") && taken <= MESSAGES as u64,
            "run {number}: {counted} {status}"
        );
        let audit = fleet.json(&["audit"]);
        assert_eq!(audit["violations"], 0, "run {number}: {audit}");
        println!(
            "run {number}: {} delivered, {} unknown, 0 twice",
            count("delivered"),
            count("unknown")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_killed_while_events_come_in() {
    const EVENTS: usize = 2_000;
    let mut fleet = Fleet::start(RATE, MESSAGES).await;
    let file = fleet.installation.file("events.ndjson", &orders(EVENTS));
    assert_eq!(fleet.json(&["events", "publish", &file])["accepted"], EVENTS);
    for (step, role) in ["segmenter", "renderer", "receipt-collector"].into_iter().enumerate() {
        fleet.until_taken(EVENTS * (step + 1) / 6);
        fleet.kill_and_start(role);
        // Publishing again is harmless: the same events.
        assert_eq!(fleet.json(&["events", "publish", &file])["accepted"], EVENTS);
    }
    let audit = eventually("every confirmation to be settled", PATIENCE, || {
        let audit = fleet.json(&["audit"]);
        let done = stats(&fleet.simulator)["distinct"] == EVENTS && audit["pending"] == 0;
        done.then_some(audit)
    });
    assert_eq!(audit["violations"], 0, "{audit}");
    assert_eq!(stats(&fleet.simulator)["duplicates"], 0);
    // A receipt for every state, under its stable id: read as an analyst does, who de-duplicates by it.
    eventually("a delivery receipt for each", PATIENCE, || {
        let receipts = fleet.installation.tail(fleet.console(), "receipts");
        let delivered: BTreeSet<&str> = receipts
            .iter()
            .filter_map(|receipt| receipt["id"].as_str())
            .filter(|id| id.ends_with(":delivered"))
            .collect();
        assert!(delivered.len() <= EVENTS, "more than there are messages");
        (delivered.len() == EVENTS).then_some(())
    });
}
