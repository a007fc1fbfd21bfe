//! Reports.

use std::collections::BTreeMap;

use api::reports::{ReportAnswer, ReportRequest, by};
use axum::{Json as Answer, extract::State};
use domain::report::{Conversions, Figures, Group, Share};
use serde::{Deserialize, Serialize};
use store::reports::Scope;
use utoipa::ToSchema;

use super::{
    Http, READERS,
    extract::{Call, Params, When, id},
    problem::Problem,
    route::{Routes, get},
};

/// Days of a conversion where the caller names none.
const WITHIN_DAYS: i64 = 7;

pub(super) fn add(routes: Routes) -> Routes {
    routes.add(
        get(
            "/v1/reports",
            READERS,
            "What became of messages by campaign, trigger, gateway and day, and how many converted against the control group",
        )
        .query("by", "string", "campaign, trigger, gateway, day, with commas between; absent: one row of all")
        .query("campaign", "uuid", "Of this campaign alone")
        .query("trigger", "string", "Of this trigger alone")
        .query("since", "date-time", "Planned from then on")
        .query("until", "date-time", "Planned before")
        .query("conversions", "string", "Count who did an event of this type, by campaign and trigger")
        .query("within", "integer", "Days after being planned in which it counts; absent: 7")
        .query("source", "string", "`ledger` (live) or `topics` (made from the records alone); absent: `ledger`")
        .gives::<ReportJson>(),
        report,
    )
}

#[derive(Serialize, ToSchema)]
struct ReportJson {
    rows: Vec<RowJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conversions: Vec<ConversionsJson>,
}

/// Each message is counted once, in its present state.
#[derive(Serialize, ToSchema)]
struct RowJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    /// In UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    planned: i64,
    suppressed: i64,
    suppressed_by: BTreeMap<String, i64>,
    accepted: i64,
    delivered: i64,
    failed: i64,
    /// By the gateway's code, as it came; by our reason where there is none.
    failed_by: BTreeMap<String, i64>,
    expired: i64,
    cancelled: i64,
    unknown: i64,
    pending: i64,
    parts: i64,
    /// Millionths of the account's currency.
    cost_micros: i64,
    clicks: i64,
    replies: i64,
    stops: i64,
}

/// Everybody that was planned, whatever became of their message, against the control group.
#[derive(Serialize, ToSchema)]
struct ConversionsJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger: Option<String>,
    planned: ShareJson,
    control: ShareJson,
    /// Rate of the planned less that of the control group; null where one of them is empty.
    difference: Option<f64>,
    /// The 95 % confidence interval of the difference (Newcombe, 1998, method 10).
    low: Option<f64>,
    high: Option<f64>,
}

#[derive(Serialize, ToSchema)]
struct ShareJson {
    of: i64,
    converted: i64,
    rate: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportParams {
    by: Option<String>,
    campaign: Option<String>,
    trigger: Option<String>,
    since: Option<When>,
    until: Option<When>,
    conversions: Option<String>,
    within: Option<i64>,
    source: Option<String>,
}

async fn report(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<ReportParams>,
) -> Result<Answer<ReportJson>, Problem> {
    let request = ReportRequest {
        by: by(params.by.as_deref().unwrap_or_default())?,
        scope: Scope {
            since: params.since.map(|time| time.0),
            until: params.until.map(|time| time.0),
            campaign: params.campaign.as_deref().map(id).transpose()?,
            trigger: params.trigger,
        },
        source: match params.source {
            Some(word) => word.parse()?,
            None => api::reports::Source::default(),
        },
        conversions: params
            .conversions
            .map(|kind| (kind, params.within.unwrap_or(WITHIN_DAYS))),
    };
    let ReportAnswer { report, conversions } = http.api.report(&call.caller, &request).await?;
    Ok(Answer(ReportJson {
        rows: report
            .rows
            .into_iter()
            .map(|(group, figures)| row(group, figures))
            .collect(),
        conversions: conversions
            .into_iter()
            .map(|(group, found)| conversion(group, found))
            .collect(),
    }))
}

fn row(group: Group, figures: Figures) -> RowJson {
    RowJson {
        campaign: group.campaign,
        trigger: group.trigger,
        gateway: group.gateway,
        day: group.day.map(|day| day.to_string()),
        planned: figures.planned,
        suppressed: figures.suppressed.values().sum(),
        suppressed_by: figures.suppressed,
        accepted: figures.accepted,
        delivered: figures.delivered,
        failed: figures.failed.values().sum(),
        failed_by: figures.failed,
        expired: figures.expired,
        cancelled: figures.cancelled,
        unknown: figures.unknown,
        pending: figures.pending,
        parts: figures.parts,
        cost_micros: figures.cost_micros,
        clicks: figures.clicks,
        replies: figures.replies,
        stops: figures.stops,
    }
}

fn conversion(group: Group, found: Conversions) -> ConversionsJson {
    let share = |share: Share| ShareJson {
        of: share.of,
        converted: share.converted,
        rate: share.rate(),
    };
    let above = found.planned.above(found.control);
    ConversionsJson {
        campaign: group.campaign,
        trigger: group.trigger,
        planned: share(found.planned),
        control: share(found.control),
        difference: above.map(|above| above.difference),
        low: above.map(|above| above.low),
        high: above.map(|above| above.high),
    }
}
