//! Works a batch off: tries it whole, waits out what passes, and halves it down to the record at fault.

use std::{ops::Range, sync::Arc, time::Instant};

use bus::Partition;
use tokio_util::sync::CancellationToken;

use super::{
    attempt::{Backoff, Failure, Shared},
    batch::Batch,
};
use crate::Step;

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Finished {
    pub partition: Partition,
    /// The ownership that it was started under.
    pub generation: u64,
    /// Everything below is done.
    pub done_to: i64,
    /// `false`: given up before its end, because the partition went or the stage stops. What is left is delivered again.
    pub whole: bool,
    pub records: usize,
    pub seconds: f64,
}

pub(super) async fn work<S: Step>(
    shared: Arc<Shared<S>>,
    batch: Arc<Batch>,
    generation: u64,
    stop: CancellationToken,
) -> Finished {
    let started = Instant::now();
    let stage = shared.step.name();
    let mut done_to = batch.offsets().start;
    // The parts that are left, the next one on top.
    let mut parts = vec![batch.offsets()];
    let mut whole = true;
    while let Some(part) = parts.pop() {
        match tried(&shared, &batch, &part, &stop).await {
            Tried::Done => done_to = part.end,
            Tried::Fault(reason) if batch.count(&part) <= 1 => {
                tracing::warn!(
                    stage,
                    topic = %batch.partition.topic,
                    partition = batch.partition.number,
                    offset = part.start,
                    reason,
                    "a record cannot be processed and becomes a dead letter"
                );
                if !buried(&shared, &batch, &part, reason, &stop).await {
                    whole = false;
                    break;
                }
                done_to = part.end;
            }
            Tried::Fault(reason) => {
                tracing::info!(
                    stage,
                    records = batch.count(&part),
                    reason,
                    "a batch failed and is halved"
                );
                let (first, second) = batch.halves(&part);
                parts.extend([second, first]);
            }
            Tried::GivenUp => {
                whole = false;
                break;
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    if whole {
        metrics::counter!("tamtam_stage_records_total", "stage" => stage).increment(batch.len() as u64);
        metrics::histogram!("tamtam_stage_batch_seconds", "stage" => stage).record(seconds);
        metrics::histogram!("tamtam_stage_batch_records", "stage" => stage).record(batch.len() as f64);
    }
    Finished {
        partition: batch.partition,
        generation,
        done_to,
        whole,
        records: batch.len(),
        seconds,
    }
}

enum Tried {
    Done,
    Fault(String),
    GivenUp,
}

/// Tries a part until it is done, at fault, or not ours any more.
async fn tried<S: Step>(
    shared: &Arc<Shared<S>>,
    batch: &Arc<Batch>,
    part: &Range<i64>,
    stop: &CancellationToken,
) -> Tried {
    let mut backoff = Backoff::new(shared.config.retry_min, shared.config.retry_max);
    loop {
        if stop.is_cancelled() {
            return Tried::GivenUp;
        }
        match shared.attempt(batch, part.clone()).await {
            Ok(()) => return Tried::Done,
            Err(Failure::Fault(reason)) => return Tried::Fault(reason),
            Err(Failure::NotOwner) => return Tried::GivenUp,
            Err(Failure::Transient(why)) => {
                if !pause(shared, &mut backoff, &why, stop).await {
                    return Tried::GivenUp;
                }
            }
        }
    }
}

/// Buries a record; `false`: the partition went, or the stage stops.
async fn buried<S: Step>(
    shared: &Arc<Shared<S>>,
    batch: &Arc<Batch>,
    part: &Range<i64>,
    reason: String,
    stop: &CancellationToken,
) -> bool {
    let mut backoff = Backoff::new(shared.config.retry_min, shared.config.retry_max);
    loop {
        match shared.bury(batch, part.clone(), reason.clone()).await {
            Ok(()) => return true,
            Err(Failure::NotOwner) => return false,
            // Nothing of the record but its bytes is left in it: this is not its fault.
            Err(Failure::Transient(why) | Failure::Fault(why)) => {
                if !pause(shared, &mut backoff, &why, stop).await {
                    return false;
                }
            }
        }
    }
}

/// Waits before the next try; `false`: stop instead.
async fn pause<S: Step>(shared: &Shared<S>, backoff: &mut Backoff, why: &str, stop: &CancellationToken) -> bool {
    let stage = shared.step.name();
    let wait = backoff.wait();
    metrics::counter!("tamtam_stage_retries_total", "stage" => stage).increment(1);
    if backoff.is_telling() {
        tracing::warn!(stage, tries = backoff.tries, why, "a batch failed and is tried again");
    }
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(wait) => true,
    }
}
