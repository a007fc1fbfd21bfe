//! Campaigns.

use std::convert::Infallible;

use api::campaigns::{CampaignDraft, CampaignStatus};
use axum::{
    Json as Answer,
    extract::State,
    http::HeaderMap,
    response::sse::{Event, KeepAlive, Sse},
};
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::{Campaign, messages::Counts};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    CAMPAIGNS, Http, READERS,
    extract::{Call, Json, Params, Segments, When, id},
    problem::Problem,
    route::{Routes, get, post},
};

const PAGE: i64 = 100;

pub(super) fn add(routes: Routes) -> Routes {
    routes
        .add(
            post(
                "/v1/campaigns",
                CAMPAIGNS,
                "Make a draft; the same `idempotency_key` (or `Idempotency-Key` header) is the same campaign",
            )
            .takes::<NewCampaignJson>()
            .gives::<CampaignJson>(),
            create,
        )
        .add(
            get("/v1/campaigns", READERS, "The campaigns, the newest first")
                .query(
                    "before",
                    "string",
                    "Continue after this campaign (the last of an earlier page)",
                )
                .query("limit", "integer", "How many, up to 500; absent: 100")
                .gives::<CampaignsJson>(),
            list,
        )
        .add(
            get("/v1/campaigns/{id}", READERS, "A campaign and where its messages stand").gives::<CampaignStatusJson>(),
            status,
        )
        .add(
            post(
                "/v1/campaigns/{id}/launch",
                CAMPAIGNS,
                "Start it, now or at its time; what is launched already is answered as it is",
            )
            .query("at", "date-time", "When to start, over the campaign's own time")
            .gives::<CampaignJson>(),
            launch,
        )
        .add(
            post(
                "/v1/campaigns/{id}/pause",
                CAMPAIGNS,
                "Send nothing more until it is resumed",
            )
            .gives::<CampaignJson>(),
            pause,
        )
        .add(
            post(
                "/v1/campaigns/{id}/resume",
                CAMPAIGNS,
                "Go on with each remaining contact exactly once",
            )
            .gives::<CampaignJson>(),
            resume,
        )
        .add(
            post(
                "/v1/campaigns/{id}/cancel",
                CAMPAIGNS,
                "End it; what waits becomes `cancelled`",
            )
            .gives::<CampaignJson>(),
            cancel,
        )
        .add(
            get("/v1/campaigns/{id}/log", READERS, "Who did what with it, oldest first").gives::<CampaignLogJson>(),
            log,
        )
        .add(
            get(
                "/v1/campaigns/{id}/watch",
                READERS,
                "Server-sent events: `status` now and whenever something changes, `end` when all is settled",
            )
            .gives_media("text/event-stream", None),
            watch,
        )
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCampaignJson {
    /// 1 to 200 characters.
    name: String,
    /// The name of an audience, or
    #[serde(default)]
    audience: Option<String>,
    /// an expression of the audience language.
    #[serde(default)]
    r#where: Option<String>,
    /// The name of a template.
    template: String,
    /// For the template: `{{ campaign.NAME }}`.
    #[serde(default)]
    #[schema(value_type = Object)]
    values: Map<String, Value>,
    /// When to start; absent: when it is launched.
    #[serde(default)]
    at: Option<When>,
    /// A cron pattern such as `0 9 * * MON`, in `zone`.
    #[serde(default)]
    recurring: Option<String>,
    /// An IANA zone such as `Indian/Reunion`.
    #[serde(default)]
    zone: Option<String>,
    /// Nothing is sent after it.
    #[serde(default)]
    deadline: Option<When>,
    /// The most it may cost, in millionths of the account's currency.
    #[serde(default)]
    budget_micros: Option<i64>,
    /// The share of the audience that gets nothing, to compare with: 0 to 100.
    #[serde(default)]
    control_percent: u32,
    #[serde(default)]
    idempotency_key: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct CampaignJson {
    id: Uuid,
    name: String,
    /// `draft`, `scheduled`, `running`, `paused`, `finished` or `cancelled`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<String>,
    r#where: String,
    template: String,
    #[schema(value_type = Object)]
    values: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<When>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recurring: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<When>,
    #[serde(skip_serializing_if = "Option::is_none")]
    budget_micros: Option<i64>,
    control_percent: i16,
    /// The recurring campaign that this is one occurrence of.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<Uuid>,
    created_at: When,
    created_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    launched_at: Option<When>,
    /// When every contact was planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    expanded_at: Option<When>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<When>,
    /// Contacts planned so far.
    planned: i64,
}

/// A campaign and each of its messages counted once, in its present state: `planned` is the sum of all others.
#[derive(Serialize, ToSchema)]
struct CampaignStatusJson {
    #[serde(flatten)]
    campaign: CampaignJson,
    suppressed: i64,
    accepted: i64,
    delivered: i64,
    failed: i64,
    expired: i64,
    cancelled: i64,
    unknown: i64,
    /// On its way.
    pending: i64,
}

#[derive(Serialize, ToSchema)]
struct CampaignsJson {
    campaigns: Vec<CampaignJson>,
}

#[derive(Serialize, ToSchema)]
struct CampaignLogJson {
    log: Vec<CampaignLogLineJson>,
}

#[derive(Serialize, ToSchema)]
struct CampaignLogLineJson {
    at: When,
    by: String,
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    before: Option<Uuid>,
    limit: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LaunchParams {
    at: Option<When>,
}

async fn create(
    call: Call,
    State(http): State<Http>,
    headers: HeaderMap,
    Json(new): Json<NewCampaignJson>,
) -> Result<Answer<CampaignJson>, Problem> {
    let in_header = headers
        .get("idempotency-key")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let draft = CampaignDraft {
        name: new.name,
        audience: new.audience,
        condition: new.r#where,
        template: new.template,
        values: new.values,
        at: new.at.map(|at| at.0),
        recurring: new.recurring,
        zone: new.zone,
        deadline: new.deadline.map(|deadline| deadline.0),
        budget_micros: new.budget_micros,
        control_percent: new.control_percent,
        idempotency_key: new.idempotency_key.or(in_header),
    };
    Ok(Answer(http.api.campaign_create(&call.caller, draft).await?.into()))
}

async fn list(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<ListParams>,
) -> Result<Answer<CampaignsJson>, Problem> {
    let limit = params.limit.unwrap_or(PAGE);
    let campaigns = http.api.campaign_list(&call.caller, params.before, limit).await?;
    Ok(Answer(CampaignsJson {
        campaigns: campaigns.into_iter().map(CampaignJson::from).collect(),
    }))
}

async fn status(
    call: Call,
    State(http): State<Http>,
    Segments(text): Segments<String>,
) -> Result<Answer<CampaignStatusJson>, Problem> {
    Ok(Answer(http.api.campaign_status(&call.caller, id(&text)?).await?.into()))
}

async fn launch(
    call: Call,
    State(http): State<Http>,
    Segments(text): Segments<String>,
    Params(params): Params<LaunchParams>,
) -> Result<Answer<CampaignJson>, Problem> {
    let when = params.at.map(|at| at.0);
    Ok(Answer(
        http.api.campaign_launch(&call.caller, id(&text)?, when).await?.into(),
    ))
}

async fn pause(
    call: Call,
    State(http): State<Http>,
    Segments(text): Segments<String>,
) -> Result<Answer<CampaignJson>, Problem> {
    Ok(Answer(http.api.campaign_pause(&call.caller, id(&text)?).await?.into()))
}

async fn resume(
    call: Call,
    State(http): State<Http>,
    Segments(text): Segments<String>,
) -> Result<Answer<CampaignJson>, Problem> {
    Ok(Answer(http.api.campaign_resume(&call.caller, id(&text)?).await?.into()))
}

async fn cancel(
    call: Call,
    State(http): State<Http>,
    Segments(text): Segments<String>,
) -> Result<Answer<CampaignJson>, Problem> {
    Ok(Answer(http.api.campaign_cancel(&call.caller, id(&text)?).await?.into()))
}

async fn log(
    call: Call,
    State(http): State<Http>,
    Segments(text): Segments<String>,
) -> Result<Answer<CampaignLogJson>, Problem> {
    let log = http.api.campaign_log(&call.caller, id(&text)?).await?;
    Ok(Answer(CampaignLogJson {
        log: log
            .into_iter()
            .map(|line| CampaignLogLineJson {
                at: When(line.at),
                by: line.by,
                action: line.action,
                detail: line.detail,
            })
            .collect(),
    }))
}

async fn watch(
    call: Call,
    State(http): State<Http>,
    Segments(text): Segments<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let permit = http.stream_permit()?;
    let states = http.api.campaign_watch(&call.caller, id(&text)?).await?;
    let events = states.flat_map(move |status| {
        // The place is taken for as long as the stream lives.
        let _ = &permit;
        let events = match status {
            Ok(status) => {
                let settled = status.is_settled();
                let mut events = vec![Ok(event("status", &CampaignStatusJson::from(status)))];
                events.extend(settled.then(|| Ok(Event::default().event("end").data("{}"))));
                events
            }
            Err(error) => vec![Ok(event("error", &Problem::from(error).body()))],
        };
        stream::iter(events)
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn event(name: &str, data: &impl Serialize) -> Event {
    let event = Event::default().event(name);
    // Plain data: there is nothing in it that JSON could not hold.
    event.data(serde_json::to_string(data).unwrap_or_default())
}

impl From<Campaign> for CampaignJson {
    fn from(campaign: Campaign) -> Self {
        CampaignJson {
            id: campaign.id,
            name: campaign.name,
            state: campaign.state.as_str(),
            audience: campaign.audience,
            r#where: campaign.expression,
            template: campaign.template,
            values: campaign.vars,
            at: campaign.at.map(When),
            recurring: campaign.recurring,
            zone: campaign.zone,
            deadline: campaign.deadline.map(When),
            budget_micros: campaign.budget_micros,
            control_percent: campaign.control_percent,
            parent_id: campaign.parent_id,
            created_at: When(campaign.created_at),
            created_by: campaign.created_by,
            launched_at: campaign.launched_at.map(When),
            expanded_at: campaign.expanded_at.map(When),
            finished_at: campaign.finished_at.map(When),
            planned: campaign.planned,
        }
    }
}

impl From<CampaignStatus> for CampaignStatusJson {
    fn from(status: CampaignStatus) -> Self {
        let Counts {
            planned,
            suppressed,
            accepted,
            delivered,
            failed,
            expired,
            cancelled,
            unknown,
            pending,
        } = status.counts;
        let mut campaign = CampaignJson::from(status.campaign);
        // Of the same moment as the others.
        campaign.planned = planned;
        CampaignStatusJson {
            campaign,
            suppressed,
            accepted,
            delivered,
            failed,
            expired,
            cancelled,
            unknown,
            pending,
        }
    }
}
