//! The bus that tests run on: PostgreSQL in the test's own database, or with `TAMTAM_TEST_BUS=kafka` a real Apache Kafka
//! under a topic prefix of the test's own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bus::{BusConfig, KafkaConfig, Log, PostgresConfig, TopicSettings};
use events::Topic;
use store::Store;

use super::kafka;

/// At most so many: a test makes all topics, and there are many tests.
pub const PARTITIONS: u32 = 4;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A bus with all topics made.
#[derive(Clone, Debug)]
pub struct TestBus {
    pub log: Arc<dyn Log>,
    /// Where it is, if it is Kafka: for the settings of a process that joins in.
    pub kafka: Option<KafkaConfig>,
}

/// Whether the tests run on Kafka.
pub fn is_kafka() -> bool {
    match std::env::var("TAMTAM_TEST_BUS").as_deref() {
        Err(_) | Ok("postgres") => false,
        Ok("kafka") => true,
        Ok(other) => panic!("TAMTAM_TEST_BUS={other}: expected postgres or kafka"),
    }
}

pub async fn start(store: &Store) -> TestBus {
    let kafka = match is_kafka() {
        true => Some(kafka_config().await),
        false => None,
    };
    let config = match &kafka {
        Some(kafka) => BusConfig::Kafka(kafka.clone()),
        None => BusConfig::Postgres(PostgresConfig {
            pool: store.pool().clone(),
        }),
    };
    let log = bus::open(config).await.unwrap();
    ensure(&*log, &topics()).await;
    TestBus { log, kafka }
}

/// The log alone, which is all that most tests need.
pub async fn log(store: &Store) -> Arc<dyn Log> {
    start(store).await.log
}

/// All topics, small.
pub fn topics() -> Vec<TopicSettings> {
    Topic::ALL
        .into_iter()
        .map(|topic| TopicSettings {
            topic,
            partitions: topic.spec().partitions.min(PARTITIONS),
            replication: 1,
            retention: Duration::from_secs(3600 * u64::from(topic.spec().retention_hours)),
        })
        .collect()
}

/// The node of the test binary under a prefix that nobody else has.
pub async fn kafka_config() -> KafkaConfig {
    let brokers = tokio::task::spawn_blocking(kafka::brokers).await.unwrap();
    // The newer group protocol is a user's to choose: `TAMTAM_TEST_KAFKA_PROTOCOL=consumer` tests with it.
    let protocol = std::env::var("TAMTAM_TEST_KAFKA_PROTOCOL").ok();
    KafkaConfig {
        brokers,
        prefix: format!("t{}x{}.", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)),
        settings: protocol
            .map(|protocol| ("group.protocol".into(), protocol))
            .into_iter()
            .collect(),
    }
}

/// As every role does when it starts: a broker that only just listens may refuse a topic until it has registered.
async fn ensure(log: &dyn Log, topics: &[TopicSettings]) {
    let until = Instant::now() + Duration::from_secs(60);
    while let Err(error) = log.topics_ensure(topics).await {
        assert!(error.is_transient() && Instant::now() < until, "no topics: {error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
