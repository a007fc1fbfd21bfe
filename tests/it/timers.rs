//! Timers of triggers that wait.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use domain::Cause;
use events::{Job, Record as _};
use jiff::Timestamp;

use crate::{
    segmenter_stand::{Stand, distinct},
    stage::{event, eventually},
    support::{bus, resources::apply},
};

#[tokio::test(flavor = "multi_thread")]
async fn timers_outlive_a_kill_and_fire_once_unless_something_happened() {
    let stand = Stand::new().await;
    let process = stand.start();
    let cart = |id: &str, contact: &str| event(id, contact, "cart.updated", br#"{"category": "shoes"}"#);
    let published = vec![
        cart("k1", "42"),
        cart("k2", "43"),
        cart("k3", "44"),
        // Of another category: the reminder goes out.
        event("o2", "43", "order.placed", br#"{"category": "hats", "amount": 0}"#),
        event("o3", "44", "order.placed", br#"{"category": "shoes", "amount": 0}"#),
    ];
    stand.log.append(published).await.unwrap();
    eventually("three timers wait", || async { stand.waiting().await == 3 }).await;
    process.kill();
    let started = Instant::now();
    let (one, two) = (stand.start(), stand.start());
    eventually("no timer waits", || async { stand.waiting().await == 0 }).await;
    eventually("both reminders are there", || async {
        distinct(&stand.jobs().await).len() == 2
    })
    .await;
    assert!(started.elapsed() < Duration::from_secs(30));
    // A sign that all has been worked on: what comes after is there.
    stand
        .log
        .append(vec![event("last", "44", "order.placed", br#"{"amount": 1}"#)])
        .await
        .unwrap();
    eventually("the last one is there", || async {
        distinct(&stand.jobs().await).len() == 3
    })
    .await;
    one.stop().await;
    two.stop().await;
    let causes: HashSet<String> = stand
        .jobs()
        .await
        .iter()
        .map(|record| Job::from_bytes(Job::KIND, &record.value).unwrap())
        .map(|job| job.contact_id)
        .collect();
    assert_eq!(causes, HashSet::from(["42".into(), "43".into(), "44".into()]));
    if !bus::is_kafka() {
        assert_eq!(stand.jobs().await.len(), 3, "none twice");
    }
    assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_timer_follows_its_trigger() {
    let stand = Stand::new().await;
    let toml = |wait: &str, more: &str| {
        format!("[[trigger]]\nname = \"slow\"\non = \"slow\"\nwait = \"{wait}\"\ntemplate = \"t\"\n{more}")
    };
    apply(&stand.store, &toml("1h", "")).await;
    let process = stand.start();
    stand.log.append(vec![event("s1", "42", "slow", b"{}")]).await.unwrap();
    eventually("a timer waits", || async { stand.waiting().await == 1 }).await;
    // The wait becomes shorter: it fires soon.
    apply(&stand.store, &toml("1s", "")).await;
    eventually("it fired", || async { stand.jobs().await.len() == 1 }).await;

    // Switched off, a timer fires into nothing.
    apply(&stand.store, &toml("3s", "")).await;
    eventually("the new wait is known", || async {
        let id = format!("s{}", Timestamp::now().as_nanosecond());
        stand.log.append(vec![event(&id, "43", "slow", b"{}")]).await.unwrap();
        stand.waiting().await > 0
    })
    .await;
    apply(&stand.store, &toml("3s", "active = false")).await;
    eventually("no timer waits", || async { stand.waiting().await == 0 }).await;
    stand
        .log
        .append(vec![event("last", "43", "order.placed", br#"{"amount": 1}"#)])
        .await
        .unwrap();
    eventually("what comes after is there", || async {
        let jobs = stand.jobs().await;
        jobs.iter()
            .any(|job| Job::from_bytes(Job::KIND, &job.value).unwrap().template == "t" && job.key == "43")
    })
    .await;
    process.stop().await;
    let triggers: Vec<Cause> = stand
        .jobs()
        .await
        .iter()
        .filter(|job| job.key == "43")
        .map(|job| Job::from_bytes(Job::KIND, &job.value).unwrap().cause)
        .collect();
    let all_confirm = triggers
        .iter()
        .all(|cause| matches!(cause, Cause::Trigger { trigger, .. } if trigger == "confirm"));
    assert!(all_confirm, "{triggers:?}");
}
