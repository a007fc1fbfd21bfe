//! Indexes on what audiences ask of events' properties.
//!
//! `did order.placed(category = "shoes")` is fast with an index on that property of those events, and any index costs
//! something at every event. So none is there before somebody asks: a question notes its properties, and whoever keeps
//! the indexes (the segmenter) makes them beside the running work, and drops those nobody asks for any more.
//!
//! An index is made partition by partition, without holding up writers. Died in between, it is invalid, and made again.

use std::time::Duration;

use domain::audience::Expression;
use jiff::{SignedDuration, Timestamp};
use sqlx::{Connection as _, PgConnection};

use super::{Indexed, Named};
use crate::{Store, StoreError, time::At};

/// Indexes at the same time: each costs writing the events of its type.
const MOST: i64 = 16;
/// Nobody asked for so long: the index goes.
const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);
/// One keeper at a time, by this advisory lock.
const LOCK: i64 = 0x7461_6d74_616d_0020;
/// Where a property is looked for before it gets an index: the latest events of its type.
const LOOKED_AT: i64 = 10_000;

impl Store {
    /// The properties that `expression` compares with texts and that have an index; what is asked for is noted.
    pub(crate) async fn audience_indexed(
        &self,
        expression: &Expression,
        audiences: &Named,
        now: Timestamp,
    ) -> Result<Indexed, StoreError> {
        let asked = expression.equal_properties_with(&|name| audiences.get(name).cloned());
        if asked.is_empty() {
            return Ok(Indexed::new());
        }
        let mut indexed = Indexed::new();
        let mut connection = self.pool.acquire().await?;
        let kinds: Vec<&str> = asked.iter().map(|(kind, _)| kind.as_str()).collect();
        let known: Vec<(String, Vec<String>, bool, bool)> = sqlx::query_as(
            "select type, path, built_at is not null, asked_at > $2::timestamptz - interval '1 hour'
             from audience_properties where type = any($1)",
        )
        .bind(&kinds)
        .bind(At(now))
        .fetch_all(&mut *connection)
        .await?;
        let mut unnoted = asked.clone();
        for (kind, path, built, lately) in known {
            let property = (kind, path);
            if lately {
                unnoted.remove(&property);
            }
            if built && asked.contains(&property) {
                indexed.insert(property);
            }
        }
        for (kind, path) in unnoted {
            sqlx::query(
                "insert into audience_properties (type, path, asked_at) values ($1, $2, $3)
                 on conflict (type, path) do update set asked_at = greatest(audience_properties.asked_at, excluded.asked_at)",
            )
            .bind(kind)
            .bind(path)
            .bind(At(now))
            .execute(&mut *connection)
            .await?;
        }
        Ok(indexed)
    }

    /// Makes one index that is asked for, and drops those that are not any more, unless somebody else is at it. `least`:
    /// of fewer events of a type an index is of no use. Whether there was something to make.
    pub async fn audience_properties_keep(&self, now: Timestamp, least: i64) -> Result<bool, StoreError> {
        let mut connection = self.pool.acquire().await?;
        if next(&mut connection, least).await?.is_none() && old(&mut connection, now).await?.is_empty() {
            return Ok(false);
        }
        // A connection of its own: the lock lives as long as it does.
        let mut connection = connection.detach();
        sqlx::query("select set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false)")
            .execute(&mut connection)
            .await?;
        let ours: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut connection)
            .await?;
        let made = match ours {
            true => keep(&mut connection, now, least).await,
            false => Ok(false),
        };
        connection.close().await?;
        made
    }
}

async fn keep(connection: &mut PgConnection, now: Timestamp, least: i64) -> Result<bool, StoreError> {
    for id in old(connection, now).await? {
        // First nobody counts on it any more, then it goes.
        sqlx::query("update audience_properties set built_at = null where id = $1")
            .bind(id)
            .execute(&mut *connection)
            .await?;
        for partition in partitions(connection).await? {
            run(
                connection,
                "select format('drop index concurrently if exists %I', $1 || '_property_' || $2)",
                &partition,
                id,
            )
            .await?;
        }
        sqlx::query("delete from audience_properties where id = $1")
            .bind(id)
            .execute(&mut *connection)
            .await?;
    }
    let Some(id) = next(connection, least).await? else {
        return Ok(false);
    };
    for partition in partitions(connection).await? {
        let invalid: bool = sqlx::query_scalar(
            "select exists (select from pg_index i join pg_class c on c.oid = i.indexrelid
                            where c.relname = $1 || '_property_' || $2 and not i.indisvalid)",
        )
        .bind(&partition)
        .bind(id)
        .fetch_one(&mut *connection)
        .await?;
        if invalid {
            run(
                connection,
                "select format('drop index concurrently if exists %I', $1 || '_property_' || $2)",
                &partition,
                id,
            )
            .await?;
        }
        // The type is the index's condition and not in it: what a condition implies is not looked up.
        run(
            connection,
            "select format('create index concurrently if not exists %I on %I (audience_key(audience_text(data%s)), time) where type = %L',
                           $1 || '_property_' || p.id, $1,
                           (select string_agg(format(' -> %L', name), '' order by place) from unnest(p.path) with ordinality n (name, place)),
                           p.type)
             from audience_properties p where p.id = $2",
            &partition,
            id,
        )
        .await?;
        // Of an expression nothing is known before it is looked at.
        run(
            connection,
            "select format('analyze %I', $1) where $2 > 0",
            &partition,
            id,
        )
        .await?;
    }
    sqlx::query("update audience_properties set built_at = $2 where id = $1")
        .bind(id)
        .bind(At(now))
        .execute(&mut *connection)
        .await?;
    Ok(true)
}

/// The properties that nobody asks for any more.
async fn old(connection: &mut PgConnection, now: Timestamp) -> Result<Vec<i32>, StoreError> {
    let since = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
    Ok(
        sqlx::query_scalar("select id from audience_properties where asked_at < $1")
            .bind(At(since))
            .fetch_all(connection)
            .await?,
    )
}

/// The property that is next to get an index.
async fn next(connection: &mut PgConnection, least: i64) -> Result<Option<i32>, StoreError> {
    Ok(sqlx::query_scalar(
        "select p.id from audience_properties p
         where p.built_at is null
           and (select count(*) from audience_properties where built_at is not null) < $1
           and (select count(*) from (select from history h where h.type = p.type limit $2) h) >= $2
           and exists (select from (select data from history h where h.type = p.type order by h.time desc limit $3) h
                       where jsonb_typeof(h.data #> p.path) = 'string')
         order by p.id limit 1",
    )
    .bind(MOST)
    .bind(least)
    .bind(LOOKED_AT)
    .fetch_optional(connection)
    .await?)
}

async fn partitions(connection: &mut PgConnection) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar(
        "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = 'history'::regclass order by 1",
    )
    .fetch_all(connection)
    .await?)
}

/// Runs the statement that `text` makes of a partition and a property: PostgreSQL itself quotes what stands in it.
async fn run(
    connection: &mut PgConnection,
    text: &'static str,
    partition: &str,
    property: i32,
) -> Result<(), StoreError> {
    let statement: String = sqlx::query_scalar(text)
        .bind(partition)
        .bind(property)
        .fetch_one(&mut *connection)
        .await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(connection)
        .await?;
    Ok(())
}

/// How often the keeper looks.
pub const LOOK: Duration = Duration::from_secs(5);
/// Of fewer events of a type an index is of no use.
pub const LEAST: i64 = 50_000;
