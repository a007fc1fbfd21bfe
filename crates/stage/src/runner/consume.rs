//! The loop of a stage: reads, hands out, commits, gives back.

use std::{
    panic,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bus::{BusError, Consumer, Delivery, Partition, ReadLimits};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::watch, task::JoinHandle, time::sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    attempt::{Backoff, Shared},
    batch::Batch,
    board::{Board, Room},
    size::BatchSize,
    work::{Worked, alone, together},
};
use crate::{Step, crash};

/// How long a read waits for the first record.
const WAIT: Duration = Duration::from_millis(500);
/// A read that is under way is given this long before it is broken off for a commit or to give a partition back.
const GRACE: Duration = Duration::from_millis(3);
/// How often offsets are committed where that is no part of the transaction. What a crash repeats changes nothing, and each
/// commit is a request that the reading waits for.
const COMMIT_EVERY: Duration = Duration::from_millis(100);
const CLOSE: Duration = Duration::from_secs(5);

pub(super) struct Consumption<S> {
    shared: Arc<Shared<S>>,
    board: Board,
    /// What was started, up to the concurrency.
    running: Work,
    /// What failed and goes on alone: it keeps nothing else from being started.
    failed: Work,
    size: BatchSize,
    /// Asked back by the bus, and until when their work may take.
    asked: Vec<(Partition, Instant)>,
    /// No commit and no re-read before: the last one failed.
    chores_from: Instant,
    /// The next commit's turn, unless a partition is asked back.
    commit_from: Instant,
    /// No batch before, unless a whole one waits ([`Step::pace`]).
    start_from: Instant,
    /// More is there than was read.
    behind: bool,
    chores: Backoff,
    owned: watch::Sender<Vec<Partition>>,
}

enum Event {
    Delivery(Result<Delivery, BusError>),
    Chores,
    Stop,
}

impl<S: Step> Consumption<S> {
    pub fn new(shared: Arc<Shared<S>>, owned: watch::Sender<Vec<Partition>>) -> Consumption<S> {
        let config = shared.config;
        Consumption {
            shared,
            board: Board::default(),
            running: FuturesUnordered::new(),
            failed: FuturesUnordered::new(),
            size: BatchSize::new(config.batch_records),
            asked: Vec::new(),
            chores_from: Instant::now(),
            commit_from: Instant::now(),
            start_from: Instant::now(),
            behind: false,
            chores: Backoff::new(config.retry_min, config.retry_max),
            owned,
        }
    }

