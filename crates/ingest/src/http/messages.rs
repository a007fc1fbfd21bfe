//! Messages: asking for one, and asking what became of it.

use api::{
    ApiError, ErrorKind,
    messages::NewMessage,
    messages_show::{LogLine, MAX_LIST, MessageStory},
};
use axum::{Json as Answer, extract::State, http::HeaderMap};
use domain::Cause;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::messages::MessageRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    EVERY, Http, WRITERS,
    audience::ExplainedJson,
    extract::{Call, Json, Params, Segments, When, id},
    messages_planned::PlannedJson,
    problem::Problem,
    route::{Routes, get, post},
};

pub(super) fn add(routes: Routes) -> Routes {
    routes
        .add(
            post(
                "/v1/messages",
                WRITERS,
                "Ask for one message; the same `idempotency_key` for the same contact is the same message",
            )
            .takes::<NewMessageJson>()
            .gives::<MessageIdJson>(),
            send,
        )
        .add(
            get("/v1/messages", EVERY, "A contact's messages, the newest first")
                .query("contact_id", "string", "Whose; required")
                .query("limit", "integer", "How many, up to 1,000; absent: 100")
                .gives::<MessagesJson>(),
            list,
        )
        .add(
            get("/v1/messages/{id}", EVERY, "What became of a message").gives::<MessageJson>(),
            one,
        )
        .add(
            get(
                "/v1/messages/{id}/show",
                EVERY,
                "Why a contact got a message, or not: its cause, its reason and everything that happened to it",
            )
            .query(
                "contact_id",
                "string",
                "Whose it is: finds it also where it is planned and not in the ledger yet",
            )
            .gives::<MessageStoryJson>(),
            show,
        )
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMessageJson {
    /// 1 to 200 characters; or the header `Idempotency-Key`.
    #[serde(default)]
    idempotency_key: Option<String>,
    contact_id: String,
    /// The name of a template.
    template: String,
    /// For the template: `{{ custom.NAME }}`. Up to 64 KiB.
    #[serde(default)]
    #[schema(value_type = Object)]
    values: Map<String, Value>,
    /// Nothing is sent after it.
    #[serde(default)]
    deadline: Option<When>,
}

#[derive(Serialize, ToSchema)]
struct MessageIdJson {
    message_id: Uuid,
}

#[derive(Serialize, ToSchema)]
struct MessagesJson {
    messages: Vec<MessageJson>,
    /// What is planned for the contact and not in the ledger yet.
    planned: Vec<PlannedJson>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct MessageJson {
    id: Uuid,
    contact_id: String,
    /// `queued`, `deferred`, `sending`, `unknown`, `accepted`, `delivered`, `failed`, `expired`, `suppressed` or
    /// `cancelled`.
    state: &'static str,
    /// Why it is suppressed, failed, expired, unknown or cancelled, for example `no-consent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// As the gateway said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_code: Option<String>,
    cause: CauseJson,
    /// `transactional` or `marketing`.
    class: &'static str,
    template: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<String>,
    /// SMS parts.
    parts: u16,
    /// Millionths of the account's currency, estimated.
    cost_micros: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    /// Attempts started.
    attempt: u32,
    caused_at: When,
    planned_at: When,
    #[serde(skip_serializing_if = "Option::is_none")]
    rendered_at: Option<When>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_at: Option<When>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_at: Option<When>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<When>,
    /// The rules that it was last decided by, by their versions; which of them stands in `reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<String>,
}

/// What a message was caused by.
#[derive(Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum CauseJson {
    Trigger {
        trigger: String,
        event_source: String,
        event_id: String,
    },
    Campaign {
        campaign_id: String,
    },
    Direct {
        idempotency_key: String,
    },
}

/// One of `message` and `planned`.
#[derive(Serialize, ToSchema)]
pub(super) struct MessageStoryJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<MessageJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) planned: Option<PlannedJson>,
    /// In a sentence.
    pub(super) explanation: String,
    /// The campaign's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) campaign: Option<String>,
    /// Clause by clause what the campaign's audience, or the trigger, asks of the contact: by what it had done when the
    /// message was planned, and by its fields as they are today.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<ExplainedJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waiting: Option<WaitingJson>,
    pub(super) parts: Vec<PartJson>,
    pub(super) log: Vec<LogLineJson>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct WaitingJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<When>,
    /// `campaign:ID`: until that campaign goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct PartJson {
    part: i16,
    gateway: String,
    /// The gateway's id.
    remote_id: String,
    state: &'static str,
    /// What the gateway last said of it in a word that tamtam does not know, as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    at: When,
}

