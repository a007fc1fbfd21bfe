//! Announce: whom, what, when; count and cost while one types; a summary; then one press.
//!
//! The page keeps nothing on the server: every fragment posts the whole form. The summary carries an idempotency key;
//! launching makes a template of the text and a campaign under that key, so pressing twice launches once.

mod form;

use api::{
    ApiError,
    campaigns::CampaignDraft,
    preview::{Preview, PreviewRequest},
};
use axum::{
    Form,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use resources::Template;
use uuid::Uuid;

use crate::{
    App, Visit,
    layout::{self, Section},
    words::Language,
};
use form::{Announcement, Launch, Mistake};

/// Why an announcement goes no further.
enum Trouble {
    Form(Mistake),
    Api(ApiError),
}

impl From<Mistake> for Trouble {
    fn from(mistake: Mistake) -> Trouble {
        Trouble::Form(mistake)
    }
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Trouble {
        Trouble::Api(error)
    }
}

impl Trouble {
    fn shown(&self, language: Language) -> Markup {
        match self {
            Trouble::Form(mistake) => layout::error(mistake.message(language.words())),
            Trouble::Api(error) => layout::refused(language, error),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Trouble::Form(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Trouble::Api(error) => crate::status(error.kind),
        }
    }
}

/// Where times are meant when the page does not know better: the policy's zone, else UTC.
async fn zone(app: &App) -> String {
    match app.api.snapshot().await {
        Ok(snapshot) => snapshot.policy.default_zone.clone().unwrap_or_else(|| "UTC".into()),
        Err(_) => "UTC".into(),
    }
}

pub(crate) async fn page(State(app): State<App>, visit: Visit) -> Response {
    let words = visit.language.words();
    let announcement = Announcement::empty(zone(&app).await);
    let body = html! {
        h1 { (words.announce) }
        form id="announcement" hx-post="/announce/summary" hx-target="#summary" hx-swap="innerHTML show:#summary:top" autocomplete="off" {
            div.columns {
                div.card { (form::fields(visit.language, &announcement)) }
                div {
                    div.card {
                        h2 { (words.whom) }
                        div id="count" hx-post="/announce/count" hx-include="#announcement" hx-target="this" hx-swap="innerHTML" hx-sync="this:replace"
                            hx-trigger="load, input from:#expression delay:250ms" { p.soft { "…" } }
                    }
                    div.card {
                        h2 { (words.previews) }
                        div id="estimate" hx-post="/announce/estimate" hx-include="#announcement" hx-target="this" hx-swap="innerHTML" hx-sync="this:replace"
                            hx-trigger="load, input from:#announcement delay:400ms" { p.soft { "…" } }
                    }
                }
            }
            div.actions { button.main type="submit" id="check" { (words.check) } }
        }
        div id="summary" aria-live="polite" {}
    };
    layout::page(
        visit.language,
        visit.caller.as_ref(),
        Section::Announce,
        words.announce,
        body,
    )
    .into_response()
}

/// How many contacts the expression names, or what is wrong with it.
pub(crate) async fn count(State(app): State<App>, visit: Visit, Form(announcement): Form<Announcement>) -> Markup {
    let counted = async { app.api.audience_count(visit.caller()?, announcement.expression()).await };
    match counted.await {
        Ok(count) => contacts(visit.language, count),
        Err(error) => layout::refused(visit.language, &error),
    }
}

fn contacts(language: Language, count: i64) -> Markup {
    let words = language.words();
    let word = if count == 1 { words.contact } else { words.contacts };
    html! { p { span.count data-count=(count) { (language.number(count)) } " " (word) } }
}

/// What the text costs and how it will look.
pub(crate) async fn estimate(State(app): State<App>, visit: Visit, Form(announcement): Form<Announcement>) -> Markup {
    let language = visit.language;
    html! {
        (counter(language, &announcement.text))
        @if !announcement.text.trim().is_empty() {
            @match preview(&app, &visit, &announcement).await {
                Ok(preview) => (examples(language, &preview)),
                Err(trouble) => (trouble.shown(language)),
            }
        }
    }
}

/// The text as it was typed: units and parts, before fields are filled in and the mention is added.
fn counter(language: Language, text: &str) -> Markup {
    let (words, measure) = (language.words(), domain::sms::measure(text));
    html! {
        p.soft id="counter" {
            (measure.encoding.as_str()) " · " (measure.units) " " (words.characters) " · "
            (measure.parts) " " (words.sms_part) " · " (measure.remaining) " " (words.left)
            @if !measure.non_gsm.is_empty() {
                " · " span.warn { @for character in measure.non_gsm.iter().take(12) { (character) " " } }
            }
        }
    }
}

async fn preview(app: &App, visit: &Visit, announcement: &Announcement) -> Result<Preview, Trouble> {
    let template = announcement.template("preview")?;
    let request = PreviewRequest {
        condition: Some(announcement.expression().to_owned()),
        text: Some(template.text),
        sender: Some(template.sender),
        smart: template.smart,
        at: announcement.start()?,
        deadline: announcement.deadline()?,
        ..PreviewRequest::default()
    };
    Ok(app.api.preview(visit.caller()?, &request).await?)
}

fn examples(language: Language, preview: &Preview) -> Markup {
    let words = language.words();
    html! {
        @if preview.texts.is_empty() { p.soft { (words.no_preview) } }
        @if let Some(refusal) = &preview.refusal {
            p.error role="alert" { (words.no_text) " " span lang="en" { (refusal) } }
        }
        @for example in &preview.texts {
            div.sms { (example.text) small { (example.parts) " " (words.sms_part) " · " (example.encoding) } }
        }
        (cost(language, preview))
    }
}

fn cost(language: Language, preview: &Preview) -> Markup {
    let words = language.words();
    html! {
        div.tiles {
            div { b id="cost" { (language.money(preview.cost_micros)) } span { (words.cost) } }
            div { b { (language.number(preview.total_parts)) } span { (words.parts) } }
            @if let Some(seconds) = preview.seconds { div { b { (duration(language, seconds)) } span { (words.ends) } } }
        }
        @if !preview.suppressed.is_empty() {
            p.hint { (words.left_out) " : "
                @for (reason, share) in &preview.suppressed { span title=(reason.as_str()) { (words.reason(*reason)) " " (language.number(*share)) " " } }
            }
        }
    }
}

fn duration(language: Language, seconds: i64) -> String {
    let words = language.words();
    match seconds {
        ..120 => format!("{} {}", seconds.max(1), words.seconds),
        120..7_200 => format!("{} {}", seconds / 60, words.minutes),
        _ => format!("{} {}", language.number(seconds / 3_600), words.hours),
    }
}

/// All of it once more, and the one button.
pub(crate) async fn summary(State(app): State<App>, visit: Visit, Form(announcement): Form<Announcement>) -> Markup {
    let (language, words) = (visit.language, visit.language.words());
    let checked = async {
        announcement.check()?;
        preview(&app, &visit, &announcement).await
    };
    let preview = match checked.await {
        Ok(preview) => preview,
        Err(trouble) => return html! { div.card { (trouble.shown(language)) } },
    };
    html! {
        div.card {
            h2 { (words.summary) }
            p { strong { (announcement.name) } }
            (contacts(language, preview.count))
            @if let Ok(Some(start)) = announcement.start() { p { (words.starts) " : " (start.strftime("%F %H:%M UTC").to_string()) } }
            @if let Ok(Some(deadline)) = announcement.deadline() { p { (words.deadline) " : " (deadline.strftime("%F %H:%M UTC").to_string()) } }
            (examples(language, &preview))
            form method="post" action="/announce/launch" hx-post="/announce/launch" hx-target="#summary" hx-disabled-elt="find button" {
                (form::hidden(&announcement))
                input type="hidden" name="key" value=(Uuid::from_bytes(rand::random()));
                div.actions {
                    button.main type="submit" id="launch" disabled[preview.count == 0] {
                        (words.send_to) " " (language.number(preview.count)) " "
                        (if preview.count == 1 { words.contact } else { words.contacts })
                    }
                    a.button href="#announcement" { (words.change) }
                }
            }
        }
    }
}

pub(crate) async fn launch(State(app): State<App>, visit: Visit, Form(launch): Form<Launch>) -> Response {
    match start(&app, &visit, &launch).await {
        Ok(id) => layout::go(&visit.headers, &format!("/campaigns/{id}")),
        Err(trouble) if visit.headers.contains_key("hx-request") => {
            html! { div.card { (trouble.shown(visit.language)) } }.into_response()
        }
        Err(trouble) => layout::error_page(
            visit.language,
            visit.caller.as_ref(),
            trouble.status(),
            trouble.shown(visit.language),
        ),
    }
}

async fn start(app: &App, visit: &Visit, launch: &Launch) -> Result<Uuid, Trouble> {
    let (caller, announcement) = (visit.caller()?, launch.announcement());
    announcement.check()?;
    let key: Uuid = launch.key.parse().map_err(|_| Mistake::Summary)?;
    let template: Template = announcement.template(&format!("announce-{}", key.simple()))?;
    let name = template.name.clone();
    app.api.announcement_template(caller, template).await?;
    let campaign = app
        .api
        .campaign_create(
            caller,
            CampaignDraft {
                name: announcement.name.trim().to_owned(),
                condition: Some(announcement.expression().to_owned()),
                template: name,
                at: announcement.start()?,
                deadline: announcement.deadline()?,
                idempotency_key: Some(key.to_string()),
                ..CampaignDraft::default()
            },
        )
        .await?;
    app.api.campaign_launch(caller, campaign.id, None).await?;
    Ok(campaign.id)
}
