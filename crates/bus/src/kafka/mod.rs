//! The log on Apache Kafka, through librdkafka: the only place that names it.

mod admin;
mod clients;
mod consumer;
mod held;
pub mod mock;
mod offsets;
mod producer;
mod rebalance;
mod settings;

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use events::Topic;
use rdkafka::error::KafkaError;

use crate::{
    Bounds, BusError, Consumer, KafkaConfig, Lag, Log, NewRecord, Partition, ReadLimits, StoredRecord, TopicSettings,
    check_size,
};
use clients::{Names, blocking};

#[derive(Debug)]
pub(crate) struct KafkaLog {
    config: KafkaConfig,
    names: Names,
    producer: producer::Producer,
    offsets: Arc<offsets::Offsets>,
    /// Topics that were there when we last looked.
    seen: RwLock<HashSet<Topic>>,
}

/// Connects in the background; bad settings are told at once.
pub(crate) fn open(config: KafkaConfig) -> Result<KafkaLog, BusError> {
    settings::check(&config)?;
    Ok(KafkaLog {
        names: Names(config.prefix.clone()),
        producer: producer::Producer::open(&config)?,
        offsets: Arc::new(offsets::Offsets::open(&config)?),
        config,
        seen: RwLock::default(),
    })
}

/// A client that cannot be made has been given settings that do not go together.
fn creation(error: KafkaError) -> BusError {
    match error {
        KafkaError::ClientConfig(_, _, key, _) => BusError::Setting {
            key,
            reason: "librdkafka refuses the value".into(),
        },
        KafkaError::ClientCreation(reason) => BusError::Setting {
            key: "kafka".into(),
            reason,
        },
        other => BusError::Kafka(other),
    }
}

impl KafkaLog {
    /// Asks before the first use of a topic: a producer's own first use would make a cluster with
    /// `auto.create.topics.enable` create it with the wrong number of partitions.
    async fn must_exist(&self, topic: Topic) -> Result<(), BusError> {
        if self
            .seen
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&topic)
        {
            return Ok(());
        }
        let offsets = self.offsets.clone();
        blocking(move || offsets.partitions(topic)).await?;
        self.seen.write().unwrap_or_else(PoisonError::into_inner).insert(topic);
        Ok(())
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn topics_ensure(&self, topics: &[TopicSettings]) -> Result<(), BusError> {
        self.ensure(topics).await
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<(), BusError> {
        let mut last = None;
        for record in &records {
            check_size(record)?;
            if last != Some(record.topic) {
                self.must_exist(record.topic).await?;
                last = Some(record.topic);
            }
        }
        let done = self.producer.append(&records).await;
        if let Err(BusError::UnknownTopic(_)) = &done {
            self.seen.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
        done
    }

    async fn subscribe(&self, group: &str, topics: &[Topic]) -> Result<Box<dyn Consumer>, BusError> {
        for topic in topics {
            self.must_exist(*topic).await?;
        }
        Ok(Box::new(consumer::KafkaConsumer::join(&self.config, group, topics)?))
    }

    async fn read(&self, partition: Partition, from: i64, limits: ReadLimits) -> Result<Vec<StoredRecord>, BusError> {
        let offsets = self.offsets.clone();
        blocking(move || offsets.read(partition, from, limits)).await
    }

    async fn bounds(&self, topic: Topic) -> Result<Vec<Bounds>, BusError> {
        let offsets = self.offsets.clone();
        blocking(move || offsets.bounds(topic)).await
    }

    async fn lag(&self, group: &str, topics: &[Topic]) -> Result<Vec<Lag>, BusError> {
        let (offsets, group, topics) = (self.offsets.clone(), group.to_owned(), topics.to_vec());
        blocking(move || offsets.lag(&group, &topics)).await
    }

    async fn ping(&self) -> Result<(), BusError> {
        let offsets = self.offsets.clone();
        blocking(move || offsets.ping()).await
    }
}
