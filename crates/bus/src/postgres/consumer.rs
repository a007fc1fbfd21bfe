//! A group member on the PostgreSQL log.
//!
//! Its work on the database runs in tasks of its own, one at a time: a caller that gives up waiting ([`Consumer::next`] can
//! be cancelled) leaves neither a half-read connection nor a partition that is locked and forgotten. What is read of several
//! partitions at once waits here; positions move only when a batch is handed out, so what a cancelled call had read is read
//! again.

use std::{
    collections::{BTreeMap, VecDeque},
    panic,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use events::Topic;
use futures::future::{BoxFuture, FutureExt, select_all};
use tokio::sync::{Mutex, watch};

use super::{
    Shared, reading,
    session::{Session, SharedState, State, lock},
    wake::{LINGER, LOOK},
};
use crate::{BusError, Consumer, Delivery, Partition, ReadLimits, StoredRecord};

/// How often to look without having been woken.
const POLL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct PostgresConsumer {
    session: Arc<Mutex<Session>>,
    state: SharedState,
    topics: Vec<Watched>,
    groups: watch::Receiver<()>,
    /// When it last looked at all of them.
    looked: Instant,
    balanced: Option<Instant>,
    /// The partition of the last batch: the next one's turn comes first.
    last: Option<Partition>,
    /// Read and not yet handed out.
    ahead: BTreeMap<Partition, VecDeque<StoredRecord>>,
}

/// A topic, and when to look for news of it.
#[derive(Debug)]
struct Watched {
    topic: Topic,
    appended: watch::Receiver<()>,
    /// When something last came of it, or there was a reason to expect it.
    had: Instant,
    looked: Instant,
}

impl Watched {
    fn new(topic: Topic, appended: watch::Receiver<()>) -> Watched {
        let now = Instant::now();
        Watched {
            topic,
            appended,
            had: now,
            looked: now,
        }
    }

    /// When to look next without having been woken. It rests once it looked long enough after it had something, however
    /// long its caller was busy in between.
    fn due(&self) -> Option<Instant> {
        (self.looked < self.had + LINGER).then(|| self.looked + LOOK)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.appended.has_changed().unwrap_or(false) || self.due().is_some_and(|due| due <= now)
    }

    fn look_at(&mut self, now: Instant) {
        self.appended.mark_unchanged();
        self.looked = now;
    }
}

impl PostgresConsumer {
    pub async fn join(shared: Arc<Shared>, group: &str, topics: &[Topic]) -> Result<PostgresConsumer, BusError> {
        let state = SharedState::default();
        let consumer = PostgresConsumer {
            topics: (topics.iter())
                .map(|topic| Watched::new(*topic, shared.wake.on_append(*topic)))
                .collect(),
            groups: shared.wake.on_group_change(),
            session: Arc::new(Mutex::new(Session::new(shared, group, topics, state.clone()))),
            state,
            looked: Instant::now(),
            balanced: None,
            last: None,
            ahead: BTreeMap::new(),
        };
        consumer.on_session(|session| session.join().boxed()).await?;
        Ok(consumer)
    }

    /// Runs `work` to its end, whether or not the caller waits for it.
    async fn on_session<T, W>(&self, work: W) -> Result<T, BusError>
    where
        T: Send + 'static,
        W: for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Result<T, BusError>> + Send + 'static,
    {
        let session = self.session.clone();
        super::uncancelled(async move { work(&mut *session.lock().await).await }).await
    }

    /// What the group decided; nothing of a partition that went is handed out.
    fn pending(&mut self) -> Option<Delivery> {
        let delivery = lock(&self.state).pending.pop_front()?;
        if let Delivery::Assign(partitions) | Delivery::Revoke(partitions) | Delivery::Lost(partitions) = &delivery {
            self.ahead.retain(|partition, _| !partitions.contains(partition));
            self.expect(partitions);
        }
        Some(delivery)
    }

    /// Who appended to these partitions may have told others than us.
    fn expect(&mut self, partitions: &[Partition]) {
        for watched in &mut self.topics {
            if partitions.iter().any(|partition| partition.topic == watched.topic) {
                watched.had = Instant::now();
            }
        }
    }

    /// The partitions that have records for us, in turn.
    fn ready(&self) -> Vec<Partition> {
        let state = lock(&self.state);
        let mut ready: Vec<Partition> = state
            .owned
            .iter()
            .filter(|(_, owned)| owned.is_readable() && owned.segment.is_some() && owned.end > owned.position)
            .map(|(partition, _)| *partition)
            .collect();
        let later = ready.partition_point(|partition| Some(*partition) <= self.last);
        ready.rotate_left(later);
        ready
    }

    /// A batch of what was read of a partition, if that is what comes next in it, and moves on past it.
    fn hand_out(&mut self, partition: Partition, limits: ReadLimits) -> Option<Delivery> {
        let mut state = lock(&self.state);
        let ahead = self.ahead.get_mut(&partition)?;
        let owned = state.owned.get_mut(&partition).filter(|owned| owned.is_readable());
        let next = ahead.front().map(|record| record.offset);
        let Some(owned) = owned.filter(|owned| Some(owned.position) == next) else {
            // It went, or was sought elsewhere.
            self.ahead.remove(&partition);
            return None;
        };
        let count = reading::fitting(&*ahead, limits);
        let records: Vec<StoredRecord> = ahead.drain(..count).collect();
        if ahead.is_empty() {
            self.ahead.remove(&partition);
        }
        owned.position = records.last()?.offset + 1;
        owned.end = owned.end.max(owned.position);
        self.last = Some(partition);
        Some(Delivery::Batch { partition, records })
    }

    /// Takes what was read of a partition.
    fn keep(&mut self, partition: Partition, records: Vec<StoredRecord>) {
        if !records.is_empty() {
            self.ahead.insert(partition, records.into());
            self.expect(&[partition]);
            return;
        }
        // The segment's end: the records that we know of are in the next.
        let mut state = lock(&self.state);
        state.stale = true;
        if let Some(owned) = state.owned.get_mut(&partition) {
            owned.segment = None;
        }
    }

    /// The partitions of the topics that are due, if what comes in each is in a segment that we know, the same for all of a
    /// topic.
    fn due(&self, now: Instant) -> Option<Vec<Vec<Partition>>> {
        let state = lock(&self.state);
        let mut topics = Vec::new();
        for watched in self.topics.iter().filter(|watched| watched.is_due(now)) {
            let owned = || {
                (state.owned.iter())
                    .filter(|(partition, owned)| partition.topic == watched.topic && owned.is_readable())
            };
            let Some((_, first)) = owned().next() else { continue };
            first.segment?;
            if owned().any(|(_, owned)| owned.segment != first.segment) {
                return None;
            }
            topics.push(owned().map(|(partition, _)| *partition).collect());
        }
        Some(topics)
    }

    /// Reads what was appended without asking first where it is.
    async fn read_on(&mut self, topics: Vec<Vec<Partition>>, limits: ReadLimits) -> Result<(), BusError> {
        for partitions in topics {
            let read = self
                .on_session(move |session| session.fetch(partitions, limits).boxed())
                .await?;
            for (partition, records) in read {
                if !records.is_empty() {
                    self.keep(partition, records);
                }
            }
        }
        Ok(())
    }

    /// Waits for news, a change in the group or `until`.
    async fn wait(&mut self, until: Instant) {
        let balance = self.balanced.map_or_else(Instant::now, |at| at + POLL);
        let due = self.topics.iter().filter_map(Watched::due).min().unwrap_or(until);
        let until = until.min(self.looked + POLL).min(balance).min(due);
        let appended = select_all(self.topics.iter_mut().map(|watched| watched.appended.changed().boxed()));
        let mut news = None;
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            (_, place, _) = appended => news = Some(place),
            _ = self.groups.changed() => self.balanced = None,
        }
        if let Some(place) = news {
            // Waiting has taken note of it.
            self.topics[place].appended.mark_changed();
        }
    }

    fn owned<T>(&self, partition: Partition, change: impl FnOnce(&mut State) -> Option<T>) -> Result<T, BusError> {
        change(&mut lock(&self.state)).ok_or(BusError::NotOwner {
            topic: partition.topic,
            number: partition.number,
        })
    }
}

