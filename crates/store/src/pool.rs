//! The connection pool and transactions.

use std::{sync::Arc, time::Duration};

use sqlx::{Executor as _, PgConnection, PgPool, Postgres, Transaction, postgres::PgPoolOptions};

use crate::{StoreError, fresh::Careful};

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) pool: PgPool,
    careful: Arc<Careful>,
}

/// A transaction. Dropped without [`Tx::commit`] it rolls back.
#[derive(Debug)]
pub struct Tx {
    pub(crate) inner: Transaction<'static, Postgres>,
    pub(crate) careful: Arc<Careful>,
}

/// How each connection begins. Compiling a statement takes PostgreSQL longer than any of ours runs: it would be done anew for
/// every batch that the planner holds for large.
fn options() -> PgPoolOptions {
    PgPoolOptions::new().after_connect(|connection, _| {
        Box::pin(async move {
            connection.execute("set jit = off").await?;
            Ok(())
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
        self.begin_with(
            "begin; set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off;
             set local enable_material = off; set local plan_cache_mode = force_generic_plan",
        )
        .await
    }

    async fn begin_with(&self, statement: &'static str) -> Result<Tx, StoreError> {
        // sqlx #4393: a cancelled `begin()` poisons its pooled connection. A task of its own is not cancelled with us.
        let pool = self.pool.clone();
        let inner = tokio::spawn(async move { pool.begin_with(statement).await })
            .await
            .map_err(|_| StoreError::Unavailable(sqlx::Error::WorkerCrashed))??;
        Ok(Tx {
            inner,
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

    pub async fn commit(self) -> Result<(), StoreError> {
        self.inner.commit().await?;
        Ok(())
    }
}
