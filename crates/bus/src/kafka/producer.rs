//! Appending: idempotent, to all in-sync replicas, and answered when the last record of the batch is.
//!
//! A full queue is waited for. A producer that librdkafka has given up (a fatal error: it can no longer promise neither to
//! repeat nor to reorder) is replaced, and the batch that met it is reported as failed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    client::ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, Message as _, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::Notify;

use super::{
    clients::{Names, log, sorted},
    settings,
};
use crate::{BusError, KafkaConfig, MAX_RECORD_BYTES, NewRecord};

/// How long to wait for room in librdkafka's queue.
const ROOM: Duration = Duration::from_millis(5);

pub(super) struct Producer {
    config: KafkaConfig,
    names: Names,
    current: Mutex<Arc<ThreadedProducer<Deliveries>>>,
}

/// Tells each append what became of its records. One count for all of them: a future a record, as rdkafka's own producer has
/// it, wakes the append for each.
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Every append reports its own failure; this is the client talking to itself while it reconnects.
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<UnderWay>;

    fn delivery(&self, result: &DeliveryResult<'_>, of: Arc<UnderWay>) {
        let failed = result.as_ref().err().map(|(error, message)| Failed {
            error: error.clone(),
            topic: message.topic().to_owned(),
            bytes: message.payload_len() + message.key_len(),
        });
        of.answered(failed);
    }
}

/// The records of one append that are not answered yet.
struct UnderWay {
    /// One more while records are still being added.
    left: AtomicUsize,
    failed: Mutex<Option<Failed>>,
    done: Notify,
}

/// A record that was not taken.
struct Failed {
    error: KafkaError,
    topic: String,
    bytes: usize,
}

impl UnderWay {
    fn new() -> Arc<UnderWay> {
        Arc::new(UnderWay {
            left: AtomicUsize::new(1),
            failed: Mutex::new(None),
            done: Notify::new(),
        })
    }

    fn answered(&self, failed: Option<Failed>) {
        if let Some(failed) = failed {
            let mut first = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(failed);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    /// Waits for the last answer.
    async fn all(&self) -> Option<Failed> {
        while self.left.load(Ordering::Acquire) > 0 {
            self.done.notified().await;
        }
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Producer")
    }
}

impl Producer {
    pub fn open(config: &KafkaConfig) -> Result<Producer, BusError> {
        Ok(Producer {
            names: Names(config.prefix.clone()),
            current: Mutex::new(Arc::new(create(config)?)),
            config: config.clone(),
        })
    }

    fn current(&self) -> Arc<ThreadedProducer<Deliveries>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub async fn append(&self, records: &[NewRecord]) -> Result<(), BusError> {
        // Held until the last answer: librdkafka gives none once it is dropped.
        let producer = self.current();
        let under_way = UnderWay::new();
        let mut refused = None;
        'records: for record in records {
            let topic = self.names.of(record.topic);
            under_way.left.fetch_add(1, Ordering::AcqRel);
            let mut message = BaseRecord::with_opaque_to(&topic, under_way.clone())
                .key(record.key.as_str())
                .payload(&record.value)
                .headers(headers(record));
            loop {
                match producer.send(message) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                        message = unsent;
                        // Back-pressure: room comes when something is delivered.
                        tokio::time::sleep(ROOM).await;
                    }
                    Err((error, _)) => {
                        under_way.answered(None);
                        refused = Some(Failed {
                            error,
                            bytes: record.size(),
                            topic,
                        });
                        break 'records;
                    }
                }
            }
        }
        under_way.answered(None);
        let failed = under_way.all().await;
        let Some(failed) = refused.or(failed) else {
            return Ok(());
        };
        if producer.client().fatal_error().is_some() {
            self.replace(&producer)?;
        }
        Err(self.error(failed))
    }

    fn error(&self, failed: Failed) -> BusError {
        match (failed.error.rdkafka_error_code(), self.names.topic(&failed.topic)) {
            (Some(RDKafkaErrorCode::MessageSizeTooLarge), Some(topic)) => BusError::TooLarge {
                topic,
                bytes: failed.bytes,
                limit: MAX_RECORD_BYTES,
            },
            _ => sorted(failed.error, &failed.topic),
        }
    }

    fn replace(&self, dead: &Arc<ThreadedProducer<Deliveries>>) -> Result<(), BusError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, dead) {
            tracing::warn!("the Kafka producer met a fatal error and is replaced");
            *current = Arc::new(create(&self.config)?);
        }
        Ok(())
    }
}

fn create(config: &KafkaConfig) -> Result<ThreadedProducer<Deliveries>, BusError> {
    settings::producer(config)
        .create_with_context(Deliveries)
        .map_err(super::creation)
}

fn headers(record: &NewRecord) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (key, value) in &record.headers {
        headers = headers.insert(Header {
            key,
            value: Some(value.as_ref()),
        });
    }
    headers
}
