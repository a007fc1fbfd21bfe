//! The suppression list.

use api::{ApiError, suppressions::Done};
use axum::{Json as Answer, extract::State};
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::suppressions::{Scope, Suppression};
use utoipa::ToSchema;

use super::{
    ADMIN, Http, READERS, WRITERS,
    extract::{Call, Json, Params, When},
    problem::Problem,
    route::{Routes, delete, get, post},
};

const PATH: &str = "/v1/suppressions";
const PAGE: i64 = 100;

pub(super) fn add(routes: Routes) -> Routes {
    routes
        .add(
            post(
                PATH,
                WRITERS,
                "Shut phones off, from marketing or from everything; kept as keyed hashes",
            )
            .takes::<SuppressJson>()
            .gives::<SuppressedJson>(),
            enter,
        )
        .add(
            delete(
                PATH,
                ADMIN,
                "Let phones be written to again; a STOP that lay under a block stays until it is lifted too",
            )
            .takes::<UnsuppressJson>()
            .gives::<SuppressedJson>(),
            lift,
        )
        .add(
            get(
                PATH,
                READERS,
                "The phones that are shut off, as keyed hashes, the newest first",
            )
            .query("limit", "integer", "How many, up to 1,000; absent: 100")
            .query("after", "string", "`next` of the page before; absent: the first page")
            .gives::<SuppressionsJson>(),
            list,
        )
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SuppressJson {
    /// Up to 10,000, in E.164, or national with a region.
    phones: Vec<String>,
    /// `marketing` (as STOP does), or `all`: nothing is sent to it, transactional messages neither.
    #[serde(default = "marketing")]
    scope: String,
    /// What national numbers belong to, as ISO 3166-1, for example `RE`.
    #[serde(default)]
    region: Option<String>,
    /// Where they are from, such as the name of a list; absent: `api`.
    #[serde(default)]
    source: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UnsuppressJson {
    /// Up to 10,000, in E.164, or national with a region.
    phones: Vec<String>,
    /// `marketing`: what STOP did; `all`: a block.
    #[serde(default = "marketing")]
    scope: String,
    /// What national numbers belong to, as ISO 3166-1, for example `RE`.
    #[serde(default)]
    region: Option<String>,
}

fn marketing() -> String {
    Scope::Marketing.as_str().to_owned()
}

#[derive(Serialize, ToSchema)]
struct SuppressedJson {
    /// Shut off more than before, or lifted.
    changed: u64,
    /// So already; one that is given twice counts once.
    unchanged: u64,
    rejected: usize,
    errors: Vec<SuppressionErrorJson>,
}

/// A phone that could not be read; it is not repeated.
#[derive(Serialize, ToSchema)]
struct SuppressionErrorJson {
    /// Counted from 1.
    item: usize,
    message: String,
}

#[derive(Serialize, ToSchema)]
struct SuppressionsJson {
    suppressions: Vec<SuppressionJson>,
    /// Where the next page begins; absent: this is the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct SuppressionJson {
    /// Keyed hash (HMAC-SHA-256, hexadecimal) of the phone, as receipts have it.
    phone_hash: String,
    /// `marketing` or `all`.
    scope: String,
    /// `reply`, `reply-review`, `erased`, or what whoever entered it said.
    source: String,
    since: When,
    /// Who entered it, where somebody did by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded_by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    limit: Option<i64>,
    after: Option<String>,
}

async fn enter(
    call: Call,
    State(http): State<Http>,
    Json(wanted): Json<SuppressJson>,
) -> Result<Answer<SuppressedJson>, Problem> {
    let (region, source) = (wanted.region.as_deref(), wanted.source.as_deref());
    let scope = scope(&wanted.scope)?;
    let done = http
        .api
        .suppressions_add(&call.caller, &wanted.phones, region, scope, source)
        .await?;
    Ok(Answer(done.into()))
}

async fn lift(
    call: Call,
    State(http): State<Http>,
    Json(wanted): Json<UnsuppressJson>,
) -> Result<Answer<SuppressedJson>, Problem> {
    let scope = scope(&wanted.scope)?;
    let done = http
        .api
        .suppressions_remove(&call.caller, &wanted.phones, wanted.region.as_deref(), scope)
        .await?;
    Ok(Answer(done.into()))
}

async fn list(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<ListParams>,
) -> Result<Answer<SuppressionsJson>, Problem> {
    let limit = params.limit.unwrap_or(PAGE);
    let after = params.after.as_deref().map(place).transpose()?;
    let page = http.api.suppressions_list(&call.caller, after, limit).await?;
    let full = usize::try_from(limit).is_ok_and(|limit| page.len() == limit);
    let next = page.last().filter(|_| full).map(name);
    Ok(Answer(SuppressionsJson {
        suppressions: page.into_iter().map(SuppressionJson::from).collect(),
        next,
    }))
}

fn scope(word: &str) -> Result<Scope, ApiError> {
    [Scope::Marketing, Scope::All]
        .into_iter()
        .find(|scope| scope.as_str() == word)
        .ok_or_else(|| ApiError::invalid("scope", "expected marketing or all"))
}

/// A page's end, as `after` names it.
fn name(last: &Suppression) -> String {
    format!("{}.{}", last.since.as_microsecond(), HEXLOWER.encode(&last.phone_hash))
}

fn place(name: &str) -> Result<(Timestamp, Vec<u8>), ApiError> {
    let read = || {
        let (since, hash) = name.split_once('.')?;
        let since = Timestamp::from_microsecond(since.parse().ok()?).ok()?;
        Some((since, unhex(hash)?))
    };
    read().ok_or_else(|| ApiError::invalid("after", "expected `next` of the page before"))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || text.len() > 64 {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

impl From<Done> for SuppressedJson {
    fn from(done: Done) -> Self {
        SuppressedJson {
            changed: done.changed,
            unchanged: done.unchanged,
            rejected: done.rejected.len(),
            errors: done
                .rejected
                .into_iter()
                .map(|(item, message)| SuppressionErrorJson { item, message })
                .collect(),
        }
    }
}

impl From<Suppression> for SuppressionJson {
    fn from(line: Suppression) -> Self {
        SuppressionJson {
            phone_hash: HEXLOWER.encode(&line.phone_hash),
            scope: line.scope.to_string(),
            source: line.source,
            since: When(line.since),
            recorded_by: line.recorded_by,
        }
    }
}
