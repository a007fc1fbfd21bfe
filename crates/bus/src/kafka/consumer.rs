//! A group member on Kafka.
//!
//! librdkafka fetches ahead on its own threads into one queue, which wakes us when it is no longer empty; what comes off it
//! is sorted by partition (`held.rs`).
//!
//! # What happens when somebody dies
//! - This process: the session expires (10 s), the coordinator gives the partitions to others, who read from the committed
//!   offset. Closed in order, they go at once.
//! - A consumer that is not asked for records for `max.poll.interval.ms` counts as dead; its commits are refused.
//! - The brokers: librdkafka connects again by itself; deliveries are idle meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use events::Topic;
use rdkafka::{
    Offset,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    topic_partition_list::TopicPartitionList,
};
use tokio::sync::Notify;

use super::{
    clients::{Names, REQUEST, blocking},
    held::Held,
    rebalance::{Decision, GroupContext, Member, let_go},
    settings,
};
use crate::{BusError, Consumer, Delivery, KafkaConfig, Partition, ReadLimits};

/// How long the owner may take to let go of revoked partitions before they are taken from it.
const RELEASE_WAIT: Duration = Duration::from_secs(30);
/// How long to try again a commit that meets a rebalance, before its caller is told that it may pass. The rebalance may
/// take longer: the group waits for a dead member until its session expires.
const COMMIT_WAIT: Duration = Duration::from_secs(1);
/// How often to look without having been woken.
const POLL: Duration = Duration::from_secs(1);

pub(super) struct KafkaConsumer {
    /// `None` once closed.
    client: Option<Arc<Member>>,
    pub(super) names: Names,
    woken: Arc<Notify>,
    pub(super) held: BTreeMap<Partition, Held>,
    pending: VecDeque<Delivery>,
    revoked: Option<Revoked>,
    /// The partition of the last batch: the next one's turn comes first.
    pub(super) last: Option<Partition>,
    /// Since when all partitions are paused.
    pub(super) all_paused: Option<Instant>,
    /// More may have been fetched than was taken.
    pub(super) behind: bool,
}

/// A revocation that waits for its owner.
struct Revoked {
    list: TopicPartitionList,
    left: BTreeSet<Partition>,
    since: Instant,
}

impl KafkaConsumer {
    pub fn join(config: &KafkaConfig, group: &str, topics: &[Topic]) -> Result<KafkaConsumer, BusError> {
        let names = Names(config.prefix.clone());
        let mut client: BaseConsumer<GroupContext> = settings::consumer(config, group)
            .create_with_context(GroupContext::default())
            .map_err(super::creation)?;
        let woken = Arc::new(Notify::new());
        client.set_nonempty_callback({
            let woken = woken.clone();
            move || woken.notify_one()
        });
        let topics: Vec<String> = topics.iter().map(|topic| names.of(*topic)).collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        client.subscribe(&topics).map_err(BusError::Kafka)?;
        Ok(KafkaConsumer {
            client: Some(Arc::new(Member(client))),
            names,
            woken,
            held: BTreeMap::new(),
            pending: VecDeque::new(),
            revoked: None,
            last: None,
            all_paused: None,
            behind: false,
        })
    }

    fn client(&self) -> Result<Arc<Member>, BusError> {
        self.client.clone().ok_or(BusError::Kafka(KafkaError::Canceled))
    }

    pub(super) fn is_readable(&self, partition: Partition, held: &Held) -> bool {
        let revoked = self
            .revoked
            .as_ref()
            .is_some_and(|revoked| revoked.left.contains(&partition));
        !held.paused && !revoked && held.sought.is_none()
    }

