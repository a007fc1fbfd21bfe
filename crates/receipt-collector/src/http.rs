//! Callbacks over HTTP: `GET` and `POST /callbacks/{gateway}`.
//!
//! Who may call: whoever proves it by what the gateway has configured ([`verify`]), from an address on its allow-list. Behind
//! a proxy that is trusted the address is the last one of `X-Forwarded-For` that is no such proxy.
//!
//! Limits: 64 KiB a body, [`AT_ONCE`] callbacks at once (more are told to come back), ten seconds for a request to
//! arrive. An answer with 200 means that it is kept; any other, that it is not and may be brought again.

use std::{
    future::IntoFuture as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, Path, RawQuery, Request, State, rejection::BytesRejection},
    http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use events::Callback;
use gateways::{
    Incoming as _,
    http::{CallbackRequest, verify},
};
use ipnet::IpNet;
use resources::gateway::{GatewayKind, Secrets};
use serde_json::json;
use stage::{Clock, Live};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::appender::Appender;

const MAX_BODY: usize = 64 * 1024;
/// An address with everything a gateway puts into it.
const MAX_QUERY: usize = 16 * 1024;
const AT_ONCE: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(15);
/// How long callbacks that are under way may take when it stops.
const DRAIN: Duration = Duration::from_secs(15);

pub(crate) struct Edge {
    live: Live,
    secrets: Secrets,
    clock: Clock,
    appender: Appender,
    places: Semaphore,
    trusted_proxies: Vec<IpNet>,
}

impl Edge {
    pub(crate) fn new(
        live: Live,
        secrets: Secrets,
        clock: Clock,
        appender: Appender,
        trusted_proxies: Vec<IpNet>,
    ) -> Edge {
        Edge {
            live,
            secrets,
            clock,
            appender,
            places: Semaphore::new(AT_ONCE),
            trusted_proxies,
        }
    }
}

pub(crate) async fn serve(
    listener: TcpListener,
    edge: Edge,
    links: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let edge = Arc::new(edge);
    let app = Router::new()
        .route("/callbacks/{gateway}", get(callback).post(callback))
        .merge(links.with_state(()))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(edge.clone(), limits))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(edge);
    let served = axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .into_future();
    tokio::select! {
        ended = served => ended,
        // A gateway that keeps its connection open for ever does not keep the process.
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    }
}

async fn limits(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let Ok(_place) = edge.places.try_acquire() else {
        return counted(
            "busy",
            StatusCode::SERVICE_UNAVAILABLE,
            "too many at once, bring it again\n",
        );
    };
    match tokio::time::timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => counted("slow", StatusCode::REQUEST_TIMEOUT, "it took too long to arrive\n"),
    }
}

async fn callback(
    State(edge): State<Arc<Edge>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(gateway): Path<String>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let snapshot = edge.live.current();
    let Some(resource) = snapshot
        .gateways
        .get(&gateway)
        .filter(|resource| resource.kind == GatewayKind::Http)
    else {
        return counted("no-gateway", StatusCode::NOT_FOUND, "no HTTP gateway has this name\n");
    };
    let query = query.unwrap_or_default();
    if query.len() > MAX_QUERY {
        return counted("too-large", StatusCode::URI_TOO_LONG, "the address is over 16 KiB\n");
    }
    // Taken here and not by axum itself, which would answer without counting it.
    let body = match body {
        Ok(body) => body,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return counted("too-large", StatusCode::PAYLOAD_TOO_LARGE, "the body is over 64 KiB\n");
        }
        Err(_) => return counted("broken", StatusCode::BAD_REQUEST, "the body broke off\n"),
    };
    let header = |name: &str| {
        let value = headers.get(name)?;
        Some(value.to_str().ok()?.to_owned())
    };
    if !resource.callback_allowed(origin(peer.ip(), &headers, &edge.trusted_proxies)) {
        return counted(
            "address",
            StatusCode::UNAUTHORIZED,
            "the callback does not come from an address of the gateway\n",
        );
    }
    let now = edge.clock.now();
    let request = CallbackRequest {
        query: &query,
        header: &header,
        body: &body,
    };
    let secret = resource.callback_secret(&edge.secrets);
    if verify(resource, secret.as_deref(), &request, now).is_err() {
        return counted(
            "unproven",
            StatusCode::UNAUTHORIZED,
            "the callback does not prove its origin\n",
        );
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let meta = json!({
        "method": method.as_str(),
        "query": without_secret(&query),
        "content_type": content_type.unwrap_or_default(),
    });
    let kept = edge
        .appender
        .deliver(Callback {
            gateway,
            transport: "http".into(),
            received_at: now,
            meta: meta.as_object().cloned().unwrap_or_default(),
            body: body.to_vec(),
        })
        .await;
    match kept {
        Ok(()) => counted("kept", StatusCode::OK, ""),
        Err(_) => counted(
            "not-kept",
            StatusCode::SERVICE_UNAVAILABLE,
            "not kept, bring it again\n",
        ),
    }
}

/// The address that a callback comes from. A header is believed only as far as each hop behind it is trusted.
fn origin(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(&address.to_canonical()));
    let mut origin = peer;
    let hops: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    for hop in hops.into_iter().rev() {
        if !is_trusted(&origin) {
            break;
        }
        match hop.trim().parse() {
            Ok(address) => origin = address,
            Err(_) => break,
        }
    }
    origin
}

/// The shared secret has done its work; it does not belong on the bus.
fn without_secret(query: &str) -> String {
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("secret=")).collect();
    kept.join("&")
}

fn counted(result: &'static str, status: StatusCode, text: &'static str) -> Response {
    metrics::counter!("tamtam_callbacks_total", "result" => result).increment(1);
    (status, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "198.51.100.1, 203.0.113.5".parse().unwrap());
        headers.append("x-forwarded-for", "10.0.0.2".parse().unwrap());
        let seen = |peer: &str, trusted: &[&str]| {
            let trusted: Vec<IpNet> = trusted.iter().map(|text| text.parse().unwrap()).collect();
            origin(peer.parse().unwrap(), &headers, &trusted).to_string()
        };
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(
            seen("10.0.0.1", &["10.0.0.0/8"]),
            "203.0.113.5",
            "what the client wrote before it is not"
        );
        assert_eq!(seen("192.0.2.1", &["10.0.0.0/8"]), "192.0.2.1");
    }

    #[test]
    fn the_secret_is_not_kept() {
        assert_eq!(without_secret("a=1&secret=x&b=2"), "a=1&b=2");
        assert_eq!(without_secret("secret=x"), "");
    }
}
