//! Each crash point of the dispatcher, with a process that dies there: what its crate documentation says of it is so.
//!
//! One message is under way, so that the point that is reached first is its own. The process is killed by its fail point
//! and a new one takes over; the gateway's own record says how often the message was taken. Once it is killed with a
//! thousand under way, by nothing that it could have prepared for.

use std::{collections::BTreeMap, time::Instant};

use domain::{Class, State};
use events::Outbound;
use futures::{StreamExt as _, stream};
use simulator::Script;

use crate::{
    dispatcher_stand::{Stand, outbound},
    support::{
        bus,
        process::Process,
        simulator::{Simulator, eventually},
    },
};

struct Case {
    point: &'static str,
    class: Class,
    ends: State,
    /// How often the gateway took it.
    taken: u64,
}

fn cases() -> Vec<Case> {
    use Class::{Marketing, Transactional};
    use State::{Accepted, Unknown};
    let mut cases: Vec<Case> = [
        ("dispatcher-before-claim", Marketing, Accepted, 1),
        ("dispatcher-after-claim", Marketing, Unknown, 0),
        ("dispatcher-after-claim", Transactional, Accepted, 1),
        ("dispatcher-before-submit", Marketing, Unknown, 0),
        ("dispatcher-before-submit", Transactional, Accepted, 1),
        ("dispatcher-after-submit", Marketing, Unknown, 1),
        ("dispatcher-after-submit", Transactional, Accepted, 2),
        ("dispatcher-before-outcome", Marketing, Unknown, 1),
        ("dispatcher-before-outcome", Transactional, Accepted, 2),
        ("dispatcher-before-commit", Marketing, Unknown, 1),
        ("dispatcher-before-commit", Transactional, Accepted, 2),
        ("dispatcher-after-commit", Marketing, Accepted, 1),
        ("dispatcher-after-commit", Transactional, Accepted, 1),
    ]
    .into_iter()
    .map(|(point, class, ends, taken)| Case {
        point,
        class,
        ends,
        taken,
    })
    .collect();
    if bus::is_kafka() {
        // On PostgreSQL the outcome and the receipts are one transaction.
        cases.push(Case {
            point: "dispatcher-after-outcome",
            class: Marketing,
            ends: Accepted,
            taken: 1,
        });
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn each_crash_point_does_what_is_said_of_it() {
    stream::iter(cases())
        .for_each_concurrent(3, |case| async move { dies(case).await })
        .await;
}

async fn dies(case: Case) {
    let Case {
        point,
        class,
        ends,
        taken,
    } = case;
    let simulator = Simulator::start(Script {
        receipts: false,
        ..Script::default()
    })
    .await;
    let stand = Stand::new(&format!(
        "[[gateway]]\nname = \"main\"\nkind = \"smpp\"\naddress = \"{}\"\nsystem_id = \"tamtam\"\nrate = 100\n[policy]\nquiet_hours = \"off\"\n",
        simulator.smpp
    ))
    .await;
    let record = outbound(1, class);
    stand.append(std::slice::from_ref(&record)).await;
    let directory = tempfile::tempdir().unwrap();
    let mut environment: std::collections::BTreeMap<String, String> = stand.environment().into_iter().collect();
    environment.insert("FAILPOINTS".into(), format!("{point}=return(abort)"));
    let start = |environment: std::collections::BTreeMap<String, String>, name: &'static str| {
        let path = directory.path().to_owned();
        tokio::task::spawn_blocking(move || {
            Process::start_named(&path, name, &["dispatcher", "--free-ports"], &environment)
        })
    };
    let mut dying = start(environment.clone(), "dying").await.unwrap();
    let status = tokio::task::spawn_blocking(move || dying.wait()).await.unwrap();
    assert!(
        !status.success(),
        "{point}, {class}: it was to die and ended with {status}"
    );

    environment.remove("FAILPOINTS");
    let next = start(environment, "next").await.unwrap();
    stand
        .until(std::slice::from_ref(&record), |row| row.state == ends)
        .await;
    stand.until_committed().await;
    let stats = simulator.stats().await;
    assert_eq!(stats.accepted, taken, "{point}, {class}");
    assert_eq!(
        stats.distinct,
        taken.min(1),
        "{point}, {class}: always the same reference"
    );
    let last = stand.receipts().await.into_iter().map(|receipt| receipt.state).max();
    assert_eq!(last, Some(ends), "{point}, {class}: its receipts say so too");
    assert_eq!(
        stand.store.audit(None, None).await.unwrap().violations,
        0,
        "{point}, {class}"
    );
    drop(next);
    simulator.stop().await;
}

const IN_FLIGHT: usize = 1_000;
const WAITING: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_in_flight_at_a_kill_are_not_sent_twice_and_the_rest_goes_on() {
    // It takes messages and answers none while the first dispatcher lives.
    let silent = Script {
        receipts: false,
        response_delay_ms: 3_600_000,
        ..Script::default()
    };
    let simulator = Simulator::start(silent.clone()).await;
    let stand = Stand::new(&format!(
        "[[gateway]]\nname = \"main\"\nkind = \"smpp\"\naddress = \"{}\"\nsystem_id = \"tamtam\"\nrate = 1000\n\
         window = {IN_FLIGHT}\nresponse_timeout = \"1h\"\n[policy]\nquiet_hours = \"off\"\n",
        simulator.smpp
    ))
    .await;
    let sales = |numbers: std::ops::Range<usize>| -> Vec<Outbound> {
        numbers.map(|number| outbound(number, Class::Marketing)).collect()
    };
    let begun = sales(0..IN_FLIGHT);
    stand.append(&begun).await;
    let directory = tempfile::tempdir().unwrap();
    let environment: BTreeMap<String, String> = stand.environment().into_iter().collect();
    let start = |name: &'static str| {
        let (path, environment) = (directory.path().to_owned(), environment.clone());
        tokio::task::spawn_blocking(move || {
            Process::start_named(&path, name, &["dispatcher", "--free-ports"], &environment)
        })
    };
    let mut killed = start("killed").await.unwrap();
    eventually("all are in flight", || async {
        (simulator.stats().await.accepted == IN_FLIGHT as u64).then_some(())
    })
    .await;
    // Nobody has claimed these: they come while there is no dispatcher.
    let waiting = sales(IN_FLIGHT..IN_FLIGHT + WAITING);
    tokio::task::spawn_blocking(move || killed.kill()).await.unwrap();
    let death = Instant::now();
    stand.append(&waiting).await;
    simulator
        .script(Script {
            response_delay_ms: 0,
            ..silent
        })
        .await;
    let next = start("next").await.unwrap();
    stand.until(&waiting, |row| row.state == State::Accepted).await;
    let rest = death.elapsed();
    stand.until(&begun, |row| row.state == State::Unknown).await;
    stand.until_committed().await;
    println!(
        "{WAITING} that waited were accepted {:.1} s after the kill, all was committed after {:.1} s",
        rest.as_secs_f64(),
        death.elapsed().as_secs_f64()
    );
    assert!(rest.as_secs() < 60, "{rest:?}");
    let stats = simulator.stats().await;
    assert_eq!(
        (stats.accepted, stats.distinct, stats.duplicates),
        ((IN_FLIGHT + WAITING) as u64, (IN_FLIGHT + WAITING) as u64, 0)
    );
    assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0);
    drop(next);
    simulator.stop().await;
}
