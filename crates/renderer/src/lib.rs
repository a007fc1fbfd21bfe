//! From a job to a finished text for one phone, or to the reason why there is none.
//!
//! A [`stage::Step`] on `jobs`: it looks the contact up, applies the policy ([`judge`](judge::judge)), composes the
//! text, and passes it on to the topic of its class. What does not go on is written in the ledger with its reason, and told
//! on `receipts`: suppressed, expired, cancelled, or deferred until the hours open or its campaign goes on.
//!
//! # What happens at each crash point
//! The runner writes, appends and commits in this order: the transaction (verdicts, deferred records), the records that
//! are sent on, the consumer's offset. On PostgreSQL the three are one transaction; on Kafka:
//! - **Before the transaction commits**: nothing was written. The jobs are delivered again.
//! - **Between the transaction and the append**: verdicts and deferred records stand, their receipts and the finished texts
//!   are not out yet. The jobs are delivered again: a verdict finds its own row and gives the same receipt, a deferred
//!   record finds its own id, and the texts are composed again under the same message ids.
//! - **Between the append and the offset**: everything is out and comes out once more. Receipts are equal byte for byte; of
//!   two texts of one message the ledger's claim lets one be sent.
//!
//! A redelivered job may be decided differently, because the clock went on: a text was passed on just before 20:00 and its
//! job comes again just after. The ledger then holds the message deferred until the dispatcher claims it, and whichever
//! record is claimed first is sent; the other finds the claim. The dispatcher asks for the hours itself.

mod batch;
pub mod judge;
pub mod kinds;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bus::Log;
use domain::phone::PhoneKey;
use events::Topic;
use jiff::SignedDuration;
use stage::{Clock, Input, Live, Output, Runner, RunnerConfig, Step, StepError};
use store::{Store, Tx};
use tokio_util::sync::CancellationToken;

pub use judge::MAX_DEFERRALS;
pub use stage::RunnerError as Error;

/// What a renderer needs.
#[derive(Clone, Debug)]
pub struct Config {
    pub log: Arc<dyn Log>,
    pub store: Store,
    pub live: Live,
    pub clock: Clock,
    pub phone_key: PhoneKey,
    pub runner: RunnerConfig,
}

/// Renders until `shutdown`, then drains.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let step = Renderer::new(config.live.clone(), config.clock.clone(), config.phone_key);
    let pruner = tokio::spawn(prune(
        config.store.clone(),
        config.live,
        config.clock.clone(),
        shutdown.child_token(),
    ));
    let ended = Runner::new(step, config.log, config.store, config.clock, config.runner)
        .run(shutdown)
        .await;
    pruner.abort();
    ended
}

/// The stage's step.
#[derive(Debug)]
pub struct Renderer {
    live: Live,
    clock: Clock,
    phone_key: PhoneKey,
    composers: batch::Composers,
    kinds: kinds::Kinds,
}

impl Renderer {
    pub fn new(live: Live, clock: Clock, phone_key: PhoneKey) -> Renderer {
        Renderer {
            live,
            clock,
            phone_key,
            composers: batch::Composers::default(),
            kinds: kinds::Kinds::default(),
        }
    }
}

#[async_trait]
impl Step for Renderer {
    fn name(&self) -> &'static str {
        "renderer"
    }

    fn topics(&self) -> &'static [Topic] {
        &[Topic::Jobs]
    }

    async fn run(&self, _: Topic, batch: &[&Input], tx: &mut Tx) -> Result<Output, StepError> {
        let snapshot = self.live.as_of(tx).await?;
        let composer = self.composers.of(&snapshot);
        batch::Batch {
            snapshot: &snapshot,
            composer: &composer,
            phone_key: &self.phone_key,
            kinds: &self.kinds,
            now: self.clock.now(),
        }
        .run(batch, tx)
        .await
    }
}

const PRUNE_EVERY: Duration = Duration::from_secs(600);
const PRUNE_ROWS: i64 = 20_000;

/// How long a link leads somewhere.
const LINKS_KEPT: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Lets go of the notes of texts that the policy does not look back to any more, and of old links.
async fn prune(store: Store, live: Live, clock: Clock, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PRUNE_EVERY) => {}
        }
        let keep = live
            .current()
            .policy
            .same_text_within
            .map_or(SignedDuration::ZERO, |period| period.duration());
        if let Ok(before) = clock.now().checked_sub(LINKS_KEPT)
            && let Err(error) = store.links_prune(before, PRUNE_ROWS).await
        {
            tracing::warn!(%error, "old links cannot be removed now");
        }
        let Ok(before) = clock.now().checked_sub(keep) else {
            continue;
        };
        if let Err(error) = store.texts_prune(before, PRUNE_ROWS).await {
            tracing::warn!(%error, "old notes of texts cannot be removed now");
        }
    }
}
