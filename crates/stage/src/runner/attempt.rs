//! One try at parts of batches: a transaction, what it sends on, and on PostgreSQL the offsets, all in one.

use std::{ops::Range, sync::Arc, time::Duration};

use bus::{BusError, Committed, Log, MAX_RECORD_BYTES, NewRecord};
use store::{Store, StoreError};

use super::batch::Batch;
use crate::{Clock, Input, Output, RunnerConfig, Step, StepError, crash};

/// What is tried at once of a partition.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub batch: Arc<Batch>,
    pub offsets: Range<i64>,
}

/// What all batches of a stage need.
#[derive(Debug)]
pub(super) struct Shared<S> {
    pub step: Arc<S>,
    pub log: Arc<dyn Log>,
    pub store: Store,
    pub clock: Clock,
    pub config: RunnerConfig,
}

/// Why a try did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may pass.
    Transient(String),
    /// A record is at fault; for a dead letter. It holds no phone and no text.
    Fault(String),
    /// The partition went to somebody else, who reads the same records.
    NotOwner,
}

impl<S: Step> Shared<S> {
    /// Tries in a task of its own, which nobody cancels (sqlx #4393), and whose panic is the record's fault. `parts` are of
    /// different partitions, in the partitions' order.
    pub async fn attempt(self: &Arc<Self>, parts: Vec<Part>) -> Result<(), Failure> {
        self.apart(parts, None).await
    }

    /// Makes a single record a dead letter, without asking the step.
    pub async fn bury(self: &Arc<Self>, part: Part, reason: String) -> Result<(), Failure> {
        self.apart(vec![part], Some(reason)).await
    }

    async fn apart(self: &Arc<Self>, parts: Vec<Part>, verdict: Option<String>) -> Result<(), Failure> {
        use tracing::Instrument as _;
        let shared = self.clone();
        let work = async move { shared.transaction(&parts, verdict).await };
        match tokio::spawn(work.in_current_span()).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => Err(Failure::Fault("the stage failed on it (a mistake of ours)".into())),
            Err(_) => Err(Failure::Transient("the process is stopping".into())),
        }
    }

    async fn transaction(&self, parts: &[Part], verdict: Option<String>) -> Result<(), Failure> {
        let stage = self.step.name();
        let now = self.clock.now();
        let topic = parts.first().map(|part| part.batch.partition.topic);
        let mut letters = Vec::new();
        let mut inputs: Vec<(&Batch, &Input)> = Vec::new();
        for part in parts {
            let batch = &*part.batch;
            letters.extend(batch.unreadable_letters(stage, &part.offsets, now));
            let readable = batch.inputs_in(&part.offsets).iter();
            match &verdict {
                None => inputs.extend(readable.map(|input| (batch, input))),
                Some(reason) => {
                    letters.extend(readable.filter_map(|input| batch.letter(stage, input.offset, reason, now)))
                }
            }
        }

        let mut tx = self.store.begin_by_key().await?;
        crash::point("stage-before-step")?;
        let output = match topic.filter(|_| !inputs.is_empty()) {
            None => Output::default(),
            Some(topic) => {
                let batch: Vec<&Input> = inputs.iter().map(|(_, input)| *input).collect();
                self.step.run(topic, &batch, &mut tx).await?
            }
        };
        crash::point("stage-after-step")?;
        for (place, reason) in &output.dead {
            let letter = (inputs.get(*place)).and_then(|(batch, input)| batch.letter(stage, input.offset, reason, now));
            match letter {
                Some(letter) => letters.push(letter),
                None => tracing::error!(stage, place, "the step buried a record that is not in its batch"),
            }
        }
        let dead = letters.len() as u64;
        let mut emit = output.emit;
        emit.append(&mut letters);
        check_sizes(&emit)?;

        match self.log.transactional() {
            Some(log) => {
                crash::point("stage-before-append")?;
                let done = |part: &Part| Committed {
                    partition: part.batch.partition,
                    epoch: part.batch.epoch,
                    next_offset: part.offsets.end,
                };
                let done: Vec<Committed> = parts.iter().map(done).collect();
                log.finish_in(tx.connection(), stage, &done, &emit).await?;
                crash::point("stage-before-commit")?;
                tx.commit().await?;
                log.announce(&emit);
                crash::point("stage-after-commit")?;
            }
            None => {
                crash::point("stage-before-commit")?;
                tx.commit().await?;
                crash::point("stage-after-commit")?;
                crash::point("stage-before-append")?;
                if !emit.is_empty() {
                    self.log.append(emit).await?;
                }
                crash::point("stage-after-append")?;
            }
        }
        metrics::counter!("tamtam_stage_dead_letters_total", "stage" => stage).increment(dead);
        Ok(())
    }
}

/// Before anything is committed: a record that no bus takes is the fault of what it was made from.
fn check_sizes(records: &[NewRecord]) -> Result<(), Failure> {
    match records.iter().find(|record| record.size() > MAX_RECORD_BYTES) {
        Some(record) => Err(Failure::Fault(format!(
            "what it leads to on topic `{}` has {} bytes, over the limit of {MAX_RECORD_BYTES}",
            record.topic,
            record.size()
        ))),
        None => Ok(()),
    }
}

/// From this, doubling at each call, up to a most.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
    pub tries: u32,
}

impl Backoff {
    pub fn new(min: Duration, max: Duration) -> Backoff {
        Backoff {
            next: min,
            max,
            tries: 0,
        }
    }

    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        self.tries += 1;
        wait
    }

    /// Whether this failure is to be told: the 1st, 2nd, 4th, 8th …
    pub fn is_telling(&self) -> bool {
        self.tries.is_power_of_two()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match (error.is_transient(), error.code()) {
            (true, _) => Failure::Transient(error.to_string()),
            // PostgreSQL's message can hold values; its code does not.
            (false, Some(code)) => Failure::Fault(format!("the database refused it (SQLSTATE {code})")),
            (false, None) => match error {
                StoreError::Corrupt(what) => Failure::Fault(format!("stored data cannot be read: {what}")),
                _ => Failure::Fault("the database refused it".into()),
            },
        }
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Transient(why) => Failure::Transient(why),
            StepError::Store(error) => error.into(),
        }
    }
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        match error {
            BusError::NotOwner { .. } => Failure::NotOwner,
            BusError::TooLarge { topic, bytes, limit } => Failure::Fault(format!(
                "what it leads to on topic `{topic}` has {bytes} bytes, over the limit of {limit}"
            )),
            BusError::Postgres(error) => StoreError::from(error).into(),
            // A topic that is missing or a setting that is wrong is nobody's record: it waits until that is repaired.
            error => Failure::Transient(error.to_string()),
        }
    }
}

impl From<crash::Crashed> for Failure {
    fn from(_: crash::Crashed) -> Self {
        Failure::Transient("a crash point".into())
    }
}

#[cfg(test)]
mod tests {
    use events::Topic;

    use super::*;

    #[test]
    fn a_back_off_doubles_up_to_its_most() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(300));
        let waits: Vec<u128> = (0..5).map(|_| backoff.wait().as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 300, 300]);
    }

    #[test]
    fn only_a_record_at_fault_becomes_a_dead_letter() {
        let missing = BusError::UnknownTopic("jobs".into());
        assert!(matches!(Failure::from(missing), Failure::Transient(_)));
        let large = BusError::TooLarge {
            topic: Topic::Jobs,
            bytes: 2,
            limit: 1,
        };
        assert!(matches!(Failure::from(large), Failure::Fault(_)));
        assert!(matches!(
            Failure::from(StepError::Transient("no database".into())),
            Failure::Transient(_)
        ));
    }
}
