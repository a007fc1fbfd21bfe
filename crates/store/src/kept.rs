//! Connections that the transactions by key use one after the other, without giving them back in between.
//!
//! The pool asks a connection whether it is still there each time that it comes back (in sqlx 0.9 nothing turns that off),
//! and settings for one transaction are five further statements; of the statements of a small batch that was a third. So some
//! of the pool's connections, at most a quarter, stay with the stages that use them all the time, with their settings made
//! once. One is closed after an error, and after half an hour as the pool does.

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
    in_use: usize,
}

/// A connection with the settings made.
#[derive(Debug)]
struct Member {
    connection: PoolConnection<Postgres>,
    made: Instant,
    used: Instant,
}

/// A transaction on one of them. Dropped before its commit it is rolled back, and the connection is used again.
#[derive(Debug)]
pub(crate) struct Open {
    /// Until it ends.
    held: Option<(Member, Place)>,
}

/// Counts as one in use, until it is dropped.
#[derive(Debug)]
struct Place(Arc<Kept>);

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
        Ok(Some(Open {
            held: Some((member, place)),
        }))
    }

    /// One that nobody uses, or a place for a new one.
    fn idle_or_room(self: &Arc<Kept>) -> Option<(Option<Member>, Place)> {
        let mut state = self.state();
        let member = state.idle.pop();
        if member.is_none() && state.in_use == self.room {
            return None;
        }
        state.in_use += 1;
        Some((member, Place(self.clone())))
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
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        match self.held.take() {
            Some((member, place)) => end(member, place, "commit").await,
            None => Ok(()),
        }
    }
}

/// Ends the transaction and keeps the connection for the next one; after an error it is closed.
async fn end(mut member: Member, place: Place, how: &'static str) -> Result<(), sqlx::Error> {
    member.connection.execute(how).await?;
    member.used = Instant::now();
    place.0.state().idle.push(member);
    Ok(())
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some((member, place)) = self.held.take() else {
            return;
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(end(member, place, "rollback"));
            }
            Err(_) => std::mem::forget(member),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state().in_use -= 1;
    }
}

impl Deref for Open {
    type Target = PgConnection;

    #[expect(clippy::expect_used, reason = "only what consumes it takes it out")]
    fn deref(&self) -> &PgConnection {
        &self.held.as_ref().expect("an open transaction").0.connection
    }
}

impl DerefMut for Open {
    #[expect(clippy::expect_used, reason = "only what consumes it takes it out")]
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.held.as_mut().expect("an open transaction").0.connection
    }
}
