//! Runs a [`Step`] on a bus.
//!
//! # What happens when it dies here
//! A batch goes through these points, each named as a crash point for the tests (`crash`). On PostgreSQL the step's writes,
//! the records and the offset are one transaction:
//!
//! | point | died there, or the call failed |
//! |---|---|
//! | `stage-before-step`, `stage-after-step` | nothing happened; the batch is delivered again |
//! | `stage-before-append`, `stage-before-commit` | the transaction is undone; the batch is delivered again |
//! | `stage-after-commit` | all is done; readers notice the records within a second, for want of a notification |
//!
//! On Kafka they come one after the other, and the offset is the outbox:
//!
//! | point | died there, or the call failed |
//! |---|---|
//! | `stage-before-step`, `stage-after-step`, `stage-before-commit` | nothing happened; the batch is delivered again |
//! | `stage-after-commit`, `stage-before-append` | the writes are there, the records are not: the batch is delivered again, the step's writes change nothing, and it emits the same records |
//! | `stage-after-append`, `stage-before-offset` | the same, and the records are there twice under the same ids |
//! | `stage-after-offset` | all is done |
//!
//! # What happens when something else fails
//! What waits of several partitions of a topic is one batch, which is tried once. Then each partition goes on alone:
//! - An error that may pass (the database, the bus): the same batch again, after a back-off that doubles.
//! - A record at fault (the database refuses what is in it, the step panics on it, what it leads to is too large): the
//!   batch is halved until the record is alone; it becomes a dead letter, the others go on. Nothing stops a stage.
//! - A record whose envelope cannot be read is a dead letter before the step sees it.
//! - A partition is asked back: what waits is let go, the try under way ends and is committed, the partition is released.
//!   One that was lost is dropped; the bus refuses what still comes from it.

pub(crate) mod attempt;
mod batch;
mod board;
mod consume;
mod lag;
mod size;
mod work;

use std::{sync::Arc, time::Duration};

use attempt::{Backoff, Shared};
use bus::{BusError, Consumer, Log};
use consume::Consumption;
use store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Clock, Step};

/// How a stage is run.
#[derive(Clone, Copy, Debug)]
pub struct RunnerConfig {
    /// The most records that are read of a partition at once; fewer when little is waiting or a batch takes long. A batch that
    /// has as many takes in no further partition. On Kafka reads are added up while a batch is under way, until half as many
    /// wait, or twice as many of a topic's partitions together where these are few.
    pub batch_records: usize,
    /// The most bytes in a batch (a single larger record is still read).
    pub batch_bytes: usize,
    /// How many batches, each of what waits of a topic, are worked on at the same time. One makes the largest batches, which
    /// cost the least; more help where the database answers slowly and has cores to spare.
    pub concurrency: usize,
    /// How long a stop waits for what is under way.
    pub drain: Duration,
    /// Back-off after an error that may pass: from this, doubling, up to `retry_max`.
    pub retry_min: Duration,
    pub retry_max: Duration,
}

impl Default for RunnerConfig {
    fn default() -> Self {
        RunnerConfig {
            batch_records: 500,
            batch_bytes: 4 << 20,
            concurrency: 1,
            drain: Duration::from_secs(20),
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(5),
        }
    }
}

/// Why a stage cannot run at all; what may pass is waited for.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    #[error("stage `{stage}`: {source}")]
    Bus {
        stage: &'static str,
        #[source]
        source: BusError,
    },
}

/// A stage ready to run: `Runner::new(…).run(shutdown).await`.
#[derive(Debug)]
pub struct Runner<S> {
    shared: Arc<Shared<S>>,
}

impl<S: Step> Runner<S> {
    pub fn new(step: S, log: Arc<dyn Log>, store: Store, clock: Clock, config: RunnerConfig) -> Runner<S> {
        Runner {
            shared: Arc::new(Shared {
                step: Arc::new(step),
                log,
                store,
                clock,
                config,
            }),
        }
    }

    /// Consumes until `shutdown`, then drains.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunnerError> {
        let stage = self.shared.step.name();
        let wrong = |source| RunnerError::Bus { stage, source };
        let Some(consumer) = self.subscribe(&shutdown).await.map_err(wrong)? else {
            return Ok(());
        };
        let (owned, watched) = watch::channel(Vec::new());
        let lag = lag::report(stage, self.shared.step.topics(), self.shared.log.clone(), watched);
        // It ends when `owned` does, with the consumption.
        tokio::spawn(lag);
        Consumption::new(self.shared.clone(), owned)
            .run(consumer, shutdown)
            .await
            .map_err(wrong)
    }

    async fn subscribe(&self, shutdown: &CancellationToken) -> Result<Option<Box<dyn Consumer>>, BusError> {
        let shared = &self.shared;
        let (stage, topics) = (shared.step.name(), shared.step.topics());
        let mut backoff = Backoff::new(shared.config.retry_min, shared.config.retry_max);
        loop {
            let joined = tokio::select! {
                joined = shared.log.subscribe(stage, topics) => joined,
                () = shutdown.cancelled() => return Ok(None),
            };
            match joined {
                Ok(consumer) => return Ok(Some(consumer)),
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => {
                    let wait = backoff.wait();
                    if backoff.is_telling() {
                        tracing::warn!(stage, %error, "the bus cannot be joined, trying again");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = shutdown.cancelled() => return Ok(None),
                    }
                }
            }
        }
    }
}
