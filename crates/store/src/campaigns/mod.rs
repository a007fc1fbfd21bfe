//! Campaigns: what they are, and the steps between their states, each with who did it and when.
//!
//! A step locks the campaign's row, looks at the state, changes it and writes the log, in one transaction; a step that
//! the state does not allow is a conflict that names the state. The steps also move what waits for the campaign:
//! resuming makes its parked messages due, cancelling sends everything that waits down the pipeline, where each message
//! becomes `cancelled`.

mod expansion;
mod received;
mod states;

use domain::CampaignState;
use jiff::Timestamp;
use serde_json::{Map, Value};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

pub use expansion::{Chunk, ChunkMember, Met, Page, Walk};
pub(crate) use received::{NAMED, received_states};

use crate::{Store, StoreError, Tx, time::At, time::at};

/// A campaign as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Campaign {
    pub id: Uuid,
    /// The recurring campaign that this is one occurrence of.
    pub parent_id: Option<Uuid>,
    pub name: String,
    pub state: CampaignState,
    pub audience: Option<String>,
    pub expression: String,
    pub template: String,
    pub vars: Map<String, Value>,
    /// When it starts, or starts next; absent: at launch.
    pub at: Option<Timestamp>,
    pub zone: Option<String>,
    pub recurring: Option<String>,
    pub deadline: Option<Timestamp>,
    pub budget_micros: Option<i64>,
    pub control_percent: i16,
    pub created_at: Timestamp,
    pub created_by: String,
    pub launched_at: Option<Timestamp>,
    /// The expansion's position.
    pub after_contact: String,
    pub chunks: i32,
    pub planned: i64,
    pub spent_micros: i64,
    pub expanded_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}

/// What a campaign is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCampaign {
    pub id: Uuid,
    pub parent_id: Option<Uuid>,
    pub name: String,
    pub audience: Option<String>,
    pub expression: String,
    pub template: String,
    pub vars: Map<String, Value>,
    pub at: Option<Timestamp>,
    pub zone: Option<String>,
    pub recurring: Option<String>,
    pub deadline: Option<Timestamp>,
    pub budget_micros: Option<i64>,
    pub control_percent: i16,
}

/// A line of a campaign's log.
#[derive(Clone, Debug, PartialEq)]
pub struct CampaignLogLine {
    pub at: Timestamp,
    pub by: String,
    pub action: String,
    pub detail: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    #[error("no campaign has this id")]
    NotFound,
    #[error("a {state} campaign cannot be {action}")]
    Conflict { state: CampaignState, action: &'static str },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for CampaignError {
    fn from(error: sqlx::Error) -> Self {
        CampaignError::Store(error.into())
    }
}

pub(crate) const COLUMNS: &str =
    "id, parent_id, name, state, audience, expression, template, vars, at, zone, recurring, deadline,
    budget_micros, control_percent, created_at, created_by, launched_at, after_contact, chunks, planned, spent_micros,
    expanded_at, finished_at, updated_at";

impl Store {
    pub async fn campaign_get(&self, id: Uuid) -> Result<Option<Campaign>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from campaigns where id = $1"
        )))
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// The newest first; `before` continues after an earlier page's last `created_at` and id.
    pub async fn campaign_list(
        &self,
        before: Option<(Timestamp, Uuid)>,
        limit: i64,
    ) -> Result<Vec<Campaign>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from campaigns
             where $1::timestamptz is null or (created_at, id) < ($1, $2)
             order by created_at desc, id desc limit $3"
        )))
        .bind(at(before.map(|before| before.0)))
        .bind(before.map(|before| before.1))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Those that are running or paused, the newest first.
    pub async fn campaigns_sending(&self, limit: i64) -> Result<Vec<Campaign>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from campaigns where state in ('running', 'paused')
             order by created_at desc, id desc limit $1"
        )))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Who did what with a campaign, oldest first.
    pub async fn campaign_log(&self, id: Uuid) -> Result<Vec<CampaignLogLine>, StoreError> {
        let rows: Vec<(At, String, String, Option<String>)> =
            sqlx::query_as("select at, by, action, detail from campaign_log where campaign_id = $1 order by id")
                .bind(id)
                .fetch_all(&self.pool)
                .await?;
        Ok(rows
            .into_iter()
            .map(|(at, by, action, detail)| CampaignLogLine {
                at: at.0,
                by,
                action,
                detail,
            })
            .collect())
    }

    /// The campaigns whose messages must not simply go on: paused, and cancelled in the last 40 days (topics keep
    /// records for a shorter time).
    pub async fn campaigns_halted(&self) -> Result<Vec<(Uuid, CampaignState)>, StoreError> {
        let rows: Vec<(Uuid, String)> = sqlx::query_as(
            "select id, state from campaigns
             where state = 'paused' or (state = 'cancelled' and updated_at > now() - interval '40 days')",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(id, state)| Ok((id, parse_state(&state)?)))
            .collect()
    }
}

