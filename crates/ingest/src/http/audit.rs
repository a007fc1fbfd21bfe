//! The conservation check.

use api::audit::AUDIT_LIMIT;
use axum::{Json as Answer, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Http, READERS,
    extract::{Call, Params, When},
    problem::Problem,
    route::{Routes, get},
};

pub(super) fn add(routes: Routes) -> Routes {
    routes.add(
        get(
            "/v1/audit",
            READERS,
            "Compare what campaigns and events planned with what became of it; 0 violations is good",
        )
        .query("since", "date-time", "Planned from then on")
        .query("until", "date-time", "Planned before")
        .query(
            "limit",
            "integer",
            "How many violations of each kind to tell, up to 10,000; absent: 100",
        )
        .gives::<AuditJson>(),
        audit,
    )
}

#[derive(Serialize, ToSchema)]
struct AuditJson {
    violations: i64,
    /// Campaigns, events and messages that were looked at.
    checked: i64,
    /// Messages that are planned and still on their way.
    pending: i64,
    /// The violations of each kind, up to `limit`.
    examples: Vec<ViolationJson>,
}

#[derive(Serialize, ToSchema)]
struct ViolationJson {
    kind: &'static str,
    /// Of the message, the event or the campaign.
    id: String,
    detail: String,
    /// Of a campaign: the messages concerned, up to `limit`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    messages: Vec<String>,
    /// Those that were planned and have no message, up to `limit`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contacts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditParams {
    since: Option<When>,
    until: Option<When>,
    limit: Option<i64>,
}

async fn audit(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<AuditParams>,
) -> Result<Answer<AuditJson>, Problem> {
    let (since, until) = (params.since.map(|time| time.0), params.until.map(|time| time.0));
    let limit = params.limit.unwrap_or(AUDIT_LIMIT);
    let audit = http.api.audit(&call.caller, since, until, limit).await?;
    Ok(Answer(AuditJson {
        violations: audit.violations,
        checked: audit.checked,
        pending: audit.pending,
        examples: audit
            .examples
            .into_iter()
            .map(|violation| ViolationJson {
                kind: violation.kind,
                id: violation.id,
                detail: violation.detail,
                messages: violation.messages,
                contacts: violation.contacts,
            })
            .collect(),
    }))
}
