//! Phones that must not be written to, by keyed hash: an opt-out outlives the contact's data.
//!
//! A phone has one row, of the widest scope. Where a block lies over a STOP the row remembers the STOP: when the block is
//! lifted, what the phone's owner said still holds.

use std::{collections::HashMap, fmt, str::FromStr};

use jiff::Timestamp;

use crate::{
    Store, StoreError, Tx,
    time::{At, at},
};

/// A line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    pub phone_hash: Vec<u8>,
    pub scope: Scope,
    /// `reply`, `reply-review`, `erased`, or what whoever entered it said.
    pub source: String,
    pub since: Timestamp,
    /// Who entered it; absent where nobody did by hand.
    pub recorded_by: Option<String>,
}

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
        self.suppressions_enter(hashes, scope, source, None, now).await?;
        Ok(())
    }

    /// The same by somebody's hand; how many phones are shut off more than they were.
    pub async fn suppressions_enter<H: AsRef<[u8]>>(
        &mut self,
        hashes: &[H],
        scope: Scope,
        source: &str,
        by: Option<&str>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let hashes: Vec<&[u8]> = hashes.iter().map(AsRef::as_ref).collect();
        // In order, so that two of us wait for each other and do not deadlock. What does not widen a row changes nothing, but
        // a STOP under a block is remembered.
        let done = sqlx::query(
            "insert into suppressions as s (phone_hash, scope, source, since, recorded_by)
             select distinct phone_hash, $2, $3, $4::timestamptz, $5 from unnest($1::bytea[]) as n (phone_hash) order by 1
             on conflict (phone_hash) do update set
                 scope = 'all',
                 stop_source = case s.scope when 'all' then excluded.source else s.source end,
                 stop_since = case s.scope when 'all' then excluded.since else s.since end,
                 source = case s.scope when 'all' then s.source else excluded.source end,
                 since = case s.scope when 'all' then s.since else excluded.since end,
                 recorded_by = case s.scope when 'all' then s.recorded_by else excluded.recorded_by end
             where (s.scope = 'marketing' and excluded.scope = 'all')
                or (s.scope = 'all' and excluded.scope = 'marketing' and s.stop_source is null)",
        )
        .bind(&hashes)
        .bind(scope.as_str())
        .bind(source)
        .bind(At(now))
        .bind(by)
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected())
    }

    /// Lifts a scope from phones; of how many. A block that is lifted leaves the STOP that lay under it.
    pub async fn suppressions_remove(&mut self, hashes: &[Vec<u8>], scope: Scope) -> Result<u64, StoreError> {
        if hashes.is_empty() {
            return Ok(0);
        }
        // In order, so that two of us wait for each other and do not deadlock.
        sqlx::query("select 1 from suppressions where phone_hash = any($1) order by phone_hash for update")
            .bind(hashes)
            .execute(&mut *self.inner)
            .await?;
        let statements: &[&str] = match scope {
            Scope::Marketing => &[
                "delete from suppressions where phone_hash = any($1) and scope = 'marketing'",
                "update suppressions set stop_source = null, stop_since = null
                 where phone_hash = any($1) and scope = 'all' and stop_source is not null",
            ],
            Scope::All => &[
                "delete from suppressions where phone_hash = any($1) and scope = 'all' and stop_source is null",
                "update suppressions set scope = 'marketing', source = stop_source, since = stop_since, recorded_by = null,
                     stop_source = null, stop_since = null
                 where phone_hash = any($1) and scope = 'all'",
            ],
        };
        let mut lifted = 0;
        for statement in statements {
            let done = sqlx::query(*statement).bind(hashes).execute(&mut *self.inner).await?;
            lifted += done.rows_affected();
        }
        Ok(lifted)
    }

    /// Takes a STOP back (START); a blocked phone stays blocked. `false`: there was none.
    pub async fn suppression_lift(&mut self, hash: &[u8]) -> Result<bool, StoreError> {
        Ok(self.suppressions_remove(&[hash.to_vec()], Scope::Marketing).await? == 1)
    }
}

impl Store {
    /// A page of the list, the newest first; the next page begins after its last line: (since, hash).
    pub async fn suppressions_page(
        &self,
        after: Option<(Timestamp, Vec<u8>)>,
        limit: i64,
    ) -> Result<Vec<Suppression>, StoreError> {
        type Row = (Vec<u8>, String, String, At, Option<String>);
        let (since, hash) = after.unzip();
        let rows: Vec<Row> = sqlx::query_as(
            "select phone_hash, scope, source, since, recorded_by from suppressions
             where $1::timestamptz is null or since < $1 or (since = $1 and phone_hash > $2)
             order by since desc, phone_hash limit $3",
        )
        .bind(at(since))
        .bind(hash)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(phone_hash, scope, source, since, recorded_by)| {
                Ok(Suppression {
                    phone_hash,
                    scope: scope.parse()?,
                    source,
                    since: since.0,
                    recorded_by,
                })
            })
            .collect()
    }
}
