//! The HTTP gateways: each answers in the shape of a provider that people know, one in that which listmonk expects.

mod callback;
mod profiles;

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use domain::sms;
use uuid::Uuid;

pub(crate) use callback::{CalledBack, call_back, client, reply};
use profiles::Wanted;

use crate::core::{Arrival, Client, Core, Verdict};

/// A provider's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    Twilio,
    Vonage,
    Ovh,
    Kannel,
    /// What listmonk's HTTP messenger posts: no provider's, but a peer that tamtam is measured against.
    Listmonk,
}

pub(crate) fn router() -> Router<Arc<Core>> {
    Router::new()
        .route(
            "/twilio/{*path}",
            post(|state, query, headers, body| submit(Profile::Twilio, state, query, headers, body)),
        )
        .route(
            "/vonage/{*path}",
            post(|state, query, headers, body| submit(Profile::Vonage, state, query, headers, body)),
        )
        .route(
            "/ovh/{*path}",
            post(|state, query, headers, body| submit(Profile::Ovh, state, query, headers, body)),
        )
        .route(
            "/kannel/{*path}",
            get(|state, query, headers, body| submit(Profile::Kannel, state, query, headers, body)),
        )
        .route(
            "/listmonk/{*path}",
            post(|state, query, headers, body| submit(Profile::Listmonk, state, query, headers, body)),
        )
}

async fn submit(
    profile: Profile,
    State(core): State<Arc<Core>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query = query.unwrap_or_default();
    let Some(wanted) = profile.read(&query, &body) else {
        return profile.malformed();
    };
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    let reference = wanted
        .reference
        .or_else(|| key.and_then(|key| Uuid::parse_str(key).ok()))
        .or_else(|| wanted.callback.as_deref().and_then(reference_in));
    let Wanted {
        from,
        to,
        text,
        callback,
        ..
    } = wanted;
    let callback = callback.or_else(|| core.script().callback_url.clone());
    let counts = u32::from(sms::measure(&text).parts);
    let verdict = core.take(Arrival {
        wants_receipt: callback.is_some(),
        client: Client::Http { profile, callback },
        reference,
        from,
        to,
        text,
        concat: 0,
        part: 1,
        total: 1,
        counts,
        ids: profile.ids(counts),
        validity: None,
    });
    match verdict {
        Verdict::Taken { ids, after } => {
            // A timer of no length lasts a millisecond or two, in which a client with few connections sends nothing.
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            profile.taken(&ids)
        }
        Verdict::Ambiguous => (StatusCode::INTERNAL_SERVER_ERROR, "something went wrong").into_response(),
        // The client's patience ends it.
        Verdict::Silent => std::future::pending().await,
        Verdict::Cut => {
            let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
            (StatusCode::OK, Body::from_stream(broken)).into_response()
        }
        Verdict::Half { ids } => half(profile.taken(&ids)).await,
        Verdict::Garbage => (
            StatusCode::OK,
            [(CONTENT_TYPE, "application/octet-stream")],
            &b"\xff\xfe\0garbage"[..],
        )
            .into_response(),
        Verdict::Throttled => profile.throttled(),
        Verdict::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy").into_response(),
        Verdict::Refused => profile.refused(),
    }
}

/// An answer whose connection breaks in the middle of its body.
async fn half(answer: Response) -> Response {
    let (head, body) = answer.into_parts();
    let whole = to_bytes(body, 1 << 16).await.unwrap_or_default();
    let first = whole.slice(..whole.len() / 2);
    let broken = futures::stream::iter([Ok(first), Err(std::io::Error::other("cut"))]);
    Response::from_parts(head, Body::from_stream(broken))
}

/// The client reference, where only the callback's address carries it.
fn reference_in(callback: &str) -> Option<Uuid> {
    let url = url::Url::parse(callback).ok()?;
    let (_, value) = url.query_pairs().find(|(name, _)| name == "reference")?;
    Uuid::parse_str(&value).ok()
}
