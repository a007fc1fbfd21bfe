//! Which dead letters were put back onto their topic.
//!
//! Claiming comes first, in the transaction that then appends and commits: two replays at once wait for one another on
//! the primary key, and the second finds the row. A crash before the commit leaves no row. On PostgreSQL nothing was
//! appended either; on Kafka the records may be there, the next replay appends them again under the same ids, and their
//! readers know them by these.

use std::collections::HashMap;

use jiff::Timestamp;
use uuid::Uuid;

use crate::{Store, StoreError, Tx, time::At};

impl Tx {
    /// Notes these dead letters (distinct ids) as replayed; whether each was new.
    pub async fn dead_letters_claim(
        &mut self,
        ids: &[Uuid],
        by: &str,
        now: Timestamp,
    ) -> Result<Vec<bool>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        // `order by`: two of us insert the same ids in the same order and cannot lock each other out.
        let new: Vec<Uuid> = sqlx::query_scalar(
            "insert into dead_letters_replayed (id, replayed_at, replayed_by)
             select id, $2, $3 from unnest($1::uuid[]) as wanted (id) order by id
             on conflict do nothing returning id",
        )
        .bind(ids)
        .bind(At(now))
        .bind(by)
        .fetch_all(&mut *self.inner)
        .await?;
        Ok(ids.iter().map(|id| new.contains(id)).collect())
    }
}

impl Store {
    /// When each of these dead letters was replayed, for those that were.
    pub async fn dead_letters_replayed(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Timestamp>, StoreError> {
        let rows: Vec<(Uuid, At)> =
            sqlx::query_as("select id, replayed_at from dead_letters_replayed where id = any($1)")
                .bind(ids)
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.into_iter().map(|(id, at)| (id, at.0)).collect())
    }
}
