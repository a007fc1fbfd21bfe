//! Secrets of this installation, made at their first use and kept for good.

use domain::phone::PhoneKey;
use sqlx::Row;

use crate::{Store, StoreError};

impl Store {
    /// The key of the phone hash.
    pub async fn phone_key(&self) -> Result<PhoneKey, StoreError> {
        Ok(PhoneKey::new(&self.installation_secret("phone-key").await?))
    }

    /// 256 random bits under `name`; the first who asks has them made, and everybody gets the same.
    pub async fn installation_secret(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        // Two version 4 UUIDs are 244 bits of PostgreSQL's strong randomness; hashed to 256.
        sqlx::query(
            "insert into installation (name, value)
             values ($1, sha256((gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text)::bytea))
             on conflict (name) do nothing",
        )
        .bind(name)
        .execute(&self.pool)
        .await?;
        let row = sqlx::query("select value from installation where name = $1")
            .bind(name)
            .fetch_one(&self.pool)
            .await?;
        Ok(row.try_get("value")?)
    }
}
