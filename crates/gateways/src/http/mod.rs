//! Gateways over HTTP, as their resource describes them: nothing here knows a provider.
//!
//! A refused or failed connection is [`Outcome::Unreachable`]; once the request may have been written, everything but an
//! answer is [`Outcome::Unknown`]. Redirects are not followed: what was asked of one address is not asked of another.

mod answer;
mod callback;
mod connections;
mod request;
mod verify;

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use domain::Reason;
use resources::gateway::Http;
use tokio::{sync::Semaphore, time::Instant};

pub(crate) use answer::outcome;
pub(crate) use callback::understand;
pub use verify::{CallbackRequest, Unproven, verify};

use self::{
    connections::{Asked, Connections},
    request::Writer,
};
use crate::{
    Gateway, GatewayError, Now, Outcome, Submission,
    backoff::Backoff,
    tls::{self, Trust},
};

/// After so many failed connections in a row the gateway counts as down. One is a hiccup: everything that waits would go to
/// another gateway and come back.
const DOWN_AFTER: u32 = 3;

/// A gateway spoken to over HTTP.
pub struct HttpGateway {
    name: String,
    connections: Connections,
    description: Http,
    writer: Writer,
    now: Now,
    window: Semaphore,
    width: u32,
    closed: AtomicBool,
    health: Mutex<Health>,
}

/// After [`DOWN_AFTER`] failed connections the gateway counts as down for a while that grows; then one may try.
struct Health {
    backoff: Backoff,
    /// Failed connections in a row. Those that were tried together are one.
    failed: u32,
    failed_at: Option<Instant>,
    down_until: Option<Instant>,
}

impl Health {
    fn note(&mut self, up: bool, begun: Instant, now: Instant) {
        if up {
            self.failed = 0;
            self.failed_at = None;
            self.down_until = None;
            self.backoff.reset();
            return;
        }
        if self.failed_at.is_some_and(|at| begun <= at) {
            return;
        }
        self.failed += 1;
        self.failed_at = Some(now);
        if self.failed >= DOWN_AFTER && self.down_until.is_none_or(|until| until <= now) {
            self.down_until = Some(now + self.backoff.wait());
        }
    }

    fn is_down(&self, now: Instant) -> bool {
        self.down_until.is_some_and(|until| until > now)
    }
}

impl HttpGateway {
    pub(crate) fn open(
        resource: &resources::Gateway,
        password: Option<String>,
        now: Now,
    ) -> Result<HttpGateway, GatewayError> {
        let wrong = |key: &'static str, message: String| GatewayError::Setting {
            gateway: resource.name.clone(),
            key,
            message,
        };
        let description = resource
            .http_description()
            .map_err(|problem| wrong(problem.key, problem.message))?;
        let timeout = resource.response_timeout().duration().unsigned_abs();
        let writer = Writer::new(resource, &description, password).map_err(|message| wrong("http", message))?;
        let window = resource.window.max(1);
        let address = writer.address();
        let trust = match address.scheme_str() {
            Some("https") => Trust::Machine,
            _ => Trust::Nobody,
        };
        let trusted = tls::config(resource, trust)?;
        let connections = Connections::new(address, trusted, tls::name(resource)?, timeout, window as usize);
        Ok(HttpGateway {
            name: resource.name.clone(),
            connections,
            writer,
            description,
            now,
            window: Semaphore::new(window as usize),
            width: window,
            closed: AtomicBool::new(false),
            health: Mutex::new(Health {
                backoff: Backoff::new(),
                failed: 0,
                failed_at: None,
                down_until: None,
            }),
        })
    }

    /// Whether an attempt that began at `begun` found the gateway.
    fn connected(&self, up: bool, begun: Instant) {
        // A poisoned lock would only mean that somebody panicked between two plain assignments.
        let mut health = self.health.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        health.note(up, begun, Instant::now());
    }
}

#[async_trait]
impl Gateway for HttpGateway {
    async fn submit(&self, message: Submission) -> Outcome {
        let Ok(_place) = self.window.acquire().await else {
            return Outcome::Unreachable;
        };
        if self.closed.load(Ordering::Relaxed) {
            return Outcome::Unreachable;
        }
        let unknown = Outcome::Unknown {
            code: None,
            parts: Vec::new(),
        };
        let Ok(request) = self.writer.write(&message, (self.now)()) else {
            return Outcome::Refused {
                code: "local-request".into(),
                reason: Reason::GatewayRefused,
            };
        };
        let begun = Instant::now();
        let asked = self.connections.ask(request).await;
        let (status, body) = match asked {
            Asked::NotSent => {
                self.connected(false, begun);
                return Outcome::Unreachable;
            }
            Asked::Lost => return unknown,
            Asked::Answered { status, body } => (status, body),
        };
        self.connected(true, begun);
        match body {
            Some(body) => answer::outcome(
                &self.description,
                status,
                &body,
                &message.reference.hyphenated().to_string(),
            ),
            None if (200..300).contains(&status) => unknown,
            // The status alone already says that it was not taken, or says nothing.
            None => answer::outcome(&self.description, status, b"", ""),
        }
    }

    fn is_up(&self) -> bool {
        let health = self.health.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        !self.closed.load(Ordering::Relaxed) && !health.is_down(Instant::now())
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // All places of the window: nothing is under way any more.
        let _ = tokio::time::timeout(self.connections.longest(), self.window.acquire_many(self.width)).await;
        self.connections.close();
    }
}

impl fmt::Debug for HttpGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpGateway")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_goes_down_after_several_failed_connections_and_one_good_one_brings_it_back() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut health = Health {
            backoff: Backoff::new(),
            failed: 0,
            failed_at: None,
            down_until: None,
        };
        // Ten at once are one.
        for _ in 0..10 {
            health.note(false, at(0), at(10));
        }
        health.note(false, at(20), at(30));
        assert!(!health.is_down(at(30)));
        health.note(true, at(40), at(50));
        for ms in [60, 80] {
            health.note(false, at(ms), at(ms + 10));
            assert!(!health.is_down(at(ms + 10)));
        }
        health.note(false, at(100), at(110));
        assert!(health.is_down(at(111)));
        // When its time is over one may try; that alone decides.
        assert!(!health.is_down(at(300)));
        health.note(false, at(300), at(310));
        assert!(health.is_down(at(311)));
        health.note(true, at(600), at(610));
        assert!(!health.is_down(at(610)));
    }
}
