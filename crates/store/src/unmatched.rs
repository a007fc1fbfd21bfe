//! Receipts without a part: they came before it, or match nothing. Joined when their part appears, shown till then.
//!
//! Whoever writes a part takes its receipts from `callbacks_unmatched` in the same transaction. One gap is left: the
//! receipt's transaction looks for the part before the part is committed and commits after the part's transaction looked
//! for it. [`Tx::callbacks_unmatched_ripe`], asked now and then, closes it. Where no part comes, because the outcome is
//! unknown, our own reference places the receipt ([`Tx::callbacks_unmatched_referred`]).

use std::collections::HashSet;

use domain::State;
use jiff::{SignedDuration, Timestamp};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    StoreError, Tx,
    messages::foreign,
    parts::{PartState, match_id},
    time::At,
};

/// A receipt without its part.
#[derive(Clone, Debug, PartialEq)]
pub struct Unmatched {
    /// From topic, partition and offset.
    pub id: Uuid,
    pub gateway: String,
    /// The forms that its id may have.
    pub match_ids: Vec<String>,
    pub state: State,
    pub code: Option<String>,
    pub at: Timestamp,
    pub received_at: Timestamp,
    /// Our own reference, where it may settle the message.
    pub reference: Option<Uuid>,
}

/// Where a message stands whose receipt our own reference may place, without a part: nothing is known of its outcome, or the
/// gateway gave other ids in its answer than in its receipts.
pub const SETTLED_BY_REFERENCE: [State; 2] = [State::Unknown, State::Accepted];

