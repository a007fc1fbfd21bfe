//! What the clients share: names, errors, librdkafka's log lines, and calls that block.

use std::time::Duration;

use events::Topic;
use rdkafka::{
    client::ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers, Message},
    topic_partition_list::TopicPartitionList,
};

use crate::{BusError, Partition, StoredRecord};

/// How long a request for metadata or offsets may take.
pub(super) const REQUEST: Duration = Duration::from_secs(10);

/// Sends librdkafka's log lines to ours.
#[derive(Clone, Debug, Default)]
pub(super) struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Every call reports its own failure; this is the client talking to itself while it reconnects.
        tracing::debug!(%error, reason, "kafka client");
    }
}

pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, message, "librdkafka");
        }
        // Lost connections and the like: it tries again by itself.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(facility, message, "librdkafka"),
        _ => tracing::debug!(facility, message, "librdkafka"),
    }
}

/// Runs a call that blocks on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BusError> + Send + 'static,
) -> Result<T, BusError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(payload) => std::panic::resume_unwind(payload),
            // The runtime is shutting down.
            Err(_) => Err(BusError::Kafka(KafkaError::Canceled)),
        },
    }
}

/// Topics by name: `prefix` + [`Topic::name`].
#[derive(Clone, Debug)]
pub(super) struct Names(pub String);

impl Names {
    pub fn of(&self, topic: Topic) -> String {
        format!("{}{topic}", self.0)
    }

    pub fn topic(&self, name: &str) -> Option<Topic> {
        Topic::by_name(name.strip_prefix(&self.0)?)
    }

    pub fn partition(&self, name: &str, number: i32) -> Option<Partition> {
        Some(Partition {
            topic: self.topic(name)?,
            number: u32::try_from(number).ok()?,
        })
    }

    pub fn partitions(&self, list: &TopicPartitionList) -> Vec<Partition> {
        list.elements()
            .iter()
            .filter_map(|element| self.partition(element.topic(), element.partition()))
            .collect()
    }

    pub fn list<'a>(&self, partitions: impl IntoIterator<Item = &'a Partition>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.of(partition.topic), partition.number.cast_signed());
        }
        list
    }
}

/// Sorts an error by what a caller can do about it.
pub(super) fn sorted(error: KafkaError, topic: &str) -> BusError {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition,
        ) => BusError::UnknownTopic(topic.into()),
        _ => BusError::Kafka(error),
    }
}

/// A message as a record. What is no UTF-8 in a foreign producer's key or headers is replaced, not refused.
pub(super) fn record(message: &BorrowedMessage<'_>) -> StoredRecord {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let value = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(value) => events::text(value),
        Err(_) => text(bytes).into(),
    };
    StoredRecord {
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(text).unwrap_or_default(),
        headers: message
            .headers()
            .map(|headers| {
                headers
                    .iter()
                    .map(|header| (events::text(header.key), header.value.map(value).unwrap_or_default()))
                    .collect()
            })
            .unwrap_or_default(),
        value: message.payload().unwrap_or_default().to_vec(),
    }
}
