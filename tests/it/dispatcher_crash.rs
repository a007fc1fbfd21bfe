//! Each crash point of the dispatcher, with a process that dies there: what its crate documentation says of it is so.
//!
//! One message is under way, so that the point that is reached first is its own. The process is killed by its fail point
//! and a new one takes over; the gateway's own record says how often the message was taken.

use domain::{Class, State};
use futures::{StreamExt as _, stream};
use simulator::Script;

use crate::{
    dispatcher_stand::{Stand, outbound},
    support::{bus, process::Process, simulator::Simulator},
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
        ("dispatcher-after-submit", Marketing, Unknown, 1),
        ("dispatcher-after-submit", Transactional, Accepted, 2),
        ("dispatcher-before-outcome", Marketing, Unknown, 1),
        ("dispatcher-before-commit", Marketing, Unknown, 1),
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