#[async_trait]
impl Consumer for PostgresConsumer {
    async fn next(&mut self, limits: ReadLimits) -> Result<Delivery, BusError> {
        let until = Instant::now() + limits.wait;
        loop {
            if let Some(delivery) = self.pending() {
                return Ok(delivery);
            }
            if self.groups.has_changed().unwrap_or(false) || self.balanced.is_none_or(|at| at.elapsed() >= POLL) {
                self.groups.mark_unchanged();
                let done = self.on_session(|session| session.balance().boxed()).await;
                if let Some(delivery) = self.pending() {
                    return Ok(delivery);
                }
                done?;
                self.balanced = Some(Instant::now());
            }
            let mut ready = self.ready();
            if let Some(first) = ready.first().copied() {
                if let Some(delivery) = self.hand_out(first, limits) {
                    return Ok(delivery);
                }
                ready.retain(|partition| partition.topic == first.topic && !self.ahead.contains_key(partition));
                let fetched = self
                    .on_session(move |session| session.fetch(ready, limits).boxed())
                    .await;
                match fetched {
                    Ok(read) => {
                        // Nobody has the connection any more: what we know of the partition is looked up again.
                        if read.is_empty() {
                            self.keep(first, Vec::new());
                        }
                        for (partition, records) in read {
                            self.keep(partition, records);
                        }
                        continue;
                    }
                    Err(error) => match self.pending() {
                        Some(delivery) => return Ok(delivery),
                        None => return Err(error),
                    },
                }
            }
            let now = Instant::now();
            let is_stale = lock(&self.state).stale || now >= self.looked + POLL;
            if is_stale || self.topics.iter().any(|watched| watched.is_due(now)) {
                let straight = (!is_stale).then(|| self.due(now)).flatten();
                for watched in &mut self.topics {
                    if straight.is_none() || watched.is_due(now) {
                        watched.look_at(now);
                    }
                }
                let done = match straight {
                    Some(topics) => self.read_on(topics, limits).await,
                    None => {
                        self.looked = now;
                        self.on_session(|session| session.look().boxed()).await
                    }
                };
                if let Some(delivery) = self.pending() {
                    return Ok(delivery);
                }
                done?;
                continue;
            }
            if Instant::now() >= until {
                return Ok(Delivery::Idle);
            }
            self.wait(until).await;
        }
    }