impl Tx {
    /// Makes a draft.
    pub async fn campaign_create(
        &mut self,
        new: &NewCampaign,
        by: &str,
        now: Timestamp,
    ) -> Result<Campaign, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "insert into campaigns (id, parent_id, name, state, audience, expression, template, vars, at, zone, recurring,
                 deadline, budget_micros, control_percent, created_at, created_by, updated_at)
             values ($1, $2, $3, 'draft', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $14)
             returning {COLUMNS}"
        )))
        .bind(new.id)
        .bind(new.parent_id)
        .bind(&new.name)
        .bind(&new.audience)
        .bind(&new.expression)
        .bind(&new.template)
        .bind(Value::Object(new.vars.clone()))
        .bind(at(new.at))
        .bind(&new.zone)
        .bind(&new.recurring)
        .bind(at(new.deadline))
        .bind(new.budget_micros)
        .bind(new.control_percent)
        .bind(At(now))
        .bind(by)
        .fetch_one(&mut *self.inner)
        .await?;
        let campaign = read(&row)?;
        self.campaign_note(campaign.id, by, "created", None, now).await?;
        Ok(campaign)
    }

    /// A line for the campaign's log.
    pub async fn campaign_note(
        &mut self,
        id: Uuid,
        by: &str,
        action: &str,
        detail: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query("insert into campaign_log (campaign_id, at, by, action, detail) values ($1, $2, $3, $4, $5)")
            .bind(id)
            .bind(At(now))
            .bind(by)
            .bind(action)
            .bind(detail)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}

pub(crate) fn parse_state(state: &str) -> Result<CampaignState, StoreError> {
    state
        .parse()
        .map_err(|_| StoreError::Corrupt("a campaign's state is none of ours".into()))
}

pub(crate) fn read(row: &PgRow) -> Result<Campaign, StoreError> {
    let time = |name: &str| -> Result<Option<Timestamp>, sqlx::Error> {
        Ok(row.try_get::<Option<At>, _>(name)?.map(|at| at.0))
    };
    let state: String = row.try_get("state")?;
    let vars = match row.try_get::<Value, _>("vars")? {
        Value::Object(vars) => vars,
        _ => Map::new(),
    };
    Ok(Campaign {
        id: row.try_get("id")?,
        parent_id: row.try_get("parent_id")?,
        name: row.try_get("name")?,
        state: parse_state(&state)?,
        audience: row.try_get("audience")?,
        expression: row.try_get("expression")?,
        template: row.try_get("template")?,
        vars,
        at: time("at")?,
        zone: row.try_get("zone")?,
        recurring: row.try_get("recurring")?,
        deadline: time("deadline")?,
        budget_micros: row.try_get("budget_micros")?,
        control_percent: row.try_get("control_percent")?,
        created_at: row.try_get::<At, _>("created_at")?.0,
        created_by: row.try_get("created_by")?,
        launched_at: time("launched_at")?,
        after_contact: row.try_get("after_contact")?,
        chunks: row.try_get("chunks")?,
        planned: row.try_get("planned")?,
        spent_micros: row.try_get("spent_micros")?,
        expanded_at: time("expanded_at")?,
        finished_at: time("finished_at")?,
        updated_at: row.try_get::<At, _>("updated_at")?.0,
    })
}
