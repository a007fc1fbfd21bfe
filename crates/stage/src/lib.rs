//! One stage, one shape.
//!
//! A stage is a [`Step`]: it is handed a batch of records of one topic and a transaction, and gives back what to send
//! on and which records are dead letters. The runner does the rest, the same for every stage on both buses: consume,
//! transaction, produce, commit, back-pressure, batch size by load, hand-over of partitions, drain on stop, fail points,
//! spans and metrics. So a stage is tested by calling a function, and every crash point exists once.

mod clock;
pub mod crash;
pub mod deferred;
pub mod live;
mod runner;
pub mod trace;

use std::time::Duration;

use async_trait::async_trait;
use bus::{NewRecord, Partition};
use events::{Envelope, Topic};
use store::{StoreError, Tx};

pub use clock::Clock;
pub use live::Live;
pub use runner::{Runner, RunnerConfig, RunnerError};

/// A record as a step sees it: the envelope is read, the data is not. The envelope's `traceparent` is always there and is
/// this stage's own span: handed on to [`NewRecord::wrap`], the trace goes on. Its `time` is when the record was appended
/// where the record says none.
#[derive(Clone, Debug)]
pub struct Input {
    pub partition: Partition,
    pub offset: i64,
    pub key: String,
    pub envelope: Envelope,
    pub value: Vec<u8>,
}

/// What a step makes of a batch. Its writes are already in the transaction.
#[derive(Debug, Default)]
pub struct Output {
    pub emit: Vec<NewRecord>,
    /// (place in the batch, reason): the record goes to `dead-letters` with its bytes. A reason holds no phone and no text.
    pub dead: Vec<(usize, String)>,
}

#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Try the same batch again after a while; nothing was written.
    #[error("not possible now: {0}")]
    Transient(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A stage's whole work on one batch.
///
/// It may be called again with the same records (after a crash, or alone, when a batch failed and is halved to find the
/// record at fault): its writes are idempotent and its ids deterministic, so the second run emits the same records.
#[async_trait]
pub trait Step: Send + Sync + 'static {
    /// Also the consumer group's name.
    fn name(&self) -> &'static str;
    fn topics(&self) -> &'static [Topic];
    /// The records of one or several partitions of `topic`, those of a partition together and in their order.
    async fn run(&self, topic: Topic, batch: &[&Input], tx: &mut Tx) -> Result<Output, StepError>;
    /// Waits for as long as a batch is to make way for other work, before its transaction. It is broken off when one of its
    /// partitions is asked back or the stage stops, and what failed is tried again without it.
    async fn make_way(&self, _: &[&Input]) {}
    /// Between the beginnings of two batches, at most, where it is not what suits the bus ([`Log::pace`](bus::Log::pace)): the
    /// fuller the last one was the less, and nothing where more is known to wait. Under a light load batches of a few records
    /// would else follow one another without a pause and take the processor from the other stages: what each costs does not
    /// depend on how few they are. Nothing is read in the meantime either. Who comes alone is not held up.
    fn pace(&self) -> Option<Duration> {
        None
    }
}
