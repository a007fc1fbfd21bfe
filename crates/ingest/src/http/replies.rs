//! Replies that wait for a person's decision.

use api::replies::Meaning;
use axum::{Json as Answer, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    CAMPAIGNS, Http,
    extract::{Call, Json, Params, Segments, When, id},
    problem::Problem,
    route::{Routes, get, post},
};

const PAGE: i64 = 100;

pub(super) fn add(routes: Routes) -> Routes {
    routes
        .add(
            get(
                "/v1/replies/to-review",
                CAMPAIGNS,
                "Replies that may mean STOP and are no keyword, the oldest first: a person decides",
            )
            .query("limit", "integer", "How many, up to 1,000; absent: 100")
            .gives::<RepliesJson>(),
            list,
        )
        .add(
            post(
                "/v1/replies/{id}/decide",
                CAMPAIGNS,
                "Say what such a reply means; its text is gone with it",
            )
            .takes::<DecisionJson>(),
            decide,
        )
}

#[derive(Serialize, ToSchema)]
struct RepliesJson {
    replies: Vec<ReplyJson>,
}

#[derive(Serialize, ToSchema)]
struct ReplyJson {
    id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact_id: Option<String>,
    gateway: String,
    received_at: When,
    text: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DecisionJson {
    /// `stop`: no marketing to this phone any more; `nothing`: it means nothing.
    meaning: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    limit: Option<i64>,
}

async fn list(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<ListParams>,
) -> Result<Answer<RepliesJson>, Problem> {
    let limit = params.limit.unwrap_or(PAGE);
    let replies = http.api.replies_to_review(&call.caller, limit).await?;
    let replies = replies
        .into_iter()
        .map(|reply| ReplyJson {
            id: reply.id,
            contact_id: reply.contact_id,
            gateway: reply.gateway,
            received_at: When(reply.received_at),
            text: reply.text,
        })
        .collect();
    Ok(Answer(RepliesJson { replies }))
}

async fn decide(
    call: Call,
    State(http): State<Http>,
    Segments(text): Segments<String>,
    Json(decision): Json<DecisionJson>,
) -> Result<StatusCode, Problem> {
    let meaning = match decision.meaning.as_str() {
        "stop" => Meaning::Stop,
        "nothing" => Meaning::Nothing,
        _ => return Err(api::ApiError::invalid("meaning", "expected stop or nothing").into()),
    };
    http.api.reply_decide(&call.caller, id(&text)?, meaning).await?;
    Ok(StatusCode::NO_CONTENT)
}
