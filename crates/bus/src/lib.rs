//! The log between the services: one contract, two implementations, Kafka and PostgreSQL.
//!
//! # The contract
//! - A topic has partitions; a record goes to the partition that its key hashes to (murmur2, Kafka's default partitioner,
//!   on both), so one contact's records keep their order.
//! - [`Log::append`] answers when the records are durable (Kafka: `acks=all`, idempotent; PostgreSQL: committed).
//! - A consumer group reads each partition through one consumer at a time, in offset order, from the offset that the
//!   group committed; what was not committed is delivered again to whoever owns the partition next.
//! - A partition that is taken away is announced first ([`Delivery::Revoke`]); its owner drains, commits, and lets go.
//! - A record larger than [`MAX_RECORD_BYTES`] is refused by `append` with an error that says so; a full queue is
//!   back-pressure, not an error.

mod config;
mod kafka;
mod partitioner;
mod postgres;

use std::time::Duration;

use async_trait::async_trait;
use events::{Header, Record, Topic};
use jiff::Timestamp;

pub use config::{BusConfig, KafkaConfig, PostgresConfig, open};
pub use kafka::mock::MockKafka;
pub use partitioner::partition_for;
pub use postgres::maintain as postgres_maintain;

/// Key, headers and value together. Kafka's `message.max.bytes` default.
pub const MAX_RECORD_BYTES: usize = 1_048_576;

/// A record to append.
#[derive(Clone, PartialEq)]
pub struct NewRecord {
    pub topic: Topic,
    pub key: String,
    pub headers: Vec<Header>,
    pub value: Vec<u8>,
}

impl NewRecord {
    /// What counts against [`MAX_RECORD_BYTES`]: key, headers and value.
    pub fn size(&self) -> usize {
        size(&self.key, &self.headers, &self.value)
    }

    /// A record of ours in its envelope; `traceparent` is the one of the record that caused it.
    pub fn wrap<R: Record>(
        topic: Topic,
        key: &str,
        id: String,
        time: Timestamp,
        trace: Option<&str>,
        record: &R,
    ) -> Self {
        NewRecord {
            topic,
            key: key.into(),
            headers: events::headers(
                id.into(),
                "tamtam".into(),
                R::KIND.into(),
                Some(time),
                Some(key.to_owned().into()),
                trace.map(|trace| trace.to_owned().into()),
            ),
            value: record.to_bytes(),
        }
    }
}

fn check_size(record: &NewRecord) -> Result<(), BusError> {
    let bytes = record.size();
    if bytes > MAX_RECORD_BYTES {
        return Err(BusError::TooLarge {
            topic: record.topic,
            bytes,
            limit: MAX_RECORD_BYTES,
        });
    }
    Ok(())
}

/// A record as it was read.
#[derive(Clone, PartialEq)]
pub struct StoredRecord {
    pub offset: i64,
    /// When it was appended, in ms since 1970.
    pub timestamp_ms: i64,
    pub key: String,
    pub headers: Vec<Header>,
    pub value: Vec<u8>,
}

fn size(key: &str, headers: &[Header], value: &[u8]) -> usize {
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    key.len() + headers + value.len()
}

impl StoredRecord {
    /// What counts against a limit of bytes: key, headers and value.
    pub fn size(&self) -> usize {
        size(&self.key, &self.headers, &self.value)
    }

    /// `None`: the bus does not say.
    pub fn appended_at(&self) -> Option<Timestamp> {
        let known = (self.timestamp_ms > 0).then_some(self.timestamp_ms)?;
        Timestamp::from_millisecond(known).ok()
    }
}

impl std::fmt::Debug for NewRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewRecord")
            .field("topic", &self.topic)
            .field("bytes", &self.value.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for StoredRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredRecord")
            .field("offset", &self.offset)
            .field("bytes", &self.value.len())
            .finish_non_exhaustive()
    }
}

/// A partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    pub topic: Topic,
    pub number: u32,
}

/// What a consumer hands out.
#[derive(Debug)]
pub enum Delivery {
    /// These partitions are ours from now on.
    Assign(Vec<Partition>),
    /// Records of one partition in offset order, never empty.
    Batch {
        partition: Partition,
        records: Vec<StoredRecord>,
    },
    /// Finish what is under way for these partitions and commit it, then call [`Consumer::release`].
    Revoke(Vec<Partition>),
    /// These partitions went to somebody else without asking (our session expired): drop what is under way.
    Lost(Vec<Partition>),
    /// Nothing came within the time.
    Idle,
}

#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    pub records: usize,
    pub bytes: usize,
    /// How long to wait for the first record.
    pub wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    pub partition: Partition,
    /// The next offset that the group reads.
    pub committed: i64,
    /// The next offset that will be given out.
    pub end: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub partition: Partition,
    pub first: i64,
    pub end: i64,
}

