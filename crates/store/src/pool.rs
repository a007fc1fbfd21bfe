//! The connection pool and transactions.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, LazyLock},
    time::Duration,
};

use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, Postgres, Transaction, postgres::PgPoolOptions};

use crate::{
    StoreError,
    fresh::Careful,
    kept::{Kept, Open},
};

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) pool: PgPool,
    careful: Arc<Careful>,
    kept: Arc<Kept>,
}

/// A transaction. Dropped without [`Tx::commit`] it rolls back.
#[derive(Debug)]
pub struct Tx {
    pub(crate) inner: Inner,
    pub(crate) careful: Arc<Careful>,
}

/// Which kind of connection it is on.
#[derive(Debug)]
pub(crate) enum Inner {
    Pooled(Transaction<'static, Postgres>),
    Kept(Open),
}

impl Deref for Inner {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Inner::Pooled(inner) => inner,
            Inner::Kept(inner) => inner,
        }
    }
}

impl DerefMut for Inner {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Inner::Pooled(inner) => inner,
            Inner::Kept(inner) => inner,
        }
    }
}

/// What was not used for longer is asked whether it is still there before it is. The pool itself would ask each time, a round
/// trip for every statement.
pub(crate) const IDLE: Duration = Duration::from_secs(1);

/// How a transaction by key plans its statements; see [`Store::begin_by_key`].
pub(crate) const BY_KEY: [&str; 5] = [
    "enable_seqscan = off",
    "enable_hashjoin = off",
    "enable_mergejoin = off",
    "enable_material = off",
    "plan_cache_mode = force_generic_plan",
];

/// The same for one transaction alone.
static LOCALLY: LazyLock<String> = LazyLock::new(|| {
    let settings = BY_KEY.map(|setting| format!("; set local {setting}"));
    format!("begin{}", settings.concat())
});

/// How each connection begins. Compiling a statement takes PostgreSQL longer than any of ours runs: it would be done anew for
/// every batch that the planner holds for large.
fn options() -> PgPoolOptions {
    PgPoolOptions::new()
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute("set jit = off").await?;
                Ok(())
            })
        })
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                // One that is gone is no more than replaced.
                Ok(meta.idle_for < IDLE || connection.ping().await.is_ok())
            })
        })
}

impl Store {
    /// Connects to `url` (`postgres://…`), waiting up to `wait` for the first connection.
    pub async fn connect(url: &str, connections: u32, wait: Duration) -> Result<Store, StoreError> {
        let pool = options()
            .max_connections(connections)
            .acquire_timeout(wait)
            .connect(url)
            .await?;
        Ok(Store {
            kept: Kept::of(&pool),
            pool,
            careful: Arc::default(),
        })
    }

    /// The same database over one connection of its own, made when it is first needed: for what is asked while somebody
    /// holds a transaction and waits. From the pool it could be waiting for a connection that only the waiting ones have.
    pub fn apart(&self) -> Store {
        let pool = options()
            .max_connections(1)
            .acquire_timeout(self.pool.options().get_acquire_timeout())
            .connect_lazy_with((*self.pool.connect_options()).clone());
        Store {
            kept: Kept::of(&pool),
            pool,
            careful: self.careful.clone(),
        }
    }

    /// Brings the schema up to date; safe to run from several processes at once (an advisory lock).
    pub async fn migrate(&self) -> Result<(), StoreError> {
        sqlx::migrate!("../../migrations").run(&self.pool).await?;
        Ok(())
    }

    pub async fn begin(&self) -> Result<Tx, StoreError> {
        self.begin_with("begin").await
    }

    /// A transaction whose statements find their rows by keys, batch by batch. The planner is told so: a hash-partitioned
    /// table looks many times dearer to it by index than it is (it does not reckon with the partitions that are left out
    /// when the statement runs), and statistics of a young table say nothing. Where it would scan a whole table for a
    /// batch of a hundred, here it does not. Nor does it plan a statement anew for each batch that is smaller than it takes
    /// batches to be, which costs many times what such a batch does.
    pub async fn begin_by_key(&self) -> Result<Tx, StoreError> {
        let kept = self.kept.clone();
        // As in `begin_with`.
        let open = tokio::spawn(kept.begin())
            .await
            .map_err(|_| StoreError::Unavailable(sqlx::Error::WorkerCrashed))??;
        match open {
            Some(open) => Ok(Tx {
                inner: Inner::Kept(open),
                careful: self.careful.clone(),
            }),
            None => self.begin_with(&LOCALLY).await,
        }
    }

    async fn begin_with(&self, statement: &'static str) -> Result<Tx, StoreError> {
        // sqlx #4393: a cancelled `begin()` poisons its pooled connection. A task of its own is not cancelled with us.
        let pool = self.pool.clone();
        let inner = tokio::spawn(async move { pool.begin_with(statement).await })
            .await
            .map_err(|_| StoreError::Unavailable(sqlx::Error::WorkerCrashed))??;
        Ok(Tx {
            inner: Inner::Pooled(inner),
            careful: self.careful.clone(),
        })
    }

    /// The pool itself, for the PostgreSQL bus on the same database.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Makes a database; for tests and the embedded cluster. The name is quoted by PostgreSQL itself.
    pub async fn database_create(&self, name: &str) -> Result<(), StoreError> {
        let (quoted,): (String,) = sqlx::query_as("select format('create database %I', $1)")
            .bind(name)
            .fetch_one(&self.pool)
            .await?;
        sqlx::query(sqlx::AssertSqlSafe(quoted)).execute(&self.pool).await?;
        Ok(())
    }

    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("select 1").execute(&self.pool).await?;
        Ok(())
    }
}

impl Tx {
    /// The connection inside, for the bus's appends in the same transaction.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    /// Undoes everything, and begins anew, of a transaction by key.
    pub async fn begin_again(&mut self) -> Result<(), StoreError> {
        // Not through sqlx, which does not know of every transaction here; to it this is still the same one.
        let begin = match &self.inner {
            Inner::Pooled(_) => LOCALLY.as_str(),
            Inner::Kept(_) => "begin",
        };
        let again = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("rollback; {begin}")));
        again.execute(&mut *self.inner).await?;
        Ok(())
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        match self.inner {
            Inner::Pooled(inner) => inner.commit().await?,
            Inner::Kept(inner) => inner.commit().await?,
        }
        Ok(())
    }
}
