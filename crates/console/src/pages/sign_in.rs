//! Signing in with a key as the password, signing out, and choosing the language.

use api::{ErrorKind, Role};
use axum::{
    Form,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::Deserialize;

use crate::{
    App, Visit,
    layout::{self, Section},
    session,
    words::Language,
};

#[derive(Deserialize)]
pub(crate) struct SignIn {
    user: String,
    password: String,
}

pub(crate) async fn page(visit: Visit) -> Markup {
    form(&visit, None)
}

fn form(visit: &Visit, problem: Option<&str>) -> Markup {
    let words = visit.language.words();
    let body = html! {
        div.card.sign-in {
            h1 { (words.sign_in) }
            form method="post" action="/sign-in" {
                label for="user" { (words.user) }
                input id="user" name="user" autocomplete="username" value="admin" required;
                label for="password" { (words.password) " " small { (words.password_hint) } }
                input id="password" name="password" type="password" autocomplete="current-password" required autofocus;
                @if let Some(problem) = problem { (layout::error(problem)) }
                div.actions { button.main type="submit" { (words.sign_in) } }
            }
        }
    };
    layout::page(visit.language, None, Section::None, words.sign_in, body)
}

pub(crate) async fn sign_in(State(app): State<App>, visit: Visit, Form(form_data): Form<SignIn>) -> Response {
    let password = form_data.password.trim();
    match app.api.key_verify(password).await {
        // `admin` is whoever holds an admin key; any other key signs in under its own name.
        Ok(caller) if caller.name == form_data.user || (form_data.user == "admin" && caller.role == Role::Admin) => {
            let secure = visit
                .headers
                .get("x-forwarded-proto")
                .is_some_and(|proto| proto == "https");
            let cookie = app
                .sessions
                .open(&api::keys::hash(password), app.api.clock.now(), secure);
            (
                StatusCode::SEE_OTHER,
                [(header::SET_COOKIE, cookie), (header::LOCATION, "/".into())],
            )
                .into_response()
        }
        Err(error) if error.kind == ErrorKind::Unavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, form(&visit, Some(&error.message))).into_response()
        }
        _ => (
            StatusCode::UNAUTHORIZED,
            form(&visit, Some(visit.language.words().wrong_password)),
        )
            .into_response(),
    }
}

pub(crate) async fn sign_out(State(app): State<App>) -> Response {
    let cookie = app.sessions.close();
    (
        StatusCode::SEE_OTHER,
        [(header::SET_COOKIE, cookie), (header::LOCATION, "/sign-in".into())],
    )
        .into_response()
}

#[derive(Deserialize)]
pub(crate) struct Choice {
    language: String,
}

pub(crate) async fn language(visit: Visit, Form(choice): Form<Choice>) -> Response {
    let language = Language::from_tag(&choice.language).unwrap_or(visit.language);
    // Back to where the person was, by path alone: never to another host.
    let back = visit
        .headers
        .get(header::REFERER)
        .and_then(|referer| referer.to_str().ok())
        .and_then(|referer| url::Url::parse(referer).ok())
        .map_or_else(
            || "/".to_owned(),
            |referer| format!("/{}", referer.path().trim_start_matches('/')),
        );
    let cookie = session::language_cookie(language.tag());
    (
        StatusCode::SEE_OTHER,
        [(header::SET_COOKIE, cookie), (header::LOCATION, back)],
    )
        .into_response()
}
