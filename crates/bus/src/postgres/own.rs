//! A connection of one's own, for who uses it many times a second: the pool would ask it whether it is still there before and
//! after each use, two round trips around one statement.

use std::time::{Duration, Instant};

use sqlx::{ConnectOptions as _, Connection as _, PgConnection, PgPool};

/// After so long without use it is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Own {
    /// How to connect, and how long to wait for it.
    pool: PgPool,
    connected: Option<(PgConnection, Instant)>,
}

impl Own {
    pub fn new(pool: PgPool) -> Own {
        Own { pool, connected: None }
    }

    /// The connection, made when it is first needed. After an error it is to be [`Own::leave`]d.
    pub async fn get(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let is_there = match &mut self.connected {
            Some((connection, used)) => used.elapsed() < IDLE || connection.ping().await.is_ok(),
            None => false,
        };
        let connection = match self.connected.take() {
            Some((connection, _)) if is_there => connection,
            _ => self.connect().await?,
        };
        Ok(&mut self.connected.insert((connection, Instant::now())).0)
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let options = self.pool.connect_options();
        let wait = self.pool.options().get_acquire_timeout();
        let mut connection = tokio::time::timeout(wait, options.connect())
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)??;
        sqlx::raw_sql("set jit = off").execute(&mut connection).await?;
        Ok(connection)
    }

    /// Uses another connection next time.
    pub fn leave(&mut self) {
        self.connected = None;
    }
}
