//! Short links: `GET /l/CODE` leads to the address that is kept under the code, and says on `clicks` who followed it.
//!
//! It is answered on the callbacks' listener, because that one is reachable from outside already. The answer takes one
//! look-up by key and waits for nothing else: the click is put into a bounded queue and appended together with others. A
//! click that was answered a moment before the process is killed may be lost, and under a flood those beyond the queue are
//! (`tamtam_clicks_total{result="dropped"}`): nobody is kept waiting for statistics.
//!
//! Who says that it is no person is led on and not counted: `HEAD`, a prefetch, a user agent that names a bot or a
//! preview. There is no open redirect: only kept addresses are led to, and nothing of the request becomes part of one.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, USER_AGENT},
    },
    response::{IntoResponse as _, Response},
    routing::get,
};
use bus::{Log, NewRecord};
use events::{Click, Topic};
use stage::Clock;
use store::Store;
use tokio::sync::mpsc;
use uuid::Uuid;

/// In one append.
const BATCH: usize = 500;
/// Clicks that wait for the bus.
const QUEUE: usize = 10_000;
/// Between two tries of an append.
const PAUSE: Duration = Duration::from_millis(500);
/// Tries after which it is given up, once the service stops.
const LAST_TRIES: usize = 10;
const CODE: usize = 11;

/// Words of user agents that say they are no person, in lower case.
const BOTS: [&str; 16] = [
    "bot",
    "crawl",
    "spider",
    "preview",
    "facebookexternalhit",
    "whatsapp",
    "slurp",
    "scan",
    "fetch",
    "monitor",
    "curl/",
    "wget/",
    "python-requests",
    "go-http-client",
    "headless",
    "validator",
];

struct Links {
    store: Store,
    clock: Clock,
    clicks: mpsc::Sender<Click>,
}

/// The routes, and what appends their clicks: it ends when the routes are gone and all is appended.
pub(crate) fn start(store: Store, clock: Clock, log: Arc<dyn Log>) -> (Router, impl Future<Output = ()>) {
    let (clicks, waiting) = mpsc::channel(QUEUE);
    let links = Arc::new(Links { store, clock, clicks });
    let routes = Router::new().route("/l/{code}", get(follow)).with_state(links);
    (routes, append(log, waiting))
}

async fn follow(
    State(links): State<Arc<Links>>,
    Path(code): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    // What is no code needs no look-up.
    if code.len() != CODE || !code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return refused("unknown", StatusCode::NOT_FOUND);
    }
    let link = match links.store.link_get(&code).await {
        Ok(Some(link)) => link,
        Ok(None) => return refused("unknown", StatusCode::NOT_FOUND),
        Err(error) => {
            tracing::warn!(%error, "a short link cannot be looked up now");
            return refused("failed", StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    let Ok(location) = HeaderValue::try_from(&link.url) else {
        return refused("unknown", StatusCode::NOT_FOUND);
    };
    let result = match is_person(&method, &headers) {
        false => "bot",
        true => {
            let click = Click {
                id: Uuid::from_bytes(rand::random()),
                contact_id: link.contact_id,
                message_id: link.message_id,
                code,
                url: without_query(&link.url).to_owned(),
                at: links.clock.now(),
            };
            match links.clicks.try_send(click) {
                Ok(()) => "counted",
                Err(_) => "dropped",
            }
        }
    };
    metrics::counter!("tamtam_clicks_total", "result" => result).increment(1);
    let headers = [
        (LOCATION, location),
        // The next time it is a click again.
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (StatusCode::FOUND, headers).into_response()
}

fn refused(result: &'static str, status: StatusCode) -> Response {
    metrics::counter!("tamtam_clicks_total", "result" => result).increment(1);
    status.into_response()
}

/// A query may hold what an address says of a person.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

fn is_person(method: &Method, headers: &HeaderMap) -> bool {
    let value = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let prefetch = ["purpose", "sec-purpose", "x-purpose", "x-moz"]
        .into_iter()
        .any(|name| value(name).contains("prefetch") || value(name).contains("preview"));
    let agent = value(USER_AGENT.as_str()).to_ascii_lowercase();
    *method == Method::GET && !prefetch && !agent.is_empty() && !BOTS.iter().any(|word| agent.contains(word))
}

async fn append(log: Arc<dyn Log>, mut waiting: mpsc::Receiver<Click>) {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let records: Vec<NewRecord> = batch
            .drain(..)
            .map(|click| {
                let id = click.id.hyphenated().to_string();
                NewRecord::wrap(Topic::Clicks, &click.contact_id, id, click.at, None, &click)
            })
            .collect();
        let mut last = 0;
        while let Err(error) = log.append(records.clone()).await {
            tracing::warn!(%error, clicks = records.len(), "clicks cannot be kept now, trying again");
            // While it goes on they wait; a process that stops does not wait for ever.
            last += usize::from(waiting.is_closed());
            if last == LAST_TRIES {
                tracing::warn!(clicks = records.len(), "clicks are lost: the bus does not answer");
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_that_it_is_a_bot_is_one() {
        let person = |method: &Method, pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            is_person(method, &headers)
        };
        let phone = "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/126.0 Mobile Safari/537.36";
        assert!(person(&Method::GET, &[("user-agent", phone)]));
        assert!(!person(&Method::HEAD, &[("user-agent", phone)]));
        assert!(!person(&Method::GET, &[]));
        assert!(!person(
            &Method::GET,
            &[("user-agent", phone), ("sec-purpose", "prefetch;prerender")]
        ));
        for agent in [
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "WhatsApp/2.23",
            "facebookexternalhit/1.1",
            "curl/8.5.0",
        ] {
            assert!(!person(&Method::GET, &[("user-agent", agent)]), "{agent}");
        }
        assert_eq!(without_query("https://a.example/b?c=42#d"), "https://a.example/b");
    }
}
