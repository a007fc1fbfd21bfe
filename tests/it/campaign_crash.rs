//! The crash points of an expansion and of deferred records, each with a segmenter that dies there; and how soon another
//! takes over.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use domain::Reason;
use events::{Job, Record as _};
use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};

use crate::{
    segmenter_stand::{Stand, campaign, contact, contacts, distinct, many},
    stage::{event, eventually},
    support::{bus, process::Process, tamtam::Installation},
};

/// More than the first chunk and less than two.
const CONTACTS: u32 = 600;

/// What a process of its own needs to work on this database and bus.
fn environment(stand: &Stand) -> BTreeMap<String, String> {
    let mut installation = Installation::bare();
    installation
        .environment
        .insert("TAMTAM__DATABASE__URL".into(), stand.url.clone());
    if let Some(kafka) = &stand.kafka {
        installation.on_kafka(kafka.clone());
    }
    installation.environment.clone()
}

/// A segmenter that works until it comes to this point, and dies there.
async fn dies(stand: &Stand, point: &'static str) {
    let mut environment = environment(stand);
    environment.insert("FAILPOINTS".into(), format!("{point}=return(abort)"));
    let status = tokio::task::spawn_blocking(move || {
        let directory = tempfile::tempdir().unwrap();
        let mut dying = Process::start_named(directory.path(), "dying", &["segmenter", "--free-ports"], &environment);
        dying.wait()
    })
    .await
    .unwrap();
    assert!(!status.success(), "{point}: it was to die and ended with {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_crash_point_of_an_expansion_does_what_is_said_of_it() {
    let points = [
        "expansion-before-plan",
        "expansion-after-plan",
        "expansion-before-append",
        "expansion-after-append",
        "expansion-after-done",
    ];
    stream::iter(points)
        .for_each_concurrent(2, |point| async move {
            let stand = Stand::new().await;
            many(&stand.store, CONTACTS).await;
            let id = stand.launch(campaign("region = \"north\"")).await;
            dies(&stand, point).await;
            let next = stand.start();
            stand.on_the_bus(id).await;
            next.stop().await;
            let jobs = stand.jobs().await;
            assert_eq!(distinct(&jobs).len() as u32, CONTACTS, "{point}");
            if !bus::is_kafka() {
                assert_eq!(jobs.len() as u32, CONTACTS, "{point}: none twice");
            }
            let planned = stand.store.campaign_get(id).await.unwrap().unwrap().planned;
            assert_eq!(planned, i64::from(CONTACTS), "{point}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_on_knows_for_which_phones_somebody_speaks() {
    let stand = Stand::new().await;
    // The first chunk's phones again with the second's contacts, and each once more within its chunk.
    let sharing: Vec<_> = (0..CONTACTS)
        .map(|number| {
            contact(
                &format!("c{number:06}"),
                Some(&format!("+262692{:06}", number % 100)),
                "north",
            )
        })
        .collect();
    contacts(&stand.store, &sharing).await;
    let id = stand.launch(campaign("region = \"north\"")).await;
    dies(&stand, "expansion-after-plan").await;
    let written = stand.store.campaign_phones(id).await.unwrap();
    assert_eq!(written.len(), 100);
    let next = stand.start();
    stand.on_the_bus(id).await;
    next.stop().await;
    let jobs: BTreeMap<String, Option<Reason>> = (stand.jobs().await.iter())
        .map(|job| {
            (
                job.key.clone(),
                Job::from_bytes(Job::KIND, &job.value).unwrap().suppress,
            )
        })
        .collect();
    assert_eq!(jobs.len() as u32, CONTACTS);
    let (first, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|(contact, _)| contact.as_str() < "c000100");
    assert!(first.iter().all(|(_, reason)| reason.is_none()), "{first:?}");
    assert!(
        others.iter().all(|(_, reason)| *reason == Some(Reason::DuplicatePhone)),
        "{others:?}"
    );
    // Nobody asks any more.
    assert!(stand.store.campaign_phones(id).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_campaigns_walk_leaves_no_phone_behind() {
    let stand = Stand::new().await;
    let someone = contact("c1", Some("+262692000001"), "north");
    contacts(&stand.store, &[someone]).await;
    let id = stand.launch(campaign("region = \"north\"")).await;
    dies(&stand, "expansion-after-plan").await;
    assert_eq!(stand.store.campaign_phones(id).await.unwrap().len(), 1);
    let mut tx = stand.store.begin().await.unwrap();
    tx.campaign_cancel(id, "ana", Timestamp::now()).await.unwrap();
    tx.commit().await.unwrap();
    let next = stand.start();
    eventually("its phones are forgotten", || async {
        stand.store.campaign_phones(id).await.unwrap().is_empty()
    })
    .await;
    // What was planned goes down the pipeline, to be cancelled there.
    eventually("its job is on the bus", || async { stand.jobs().await.len() == 1 }).await;
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_crash_point_of_deferred_records_does_what_is_said_of_it() {
    let points = [
        "deferred-before-append",
        "deferred-after-append",
        "deferred-before-commit",
        "deferred-after-commit",
    ];
    stream::iter(points)
        .for_each_concurrent(2, |point| async move {
            let stand = Stand::new().await;
            let cart = event("k1", "42", "cart.updated", br#"{"category": "shoes"}"#);
            stand.log.append(vec![cart]).await.unwrap();
            dies(&stand, point).await;
            let next = stand.start();
            eventually("the timer fired", || async { distinct(&stand.jobs().await).len() == 1 }).await;
            eventually("no timer waits", || async { stand.waiting().await == 0 }).await;
            next.stop().await;
            if !bus::is_kafka() {
                assert_eq!(stand.jobs().await.len(), 1, "{point}: not twice");
            }
            assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0, "{point}");
        })
        .await;
}

/// What is promised. What gives it: a campaign's position that stands still is nobody's after 1.5 s (`TAKE_OVER` of
/// `segmenter::campaigns::plan`), which is looked at each second; and a claim of a chunk is a lock, which PostgreSQL lets
/// go of with the connection of who was killed, or after 10 s without a word where nobody closed it
/// (`campaign_chunk_claim`).
const TAKEN_OVER: Duration = Duration::from_secs(15);

/// A segmenter that plans five chunks, appends two of them and gets no further, however often it tries, for somebody to
/// kill it there.
async fn halts(stand: &Stand) -> Process {
    let mut environment = environment(stand);
    let points = "expansion-before-plan=5*off->return;expansion-before-append=2*off->return";
    environment.insert("FAILPOINTS".into(), points.into());
    tokio::task::spawn_blocking(move || {
        let directory = tempfile::tempdir().unwrap();
        Process::start_named(
            directory.path(),
            "halting",
            &["segmenter", "--free-ports"],
            &environment,
        )
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segmenter_that_is_killed_during_an_expansion_is_taken_over() {
    const MANY: u32 = 30_000;
    let stand = Stand::new().await;
    many(&stand.store, MANY).await;
    let mut one = halts(&stand).await;
    let id = stand.launch(campaign("region = \"north\"")).await;
    let campaign = || async { stand.store.campaign_get(id).await.unwrap().unwrap() };
    eventually("it stands in the middle", || async {
        campaign().await.chunks == 5 && stand.store.campaign_chunks_open(id).await.unwrap() == 3
    })
    .await;
    let position = campaign().await;
    assert!(position.planned < i64::from(MANY) && position.expanded_at.is_none());
    one.kill();
    let killed = Instant::now();
    let two = stand.start();
    let goes_on = eventually("another goes on", || async {
        campaign().await.planned > position.planned
    });
    tokio::time::timeout(TAKEN_OVER, goes_on).await.unwrap();
    println!("taken over {:?} after the kill", killed.elapsed());
    stand.on_the_bus(id).await;
    two.stop().await;
    let jobs = stand.jobs().await;
    assert_eq!(distinct(&jobs).len() as u32, MANY);
    if !bus::is_kafka() {
        assert_eq!(jobs.len() as u32, MANY, "none twice");
    }
    assert_eq!(campaign().await.planned, i64::from(MANY));
    assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_fires_when_it_is_due() {
    let stand = Stand::new().await;
    let process = stand.start();
    let carts = (0..20).map(|number| {
        event(
            &format!("k{number}"),
            &format!("{number}"),
            "cart.updated",
            br#"{"category": "x"}"#,
        )
    });
    stand.log.append(carts.collect()).await.unwrap();
    eventually("all fired", || async { distinct(&stand.jobs().await).len() == 20 }).await;
    process.stop().await;
    let late = stand
        .jobs()
        .await
        .iter()
        .map(|record| Job::from_bytes(Job::KIND, &record.value).unwrap())
        .map(|job| {
            let due = job.caused_at + SignedDuration::from_secs(2);
            job.planned_at.duration_since(due)
        })
        .inspect(|late| assert!(*late >= SignedDuration::ZERO, "{late:?} before it was due"))
        .max()
        .unwrap();
    // Printed rather than held to a second: a machine that is busy may be late.
    println!("the latest of 20 timers fired {late:?} after it was due");
}
