//! Runs a [`Step`] on a bus.

use std::{sync::Arc, time::Duration};

use bus::{BusError, Log};
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::{Clock, Step};

/// How a stage is run.
#[derive(Clone, Copy, Debug)]
pub struct RunnerConfig {
    /// The most records in a batch; fewer when little is waiting or a batch takes long.
    pub batch_records: usize,
    /// The most bytes in a batch (a single larger record is still read).
    pub batch_bytes: usize,
    /// How many partitions are worked on at the same time, that is how many transactions are open.
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
            concurrency: 4,
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
#[expect(dead_code, reason = "the loop comes next")]
pub struct Runner<S> {
    step: Arc<S>,
    log: Arc<dyn Log>,
    store: Store,
    clock: Clock,
    config: RunnerConfig,
}

impl<S: Step> Runner<S> {
    pub fn new(step: S, log: Arc<dyn Log>, store: Store, clock: Clock, config: RunnerConfig) -> Runner<S> {
        Runner {
            step: Arc::new(step),
            log,
            store,
            clock,
            config,
        }
    }

    /// Consumes until `shutdown`, then drains.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunnerError> {
        shutdown.cancelled().await;
        Ok(())
    }
}
