//! Campaigns: create, launch, pause, resume, cancel, and what became of them.
//!
//! Creating under an idempotency key derives the campaign's id from it, so that creating again is the same campaign, or
//! a conflict where it would be another one. Each step may be asked for again: a campaign that is already where the step
//! leads is answered as it is. What a campaign needs is checked when it is made and again when it is launched, because
//! months may lie in between.

mod check;

use std::time::Duration;

use domain::CampaignState;
use futures::{Stream, stream};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::{Map, Value};
use store::{Campaign, CampaignError, NewCampaign, campaigns::CampaignLogLine, messages::Counts};
use uuid::Uuid;

use self::check::{campaign_id, check, same};
use crate::{Api, ApiError, Caller, Role};

/// A page of the list.
pub const MAX_PAGE: i64 = 500;
/// How often a watched campaign is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// A campaign to be made. The text fields were checked by nobody.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CampaignDraft {
    pub name: String,
    /// The name of an audience, or
    pub audience: Option<String>,
    /// an expression.
    pub condition: Option<String>,
    pub template: String,
    /// For `{{ campaign.NAME }}`.
    pub values: Map<String, Value>,
    /// When to start; absent: when it is launched.
    pub at: Option<Timestamp>,
    /// A cron pattern, in `zone`.
    pub recurring: Option<String>,
    pub zone: Option<String>,
    pub deadline: Option<Timestamp>,
    pub budget_micros: Option<i64>,
    /// The share of the audience that gets nothing, to compare with.
    pub control_percent: u32,
    pub idempotency_key: Option<String>,
}

/// When to start: an instant, or a local time of a zone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    At(Timestamp),
    Local(DateTime),
}

impl Start {
    /// RFC 3339, or a local time such as `2026-12-24T09:00`.
    pub fn parse(text: &str) -> Option<Start> {
        let at = text.parse().map(Start::At);
        at.or_else(|_| text.parse().map(Start::Local)).ok()
    }

    /// The instant. A local time that a change of the clock leaves out is as much later; of one that comes twice it is the
    /// first. A zone that is none is refused also where the time does not need it: somebody meant something by it.
    pub fn resolve(self, zone: Option<&str>) -> Result<Timestamp, ApiError> {
        let zone = zone
            .map(TimeZone::get)
            .transpose()
            .map_err(|_| ApiError::invalid("zone", "unknown zone: expected an IANA name such as `Indian/Reunion`"))?;
        let local = match self {
            Start::At(at) => return Ok(at),
            Start::Local(local) => local,
        };
        let zone = zone.ok_or_else(|| {
            ApiError::invalid(
                "zone",
                "a time without an offset is a local one: expected its zone such as `Indian/Reunion`",
            )
        })?;
        zone.to_timestamp(local)
            .map_err(|_| ApiError::invalid("at", "is out of range: expected a time such as 2026-12-24T09:00"))
    }
}

/// A campaign and where its messages stand.
#[derive(Clone, Debug, PartialEq)]
pub struct CampaignStatus {
    pub campaign: Campaign,
    pub counts: Counts,
}

impl CampaignStatus {
    /// Nothing about it will change any more, but by a late receipt for an unknown message.
    pub fn is_settled(&self) -> bool {
        self.campaign.state.is_over() && self.counts.pending == 0 && self.counts.accepted == 0
    }
}

/// A step between two states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Pause,
    Resume,
    Cancel,
}

impl Api {
    /// Makes a draft.
    pub async fn campaign_create(&self, caller: &Caller, draft: CampaignDraft) -> Result<Campaign, ApiError> {
        caller.require(&[Role::Campaigns])?;
        let now = self.clock.now();
        check(&draft, now)?;
        let condition = self
            .campaign_condition(draft.audience.as_deref(), draft.condition.as_deref())
            .await?;
        self.template_exists(&draft.template).await?;
        let id = match &draft.idempotency_key {
            Some(key) => campaign_id(key),
            None => uuid::Builder::from_random_bytes(rand::random()).into_uuid(),
        };
        let new = NewCampaign {
            id,
            parent_id: None,
            name: draft.name,
            audience: draft.audience,
            expression: condition,
            template: draft.template,
            vars: draft.values,
            at: draft.at,
            zone: draft.zone,
            recurring: draft.recurring,
            deadline: draft.deadline,
            budget_micros: draft.budget_micros,
            // Checked to be 0 to 100.
            control_percent: i16::try_from(draft.control_percent).unwrap_or_default(),
        };
        if let Some(existing) = self.store.campaign_get(id).await? {
            return same(existing, &new);
        }
        let mut tx = self.store.begin().await?;
        match tx.campaign_create(&new, &caller.name, now).await {
            Ok(campaign) => {
                tx.commit().await?;
                tracing::info!(campaign = %id, by = caller.name, "campaign made");
                Ok(campaign)
            }
            // Somebody made it under the same key in between.
            Err(error) => {
                // Who asks for a second connection while holding one may wait for ever.
                drop(tx);
                match self.store.campaign_get(id).await? {
                    Some(existing) => same(existing, &new),
                    None => Err(error.into()),
                }
            }
        }
    }

