//! What people configured, each with a version that grows when its body changes.

use jiff::Timestamp;
use serde_json::Value;
use sqlx::Row;

use crate::{Store, StoreError, Tx, time::At};

/// A resource as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceRow {
    pub kind: String,
    pub name: String,
    pub version: i64,
    pub body: Value,
    pub updated_at: Timestamp,
    pub updated_by: String,
}

/// What applying made of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Created,
    Updated,
    Unchanged,
}

impl Applied {
    pub fn as_str(self) -> &'static str {
        match self {
            Applied::Created => "created",
            Applied::Updated => "updated",
            Applied::Unchanged => "unchanged",
        }
    }
}

/// The campaigns that are not over and use a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedBy {
    pub campaign: uuid::Uuid,
    pub name: String,
}

const GENERATION: &str = "select generation from resource_generation";

impl Tx {
    /// As [`Store::resources_generation`], of what is committed now.
    pub async fn resources_generation(&mut self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar(GENERATION).fetch_one(&mut *self.inner).await?)
    }

    /// Keeps everybody else from changing resources until this transaction ends: references are checked against what
    /// nobody is changing.
    pub async fn resources_lock(&mut self) -> Result<(), StoreError> {
        sqlx::query("select pg_advisory_xact_lock(hashtext('tamtam.resources'))")
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// All resources, as this transaction sees them.
    pub async fn resources_all(&mut self) -> Result<Vec<ResourceRow>, StoreError> {
        let rows =
            sqlx::query("select kind, name, version, body, updated_at, updated_by from resources order by kind, name")
                .fetch_all(&mut *self.inner)
                .await?;
        rows.iter().map(read).collect()
    }

    pub async fn resource_body(&mut self, kind: &str, name: &str) -> Result<Option<Value>, StoreError> {
        let body = sqlx::query_scalar("select body from resources where kind = $1 and name = $2")
            .bind(kind)
            .bind(name)
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(body)
    }

    /// Removes a resource; `false` where there is none.
    pub async fn resource_delete(&mut self, kind: &str, name: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("delete from resources where kind = $1 and name = $2")
            .bind(kind)
            .bind(name)
            .execute(&mut *self.inner)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// A campaign that is not over and uses this template (or audience), if any does.
    pub async fn resource_in_campaign(&mut self, kind: &str, name: &str) -> Result<Option<UsedBy>, StoreError> {
        let row: Option<(uuid::Uuid, String)> = sqlx::query_as(
            "select id, name from campaigns
             where state in ('scheduled', 'running', 'paused')
               and case $1 when 'template' then template = $2 when 'audience' then audience = $2 else false end
             order by created_at limit 1",
        )
        .bind(kind)
        .bind(name)
        .fetch_optional(&mut *self.inner)
        .await?;
        Ok(row.map(|(campaign, name)| UsedBy { campaign, name }))
    }

    /// Writes a set of (kind, name, body); the answer is in the same order. All or none: the caller's transaction.
    pub async fn resources_apply(
        &mut self,
        resources: &[(String, String, Value)],
        by: &str,
        now: Timestamp,
    ) -> Result<Vec<Applied>, StoreError> {
        self.resources_lock().await?;
        let mut answers = Vec::with_capacity(resources.len());
        for (kind, name, body) in resources {
            let inserted = sqlx::query(
                "insert into resources (kind, name, version, body, updated_at, updated_by) values ($1, $2, 1, $3, $4, $5)
                 on conflict (kind, name) do nothing",
            )
            .bind(kind)
            .bind(name)
            .bind(body)
            .bind(At(now))
            .bind(by)
            .execute(&mut *self.inner)
            .await?;
            if inserted.rows_affected() == 1 {
                answers.push(Applied::Created);
                continue;
            }
            // `is distinct from` on jsonb compares values, not spelling.
            let updated = sqlx::query(
                "update resources set version = version + 1, body = $3, updated_at = $4, updated_by = $5
                 where kind = $1 and name = $2 and body is distinct from $3",
            )
            .bind(kind)
            .bind(name)
            .bind(body)
            .bind(At(now))
            .bind(by)
            .execute(&mut *self.inner)
            .await?;
            answers.push(match updated.rows_affected() {
                0 => Applied::Unchanged,
                _ => Applied::Updated,
            });
        }
        Ok(answers)
    }
}

impl Store {
    /// All resources, by kind and name.
    pub async fn resources_list(&self) -> Result<Vec<ResourceRow>, StoreError> {
        let rows =
            sqlx::query("select kind, name, version, body, updated_at, updated_by from resources order by kind, name")
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(read).collect()
    }

    pub async fn resource_get(&self, kind: &str, name: &str) -> Result<Option<ResourceRow>, StoreError> {
        let row = sqlx::query(
            "select kind, name, version, body, updated_at, updated_by from resources where kind = $1 and name = $2",
        )
        .bind(kind)
        .bind(name)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// A number that grows whenever a resource is made, changed or deleted.
    pub async fn resources_generation(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar(GENERATION).fetch_one(&self.pool).await?)
    }
}

fn read(row: &sqlx::postgres::PgRow) -> Result<ResourceRow, StoreError> {
    Ok(ResourceRow {
        kind: row.try_get("kind")?,
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        body: row.try_get("body")?,
        updated_at: row.try_get::<At, _>("updated_at")?.0,
        updated_by: row.try_get("updated_by")?,
    })
}
