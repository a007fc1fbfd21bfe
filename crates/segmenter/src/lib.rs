//! Decides whom to write to, and why: from events through triggers, and from campaigns.
//!
//! - [`step`]: each event is kept in the contact's history, changes of contacts are made, triggers are matched; what is
//!   decided becomes jobs.
//! - `timers`: waits of triggers whose length was edited are moved.
//! - `indexes`: what audiences ask of events gets an index.
//! - [`campaigns`]: campaigns start at their time, are expanded into jobs, and finish.
//! - The pump of deferred records ([`stage::deferred`]) runs here too: timers are most of them.
//!
//! Each of them waits out its own errors; none stops the others.

pub mod campaigns;
mod indexes;
pub mod step;
mod timers;
mod wake;

use std::sync::Arc;

use bus::Log;
use domain::phone::PhoneKey;
use stage::{Clock, Live, Runner, RunnerConfig, RunnerError};
use store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use step::Segmenter;

/// What a segmenter works with.
#[derive(Clone, Debug)]
pub struct Config {
    pub log: Arc<dyn Log>,
    pub store: Store,
    pub live: Live,
    pub clock: Clock,
    pub phone_key: PhoneKey,
    /// The share of campaigns' messages whose trace is sampled: 0 to 1. What events start goes on under the event's.
    pub trace_sample: f64,
    pub runner: RunnerConfig,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Runner(#[from] RunnerError),
}

/// Until `shutdown`; then what is under way is finished.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    // Ends the others too, should the runner not be able to run at all.
    let stop = shutdown.child_token();
    let mut beside = JoinSet::new();
    let Config {
        log,
        store,
        live,
        clock,
        ..
    } = config.clone();
    beside.spawn(stage::deferred::pump(log, store.clone(), clock.clone(), stop.clone()));
    beside.spawn(timers::align(store.clone(), live.clone(), stop.clone()));
    beside.spawn(indexes::keep(store.clone(), clock.clone(), stop.clone()));
    campaigns::spawn(&config, &mut beside, &stop);

    let step = Segmenter::new(live, clock.clone(), config.phone_key);
    let runner = Runner::new(step, config.log, store, clock, config.runner);
    let outcome = runner.run(shutdown).await;
    stop.cancel();
    let drained = tokio::time::timeout(config.runner.drain, async {
        while beside.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::warn!("stopping before a chunk of a campaign is done; somebody takes it over");
    }
    Ok(outcome?)
}
