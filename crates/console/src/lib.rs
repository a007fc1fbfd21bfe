//! The console: the pages of whoever manages an online shop.
//!
//! Server-rendered HTML with htmx and server-sent events; every page works over the same operations as gRPC and HTTP
//! (`api`), so it can do nothing that a key of its role could not. One module a page under `pages`, fragments that
//! several share in `layout` and `progress`. Adding a page: a module with its handlers, its routes in [`router`], its
//! words in `words`.
//!
//! The server carries no state (sessions are signed cookies), so replicas need no affinity, and a restart signs nobody
//! out. A launch carries an idempotency key made with its summary: pressing twice, or pressing again after a crash,
//! launches once.

mod layout;
mod pages;
mod progress;
mod session;
pub mod words;

use std::{net::SocketAddr, time::Duration};

use api::{Api, ApiError, Caller, ErrorKind};
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use session::Sessions;
use words::Language;

const MAX_FORM_BYTES: usize = 256 * 1024;
/// How long open pages (streams of progress) may take to end when it stops.
const DRAIN: Duration = Duration::from_secs(5);

/// What the console needs. The listener is bound by the caller.
pub struct Config {
    pub listener: TcpListener,
    pub api: Api,
    /// The HTTP API, served beside the pages.
    pub http: Router,
    /// What sessions are signed with.
    pub session_secret: Vec<u8>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the console's server failed")]
    Server(#[from] std::io::Error),
}

#[derive(Clone, Debug)]
pub(crate) struct App {
    api: Api,
    sessions: Sessions,
    stopping: CancellationToken,
}

/// Serves until `shutdown`.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let app = App {
        api: config.api,
        sessions: Sessions::new(config.session_secret),
        stopping: shutdown.clone(),
    };
    let routes = router(app).merge(config.http);
    let server = axum::serve(
        config.listener,
        routes.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    tokio::select! {
        done = server => done?,
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => {
            tracing::warn!("some pages did not close in time");
        }
    }
    Ok(())
}

fn router(app: App) -> Router {
    let pages = Router::new()
        .route("/", get(pages::home::page))
        .route("/home/events", get(pages::home::events))
        .route("/announce", get(pages::announce::page))
        .route("/announce/count", post(pages::announce::count))
        .route("/announce/estimate", post(pages::announce::estimate))
        .route("/announce/summary", post(pages::announce::summary))
        .route("/announce/launch", post(pages::announce::launch))
        .route("/campaigns/{id}", get(pages::campaign::page))
        .route("/campaigns/{id}/events", get(pages::campaign::events))
        .route("/campaigns/{id}/{action}", post(pages::campaign::act))
        .route("/replies", get(pages::replies::page))
        .route("/replies/count", get(pages::replies::count))
        .route("/replies/{id}/{action}", post(pages::replies::decide))
        .route("/sign-out", post(pages::sign_in::sign_out))
        .layer(axum::middleware::from_fn_with_state(app.clone(), signed_in));
    let open = Router::new()
        .route("/sign-in", get(pages::sign_in::page).post(pages::sign_in::sign_in))
        .route("/language", post(pages::sign_in::language))
        .route("/assets/{name}", get(pages::assets::asset));
    pages
        .merge(open)
        .fallback(pages::not_found)
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(axum::middleware::from_fn(guard))
        .with_state(app)
}

/// Lets nobody in who is not signed in.
async fn signed_in(State(app): State<App>, mut request: Request, next: Next) -> Response {
    match app.sessions.caller(request.headers(), &app.api).await {
        Some(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        None => layout::go(request.headers(), "/sign-in"),
    }
}

/// What holds for every page: a POST comes from our own pages, and the browser is told to run nothing but our scripts.
async fn guard(request: Request, next: Next) -> Response {
    if request.method() == Method::POST && !session::same_origin(request.headers()) {
        return (
            StatusCode::FORBIDDEN,
            "the request does not come from a page of this console",
        )
            .into_response();
    }
    let mut response: Response<Body> = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What every handler of a page is handed.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) language: Language,
    pub(crate) headers: HeaderMap,
    /// Absent on the pages before signing in.
    pub(crate) caller: Option<Caller>,
}

impl Visit {
    /// The caller of a page behind [`signed_in`].
    pub(crate) fn caller(&self) -> Result<&Caller, ApiError> {
        self.caller
            .as_ref()
            .ok_or_else(|| ApiError::new(ErrorKind::Unauthenticated, "nobody is signed in"))
    }

    /// An error as a page of its own.
    pub(crate) fn error(&self, error: &ApiError) -> Response {
        let what = layout::refused(self.language, error);
        layout::error_page(self.language, self.caller.as_ref(), status(error.kind), what)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visit {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Visit, Self::Rejection> {
        let accepted = parts
            .headers
            .get(header::ACCEPT_LANGUAGE)
            .and_then(|value| value.to_str().ok());
        Ok(Visit {
            language: session::language(&parts.headers)
                .and_then(Language::from_tag)
                .unwrap_or_else(|| Language::accepted(accepted)),
            headers: parts.headers.clone(),
            caller: parts.extensions.get::<Caller>().cloned(),
        })
    }
}

pub(crate) fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
