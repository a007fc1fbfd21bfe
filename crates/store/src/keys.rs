//! API keys: only their hashes are kept.

use jiff::Timestamp;
use sqlx::Row;
use uuid::Uuid;

use crate::{Store, StoreError, time::At};

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRow {
    pub id: Uuid,
    pub name: String,
    pub role: String,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

impl Store {
    /// Keeps a key; `false` where the name or the hash is taken already.
    pub async fn key_insert(
        &self,
        id: Uuid,
        name: &str,
        hash: &[u8],
        role: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "insert into api_keys (id, name, hash, role, created_at) values ($1, $2, $3, $4, $5) on conflict do nothing",
        )
        .bind(id)
        .bind(name)
        .bind(hash)
        .bind(role)
        .bind(At(now))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The key with this hash, revoked or not.
    pub async fn key_by_hash(&self, hash: &[u8]) -> Result<Option<KeyRow>, StoreError> {
        let row = sqlx::query("select id, name, role, created_at, revoked_at from api_keys where hash = $1")
            .bind(hash)
            .fetch_optional(&self.pool)
            .await?;
        row.map(read).transpose()
    }

    /// All keys, the newest first.
    pub async fn keys_list(&self) -> Result<Vec<KeyRow>, StoreError> {
        sqlx::query(
            "select id, name, role, created_at, revoked_at from api_keys order by created_at desc, name limit 1000",
        )
        .fetch_all(&self.pool)
        .await?
        .into_iter()
        .map(read)
        .collect()
    }

    /// Revokes a key; `false` where there is none. The first revocation's time stays.
    pub async fn key_revoke(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        let done = sqlx::query("update api_keys set revoked_at = coalesce(revoked_at, $2) where id = $1")
            .bind(id)
            .bind(At(now))
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}

fn read(row: sqlx::postgres::PgRow) -> Result<KeyRow, StoreError> {
    Ok(KeyRow {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        role: row.try_get("role")?,
        created_at: row.try_get::<At, _>("created_at")?.0,
        revoked_at: row.try_get::<Option<At>, _>("revoked_at")?.map(|at| at.0),
    })
}
