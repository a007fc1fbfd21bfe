//! The topics that the database has, by name: remembered, because every append asks.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{PoisonError, RwLock},
    time::Duration,
};

use events::Topic;
use sqlx::PgPool;

use crate::{BusError, NewRecord, Partition, TopicSettings, partition_for};

/// How often it is looked up again: a topic may have been given more partitions.
const FRESH: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub id: i16,
    pub partitions: u32,
}

#[derive(Debug)]
pub(super) struct Catalog {
    pool: PgPool,
    topics: RwLock<HashMap<Topic, Known>>,
}

impl Catalog {
    pub fn new(pool: PgPool) -> Catalog {
        Catalog {
            pool,
            topics: RwLock::default(),
        }
    }

    /// The topic's id and how many partitions it has.
    pub async fn known(&self, topic: Topic) -> Result<Known, BusError> {
        // However old it is: a caller in the middle of a transaction must not ask for a second connection, or all of them
        // together hold every connection and wait for one more.
        if let Some(known) = self.remembered(topic) {
            return Ok(known);
        }
        let found = self.refresh().await?;
        found
            .get(&topic)
            .copied()
            .ok_or_else(|| BusError::UnknownTopic(topic.name().into()))
    }

    /// Where these records go. What is not known of yet is left out: nothing was appended to it.
    pub fn partitions_of(&self, records: &[NewRecord]) -> BTreeSet<Partition> {
        let place = |record: &NewRecord| {
            let known = self.remembered(record.topic)?;
            Some(Partition {
                topic: record.topic,
                number: partition_for(record.key.as_bytes(), known.partitions),
            })
        };
        records.iter().filter_map(place).collect()
    }

    fn remembered(&self, topic: Topic) -> Option<Known> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(&topic).copied()
    }

    /// Notices what others do to the topics, for as long as it is asked.
    pub async fn keep(&self) {
        loop {
            tokio::time::sleep(FRESH).await;
            if let Err(error) = self.refresh().await {
                tracing::debug!(%error, "the topics cannot be read, going on with what is known of them");
            }
        }
    }

    async fn refresh(&self) -> Result<HashMap<Topic, Known>, BusError> {
        let pool = self.pool.clone();
        let rows: Vec<(String, i16, i32)> = super::uncancelled(async move {
            sqlx::query_as("select name, id, partitions from log.topics")
                .fetch_all(&pool)
                .await
                .map_err(BusError::Postgres)
        })
        .await?;
        let found: HashMap<Topic, Known> = rows
            .into_iter()
            .filter_map(|(name, id, partitions)| {
                let partitions = u32::try_from(partitions).ok()?;
                Some((Topic::by_name(&name)?, Known { id, partitions }))
            })
            .collect();
        *self.topics.write().unwrap_or_else(PoisonError::into_inner) = found.clone();
        Ok(found)
    }

    pub async fn ensure(&self, topics: &[TopicSettings]) -> Result<(), BusError> {
        // In one order for everybody.
        let mut topics = topics.to_vec();
        topics.sort_by_key(|settings| settings.topic);
        for settings in topics {
            let partitions = i32::try_from(settings.partitions).ok().filter(|count| *count > 0);
            let partitions = partitions.ok_or_else(|| BusError::Setting {
                key: format!("partitions of {}", settings.topic),
                reason: "expected 1 or more".into(),
            })?;
            let pool = self.pool.clone();
            super::uncancelled(async move {
                sqlx::query("select log.topic_ensure($1, $2, make_interval(secs => $3), now())")
                    .bind(settings.topic.name())
                    .bind(partitions)
                    .bind(settings.retention.as_secs_f64())
                    .execute(&pool)
                    .await
                    .map_err(BusError::Postgres)
            })
            .await?;
        }
        self.refresh().await?;
        Ok(())
    }
}
