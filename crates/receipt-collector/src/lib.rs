//! What gateways say comes in here: delivery receipts and replies, over HTTP and on SMPP receiver binds.
//!
//! # Two halves, and why
//! The edge ([`http`], [`receivers`]) understands nothing: it appends what came to `callbacks` ([`appender`]) and answers
//! the gateway after the bus has it durably, so a callback that was answered is never lost, whatever is wrong with it.
//! A [`Step`](stage::Step) on `callbacks` ([`step`]) understands, correlates, settles the ledger and emits.
//!
//! Short links are answered here too ([`links`]): this is the listener that is reachable from outside.
//!
//! # Correlation
//! A receipt finds its part by the gateway's id in the forms that it may take ([`forms`]). One that comes before its part
//! is kept; the dispatcher takes it when it writes the part, in one transaction. [`sweep`] closes the gap between two
//! transactions that do not see each other, and calls a message of which nothing is heard `unknown` in the end. A receipt
//! that repeats our own reference is that message's and no other's, and settles one whose answer was lost ([`receipts`]).
//! What finds nothing is kept and shown (`tamtam receipts unmatched`).
//!
//! # What happens when it dies here
//! | point | what follows |
//! |---|---|
//! | `callbacks-before-append` | not kept and not answered: the gateway brings it again |
//! | `callbacks-after-append` | kept and not answered: the gateway brings it again, and it is there twice. The second changes nothing: states only go forward, suppressions and consents are what they are |
//! | in the step | as the runner says: its writes and what it emits are repeatable. A receipt is emitted when its message moved, and again when the part already has the state from this very callback, which is what a redelivery looks like |
//! | `callbacks-sweep-before-append` | nothing happened; the rows are found again |
//! | `callbacks-sweep-after-append` | the records are there and the rows too: they are appended again, under the same ids |

mod appender;
mod flood;
pub mod forms;
mod given_up;
mod http;
mod joined;
mod links;
mod receipts;
mod receivers;
mod replies;
mod step;
mod sweep;

use std::sync::Arc;

use bus::Log;
use domain::phone::PhoneKey;
use ipnet::IpNet;
use resources::gateway::Secrets;
use stage::{Clock, Live, Runner, RunnerConfig, RunnerError};
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use appender::Appender;

/// Its name as a consumer group and in traces.
const STAGE: &str = "receipt-collector";

/// What the service needs. The listener is bound by the caller.
pub struct Config {
    pub log: Arc<dyn Log>,
    pub store: Store,
    pub live: Live,
    pub clock: Clock,
    pub phone_key: PhoneKey,
    pub runner: RunnerConfig,
    /// HTTP callbacks.
    pub listener: TcpListener,
    pub secrets: Secrets,
    /// Whose `X-Forwarded-For` is believed, where gateways have an allow-list of addresses.
    pub trusted_proxies: Vec<IpNet>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Runner(#[from] RunnerError),
    #[error("the callbacks' HTTP server failed")]
    Http(#[source] std::io::Error),
}

/// Serves until `shutdown`: then no more is taken in, what was taken is kept and answered, and the step drains.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let Config {
        log,
        store,
        live,
        clock,
        phone_key,
        runner,
        listener,
        secrets,
        trusted_proxies,
    } = config;
    // The first STOP is to hold as soon as any other. That it fails is a panic, which the first caller then meets.
    let _ = tokio::task::spawn_blocking(domain::Phone::load_plans).await;
    let (links, clicks) = links::start(store.clone(), clock.clone(), log.clone());
    // When one half fails the other ends too, and the process says so.
    let stop = shutdown.child_token();
    let appender = Appender::start(log.clone(), live.clone(), phone_key.clone());
    let step = step::Callbacks::new(live.clone(), clock.clone(), phone_key.clone(), appender.flood());
    let stage = Runner::new(step, log.clone(), store.clone(), clock.clone(), runner);
    let receivers = receivers::keep(
        live.clone(),
        secrets.clone(),
        clock.clone(),
        appender.clone(),
        stop.clone(),
    );
    let sweeps = sweep::run(log, store, live.clone(), clock.clone(), phone_key, stop.clone());
    let edge = http::serve(
        listener,
        http::Edge::new(live, secrets, clock, appender, trusted_proxies),
        links,
        stop.clone(),
    );
    let guard = stop.clone().drop_guard();
    let (stage, edge, (), (), ()) = tokio::join!(
        async {
            let ended = stage.run(stop.clone()).await;
            stop.cancel();
            ended
        },
        async {
            let ended = edge.await;
            stop.cancel();
            ended
        },
        receivers,
        sweeps,
        clicks,
    );
    drop(guard);
    edge.map_err(Error::Http)?;
    Ok(stage?)
}
