//! Reading requests: each mistake becomes a problem that says what was expected, and none repeats what was sent.

use std::time::Duration;

use api::{ApiError, Caller, campaigns::Start};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use futures::StreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, schema::Type},
};
use uuid::Uuid;

use super::problem::Problem;
use crate::{MAX_MESSAGE_BYTES, guard::Trace};

/// How long the next piece of a body may take: a caller that sends nothing holds no place.
pub(crate) const BODY_WAIT: Duration = Duration::from_secs(30);

/// Who calls, as the layer in front found it, and the call's `traceparent`.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub caller: Caller,
    pub trace: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        // The layer stands before every route; without it nothing is served.
        let caller = caller.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "no API key"))?;
        let trace = parts.extensions.get::<Trace>().and_then(|trace| trace.0.clone());
        Ok(Call { caller, trace })
    }
}

/// A body of JSON.
#[derive(Debug)]
pub(crate) struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let bytes = read_body(request).await?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Json(value)),
            Err(error) => Err(Problem::new(StatusCode::BAD_REQUEST, json_error(&error))),
        }
    }
}

/// A body of text.
#[derive(Debug)]
pub(crate) struct Text(pub String);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let bytes = read_body(request).await?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Text(text)),
            Err(_) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "the body is no UTF-8: expected UTF-8",
            )),
        }
    }
}

/// The query's parameters.
#[derive(Debug)]
pub(crate) struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Params(value)),
            Err(rejection) => {
                let text = rejection.body_text();
                let reason = text.rsplit_once(": ").map_or(text.as_str(), |(_, reason)| reason);
                Err(Problem::new(
                    StatusCode::BAD_REQUEST,
                    format!("the query's parameters: {reason}"),
                ))
            }
        }
    }
}

/// The path's parameters.
#[derive(Debug)]
pub(crate) struct Segments<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Segments(value)),
            Err(_) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "the path is no UTF-8: expected UTF-8",
            )),
        }
    }
}

/// An id of ours in a path.
pub(crate) fn id(text: &str) -> Result<Uuid, Problem> {
    text.parse()
        .map_err(|_| ApiError::invalid("id", "expected a UUID such as `3f0c2a52-9c1e-8a4b-b1a7-5d2f7c9e1a10`").into())
}

/// An instant in JSON and in queries; its mistake says what was expected and does not repeat what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct When(pub Timestamp);

pub(crate) const EXPECTED_TIME: &str = "expected a time with its offset such as 2026-06-01T10:00:00Z (RFC 3339)";

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse()
            .map(When)
            .map_err(|_| serde::de::Error::custom(EXPECTED_TIME))
    }
}

impl PartialSchema for When {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .into()
    }
}

impl ToSchema for When {
    fn name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }
}

/// As [`When`], or a local time of the zone that is named beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct WhenToStart(pub Start);

const EXPECTED_START: &str = "expected a time such as 2026-12-24T09:00:00+04:00 (RFC 3339), or a local one such as 2026-12-24T09:00 with its zone";

impl<'de> Deserialize<'de> for WhenToStart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Start::parse(&text)
            .map(WhenToStart)
            .ok_or_else(|| serde::de::Error::custom(EXPECTED_START))
    }
}

impl PartialSchema for WhenToStart {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).into()
    }
}

impl ToSchema for WhenToStart {
    fn name() -> std::borrow::Cow<'static, str> {
        "Start".into()
    }
}

/// What was wrong with JSON, without a value of it: serde's own message repeats the text that it did not expect.
pub(crate) fn json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&place).unwrap_or(&text);
    let repeats = ["invalid type", "invalid value", "unknown variant", "invalid length"]
        .iter()
        .any(|start| text.starts_with(start));
    let said = match text.rsplit_once("expected ") {
        Some((_, expected)) if repeats => format!("expected {expected}"),
        _ => text.to_owned(),
    };
    let kind = match error.classify() {
        serde_json::error::Category::Data => "unexpected JSON",
        _ => "malformed JSON",
    };
    match error.line() {
        0 => format!("{kind}: {said}"),
        _ => format!("{kind}{place}: {said}"),
    }
}

/// The media type without its parameters, in lower case; empty where none is said.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|value| value.trim().to_ascii_lowercase())
        .unwrap_or_default()
}

/// Refuses what a page elsewhere can make a browser send without asking first (Fetch standard, "CORS-safelisted
/// request-header"): someone who is signed in with a cookie must not be made to send by another site.
pub(crate) fn check_media(headers: &HeaderMap) -> Result<(), Problem> {
    match media_type(headers).as_str() {
        "application/x-www-form-urlencoded" | "multipart/form-data" | "text/plain" => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "this content type is not read: expected application/json, application/x-ndjson, text/csv or application/toml",
        )),
        _ => Ok(()),
    }
}

/// The whole body, within the limit.
pub(crate) async fn read_body(request: Request) -> Result<Vec<u8>, Problem> {
    check_media(request.headers())?;
    let mut pieces = Pieces::new(request.into_body());
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await? {
        if whole.len() + piece.len() > MAX_MESSAGE_BYTES {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("expected a body of up to {MAX_MESSAGE_BYTES} bytes"),
            ));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

/// A body piece by piece, each within [`BODY_WAIT`].
#[derive(Debug)]
pub(crate) struct Pieces(axum::body::BodyDataStream);

impl Pieces {
    pub(crate) fn new(body: Body) -> Pieces {
        Pieces(body.into_data_stream())
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        match tokio::time::timeout(BODY_WAIT, self.0.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(Some(Err(_))) => Err(Problem::new(StatusCode::BAD_REQUEST, "the body broke off")),
            Err(_) => Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                format!(
                    "nothing came for {} s: expected the rest of the body",
                    BODY_WAIT.as_secs()
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Body {
        count: u32,
        #[serde(default)]
        at: Option<When>,
    }

    #[test]
    fn a_mistake_is_told_without_the_value() {
        let told = |json: &str| json_error(&serde_json::from_str::<Body>(json).unwrap_err());
        let wrong_type = told(r#"{"count": "+262692000001"}"#);
        assert!(
            wrong_type.contains("expected u32") && !wrong_type.contains("262"),
            "{wrong_type}"
        );
        let wrong_time = told(r#"{"count": 1, "at": "+262692000001"}"#);
        assert!(
            wrong_time.contains("RFC 3339") && !wrong_time.contains("262"),
            "{wrong_time}"
        );
        assert!(told(r#"{"count": 1, "cuont": 2}"#).contains("unknown field `cuont`"));
        assert!(told("{").starts_with("malformed JSON at line 1"));
    }
}