    /// Until `shutdown`, and then until what is under way is done, or `drain` has passed.
    pub async fn run(mut self, mut consumer: Box<dyn Consumer>, shutdown: CancellationToken) -> Result<(), BusError> {
        let mut errors = Backoff::new(self.shared.config.retry_min, self.shared.config.retry_max);
        let stopped = loop {
            self.do_chores(&mut *consumer).await;
            match self.wait(&mut *consumer, &shutdown).await {
                Event::Stop => break Ok(()),
                Event::Chores => {}
                Event::Delivery(Ok(delivery)) => {
                    errors = Backoff::new(self.shared.config.retry_min, self.shared.config.retry_max);
                    self.take(&*consumer, delivery);
                }
                Event::Delivery(Err(error)) if !error.is_transient() => break Err(error),
                Event::Delivery(Err(error)) => {
                    self.start();
                    let wait = errors.wait();
                    if errors.is_telling() {
                        tracing::warn!(stage = self.shared.step.name(), %error, "the bus cannot be read, trying again");
                    }
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        };
        self.drain(&mut *consumer).await;
        match tokio::time::timeout(CLOSE, consumer.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(stage = self.shared.step.name(), %error, "the group was not left cleanly"),
            Err(_) => tracing::warn!(stage = self.shared.step.name(), "leaving the group takes too long"),
        }
        stopped
    }

    /// Whether a further batch may be worked on: one more than is asked for where a whole one waits, because one connection
    /// of PostgreSQL does half of what two cores can. Fewer records wait for what is under way, and are worked on in one.
    fn is_free(&self) -> bool {
        let whole = self.board.waiting() >= self.shared.config.batch_records;
        self.running.len() < self.shared.config.concurrency.max(1) + usize::from(whole)
    }

    /// Starts what can be started.
    fn start(&mut self) {
        while self.is_free() {
            if Instant::now() < self.start_from && self.board.waiting() < self.shared.config.batch_records {
                return;
            }
            let starts = self.board.start(self.shared.config.batch_records);
            let Some(first) = starts.first() else { return };
            let records: usize = starts.iter().map(|start| start.batch.len()).sum();
            let span = tracing::debug_span!(
                "batch",
                stage = self.shared.step.name(),
                topic = %first.batch.partition.topic,
                partitions = starts.len(),
                records,
            );
            let work = together(self.shared.clone(), starts);
            let pause = match self.behind {
                true => Duration::ZERO,
                false => {
                    let pace = self.shared.step.pace().unwrap_or_else(|| self.shared.log.pace());
                    pause(pace, records, self.shared.config.batch_records)
                }
            };
            self.start_from = Instant::now() + pause;
            self.running.push(tokio::spawn(work.instrument(span)));
        }
    }

    /// Waits for the bus, while what is under way goes on.
    async fn wait(&mut self, consumer: &mut dyn Consumer, shutdown: &CancellationToken) -> Event {
        if self.rests() {
            return self.rest(shutdown).await;
        }
        let limits = ReadLimits {
            records: self.size.records(),
            bytes: self.shared.config.batch_bytes,
            wait: WAIT,
        };
        let next = consumer.next(limits);
        tokio::pin!(next);
        // What is at hand goes with what waits: a batch costs almost the same, whatever is in it.
        if self.board.waiting() < self.shared.config.batch_records
            && let Poll::Ready(delivery) = futures::poll!(&mut next)
        {
            return Event::Delivery(delivery);
        }
        self.start();
        // What is to be done already has been tried just now.
        let mut until = self.commits_due();
        loop {
            tokio::select! {
                biased;
                delivery = &mut next => return Event::Delivery(delivery),
                Some(done) = ended(&mut self.running, &mut self.failed) => {
                    let nothing = self.board.is_paused();
                    self.finish(done);
                    self.start();
                    // That read brings no records before it is told of the partitions that have room again.
                    if nothing && self.board.wants_reading(self.room()) {
                        return Event::Chores;
                    }
                    // A read that is broken off while it works is work for nothing; one that only waits is not.
                    let due = self.chores_due();
                    until = until.into_iter().chain(due).min();
                }
                () = sleep_until(until.unwrap_or_else(Instant::now).into()), if until.is_some() => return Event::Chores,
                () = sleep_until(self.start_from.into()), if self.is_free() && self.board.waiting() > 0 => self.start(),
                () = shutdown.cancelled() => return Event::Stop,
            }
        }
    }

    /// Whether nothing is read now: what would be read has to wait for the next batch's turn, and more of it comes by then.
    fn rests(&self) -> bool {
        self.board.waiting() == 0 && Instant::now() < self.start_from
    }

    async fn rest(&mut self, shutdown: &CancellationToken) -> Event {
        let mut until = self.start_from;
        loop {
            tokio::select! {
                Some(done) = ended(&mut self.running, &mut self.failed) => {
                    self.finish(done);
                    until = self.chores_due().into_iter().chain([until]).min().unwrap_or(until);
                }
                () = sleep_until(until.into()) => return Event::Chores,
                () = shutdown.cancelled() => return Event::Stop,
            }
        }
    }

    fn finish(&mut self, done: Result<Worked, tokio::task::JoinError>) {
        match done {
            Ok(done) => {
                for start in done.failed {
                    let stage = self.shared.step.name();
                    let partition = start.batch.partition;
                    let span = tracing::debug_span!(
                        "batch",
                        stage,
                        topic = %partition.topic,
                        partition = partition.number,
                        records = start.batch.len(),
                    );
                    let work = alone(self.shared.clone(), start);
                    self.failed.push(tokio::spawn(work.instrument(span)));
                }
                self.size.learn(done.records, done.seconds);
                let commits = self.shared.log.transactional().is_none();
                for finished in &done.finished {
                    self.board.finished(finished, commits);
                }
            }
            Err(error) => match error.try_into_panic() {
                // Ours, not the step's: its panics are a record's fault.
                Ok(panic) => panic::resume_unwind(panic),
                Err(_) => tracing::debug!("a batch was broken off: the process is stopping"),
            },
        }
    }

    fn take(&mut self, consumer: &dyn Consumer, delivery: Delivery) {
        let stage = self.shared.step.name();
        match delivery {
            Delivery::Idle => {}
            Delivery::Batch { partition, records } => {
                self.behind = consumer.is_behind();
                self.size.read(records.len(), self.behind);
                let batch = Batch::new(stage, partition, consumer.epoch(partition), records);
                self.board.offer(batch);
            }
            Delivery::Assign(partitions) => {
                tracing::info!(stage, partitions = %list(&partitions), "partitions assigned");
                self.board.assign(&partitions);
                self.asked.retain(|(asked, _)| !partitions.contains(asked));
            }
            Delivery::Revoke(partitions) => {
                tracing::info!(stage, partitions = %list(&partitions), "partitions asked back");
                self.board.revoke(&partitions);
                let until = Instant::now() + self.shared.config.drain;
                self.asked
                    .extend(partitions.into_iter().map(|partition| (partition, until)));
            }
            Delivery::Lost(partitions) => {
                tracing::warn!(stage, partitions = %list(&partitions), "partitions lost");
                for partition in &partitions {
                    self.board.drop_partition(*partition);
                }
                self.asked.retain(|(asked, _)| !partitions.contains(asked));
            }
        }
        self.owned.send_if_modified(|owned| {
            let now = self.board.owned();
            let changed = *owned != now;
            *owned = now;
            changed
        });
    }

    /// What may wait of a partition. Where each read is a query of its own, it is what one of them gives. Elsewhere a read may
    /// add as much as a batch is to have, so half of that is enough, or more of few partitions: a further batch is begun only
    /// where a whole one waits.
    fn room(&self) -> Room {
        let (records, together) = match self.shared.log.transactional() {
            Some(_) => (1, 1),
            None => (self.size.records() / 2, self.size.records() * 2),
        };
        Room {
            records,
            together,
            bytes: self.shared.config.batch_bytes / 2,
        }
    }

    /// Until when a read may go on while something waits to be done.
    fn chores_due(&self) -> Option<Instant> {
        let soon = Instant::now() + GRACE;
        let reread = (!self.board.rereads().is_empty()).then(|| soon.max(self.chores_from));
        let other = (!self.asked.is_empty() || self.board.wants_reading(self.room())).then_some(soon);
        [self.commits_due(), reread, other].into_iter().flatten().min()
    }

    fn commits_due(&self) -> Option<Instant> {
        let due = match self.asked.is_empty() {
            true => self.chores_from.max(self.commit_from),
            false => self.chores_from,
        };
        (!self.board.commits().is_empty()).then(|| due.max(Instant::now() + GRACE))
    }

    /// What needs the consumer: commits, partitions to give back, pauses.
    async fn do_chores(&mut self, consumer: &mut dyn Consumer) {
        let now = Instant::now();
        if now >= self.chores_from {
            if now >= self.commit_from || !self.asked.is_empty() {
                self.commit(consumer).await;
            }
            self.reread(consumer).await;
        }
        self.release(consumer).await;
        for pause in [true, false] {
            let partitions = self.board.pauses(pause, self.room());
            if partitions.is_empty() {
                continue;
            }
            let done = if pause {
                consumer.pause(&partitions)
            } else {
                consumer.resume(&partitions)
            };
            if let Err(error) = done {
                // It went in between; the bus says so next.
                tracing::debug!(%error, pause, "pausing or resuming failed");
            }
        }
    }

    async fn commit(&mut self, consumer: &mut dyn Consumer) {
        let offsets = self.board.commits();
        if offsets.is_empty() || crash::point("stage-before-offset").is_err() {
            return;
        }
        let results = consumer.commit_all(&offsets).await;
        self.commit_from = Instant::now() + COMMIT_EVERY;
        if crash::point("stage-after-offset").is_err() {
            return;
        }
        let mut failed = None;
        for ((partition, _), result) in offsets.into_iter().zip(results) {
            match result {
                Ok(()) => self.board.committed(partition),
                Err(BusError::NotOwner { .. }) => self.board.drop_partition(partition),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            None => self.chores = Backoff::new(self.shared.config.retry_min, self.shared.config.retry_max),
            Some(error) => self.failed(&error),
        }
    }

    async fn reread(&mut self, consumer: &mut dyn Consumer) {
        for (partition, offset) in self.board.rereads() {
            match consumer.seek(partition, offset).await {
                Ok(()) => self.board.reread(partition),
                Err(BusError::NotOwner { .. }) => self.board.drop_partition(partition),
                Err(error) => return self.failed(&error),
            }
        }
    }

    fn failed(&mut self, error: &BusError) {
        self.chores_from = Instant::now() + self.chores.wait();
        if self.chores.is_telling() {
            tracing::warn!(stage = self.shared.step.name(), %error, "committing an offset failed, trying again");
        }
    }

    async fn release(&mut self, consumer: &mut dyn Consumer) {
        let asked: Vec<Partition> = self.asked.iter().map(|(partition, _)| *partition).collect();
        let mut ready = self.board.releasable(&asked);
        // Who takes too long is not waited for: its commit comes too late and is refused.
        let late = self.asked.iter().filter(|(_, until)| *until <= Instant::now());
        ready.extend(late.map(|(partition, _)| *partition));
        ready.sort_unstable();
        ready.dedup();
        if ready.is_empty() {
            return;
        }
        for partition in &ready {
            self.board.drop_partition(*partition);
        }
        self.asked.retain(|(partition, _)| !ready.contains(partition));
        if let Err(error) = consumer.release(&ready).await {
            // The session ended, and the partitions with it.
            tracing::debug!(%error, "giving partitions back failed");
        }
        self.owned.send_replace(self.board.owned());
    }

    async fn drain(&mut self, consumer: &mut dyn Consumer) {
        let until = Instant::now() + self.shared.config.drain;
        self.board.stop();
        while !self.running.is_empty() || !self.failed.is_empty() {
            tokio::select! {
                Some(done) = ended(&mut self.running, &mut self.failed) => {
                    self.finish(done);
                    self.commit(consumer).await;
                }
                () = sleep_until(until.into()) => {
                    tracing::warn!(stage = self.shared.step.name(), "stopping before all that was under way is done; it is done again");
                    break;
                }
            }
        }
        self.commit(consumer).await;
    }
}

/// How long after a batch of so many records the next one begins, at least: the fuller it was, the sooner.
fn pause(pace: Duration, records: usize, most: usize) -> Duration {
    pace.mul_f64(1.0 - (records as f64 / most.max(1) as f64).min(1.0))
}

type Work = FuturesUnordered<JoinHandle<Worked>>;

/// What has ended next of the two; `None`: nothing is under way.
async fn ended(running: &mut Work, failed: &mut Work) -> Option<Result<Worked, tokio::task::JoinError>> {
    tokio::select! {
        Some(done) = running.next() => Some(done),
        Some(done) = failed.next() => Some(done),
        else => None,
    }
}

fn list(partitions: &[Partition]) -> String {
    let names: Vec<String> = partitions
        .iter()
        .map(|partition| format!("{}/{}", partition.topic, partition.number))
        .collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuller_a_batch_was_the_sooner_the_next_one_begins() {
        let pace = Duration::from_millis(100);
        for (records, expected) in [(0, 100), (50, 90), (250, 50), (500, 0), (700, 0)] {
            assert_eq!(pause(pace, records, 500), Duration::from_millis(expected), "{records}");
        }
    }
}
