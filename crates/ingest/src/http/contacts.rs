//! Contacts: created and changed, imported, read, erased.

use std::collections::BTreeMap;

use api::{
    ApiError,
    contacts::NewContact,
    events::ItemError,
    import::{ImportOptions, ImportReport, RejectedRow},
};
use axum::{
    Json as Answer,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use store::{consents::ConsentEntry, contacts::Change};
use tokio::task::JoinHandle;
use utoipa::ToSchema;

use super::{
    EVERY, Http, WRITERS,
    extract::{Call, Json, Params, Pieces, Segments, When, check_media, json_error, read_body},
    problem::{Problem, ProblemJson},
    route::{Routes, delete, get, post, put},
};
use crate::convert::contact_fields;

/// Rejected rows that are listed; the others are counted.
const MAX_ERRORS: usize = 1_000;
/// Rejected rows that wait for whoever reads them.
const ROWS_AHEAD: usize = 1_000;
/// A contact may have this id, though the import is there.
const IMPORT: &str = "import";

pub(super) fn add(routes: Routes) -> Routes {
    let one_of = get("/v1/contacts/{id}", EVERY, "A contact's fields");
    let removal = delete(
        "/v1/contacts/{id}",
        WRITERS,
        "Erase a person's data; an opt-out is kept as a keyed hash of the phone",
    );
    let change = put(
        "/v1/contacts/{id}",
        WRITERS,
        "Create or change one contact; only the fields that are given change, null unsets one",
    );
    let proof = get(
        "/v1/contacts/{id}/consents",
        EVERY,
        "What a contact said of each purpose, when, where and in which words, the latest first",
    );
    let import = "/v1/contacts/import";
    routes
        .add(
            post(
                "/v1/contacts",
                WRITERS,
                "Create and change contacts; only the fields that are given change, null unsets one",
            )
            .takes::<UpsertJson>()
            .gives::<UpsertedJson>(),
            upsert,
        )
        .add(
            post(
                import,
                WRITERS,
                "Import a CSV whose header names the fields; rejected rows are told with their line",
            )
            .query(
                "region",
                "string",
                "What national phone numbers belong to, as ISO 3166-1, for example `RE`",
            )
            .query(
                "mapping",
                "string",
                "A JSON object from header names to fields; to `\"\"`: not imported",
            )
            .query(
                "rejected",
                "string",
                "`all`: answered with NDJSON while the file is read: a line for every rejected row, however many, then \
                 `{\"imported\": …}` or `{\"error\": …}`",
            )
            .takes_media("text/csv", None)
            .gives::<ImportJson>(),
            import_csv,
        )
        .add_unlisted(get(import, EVERY, ""), async |call, http| {
            one(call, http, named_import()).await
        })
        .add_unlisted(put(import, WRITERS, ""), async |call, http, params, body| {
            change_one(call, http, named_import(), params, body).await
        })
        .add_unlisted(delete(import, WRITERS, ""), async |call, http| {
            erase(call, http, named_import()).await
        })
        .add(one_of.gives::<ContactJson>(), one)
        .add(proof.gives::<ConsentsJson>(), consents)
        .add(
            change
                .query(
                    "region",
                    "string",
                    "What a national phone number belongs to, as ISO 3166-1",
                )
                .takes::<FieldsJson>()
                .gives::<ChangedJson>(),
            change_one,
        )
        .add(removal, erase)
}

fn named_import() -> Segments<String> {
    Segments(IMPORT.to_owned())
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpsertJson<'a> {
    /// Up to 10,000.
    #[serde(borrow)]
    #[schema(value_type = Vec<ContactJson>)]
    contacts: Vec<&'a RawValue>,
    /// What national phone numbers belong to, as ISO 3166-1, for example `RE`.
    #[serde(default)]
    region: Option<String>,
}

/// A contact: its id, and any of the fields `phone` (E.164, or national with a region), `first_name`, `last_name`,
/// `gender`, `birth_date` (`YYYY-MM-DD`), `city`, `region`, `postal_code`, `language` (BCP 47), `time_zone` (IANA),
/// `marketing_consent` (true, false, or the time when it was given), `consents` (a list of
/// `{"purpose", "given", "at", "source", "wording"}`: what was said of each purpose, with its proof), and any further attribute.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct ContactJson {
    #[serde(default)]
    id: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// Any of a contact's fields.
#[derive(Deserialize, ToSchema)]
struct FieldsJson {
    #[serde(flatten)]
    fields: Map<String, Value>,
}

#[derive(Serialize, ToSchema)]
struct ConsentsJson {
    consents: Vec<ConsentJson>,
}

/// What a contact said of a purpose, and its proof.
#[derive(Serialize, ToSchema)]
struct ConsentJson {
    purpose: String,
    given: bool,
    /// When it was said.
    at: When,
    /// Where it was said; where nobody told, how we heard of it: `import`, `api`, `events`, `reply`.
    source: String,
    /// The words that the contact agreed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    wording: Option<String>,
    /// When we heard of it, by our clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded_at: Option<When>,
    /// Whose key it came with.
    recorded_by: String,
}

impl From<ConsentEntry> for ConsentJson {
    fn from(entry: ConsentEntry) -> Self {
        ConsentJson {
            purpose: entry.purpose,
            given: entry.given,
            at: When(entry.at),
            source: entry.source,
            wording: entry.wording,
            recorded_at: entry.recorded_at.map(When),
            recorded_by: entry.recorded_by,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct UpsertedJson {
    created: usize,
    updated: usize,
    unchanged: usize,
    rejected: usize,
    /// One for each contact, in their order.
    results: Vec<ResultJson>,
}

#[derive(Serialize, ToSchema)]
struct ResultJson {
    /// `created`, `updated` or `unchanged`.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ItemErrorJson>,
}

#[derive(Serialize, ToSchema)]
struct ItemErrorJson {
    code: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    field: &'static str,
    message: String,
}

#[derive(Serialize, ToSchema)]
struct ChangedJson {
    /// `created`, `updated` or `unchanged`.
    change: &'static str,
}

#[derive(Serialize, ToSchema)]
struct ImportJson {
    created: u64,
    updated: u64,
    unchanged: u64,
    rejected: u64,
    /// Rows whose consent was not taken, because their phone was opted out before.
    opted_out: u64,
    /// Up to 1,000 rejected rows.
    errors: Vec<RowJson>,
    /// Rejected rows that are not in `errors`.
    errors_left_out: u64,
}

#[derive(Serialize, ToSchema)]
struct RowJson {
    /// Counted from 1, the header being one.
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionParams {
    region: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportParams {
    region: Option<String>,
    mapping: Option<String>,
    rejected: Option<Rejected>,
}

/// Which rejected rows are told.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rejected {
    All,
}

/// The last line of an answer in lines.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum LastLine {
    Imported(ImportJson),
    Error(ProblemJson),
}

async fn upsert(call: Call, State(http): State<Http>, request: Request) -> Result<Answer<UpsertedJson>, Problem> {
    let bytes = read_body(request).await?;
    let wanted: UpsertJson<'_> =
        serde_json::from_slice(&bytes).map_err(|error| Problem::new(StatusCode::BAD_REQUEST, json_error(&error)))?;
    let items = wanted.contacts.iter().map(|item| read(item)).collect();
    let region = wanted.region.as_deref();
    let results = http.api.contacts_upsert(&call.caller, items, region).await?;
    let count = |change: Change| results.iter().filter(|result| **result == Ok(change)).count();
    Ok(Answer(UpsertedJson {
        created: count(Change::Created),
        updated: count(Change::Updated),
        unchanged: count(Change::Unchanged),
        rejected: results.iter().filter(|result| result.is_err()).count(),
        results: results.into_iter().map(ResultJson::from).collect(),
    }))
}

fn read(item: &RawValue) -> Result<NewContact, ItemError> {
    let contact: ContactJson =
        serde_json::from_str(item.get()).map_err(|error| ItemError::new("bad_value", "", json_error(&error)))?;
    Ok(NewContact {
        id: contact.id,
        fields: contact.fields,
    })
}

async fn import_csv(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<ImportParams>,
    request: Request,
) -> Result<Response, Problem> {
    check_media(request.headers())?;
    let mapping: BTreeMap<String, String> = match &params.mapping {
        Some(json) => serde_json::from_str(json).map_err(|error| {
            ApiError::invalid(
                "mapping",
                format!("{}: expected a JSON object of texts", json_error(&error)),
            )
        })?,
        None => BTreeMap::new(),
    };
    let options = ImportOptions {
        region: params.region,
        mapping,
        max_errors: MAX_ERRORS,
        rejected: None,
    };
    let pieces = pieces(request.into_body());
    if params.rejected == Some(Rejected::All) {
        return import_in_lines(call, http, pieces, options).await;
    }
    let report = http.api.contacts_import(&call.caller, pieces, options, |_| {}).await?;
    Ok(Answer(ImportJson::from(report)).into_response())
}

/// Rejected rows as they come, then what became of all. What goes wrong before the first of them is an answer's status.
async fn import_in_lines(
    call: Call,
    http: Http,
    pieces: impl Stream<Item = Result<axum::body::Bytes, Problem>> + Send + 'static,
    options: ImportOptions,
) -> Result<Response, Problem> {
    let permit = http.stream_permit()?;
    let (sender, mut rows) = tokio::sync::mpsc::channel(ROWS_AHEAD);
    let options = ImportOptions {
        rejected: Some(sender),
        ..options
    };
    let api = http.api.clone();
    let import = tokio::spawn(async move { api.contacts_import(&call.caller, pieces, options, |_| {}).await });
    let Some(first) = rows.recv().await else {
        // Nobody is left who could send one: it is over.
        let report = finished(import).await?;
        return Ok(in_lines(stream::iter([json_line(LastLine::Imported(report.into()))])));
    };
    let state = (Some(first), rows, Some(import), permit);
    let lines = stream::unfold(state, async |(first, mut rows, import, permit)| {
        let row = match first {
            Some(first) => Some(first),
            None => rows.recv().await,
        };
        if let Some(row) = row {
            return Some((json_line(RowJson::from(row)), (None, rows, import, permit)));
        }
        let last = match finished(import?).await {
            Ok(report) => LastLine::Imported(report.into()),
            Err(error) => LastLine::Error(Problem::from(error).body()),
        };
        Some((json_line(last), (None, rows, None, permit)))
    });
    Ok(in_lines(lines))
}

async fn finished(import: JoinHandle<Result<ImportReport, ApiError>>) -> Result<ImportReport, ApiError> {
    import
        .await
        .unwrap_or_else(|_| Err(ApiError::internal("the import ended by a mistake of ours")))
}

fn in_lines(lines: impl Stream<Item = Vec<u8>> + Send + 'static) -> Response {
    let lines = lines.map(Ok::<_, std::convert::Infallible>);
    let media = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (media, Body::from_stream(lines)).into_response()
}

fn json_line(line: impl Serialize) -> Vec<u8> {
    // Plain data: there is nothing in it that JSON could not hold.
    let mut line = serde_json::to_vec(&line).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A body as the import reads it; nothing for a while ends it as an error.
fn pieces(body: Body) -> impl Stream<Item = Result<axum::body::Bytes, Problem>> + Send + 'static {
    stream::unfold(Some(Pieces::new(body)), async |pieces| {
        let mut pieces = pieces?;
        match pieces.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(pieces))),
            Ok(None) => None,
            Err(problem) => Some((Err(problem), None)),
        }
    })
}

async fn one(
    call: Call,
    State(http): State<Http>,
    Segments(id): Segments<String>,
) -> Result<Answer<ContactJson>, Problem> {
    let contact = http.api.contact_get(&call.caller, &id).await?;
    Ok(Answer(ContactJson::from(contact)))
}

async fn change_one(
    call: Call,
    State(http): State<Http>,
    Segments(id): Segments<String>,
    Params(params): Params<RegionParams>,
    Json(wanted): Json<FieldsJson>,
) -> Result<Answer<ChangedJson>, Problem> {
    let contact = NewContact {
        id,
        fields: wanted.fields,
    };
    let results = http
        .api
        .contacts_upsert(&call.caller, vec![Ok(contact)], params.region.as_deref())
        .await?;
    match results.into_iter().next() {
        Some(Ok(change)) => Ok(Answer(ChangedJson { change: word(change) })),
        Some(Err(error)) => Err(ApiError::invalid(error.field, error.message).into()),
        None => Err(ApiError::internal("the contact has no result").into()),
    }
}

async fn consents(
    call: Call,
    State(http): State<Http>,
    Segments(id): Segments<String>,
) -> Result<Answer<ConsentsJson>, Problem> {
    let entries = http.api.contact_consents(&call.caller, &id).await?;
    Ok(Answer(ConsentsJson {
        consents: entries.into_iter().map(ConsentJson::from).collect(),
    }))
}

async fn erase(call: Call, State(http): State<Http>, Segments(id): Segments<String>) -> Result<StatusCode, Problem> {
    http.api.contact_erase(&call.caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Created => "created",
        Change::Updated => "updated",
        Change::Unchanged => "unchanged",
    }
}

impl From<Result<Change, ItemError>> for ResultJson {
    fn from(result: Result<Change, ItemError>) -> Self {
        match result {
            Ok(change) => ResultJson {
                change: Some(word(change)),
                error: None,
            },
            Err(error) => ResultJson {
                change: None,
                error: Some(ItemErrorJson {
                    code: error.code,
                    field: error.field,
                    message: error.message,
                }),
            },
        }
    }
}

impl From<domain::Contact> for ContactJson {
    fn from(contact: domain::Contact) -> Self {
        let fields = contact_fields(&contact);
        ContactJson { id: contact.id, fields }
    }
}

impl From<RejectedRow> for RowJson {
    fn from(row: RejectedRow) -> Self {
        RowJson {
            line: row.line,
            field: row.field,
            message: row.message,
        }
    }
}

impl From<ImportReport> for ImportJson {
    fn from(report: ImportReport) -> Self {
        ImportJson {
            created: report.created,
            updated: report.updated,
            unchanged: report.unchanged,
            rejected: report.rejected,
            opted_out: report.opted_out,
            errors: report.errors.into_iter().map(RowJson::from).collect(),
            errors_left_out: report.errors_left_out,
        }
    }
}
