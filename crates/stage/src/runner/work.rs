//! Works batches off. Those of several partitions are tried together, once; where that fails each goes on alone, beside what
//! is started next: tried whole, what passes waited out, and halved down to the record at fault.

use std::{ops::Range, sync::Arc, time::Instant};

use bus::Partition;
use futures::future;
use tokio_util::sync::CancellationToken;

use super::{
    attempt::{Backoff, Failure, Part, Shared},
    batch::Batch,
    board::Start,
};
use crate::{Input, Step};

/// What became of batches that were started.
#[derive(Debug)]
pub(super) struct Worked {
    pub finished: Vec<Finished>,
    /// To go on alone, each.
    pub failed: Vec<Start>,
    pub records: usize,
    pub seconds: f64,
}

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
}

/// Tries batches as one, once.
pub(super) async fn together<S: Step>(shared: Arc<Shared<S>>, starts: Vec<Start>) -> Worked {
    let is_ours = makes_way(&shared, &starts).await;
    let started = Instant::now();
    let records = starts.iter().map(|start| start.batch.len()).sum();
    let done = is_ours && tried_together(&shared, &starts).await;
    let seconds = started.elapsed().as_secs_f64();
    let (finished, failed) = match done {
        true => {
            measure(&shared, records, seconds);
            let all = starts
                .iter()
                .map(|start| start.finished(start.batch.offsets().end, true));
            (all.collect(), Vec::new())
        }
        false => (Vec::new(), starts),
    };
    Worked {
        finished,
        failed,
        records,
        seconds,
    }
}

/// Waits until they may begin; `false`: one has been asked back meanwhile, which it says alone.
async fn makes_way<S: Step>(shared: &Shared<S>, starts: &[Start]) -> bool {
    let stopped = future::select_all(starts.iter().map(|start| Box::pin(start.stop.cancelled())));
    let inputs: Vec<&Input> = starts.iter().flat_map(|start| &start.batch.inputs).collect();
    tokio::select! {
        biased;
        _ = stopped => false,
        () = shared.step.make_way(&inputs) => true,
    }
}

async fn tried_together<S: Step>(shared: &Arc<Shared<S>>, starts: &[Start]) -> bool {
    let parts = starts.iter().map(|start| Part {
        batch: start.batch.clone(),
        offsets: start.batch.offsets(),
    });
    match shared.attempt(parts.collect()).await {
        Ok(()) => true,
        Err(failure) => {
            let stage = shared.step.name();
            metrics::counter!("tamtam_stage_retries_total", "stage" => stage).increment(1);
            tracing::debug!(
                stage,
                batches = starts.len(),
                ?failure,
                "batches failed together, each goes on alone"
            );
            false
        }
    }
}

/// Tries a batch, and parts of it, until all is done or it is not ours any more.
pub(super) async fn alone<S: Step>(shared: Arc<Shared<S>>, start: Start) -> Worked {
    let started = Instant::now();
    let finished = finish(&shared, &start).await;
    let (records, seconds) = (start.batch.len(), started.elapsed().as_secs_f64());
    if finished.whole {
        measure(&shared, records, seconds);
    }
    Worked {
        finished: vec![finished],
        failed: Vec::new(),
        records,
        seconds,
    }
}

fn measure<S: Step>(shared: &Shared<S>, records: usize, seconds: f64) {
    let stage = shared.step.name();
    metrics::counter!("tamtam_stage_records_total", "stage" => stage).increment(records as u64);
    metrics::histogram!("tamtam_stage_batch_seconds", "stage" => stage).record(seconds);
    metrics::histogram!("tamtam_stage_batch_records", "stage" => stage).record(records as f64);
}

async fn finish<S: Step>(shared: &Arc<Shared<S>>, start: &Start) -> Finished {
    let (stage, batch, stop) = (shared.step.name(), &start.batch, &start.stop);
    let mut done_to = batch.offsets().start;
    // The parts that are left, the next one on top.
    let mut parts = vec![batch.offsets()];
    let mut whole = true;
    while let Some(part) = parts.pop() {
        match tried(shared, batch, &part, stop).await {
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
                if !buried(shared, batch, &part, reason, stop).await {
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
    start.finished(done_to, whole)
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
        match shared.attempt(vec![part_of(batch, part)]).await {
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
        match shared.bury(part_of(batch, part), reason.clone()).await {
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

fn part_of(batch: &Arc<Batch>, offsets: &Range<i64>) -> Part {
    Part {
        batch: batch.clone(),
        offsets: offsets.clone(),
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
