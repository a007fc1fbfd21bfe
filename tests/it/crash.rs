//! The crash test that sets the tone: every role is killed with SIGKILL in the middle of 5,000 messages and started
//! again, and what comes out is counted at the gateway.
//!
//! The simulator and the database are processes of their own and live on; everything else is killed in turn, each while it
//! has work, which is measured: a stage when it has moved on since its start and has not finished what it was given, ingest
//! with events under way that it has not answered, the console while drafts are made. 5,000 messages are a campaign's; the
//! others confirm orders, which a shop publishes all the while and publishes again where no answer came. Nothing may be
//! sent twice, so transactional messages too are not sent again where the outcome is unknown (a setting), and what was in
//! flight at the dispatcher's death is `unknown`. `TAMTAM_CRASH_RUNS=n` repeats it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use ::bus::{Log, Partition};
use domain::State;
use events::Topic;
use serde_json::json;
use store::Store;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{
    fleet::Fleet,
    process::eventually,
    publisher::{Publisher, SOURCE, message_id},
    simulator,
    tamtam::{KEY, PATIENCE, orders, stats},
};

const MESSAGES: usize = 5_000;
/// Parts a second: the run takes some seconds, so that there is a middle.
const RATE: u32 = 1_200;
/// Orders at once, so that a stage has work for longer than it takes to kill it.
const BURST: usize = 1_000;
/// How often a kill may come after the work, before the test gives up.
const TRIES: usize = 10;
const STAGES: [(&str, &[Topic]); 4] = [
    ("segmenter", &[Topic::Events]),
    ("renderer", &[Topic::Jobs]),
    ("dispatcher", &[Topic::OutboundTransactional, Topic::OutboundBulk]),
    ("receipt-collector", &[Topic::Callbacks]),
];

fn runs() -> usize {
    std::env::var("TAMTAM_CRASH_RUNS")
        .ok()
        .map_or(1, |runs| runs.parse().expect("TAMTAM_CRASH_RUNS: expected a number"))
}

/// How far a stage is.
struct Place {
    committed: BTreeMap<Partition, i64>,
    /// The end of what it was given.
    given: BTreeMap<Partition, i64>,
}

impl Place {
    async fn of(log: &Arc<dyn Log>, stage: &str, topics: &[Topic]) -> Place {
        let lags = log.lag(stage, topics).await.unwrap();
        Place {
            committed: lags.iter().map(|lag| (lag.partition, lag.committed)).collect(),
            given: lags.iter().map(|lag| (lag.partition, lag.end)).collect(),
        }
    }

    fn done(&self) -> i64 {
        self.committed.values().sum()
    }

    /// Whether there is something of `given` that was not finished.
    fn is_behind(&self, given: &BTreeMap<Partition, i64>) -> bool {
        given.iter().any(|(partition, end)| self.committed[partition] < *end)
    }
}

/// Kills a stage that works and starts it again: it has moved on since its start, and has not finished what it was given.
async fn kill_at_work(
    fleet: &mut Fleet,
    publisher: &Publisher,
    log: &Arc<dyn Log>,
    stage: &'static str,
    topics: &[Topic],
) {
    for _ in 0..TRIES {
        let begun = Place::of(log, stage, topics).await.done();
        publisher.burst(BURST);
        let given = simulator::eventually(&format!("{stage} to be at work"), || async {
            let place = Place::of(log, stage, topics).await;
            (place.done() > begun && place.is_behind(&place.given)).then_some(place.given)
        })
        .await;
        fleet.kill(stage);
        let at_work = Place::of(log, stage, topics).await.is_behind(&given);
        fleet.start_again(stage);
        if at_work {
            return;
        }
    }
    panic!("{stage} was through each time before it was killed");
}

