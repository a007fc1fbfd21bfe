//! Questions about partitions, and reading without a group. All of it blocks: call it on a thread that may.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use events::Topic;
use rdkafka::{
    Offset,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    topic_partition_list::TopicPartitionList,
};

use super::{
    clients::{Context, Names, REQUEST, record, sorted},
    settings,
};
use crate::{Bounds, BusError, KafkaConfig, Lag, Partition, ReadLimits, StoredRecord};

/// Idle readers that are kept for the next call.
const READERS: usize = 4;

impl ConsumerContext for Context {}

type Client = BaseConsumer<Context>;

pub(super) struct Offsets {
    config: KafkaConfig,
    names: Names,
    client: Client,
    groups: Mutex<HashMap<String, Arc<Client>>>,
    readers: Mutex<Vec<Client>>,
}

impl std::fmt::Debug for Offsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Offsets")
    }
}

impl Offsets {
    pub fn open(config: &KafkaConfig) -> Result<Offsets, BusError> {
        Ok(Offsets {
            names: Names(config.prefix.clone()),
            client: settings::plain(config)
                .create_with_context(Context)
                .map_err(super::creation)?,
            config: config.clone(),
            groups: Mutex::default(),
            readers: Mutex::default(),
        })
    }

    /// The numbers of a topic's partitions.
    pub fn partitions(&self, topic: Topic) -> Result<Vec<i32>, BusError> {
        let name = self.names.of(topic);
        // What the client said in between, which nobody needs, must not pile up.
        while self.client.poll(Duration::ZERO).is_some() {}
        let metadata = self
            .client
            .fetch_metadata(Some(&name), REQUEST)
            .map_err(|error| sorted(error, &name))?;
        let found = metadata.topics().iter().find(|found| found.name() == name);
        let Some(found) = found else {
            return Err(BusError::UnknownTopic(name));
        };
        if let Some(error) = found.error() {
            return Err(sorted(KafkaError::MetadataFetch(error.into()), &name));
        }
        let mut partitions: Vec<i32> = found.partitions().iter().map(|partition| partition.id()).collect();
        partitions.sort_unstable();
        if partitions.is_empty() {
            return Err(BusError::UnknownTopic(name));
        }
        Ok(partitions)
    }

    pub fn ping(&self) -> Result<(), BusError> {
        match self.partitions(Topic::Events) {
            Ok(_) | Err(BusError::UnknownTopic(_)) => Ok(()),
            Err(BusError::Kafka(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable))) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn watermarks(&self, topic: Topic, number: i32) -> Result<(Partition, i64, i64), BusError> {
        let name = self.names.of(topic);
        let (first, end) = self
            .client
            .fetch_watermarks(&name, number, REQUEST)
            .map_err(|error| sorted(error, &name))?;
        let partition = Partition {
            topic,
            number: number.cast_unsigned(),
        };
        Ok((partition, first, end))
    }

    pub fn bounds(&self, topic: Topic) -> Result<Vec<Bounds>, BusError> {
        let numbers = self.partitions(topic)?;
        numbers
            .into_iter()
            .map(|number| {
                let (partition, first, end) = self.watermarks(topic, number)?;
                Ok(Bounds { partition, first, end })
            })
            .collect()
    }

    pub fn lag(&self, group: &str, topics: &[Topic]) -> Result<Vec<Lag>, BusError> {
        let client = self.group(group)?;
        while client.poll(Duration::ZERO).is_some() {}
        let mut list = TopicPartitionList::new();
        for topic in topics {
            for number in self.partitions(*topic)? {
                list.add_partition(&self.names.of(*topic), number);
            }
        }
        let committed = client.committed_offsets(list, REQUEST).map_err(BusError::Kafka)?;
        let mut lags = Vec::new();
        for element in committed.elements() {
            let Some(topic) = self.names.topic(element.topic()) else {
                continue;
            };
            element.error().map_err(|error| sorted(error, element.topic()))?;
            let (partition, first, end) = self.watermarks(topic, element.partition())?;
            let committed = match element.offset() {
                Offset::Offset(offset) => offset.max(first),
                // Nothing committed yet: it will read from the start.
                _ => first,
            };
            lags.push(Lag {
                partition,
                committed,
                end,
            });
        }
        Ok(lags)
    }

    /// A client that may ask for the group's offsets; it never joins.
    fn group(&self, group: &str) -> Result<Arc<Client>, BusError> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = groups.get(group) {
            return Ok(client.clone());
        }
        let client: Client = settings::consumer(&self.config, group)
            .create_with_context(Context)
            .map_err(super::creation)?;
        let client = Arc::new(client);
        groups.insert(group.to_owned(), client.clone());
        Ok(client)
    }

    pub fn read(&self, partition: Partition, from: i64, limits: ReadLimits) -> Result<Vec<StoredRecord>, BusError> {
        let kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match kept {
            Some(reader) => reader,
            None => settings::consumer(&self.config, "reader")
                .set("enable.partition.eof", "true")
                .create_with_context(Context)
                .map_err(super::creation)?,
        };
        let records = self.read_with(&reader, partition, from, limits)?;
        // After an error it is not kept.
        reader.unassign().map_err(BusError::Kafka)?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS {
            readers.push(reader);
        }
        Ok(records)
    }

    fn read_with(
        &self,
        reader: &Client,
        partition: Partition,
        from: i64,
        limits: ReadLimits,
    ) -> Result<Vec<StoredRecord>, BusError> {
        let until = Instant::now() + limits.wait;
        let name = self.names.of(partition.topic);
        let number = partition.number.cast_signed();
        let (_, first, end) = self.watermarks(partition.topic, number)?;
        if from >= end && limits.wait.is_zero() {
            return Ok(Vec::new());
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&name, number, Offset::Offset(from.max(first)))
            .map_err(BusError::Kafka)?;
        reader.assign(&list).map_err(BusError::Kafka)?;
        let mut records = Vec::new();
        let mut bytes = 0;
        // Records that are there come even if the wait is short; only for new ones is it the limit.
        let patience = if from < end {
            until.max(Instant::now() + REQUEST)
        } else {
            until
        };
        while records.len() < limits.records.max(1) && bytes < limits.bytes.max(1) {
            let left = patience.saturating_duration_since(Instant::now());
            match reader.poll(left) {
                Some(Ok(message)) => {
                    let record = record(&message);
                    bytes += record.size();
                    records.push(record);
                }
                Some(Err(KafkaError::PartitionEOF(_))) if !records.is_empty() => break,
                Some(Err(KafkaError::PartitionEOF(_))) | None if Instant::now() < until => {}
                Some(Err(KafkaError::PartitionEOF(_))) | None => break,
                Some(Err(error)) => return Err(sorted(error, &name)),
            }
        }
        Ok(records)
    }
}
