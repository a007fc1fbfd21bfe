//! Connections that the transactions by key use one after the other, without giving them back in between.
//!
//! The pool asks a connection whether it is still there each time that it comes back (in sqlx 0.9 nothing turns that off),
//! and settings for one transaction are five further statements; of the statements of a small batch that was a third. So some
//! of the pool's connections, at most a quarter, stay with the stages that use them all the time, with their settings made
//! once. One is not used again when its transaction was not committed, and is closed after half an hour as the pool does.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, Postgres, pool::PoolConnection};

use crate::pool::{BY_KEY, IDLE};

/// So many at most.
const MOST: usize = 4;

/// As the pool's default.
const LIFE: Duration = Duration::from_secs(30 * 60);

#[derive(Debug)]
pub(crate) struct Kept {
    pool: PgPool,
    room: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Member>,
    /// How many there are, those in use included.
    count: usize,
}

/// A connection with the settings made.
#[derive(Debug)]
struct Member {
    connection: PoolConnection<Postgres>,
    made: Instant,
    used: Instant,
}

/// A transaction on one of them.
#[derive(Debug)]
pub(crate) struct Open {
    member: Member,
    place: Place,
}

/// Counts among those that there are, until it is dropped.
#[derive(Debug)]
struct Place(Option<Arc<Kept>>);

impl Kept {
    pub fn of(pool: &PgPool) -> Arc<Kept> {
        Arc::new(Kept {
            room: MOST.min(pool.options().get_max_connections() as usize / 4),
            pool: pool.clone(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a transaction; `None`: all are in use.
    pub async fn begin(self: Arc<Kept>) -> Result<Option<Open>, sqlx::Error> {
        let (mut member, place) = loop {
            let Some((idle, place)) = self.idle_or_room() else {
                return Ok(None);
            };
            let Some(mut member) = idle else {
                break (self.connect().await?, place);
            };
            let is_there = member.used.elapsed() < IDLE || member.connection.ping().await.is_ok();
            if is_there && member.made.elapsed() < LIFE {
                break (member, place);
            }
            // It goes, and the next one is looked at.
        };
        member.connection.execute("begin").await?;
        Ok(Some(Open { member, place }))
    }

    /// One that nobody uses, or a place for a new one.
    fn idle_or_room(self: &Arc<Kept>) -> Option<(Option<Member>, Place)> {
        let mut state = self.state();
        let member = state.idle.pop();
        if member.is_none() {
            if state.count == self.room {
                return None;
            }
            state.count += 1;
        }
        Some((member, Place(Some(self.clone()))))
    }

    async fn connect(&self) -> Result<Member, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        // It has settings that nobody else wants.
        connection.close_on_drop();
        let settings = BY_KEY.map(|setting| format!("set {setting};"));
        connection.execute(sqlx::AssertSqlSafe(settings.concat())).await?;
        Ok(Member {
            connection,
            made: Instant::now(),
            used: Instant::now(),
        })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Closing needs the runtime; without one the process is ending.
        if tokio::runtime::Handle::try_current().is_err() {
            std::mem::forget(std::mem::take(&mut self.state().idle));
        }
    }
}

impl Open {
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        let Open { mut member, mut place } = self;
        member.connection.execute("commit").await?;
        member.used = Instant::now();
        if let Some(kept) = place.0.take() {
            kept.state().idle.push(member);
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(kept) = &self.0 {
            kept.state().count -= 1;
        }
    }
}

impl Deref for Open {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.member.connection
    }
}

impl DerefMut for Open {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.member.connection
    }
}
