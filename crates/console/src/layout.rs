//! What every page stands in, and the pieces that several pages share.

use api::{ApiError, Caller};
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

use crate::{pages::replies, words::Language};

/// Which entry of the navigation a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Home,
    Announce,
    Replies,
    None,
}

/// A whole page.
pub(crate) fn page(language: Language, caller: Option<&Caller>, section: Section, title: &str, body: Markup) -> Markup {
    let words = language.words();
    html! {
        (DOCTYPE)
        html lang=(language.tag()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // The policy allows no inline style or script, so htmx must not add any.
                meta name="htmx-config" content=r#"{"includeIndicatorStyles":false,"allowEval":false,"selfRequestsOnly":true,"responseHandling":[{"code":"204","swap":false},{"code":"...","swap":true}]}"#;
                title { (title) " · tamtam" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/assets/console.css";
                script src="/assets/htmx.min.js" defer {}
                script src="/assets/sse.min.js" defer {}
            }
            body {
                header.top {
                    a.brand href="/" { "tamtam" }
                    nav {
                        @if caller.is_some() {
                            a href="/" aria-current=[(section == Section::Home).then_some("page")] { (words.home) }
                            a href="/announce" aria-current=[(section == Section::Announce).then_some("page")] { (words.announce) }
                        }
                        @if caller.is_some_and(replies::may_decide) {
                            a href="/replies" aria-current=[(section == Section::Replies).then_some("page")] {
                                (words.replies) " "
                                span hx-get="/replies/count" hx-trigger="load, every 20s" {}
                            }
                        }
                    }
                    form method="post" action="/language" {
                        input type="hidden" name="language" value=(language.other().tag());
                        button.plain type="submit" { (words.other_language) }
                    }
                    @if let Some(caller) = caller {
                        span.soft { (caller.name) }
                        form method="post" action="/sign-out" { button.plain type="submit" { (words.sign_out) } }
                    }
                }
                main { (body) }
            }
        }
    }
}

/// An error as a fragment: what was wrong and what was expected.
pub(crate) fn error(message: &str) -> Markup {
    html! { p.error role="alert" { (message) } }
}

/// What an operation did not do: its own message is English, and stands in the visitor's words.
pub(crate) fn refused(language: Language, refusal: &ApiError) -> Markup {
    let words = language.words();
    let Some(frame) = words.refused(refusal) else {
        return error(&refusal.message);
    };
    let (place, message) = words.place(&refusal.message);
    html! {
        p.error role="alert" {
            (frame) @if let Some(place) = place { ", " (place) } " : " span lang="en" { (message) }
        }
    }
}

/// A page that only says what went wrong.
pub(crate) fn error_page(language: Language, caller: Option<&Caller>, status: StatusCode, what: Markup) -> Response {
    let body = html! { div.card { h1 { (language.words().went_wrong) } (what) } };
    let markup = page(language, caller, Section::None, language.words().went_wrong, body);
    (status, markup).into_response()
}

/// Sends the browser (or htmx) to another page.
pub(crate) fn go(headers: &axum::http::HeaderMap, location: &str) -> Response {
    if headers.contains_key("hx-request") {
        return (StatusCode::NO_CONTENT, [("hx-redirect", location.to_owned())]).into_response();
    }
    (StatusCode::SEE_OTHER, [(header::LOCATION, location.to_owned())]).into_response()
}
