//! Publishing events: one, a batch, or NDJSON of any length.

use api::events::{ItemError, NewEvent};
use axum::{
    extract::{Request, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    EVENTS, Http,
    extract::{Call, EXPECTED_TIME, When, check_media, json_error, media_type, read_body},
    lines::{Line, Lines, MAX_LINE_BYTES},
    problem::Problem,
    route::{Routes, post, schema_of},
};

/// Lines that go onto the bus together.
const BATCH_LINES: usize = 1_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Mistakes that are told; the others are counted.
const MAX_ERRORS: usize = 1_000;

pub(super) fn add(routes: Routes) -> Routes {
    routes.add(
        post(
            "/v1/events",
            EVENTS,
            "Publish events: one, `{\"events\": […]}`, a list, or NDJSON; answered when all are durable",
        )
        .takes::<EventJson>()
        .takes_media("application/x-ndjson", Some(schema_of::<EventJson>))
        .gives::<Published>(),
        publish,
    )
}

/// Something that a customer did. (`source`, `id`) is its identity: publishing it again is harmless.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EventJson<'a> {
    /// 1 to 200 characters.
    #[serde(default)]
    id: String,
    /// Which system says so, for example `shop`.
    #[serde(default)]
    source: String,
    /// For example `order.placed`.
    #[serde(default)]
    r#type: String,
    /// The internal system's id of the customer.
    #[serde(default)]
    contact_id: String,
    /// When it happened; absent: now.
    #[serde(default)]
    time: Option<When>,
    /// Anything else about it, up to 256 KiB.
    #[serde(default, borrow)]
    #[schema(value_type = Option<Object>)]
    data: Option<&'a RawValue>,
}

#[derive(Serialize, Default, ToSchema)]
struct Published {
    accepted: usize,
    rejected: usize,
    /// What was wrong with those that were rejected, up to 1,000 of them.
    errors: Vec<Rejected>,
    /// How many mistakes are not told.
    #[serde(skip_serializing_if = "is_zero")]
    errors_left_out: usize,
}

#[derive(Serialize, ToSchema)]
struct Rejected {
    /// Which one, counted from 1: of the batch, or the line.
    item: usize,
    code: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    field: &'static str,
    message: String,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

async fn publish(call: Call, State(http): State<Http>, request: Request) -> Result<axum::Json<Published>, Problem> {
    match media_type(request.headers()).as_str() {
        "application/x-ndjson" | "application/jsonl" | "application/x-jsonlines" => {
            publish_lines(&call, &http, request).await
        }
        _ => {
            let bytes = read_body(request).await?;
            let items = batch(&bytes)?;
            let mut published = Published::default();
            let items = items.iter().map(|item| read(item.get().as_bytes())).collect();
            published.publish(&call, &http, items, 1).await?;
            Ok(axum::Json(published))
        }
    }
}

/// The items of a JSON body: of a list, of `events`, or the one that it is.
fn batch(bytes: &[u8]) -> Result<Vec<&RawValue>, Problem> {
    #[derive(Deserialize)]
    struct Probe<'a> {
        #[serde(borrow)]
        events: Option<Vec<&'a RawValue>>,
    }
    let wrong = |error: serde_json::Error| Problem::new(StatusCode::BAD_REQUEST, json_error(&error));
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'[') {
        return serde_json::from_slice(bytes).map_err(wrong);
    }
    let probe: Probe<'_> = serde_json::from_slice(bytes).map_err(wrong)?;
    match probe.events {
        Some(events) => Ok(events),
        None => Ok(vec![serde_json::from_slice(bytes).map_err(wrong)?]),
    }
}