    /// Starts a draft, at `when` or at its own time or now. What is launched already is answered as it is.
    pub async fn campaign_launch(
        &self,
        caller: &Caller,
        id: Uuid,
        when: Option<Timestamp>,
    ) -> Result<Campaign, ApiError> {
        caller.require(&[Role::Campaigns])?;
        let now = self.clock.now();
        let campaign = self.campaign(id).await?;
        match campaign.state {
            CampaignState::Draft => {}
            CampaignState::Cancelled => return Err(ApiError::conflict("a cancelled campaign cannot be launched")),
            _ => return Ok(campaign),
        }
        if when.is_some_and(|when| when <= now) {
            return Err(ApiError::invalid("at", "is in the past: expected a time to come"));
        }
        let start = when.or(campaign.at).unwrap_or(now).max(now);
        if campaign.deadline.is_some_and(|deadline| deadline <= start) {
            return Err(
                ApiError::conflict("its deadline has passed when it starts: make a campaign with a later one")
                    .at("deadline"),
            );
        }
        let own = campaign.audience.is_none().then_some(campaign.expression.as_str());
        let condition = self.campaign_condition(campaign.audience.as_deref(), own).await?;
        self.template_exists(&campaign.template).await?;
        let mut tx = self.store.begin().await?;
        match tx.campaign_launch(id, when, &condition, &caller.name, now).await {
            Ok(campaign) => {
                tx.commit().await?;
                tracing::info!(campaign = %id, by = caller.name, state = %campaign.state, "campaign launched");
                Ok(campaign)
            }
            Err(CampaignError::Conflict { state, .. })
                if !matches!(state, CampaignState::Draft | CampaignState::Cancelled) =>
            {
                drop(tx);
                self.campaign(id).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// [`Api::campaign_launch`] at a time that may be a local one: of `zone`, or of the campaign's own.
    pub async fn campaign_launch_at(
        &self,
        caller: &Caller,
        id: Uuid,
        start: Start,
        zone: Option<&str>,
    ) -> Result<Campaign, ApiError> {
        caller.require(&[Role::Campaigns])?;
        let own = match (start, zone) {
            (Start::Local(_), None) => self.campaign(id).await?.zone,
            _ => None,
        };
        let when = start.resolve(zone.or(own.as_deref()))?;
        self.campaign_launch(caller, id, Some(when)).await
    }

    /// Nothing more goes to a gateway; what is there already is not called back.
    pub async fn campaign_pause(&self, caller: &Caller, id: Uuid) -> Result<Campaign, ApiError> {
        self.campaign_step(caller, id, Step::Pause).await
    }

    /// Goes on with each remaining contact exactly once.
    pub async fn campaign_resume(&self, caller: &Caller, id: Uuid) -> Result<Campaign, ApiError> {
        self.campaign_step(caller, id, Step::Resume).await
    }

    /// Ends it; what waits becomes `cancelled`.
    pub async fn campaign_cancel(&self, caller: &Caller, id: Uuid) -> Result<Campaign, ApiError> {
        self.campaign_step(caller, id, Step::Cancel).await
    }

    async fn campaign_step(&self, caller: &Caller, id: Uuid, step: Step) -> Result<Campaign, ApiError> {
        caller.require(&[Role::Campaigns])?;
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        // The row is locked from here on: what is decided holds.
        let campaign = tx.campaign_locked(id).await?;
        let there = match step {
            Step::Pause => campaign.state == CampaignState::Paused,
            Step::Resume => matches!(campaign.state, CampaignState::Running | CampaignState::Scheduled),
            Step::Cancel => campaign.state == CampaignState::Cancelled,
        };
        if there {
            return Ok(campaign);
        }
        let campaign = match step {
            Step::Pause => tx.campaign_pause(id, &caller.name, now).await?,
            Step::Resume => tx.campaign_resume(id, &caller.name, now).await?,
            Step::Cancel => tx.campaign_cancel(id, &caller.name, now).await?,
        };
        tx.commit().await?;
        tracing::info!(campaign = %id, by = caller.name, state = %campaign.state, "campaign moved");
        Ok(campaign)
    }

    /// The campaign with its counts.
    pub async fn campaign_status(&self, caller: &Caller, id: Uuid) -> Result<CampaignStatus, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        // In this order a campaign that is over has counts that are at least as new.
        let campaign = self.campaign(id).await?;
        let counts = self.store.campaign_counts(id).await?;
        Ok(CampaignStatus { campaign, counts })
    }

    /// The campaign now and whenever something about it changes, at most twice a second, until it is settled.
    pub async fn campaign_watch(
        &self,
        caller: &Caller,
        id: Uuid,
    ) -> Result<impl Stream<Item = Result<CampaignStatus, ApiError>> + Send + use<>, ApiError> {
        let first = self.campaign_status(caller, id).await?;
        let (api, caller) = (self.clone(), caller.clone());
        let start = (Some(first), None::<CampaignStatus>, false);
        Ok(stream::unfold(start, move |(first, last, over)| {
            let (api, caller) = (api.clone(), caller.clone());
            async move {
                if over {
                    return None;
                }
                if let Some(first) = first {
                    let over = first.is_settled();
                    return Some((Ok(first.clone()), (None, Some(first), over)));
                }
                loop {
                    tokio::time::sleep(WATCH_EVERY).await;
                    match api.campaign_status(&caller, id).await {
                        Ok(status) if last.as_ref() == Some(&status) => {}
                        Ok(status) => {
                            let over = status.is_settled();
                            return Some((Ok(status.clone()), (None, Some(status), over)));
                        }
                        Err(error) => return Some((Err(error), (None, None, true))),
                    }
                }
            }
        }))
    }

    /// The newest first; `before` (an earlier page's last campaign) continues.
    pub async fn campaign_list(
        &self,
        caller: &Caller,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Campaign>, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("expected 1 to {MAX_PAGE}")));
        }
        let before = match before {
            Some(id) => Some((
                self.campaign(id).await.map_err(|error| error.at("before"))?.created_at,
                id,
            )),
            None => None,
        };
        Ok(self.store.campaign_list(before, limit).await?)
    }

    /// Those that are being sent, running or paused, the newest first.
    pub async fn campaigns_sending(&self, caller: &Caller, limit: i64) -> Result<Vec<Campaign>, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        Ok(self.store.campaigns_sending(limit).await?)
    }

    /// Who did what with it, oldest first.
    pub async fn campaign_log(&self, caller: &Caller, id: Uuid) -> Result<Vec<CampaignLogLine>, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        self.campaign(id).await?;
        Ok(self.store.campaign_log(id).await?)
    }

    async fn campaign(&self, id: Uuid) -> Result<Campaign, ApiError> {
        self.store
            .campaign_get(id)
            .await?
            .ok_or_else(|| ApiError::not_found("campaign"))
    }

    /// What a campaign's audience stands for now: a named one's expression, or its own after parsing.
    async fn campaign_condition(&self, audience: Option<&str>, condition: Option<&str>) -> Result<String, ApiError> {
        let snapshot = self.snapshot().await?;
        let (field, text) = match (audience, condition) {
            (Some(name), None) => match snapshot.audiences.get(name) {
                Some(audience) => ("audience", audience.condition.clone()),
                None => return Err(ApiError::invalid("audience", "there is no audience of this name")),
            },
            (None, Some(text)) => ("where", text.to_owned()),
            _ => {
                return Err(ApiError::invalid(
                    "audience",
                    "expected either `audience` (a name) or `where` (an expression)",
                ));
            }
        };
        crate::resources::parse_condition(&text, &snapshot).map_err(|message| ApiError::invalid(field, message))?;
        Ok(text)
    }
}

impl From<CampaignError> for ApiError {
    fn from(error: CampaignError) -> Self {
        match error {
            CampaignError::NotFound => ApiError::not_found("campaign"),
            CampaignError::Conflict { .. } => ApiError::conflict(error.to_string()),
            CampaignError::Store(error) => error.into(),
        }
    }
}
