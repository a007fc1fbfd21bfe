//! Home: what is being sent now, and the latest campaigns.

use std::time::Duration;

use api::{ApiError, Caller, campaigns::CampaignStatus};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use store::Campaign;

use crate::{
    App, Visit,
    layout::{self, Section},
    progress,
    words::Language,
};

/// The latest.
const SHOWN: i64 = 15;
/// Running or paused, however old.
const SENDING: i64 = 50;

pub(crate) async fn page(State(app): State<App>, visit: Visit) -> Response {
    match list(&app, &visit).await {
        Ok(list) => {
            let words = visit.language.words();
            let body = html! {
                h1 { (words.campaigns) }
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
                    .unwrap_or_else(|error| layout::refused(shared.1.language, &error)),
            )
        }
    })
    .into_response()
}

async fn list(app: &App, visit: &Visit) -> Result<Markup, ApiError> {
    let (words, caller) = (visit.language.words(), visit.caller()?);
    let sending = app.api.campaigns_sending(caller, SENDING).await?;
    let mut latest = app.api.campaign_list(caller, None, SHOWN).await?;
    latest.retain(|campaign| sending.iter().all(|other| other.id != campaign.id));
    let (sending, latest) = (
        statuses(app, caller, sending).await?,
        statuses(app, caller, latest).await?,
    );
    Ok(html! {
        @if sending.is_empty() && latest.is_empty() {
            div.card { p.soft { (words.nothing_sent) } }
        }
        @if !sending.is_empty() {
            div.card id="sending" { h2 { (words.sending_now) } (table(visit.language, &sending)) }
        }
        @if !latest.is_empty() {
            div.card id="latest" { h2 { (words.latest) } (table(visit.language, &latest)) }
        }
    })
}

async fn statuses(app: &App, caller: &Caller, campaigns: Vec<Campaign>) -> Result<Vec<CampaignStatus>, ApiError> {
    let mut statuses = Vec::with_capacity(campaigns.len());
    for campaign in campaigns {
        statuses.push(app.api.campaign_status(caller, campaign.id).await?);
    }
    Ok(statuses)
}

fn table(language: Language, campaigns: &[CampaignStatus]) -> Markup {
    let words = language.words();
    html! {
        table {
            thead { tr {
                th { (words.name) } th { (words.state) } th { (words.progress) }
                th.number { (words.planned) } th.number { (words.delivered) } th.number { (words.failed) }
            } }
            tbody {
                @for status in campaigns {
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
