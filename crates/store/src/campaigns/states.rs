//! The steps between a campaign's states.

use domain::CampaignState;
use jiff::Timestamp;
use uuid::Uuid;

use super::{COLUMNS, Campaign, CampaignError, read};
use crate::{
    Store, StoreError, Tx,
    deferred::park_key,
    time::{At, at},
};

/// What the log of an occurrence says of a step that was its recurring campaign's.
const WITH_PARENT: &str = "with its recurring campaign";

impl Tx {
    /// Launches a draft: at once, or at its time where it has one that is still to come, or on its schedule.
    /// `expression` is what the audience stands for now.
    pub async fn campaign_launch(
        &mut self,
        id: Uuid,
        when: Option<Timestamp>,
        expression: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Campaign, CampaignError> {
        let campaign = self.campaign_locked(id).await?;
        let start = when.or(campaign.at).filter(|start| *start > now);
        let next = match start {
            Some(_) => CampaignState::Scheduled,
            None if campaign.recurring.is_some() => CampaignState::Scheduled,
            None => CampaignState::Running,
        };
        self.step(&campaign, next, "launched")?;
        sqlx::query(
            "update campaigns set state = $2, at = $3, expression = $4,
                 launched_at = case when $2 = 'running' then $5 end, updated_at = $5
             where id = $1",
        )
        .bind(id)
        .bind(next.as_str())
        .bind(at(start))
        .bind(expression)
        .bind(At(now))
        .execute(&mut *self.inner)
        .await?;
        let detail = start.map(|start| format!("starts at {start}"));
        self.campaign_note(id, by, "launched", detail.as_deref(), now).await?;
        self.campaign_locked(id).await
    }

    /// Starts a scheduled campaign whose time has come.
    pub async fn campaign_start(&mut self, id: Uuid, now: Timestamp) -> Result<Campaign, CampaignError> {
        let campaign = self.campaign_locked(id).await?;
        if campaign.state != CampaignState::Scheduled {
            return Err(conflict(&campaign, "started"));
        }
        // The audience as it is defined now: the campaign may have waited for months.
        sqlx::query(
            "update campaigns c set state = 'running', launched_at = $2, updated_at = $2,
                 expression = coalesce((select r.body->>'where' from resources r
                                        where r.kind = 'audience' and r.name = c.audience), c.expression)
             where id = $1",
        )
        .bind(id)
        .bind(At(now))
        .execute(&mut *self.inner)
        .await?;
        self.campaign_note(id, "schedule", "started", None, now).await?;
        self.campaign_locked(id).await
    }

    /// Pauses it, and what runs of it where it recurs.
    pub async fn campaign_pause(&mut self, id: Uuid, by: &str, now: Timestamp) -> Result<Campaign, CampaignError> {
        let campaign = self.campaign_locked(id).await?;
        self.step(&campaign, CampaignState::Paused, "paused")?;
        self.campaign_move(id, CampaignState::Paused, now).await?;
        self.campaign_note(id, by, "paused", None, now).await?;
        for occurrence in self.campaign_occurrences(id, &[CampaignState::Running]).await? {
            self.campaign_move(occurrence, CampaignState::Paused, now).await?;
            self.campaign_note(occurrence, by, "paused", Some(WITH_PARENT), now)
                .await?;
        }
        self.campaign_locked(id).await
    }

    /// Goes on where it was: what is parked is due at once, the expansion continues after its last chunk. Of a recurring
    /// campaign the occurrences that were paused with it go on, too; one that somebody paused by itself stays paused.
    pub async fn campaign_resume(&mut self, id: Uuid, by: &str, now: Timestamp) -> Result<Campaign, CampaignError> {
        let campaign = self.campaign_locked(id).await?;
        if campaign.state != CampaignState::Paused {
            return Err(conflict(&campaign, "resumed"));
        }
        let next = match campaign.launched_at {
            Some(_) => CampaignState::Running,
            None => CampaignState::Scheduled,
        };
        self.campaign_move(id, next, now).await?;
        self.deferred_unpark(&park_key(id)).await?;
        self.campaign_note(id, by, "resumed", None, now).await?;
        for occurrence in self.campaign_occurrences(id, &[CampaignState::Paused]).await? {
            if !self.campaign_paused_with_parent(occurrence).await? {
                continue;
            }
            self.campaign_move(occurrence, CampaignState::Running, now).await?;
            self.deferred_unpark(&park_key(occurrence)).await?;
            self.campaign_note(occurrence, by, "resumed", Some(WITH_PARENT), now)
                .await?;
        }
        self.campaign_locked(id).await
    }

    /// Nothing more of it is sent, nor of its occurrences. What already left stays as it is; what waits becomes `cancelled`
    /// on its way.
    pub async fn campaign_cancel(&mut self, id: Uuid, by: &str, now: Timestamp) -> Result<Campaign, CampaignError> {
        let campaign = self.campaign_locked(id).await?;
        self.step(&campaign, CampaignState::Cancelled, "cancelled")?;
        self.campaign_end(id, by, None, now).await?;
        let open = [
            CampaignState::Draft,
            CampaignState::Scheduled,
            CampaignState::Running,
            CampaignState::Paused,
        ];
        for occurrence in self.campaign_occurrences(id, &open).await? {
            self.campaign_end(occurrence, by, Some(WITH_PARENT), now).await?;
        }
        self.campaign_locked(id).await
    }

    async fn campaign_end(
        &mut self,
        id: Uuid,
        by: &str,
        detail: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query("update campaigns set state = 'cancelled', finished_at = $2, updated_at = $2 where id = $1")
            .bind(id)
            .bind(At(now))
            .execute(&mut *self.inner)
            .await?;
        self.deferred_release_campaign(id).await?;
        self.campaign_note(id, by, "cancelled", detail, now).await
    }

    /// A recurring campaign's occurrences in these states, their rows locked. In id order, as whoever parks messages locks
    /// them; the parent's own row was locked before, so that no occurrence is made meanwhile.
    async fn campaign_occurrences(&mut self, parent: Uuid, states: &[CampaignState]) -> Result<Vec<Uuid>, StoreError> {
        let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        Ok(sqlx::query_scalar(
            "select id from campaigns where parent_id = $1 and state = any($2) order by id for update",
        )
        .bind(parent)
        .bind(states)
        .fetch_all(&mut *self.inner)
        .await?)
    }

    /// Whether the last pause of an occurrence was its parent's.
    async fn campaign_paused_with_parent(&mut self, id: Uuid) -> Result<bool, StoreError> {
        let detail: Option<Option<String>> = sqlx::query_scalar(
            "select detail from campaign_log where campaign_id = $1 and action = 'paused' order by id desc limit 1",
        )
        .bind(id)
        .fetch_optional(&mut *self.inner)
        .await?;
        Ok(detail.flatten().as_deref() == Some(WITH_PARENT))
    }

    /// Everything planned is settled (or a schedule has ended).
    pub async fn campaign_finish(&mut self, id: Uuid, now: Timestamp) -> Result<Campaign, CampaignError> {
        let campaign = self.campaign_locked(id).await?;
        self.step(&campaign, CampaignState::Finished, "finished")?;
        sqlx::query("update campaigns set state = 'finished', finished_at = $2, updated_at = $2 where id = $1")
            .bind(id)
            .bind(At(now))
            .execute(&mut *self.inner)
            .await?;
        self.campaign_note(id, "tamtam", "finished", None, now).await?;
        self.campaign_locked(id).await
    }

    /// As [`Tx::campaign_locked`]; `None` where somebody else has it, or it is gone.
    pub async fn campaign_try_lock(&mut self, id: Uuid) -> Result<Option<Campaign>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from campaigns where id = $1 for update skip locked"
        )))
        .bind(id)
        .fetch_optional(&mut *self.inner)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// A recurring campaign's next time.
    pub async fn campaign_reschedule(&mut self, id: Uuid, next: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("update campaigns set at = $2, updated_at = $3 where id = $1")
            .bind(id)
            .bind(At(next))
            .bind(At(now))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The campaign, its row locked until the transaction ends.
    pub async fn campaign_locked(&mut self, id: Uuid) -> Result<Campaign, CampaignError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from campaigns where id = $1 for update"
        )))
        .bind(id)
        .fetch_optional(&mut *self.inner)
        .await?;
        Ok(read(&row.ok_or(CampaignError::NotFound)?)?)
    }

    async fn campaign_move(&mut self, id: Uuid, state: CampaignState, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("update campaigns set state = $2, updated_at = $3 where id = $1")
            .bind(id)
            .bind(state.as_str())
            .bind(At(now))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    fn step(&self, campaign: &Campaign, next: CampaignState, action: &'static str) -> Result<(), CampaignError> {
        match campaign.state.may_become(next) {
            true => Ok(()),
            false => Err(conflict(campaign, action)),
        }
    }
}

impl Store {
    /// The scheduled campaigns whose time has come (or that recur and have no next time yet). Whoever starts one locks it
    /// and looks again.
    pub async fn campaigns_due(&self, now: Timestamp) -> Result<Vec<Uuid>, StoreError> {
        Ok(sqlx::query_scalar(
            "select id from campaigns
             where state = 'scheduled' and (at <= $1 or (at is null and recurring is not null))
             order by at nulls first limit 100",
        )
        .bind(At(now))
        .fetch_all(&self.pool)
        .await?)
    }
}

fn conflict(campaign: &Campaign, action: &'static str) -> CampaignError {
    CampaignError::Conflict {
        state: campaign.state,
        action,
    }
}
