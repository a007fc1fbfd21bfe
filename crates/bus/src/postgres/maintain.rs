//! Retention: new segments are opened as time goes by, old ones are dropped with their table.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::PgPool;

use crate::BusError;

const EVERY: Duration = Duration::from_secs(60);

/// Opens the segments that are due at `at` and drops those past their topic's retention; says how many it dropped. Every
/// process does so from time to time; a lock lets one in.
pub async fn maintain(pool: &PgPool, at: Timestamp) -> Result<u64, BusError> {
    let seconds = at.as_millisecond() as f64 / 1000.0;
    sqlx::query("select log.roll(to_timestamp($1))")
        .bind(seconds)
        .execute(pool)
        .await
        .map_err(BusError::Postgres)?;
    let mut dropped = 0;
    loop {
        let (more,): (bool,) = sqlx::query_as("select log.retain(to_timestamp($1))")
            .bind(seconds)
            .fetch_one(pool)
            .await
            .map_err(BusError::Postgres)?;
        if !more {
            return Ok(dropped);
        }
        dropped += 1;
    }
}

/// For ever, by the database's clock.
pub(super) async fn keep(pool: PgPool) {
    loop {
        tokio::time::sleep(EVERY).await;
        match database_now(&pool).await {
            Ok(now) => match maintain(&pool, now).await {
                Ok(0) => {}
                Ok(dropped) => tracing::info!(dropped, "dropped log segments past their retention"),
                // A lock that was not to be had in time, or no database: the next round does it.
                Err(error) => tracing::debug!(%error, "log maintenance put off"),
            },
            Err(error) => tracing::debug!(%error, "log maintenance put off"),
        }
    }
}

async fn database_now(pool: &PgPool) -> Result<Timestamp, BusError> {
    let (ms,): (i64,) = sqlx::query_as("select (extract(epoch from now()) * 1000)::bigint")
        .fetch_one(pool)
        .await
        .map_err(BusError::Postgres)?;
    Ok(Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH))
}
