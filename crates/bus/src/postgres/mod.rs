//! The log in PostgreSQL (schema `log`, migrations 0005 and 0069): what `tamtam up` runs on.
//!
//! # What happens when somebody dies
//! - While appending: the transaction is undone, offsets and all. After its commit but before the notification: readers
//!   notice at their next poll, a second later.
//! - A consumer between its work and its commit: its session's locks vanish, the next owner raises the epoch and reads the
//!   same records again. A transaction of the dead owner that is still open fails at its `finish_in`.
//! - The database: sessions end, owners are told that their partitions are lost, and join again when it is back.

mod append;
mod balance;
mod catalog;
mod consumer;
mod maintain;
mod own;
mod packed;
mod reading;
mod session;
mod share;
mod wake;
mod writer;

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use events::Topic;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Bounds, BusError, Committed, Consumer, Lag, Log, NewRecord, Partition, PostgresConfig, ReadLimits, StoredRecord,
    TopicSettings, TransactionalLog, check_size,
};
pub use maintain::maintain;

/// A small batch is a query to read and a transaction, which take half as long together.
const PACE: Duration = Duration::from_millis(6);
/// How often [`Log::read`] looks without having been woken.
const POLL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct PostgresLog {
    shared: Arc<Shared>,
}

/// What the log and its consumers share; the background tasks end with it.
#[derive(Debug)]
struct Shared {
    pool: PgPool,
    catalog: Arc<catalog::Catalog>,
    wake: Arc<wake::Wake>,
    writer: writer::Writer,
    _tasks: DropGuard,
}

pub(crate) fn open(config: PostgresConfig) -> PostgresLog {
    let pool = config.pool;
    let wake = wake::Wake::new();
    let catalog = Arc::new(catalog::Catalog::new(pool.clone()));
    let ended = CancellationToken::new();
    let background = |task: futures::future::BoxFuture<'static, ()>| {
        let ended = ended.clone();
        tokio::spawn(async move { ended.run_until_cancelled(task).await });
    };
    background(Box::pin(wake::tell(wake.clone(), pool.clone())));
    background(Box::pin(wake::listen(wake.clone(), pool.clone())));
    background(Box::pin(maintain::keep(pool.clone())));
    background(Box::pin({
        let catalog = catalog.clone();
        async move { catalog.keep().await }
    }));
    PostgresLog {
        shared: Arc::new(Shared {
            writer: writer::Writer::start(pool.clone(), catalog.clone(), wake.clone()),
            catalog,
            pool,
            wake,
            _tasks: ended.drop_guard(),
        }),
    }
}

/// Runs to its end even if the caller gives up: a query that is dropped half-way can spoil its pooled connection.
async fn uncancelled<T: Send + 'static>(
    work: impl Future<Output = Result<T, BusError>> + Send + 'static,
) -> Result<T, BusError> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|error| Err(consumer::rethrow(error)))
}

#[async_trait]
impl Log for PostgresLog {
    async fn topics_ensure(&self, topics: &[TopicSettings]) -> Result<(), BusError> {
        self.shared.catalog.ensure(topics).await
    }

