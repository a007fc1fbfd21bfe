//! One campaign: live progress, pause, resume, cancel, and who did what.

use std::time::Duration;

use api::ApiError;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use domain::CampaignState;
use maud::{Markup, html};
use uuid::Uuid;

use crate::{
    App, Visit,
    layout::{self, Section},
    progress,
};

pub(crate) async fn page(State(app): State<App>, visit: Visit, Path(id): Path<Uuid>) -> Response {
    match body(&app, &visit, id).await {
        Ok((name, body)) => {
            layout::page(visit.language, visit.caller.as_ref(), Section::Home, &name, body).into_response()
        }
        Err(error) => visit.error(&error),
    }
}

async fn body(app: &App, visit: &Visit, id: Uuid) -> Result<(String, Markup), ApiError> {
    let (caller, words) = (visit.caller()?, visit.language.words());
    let status = app.api.campaign_status(caller, id).await?;
    let log = app.api.campaign_log(caller, id).await?;
    let campaign = &status.campaign;
    let body = html! {
        h1 { (campaign.name) }
        // Without settling: for its 20 ms the new buttons would do nothing, twice a second.
        div.card hx-ext="sse" sse-connect={ "/campaigns/" (campaign.id) "/events" } sse-swap="progress" hx-swap="innerHTML settle:0ms" {
            (live(app, visit, id).await?)
        }
        div.card {
            h2 { (words.whom) }
            p { code { (campaign.expression) } }
            @if let Some(deadline) = campaign.deadline { p.soft { (words.deadline) " : " time { (deadline.strftime("%F %H:%M UTC").to_string()) } } }
            h2 { (words.history) }
            table { tbody {
                @for line in &log {
                    tr {
                        td.soft { (line.at.strftime("%F %T UTC").to_string()) }
                        td { (words.campaign_action(&line.action)) }
                        td { (line.by) }
                        td.soft { @if let Some(detail) = &line.detail { (detail) } }
                    }
                }
            } }
        }
    };
    Ok((campaign.name.clone(), body))
}

pub(crate) async fn events(State(app): State<App>, visit: Visit, Path(id): Path<Uuid>) -> Response {
    let stopping = app.stopping.clone();
    let shared = std::sync::Arc::new((app, visit, id));
    progress::stream(stopping, Duration::from_millis(500), move || {
        let shared = shared.clone();
        async move {
            let (app, visit, id) = (&shared.0, &shared.1, shared.2);
            Some(
                live(app, visit, id)
                    .await
                    .unwrap_or_else(|error| layout::refused(visit.language, &error)),
            )
        }
    })
    .into_response()
}

/// The part that changes: progress, and the buttons that its state allows.
async fn live(app: &App, visit: &Visit, id: Uuid) -> Result<Markup, ApiError> {
    let words = visit.language.words();
    let status = app.api.campaign_status(visit.caller()?, id).await?;
    let state = status.campaign.state;
    let button = |action: &str, class: &str, word: &str, confirm: Option<&str>| {
        html! {
            button type="button" class=(class) hx-post={ "/campaigns/" (status.campaign.id) "/" (action) } hx-swap="none"
                hx-confirm=[confirm] data-action=(action) { (word) }
        }
    };
    Ok(html! {
        (progress::tiles(visit.language, &status.campaign, &status.counts))
        @if !state.is_over() {
            div.actions {
                @if state.may_become(CampaignState::Paused) { (button("pause", "", words.pause, None)) }
                @if state == CampaignState::Paused { (button("resume", "main", words.resume, None)) }
                (button("cancel", "bad", words.cancel, Some(words.cancel_sure)))
            }
        }
    })
}

pub(crate) async fn act(State(app): State<App>, visit: Visit, Path((id, action)): Path<(Uuid, String)>) -> Response {
    let caller = match visit.caller() {
        Ok(caller) => caller,
        Err(error) => return visit.error(&error),
    };
    let done = match action.as_str() {
        "pause" => app.api.campaign_pause(caller, id).await,
        "resume" => app.api.campaign_resume(caller, id).await,
        "cancel" => app.api.campaign_cancel(caller, id).await,
        _ => Err(ApiError::not_found("action")),
    };
    match done {
        Ok(_) => layout::go(&visit.headers, &format!("/campaigns/{id}")),
        Err(error) => visit.error(&error),
    }
}