    /// Takes over what the coordinator decided.
    fn take_decisions(&mut self) {
        let Some(client) = &self.client else {
            return;
        };
        for decision in client.context().take() {
            match decision {
                Decision::Assigned(list) => {
                    let partitions = self.names.partitions(&list);
                    for partition in &partitions {
                        self.held.insert(*partition, Held::default());
                    }
                    if !partitions.is_empty() {
                        self.pending.push_back(Delivery::Assign(partitions));
                    }
                }
                Decision::Revoked(list) => {
                    let partitions = self.names.partitions(&list);
                    for partition in &partitions {
                        if let Some(held) = self.held.get_mut(partition) {
                            held.clear();
                        }
                    }
                    self.revoked = Some(Revoked {
                        list,
                        left: partitions.iter().copied().collect(),
                        since: Instant::now(),
                    });
                    self.pending.push_back(Delivery::Revoke(partitions));
                }
                Decision::Lost(list) => {
                    let partitions = self.names.partitions(&list);
                    let lost: Vec<Partition> = partitions
                        .into_iter()
                        .filter(|partition| self.held.remove(partition).is_some())
                        .collect();
                    if !lost.is_empty() {
                        self.pending.push_back(Delivery::Lost(lost));
                    }
                }
            }
        }
    }

    /// Goes where it was told to by [`Consumer::seek`]. A partition that is just being assigned cannot yet: next time.
    async fn do_seeks(&mut self, client: &Arc<Member>) -> Result<(), BusError> {
        let mut list = TopicPartitionList::new();
        for (partition, held) in &self.held {
            if let Some(offset) = held.sought {
                list.add_partition_offset(
                    &self.names.of(partition.topic),
                    partition.number.cast_signed(),
                    Offset::Offset(offset),
                )
                .map_err(BusError::Kafka)?;
            }
        }
        if list.count() == 0 {
            return Ok(());
        }
        let seeking = client.clone();
        let done = blocking(move || seeking.seek_partitions(list, REQUEST).map_err(BusError::Kafka)).await?;
        for element in done.elements() {
            let partition = self.names.partition(element.topic(), element.partition());
            let held = partition.and_then(|partition| self.held.get_mut(&partition));
            if let (Some(held), Ok(())) = (held, element.error()) {
                held.sought = None;
            }
        }
        Ok(())
    }

    /// Takes revoked partitions from an owner that does not let go.
    async fn take_overdue(&mut self) -> Result<(), BusError> {
        let overdue = self
            .revoked
            .as_ref()
            .is_some_and(|revoked| revoked.since.elapsed() > RELEASE_WAIT);
        if !overdue {
            return Ok(());
        }
        let left: Vec<Partition> = self.revoked.iter().flat_map(|revoked| revoked.left.clone()).collect();
        tracing::warn!(partitions = left.len(), "revoked partitions were not released in time");
        self.pending.push_back(Delivery::Lost(left.clone()));
        self.release(&left).await
    }

    async fn try_commit(&self, offsets: &[(Partition, i64)]) -> Result<(), KafkaError> {
        let Some(client) = self.client.clone() else {
            return Err(KafkaError::Canceled);
        };
        let mut list = TopicPartitionList::new();
        for (partition, next_offset) in offsets {
            list.add_partition_offset(
                &self.names.of(partition.topic),
                partition.number.cast_signed(),
                Offset::Offset(*next_offset),
            )?;
        }
        blocking(move || Ok(client.commit(&list, CommitMode::Sync)))
            .await
            .unwrap_or(Err(KafkaError::Canceled))
    }

    /// Commits what is ours in one request, and waits out what passes within a moment.
    async fn commit_held(&self, offsets: &[(Partition, i64)]) -> Result<(), Refused> {
        let until = Instant::now() + COMMIT_WAIT;
        loop {
            let error = match self.try_commit(offsets).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let lost = self.client.as_ref().is_none_or(|client| client.assignment_lost());
            match error.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::FencedInstanceId
                    | RDKafkaErrorCode::FencedMemberEpoch
                    | RDKafkaErrorCode::AssignmentLost,
                ) => return Err(Refused::NotOwner),
                // The group is moving on to its next generation and the coordinator is ahead of us by a moment. Nothing is
                // taken from us meanwhile: that would need our answer first. So the partition stays ours, and an owner that
                // were told otherwise would leave it unread until the next rebalance.
                Some(
                    RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::StaleMemberEpoch
                    | RDKafkaErrorCode::RebalanceInProgress,
                ) if lost => return Err(Refused::NotOwner),
                Some(
                    RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::StaleMemberEpoch
                    | RDKafkaErrorCode::RebalanceInProgress
                    | RDKafkaErrorCode::CoordinatorLoadInProgress
                    | RDKafkaErrorCode::NotCoordinator
                    | RDKafkaErrorCode::CoordinatorNotAvailable,
                ) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => return Err(Refused::Failed(error)),
            }
        }
    }
}

