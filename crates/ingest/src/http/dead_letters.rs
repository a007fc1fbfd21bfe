//! Dead letters.

use api::dead_letters::{DeadLetterInfo, Filter};
use axum::{Json as Answer, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    ADMIN, Http, READ,
    extract::{Call, Json, Params, When},
    problem::Problem,
    route::{Routes, get, post},
};

const PAGE: usize = 100;

pub(super) fn add(routes: Routes) -> Routes {
    routes
        .add(
            get(
                "/v1/dead-letters",
                READ,
                "What could not be processed, the oldest first",
            )
            .query("topic", "string", "Of this original topic alone")
            .query("stage", "string", "Of this stage alone")
            .query("pending", "boolean", "Only those that were not replayed; absent: false")
            .query("limit", "integer", "How many, up to 10,000; absent: 100")
            .gives::<DeadLettersJson>(),
            list,
        )
        .add(
            post(
                "/v1/dead-letters/replay",
                ADMIN,
                "Put dead letters back onto their topics, each once however often this is asked for",
            )
            .takes::<ReplayJson>()
            .gives::<ReplayedJson>(),
            replay,
        )
}

#[derive(Serialize, ToSchema)]
struct DeadLettersJson {
    dead_letters: Vec<DeadLetterJson>,
}

#[derive(Serialize, ToSchema)]
struct DeadLetterJson {
    id: Uuid,
    stage: String,
    topic: String,
    partition: u32,
    offset: i64,
    reason: String,
    failed_at: When,
    key: String,
    /// The record's own `ce_id` and `ce_type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    record_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_type: Option<String>,
    /// Of the record's value.
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_at: Option<When>,
}

/// Which dead letters; nothing said: all.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReplayJson {
    #[serde(default)]
    ids: Vec<Uuid>,
    /// Of this original topic alone.
    #[serde(default)]
    topic: Option<String>,
    /// Of this stage alone.
    #[serde(default)]
    stage: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct ReplayedJson {
    replayed: usize,
    /// Replayed before.
    already: usize,
    /// Their topic is none of ours.
    refused: usize,
    /// Asked for by id, and not (or no longer) there.
    missing: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    topic: Option<String>,
    stage: Option<String>,
    #[serde(default)]
    pending: bool,
    limit: Option<usize>,
}

async fn list(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<ListParams>,
) -> Result<Answer<DeadLettersJson>, Problem> {
    let filter = Filter {
        topic: params.topic,
        stage: params.stage,
        ..Filter::default()
    };
    let limit = params.limit.unwrap_or(PAGE);
    let letters = http
        .api
        .dead_letters_list(&call.caller, &filter, params.pending, limit)
        .await?;
    Ok(Answer(DeadLettersJson {
        dead_letters: letters.into_iter().map(DeadLetterJson::from).collect(),
    }))
}

async fn replay(
    call: Call,
    State(http): State<Http>,
    Json(wanted): Json<ReplayJson>,
) -> Result<Answer<ReplayedJson>, Problem> {
    let filter = Filter {
        ids: wanted.ids.into_iter().collect(),
        topic: wanted.topic,
        stage: wanted.stage,
    };
    let done = http.api.dead_letters_replay(&call.caller, &filter).await?;
    Ok(Answer(ReplayedJson {
        replayed: done.replayed,
        already: done.already,
        refused: done.refused,
        missing: done.missing,
    }))
}

impl From<DeadLetterInfo> for DeadLetterJson {
    fn from(letter: DeadLetterInfo) -> Self {
        DeadLetterJson {
            id: letter.id,
            stage: letter.stage,
            topic: letter.topic,
            partition: letter.partition,
            offset: letter.offset,
            reason: letter.reason,
            failed_at: When(letter.failed_at),
            key: letter.key,
            record_id: letter.record_id,
            record_type: letter.record_type,
            bytes: letter.bytes,
            replayed_at: letter.replayed_at.map(When),
        }
    }
}
