//! How a test, or a person, looks at the simulator and tells it what to do.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Script, Stats,
    core::Core,
    http::{self, CalledBack, Profile},
    page, smpp,
    text::Shown,
};

/// A request of a gateway or a script.
const MAX_BODY: usize = 1 << 20;
const MAX_PAGE: usize = 10_000;

pub(crate) fn router(core: Arc<Core>) -> Router {
    Router::new()
        .route("/", get(page::show))
        .route("/healthz", get(|| async { "ok" }))
        .route("/stats", get(stats))
        .route("/messages", get(messages))
        .route("/inbound", post(inbound))
        .route("/script", get(script).post(script_set))
        .route("/reset", post(reset))
        .merge(http::router())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(core)
}

async fn stats(State(core): State<Arc<Core>>) -> Json<Stats> {
    Json(core.stats())
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    after: u64,
    #[serde(default = "hundred")]
    limit: usize,
}

fn hundred() -> usize {
    100
}

#[derive(Serialize)]
struct Messages {
    messages: Vec<Shown>,
    /// To be given as `after` for the next page.
    next: u64,
}

async fn messages(State(core): State<Arc<Core>>, Query(page): Query<Page>) -> Json<Messages> {
    let messages = core.messages(page.after, page.limit.min(MAX_PAGE));
    let next = messages.last().map_or(page.after, |last| last.number);
    Json(Messages { messages, next })
}

/// A text that a person sends: to the receivers of `system_id` (all known ones where it is absent), or by the profile's
/// callback to `callback`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reply {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) system_id: Option<String>,
    #[serde(default)]
    pub(crate) profile: Option<Profile>,
    #[serde(default)]
    pub(crate) callback: Option<String>,
}

async fn inbound(State(core): State<Arc<Core>>, Json(reply): Json<Reply>) -> Response {
    if let Some(profile) = reply.profile {
        let Some(url) = reply.callback.or_else(|| core.script().callback_url.clone()) else {
            return wrong(
                StatusCode::BAD_REQUEST,
                "expected `callback`, or `callback_url` in the script",
            );
        };
        let client = http::client();
        return match http::reply(&client, profile, &url, &reply.from, &reply.to, &reply.text).await {
            CalledBack::Kept => {
                core.waiting(1);
                core.acknowledged(0, 1);
                Json(json!({ "receivers": 1 })).into_response()
            }
            _ => wrong(StatusCode::BAD_GATEWAY, "the callback was not answered well"),
        };
    }
    let mailboxes = core.mailboxes(reply.system_id.as_deref());
    if mailboxes.is_empty() {
        return wrong(StatusCode::CONFLICT, "nobody has bound yet: expected `system_id`");
    }
    for mailbox in &mailboxes {
        let deliveries = smpp::reply(&reply.from, &reply.to, &reply.text);
        core.waiting(deliveries.len() as u64);
        mailbox.put(deliveries);
    }
    Json(json!({ "receivers": mailboxes.len() })).into_response()
}

async fn script(State(core): State<Arc<Core>>) -> Json<Script> {
    Json(core.script().as_ref().clone())
}

async fn script_set(State(core): State<Arc<Core>>, body: String) -> Response {
    match Script::parse(&body) {
        Ok(script) => {
            core.script_set(script.clone());
            Json(script).into_response()
        }
        Err(error) => wrong(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

async fn reset(State(core): State<Arc<Core>>) -> Json<Stats> {
    core.reset();
    Json(core.stats())
}

fn wrong(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}
