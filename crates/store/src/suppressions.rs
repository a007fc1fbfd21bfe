//! Phones that must not be written to, by keyed hash: an opt-out outlives the contact's data.

use std::{collections::HashMap, fmt, str::FromStr};

use jiff::Timestamp;

use crate::{StoreError, Tx, time::At};

/// How much a phone is shut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// No marketing (STOP).
    Marketing,
    /// Nothing at all (blocked).
    All,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Marketing => "marketing",
            Scope::All => "all",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self, StoreError> {
        match word {
            "marketing" => Ok(Scope::Marketing),
            "all" => Ok(Scope::All),
            _ => Err(StoreError::Corrupt("a suppression's scope is none of ours".into())),
        }
    }
}

impl Tx {
    /// Which of these phones are shut off, and how much.
    pub async fn suppressions_get(&mut self, hashes: &[Vec<u8>]) -> Result<HashMap<Vec<u8>, Scope>, StoreError> {
        if hashes.is_empty() {
            return Ok(HashMap::new());
        }
        let rows: Vec<(Vec<u8>, String)> =
            sqlx::query_as("select phone_hash, scope from suppressions where phone_hash = any($1)")
                .bind(hashes)
                .fetch_all(&mut *self.inner)
                .await?;
        rows.into_iter()
            .map(|(hash, scope)| Ok((hash, scope.parse()?)))
            .collect()
    }

    /// Shuts a phone off; a wider scope that is there stays.
    pub async fn suppression_put(
        &mut self,
        hash: &[u8],
        scope: Scope,
        source: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.suppressions_put(&[hash], scope, source, now).await
    }

    /// Shuts phones off; a wider scope that is there stays.
    pub async fn suppressions_put<H: AsRef<[u8]>>(
        &mut self,
        hashes: &[H],
        scope: Scope,
        source: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if hashes.is_empty() {
            return Ok(());
        }
        let hashes: Vec<&[u8]> = hashes.iter().map(AsRef::as_ref).collect();
        // In order, so that two of us wait for each other and do not deadlock.
        sqlx::query(
            "insert into suppressions (phone_hash, scope, source, since)
             select distinct phone_hash, $2, $3, $4::timestamptz from unnest($1::bytea[]) as n (phone_hash) order by 1
             on conflict (phone_hash) do update set scope = excluded.scope, source = excluded.source, since = excluded.since
             where suppressions.scope = 'marketing' and excluded.scope = 'all'",
        )
        .bind(&hashes)
        .bind(scope.as_str())
        .bind(source)
        .bind(At(now))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Lets marketing reach a phone again (START); a blocked one stays blocked. `false`: it was not shut off.
    pub async fn suppression_lift(&mut self, hash: &[u8]) -> Result<bool, StoreError> {
        let done = sqlx::query("delete from suppressions where phone_hash = $1 and scope = 'marketing'")
            .bind(hash)
            .execute(&mut *self.inner)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}
