//! Which bus, and how to reach it.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::PgPool;

use crate::{BusError, Log};

/// The bus to open.
#[derive(Clone, Debug)]
pub enum BusConfig {
    Postgres(PostgresConfig),
    Kafka(KafkaConfig),
}

/// The log in a migrated database (schema `log`). Consumers open a connection each beside the pool.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// The store's own pool, so that records can be appended in its transactions.
    pub pool: PgPool,
}

/// An Apache Kafka cluster.
#[derive(Clone)]
pub struct KafkaConfig {
    /// `host:port,host:port`
    pub brokers: String,
    /// Before every topic's and group's name, for example `tamtam.`.
    pub prefix: String,
    /// librdkafka's own settings over ours, for example `security.protocol`, `ssl.ca.location`, `sasl.mechanism`,
    /// `sasl.username`, `sasl.password`, `group.protocol`. The ones that the guarantees rest on are refused.
    pub settings: BTreeMap<String, String>,
}

impl std::fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The values can hold passwords.
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("prefix", &self.prefix)
            .field("settings", &self.settings.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Opens the bus. It does not wait for it to answer: [`Log::ping`] does.
pub async fn open(config: BusConfig) -> Result<Arc<dyn Log>, BusError> {
    match config {
        BusConfig::Postgres(config) => Ok(Arc::new(crate::postgres::open(config))),
        BusConfig::Kafka(config) => Ok(Arc::new(crate::kafka::open(config)?)),
    }
}
