//! SMPP 3.4 and 5.0, whose difference to a sender is the version that it binds with and some TLVs.
//!
//! Each bind is a task that owns its connection ([`session`]) and connects again when it breaks ([`Line`]); a submission is
//! written as PDUs by its caller, handed to a bind through a bounded queue, and answered through a channel of its own.
//!
//! What a cut connection means for a message: nothing of it had been given to the connection → not submitted, another
//! attempt is safe; anything of it had → unknown.

mod connect;
mod deliver;
mod flight;
mod judge;
mod line;
mod session;
mod status;
mod submit;
mod wire;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use domain::Reason;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use deliver::understand;
pub(crate) use wire::Frame;

use self::{
    connect::{ConnectError, Role, Target},
    flight::Request,
    line::State,
    session::{Ended, Rules, Session},
    status::Catalogue,
    submit::Composer,
};
use crate::{Gateway, GatewayError, Incoming, Now, Outcome, Submission, backoff::Backoff};

/// A gateway spoken to over SMPP, by one or several binds.
pub struct SmppGateway {
    name: String,
    composer: Composer,
    now: Now,
    lines: Vec<Handle>,
    next: AtomicUsize,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The caller's side of a bind.
struct Handle {
    requests: mpsc::Sender<Request>,
    state: Arc<State>,
}

impl SmppGateway {
    pub(crate) fn open(
        resource: &resources::Gateway,
        password: Option<String>,
        now: Now,
        incoming: Option<Arc<dyn Incoming>>,
    ) -> Result<SmppGateway, GatewayError> {
        let target = Arc::new(Target::new(resource, password)?);
        let role = Role::sending(resource.bind);
        let rules = rules(resource, now.clone(), incoming);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let lines = (0..resource.binds.max(1))
            .map(|_| {
                let (sender, requests) = mpsc::channel(rules.window);
                let state = Arc::new(State::default());
                let line = Line {
                    target: target.clone(),
                    role,
                    rules: rules.clone(),
                    state: state.clone(),
                    stop: stop.clone(),
                };
                tasks.spawn(line.keep(requests));
                Handle {
                    requests: sender,
                    state,
                }
            })
            .collect();
        tasks.close();
        Ok(SmppGateway {
            name: resource.name.clone(),
            composer: Composer::new(resource),
            now,
            lines,
            next: AtomicUsize::new(0),
            stop,
            tasks,
        })
    }

    /// Hands a request to a bind: to the next one with room, else to the next one that is up. A bind that pauses is asked
    /// only where all do.
    async fn hand(&self, mut request: Request) -> bool {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let order = (0..self.lines.len()).map(|step| &self.lines[(first + step) % self.lines.len()]);
        for pauses in [false, true] {
            let mut up = None;
            for line in order
                .clone()
                .filter(|line| line.state.is_up() && line.state.pause(now).is_some() == pauses)
            {
                match line.requests.try_send(request) {
                    Ok(()) => return true,
                    Err(refused) => {
                        request = refused.into_inner();
                        up = up.or(Some(line));
                    }
                }
            }
            if let Some(line) = up {
                return line.requests.send(request).await.is_ok();
            }
        }
        false
    }
}

#[async_trait]
impl Gateway for SmppGateway {
    async fn submit(&self, message: Submission) -> Outcome {
        let pdus = match self.composer.compose(&message, (self.now)()) {
            Ok(pdus) => pdus,
            Err(error) => {
                return Outcome::Refused {
                    code: error.code().into(),
                    reason: Reason::GatewayRefused,
                };
            }
        };
        let (reply, outcome) = oneshot::channel();
        if !self.hand(Request { pdus, reply }).await {
            return Outcome::Unreachable;
        }
        let outcome = outcome.await.unwrap_or(Outcome::Unknown {
            code: None,
            parts: Vec::new(),
        });
        named(outcome, &message)
    }

    fn is_up(&self) -> bool {
        self.lines.iter().any(|line| line.state.is_up())
    }

    fn pause(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut shortest: Option<Duration> = None;
        for line in self.lines.iter().filter(|line| line.state.is_up()) {
            // One that does not pause takes what is handed over.
            let left = line.state.pause(now)?;
            shortest = Some(shortest.map_or(left, |known| known.min(left)));
        }
        shortest
    }

