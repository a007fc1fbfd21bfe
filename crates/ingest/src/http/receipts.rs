//! Receipts that found no message.

use axum::{Json as Answer, extract::State};
use serde::{Deserialize, Serialize};
use store::unmatched::Unmatched;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Http, READERS,
    extract::{Call, Params, When},
    problem::Problem,
    route::{Routes, get},
};

const PAGE: i64 = 100;

pub(super) fn add(routes: Routes) -> Routes {
    routes.add(
        get(
            "/v1/receipts/unmatched",
            READERS,
            "What gateways reported and no message was found for, the newest first; kept for 31 days",
        )
        .query("since", "date-time", "Received from then on")
        .query("gateway", "string", "Of this gateway alone")
        .query("limit", "integer", "How many, up to 1,000; absent: 100")
        .gives::<UnmatchedListJson>(),
        unmatched,
    )
}

#[derive(Serialize, ToSchema)]
struct UnmatchedListJson {
    receipts: Vec<UnmatchedJson>,
}

#[derive(Serialize, ToSchema)]
struct UnmatchedJson {
    gateway: String,
    /// The gateway's id, as it said it.
    remote_id: String,
    /// Absent: a word that tamtam does not know; it is in `code`.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// The gateway's own code, as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    received_at: When,
    /// The message that it refers to, where the gateway repeated its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<Uuid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnmatchedParams {
    since: Option<When>,
    gateway: Option<String>,
    limit: Option<i64>,
}

async fn unmatched(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<UnmatchedParams>,
) -> Result<Answer<UnmatchedListJson>, Problem> {
    let since = params.since.map(|since| since.0);
    let limit = params.limit.unwrap_or(PAGE);
    let receipts = http
        .api
        .receipts_unmatched(&call.caller, since, params.gateway.as_deref(), limit)
        .await?;
    Ok(Answer(UnmatchedListJson {
        receipts: receipts.into_iter().map(UnmatchedJson::from).collect(),
    }))
}

impl From<Unmatched> for UnmatchedJson {
    fn from(receipt: Unmatched) -> Self {
        UnmatchedJson {
            gateway: receipt.gateway,
            remote_id: receipt.remote_id,
            state: receipt.state.map(|state| state.as_str()),
            code: receipt.code,
            received_at: When(receipt.received_at),
            message_id: receipt.reference,
        }
    }
}
