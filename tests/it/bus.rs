//! The bus's contract (`bus_contract.rs`) on each implementation.
//!
//! - `default`: PostgreSQL, or real Kafka with `TAMTAM_TEST_BUS=kafka`.
//! - `mock`: librdkafka's mock cluster, which runs with every `make test` so that the Kafka half is never untested. It has
//!   no administration (no `topics_ensure` beyond what is there), keeps at most 5 MiB a partition, accepts records of any
//!   size, and assigns partitions as the clients ask without checking who commits: so growth, large volumes and fencing
//!   are not tested on it. It refuses commits for as long as somebody joins, which a broker takes from members that have
//!   yet to join again (`rd_kafka_mock_cgrp_classic_check_state` in librdkafka).

use std::{sync::Arc, time::Duration};

use bus::{BusConfig, KafkaConfig, Log, MockKafka, PostgresConfig};
use store::Store;

use crate::{
    bus_contract as contract,
    support::{bus as test_bus, database},
};

/// A bus of the test's own.
pub struct Bed {
    pub log: Arc<dyn Log>,
    pub store: Option<Store>,
    config: BusConfig,
    _mock: Option<MockKafka>,
}

impl Bed {
    pub async fn default() -> Bed {
        let store = database::database().await;
        let bus = test_bus::start(&store).await;
        let config = match bus.kafka {
            Some(kafka) => BusConfig::Kafka(kafka),
            None => BusConfig::Postgres(PostgresConfig {
                pool: store.pool().clone(),
            }),
        };
        Bed {
            log: bus.log,
            store: Some(store),
            config,
            _mock: None,
        }
    }

    pub async fn mock() -> Bed {
        let mock = MockKafka::start("mock.", test_bus::PARTITIONS);
        let config = BusConfig::Kafka(KafkaConfig {
            brokers: mock.brokers.clone(),
            prefix: "mock.".into(),
            settings: Default::default(),
        });
        Bed {
            log: bus::open(config.clone()).await.unwrap(),
            store: None,
            config,
            _mock: Some(mock),
        }
    }

    /// The same bus as another process sees it.
    pub async fn another(&self) -> Arc<dyn Log> {
        bus::open(self.config.clone()).await.unwrap()
    }

    /// The same bus as another process sees it, with connections of its own: for another runtime, where it is awaited.
    pub fn apart(&self) -> impl Future<Output = Arc<dyn Log>> + Send + use<> {
        let config = self.config.clone();
        async move {
            let config = match config {
                BusConfig::Postgres(PostgresConfig { pool }) => {
                    let options = pool.connect_options().as_ref().clone();
                    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(4);
                    BusConfig::Postgres(PostgresConfig {
                        pool: pool.connect_with(options).await.unwrap(),
                    })
                }
                kafka => kafka,
            };
            bus::open(config).await.unwrap()
        }
    }

    pub fn is_mock(&self) -> bool {
        self._mock.is_some()
    }

    pub fn is_kafka(&self) -> bool {
        matches!(self.config, BusConfig::Kafka(_))
    }
}

macro_rules! on {
    ($bed:ident: $($test:ident)*) => {
        mod $bed {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let bed = Bed::$bed().await;
                    tokio::time::timeout(Duration::from_secs(180), contract::$test(&bed))
                        .await
                        .expect("the test hangs");
                }
            )*
        }
    };
}

on! { default:
    records_come_back_whole_and_in_the_order_of_their_key
    what_was_not_committed_is_delivered_again
    the_commit_says_where_the_next_owner_begins
    a_newcomer_gets_its_share_when_the_owner_lets_go
    the_partitions_of_a_dead_member_are_taken_over
    a_member_closed_while_its_runtime_ends_leaves
    three_members_share_evenly
    a_record_over_the_limit_is_refused_and_one_at_the_limit_is_not
    a_seek_reads_again
    a_paused_partition_gives_nothing
    giving_up_the_wait_loses_nothing
    batches_keep_to_the_limits_and_bursts_are_waited_for
    a_member_knows_whether_it_is_behind
    concurrent_appenders_never_make_a_reader_skip
    reading_without_a_group
    a_topic_that_is_not_there_is_named
    topics_grow_and_never_shrink
    everything_is_read_once_while_members_come_and_go
}

on! { mock:
    records_come_back_whole_and_in_the_order_of_their_key
    what_was_not_committed_is_delivered_again
    the_commit_says_where_the_next_owner_begins
    a_newcomer_gets_its_share_when_the_owner_lets_go
    the_partitions_of_a_dead_member_are_taken_over
    a_member_closed_while_its_runtime_ends_leaves
    a_seek_reads_again
    a_paused_partition_gives_nothing
    giving_up_the_wait_loses_nothing
    batches_keep_to_the_limits_and_bursts_are_waited_for
    a_member_knows_whether_it_is_behind
    concurrent_appenders_never_make_a_reader_skip
    reading_without_a_group
}
