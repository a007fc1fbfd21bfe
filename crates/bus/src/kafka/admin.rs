//! Making topics. What is there is never made smaller, and settings of a topic other than ours are left as they are.

use std::time::{Duration, Instant};

use rdkafka::{
    admin::{
        AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier,
        TopicReplication,
    },
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    KafkaLog,
    clients::{REQUEST, blocking},
    settings,
};
use crate::{BusError, TopicSettings};

/// How long a new topic may take until every broker knows it.
const APPEARS: Duration = Duration::from_secs(30);

impl KafkaLog {
    pub(super) async fn ensure(&self, topics: &[TopicSettings]) -> Result<(), BusError> {
        let admin: AdminClient<DefaultClientContext> =
            settings::plain(&self.config).create().map_err(super::creation)?;
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST))
            .operation_timeout(Some(REQUEST));
        let mut settled = Vec::new();
        for topic in topics {
            match self.partition_count(topic).await? {
                None => self.create(&admin, &options, topic).await?,
                Some(count) => {
                    if count < topic.partitions {
                        self.grow(&admin, &options, topic).await?;
                    }
                    settled.push(topic);
                }
            }
        }
        for topic in settled {
            // A cluster may keep this right from us; its topics are then its administrator's to set.
            if let Err(error) = self.configure(&admin, &options, topic).await {
                tracing::warn!(topic = self.names.of(topic.topic), %error, "retention and record size not aligned");
            }
        }
        for topic in topics {
            let until = Instant::now() + APPEARS;
            while self.partition_count(topic).await?.unwrap_or(0) < topic.partitions {
                if Instant::now() > until {
                    return Err(BusError::UnknownTopic(self.names.of(topic.topic)));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn partition_count(&self, topic: &TopicSettings) -> Result<Option<u32>, BusError> {
        let (offsets, topic) = (self.offsets.clone(), topic.topic);
        match blocking(move || offsets.partitions(topic)).await {
            Ok(partitions) => Ok(Some(u32::try_from(partitions.len()).unwrap_or(u32::MAX))),
            Err(BusError::UnknownTopic(_)) => Ok(None),
            // It is being made.
            Err(BusError::Kafka(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable))) => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    async fn create(
        &self,
        admin: &AdminClient<DefaultClientContext>,
        options: &AdminOptions,
        topic: &TopicSettings,
    ) -> Result<(), BusError> {
        let name = self.names.of(topic.topic);
        let [(retention, retention_ms), (size, bytes)] = ours(topic);
        let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(topic.replication))
            .set(retention, &retention_ms)
            .set(size, &bytes);
        let results = admin.create_topics([&new], options).await.map_err(BusError::Kafka)?;
        for result in results {
            match result {
                // Somebody else made it in between.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(BusError::Kafka(KafkaError::AdminOp(code))),
            }
        }
        Ok(())
    }

    async fn grow(
        &self,
        admin: &AdminClient<DefaultClientContext>,
        options: &AdminOptions,
        topic: &TopicSettings,
    ) -> Result<(), BusError> {
        let name = self.names.of(topic.topic);
        let count = usize::try_from(topic.partitions).unwrap_or(usize::MAX);
        let results = admin
            .create_partitions([&NewPartitions::new(&name, count)], options)
            .await
            .map_err(BusError::Kafka)?;
        for result in results {
            match result {
                // Somebody else did it in between.
                Ok(_) | Err((_, RDKafkaErrorCode::InvalidPartitions)) => {}
                Err((_, code)) => return Err(BusError::Kafka(KafkaError::AdminOp(code))),
            }
        }
        Ok(())
    }

    async fn configure(
        &self,
        admin: &AdminClient<DefaultClientContext>,
        options: &AdminOptions,
        topic: &TopicSettings,
    ) -> Result<(), BusError> {
        let name = self.names.of(topic.topic);
        let results = admin
            .describe_configs([&ResourceSpecifier::Topic(&name)], options)
            .await
            .map_err(BusError::Kafka)?;
        let found = results
            .into_iter()
            .next()
            .ok_or(BusError::Kafka(KafkaError::Canceled))?
            .map_err(|code| BusError::Kafka(KafkaError::AdminOp(code)))?;
        let ours = ours(topic);
        let is = |key: &str, wanted: &str| {
            let entry = found.entries.iter().find(|entry| entry.name == key);
            entry.and_then(|entry| entry.value.as_deref()) == Some(wanted)
        };
        if ours.iter().all(|(key, wanted)| is(key, wanted)) {
            return Ok(());
        }
        // The request sets a topic's settings as a whole: the others that were set go with it.
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(&name));
        for (key, value) in &ours {
            alter = alter.set(key, value);
        }
        for entry in &found.entries {
            let is_ours = ours.iter().any(|(key, _)| *key == entry.name);
            if let (ConfigSource::DynamicTopic, Some(value), false) = (&entry.source, &entry.value, is_ours) {
                alter = alter.set(&entry.name, value);
            }
        }
        let results = admin.alter_configs([&alter], options).await.map_err(BusError::Kafka)?;
        match results.into_iter().next() {
            Some(Err((_, code))) => Err(BusError::Kafka(KafkaError::AdminOp(code))),
            _ => Ok(()),
        }
    }
}

fn ours(topic: &TopicSettings) -> [(&'static str, String); 2] {
    [
        ("retention.ms", topic.retention.as_millis().to_string()),
        ("max.message.bytes", settings::MESSAGE_BYTES.to_string()),
    ]
}
