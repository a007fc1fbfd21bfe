//! Home: what is being sent now, and the latest campaigns.

use std::time::Duration;

use api::ApiError;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};

use crate::{
    App, Visit,
    layout::{self, Section},
    progress,
};

const SHOWN: i64 = 15;

pub(crate) async fn page(State(app): State<App>, visit: Visit) -> Response {
    match list(&app, &visit).await {
        Ok(list) => {
            let words = visit.language.words();
            let body = html! {
                h1 { (words.latest) }
                div hx-ext="sse" sse-connect="/home/events" sse-swap="progress" { (list) }
                div.actions { a.button.main href="/announce" { (words.announce) } }
            };
            layout::page(visit.language, visit.caller.as_ref(), Section::Home, words.home, body).into_response()
        }
        Err(error) => visit.error(&error),
    }
}

pub(crate) async fn events(State(app): State<App>, visit: Visit) -> Response {
    let stopping = app.stopping.clone();
    let shared = std::sync::Arc::new((app, visit));
    progress::stream(stopping, Duration::from_secs(2), move || {
        let shared = shared.clone();
        // A database that is away for a moment leaves the page as it is.
        async move {
            Some(
                list(&shared.0, &shared.1)
                    .await
                    .unwrap_or_else(|error| layout::error(&error.message)),
            )
        }
    })
    .into_response()
}

async fn list(app: &App, visit: &Visit) -> Result<Markup, ApiError> {
    let (language, words) = (visit.language, visit.language.words());
    let caller = visit.caller()?;
    let mut campaigns = Vec::new();
    for campaign in app.api.campaign_list(caller, None, SHOWN).await? {
        campaigns.push(app.api.campaign_status(caller, campaign.id).await?);
    }
    Ok(html! {
        @if campaigns.is_empty() {
            div.card { p.soft { (words.nothing_sent) } }
        } @else {
            div.card {
                table {
                    thead { tr {
                        th { (words.name) } th { (words.state) } th { (words.progress) }
                        th.number { (words.planned) } th.number { (words.delivered) } th.number { (words.failed) }
                    } }
                    tbody {
                        @for status in &campaigns {
                            tr {
                                td { a href={ "/campaigns/" (status.campaign.id) } { (status.campaign.name) } }
                                td { span class={ "state " (status.campaign.state) } { (words.campaign_state(status.campaign.state.as_str())) } }
                                td { (progress::bar(&status.counts)) }
                                td.number { (language.number(status.counts.planned)) }
                                td.number { (language.number(status.counts.delivered)) }
                                td.number { (language.number(status.counts.failed)) }
                            }
                        }
                    }
                }
            }
        }
    })
}
