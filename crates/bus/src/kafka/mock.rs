//! librdkafka's mock cluster, for tests of broker behaviour that a real one does not show on demand. It keeps records in
//! memory, drops the oldest beyond 5 MiB a partition without a word, and has no administration. A feature of its own would
//! have every crate above built twice, with it and without.

use std::sync::mpsc;

use events::Topic;
use rdkafka::mocking::MockCluster;

/// A mock cluster with all topics made. It ends when dropped.
#[derive(Debug)]
pub struct MockKafka {
    pub brokers: String,
    _alive: mpsc::Sender<()>,
}

impl MockKafka {
    /// Starts one broker with every topic under `prefix`.
    pub fn start(prefix: &str, partitions: u32) -> MockKafka {
        let (alive, ended) = mpsc::channel::<()>();
        let (started, brokers) = mpsc::channel();
        let prefix = prefix.to_owned();
        // The cluster's handle stays on one thread.
        std::thread::spawn(move || {
            let made = MockCluster::new(1).and_then(|cluster| {
                for topic in Topic::ALL {
                    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
                    cluster.create_topic(&format!("{prefix}{topic}"), partitions, 1)?;
                }
                Ok(cluster)
            });
            let _ = started.send(
                made.as_ref()
                    .map(|cluster| cluster.bootstrap_servers())
                    .unwrap_or_default(),
            );
            // Until the sender is dropped.
            let _ = ended.recv();
        });
        MockKafka {
            brokers: brokers.recv().unwrap_or_default(),
            _alive: alive,
        }
    }
}
