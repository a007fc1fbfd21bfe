//! Whom an expression matches: counted, listed and walked over in PostgreSQL.

mod count;
pub mod properties;
mod sql;

use std::{collections::BTreeMap, sync::Arc};

use domain::{Contact, audience::Expression, contact::MARKETING};
use jiff::Timestamp;
use sqlx::Row;

use self::sql::Sql;
use crate::{
    Store, StoreError, Tx,
    campaigns::{Met, Page, Walk},
    contacts,
};

/// The named audiences that an expression may refer to.
pub type Named = BTreeMap<String, Arc<Expression>>;

/// The properties of events that have an index: (event type, path).
pub(crate) type Indexed = std::collections::BTreeSet<(String, Vec<String>)>;

/// Pages that are read ahead of whoever walks.
const AHEAD: usize = 2;

impl Store {
    /// The contacts that match and come after the id `after`, in id order; `""` for the first page.
    pub async fn audience_page(
        &self,
        expression: &Expression,
        audiences: &Named,
        after: &str,
        limit: i64,
        now: Timestamp,
    ) -> Result<Vec<Contact>, StoreError> {
        let indexed = self.audience_indexed(expression, audiences, now).await?;
        let mut sql = Sql::new(audiences, &indexed, now);
        sql.push("select ")
            .push(contacts::COLUMNS)
            .push(" from ")
            .matching(expression, Some(after));
        sql.push(" order by c.id limit ").bind(limit);
        let (text, arguments) = sql.finish()?;
        let mut tx = self.begin().await?;
        tx.audience_settings("60s").await?;
        let rows = sqlx::query_with(sqlx::AssertSqlSafe(text), arguments)
            .persistent(false)
            .fetch_all(&mut *tx.inner)
            .await?;
        tx.commit().await?;
        rows.iter().map(contacts::read).collect()
    }

    /// Walks over all contacts that match and come after `after`, in id order, `page` at a time: one statement's snapshot,
    /// on a connection of its own for as long as the walk is held. `purpose` is what [`Met::consents`] is about.
    pub async fn audience_walk(
        &self,
        expression: &Expression,
        audiences: &Named,
        after: &str,
        purpose: &str,
        page: usize,
        now: Timestamp,
    ) -> Result<Walk, StoreError> {
        let indexed = self.audience_indexed(expression, audiences, now).await?;
        let mut sql = Sql::new(audiences, &indexed, now);
        sql.push("declare walk no scroll cursor for select c.id, c.phone, ");
        match purpose {
            MARKETING => sql.push("c.marketing_consent is true"),
            other => sql
                .push("coalesce((c.consents ->> ")
                .bind(other.to_owned())
                .push("::text) <> 'false', false)"),
        };
        sql.push(" from ").matching(expression, Some(after));
        sql.push(" order by c.id");
        let (text, arguments) = sql.finish()?;
        let mut tx = self.begin().await?;
        tx.audience_settings("0").await?;
        sqlx::query_with(sqlx::AssertSqlSafe(text), arguments)
            .persistent(false)
            .execute(&mut *tx.inner)
            .await?;
        let (sender, receiver) = tokio::sync::mpsc::channel(AHEAD);
        tokio::spawn(async move {
            loop {
                let fetched = tx.walk_fetch(page).await;
                let over = !matches!(&fetched, Ok(rows) if !rows.is_empty());
                // Nobody walks any more: the transaction ends with this task.
                if sender.send(fetched).await.is_err() || over {
                    return;
                }
            }
        });
        Ok(Walk::new(receiver))
    }

    /// Names of attributes that contacts have, as a sample of them shows.
    pub async fn attribute_names(&self) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "select distinct name from (select attributes from contacts limit 1000) c, jsonb_object_keys(c.attributes) as k (name)
             order by name limit 1000",
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Which of these names no contact has as an attribute.
    pub async fn attributes_unknown(&self, names: &[String]) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "select name from unnest($1::text[]) as n (name)
             where not exists (select from contacts where attributes ? name limit 1)",
        )
        .bind(names)
        .fetch_all(&self.pool)
        .await?)
    }
}

impl Tx {
    /// Memory for hashing a million contacts; contacts joined with their history partition by partition, which are cut
    /// alike; no compiling of plans, which takes longer than it gives; all rows of a cursor are wanted, not the first ones
    /// soon.
    async fn audience_settings(&mut self, timeout: &str) -> Result<(), StoreError> {
        sqlx::query(
            "select set_config('work_mem', '64MB', true), set_config('jit', 'off', true),
                 set_config('enable_partitionwise_join', 'on', true),
                 set_config('enable_partitionwise_aggregate', 'on', true),
                 set_config('cursor_tuple_fraction', '1', true), set_config('statement_timeout', $1, true)",
        )
        .bind(timeout)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    async fn walk_fetch(&mut self, page: usize) -> Result<Page, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("fetch {page} from walk")))
            .fetch_all(&mut *self.inner)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Met {
                    id: row.try_get(0)?,
                    phone: row.try_get(1)?,
                    consents: row.try_get(2)?,
                })
            })
            .collect()
    }
}
