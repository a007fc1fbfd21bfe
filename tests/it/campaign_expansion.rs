//! A campaign's expansion: every contact of its audience exactly once, whoever dies meanwhile, and with the reason where
//! it is not written to.

use std::collections::{BTreeMap, HashSet};

use domain::{Consent, Reason, contact::ContactChange};
use events::{Job, Record as _};
use jiff::Timestamp;

use crate::{
    segmenter_stand::{Stand, campaign, contact, contacts, distinct, many},
    stage::eventually,
    support::bus,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_expansion_that_is_killed_again_and_again_reaches_each_contact_exactly_once() {
    const CONTACTS: u32 = 30_000;
    let stand = Stand::new().await;
    many(&stand.store, CONTACTS).await;
    let id = stand.launch(campaign("region = \"north\"")).await;
    let state = || async { stand.store.campaign_get(id).await.unwrap().unwrap() };
    let mut chunks = 0;
    for _ in 0..3 {
        let process = stand.start();
        let before = chunks;
        eventually("it goes on", || async {
            state().await.chunks > before || state().await.expanded_at.is_some()
        })
        .await;
        chunks = state().await.chunks;
        process.kill();
    }
    // Two replicas finish it.
    let (one, two) = (stand.start(), stand.start());
    stand.on_the_bus(id).await;
    one.stop().await;
    two.stop().await;
    let jobs = stand.jobs().await;
    assert_eq!(distinct(&jobs).len() as u32, CONTACTS);
    assert_eq!(state().await.planned, i64::from(CONTACTS));
    if !bus::is_kafka() {
        assert_eq!(jobs.len() as u32, CONTACTS, "none twice");
    }
    let written: HashSet<&str> = jobs.iter().map(|job| job.key.as_str()).collect();
    assert_eq!(written.len() as u32, CONTACTS);
    assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_stops_the_expansion_and_resuming_goes_on_where_it_was() {
    const CONTACTS: u32 = 20_000;
    let stand = Stand::new().await;
    many(&stand.store, CONTACTS).await;
    let id = stand.launch(campaign("region = \"north\"")).await;
    let state = || async { stand.store.campaign_get(id).await.unwrap().unwrap() };
    let process = stand.start();
    eventually("it began", || async { state().await.chunks > 0 }).await;
    for _ in 0..5 {
        let mut tx = stand.store.begin().await.unwrap();
        let paused = tx.campaign_pause(id, "test", Timestamp::now()).await;
        tx.commit().await.unwrap();
        if paused.is_err() {
            break;
        }
        let position = state().await.chunks;
        let mut tx = stand.store.begin().await.unwrap();
        tx.campaign_resume(id, "test", Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
        eventually("it goes on", || async {
            let now = state().await;
            now.chunks > position || now.expanded_at.is_some()
        })
        .await;
    }
    stand.on_the_bus(id).await;
    process.stop().await;
    assert_eq!(distinct(&stand.jobs().await).len() as u32, CONTACTS);
    assert_eq!(state().await.planned, i64::from(CONTACTS));
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_phones_the_control_group_and_the_budget_are_suppressed_with_their_reasons() {
    let stand = Stand::new().await;
    let changes: Vec<ContactChange> = (0..400)
        .map(|number: u32| {
            // Two contacts a phone, far apart; the last ones have none.
            let phone = format!("+262692{:06}", number % 180);
            contact(
                &format!("c{number:03}"),
                (number < 360).then_some(phone.as_str()),
                "north",
            )
        })
        .collect();
    contacts(&stand.store, &changes).await;
    let mut new = campaign("region = \"north\"");
    new.control_percent = 20;
    new.budget_micros = Some(100 * 50_000);
    let id = stand.launch(new).await;
    let process = stand.start();
    stand.on_the_bus(id).await;
    process.stop().await;
    let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
    for record in stand.jobs().await {
        let job = Job::from_bytes(Job::KIND, &record.value).unwrap();
        jobs.insert(job.contact_id.clone(), job);
    }
    assert_eq!(jobs.len(), 400);
    let count = |reason| jobs.values().filter(|job| job.suppress == reason).count();
    let (control, duplicate, budget) = (
        count(Some(Reason::ControlGroup)),
        count(Some(Reason::DuplicatePhone)),
        count(Some(Reason::Budget)),
    );
    assert!((40..130).contains(&control), "{control}");
    // Whom the control group takes follows from the campaign's id; of the others that share a phone one is not a duplicate.
    let mut sharing: BTreeMap<u32, usize> = BTreeMap::new();
    for (contact, job) in &jobs {
        if contact.as_str() < "c360" && job.suppress != Some(Reason::ControlGroup) {
            *sharing.entry(contact[1..].parse::<u32>().unwrap() % 180).or_default() += 1;
        }
    }
    assert_eq!(duplicate, sharing.values().map(|sharing| sharing - 1).sum::<usize>());
    assert!(duplicate > 0);
    // A hundred messages are paid for; those without a phone cost nothing and are the renderer's.
    let paid = jobs
        .iter()
        .filter(|(contact, job)| job.suppress.is_none() && contact.as_str() < "c360")
        .count();
    assert_eq!((paid, control + duplicate + budget + count(None)), (100, 400));
    let phone = |contact: &str| contact[1..].parse::<u32>().unwrap() % 180;
    let mut phones = HashSet::new();
    for contact in jobs
        .iter()
        .filter(|(contact, job)| job.suppress.is_none() && contact.as_str() < "c360")
        .map(|(id, _)| id)
    {
        assert!(phones.insert(phone(contact)), "two messages to one phone");
    }
    assert_eq!(jobs["c000"].values["name"], "Soldes");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_consent_keeps_nobody_else_from_a_shared_phone() {
    let stand = Stand::new().await;
    let mut changes: Vec<ContactChange> = (0..4)
        .map(|number| contact(&format!("c{number}"), Some("+262692000001"), "north"))
        .collect();
    changes[0].marketing_consent = Some(Consent::No);
    changes[1].marketing_consent = None;
    contacts(&stand.store, &changes).await;
    let id = stand.launch(campaign("region = \"north\"")).await;
    let process = stand.start();
    stand.on_the_bus(id).await;
    process.stop().await;
    let jobs: BTreeMap<String, Option<Reason>> = stand
        .jobs()
        .await
        .iter()
        .map(|job| {
            (
                job.key.clone(),
                Job::from_bytes(Job::KIND, &job.value).unwrap().suppress,
            )
        })
        .collect();
    let expected = [
        ("c0", Some(Reason::NoConsent)),
        ("c1", Some(Reason::NoConsent)),
        ("c2", None),
        ("c3", Some(Reason::DuplicatePhone)),
    ];
    assert_eq!(jobs, expected.map(|(id, reason)| (id.to_owned(), reason)).into());
}

/// A campaign is paused, its segmenter killed, resumed, ten times: `TAMTAM_TEST_CAMPAIGN` contacts (100,000 is the whole).
#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_paused_killed_and_resumed_ten_times_writes_to_each_contact_once() {
    let size = std::env::var("TAMTAM_TEST_CAMPAIGN").map_or(10_000, |size| size.parse::<u32>().unwrap());
    let stand = Stand::new().await;
    many(&stand.store, size).await;
    let id = stand.launch(campaign("region = \"north\"")).await;
    let state = || async { stand.store.campaign_get(id).await.unwrap().unwrap() };
    let mut process = stand.start();
    for round in 1..=10 {
        // So far into the campaign, or at its end already.
        let due = i64::from(size) * round / 12;
        eventually("it goes on", || async {
            let now = state().await;
            now.planned >= due || now.expanded_at.is_some()
        })
        .await;
        let mut tx = stand.store.begin().await.unwrap();
        tx.campaign_pause(id, "test", Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
        process.kill();
        let position = state().await;
        process = stand.start();
        let mut tx = stand.store.begin().await.unwrap();
        tx.campaign_resume(id, "test", Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
        eventually("somebody takes it over", || async {
            let now = state().await;
            now.chunks > position.chunks || now.expanded_at.is_some()
        })
        .await;
    }
    stand.on_the_bus(id).await;
    process.stop().await;
    let jobs = stand.jobs().await;
    let contacts: HashSet<&str> = jobs.iter().map(|job| job.key.as_str()).collect();
    assert_eq!((contacts.len() as u32, distinct(&jobs).len() as u32), (size, size));
    assert_eq!(state().await.planned, i64::from(size));
    if !bus::is_kafka() {
        assert_eq!(jobs.len() as u32, size, "none twice");
    }
    assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0);
}
