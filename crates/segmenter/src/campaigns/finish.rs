//! Finishes campaigns: expanded, every chunk on the bus, and no message on its way. What a walk keeps for itself goes when it
//! is at its end; of cancelled campaigns, which never come there, it is cleared away here.
//!
//! Counting a large campaign's messages takes a while, so the next count waits the longer, the longer the last one took.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use domain::CampaignState;
use store::{Campaign, CampaignError, StoreError};
use uuid::Uuid;

use super::{Trouble, Work};

const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(15);
/// At most a twentieth of the time goes into counting.
const SHARE: u32 = 20;

pub(super) async fn run(work: Work) {
    let mut trouble = Trouble::new("finishing campaigns");
    let mut changes = work.wake.listener();
    // When each is counted next.
    let mut next: HashMap<Uuid, Instant> = HashMap::new();
    loop {
        match look(&work, &mut next).await {
            Ok(()) => trouble.went_well(),
            Err(error) => trouble.failed(&error),
        }
        // Nothing tells when the last message settles: it is looked for.
        tokio::select! {
            () = work.stop.cancelled() => return,
            () = tokio::time::sleep(LEAST) => {}
        }
        if next.is_empty() && !changes.wait(Duration::MAX, &work.stop).await {
            return;
        }
    }
}

async fn look(work: &Work, next: &mut HashMap<Uuid, Instant>) -> Result<(), StoreError> {
    work.store.campaign_phones_forget().await?;
    let campaigns = work.store.campaigns_expanded().await?;
    next.retain(|id, _| campaigns.iter().any(|campaign| campaign.id == *id));
    for campaign in campaigns {
        if next.get(&campaign.id).is_some_and(|at| *at > Instant::now()) {
            continue;
        }
        let started = Instant::now();
        let counts = work.store.campaign_counts(campaign.id).await?;
        let wait = (started.elapsed() * SHARE).clamp(LEAST, MOST);
        next.insert(campaign.id, Instant::now() + wait);
        if counts.pending <= 0 {
            let work = work.clone();
            // A task of its own is not cancelled with us (sqlx #4393).
            match tokio::spawn(async move { finish(&work, &campaign).await }).await {
                Ok(done) => done?,
                Err(error) => tracing::error!(%error, "finishing a campaign failed by a mistake of ours"),
            }
        }
    }
    Ok(())
}

async fn finish(work: &Work, campaign: &Campaign) -> Result<(), StoreError> {
    let mut tx = work.store.begin().await?;
    // Paused, cancelled or finished by somebody else in between, or about to be.
    let Some(now) = tx.campaign_try_lock(campaign.id).await? else {
        return Ok(());
    };
    if now.state != CampaignState::Running {
        return Ok(());
    }
    match tx.campaign_finish(campaign.id, work.clock.now()).await {
        Ok(_) => {
            tx.commit().await?;
            tracing::info!(campaign = %campaign.id, planned = campaign.planned, "campaign finished");
            Ok(())
        }
        Err(CampaignError::Store(error)) => Err(error),
        Err(CampaignError::NotFound | CampaignError::Conflict { .. }) => Ok(()),
    }
}
