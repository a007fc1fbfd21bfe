//! Campaigns: create, launch, pause, resume, cancel, and what became of them.
//!
//! Creating under an idempotency key derives the campaign's id from it, so that creating again is the same campaign, or
//! a conflict where it would be another one. Each step may be asked for again: a campaign that is already where the step
//! leads is answered as it is. What a campaign needs is checked when it is made and again when it is launched, because
//! months may lie in between.

use std::time::Duration;

use domain::{CampaignState, schedule::Schedule};
use futures::{Stream, stream};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use store::{Campaign, CampaignError, NewCampaign, campaigns::CampaignLogLine, messages::Counts};
use uuid::Uuid;

use crate::{
    Api, ApiError, Caller, Role,
    events::{check_id, has_nul},
};

/// A campaign's values as JSON.
const MAX_VALUES_BYTES: usize = 64 * 1024;
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
            Err(error) => match self.store.campaign_get(id).await? {
                Some(existing) => same(existing, &new),
                None => Err(error.into()),
            },
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
                self.campaign(id).await
            }
            Err(error) => Err(error.into()),
        }
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

/// The id that an idempotency key stands for: a UUID of version 8 (RFC 9562, section 5.8) from SHA-256.
fn campaign_id(key: &str) -> Uuid {
    let digest = Sha256::new()
        .chain_update(b"tamtam.campaign\0")
        .chain_update(key.as_bytes())
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The campaign that is there, if it is the one asked for.
fn same(existing: Campaign, new: &NewCampaign) -> Result<Campaign, ApiError> {
    // PostgreSQL keeps microseconds.
    let micros = |time: Option<Timestamp>| time.map(Timestamp::as_microsecond);
    // A named audience may have been defined anew since then, and a launch sets the start.
    let equal = existing.name == new.name
        && existing.audience == new.audience
        && (new.audience.is_some() || existing.expression == new.expression)
        && existing.template == new.template
        && existing.vars == new.vars
        && (existing.state != CampaignState::Draft || micros(existing.at) == micros(new.at))
        && existing.zone == new.zone
        && existing.recurring == new.recurring
        && micros(existing.deadline) == micros(new.deadline)
        && existing.budget_micros == new.budget_micros
        && existing.control_percent == new.control_percent;
    match equal {
        true => Ok(existing),
        false => Err(ApiError::conflict(
            "another campaign was made under this key: expected a new key for a new campaign",
        )
        .at("idempotency_key")),
    }
}

/// What can be said without the database.
fn check(draft: &CampaignDraft, now: Timestamp) -> Result<(), ApiError> {
    let of = |field: &'static str, text: &str| {
        check_id(field, text).map_err(|error| ApiError::invalid(field, error.message))
    };
    of("name", &draft.name)?;
    of("template", &draft.template)?;
    if let Some(key) = &draft.idempotency_key {
        of("idempotency_key", key)?;
    }
    let bytes = serde_json::to_vec(&draft.values).unwrap_or_default();
    if bytes.len() > MAX_VALUES_BYTES || has_nul(&bytes) {
        return Err(ApiError::invalid(
            "values",
            format!("expected up to {MAX_VALUES_BYTES} bytes as JSON, without a NUL character"),
        ));
    }
    if draft.at.is_some_and(|at| at <= now) {
        return Err(ApiError::invalid("at", "is in the past: expected a time to come"));
    }
    if draft
        .deadline
        .is_some_and(|deadline| deadline <= draft.at.unwrap_or(now))
    {
        return Err(ApiError::invalid(
            "deadline",
            "expected a time to come, after the start",
        ));
    }
    let zone =
        match &draft.zone {
            Some(zone) => Some(TimeZone::get(zone).map_err(|_| {
                ApiError::invalid("zone", "unknown zone: expected an IANA name such as `Indian/Reunion`")
            })?),
            None => None,
        };
    if let Some(pattern) = &draft.recurring {
        let schedule = Schedule::parse(pattern).map_err(|error| ApiError::invalid("recurring", error.to_string()))?;
        if schedule.next(now, &zone.unwrap_or(TimeZone::UTC)).is_none() {
            return Err(ApiError::invalid(
                "recurring",
                "this pattern never comes: expected one such as `0 9 * * MON`",
            ));
        }
    }
    if draft.budget_micros.is_some_and(|budget| budget <= 0) {
        return Err(ApiError::invalid("budget_micros", "expected 1 or more, in millionths"));
    }
    if draft.control_percent > 100 {
        return Err(ApiError::invalid("control_percent", "expected 0 to 100"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_key_never_changes() {
        assert_eq!(campaign_id("k").to_string(), campaign_id("k").to_string());
        assert_ne!(campaign_id("k"), campaign_id("l"));
        assert_eq!(campaign_id("k").get_version_num(), 8);
    }

    #[test]
    fn each_bad_field_is_named() {
        let now: Timestamp = "2026-06-01T10:00:00Z".parse().unwrap();
        let field = |change: fn(&mut CampaignDraft)| {
            let mut draft = CampaignDraft {
                name: "Soldes".into(),
                condition: Some("age < 30".into()),
                template: "flash-sale".into(),
                ..CampaignDraft::default()
            };
            change(&mut draft);
            check(&draft, now).err().and_then(|error| error.field)
        };
        assert_eq!(field(|_| {}), None);
        assert_eq!(field(|draft| draft.name.clear()).as_deref(), Some("name"));
        let past = |draft: &mut CampaignDraft| draft.at = Some("2026-06-01T10:00:00Z".parse().unwrap());
        assert_eq!(field(past).as_deref(), Some("at"));
        let late = |draft: &mut CampaignDraft| {
            draft.at = Some("2026-06-02T10:00:00Z".parse().unwrap());
            draft.deadline = Some("2026-06-02T09:00:00Z".parse().unwrap());
        };
        assert_eq!(field(late).as_deref(), Some("deadline"));
        assert_eq!(
            field(|draft| draft.zone = Some("Mars/Olympus".into())).as_deref(),
            Some("zone")
        );
        assert_eq!(
            field(|draft| draft.recurring = Some("0 0 31 2 *".into())).as_deref(),
            Some("recurring")
        );
        assert_eq!(
            field(|draft| draft.control_percent = 101).as_deref(),
            Some("control_percent")
        );
        assert_eq!(
            field(|draft| draft.budget_micros = Some(0)).as_deref(),
            Some("budget_micros")
        );
    }
}