#[derive(Serialize, ToSchema)]
pub(super) struct LogLineJson {
    at: When,
    what: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    contact_id: String,
    limit: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShowParams {
    contact_id: Option<String>,
}

async fn send(
    call: Call,
    State(http): State<Http>,
    headers: HeaderMap,
    Json(new): Json<NewMessageJson>,
) -> Result<Answer<MessageIdJson>, Problem> {
    let in_header = || headers.get("idempotency-key")?.to_str().ok().map(str::to_owned);
    let key = new.idempotency_key.clone().or_else(in_header);
    let message = NewMessage {
        idempotency_key: key.ok_or_else(|| {
            ApiError::invalid(
                "idempotency_key",
                "`idempotency_key` is missing: expected 1 to 200 characters",
            )
        })?,
        contact_id: new.contact_id,
        template: new.template,
        values: new.values,
        deadline: new.deadline.map(|deadline| deadline.0),
    };
    let id = http
        .api
        .message_send(&call.caller, message, call.trace.as_deref())
        .await?;
    Ok(Answer(MessageIdJson { message_id: id.0 }))
}

async fn list(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<ListParams>,
) -> Result<Answer<MessagesJson>, Problem> {
    let limit = params.limit.unwrap_or(100.min(MAX_LIST));
    // The planned ones first: one that reaches the ledger in between is told twice, and none is missed.
    let planned = http
        .api
        .messages_planned(&call.caller, &params.contact_id, limit)
        .await?;
    let rows = http.api.messages_of(&call.caller, &params.contact_id, limit).await?;
    Ok(Answer(MessagesJson {
        planned: (planned.into_iter())
            .filter(|planned| rows.iter().all(|row| row.message_id != planned.id))
            .map(PlannedJson::from)
            .collect(),
        messages: rows.into_iter().map(MessageJson::from).collect(),
    }))
}

async fn one(
    call: Call,
    State(http): State<Http>,
    Segments(text): Segments<String>,
) -> Result<Answer<MessageJson>, Problem> {
    Ok(Answer(http.api.message_get(&call.caller, id(&text)?).await?.into()))
}

async fn show(
    call: Call,
    State(http): State<Http>,
    Segments(text): Segments<String>,
    Params(params): Params<ShowParams>,
) -> Result<Answer<MessageStoryJson>, Problem> {
    let id = id(&text)?;
    let show = || http.api.message_show(&call.caller, id);
    let nowhere = |error: &ApiError| error.kind == ErrorKind::NotFound;
    let shown = match (show().await, params.contact_id) {
        (Err(error), None) if nowhere(&error) => Err(ApiError::not_found(
            "message in the ledger; one that is planned and not there yet is found with its contact",
        )),
        (Err(error), Some(contact)) if nowhere(&error) => {
            match http.api.message_planned(&call.caller, &contact, id).await {
                Ok(planned) => return Ok(Answer(planned.into())),
                // It may have reached the ledger in between.
                Err(error) if nowhere(&error) => show().await.map_err(|_| error),
                Err(error) => Err(error),
            }
        }
        (shown, _) => shown,
    };
    Ok(Answer(shown?.into()))
}

impl From<Cause> for CauseJson {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Trigger {
                trigger,
                event_source,
                event_id,
            } => CauseJson::Trigger {
                trigger,
                event_source,
                event_id,
            },
            Cause::Campaign { campaign_id } => CauseJson::Campaign { campaign_id },
            Cause::Direct { idempotency_key } => CauseJson::Direct { idempotency_key },
        }
    }
}

impl From<MessageRow> for MessageJson {
    fn from(row: MessageRow) -> Self {
        MessageJson {
            id: row.message_id,
            contact_id: row.contact_id,
            state: row.state.as_str(),
            reason: row.reason.map(|reason| reason.as_str()),
            gateway_code: row.gateway_code,
            cause: row.cause.into(),
            class: row.class.as_str(),
            template: row.template,
            variant: row.variant,
            encoding: row.encoding,
            parts: row.parts,
            cost_micros: row.cost_micros,
            gateway: row.gateway,
            attempt: row.attempt,
            caused_at: When(row.caused_at),
            planned_at: When(row.planned_at),
            rendered_at: row.rendered_at.map(When),
            claimed_at: row.claimed_at.map(When),
            accepted_at: row.accepted_at.map(When),
            settled_at: row.settled_at.map(When),
            decided_by: row.decided_by,
        }
    }
}

impl From<MessageStory> for MessageStoryJson {
    fn from(story: MessageStory) -> Self {
        MessageStoryJson {
            message: Some(story.message.into()),
            planned: None,
            explanation: story.explanation,
            campaign: story.campaign,
            why: story.why.map(ExplainedJson::from),
            waiting: story.waiting.map(|waiting| WaitingJson {
                due_at: waiting.due_at.map(When),
                parked: waiting.parked,
            }),
            parts: story
                .parts
                .into_iter()
                .map(|part| PartJson {
                    part: part.part,
                    gateway: part.gateway,
                    remote_id: part.remote_id,
                    state: part.state.as_str(),
                    code: part.code,
                    at: When(part.at),
                })
                .collect(),
            log: log_lines(story.log),
        }
    }
}

pub(super) fn log_lines(lines: Vec<LogLine>) -> Vec<LogLineJson> {
    let line = |line: LogLine| LogLineJson {
        at: When(line.at),
        what: line.what,
    };
    lines.into_iter().map(line).collect()
}
