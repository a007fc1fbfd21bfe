//! Being told of changes: PostgreSQL's `listen`.

use sqlx::postgres::PgListener;

use crate::{Store, StoreError};

/// A connection of its own that hears notifications.
#[derive(Debug)]
pub struct Notices {
    listener: PgListener,
}

impl Store {
    /// Listens to `channels` on a connection of its own.
    pub async fn listen(&self, channels: &[&str]) -> Result<Notices, StoreError> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen_all(channels.iter().copied()).await?;
        Ok(Notices { listener })
    }
}

impl Notices {
    /// Waits for the next notification. After an error the connection is gone: listen again.
    pub async fn next(&mut self) -> Result<String, StoreError> {
        Ok(self.listener.recv().await?.channel().to_owned())
    }
}
