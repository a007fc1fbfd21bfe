//! Gateways over HTTP, as their resource describes them: nothing here knows a provider.
//!
//! A refused or failed connection is [`Outcome::Unreachable`]; once the request may have been written, everything but an
//! answer is [`Outcome::Unknown`]. Redirects are not followed: what was asked of one address is not asked of another.

mod answer;
mod callback;
mod request;
mod verify;

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use domain::Reason;
use reqwest::{Client, Response, redirect};
use resources::gateway::Http;
use tokio::{sync::Semaphore, time::Instant};

pub(crate) use answer::outcome;
pub(crate) use callback::understand;
pub use verify::{CallbackRequest, Unproven, verify};

use self::request::Writer;
use crate::{Gateway, GatewayError, Now, Outcome, Submission, backoff::Backoff};

/// More of an answer is not read: nothing that we look for stands so far behind.
const MAX_ANSWER: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A gateway spoken to over HTTP.
pub struct HttpGateway {
    name: String,
    client: Client,
    description: Http,
    writer: Writer,
    now: Now,
    window: Semaphore,
    width: u32,
    timeout: Duration,
    closed: AtomicBool,
    health: Mutex<Health>,
}

/// After a failed connection the gateway counts as down for a while that grows; then one may try.
struct Health {
    backoff: Backoff,
    down_until: Option<Instant>,
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
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .timeout(timeout)
            .pool_max_idle_per_host(resource.window as usize)
            .user_agent("tamtam")
            .no_proxy()
            .build()
            .map_err(|_| wrong("http", "no HTTP client can be made of it".into()))?;
        Ok(HttpGateway {
            name: resource.name.clone(),
            client,
            writer: Writer::new(resource, &description, password).map_err(|message| wrong("http", message))?,
            description,
            now,
            window: Semaphore::new(resource.window.max(1) as usize),
            width: resource.window.max(1),
            timeout,
            closed: AtomicBool::new(false),
            health: Mutex::new(Health {
                backoff: Backoff::new(),
                down_until: None,
            }),
        })
    }

    fn connected(&self, up: bool) {
        // A poisoned lock would only mean that somebody panicked between two plain assignments.
        let mut health = self.health.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if up {
            health.down_until = None;
            health.backoff.reset();
        } else if health.down_until.is_none_or(|until| until <= Instant::now()) {
            health.down_until = Some(Instant::now() + health.backoff.wait());
        }
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            let room = MAX_ANSWER - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if body.len() == MAX_ANSWER {
                break;
            }
        }
        Ok(body)
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
        let Ok(request) = self.writer.write(&self.client, &message, (self.now)()) else {
            return Outcome::Refused {
                code: "local-request".into(),
                reason: Reason::GatewayRefused,
            };
        };
        let response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                self.connected(false);
                return Outcome::Unreachable;
            }
            Err(_) => return unknown,
        };
        self.connected(true);
        let status = response.status().as_u16();
        match self.read(response).await {
            Ok(body) => answer::outcome(
                &self.description,
                status,
                &body,
                &message.reference.hyphenated().to_string(),
            ),
            Err(_) if (200..300).contains(&status) => unknown,
            // The status alone already says that it was not taken, or says nothing.
            Err(_) => answer::outcome(&self.description, status, b"", ""),
        }
    }

    fn is_up(&self) -> bool {
        let health = self.health.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        !self.closed.load(Ordering::Relaxed) && health.down_until.is_none_or(|until| until <= Instant::now())
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // All places of the window: nothing is under way any more.
        let _ = tokio::time::timeout(self.timeout, self.window.acquire_many(self.width)).await;
    }
}

impl fmt::Debug for HttpGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpGateway")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
