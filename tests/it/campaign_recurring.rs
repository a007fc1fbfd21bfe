//! When campaigns start, a recurring one and its occurrences, and what a budget is reckoned with.

use domain::{CampaignState, Reason};
use events::{Job, Record as _};
use jiff::{SignedDuration, Timestamp};
use store::Store;
use uuid::Uuid;

use crate::{
    segmenter_stand::{Stand, campaign, contact, contacts},
    stage::eventually,
    support::{database::database, resources::apply},
};

/// A recurring campaign with two occurrences that run.
async fn recurring(store: &Store) -> (Uuid, [Uuid; 2]) {
    let now = Timestamp::now();
    let mut tx = store.begin().await.unwrap();
    let mut parent = campaign("age < 30");
    parent.recurring = Some("0 9 * * *".into());
    tx.campaign_create(&parent, "test", now).await.unwrap();
    tx.campaign_launch(parent.id, None, "age < 30", "test", now)
        .await
        .unwrap();
    let occurrences = [1, 2].map(|number| Uuid::from_u128(parent.id.as_u128() + number));
    for id in occurrences {
        let mut child = campaign("age < 30");
        (child.id, child.parent_id) = (id, Some(parent.id));
        tx.campaign_create(&child, "schedule", now).await.unwrap();
        tx.campaign_launch(id, None, "age < 30", "schedule", now).await.unwrap();
    }
    tx.commit().await.unwrap();
    (parent.id, occurrences)
}

async fn state(store: &Store, id: Uuid) -> CampaignState {
    store.campaign_get(id).await.unwrap().unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_of_a_recurring_campaign_is_paused_resumed_and_cancelled_with_it() {
    use CampaignState::{Cancelled, Paused, Running, Scheduled};
    let store = database().await;
    let (parent, [first, second]) = recurring(&store).await;
    let now = Timestamp::now();
    let states = || async {
        [
            state(&store, parent).await,
            state(&store, first).await,
            state(&store, second).await,
        ]
    };
    // Paused by itself, for a reason of its own.
    let mut tx = store.begin().await.unwrap();
    tx.campaign_pause(second, "ana", now).await.unwrap();
    tx.campaign_pause(parent, "ana", now).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(states().await, [Paused, Paused, Paused]);
    let mut tx = store.begin().await.unwrap();
    tx.campaign_resume(parent, "ana", now).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(states().await, [Scheduled, Running, Paused]);
    let mut tx = store.begin().await.unwrap();
    tx.campaign_cancel(parent, "ana", now).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(states().await, [Cancelled, Cancelled, Cancelled]);
    let log: Vec<String> = store
        .campaign_log(first)
        .await
        .unwrap()
        .into_iter()
        .map(|line| format!("{} {}", line.by, line.action))
        .collect();
    assert_eq!(
        log[log.len() - 3..],
        ["ana paused", "ana resumed", "ana cancelled"].map(str::to_owned)
    );
    assert!(
        store
            .campaigns_halted()
            .await
            .unwrap()
            .iter()
            .any(|(id, _)| *id == first)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_reckoned_with_the_campaigns_name() {
    let stand = Stand::new().await;
    // Two parts, and no text at all without the campaign's name.
    let text = format!("{{{{ campaign.name }}}} {}", "x".repeat(200));
    let template =
        format!("[[template]]\nname = \"named\"\nclass = \"transactional\"\nsender = \"36111\"\ntext = \"{text}\"\n");
    apply(&stand.store, &template).await;
    let changes: Vec<_> = (0..40_u32)
        .map(|number| contact(&format!("c{number:02}"), Some(&format!("+262692{number:06}")), "north"))
        .collect();
    contacts(&stand.store, &changes).await;
    let mut new = campaign("region = \"north\"");
    new.template = "named".into();
    // Ten messages of two parts at 50,000 each.
    new.budget_micros = Some(10 * 2 * 50_000);
    let id = stand.launch(new).await;
    let process = stand.start();
    stand.on_the_bus(id).await;
    process.stop().await;
    let jobs = stand.jobs().await;
    let within = jobs
        .iter()
        .map(|record| Job::from_bytes(Job::KIND, &record.value).unwrap())
        .filter(|job| job.suppress != Some(Reason::Budget))
        .count();
    assert_eq!(within, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_start_at_their_time_recur_and_finish() {
    let stand = Stand::new().await;
    let process = stand.start();
    // Nobody matches: started at its time, it is over at once.
    let mut new = campaign("region = \"nowhere\"");
    new.at = Some(Timestamp::now() + SignedDuration::from_millis(1_500));
    let id = stand.launch(new).await;
    let state = |id| {
        let store = stand.store.clone();
        async move { store.campaign_get(id).await.unwrap().unwrap().state }
    };
    assert_eq!(state(id).await, CampaignState::Scheduled);
    eventually("it is finished", || async {
        state(id).await == CampaignState::Finished
    })
    .await;

    let mut recurring = campaign("region = \"nowhere\"");
    recurring.id = Uuid::from_u128(recurring.id.as_u128() + 1);
    recurring.recurring = Some("* * * * *".into());
    let parent = stand.launch(recurring).await;
    eventually("it has a next time", || async {
        stand.store.campaign_get(parent).await.unwrap().unwrap().at.is_some()
    })
    .await;
    // Rather than wait for the minute, move the time to the last one.
    let minute = Timestamp::from_second(Timestamp::now().as_second() / 60 * 60).unwrap();
    let mut tx = stand.store.begin().await.unwrap();
    tx.campaign_reschedule(parent, minute, Timestamp::now()).await.unwrap();
    tx.commit().await.unwrap();
    eventually("an occurrence was made and is over", || async {
        let all = stand.store.campaign_list(None, 100).await.unwrap();
        all.iter()
            .any(|campaign| campaign.parent_id == Some(parent) && campaign.state == CampaignState::Finished)
    })
    .await;
    let parent = stand.store.campaign_get(parent).await.unwrap().unwrap();
    assert_eq!(parent.state, CampaignState::Scheduled);
    assert!(parent.at.is_some_and(|at| at > minute));
    process.stop().await;
}
