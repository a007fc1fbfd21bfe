//! What has been fetched, sorted by partition, until it is delivered.
//!
//! A partition that is paused keeps what has come in a small buffer, and only when that is full is librdkafka told: telling
//! it throws away what it has fetched ahead, which a pause for each batch would make dear. While all of them are paused nothing
//! is taken at all for a while, so that a short pause fills no buffer.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use events::Topic;
use rdkafka::{
    consumer::Consumer as _,
    error::{KafkaError, RDKafkaErrorCode},
    message::Message,
};

use super::{
    clients::{record, sorted},
    consumer::KafkaConsumer,
    rebalance::Member,
};
use crate::{BusError, Delivery, Partition, ReadLimits, StoredRecord};

/// What a paused partition may hold here before librdkafka stops fetching it; more where a topic has so few of them here that
/// together they would hold less than the second: what is thrown away then is fetched again while a stage waits for it.
const PAUSED_RECORDS: usize = 1_000;
const PAUSED_TOGETHER: usize = 8_000;
const PAUSED_BYTES: usize = 4 << 20;
/// For how long nothing is taken while all partitions are paused. What else librdkafka has to say, as that partitions are
/// asked back, waits in the same queue.
const UNREAD: Duration = Duration::from_millis(250);

/// What each of so many partitions of a topic may hold while it is paused.
fn paused_records(partitions: usize) -> usize {
    PAUSED_RECORDS.max(PAUSED_TOGETHER / partitions.max(1))
}

/// A partition that is ours.
#[derive(Default)]
pub(super) struct Held {
    buffer: VecDeque<StoredRecord>,
    bytes: usize,
    pub paused: bool,
    /// Paused in librdkafka too.
    pub stopped: bool,
    /// Where to go before anything else is delivered.
    pub sought: Option<i64>,
}

impl Held {
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.bytes = 0;
    }
}

impl KafkaConsumer {
    /// Until when nothing is taken.
    pub(super) fn unread_until(&mut self) -> Option<Instant> {
        let all = !self.held.is_empty() && self.held.values().all(|held| held.paused);
        match all {
            true => Some(*self.all_paused.get_or_insert_with(Instant::now) + UNREAD),
            false => {
                self.all_paused = None;
                None
            }
        }
    }

    /// Takes what has been fetched, up to the limits of one delivery.
    pub(super) fn gather(&mut self, client: &Member, limits: ReadLimits) -> Result<(), BusError> {
        if self.unread_until().is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        self.behind = true;
        let mut records = 0;
        let mut bytes = 0;
        let mut partitions: BTreeMap<Topic, usize> = BTreeMap::new();
        for (partition, held) in &self.held {
            *partitions.entry(partition.topic).or_default() += 1;
            if self.is_readable(*partition, held) {
                records += held.buffer.len();
                bytes += held.bytes;
            }
        }
        while records < limits.records.max(1) && bytes < limits.bytes.max(1) {
            match client.poll(Duration::ZERO) {
                None => {
                    self.behind = false;
                    break;
                }
                Some(Ok(message)) => {
                    let Some(partition) = self.names.partition(message.topic(), message.partition()) else {
                        continue;
                    };
                    let record = record(&message);
                    let counts = self
                        .held
                        .get(&partition)
                        .is_some_and(|held| self.is_readable(partition, held));
                    // One that is not held was revoked or lost; one that is to be sought elsewhere is read again.
                    let Some(held) = self.held.get_mut(&partition).filter(|held| held.sought.is_none()) else {
                        continue;
                    };
                    if counts {
                        records += 1;
                        bytes += record.size();
                    }
                    held.bytes += record.size();
                    held.buffer.push_back(record);
                    if held.paused && !held.stopped {
                        let alike = partitions.get(&partition.topic).copied().unwrap_or_default();
                        if held.buffer.len() >= paused_records(alike) || held.bytes >= PAUSED_BYTES {
                            held.stopped = true;
                            client.pause(&self.names.list([&partition])).map_err(BusError::Kafka)?;
                        }
                    }
                }
                Some(Err(error)) => self.heard(error)?,
            }
        }
        Ok(())
    }

    /// Errors that librdkafka gets over by itself are no failure of the call.
    fn heard(&self, error: KafkaError) -> Result<(), BusError> {
        match &error {
            KafkaError::MessageConsumptionFatal(_) => Err(BusError::Kafka(error)),
            KafkaError::MessageConsumption(code) => match code {
                RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
                    Err(sorted(error, &self.names.0))
                }
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::UnsupportedFeature => Err(BusError::Kafka(error)),
                RDKafkaErrorCode::PollExceeded => {
                    tracing::warn!("records were not asked for in time: the partitions go to other members");
                    Ok(())
                }
                _ => {
                    tracing::debug!(%error, "kafka consumer");
                    Ok(())
                }
            },
            _ => Err(BusError::Kafka(error)),
        }
    }

    /// The records of the next partition in turn.
    pub(super) fn deliver(&mut self, limits: ReadLimits) -> Option<Delivery> {
        let ready: Vec<Partition> = self
            .held
            .iter()
            .filter(|(partition, held)| !held.buffer.is_empty() && self.is_readable(**partition, held))
            .map(|(partition, _)| *partition)
            .collect();
        let after = ready.iter().find(|partition| Some(**partition) > self.last);
        let partition = *after.or(ready.first())?;
        let held = self.held.get_mut(&partition)?;
        let mut records = Vec::new();
        let mut bytes = 0;
        while records.len() < limits.records.max(1) && bytes < limits.bytes.max(1) {
            let Some(record) = held.buffer.pop_front() else {
                break;
            };
            held.bytes = held.bytes.saturating_sub(record.size());
            bytes += record.size();
            records.push(record);
        }
        self.last = Some(partition);
        Some(Delivery::Batch { partition, records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_few_partitions_may_hold_more() {
        for (partitions, expected) in [(0, 8_000), (1, 8_000), (2, 4_000), (8, 1_000), (32, 1_000)] {
            assert_eq!(paused_records(partitions), expected, "{partitions}");
        }
    }
}