impl Tx {
    /// Keeps receipts whose part is not known (yet); one that is kept already stays.
    pub async fn callbacks_unmatched_put(&mut self, receipts: &[Unmatched]) -> Result<(), StoreError> {
        let rows: Vec<(&Unmatched, String)> = receipts
            .iter()
            .flat_map(|receipt| {
                receipt
                    .match_ids
                    .iter()
                    .map(move |id| (receipt, match_id(&foreign(id))))
            })
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into callbacks_unmatched (id, gateway, match_id, state, code, at, received_at, reference)
             select * from unnest($1::uuid[], $2::text[], $3::text[], $4::int2[], $5::text[], $6::timestamptz[],
                                  $7::timestamptz[], $8::uuid[])
             on conflict do nothing",
        )
        .bind(rows.iter().map(|row| row.0.id).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.0.gateway.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.1.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.0.state.code()).collect::<Vec<_>>())
        .bind(
            rows.iter()
                .map(|row| row.0.code.as_deref().map(foreign))
                .collect::<Vec<_>>(),
        )
        .bind(rows.iter().map(|row| At(row.0.at)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| At(row.0.received_at)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.0.reference).collect::<Vec<_>>())
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Takes the receipts that wait for one of these (gateway, match id), in all their forms, in the order in which they
    /// came; beside each, when it came.
    pub async fn callbacks_unmatched_take(
        &mut self,
        keys: &[(String, String)],
    ) -> Result<Vec<(PartState, Timestamp)>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(
            "with found as (
                 select distinct u.id from unnest($1::text[], $2::text[]) as v (gateway, match_id) cross join lateral (
                     select id from callbacks_unmatched u where u.gateway = v.gateway and u.match_id = v.match_id offset 0
                 ) u
             ), gone as (
                 delete from callbacks_unmatched where id = any(array(select id from found))
                 returning id, gateway, match_id, state, code, at, received_at
             )
             select * from gone order by received_at, id",
        )
        .bind(keys.iter().map(|key| key.0.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.1.as_str()).collect::<Vec<_>>())
        .fetch_all(&mut *self.inner)
        .await?;
        let asked: HashSet<(&str, &str)> = keys.iter().map(|key| (key.0.as_str(), key.1.as_str())).collect();
        // All its forms are gone; it is told in the one that was asked for.
        rows.iter()
            .map(unmatched)
            .filter(|row| {
                let part = row
                    .as_ref()
                    .map(|(part, _)| (part.gateway.as_str(), part.match_id.as_str()));
                part.map_or(true, |key| asked.contains(&key))
            })
            .collect()
    }

    /// Takes receipts whose part has come in the meantime, up to `limit`, of those that were kept within `within` (for so
    /// long two transactions may have missed each other).
    pub async fn callbacks_unmatched_ripe(
        &mut self,
        within: SignedDuration,
        limit: i64,
    ) -> Result<Vec<(PartState, Timestamp)>, StoreError> {
        let keys: Vec<(String, String)> = sqlx::query_as(
            "select u.gateway, u.match_id from callbacks_unmatched u cross join lateral (
                 select from message_parts p where p.gateway = u.gateway and p.match_id = u.match_id offset 0
             ) p
             where u.kept_at > now() - make_interval(secs => $2)
             order by u.received_at limit $1",
        )
        .bind(limit)
        .bind(within.as_secs_f64())
        .fetch_all(&mut *self.inner)
        .await?;
        self.callbacks_unmatched_take(&keys).await
    }

    /// Takes receipts whose reference is that of a message that can be settled by it: its outcome is unknown, or it was
    /// accepted under another id than the receipt's. Up to `limit`, of those that have been kept for `kept_for`: whatever
    /// finds its part is gone by then.
    pub async fn callbacks_unmatched_referred(
        &mut self,
        kept_for: SignedDuration,
        limit: i64,
    ) -> Result<Vec<Unmatched>, StoreError> {
        let rows = sqlx::query(
            "with ripe as (
                 select u.id from callbacks_unmatched u cross join lateral (
                     select from messages m where m.message_id = u.reference and m.state = any($2) offset 0
                 ) m
                 where u.reference is not null and u.kept_at <= now() - make_interval(secs => $3)
                 order by u.received_at limit $1
             ), gone as (
                 delete from callbacks_unmatched where id = any(array(select id from ripe)) returning *
             )
             select id, gateway, array_agg(match_id order by match_id) as match_ids, state, code, at, received_at, reference
             from gone group by id, gateway, state, code, at, received_at, reference order by received_at, id",
        )
        .bind(limit)
        .bind(SETTLED_BY_REFERENCE.map(State::code).to_vec())
        .bind(kept_for.as_secs_f64())
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter()
            .map(|row| {
                let (state, received_at) = unmatched_state(row)?;
                Ok(Unmatched {
                    id: row.try_get("id")?,
                    gateway: row.try_get("gateway")?,
                    match_ids: row.try_get("match_ids")?,
                    state,
                    code: row.try_get("code")?,
                    at: row.try_get::<At, _>("at")?.0,
                    received_at,
                    reference: row.try_get("reference")?,
                })
            })
            .collect()
    }

    /// Forgets receipts that were kept before `before` and never found their message; how many.
    pub async fn callbacks_unmatched_drop(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query("delete from callbacks_unmatched where kept_at < $1")
            .bind(At(before))
            .execute(&mut *self.inner)
            .await?;
        Ok(done.rows_affected())
    }
}

fn unmatched(row: &PgRow) -> Result<(PartState, Timestamp), StoreError> {
    let (state, received_at) = unmatched_state(row)?;
    let part = PartState {
        gateway: row.try_get("gateway")?,
        match_id: row.try_get("match_id")?,
        state,
        code: row.try_get("code")?,
        at: row.try_get::<At, _>("at")?.0,
    };
    Ok((part, received_at))
}

fn unmatched_state(row: &PgRow) -> Result<(State, Timestamp), StoreError> {
    let state = State::from_code(row.try_get("state")?)
        .ok_or_else(|| StoreError::Corrupt("an unmatched receipt's state is none of ours".into()))?;
    Ok((state, row.try_get::<At, _>("received_at")?.0))
}
