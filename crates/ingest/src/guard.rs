//! Who may call: before a request's body is read. Everything needs a key but health and reflection, which tell nothing
//! of anybody.

use std::sync::Arc;

use api::{Api, Caller};
use axum::{
    body::Body,
    extract::{Request, State},
    http::HeaderMap,
    middleware::Next,
    response::Response,
};
use tokio::sync::Semaphore;
use tonic::Status;

use crate::status::status;

/// Unary calls at once: what bounds the memory that requests take.
const MAX_CALLS: usize = 512;
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

#[derive(Clone, Debug)]
pub(crate) struct Guard {
    api: Api,
    calls: Arc<Semaphore>,
}

impl Guard {
    pub(crate) fn new(api: Api) -> Guard {
        Guard {
            api,
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
        }
    }
}

/// The `traceparent` of the call's metadata.
#[derive(Clone, Debug)]
pub(crate) struct Trace(pub Option<String>);

pub(crate) async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    if OPEN.iter().any(|prefix| request.uri().path().starts_with(prefix)) {
        return next.run(request).await;
    }
    let Ok(_permit) = guard.calls.try_acquire() else {
        return refuse(Status::resource_exhausted("too many calls at once: try again"));
    };
    let header = |headers: &HeaderMap, name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let key = header(request.headers(), "authorization");
    match guard.api.authorize(key.as_deref()).await {
        Ok(caller) => {
            let trace = Trace(header(request.headers(), "traceparent"));
            request.extensions_mut().insert(trace);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => refuse(status(error)),
    }
}

fn refuse(status: Status) -> Response {
    status.into_http::<Body>()
}

/// Who calls, as the guard found it.
pub(crate) fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    // The guard stands before every service: without it nothing is served.
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("no API key"))
}

pub(crate) fn trace<T>(request: &tonic::Request<T>) -> Option<String> {
    request.extensions().get::<Trace>().and_then(|trace| trace.0.clone())
}