/// A program that makes drafts one after the other, and asks for each under its key until it is answered. How many.
async fn make_drafts(console: Arc<Mutex<String>>, stop: CancellationToken) -> i64 {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let mut made = 0;
    while !stop.is_cancelled() {
        let url = format!("{}/v1/campaigns", console.lock().unwrap());
        let draft = json!({
            "name": format!("draft {made}"), "audience": "north", "template": "sale",
            "idempotency_key": format!("draft {made}"),
        });
        let answer = client.post(url).bearer_auth(KEY).json(&draft).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            made += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    made
}

/// Each acknowledged event has its message, exactly one, and it is settled.
async fn events_are_answered(store: &Store, events: u64) -> BTreeMap<State, usize> {
    let rows = simulator::eventually("every confirmation to be settled", || async {
        let rows: Vec<(Uuid, i16)> = sqlx::query_as("select message_id, state from messages where event_source = $1")
            .bind(SOURCE)
            .fetch_all(store.pool())
            .await
            .unwrap();
        let is_settled = |code: &i16| matches!(State::from_code(*code), Some(State::Delivered | State::Unknown));
        (rows.len() as u64 >= events && rows.iter().all(|(_, code)| is_settled(code))).then_some(rows)
    })
    .await;
    let expected: BTreeSet<Uuid> = (0..events).map(|number| message_id(number, MESSAGES).0).collect();
    let there: BTreeSet<Uuid> = rows.iter().map(|(id, _)| *id).collect();
    assert_eq!(rows.len() as u64, events, "one message an event");
    assert!(
        there == expected,
        "a message that no event asked for, or none for one that did"
    );
    let mut states = BTreeMap::new();
    for (_, code) in rows {
        *states.entry(State::from_code(code).unwrap()).or_default() += 1;
    }
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_is_killed_in_the_middle_of_a_campaign() {
    for number in 1..=runs() {
        run(number).await;
    }
}

#[expect(clippy::print_stdout, reason = "what a run came to")]
async fn run(number: usize) {
    let never_again = ("TAMTAM__DISPATCHER__RESEND_TRANSACTIONAL", "false");
    let mut fleet = Fleet::start_with(RATE, MESSAGES, &[never_again]).await;
    let store = fleet.store().await;
    let log = fleet.log(&store).await;
    let publisher = Publisher::start(fleet.roles["ingest"].at("grpc"), MESSAGES);
    let console = Arc::new(Mutex::new(fleet.console().at("console").to_owned()));
    let stop = CancellationToken::new();
    let drafts = tokio::spawn(make_drafts(console.clone(), stop.clone()));
    let id = fleet.launch();

    for (stage, topics) in STAGES {
        kill_at_work(&mut fleet, &publisher, &log, stage, topics).await;
    }
    let (answered, again) = (publisher.acknowledged(), publisher.again());
    publisher.burst(BURST);
    simulator::eventually("events to come in", || async {
        (publisher.acknowledged() > answered).then_some(())
    })
    .await;
    fleet.kill("ingest");
    simulator::eventually("the stream to break", || async {
        (publisher.again() > again).then_some(())
    })
    .await;
    fleet.start_again("ingest");
    publisher.lead_to(fleet.roles["ingest"].at("grpc"));
    let answered = publisher.acknowledged();
    simulator::eventually("events to come in again", || async {
        (publisher.acknowledged() > answered).then_some(())
    })
    .await;
    fleet.kill_and_start("console");
    fleet.console().at("console").clone_into(&mut console.lock().unwrap());

    let events = publisher.stop().await;
    stop.cancel();
    let drafts = drafts.await.unwrap();
    let status = fleet.installation.settled(fleet.console(), &id);
    let states = events_are_answered(&store, events).await;
    let count = |name: &str| status[name].as_u64().unwrap();
    let counted = stats(&fleet.simulator);
    assert_eq!(counted["duplicates"], 0, "run {number}: {counted} {status}");
    assert_eq!(count("planned"), MESSAGES as u64, "run {number}: {status}");
    assert_eq!(
        count("delivered") + count("unknown"),
        MESSAGES as u64,
        "run {number}: nothing else happens here: {status}"
    );
    // Whatever the gateway took is delivered or, where its answer was lost, unknown; nothing was sent unrecorded.
    let delivered = count("delivered") + states.get(&State::Delivered).map_or(0, |count| *count as u64);
    let taken = counted["distinct"].as_u64().unwrap();
    assert!(
        taken >= delivered && taken <= MESSAGES as u64 + events,
        "run {number}: {counted} {status} {states:?}"
    );
    let named: (i64, i64) =
        sqlx::query_as("select count(*), count(distinct name) from campaigns where name like 'draft %'")
            .fetch_one(store.pool())
            .await
            .unwrap();
    // The one that was under way at the end may be there or not.
    assert!(
        named.0 == named.1 && (drafts..=drafts + 1).contains(&named.0),
        "{named:?} of {drafts}"
    );
    let audit = fleet.json(&["audit"]);
    assert_eq!(audit["violations"], 0, "run {number}: {audit}");
    println!(
        "run {number}: of the campaign {} delivered, {} unknown; of {events} orders {states:?}; 0 twice",
        count("delivered"),
        count("unknown"),
    );
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
