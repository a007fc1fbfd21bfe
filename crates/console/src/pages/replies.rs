//! Replies that only a person decides: they sound like a wish to be left alone and are no keyword.
//!
//! Plain forms, so that it works without scripts. Two people may have the page open: who decides second is told so.

use api::{ApiError, Caller, ErrorKind, Role, replies::Meaning};
use axum::{
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    App, Visit,
    layout::{self, Section},
};

/// How many are on the page; the oldest.
const SHOWN: i64 = 100;

#[derive(Deserialize)]
pub(crate) struct Shown {
    /// The last decision came too late.
    #[serde(default)]
    gone: bool,
}

/// Whether the caller may read replies and decide on them.
pub(crate) fn may_decide(caller: &Caller) -> bool {
    caller.require(&[Role::Campaigns]).is_ok()
}

pub(crate) async fn page(State(app): State<App>, visit: Visit, Query(shown): Query<Shown>) -> Response {
    match body(&app, &visit, shown.gone).await {
        Ok(body) => {
            let title = visit.language.words().replies;
            layout::page(visit.language, visit.caller.as_ref(), Section::Replies, title, body).into_response()
        }
        Err(error) => visit.error(&error),
    }
}

async fn body(app: &App, visit: &Visit, gone: bool) -> Result<Markup, ApiError> {
    let words = visit.language.words();
    let replies = app.api.replies_to_review(visit.caller()?, SHOWN).await?;
    Ok(html! {
        h1 { (words.replies) }
        @if gone { p.warn role="status" { (words.reply_gone) } }
        @if replies.is_empty() {
            div.card { p.soft { (words.no_replies) } }
        } @else {
            div.card {
                p.soft { (words.replies_hint) }
                table #replies {
                    thead { tr { th { (words.received) } th { (words.reply_from) } th { (words.text) } th {} } }
                    tbody {
                        @for reply in &replies {
                            tr data-contact=[reply.contact_id.as_deref()] {
                                td.soft { time { (reply.received_at.strftime("%F %H:%M UTC").to_string()) } }
                                td { (reply.contact_id.as_deref().unwrap_or(words.nobody_known)) }
                                td { div.sms { (reply.text) } }
                                td {
                                    div.actions {
                                        (button(reply.id, "stop", "bad", words.reply_stop, words.reply_stop_means))
                                        (button(reply.id, "dismiss", "", words.reply_dismiss, words.reply_dismiss_means))
                                    }
                                }
                            }
                        }
                    }
                }
                @if replies.len() as i64 == SHOWN { p.soft { (words.replies_more) } }
            }
        }
    })
}

fn button(id: Uuid, action: &str, class: &str, word: &str, means: &str) -> Markup {
    html! {
        form method="post" action={ "/replies/" (id) "/" (action) } {
            button type="submit" class=(class) title=(means) data-action=(action) { (word) }
        }
    }
}

/// How many wait, for the navigation; nothing where none does. A database that is away shows nothing either.
pub(crate) async fn count(State(app): State<App>, visit: Visit) -> Markup {
    let waiting = match visit.caller() {
        Ok(caller) => app.api.replies_waiting(caller).await.unwrap_or(0),
        Err(_) => 0,
    };
    html! { @if waiting > 0 { span.badge data-waiting=(waiting) { (visit.language.number(waiting)) } } }
}

pub(crate) async fn decide(State(app): State<App>, visit: Visit, Path((id, action)): Path<(Uuid, String)>) -> Response {
    let meaning = match action.as_str() {
        "stop" => Meaning::Stop,
        "dismiss" => Meaning::Nothing,
        _ => return visit.error(&ApiError::not_found("action")),
    };
    let decided = match visit.caller() {
        Ok(caller) => app.api.reply_decide(caller, id, meaning).await,
        Err(error) => Err(error),
    };
    match decided {
        Ok(()) => layout::go(&visit.headers, "/replies"),
        Err(error) if error.kind == ErrorKind::NotFound => layout::go(&visit.headers, "/replies?gone=true"),
        Err(error) => visit.error(&error),
    }
}