    async fn commit_all(&mut self, offsets: &[(Partition, i64)]) -> Vec<Result<(), BusError>> {
        let mut results = Vec::with_capacity(offsets.len());
        for &(partition, next_offset) in offsets {
            let committed = self.on_session(move |session| session.commit(partition, next_offset).boxed());
            results.push(committed.await);
        }
        results
    }

    fn is_behind(&self) -> bool {
        lock(&self.state).owned.values().any(|owned| owned.end > owned.position)
    }

    fn epoch(&self, partition: Partition) -> i64 {
        lock(&self.state).owned.get(&partition).map_or(0, |owned| owned.epoch)
    }

    async fn seek(&mut self, partition: Partition, offset: i64) -> Result<(), BusError> {
        self.expect(&[partition]);
        self.owned(partition, |state| {
            let owned = state.owned.get_mut(&partition)?;
            owned.position = offset;
            owned.segment = None;
            state.stale = true;
            Some(())
        })
    }

    fn pause(&mut self, partitions: &[Partition]) -> Result<(), BusError> {
        let mut state = lock(&self.state);
        for partition in partitions {
            if let Some(owned) = state.owned.get_mut(partition) {
                owned.paused = true;
            }
        }
        Ok(())
    }

    fn resume(&mut self, partitions: &[Partition]) -> Result<(), BusError> {
        self.expect(partitions);
        // Nobody looked for what came of them meanwhile: that is due now.
        for watched in &mut self.topics {
            if partitions.iter().any(|partition| partition.topic == watched.topic) {
                watched.appended.mark_changed();
            }
        }
        let mut state = lock(&self.state);
        for partition in partitions {
            if let Some(owned) = state.owned.get_mut(partition) {
                owned.paused = false;
                // Where it comes is known as a rule.
                state.stale |= owned.segment.is_none();
            }
        }
        Ok(())
    }

    async fn release(&mut self, partitions: &[Partition]) -> Result<(), BusError> {
        let partitions = partitions.to_vec();
        self.on_session(move |session| async move { session.release(&partitions).await }.boxed())
            .await
    }

    async fn close(self: Box<Self>) -> Result<(), BusError> {
        self.on_session(|session| session.leave().boxed()).await
    }
}

/// What a task that panicked owes its caller.
pub(super) fn rethrow(error: tokio::task::JoinError) -> BusError {
    match error.try_into_panic() {
        Ok(payload) => panic::resume_unwind(payload),
        // The runtime is shutting down.
        Err(_) => BusError::Postgres(sqlx::Error::WorkerCrashed),
    }
}
