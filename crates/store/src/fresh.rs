//! Inserting rows that are almost always new.
//!
//! `on conflict` looks for each row before it writes it, and writes it to PostgreSQL's log a second time: a third of what a
//! row of the ledger costs. So many rows at once are inserted as if none of them were there; where one is, nothing was
//! inserted, and the caller inserts with `on conflict`. Rows that are there mostly come in numbers (records that are read
//! again after a crash, messages that waited for the morning), so after such a meeting the next inserts into that table do
//! not try.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Executor as _, Postgres, postgres::PgArguments, query::Query};

use crate::{StoreError, Tx};

/// Fewer rows than this do not pay for the savepoint.
const LEAST: usize = 24;
/// How many inserts are made the careful way after a row was met.
const CAREFUL: u32 = 20;

/// What is inserted so.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fresh {
    Messages,
    Parts,
    History,
    TriggerLog,
    /// Events, before anything is decided on them ([`Tx::events_are_new`]).
    Events,
}

/// For each of them, how many inserts are still to be made the careful way.
#[derive(Debug, Default)]
pub(crate) struct Careful([AtomicU32; 5]);

impl Careful {
    fn of(&self, table: Fresh) -> &AtomicU32 {
        let [messages, parts, history, trigger_log, events] = &self.0;
        match table {
            Fresh::Messages => messages,
            Fresh::Parts => parts,
            Fresh::History => history,
            Fresh::TriggerLog => trigger_log,
            Fresh::Events => events,
        }
    }

    /// Whether this insert is to be made the careful way.
    fn takes_one(&self, table: Fresh) -> bool {
        let less = |left: u32| left.checked_sub(1);
        (self.of(table))
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

impl Tx {
    /// Whether to decide on events as if none of them were known, and to begin again where one is: so it is, unless some were a
    /// few batches ago.
    pub fn events_are_new(&self) -> bool {
        !self.careful.takes_one(Fresh::Events)
    }

    /// Some were known.
    pub fn events_were_known(&self) {
        self.careful.of(Fresh::Events).store(CAREFUL, Ordering::Relaxed);
    }

    /// Inserts so many rows by a plain `insert`. `false`: nothing was inserted, do it the careful way.
    pub(crate) async fn insert_fresh(
        &mut self,
        table: Fresh,
        rows: usize,
        insert: Query<'_, Postgres, PgArguments>,
    ) -> Result<bool, StoreError> {
        if rows < LEAST || self.careful.takes_one(table) {
            return Ok(false);
        }
        let done = self.insert_plainly(insert).await?;
        if !done {
            self.careful.of(table).store(CAREFUL, Ordering::Relaxed);
        }
        Ok(done)
    }

    /// The same, tried in any case.
    pub(crate) async fn insert_plainly(
        &mut self,
        insert: Query<'_, Postgres, PgArguments>,
    ) -> Result<bool, StoreError> {
        // Not through sqlx: it does not know of every transaction here. It is not released either: that ends with the
        // transaction, and would be a round trip more.
        self.inner.execute("savepoint fresh").await?;
        match insert.execute(&mut *self.inner).await {
            Ok(_) => Ok(true),
            Err(sqlx::Error::Database(refused)) if refused.is_unique_violation() => {
                self.inner.execute("rollback to savepoint fresh").await?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_meeting_the_next_ones_are_careful_and_then_it_is_tried_again() {
        let careful = Careful::default();
        assert!(!careful.takes_one(Fresh::Parts));
        careful.of(Fresh::Parts).store(2, Ordering::Relaxed);
        assert!(!careful.takes_one(Fresh::Messages), "another table");
        assert!(!careful.takes_one(Fresh::Events), "nor is it asked for events");
        let taken: Vec<bool> = (0..4).map(|_| careful.takes_one(Fresh::Parts)).collect();
        assert_eq!(taken, [true, true, false, false]);
    }
}