/// The log, on either bus. Cheap to share: clone the `Arc`.
#[async_trait]
pub trait Log: Send + Sync + std::fmt::Debug {
    /// Makes the topics that are missing; never shrinks one.
    async fn topics_ensure(&self, topics: &[TopicSettings]) -> Result<(), BusError>;
    /// Appends in the order given (per key); all are durable when it returns `Ok`. After an error some may have been
    /// written ("perhaps written"): appending again is right, readers de-duplicate by id.
    async fn append(&self, records: Vec<NewRecord>) -> Result<(), BusError>;
    /// Joins `group` for all partitions of `topics`.
    async fn subscribe(&self, group: &str, topics: &[Topic]) -> Result<Box<dyn Consumer>, BusError>;
    /// Reads without a group, for `topics tail` and replay: up to `limits.records` from `from` on.
    async fn read(&self, partition: Partition, from: i64, limits: ReadLimits) -> Result<Vec<StoredRecord>, BusError>;
    async fn bounds(&self, topic: Topic) -> Result<Vec<Bounds>, BusError>;
    async fn lag(&self, group: &str, topics: &[Topic]) -> Result<Vec<Lag>, BusError>;
    /// For readiness: does the bus answer?
    async fn ping(&self) -> Result<(), BusError>;
    /// Between the beginnings of two batches of a few records, what suits the bus: a batch costs as much for few as for many,
    /// and the more where each partition is a request of its own.
    fn pace(&self) -> Duration {
        Duration::from_millis(10)
    }
    /// The PostgreSQL bus can append and commit inside a transaction of the same database; `None` on Kafka.
    fn transactional(&self) -> Option<&dyn TransactionalLog> {
        None
    }
}

/// How far a group has come in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub partition: Partition,
    /// Under which ownership: [`Consumer::epoch`]'s.
    pub epoch: i64,
    /// Everything below is done.
    pub next_offset: i64,
}

/// What the PostgreSQL bus adds: the records and the offset commit with the stage's own writes, in one transaction.
#[async_trait]
pub trait TransactionalLog: Send + Sync {
    /// Writes the records; they are durable, and visible to readers, when the caller's transaction commits. It holds the
    /// partitions' head rows until then: make it the transaction's last act.
    async fn append_in(&self, connection: &mut sqlx::PgConnection, records: &[NewRecord]) -> Result<(), BusError>;
    /// Commits a group's offsets, each partition's once, and writes the records, in one statement as far as they fit. When a
    /// partition has gone to another consumer in between it answers [`BusError::NotOwner`], and the whole transaction must
    /// roll back. Offsets without records are committed alone.
    async fn finish_in(
        &self,
        connection: &mut sqlx::PgConnection,
        group: &str,
        offsets: &[Committed],
        records: &[NewRecord],
    ) -> Result<(), BusError>;
    /// To be called after the commit with what was appended: wakes its readers, here and in other processes. Forgotten, they
    /// notice at their next poll, a second later.
    fn announce(&self, records: &[NewRecord]);
}

/// A member of a consumer group.
#[async_trait]
pub trait Consumer: Send {
    /// The next delivery. A partition that is paused gives none. It can be cancelled without losing anything.
    async fn next(&mut self, limits: ReadLimits) -> Result<Delivery, BusError>;
    /// Commits: everything below `next_offset` is done.
    async fn commit(&mut self, partition: Partition, next_offset: i64) -> Result<(), BusError> {
        let mut results = self.commit_all(&[(partition, next_offset)]).await;
        results.pop().unwrap_or(Ok(()))
    }
    /// The same for several partitions, at the price of one where the bus can do so; a result for each, in order.
    async fn commit_all(&mut self, offsets: &[(Partition, i64)]) -> Vec<Result<(), BusError>>;
    /// Whether more is at hand than was handed out.
    fn is_behind(&self) -> bool;
    /// Which ownership of the partition this is; rises at each hand-over. Always 0 on Kafka, which fences by itself.
    fn epoch(&self, partition: Partition) -> i64;
    /// Reads again from `offset` (after a failed batch).
    async fn seek(&mut self, partition: Partition, offset: i64) -> Result<(), BusError>;
    /// Back-pressure: no deliveries from these until resumed.
    fn pause(&mut self, partitions: &[Partition]) -> Result<(), BusError>;
    fn resume(&mut self, partitions: &[Partition]) -> Result<(), BusError>;
    /// Answers a [`Delivery::Revoke`]: what was under way is committed, the partitions may go.
    async fn release(&mut self, partitions: &[Partition]) -> Result<(), BusError>;
    /// Leaves the group, so that others take over at once.
    async fn close(self: Box<Self>) -> Result<(), BusError>;
}

#[derive(Clone, Debug)]
pub struct TopicSettings {
    pub topic: Topic,
    pub partitions: u32,
    pub replication: i32,
    pub retention: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("record of {bytes} bytes for topic `{topic}` is over the limit of {limit} bytes")]
    TooLarge { topic: Topic, bytes: usize, limit: usize },
    #[error("the bus cannot be reached or refused: {0}")]
    Kafka(#[source] rdkafka::error::KafkaError),
    #[error("the bus cannot be reached or refused: {0}")]
    Postgres(#[source] sqlx::Error),
    #[error("no such topic on the bus: `{0}` (`tamtam migrate` makes it)")]
    UnknownTopic(String),
    #[error("partition {number} of `{topic}` is not ours any more")]
    NotOwner { topic: Topic, number: u32 },
    #[error("bad bus setting `{key}`: {reason}")]
    Setting { key: String, reason: String },
}

impl BusError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        !matches!(
            self,
            BusError::TooLarge { .. } | BusError::UnknownTopic(_) | BusError::Setting { .. }
        )
    }
}
