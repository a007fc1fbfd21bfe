//! The crash test that sets the tone: every role is killed with SIGKILL in the middle of 5,000 messages and started
//! again, and what comes out is counted at the gateway.
//!
//! The simulator and the database are processes of their own and live on; everything else is killed in turn, each time
//! when so many more messages have reached the gateway, so each kill falls into the middle of work. The messages are a
//! campaign's: marketing, so nothing may be sent twice, and what was in flight at the dispatcher's death is `unknown`.
//! `TAMTAM_CRASH_RUNS=n` repeats it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::{
    process::{Process, eventually, run},
    tamtam::{Installation, PATIENCE, contacts, orders, resources, stats},
};

const MESSAGES: usize = 5_000;
/// Parts a second: the run takes some seconds, so that there is a middle.
const RATE: u32 = 1_200;
const ROLES: [&str; 6] = [
    "dispatcher",
    "segmenter",
    "renderer",
    "receipt-collector",
    "ingest",
    "console",
];

fn runs() -> usize {
    std::env::var("TAMTAM_CRASH_RUNS")
        .ok()
        .map_or(1, |runs| runs.parse().expect("TAMTAM_CRASH_RUNS: expected a number"))
}

/// All roles as processes over one database and bus, and the gateway.
struct Fleet {
    installation: Installation,
    simulator: Process,
    roles: BTreeMap<&'static str, Process>,
}

impl Fleet {
    async fn start() -> Fleet {
        let installation = Installation::shared().await;
        let environment: Vec<(&str, &str)> = installation
            .environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let migrated = run(installation.path(), &["migrate"], &environment);
        assert!(
            migrated.status.success(),
            "{}",
            String::from_utf8_lossy(&migrated.stderr)
        );
        let simulator = installation.start(&["simulator"]);
        let roles = ROLES.iter().map(|role| (*role, installation.start(&[role]))).collect();
        let fleet = Fleet {
            installation,
            simulator,
            roles,
        };
        let smpp = fleet.simulator.at("simulator_smpp").to_owned();
        let file = fleet.installation.file("resources.toml", &resources(&smpp, RATE));
        fleet.json(&["apply", "-f", &file]);
        let file = fleet.installation.file("contacts.csv", &contacts(MESSAGES));
        assert_eq!(fleet.json(&["contacts", "import", &file])["created"], MESSAGES);
        fleet
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.installation.json(&self.roles["console"], arguments)
    }

    /// How many messages the gateway took.
    fn taken(&self) -> u64 {
        stats(&self.simulator)["distinct"].as_u64().unwrap()
    }

    fn kill_and_start(&mut self, role: &'static str) {
        self.roles.get_mut(role).unwrap().kill();
        let again = self.installation.start(&[role]);
        self.roles.insert(role, again);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_is_killed_in_the_middle_of_a_campaign() {
    for number in 1..=runs() {
        let mut fleet = Fleet::start().await;
        let create = [
            "campaign",
            "create",
            "--name",
            "x",
            "--audience",
            "north",
            "--template",
            "sale",
            "--value",
            "article=tout",
        ];
        let id = fleet.json(&create)["id"].as_str().unwrap().to_owned();
        fleet.json(&["campaign", "launch", &id]);

        for (step, role) in ROLES.into_iter().enumerate() {
            // From the first messages on, and the last kill well before the end.
            let due = (MESSAGES * (step * 3 + 1) / 24) as u64;
            eventually("the next kill's turn", PATIENCE, || {
                (fleet.taken() >= due).then_some(())
            });
            fleet.kill_and_start(role);
        }

        let status = fleet.installation.settled(&fleet.roles["console"], &id);
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
    let mut fleet = Fleet::start().await;
    let file = fleet.installation.file("events.ndjson", &orders(EVENTS));
    assert_eq!(fleet.json(&["events", "publish", &file])["accepted"], EVENTS);
    for (step, role) in ["segmenter", "renderer", "receipt-collector"].into_iter().enumerate() {
        let due = (EVENTS * (step + 1) / 6) as u64;
        eventually("the next kill's turn", PATIENCE, || {
            (fleet.taken() >= due).then_some(())
        });
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
        let receipts = fleet.installation.tail(&fleet.roles["console"], "receipts");
        let delivered: BTreeSet<&str> = receipts
            .iter()
            .filter_map(|receipt| receipt["id"].as_str())
            .filter(|id| id.ends_with(":delivered"))
            .collect();
        assert!(delivered.len() <= EVENTS, "more than there are messages");
        (delivered.len() == EVENTS).then_some(())
    });
}