    fn pace(&self) -> Duration {
        PACE
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<(), BusError> {
        if records.is_empty() {
            return Ok(());
        }
        // All are checked before any is written.
        for record in &records {
            check_size(record)?;
        }
        self.shared.writer.append(records).await
    }

    async fn subscribe(&self, group: &str, topics: &[Topic]) -> Result<Box<dyn Consumer>, BusError> {
        let consumer = consumer::PostgresConsumer::join(self.shared.clone(), group, topics).await?;
        Ok(Box::new(consumer))
    }

    async fn read(&self, partition: Partition, from: i64, limits: ReadLimits) -> Result<Vec<StoredRecord>, BusError> {
        let until = tokio::time::Instant::now() + limits.wait;
        let place = reading::Place {
            topic: self.shared.catalog.known(partition.topic).await?.id,
            partition: partition.number.cast_signed(),
            position: from,
        };
        let mut appended = self.shared.wake.on_append(partition.topic);
        loop {
            appended.mark_unchanged();
            let shared = self.shared.clone();
            let records = uncancelled(async move { read_once(&shared.pool, place, limits).await }).await?;
            if !records.is_empty() || tokio::time::Instant::now() >= until {
                return Ok(records);
            }
            let poll = until.min(tokio::time::Instant::now() + POLL);
            let _ = tokio::time::timeout_at(poll, appended.changed()).await;
        }
    }

    async fn bounds(&self, topic: Topic) -> Result<Vec<Bounds>, BusError> {
        let id = self.shared.catalog.known(topic).await?.id;
        let pool = self.shared.pool.clone();
        let rows: Vec<(i32, i64, i64)> = uncancelled(async move {
            sqlx::query_as(
                "select partition, first_offset, next_offset from log.heads where topic = $1 order by partition",
            )
            .bind(id)
            .fetch_all(&pool)
            .await
            .map_err(BusError::Postgres)
        })
        .await?;
        Ok(rows
            .into_iter()
            .map(|(number, first, end)| Bounds {
                partition: Partition {
                    topic,
                    number: number.cast_unsigned(),
                },
                first,
                end,
            })
            .collect())
    }

    async fn lag(&self, group: &str, topics: &[Topic]) -> Result<Vec<Lag>, BusError> {
        let mut lags = Vec::new();
        for topic in topics {
            let id = self.shared.catalog.known(*topic).await?.id;
            let pool = self.shared.pool.clone();
            let group = group.to_owned();
            let rows: Vec<(i32, i64, i64)> = uncancelled(async move {
                sqlx::query_as(
                    "select h.partition, greatest(g.next_offset, h.first_offset), h.next_offset
                     from log.heads h
                     left join log.groups g on g.name = $1 and g.topic = h.topic and g.partition = h.partition
                     where h.topic = $2 order by h.partition",
                )
                .bind(group)
                .bind(id)
                .fetch_all(&pool)
                .await
                .map_err(BusError::Postgres)
            })
            .await?;
            lags.extend(rows.into_iter().map(|(number, committed, end)| Lag {
                partition: Partition {
                    topic: *topic,
                    number: number.cast_unsigned(),
                },
                committed,
                end,
            }));
        }
        Ok(lags)
    }

    async fn ping(&self) -> Result<(), BusError> {
        let pool = self.shared.pool.clone();
        uncancelled(async move {
            sqlx::query("select from log.topics limit 1")
                .execute(&pool)
                .await
                .map_err(BusError::Postgres)
        })
        .await?;
        Ok(())
    }

    fn transactional(&self) -> Option<&dyn TransactionalLog> {
        Some(self)
    }
}

async fn read_once(pool: &PgPool, place: reading::Place, limits: ReadLimits) -> Result<Vec<StoredRecord>, BusError> {
    let mut connection = pool.acquire().await.map_err(BusError::Postgres)?;
    // Twice: retention may drop the segment between the two looks.
    for _ in 0..2 {
        let news = reading::news(&mut connection, &[place])
            .await
            .map_err(BusError::Postgres)?;
        let Some(news) = news.first().filter(|news| news.end > news.position) else {
            break;
        };
        let wanted = [(place.partition, news.position)];
        let mut read = reading::fetch(&mut connection, place.topic, news.segment, &wanted, limits, false)
            .await
            .map_err(BusError::Postgres)?;
        if let Some(reading::Read { mut records, .. }) = read.pop()
            && !records.is_empty()
        {
            records.truncate(reading::fitting(&records, limits));
            return Ok(records);
        }
    }
    Ok(Vec::new())
}

#[async_trait]
impl TransactionalLog for PostgresLog {
    async fn append_in(&self, connection: &mut PgConnection, records: &[NewRecord]) -> Result<(), BusError> {
        append::append(&self.shared.catalog, connection, records).await
    }

    async fn finish_in(
        &self,
        connection: &mut PgConnection,
        group: &str,
        offsets: &[Committed],
        records: &[NewRecord],
    ) -> Result<(), BusError> {
        append::finish(&self.shared.catalog, connection, group, offsets, records).await
    }

    fn announce(&self, records: &[NewRecord]) {
        self.shared.wake.appended(&self.shared.catalog.partitions_of(records));
    }
}