async fn publish_lines(call: &Call, http: &Http, request: Request) -> Result<axum::Json<Published>, Problem> {
    check_media(request.headers())?;
    // Refused at once, not after the first lines.
    http.api.events_check(&call.caller, Vec::new(), None)?;
    let mut lines = Lines::new(request.into_body());
    let mut published = Published::default();
    let (mut items, mut bytes, mut number, mut first) = (Vec::new(), 0, 0, 1);
    while let Some(read_lines) = lines.next().await? {
        for line in read_lines {
            number += 1;
            match line {
                Line::Bytes(line) if line.iter().all(u8::is_ascii_whitespace) => {
                    // An empty line is none; those behind it keep their numbers.
                    published.publish(call, http, std::mem::take(&mut items), first).await?;
                    (bytes, first) = (0, number + 1);
                    continue;
                }
                Line::Bytes(line) => {
                    bytes += line.len();
                    items.push(read(&line));
                }
                Line::TooLong => items.push(Err(ItemError::new(
                    "too_large",
                    "",
                    format!("the line is too long: expected up to {MAX_LINE_BYTES} bytes"),
                ))),
            }
            if items.len() == BATCH_LINES || bytes >= BATCH_BYTES {
                published.publish(call, http, std::mem::take(&mut items), first).await?;
                (bytes, first) = (0, number + 1);
            }
        }
    }
    published.publish(call, http, items, first).await?;
    Ok(axum::Json(published))
}

impl Published {
    /// Publishes items, the first of which is number `first`.
    async fn publish(
        &mut self,
        call: &Call,
        http: &Http,
        items: Vec<Result<NewEvent, ItemError>>,
        first: usize,
    ) -> Result<(), Problem> {
        if items.is_empty() {
            return Ok(());
        }
        let results = http
            .api
            .events_publish(&call.caller, items, call.trace.as_deref())
            .await?;
        for (at, result) in results.into_iter().enumerate() {
            let Err(error) = result else {
                self.accepted += 1;
                continue;
            };
            self.rejected += 1;
            if self.errors.len() == MAX_ERRORS {
                self.errors_left_out += 1;
                continue;
            }
            self.errors.push(Rejected {
                item: first + at,
                code: error.code,
                field: error.field,
                message: error.message,
            });
        }
        Ok(())
    }
}

fn read(json: &[u8]) -> Result<NewEvent, ItemError> {
    let event: EventJson<'_> = serde_json::from_slice(json).map_err(|error| {
        let message = json_error(&error);
        match message.ends_with(EXPECTED_TIME) {
            true => ItemError::new("out_of_range", "time", message),
            false => ItemError::new("bad_value", "", message),
        }
    })?;
    let data = match event.data.map(RawValue::get) {
        None | Some("null") => Vec::new(),
        Some(data) if data.starts_with('{') => data.as_bytes().to_vec(),
        Some(_) => {
            return Err(ItemError::new("bad_value", "data", "expected an object `{…}`"));
        }
    };
    Ok(NewEvent {
        id: event.id,
        source: event.source,
        kind: event.r#type,
        contact_id: event.contact_id,
        time: event.time.map(|time| time.0),
        data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_list_and_a_batch_are_all_read() {
        let count = |json: &str| batch(json.as_bytes()).map(|items| items.len()).ok();
        assert_eq!(count(r#"{"id": "1"}"#), Some(1));
        assert_eq!(count(r#" [{"id": "1"}, 5]"#), Some(2));
        assert_eq!(count(r#"{"events": [{"id": "1"}, {}, {}]}"#), Some(3));
        assert_eq!(count("{"), None);
        assert_eq!(count(""), None);
    }

    #[test]
    fn each_items_mistake_is_its_own() {
        let told = |json: &str| read(json.as_bytes()).map_err(|error| (error.code, error.field)).err();
        assert_eq!(told(r#"{"id": "1", "data": {"a": 1}}"#), None);
        assert_eq!(told(r#"{"id": "1", "data": [1]}"#), Some(("bad_value", "data")));
        assert_eq!(
            told(r#"{"id": "1", "time": "9999-12-31T23:59:59Z"}"#),
            Some(("out_of_range", "time"))
        );
        assert_eq!(told(r#"{"id": 1}"#), Some(("bad_value", "")));
        assert_eq!(told(r#"{"contactid": "1"}"#), Some(("bad_value", "")));
        assert_eq!(
            read(br#"{"id": "1", "data": null}"#).map(|event| event.data),
            Ok(Vec::new())
        );
    }
}
