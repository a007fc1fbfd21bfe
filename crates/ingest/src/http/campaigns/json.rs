//! Campaigns as JSON has them.

use api::campaigns::CampaignStatus;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::{Campaign, messages::Counts};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::extract::{When, WhenToStart};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCampaignJson {
    /// 1 to 200 characters.
    pub name: String,
    /// The name of an audience, or
    #[serde(default)]
    pub audience: Option<String>,
    /// an expression of the audience language.
    #[serde(default)]
    pub r#where: Option<String>,
    /// The name of a template.
    pub template: String,
    /// For the template: `{{ campaign.NAME }}`.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub values: Map<String, Value>,
    /// When to start; absent: when it is launched. A time without an offset, such as `2026-12-24T09:00`, is in `zone`.
    #[serde(default)]
    pub at: Option<WhenToStart>,
    /// A cron pattern such as `0 9 * * MON`, in `zone`.
    #[serde(default)]
    pub recurring: Option<String>,
    /// An IANA zone such as `Indian/Reunion`.
    #[serde(default)]
    pub zone: Option<String>,
    /// Nothing is sent after it.
    #[serde(default)]
    pub deadline: Option<When>,
    /// The most it may cost, in millionths of the account's currency.
    #[serde(default)]
    pub budget_micros: Option<i64>,
    /// The share of the audience that gets nothing, to compare with: 0 to 100.
    #[serde(default)]
    pub control_percent: u32,
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct CampaignJson {
    pub id: Uuid,
    pub name: String,
    /// `draft`, `scheduled`, `running`, `paused`, `finished` or `cancelled`.
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    pub r#where: String,
    pub template: String,
    #[schema(value_type = Object)]
    pub values: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<When>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recurring: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<When>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_micros: Option<i64>,
    pub control_percent: i16,
    /// The recurring campaign that this is one occurrence of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<Uuid>,
    pub created_at: When,
    pub created_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launched_at: Option<When>,
    /// When every contact was planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expanded_at: Option<When>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<When>,
    /// Contacts planned so far.
    pub planned: i64,
    /// When it is made: what is probably a mistake in its expression.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

/// A campaign and each of its messages counted once, in its present state: `planned` is the sum of all others.
#[derive(Serialize, ToSchema)]
pub(super) struct CampaignStatusJson {
    #[serde(flatten)]
    pub campaign: CampaignJson,
    pub suppressed: i64,
    pub accepted: i64,
    pub delivered: i64,
    pub failed: i64,
    pub expired: i64,
    pub cancelled: i64,
    pub unknown: i64,
    /// On its way.
    pub pending: i64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct CampaignsJson {
    pub campaigns: Vec<CampaignJson>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct CampaignLogJson {
    pub log: Vec<CampaignLogLineJson>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct CampaignLogLineJson {
    pub at: When,
    pub by: String,
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl From<Campaign> for CampaignJson {
    fn from(campaign: Campaign) -> Self {
        CampaignJson {
            id: campaign.id,
            name: campaign.name,
            state: campaign.state.as_str(),
            audience: campaign.audience,
            r#where: campaign.expression,
            template: campaign.template,
            values: campaign.vars,
            at: campaign.at.map(When),
            recurring: campaign.recurring,
            zone: campaign.zone,
            deadline: campaign.deadline.map(When),
            budget_micros: campaign.budget_micros,
            control_percent: campaign.control_percent,
            parent_id: campaign.parent_id,
            created_at: When(campaign.created_at),
            created_by: campaign.created_by,
            launched_at: campaign.launched_at.map(When),
            expanded_at: campaign.expanded_at.map(When),
            finished_at: campaign.finished_at.map(When),
            planned: campaign.planned,
            hints: Vec::new(),
        }
    }
}

impl From<CampaignStatus> for CampaignStatusJson {
    fn from(status: CampaignStatus) -> Self {
        let Counts {
            planned,
            suppressed,
            accepted,
            delivered,
            failed,
            expired,
            cancelled,
            unknown,
            pending,
        } = status.counts;
        let mut campaign = CampaignJson::from(status.campaign);
        // Of the same moment as the others.
        campaign.planned = planned;
        CampaignStatusJson {
            campaign,
            suppressed,
            accepted,
            delivered,
            failed,
            expired,
            cancelled,
            unknown,
            pending,
        }
    }
}