    async fn close(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// A gateway that gives no id gets one from us, so that two such messages do not share the empty one.
fn named(outcome: Outcome, message: &Submission) -> Outcome {
    match outcome {
        Outcome::Accepted { parts } if parts.iter().any(String::is_empty) => Outcome::Accepted {
            parts: parts
                .into_iter()
                .enumerate()
                .map(|(index, id)| match id.is_empty() {
                    true => format!("{}-{}", message.reference.simple(), index + 1),
                    false => id,
                })
                .collect(),
        },
        other => other,
    }
}

impl Drop for SmppGateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for SmppGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmppGateway")
            .field("name", &self.name)
            .field("binds", &self.lines.len())
            .finish_non_exhaustive()
    }
}

fn rules(resource: &resources::Gateway, now: Now, incoming: Option<Arc<dyn Incoming>>) -> Rules {
    Rules {
        gateway: resource.name.clone(),
        window: resource.window.max(1) as usize,
        response_timeout: resource.response_timeout().duration().unsigned_abs(),
        enquire_link: resource.enquire_link().duration().unsigned_abs(),
        catalogue: Catalogue::new(&resource.errors),
        now,
        incoming,
    }
}

/// Keeps a receiver bound until `shutdown`; what it receives goes to `incoming` and is answered once it is kept there.
pub(crate) async fn receive(
    resource: &resources::Gateway,
    password: Option<String>,
    now: Now,
    incoming: Arc<dyn Incoming>,
    shutdown: CancellationToken,
) {
    let target = match Target::new(resource, password) {
        Ok(target) => Arc::new(target),
        Err(error) => {
            tracing::error!(gateway = %resource.name, %error, "the receiver cannot be opened as it is configured");
            shutdown.cancelled().await;
            return;
        }
    };
    let line = Line {
        target,
        role: Role::Receiver,
        rules: rules(resource, now, Some(incoming)),
        state: Arc::default(),
        stop: shutdown,
    };
    // A receiver submits nothing; the sender lives on so that the queue does not look closed.
    let (_nobody, requests) = mpsc::channel(1);
    line.keep(requests).await;
}

/// One bind that is kept up.
struct Line {
    target: Arc<Target>,
    role: Role,
    rules: Rules,
    state: Arc<State>,
    stop: CancellationToken,
}

impl Line {
    /// Connects, works, and connects again with growing pauses until it is stopped.
    async fn keep(self, mut requests: mpsc::Receiver<Request>) {
        let mut backoff = Backoff::new();
        let (gateway, role) = (self.rules.gateway.clone(), self.role.as_str());
        loop {
            let bound = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                bound = self.target.bind(self.role) => bound,
                () = refuse(&mut requests) => break,
            };
            match bound {
                Ok((stream, inbox)) => {
                    tracing::info!(gateway, role, "bound");
                    self.state.up();
                    let session = Session::new(&self.rules, inbox, &self.state);
                    let (ended, worked) = session.run(stream, &mut requests, &self.stop).await;
                    if worked {
                        backoff.reset();
                    }
                    match ended {
                        Ended::Closed => break,
                        ended => tracing::warn!(gateway, role, reason = %ended, "the bind is down"),
                    }
                }
                Err(error @ ConnectError::Refused(_)) => {
                    // Who we are is wrong there, which does not pass by itself: somebody has to look.
                    tracing::error!(gateway, role, %error, "the bind was refused");
                    backoff.lengthen();
                }
                Err(error) => tracing::warn!(gateway, role, %error, "cannot bind"),
            }
            metrics::counter!("tamtam_gateway_reconnects_total", "gateway" => gateway.clone()).increment(1);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = sleep(backoff.wait()) => {}
                () = refuse(&mut requests) => break,
            }
        }
        requests.close();
        refuse(&mut requests).await;
    }
}

/// Answers what is handed over while there is no connection; ends when nobody can hand over any more.
async fn refuse(requests: &mut mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        let _ = request.reply.send(Outcome::Unreachable);
    }
}
