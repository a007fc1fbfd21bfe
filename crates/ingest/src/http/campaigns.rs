//! Campaigns.

mod json;

use std::convert::Infallible;

use api::{ApiError, campaigns::CampaignDraft};
use axum::{
    Json as Answer,
    extract::State,
    http::HeaderMap,
    response::sse::{Event, KeepAlive, Sse},
};
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::json::{
    CampaignJson, CampaignLogJson, CampaignLogLineJson, CampaignStatusJson, CampaignsJson, NewCampaignJson,
};
use super::{
    CAMPAIGNS, Http, READERS,
    extract::{Call, Json, Params, Segments, When, WhenToStart, id},
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
            .query(
                "at",
                "string",
                "When to start, over the campaign's own time; a time without an offset, such as `2026-12-24T09:00`, is in `zone`",
            )
            .query(
                "zone",
                "string",
                "An IANA zone such as `Indian/Reunion`; absent: the campaign's own",
            )
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    before: Option<Uuid>,
    limit: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LaunchParams {
    at: Option<WhenToStart>,
    zone: Option<String>,
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
        at: new.at.map(|at| at.0.resolve(new.zone.as_deref())).transpose()?,
        recurring: new.recurring,
        zone: new.zone,
        deadline: new.deadline.map(|deadline| deadline.0),
        budget_micros: new.budget_micros,
        control_percent: new.control_percent,
        idempotency_key: new.idempotency_key.or(in_header),
    };
    let campaign = http.api.campaign_create(&call.caller, draft).await?;
    let hints = http.api.audience_hints(&call.caller, &campaign.expression).await;
    let mut campaign = CampaignJson::from(campaign);
    // It is made: that nothing can be told of it now is no reason to fail.
    campaign.hints = hints.unwrap_or_default();
    Ok(Answer(campaign))
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
    let (caller, id) = (&call.caller, id(&text)?);
    let campaign = match params.at {
        Some(at) => {
            let zone = params.zone.as_deref();
            http.api.campaign_launch_at(caller, id, at.0, zone).await?
        }
        None if params.zone.is_some() => {
            return Err(ApiError::invalid("at", "`zone` is that of a time: expected `at` beside it").into());
        }
        None => http.api.campaign_launch(caller, id, None).await?,
    };
    Ok(Answer(campaign.into()))
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
