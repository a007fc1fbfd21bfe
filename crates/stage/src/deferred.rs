//! Puts what is due back onto its topic: timers, retries, quiet hours, messages of campaigns that go on.
//!
//! Any number of replicas pump: rows that one has taken are passed over by the others. A row leaves the table in the
//! transaction of whoever took it.
//!
//! # What happens when it dies here
//! | point | PostgreSQL | Kafka |
//! |---|---|---|
//! | `deferred-before-append` | the rows are still there | the rows are still there |
//! | `deferred-after-append`, `deferred-before-commit` | the rows are still there, the records are not | both are there: the records are appended again, under the same ids |
//! | `deferred-after-commit` | all is done | all is done |

use std::{sync::Arc, time::Duration};

use bus::{BusError, Log, MAX_RECORD_BYTES, NewRecord};
use store::{Deferred, Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::{Clock, crash, runner::attempt::Backoff};

/// Rows in one transaction.
const BATCH: i64 = 500;
/// How soon a row is noticed that came after the last look: a timer may be late by less than a second.
const POLL: Duration = Duration::from_millis(400);

#[derive(Debug, thiserror::Error)]
enum PumpError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("a crash point")]
    Crashed,
}

impl From<crash::Crashed> for PumpError {
    fn from(_: crash::Crashed) -> Self {
        PumpError::Crashed
    }
}

/// Until `shutdown`. Errors are waited out.
pub async fn pump(log: Arc<dyn Log>, store: Store, clock: Clock, shutdown: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    while !shutdown.is_cancelled() {
        // A task of its own is not cancelled with us (sqlx #4393).
        let moved = tokio::spawn(once(log.clone(), store.clone(), clock.clone())).await;
        let wait = match moved {
            Ok(Ok(BATCH..)) => Duration::ZERO,
            Ok(Ok(_)) => {
                backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
                until_due(&store, &clock).await
            }
            Ok(Err(error)) => {
                let wait = backoff.wait();
                if backoff.is_telling() {
                    tracing::warn!(%error, tries = backoff.tries, "deferred records cannot be moved, trying again");
                }
                wait
            }
            Err(error) => {
                tracing::error!(%error, "moving deferred records failed by a mistake of ours, trying again");
                backoff.wait()
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Moves up to a batch of what is due; how many.
async fn once(log: Arc<dyn Log>, store: Store, clock: Clock) -> Result<i64, PumpError> {
    let mut tx = store.begin_by_key().await?;
    let rows = tx.deferred_take_due(clock.now(), BATCH).await?;
    let count = rows.len() as i64;
    if count == 0 {
        return Ok(0);
    }
    let records: Vec<NewRecord> = rows.into_iter().filter_map(record).collect();
    crash::point("deferred-before-append")?;
    match log.transactional() {
        Some(transactional) => {
            transactional.append_in(tx.connection(), &records).await?;
            crash::point("deferred-after-append")?;
            crash::point("deferred-before-commit")?;
            tx.commit().await?;
            transactional.announce(&records);
        }
        None => {
            log.append(records).await?;
            crash::point("deferred-after-append")?;
            crash::point("deferred-before-commit")?;
            tx.commit().await?;
        }
    }
    crash::point("deferred-after-commit")?;
    metrics::counter!("tamtam_deferred_released_total").increment(count.unsigned_abs());
    Ok(count)
}

fn record(row: Deferred) -> Option<NewRecord> {
    let record = NewRecord {
        topic: row.topic,
        key: row.key,
        headers: row.headers,
        value: row.value,
    };
    // Whoever deferred it made it small enough for the bus. Should one not be, it must not hold up all the others.
    if record.size() > MAX_RECORD_BYTES {
        tracing::error!(
            id = row.id,
            bytes = record.size(),
            "a deferred record is too large for the bus and is dropped"
        );
        return None;
    }
    Some(record)
}

async fn until_due(store: &Store, clock: &Clock) -> Duration {
    match store.deferred_next_due().await {
        Ok(Some(due)) => {
            let wait = due.duration_since(clock.now());
            // A little after, not a little before: then it is due.
            Duration::try_from(wait).map_or(Duration::from_millis(20), |wait| {
                (wait + Duration::from_millis(2)).min(POLL)
            })
        }
        _ => POLL,
    }
}
