//! The same operations over HTTP, in JSON, under `/v1`.
//!
//! Every route needs an API key (`authorization: Bearer tt_…`), or a caller that a layer in front has put into the
//! request's extensions (the console's sessions). Before a body is read the caller's role is looked at. The limits: a
//! body of 16 MiB (imports and NDJSON are read piece by piece and have none), 30 s for the next piece of a body, 256
//! requests and 64 streams (tails, watches) at once, more are refused with 503. `/openapi.json` describes all of it and
//! needs no key.

mod audience;
mod audit;
mod campaigns;
mod contacts;
mod dead_letters;
mod events;
mod extract;
mod gateways;
mod keys;
mod lines;
mod messages;
mod messages_planned;
mod openapi;
mod preview;
mod problem;
mod receipts;
mod replies;
mod reports;
mod resources;
mod route;
mod sms;
mod suppressions;
mod topics;

use std::sync::Arc;

use api::{Api, ApiError, Caller, ErrorKind, Role};
use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::{problem::Problem, route::Routes};
use crate::guard::Trace;

/// Requests at once: what bounds the memory that they take.
const MAX_REQUESTS: usize = 256;
/// Streams that go on after their request was answered: tails and watches.
const MAX_STREAMS: usize = 64;

/// Roles beside admin, by what they may do.
const EVERY: &[Role] = &[Role::Campaigns, Role::Events, Role::Read];
const READERS: &[Role] = &[Role::Campaigns, Role::Read];
const WRITERS: &[Role] = &[Role::Campaigns, Role::Events];
const CAMPAIGNS: &[Role] = &[Role::Campaigns];
const EVENTS: &[Role] = &[Role::Events];
const READ: &[Role] = &[Role::Read];
const ADMIN: &[Role] = &[];

/// What the handlers share.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub api: Api,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Http {
    /// A place for a stream; it is free again when the permit is dropped.
    fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let permit = self.streams.clone().try_acquire_owned();
        permit.map_err(|_| {
            ApiError::new(
                ErrorKind::Unavailable,
                format!("{MAX_STREAMS} streams are open already: try again later"),
            )
            .into()
        })
    }
}

/// Everything under `/v1`, and `/openapi.json`.
pub fn router(api: Api) -> Router {
    let http = Http {
        api,
        requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
    };
    let routes = routes();
    let document: Arc<str> = openapi::document(&routes.operations).to_string().into();
    let unknown = any(async || Problem::from(ApiError::not_found("route: /openapi.json lists them")));
    let guarded = routes
        .router
        .route("/v1/{*unknown}", unknown)
        .route_layer(from_fn_with_state(http.clone(), authenticate));
    let described = get(async move || ([(header::CONTENT_TYPE, "application/json")], document.to_string()));
    guarded.route("/openapi.json", described).with_state(http)
}

/// `/openapi.json` without a server: for tools and tests.
pub fn openapi() -> serde_json::Value {
    openapi::document(&routes().operations)
}

fn routes() -> Routes {
    let routes = Routes::default();
    let routes = events::add(routes);
    let routes = contacts::add(routes);
    let routes = audience::add(routes);
    let routes = preview::add(routes);
    let routes = campaigns::add(routes);
    let routes = messages::add(routes);
    let routes = resources::add(routes);
    let routes = topics::add(routes);
    let routes = dead_letters::add(routes);
    let routes = audit::add(routes);
    let routes = receipts::add(routes);
    let routes = replies::add(routes);
    let routes = suppressions::add(routes);
    let routes = reports::add(routes);
    let routes = gateways::add(routes);
    let routes = keys::add(routes);
    sms::add(routes)
}

/// Who calls: a layer in front may know (a session), else the key says.
async fn authenticate(State(http): State<Http>, request: Request, next: Next) -> Response {
    // The route as it is written, not as it is called: a label holds no id.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unknown", |path| path.as_str())
        .to_owned();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let response = serve(http, request, next).await;
    let status = response.status().as_u16().to_string();
    metrics::counter!("tamtam_http_requests_total", "method" => method, "route" => route, "status" => status)
        .increment(1);
    response
}

async fn serve(http: Http, mut request: Request, next: Next) -> Response {
    let Ok(_permit) = http.requests.try_acquire() else {
        let busy = ApiError::new(ErrorKind::Unavailable, "too many requests at once: try again");
        return Problem::from(busy).into_response();
    };
    let text = |headers: &HeaderMap, name: &str| {
        let value = headers.get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    if request.extensions().get::<Caller>().is_none() {
        let key = text(request.headers(), "authorization");
        match http.api.authorize(key.as_deref()).await {
            Ok(caller) => request.extensions_mut().insert(caller),
            Err(error) => return Problem::from(error).into_response(),
        };
    }
    let trace = Trace(text(request.headers(), "traceparent"));
    request.extensions_mut().insert(trace);
    let mut response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "this method is not served here: see /openapi.json",
        )
        .into_response();
    }
    // What is answered is personal, and never to be guessed to be a page.
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
