//! A dispatcher's memory before a long backlog, and how long a transactional message waits behind it.
//!
//! `TAMTAM_LOAD_BACKLOG=1000000` measures with a million; the small default keeps the test quick. The times are told and not
//! asserted: they are this machine's. `docs/reliability.md` has a quiet machine's.

use std::{collections::HashMap, ops::Range, time::Duration};

use domain::Class;
use jiff::Timestamp;
use simulator::Script;
use uuid::Uuid;

use crate::{
    dispatcher_stand::{Stand, outbound},
    support::{
        process::Process,
        simulator::{Simulator, eventually},
    },
};

const RATE: u32 = 500;
const SAMPLES: usize = 200;
/// So much of the backlog is there whenever a transactional message is sent, however long these take: ten seconds of it.
const AHEAD: usize = 10 * RATE as usize;
const MEMORY_KIB: u64 = 128 * 1_024;

async fn grow(stand: &Stand, numbers: Range<usize>) {
    let records: Vec<_> = numbers.map(|number| outbound(number, Class::Marketing)).collect();
    stand.append(&records).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_costs_little_memory_and_transactional_messages_go_past_it() {
    let backlog = std::env::var("TAMTAM_LOAD_BACKLOG").map_or(5_000, |text| text.parse().unwrap());
    let simulator = Simulator::start(Script {
        receipts: false,
        ..Script::default()
    })
    .await;
    let stand = Stand::new(&format!(
        "[[gateway]]\nname = \"main\"\nkind = \"smpp\"\naddress = \"{}\"\nsystem_id = \"tamtam\"\nrate = {RATE}\nwindow = 50\n\
         [policy]\nquiet_hours = \"off\"\n",
        simulator.smpp
    ))
    .await;
    for first in (0..backlog).step_by(5_000) {
        grow(&stand, first..backlog.min(first + 5_000)).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let environment = stand.environment().into_iter().collect();
    let path = directory.path().to_owned();
    let dispatcher = tokio::task::spawn_blocking(move || {
        Process::start_named(&path, "dispatcher", &["dispatcher", "--free-ports"], &environment)
    })
    .await
    .unwrap();
    eventually("the backlog is under way", || async {
        (simulator.stats().await.distinct > 500).then_some(())
    })
    .await;
    let mut sent: HashMap<Uuid, Timestamp> = HashMap::new();
    let mut backlog = backlog;
    for number in 0..SAMPLES {
        let behind = simulator.stats().await.distinct as usize;
        if backlog < behind + AHEAD {
            grow(&stand, backlog..behind + AHEAD + AHEAD / 2).await;
            backlog = behind + AHEAD + AHEAD / 2;
        }
        let order = outbound(number, Class::Transactional);
        sent.insert(order.message_id, Timestamp::now());
        stand.append(std::slice::from_ref(&order)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut waits = eventually("every transactional message is there", || async {
        let waits: Vec<i64> = simulator
            .messages_after(0)
            .await
            .iter()
            .filter_map(|shown| {
                let begun = sent.get(&shown["reference"].as_str()?.parse::<Uuid>().ok()?)?;
                let at: Timestamp = shown["at"].as_str()?.parse().ok()?;
                Some((at.as_millisecond() - begun.as_millisecond()).max(0))
            })
            .collect();
        (waits.len() == SAMPLES).then_some(waits)
    })
    .await;
    waits.sort_unstable();
    let stats = simulator.stats().await;
    let memory = dispatcher.memory_kib();
    println!(
        "backlog {backlog}: transactional p50 {} ms, p99 {} ms, most {} ms; {} sent, busiest second {} at a rate of {RATE}; \
         the dispatcher's memory was {} MiB at most",
        waits[SAMPLES / 2],
        waits[SAMPLES * 99 / 100],
        waits[SAMPLES - 1],
        stats.distinct,
        stats.busiest_second,
        memory / 1_024
    );
    // They went past the backlog, which is not over yet.
    assert!(
        stats.distinct < backlog as u64,
        "{} of {backlog} were sent",
        stats.distinct
    );
    assert!(memory <= MEMORY_KIB, "{memory} KiB");
    drop(dispatcher);
    simulator.stop().await;
}
