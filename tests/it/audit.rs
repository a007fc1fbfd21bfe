//! The conservation check: it holds on what was done in order, and finds what was not.

use domain::{Cause, Class, MessageId, Reason, State};
use jiff::{SignedDuration, Timestamp};
use serde_json::Map;
use store::{
    Store,
    campaigns::ChunkMember,
    messages::{Counts, Verdict},
    trigger_log::{EventKey, Firing},
};
use uuid::Uuid;

use crate::support::{campaign::drafted, database::database};

const CAMPAIGN: Uuid = Uuid::from_u128(0xC0FFEE);

async fn campaign(store: &Store, members: usize) {
    let now = Timestamp::now();
    let new = drafted(CAMPAIGN, "sale", "age > 30", "sale");
    let mut tx = store.begin().await.unwrap();
    tx.campaign_create(&new, "test", now).await.unwrap();
    let campaign = tx
        .campaign_launch(CAMPAIGN, None, "age > 30", "test", now)
        .await
        .unwrap();
    let members: Vec<ChunkMember> = (0..members)
        .map(|number| ChunkMember {
            contact_id: format!("c{number:03}"),
            suppress: None,
        })
        .collect();
    assert!(tx.campaign_chunk_plan(&campaign, &members, 0, now).await.unwrap());
    tx.commit().await.unwrap();
}

fn verdict(cause: Cause, contact: &str, state: State, reason: Option<Reason>) -> Verdict {
    let now = Timestamp::now();
    Verdict {
        contact_id: contact.into(),
        message_id: MessageId::derive(&cause, contact).0,
        cause,
        class: Class::Marketing,
        template: "sale".into(),
        variant: None,
        state,
        reason,
        encoding: None,
        parts: 1,
        cost_micros: 0,
        phone_hash: None,
        caused_at: now,
        planned_at: now,
        rendered_at: None,
        decided_by: None,
        at: now,
    }
}

async fn decide(store: &Store, verdicts: &[Verdict]) {
    let mut tx = store.begin().await.unwrap();
    tx.messages_decide(verdicts).await.unwrap();
    tx.commit().await.unwrap();
}

fn of_campaign() -> Cause {
    Cause::Campaign {
        campaign_id: CAMPAIGN.to_string(),
    }
}

async fn kinds(store: &Store) -> Vec<&'static str> {
    let audit = store.audit(None, None).await.unwrap();
    let mut kinds: Vec<&str> = audit.examples.iter().map(|violation| violation.kind).collect();
    kinds.dedup();
    assert_eq!(audit.violations == 0, kinds.is_empty());
    kinds
}

#[tokio::test]
async fn what_a_campaign_planned_is_where_the_ledger_says_or_on_its_way() {
    let store = database().await;
    campaign(&store, 5).await;
    decide(
        &store,
        &[
            verdict(of_campaign(), "c000", State::Suppressed, Some(Reason::NoConsent)),
            verdict(of_campaign(), "c001", State::Expired, Some(Reason::DeadlinePassed)),
            verdict(of_campaign(), "c002", State::Deferred, Some(Reason::QuietHours)),
        ],
    )
    .await;
    assert_eq!(
        store.campaign_counts(CAMPAIGN).await.unwrap(),
        Counts {
            planned: 5,
            suppressed: 1,
            expired: 1,
            pending: 3,
            ..Counts::default()
        }
    );
    let audit = store.audit(None, None).await.unwrap();
    assert_eq!((audit.violations, audit.pending), (0, 3), "{:?}", audit.examples);
    // Finished, and three never arrived anywhere.
    let mut tx = store.begin().await.unwrap();
    let campaign = tx.campaign_locked(CAMPAIGN).await.unwrap();
    assert!(tx.campaign_expanded(&campaign, Timestamp::now()).await.unwrap());
    tx.campaign_finish(CAMPAIGN, Timestamp::now()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(kinds(&store).await, ["campaign-finished-with-messages-on-their-way"]);
    // More than were planned.
    let more: Vec<Verdict> = (2..7)
        .map(|number| {
            verdict(
                of_campaign(),
                &format!("c{number:03}"),
                State::Cancelled,
                Some(Reason::CampaignCancelled),
            )
        })
        .collect();
    decide(&store, &more).await;
    assert_eq!(kinds(&store).await, ["campaign-more-than-planned"]);
    let later = Timestamp::now() + SignedDuration::from_secs(60);
    let nothing = store.audit(Some(later), None).await.unwrap();
    assert_eq!((nothing.violations, nothing.checked), (0, 0));
}

#[tokio::test]
async fn what_an_event_started_is_decided_once_for_each_trigger() {
    let store = database().await;
    let now = Timestamp::now();
    let event = events::BusinessEvent {
        id: "e1".into(),
        source: "shop".into(),
        kind: "order.placed".into(),
        contact_id: "42".into(),
        time: now,
        data: Map::new(),
    };
    let key = EventKey {
        contact_id: "42",
        source: "shop",
        event_id: "e1",
    };
    let firing = Firing {
        contact_id: "42".into(),
        trigger: "confirm".into(),
        event_source: "shop".into(),
        event_id: "e1".into(),
        template: "order".into(),
        caused_at: now,
        planned_at: now,
        deadline: None,
        vars: Map::new(),
        suppress: None,
    };
    let mut tx = store.begin().await.unwrap();
    tx.history_put(&[event]).await.unwrap();
    tx.trigger_log_put(&[firing]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(kinds(&store).await, ["event-planned"], "a decision without its count");
    let mut tx = store.begin().await.unwrap();
    tx.history_planned_add(&[(key, 1)]).await.unwrap();
    tx.commit().await.unwrap();
    let audit = store.audit(None, None).await.unwrap();
    assert_eq!((audit.violations, audit.pending), (0, 1), "its job is on its way");
    let cause = |trigger: &str| Cause::Trigger {
        trigger: trigger.into(),
        event_source: "shop".into(),
        event_id: "e1".into(),
    };
    decide(
        &store,
        &[verdict(
            cause("confirm"),
            "42",
            State::Suppressed,
            Some(Reason::NoPhone),
        )],
    )
    .await;
    let audit = store.audit(None, None).await.unwrap();
    assert_eq!((audit.violations, audit.pending), (0, 0));
    decide(
        &store,
        &[verdict(cause("nobody"), "42", State::Suppressed, Some(Reason::NoPhone))],
    )
    .await;
    assert_eq!(kinds(&store).await, ["message-of-no-event"]);
}
