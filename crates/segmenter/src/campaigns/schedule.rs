//! Starts campaigns whose time has come, and makes the occurrences of recurring ones.
//!
//! Each campaign is moved in one transaction that holds its row: died in between, nothing happened. An occurrence is a
//! campaign of its own, whose id follows from its parent's and its time, so the same one is never made twice.

use std::time::Duration;

use domain::{Cause, MessageId, schedule::Schedule};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use store::{Campaign, CampaignError, NewCampaign, StoreError, Tx};
use uuid::Uuid;

use super::{Trouble, Work};

const POLL: Duration = Duration::from_millis(500);
/// An occurrence that is later than this, because nobody ran, is left out: a morning's message is none for the evening.
const LATE: SignedDuration = SignedDuration::from_hours(6);

pub(super) async fn run(work: Work) {
    let mut trouble = Trouble::new("starting campaigns");
    let mut changes = work.wake.listener();
    loop {
        match look(&work).await {
            Ok(()) => trouble.went_well(),
            Err(error) => trouble.failed(&error),
        }
        if !changes.wait(POLL, &work.stop).await {
            return;
        }
    }
}

async fn look(work: &Work) -> Result<(), StoreError> {
    let mut failed = None;
    for id in work.store.campaigns_due(work.clock.now()).await? {
        let start = work.clone();
        // A task of its own is not cancelled with us (sqlx #4393). One that fails does not hold up the others.
        match tokio::spawn(async move { start_one(&start, id).await }).await {
            Ok(Ok(())) => {}
            Ok(Err(CampaignError::Store(error))) => failed = Some(error),
            Ok(Err(error)) => tracing::debug!(campaign = %id, %error, "a campaign went elsewhere"),
            Err(error) => tracing::error!(campaign = %id, %error, "starting a campaign failed by a mistake of ours"),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

async fn start_one(work: &Work, id: Uuid) -> Result<(), CampaignError> {
    let now = work.clock.now();
    let mut tx = work.store.begin().await?;
    let Some(campaign) = tx.campaign_try_lock(id).await? else {
        return Ok(());
    };
    if campaign.state != domain::CampaignState::Scheduled || campaign.at.is_some_and(|at| at > now) {
        return Ok(());
    }
    match campaign.recurring.clone() {
        None => {
            tx.campaign_start(id, now).await?;
            tracing::info!(campaign = %id, "campaign started");
        }
        Some(pattern) => recur(work, &mut tx, &campaign, &pattern, now).await?,
    }
    tx.commit().await?;
    work.wake.wake();
    Ok(())
}

async fn recur(
    work: &Work,
    tx: &mut Tx,
    campaign: &Campaign,
    pattern: &str,
    now: Timestamp,
) -> Result<(), CampaignError> {
    let zone = campaign
        .zone
        .as_deref()
        .and_then(|zone| TimeZone::get(zone).ok())
        .unwrap_or(TimeZone::UTC);
    let Ok(schedule) = Schedule::parse(pattern) else {
        tracing::error!(campaign = %campaign.id, "the schedule of a recurring campaign cannot be read: it is finished");
        tx.campaign_finish(campaign.id, now).await?;
        return Ok(());
    };
    if let Some(at) = latest(&schedule, &zone, campaign.at, now) {
        if now.duration_since(at) <= LATE {
            occur(work, tx, campaign, at, &zone, now).await?;
        } else {
            let detail = format!("nobody ran at {at}");
            tx.campaign_note(campaign.id, "schedule", "left out", Some(&detail), now)
                .await?;
        }
    }
    let next = schedule
        .next(now, &zone)
        .filter(|next| campaign.deadline.is_none_or(|deadline| *next < deadline));
    match next {
        Some(next) => tx.campaign_reschedule(campaign.id, next, now).await?,
        None => {
            tx.campaign_finish(campaign.id, now).await?;
        }
    }
    Ok(())
}

/// The latest of the schedule's times from `at` (when it was due) up to `now`. A time that is none of the schedule's own,
/// because somebody set the beginning, is no occurrence.
fn latest(schedule: &Schedule, zone: &TimeZone, at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let mut latest = None;
    let mut after = at?.checked_sub(SignedDuration::from_micros(1)).ok()?;
    // Every minute for a week at most: what is earlier is too late anyway.
    after = after.max(now.checked_sub(SignedDuration::from_hours(7 * 24)).ok()?);
    while let Some(next) = schedule.next(after, zone).filter(|next| *next <= now) {
        latest = Some(next);
        after = next;
    }
    latest
}

async fn occur(
    work: &Work,
    tx: &mut Tx,
    parent: &Campaign,
    at: Timestamp,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<(), CampaignError> {
    let named = parent.audience.as_deref();
    let current = named.and_then(|name| work.live.current().audiences.get(name).cloned());
    let expression = current.map_or_else(|| parent.expression.clone(), |audience| audience.condition.clone());
    let child = NewCampaign {
        id: occurrence_id(parent.id, at),
        parent_id: Some(parent.id),
        name: format!("{} {}", parent.name, zone.to_datetime(at).strftime("%Y-%m-%d %H:%M")),
        audience: parent.audience.clone(),
        expression: expression.clone(),
        template: parent.template.clone(),
        vars: parent.vars.clone(),
        at: None,
        zone: parent.zone.clone(),
        recurring: None,
        deadline: parent.deadline,
        budget_micros: parent.budget_micros,
        control_percent: parent.control_percent,
    };
    tx.campaign_create(&child, "schedule", now).await?;
    tx.campaign_launch(child.id, None, &expression, "schedule", now).await?;
    tracing::info!(campaign = %child.id, parent = %parent.id, "occurrence of a recurring campaign started");
    Ok(())
}

/// Made as a message's id is, from the parent and the time.
fn occurrence_id(parent: Uuid, at: Timestamp) -> Uuid {
    let cause = Cause::Campaign {
        campaign_id: parent.to_string(),
    };
    MessageId::derive(&cause, &format!("occurrence at {at}")).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_was_missed_the_latest_counts() {
        let schedule = Schedule::parse("0 9 * * *").unwrap();
        let zone = TimeZone::get("Indian/Reunion").unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let of = |due: &str, now: &str| latest(&schedule, &zone, Some(at(due)), at(now)).map(|at| at.to_string());
        assert_eq!(
            of("2026-06-01T05:00:00Z", "2026-06-01T05:00:00.2Z").as_deref(),
            Some("2026-06-01T05:00:00Z")
        );
        assert_eq!(
            of("2026-06-01T05:00:00Z", "2026-06-03T08:00:00Z").as_deref(),
            Some("2026-06-03T05:00:00Z")
        );
        assert_eq!(
            of("2026-06-01T10:00:00Z", "2026-06-01T10:00:01Z"),
            None,
            "a beginning is no occurrence"
        );
        assert_eq!(
            latest(&schedule, &zone, None, at("2026-06-01T05:00:00Z")),
            None,
            "just launched"
        );
    }

    #[test]
    fn an_occurrence_is_always_the_same_campaign() {
        let at: Timestamp = "2026-06-01T05:00:00Z".parse().unwrap();
        let parent = Uuid::from_u128(7);
        assert_eq!(occurrence_id(parent, at), occurrence_id(parent, at));
        assert_ne!(occurrence_id(parent, at), occurrence_id(Uuid::from_u128(8), at));
    }
}
