//! Appending: idempotent, to all in-sync replicas, and answered when the last record of the batch is.
//!
//! A full queue is waited for. A producer that librdkafka has given up (a fatal error: it can no longer promise neither to
//! repeat nor to reorder) is replaced, and the batch that met it is reported as failed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _},
};

use super::{
    clients::{Context, Names, sorted},
    settings,
};
use crate::{BusError, KafkaConfig, MAX_RECORD_BYTES, NewRecord};

/// How long to wait for room when none of our own records is under way.
const ROOM: Duration = Duration::from_millis(5);

pub(super) struct Producer {
    config: KafkaConfig,
    names: Names,
    current: Mutex<Arc<FutureProducer<Context>>>,
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

    fn current(&self) -> Arc<FutureProducer<Context>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub async fn append(&self, records: &[NewRecord]) -> Result<(), BusError> {
        let producer = self.current();
        let mut under_way: VecDeque<(usize, DeliveryFuture)> = VecDeque::with_capacity(records.len());
        let mut failed = None;
        'records: for (place, record) in records.iter().enumerate() {
            let topic = self.names.of(record.topic);
            let mut message = FutureRecord::to(&topic)
                .key(record.key.as_str())
                .payload(&record.value)
                .headers(headers(record));
            loop {
                match producer.send_result(message) {
                    Ok(delivery) => {
                        under_way.push_back((place, delivery));
                        break;
                    }
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                        message = unsent;
                        // Back-pressure: room comes when something is delivered.
                        match under_way.pop_front() {
                            Some((place, delivery)) => {
                                if let Err(error) = self.delivered(&records[place], delivery).await {
                                    failed.get_or_insert(error);
                                }
                            }
                            None => tokio::time::sleep(ROOM).await,
                        }
                    }
                    Err((error, _)) => {
                        failed.get_or_insert(self.error(error, record));
                        break 'records;
                    }
                }
            }
        }
        for (place, delivery) in under_way {
            if let Err(error) = self.delivered(&records[place], delivery).await {
                failed.get_or_insert(error);
            }
        }
        let Some(error) = failed else {
            return Ok(());
        };
        if producer.client().fatal_error().is_some() {
            self.replace(&producer)?;
        }
        Err(error)
    }

    async fn delivered(&self, record: &NewRecord, delivery: DeliveryFuture) -> Result<(), BusError> {
        match delivery.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(self.error(error, record)),
            // The producer is gone: perhaps written.
            Err(_) => Err(BusError::Kafka(KafkaError::Canceled)),
        }
    }

    fn error(&self, error: KafkaError, record: &NewRecord) -> BusError {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => BusError::TooLarge {
                topic: record.topic,
                bytes: record.size(),
                limit: MAX_RECORD_BYTES,
            },
            _ => sorted(error, &self.names.of(record.topic)),
        }
    }

    fn replace(&self, dead: &Arc<FutureProducer<Context>>) -> Result<(), BusError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, dead) {
            tracing::warn!("the Kafka producer met a fatal error and is replaced");
            *current = Arc::new(create(&self.config)?);
        }
        Ok(())
    }
}

fn create(config: &KafkaConfig) -> Result<FutureProducer<Context>, BusError> {
    settings::producer(config)
        .create_with_context(Context)
        .map_err(super::creation)
}

fn headers(record: &NewRecord) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (key, value) in &record.headers {
        headers = headers.insert(Header {
            key,
            value: Some(value),
        });
    }
    headers
}