/// Why a commit did not succeed, for all of its partitions.
enum Refused {
    NotOwner,
    Failed(KafkaError),
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn next(&mut self, limits: ReadLimits) -> Result<Delivery, BusError> {
        let until = Instant::now() + limits.wait;
        let client = self.client()?;
        loop {
            self.take_decisions();
            self.take_overdue().await?;
            if let Some(delivery) = self.pending.pop_front() {
                return Ok(delivery);
            }
            self.do_seeks(&client).await?;
            let gathered = self.gather(&client, limits);
            self.take_decisions();
            if let Some(delivery) = self.pending.pop_front() {
                return Ok(delivery);
            }
            if let Some(delivery) = self.deliver(limits) {
                return Ok(delivery);
            }
            gathered?;
            let now = Instant::now();
            if now >= until {
                return Ok(Delivery::Idle);
            }
            let seeking = self.held.values().any(|held| held.sought.is_some());
            let pause = if seeking { Duration::from_millis(20) } else { POLL };
            let unread = self.unread_until().filter(|unread| *unread > now);
            let again = until.min(now + pause).min(unread.unwrap_or(until));
            let _ = tokio::time::timeout_at(again.into(), self.woken.notified()).await;
        }
    }

    async fn commit_all(&mut self, offsets: &[(Partition, i64)]) -> Vec<Result<(), BusError>> {
        let not_owner = |partition: &Partition| BusError::NotOwner {
            topic: partition.topic,
            number: partition.number,
        };
        let held: Vec<(Partition, i64)> = (offsets.iter().copied())
            .filter(|(partition, _)| self.held.contains_key(partition))
            .collect();
        let answer = match held.is_empty() {
            true => Ok(()),
            false => self.commit_held(&held).await,
        };
        offsets
            .iter()
            .map(|(partition, _)| match &answer {
                _ if !self.held.contains_key(partition) => Err(not_owner(partition)),
                Ok(()) => Ok(()),
                Err(Refused::NotOwner) => Err(not_owner(partition)),
                Err(Refused::Failed(error)) => Err(BusError::Kafka(error.clone())),
            })
            .collect()
    }

    fn is_behind(&self) -> bool {
        self.behind
    }

    /// Kafka's coordinator fences by itself.
    fn epoch(&self, _partition: Partition) -> i64 {
        0
    }

    async fn seek(&mut self, partition: Partition, offset: i64) -> Result<(), BusError> {
        let held = self.held.get_mut(&partition).ok_or(BusError::NotOwner {
            topic: partition.topic,
            number: partition.number,
        })?;
        held.clear();
        held.sought = Some(offset);
        Ok(())
    }

    fn pause(&mut self, partitions: &[Partition]) -> Result<(), BusError> {
        for partition in partitions {
            if let Some(held) = self.held.get_mut(partition) {
                held.paused = true;
            }
        }
        Ok(())
    }

    fn resume(&mut self, partitions: &[Partition]) -> Result<(), BusError> {
        let client = self.client()?;
        for partition in partitions {
            let Some(held) = self.held.get_mut(partition) else {
                continue;
            };
            held.paused = false;
            if held.stopped {
                client.resume(&self.names.list([partition])).map_err(BusError::Kafka)?;
                held.stopped = false;
            }
        }
        Ok(())
    }

    async fn release(&mut self, partitions: &[Partition]) -> Result<(), BusError> {
        let Some(revoked) = &mut self.revoked else {
            return Ok(());
        };
        for partition in partitions {
            if revoked.left.remove(partition) {
                self.held.remove(partition);
            }
        }
        if !revoked.left.is_empty() {
            return Ok(());
        }
        let client = self.client()?;
        let Some(revoked) = self.revoked.take() else {
            return Ok(());
        };
        blocking(move || let_go(&client, &revoked.list).map_err(BusError::Kafka)).await
    }

    async fn close(mut self: Box<Self>) -> Result<(), BusError> {
        if let Some(client) = self.client.take() {
            // It leaves the group, which blocks.
            blocking(move || {
                drop(client);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            // Not on this thread, which may be a runtime's.
            std::thread::spawn(move || drop(client));
        }
    }
}
