//! Who may call: before a request's body is read. Everything needs a key but health and reflection, which tell nothing
//! of anybody.

use std::sync::Arc;

use api::{Api, Caller, Role};
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

const EVERY: &[Role] = &[Role::Campaigns, Role::Events, Role::Read];
const READERS: &[Role] = &[Role::Campaigns, Role::Read];
const WRITERS: &[Role] = &[Role::Campaigns, Role::Events];
const CAMPAIGNS: &[Role] = &[Role::Campaigns];
const EVENTS: &[Role] = &[Role::Events];

/// Who may call what, beside admins. The operations look again; here a wrong role is refused before the request is read.
/// A method that is not in the table is for admins.
pub const ROLES: [(&str, &[Role]); 15] = [
    ("/tamtam.v1.EventService/Publish", EVENTS),
    ("/tamtam.v1.EventService/PublishStream", EVENTS),
    ("/tamtam.v1.ContactService/Upsert", WRITERS),
    ("/tamtam.v1.ContactService/Get", EVERY),
    ("/tamtam.v1.ContactService/Erase", WRITERS),
    ("/tamtam.v1.MessageService/Send", WRITERS),
    ("/tamtam.v1.MessageService/Get", EVERY),
    ("/tamtam.v1.CampaignService/Create", CAMPAIGNS),
    ("/tamtam.v1.CampaignService/Launch", CAMPAIGNS),
    ("/tamtam.v1.CampaignService/Pause", CAMPAIGNS),
    ("/tamtam.v1.CampaignService/Resume", CAMPAIGNS),
    ("/tamtam.v1.CampaignService/Cancel", CAMPAIGNS),
    ("/tamtam.v1.CampaignService/Get", READERS),
    ("/tamtam.v1.CampaignService/Watch", READERS),
    ("/tamtam.v1.AudienceService/Count", READERS),
];

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
            let listed = ROLES.iter().find(|(method, _)| *method == request.uri().path());
            // Only paths that are ours become a label.
            let method = listed.map_or("unknown", |(method, _)| *method);
            metrics::counter!("tamtam_grpc_calls_total", "method" => method).increment(1);
            if let Err(error) = caller.require(listed.map_or(&[], |(_, roles)| roles)) {
                return refuse(status(error));
            }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;

    use super::*;

    #[test]
    fn every_method_has_its_roles_and_every_service_its_health() {
        let set = prost_types::FileDescriptorSet::decode(crate::proto::DESCRIPTORS).unwrap();
        let (mut methods, mut services) = (BTreeSet::new(), BTreeSet::new());
        for file in &set.file {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                methods.extend(service.method.iter().map(|method| format!("/{name}/{}", method.name())));
                services.insert(name);
            }
        }
        let listed: BTreeSet<String> = ROLES.iter().map(|(method, _)| (*method).to_owned()).collect();
        assert_eq!(listed, methods);
        let healthy: BTreeSet<String> = crate::services::NAMES.map(str::to_owned).into();
        assert_eq!(healthy, services);
    }
}
