//! Topics: which there are, and reading one.

use api::{
    ApiError,
    topics::{From as Begin, Tail, TailLine, topic_by_name},
};
use axum::{
    Json as Answer,
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use events::Topic;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Http, READ,
    extract::{Call, Params, Segments, When},
    problem::{Problem, ProblemJson},
    route::{Routes, get, schema_of},
};

pub(super) fn add(routes: Routes) -> Routes {
    routes
        .add(
            get(
                "/v1/topics",
                READ,
                "The topics: what each holds, from whom and for whom",
            )
            .gives::<TopicsJson>(),
            list,
        )
        .add(
            get(
                "/v1/topics/{name}/records",
                READ,
                "Read a topic as NDJSON, a line a record; a last line `{\"error\": …}` tells of a failure",
            )
            .query("from", "string", "`start` or `end`; absent: `start`")
            .query("follow", "boolean", "Go on with what comes; absent: false")
            .query("reveal", "boolean", "Show phones and texts; for admins; absent: false")
            .gives_media("application/x-ndjson", Some(schema_of::<RecordJson>)),
            records,
        )
}

#[derive(Serialize, ToSchema)]
struct TopicsJson {
    topics: Vec<TopicJson>,
}

#[derive(Serialize, ToSchema)]
struct TopicJson {
    name: &'static str,
    holds: &'static str,
    key: &'static str,
    from: &'static str,
    to: &'static str,
    /// `ce_type` of its records.
    schema: &'static str,
}

/// A record of a topic.
#[derive(Serialize, ToSchema)]
struct RecordJson {
    /// `ce_id`.
    id: String,
    /// `ce_type`.
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<When>,
    key: String,
    partition: u32,
    offset: i64,
    /// null where the value is no JSON.
    #[schema(value_type = Object)]
    data: Value,
}

#[derive(Serialize)]
struct ErrorLine {
    error: ProblemJson,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordsParams {
    from: Option<String>,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    reveal: bool,
}

async fn list(_: Call) -> Answer<TopicsJson> {
    let topics = Topic::ALL.map(|topic| {
        let spec = topic.spec();
        TopicJson {
            name: spec.name,
            holds: spec.holds,
            key: spec.key,
            from: spec.producers,
            to: spec.consumers,
            schema: spec.schema,
        }
    });
    Answer(TopicsJson { topics: topics.into() })
}

async fn records(
    call: Call,
    State(http): State<Http>,
    Segments(name): Segments<String>,
    Params(params): Params<RecordsParams>,
) -> Result<Response, Problem> {
    let from = params.from.map_or(Ok(Begin::Start), |word| word.parse())?;
    let tail = Tail {
        topic: topic_by_name(&name)?,
        from,
        follow: params.follow,
        reveal: params.reveal,
    };
    let permit = http.stream_permit()?;
    let records = http.api.topic_tail(&call.caller, tail).await?;
    let lines = records.map(move |record| {
        // The place is taken for as long as the stream lives.
        let _ = &permit;
        Ok::<_, std::convert::Infallible>(line(record))
    });
    let media = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((media, Body::from_stream(lines)).into_response())
}

fn line(record: Result<TailLine, ApiError>) -> Bytes {
    // Plain data: there is nothing in it that JSON could not hold.
    let mut line = match record {
        Ok(record) => serde_json::to_vec(&RecordJson {
            id: record.id,
            r#type: record.kind,
            time: record.time.map(When),
            key: record.key,
            partition: record.partition,
            offset: record.offset,
            data: record.data,
        }),
        Err(error) => serde_json::to_vec(&ErrorLine {
            error: Problem::from(error).body(),
        }),
    }
    .unwrap_or_default();
    line.push(b'\n');
    line.into()
}
