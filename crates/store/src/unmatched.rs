//! Receipts without a part: they came before it, or match nothing. Joined when their part appears, shown till then.
//!
//! Whoever writes a part takes its receipts from `callbacks_unmatched` in the same transaction. One gap is left: the
//! receipt's transaction looks for the part before the part is committed and commits after the part's transaction looked
//! for it. [`Tx::callbacks_unmatched_ripe`], asked now and then, closes it. Where no part comes, because the outcome is
//! unknown, our own reference places the receipt ([`Tx::callbacks_unmatched_referred`]).
//!
//! A receipt's id may have been written in several forms, the likeliest first: of the forms that have a part the first one
//! counts, and of several receipts that could be one part's, that which has its id in the likeliest form. A receipt that
//! bears our reference never finds another message's part.

use domain::State;
use jiff::{SignedDuration, Timestamp};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    Store, StoreError, Tx,
    messages::foreign,
    parts::{PartState, match_id},
    time::{At, at},
};

/// A receipt without its part.
#[derive(Clone, Debug, PartialEq)]
pub struct Unmatched {
    /// From topic, partition and offset.
    pub id: Uuid,
    pub gateway: String,
    /// Its id, as the gateway said it.
    pub remote_id: String,
    /// The forms that the id may have had in the gateway's answer, the likeliest first. Of a receipt that found its part:
    /// the form of the part.
    pub match_ids: Vec<String>,
    /// `None`: a word that we do not know; it is in `code`.
    pub state: Option<State>,
    pub code: Option<String>,
    pub at: Timestamp,
    pub received_at: Timestamp,
    /// Our own reference, where it bore one: it is no other message's.
    pub reference: Option<Uuid>,
    /// Whether the reference may settle the message, where no part does.
    pub waits: bool,
}

impl Unmatched {
    /// What it says of its part.
    pub fn part_state(&self) -> Option<PartState> {
        Some(PartState {
            gateway: self.gateway.clone(),
            match_id: self.match_ids.first()?.clone(),
            state: self.state?,
            code: self.code.clone(),
            at: self.at,
        })
    }

    /// What its part keeps of a word that we do not know: gateway, id and word.
    pub fn note(&self) -> Option<(String, String, String)> {
        let id = self.match_ids.first().filter(|_| self.state.is_none())?;
        let code = self.code.clone().unwrap_or_default();
        Some((self.gateway.clone(), id.clone(), code))
    }
}

/// Where a message stands whose receipt our own reference may place, without a part: nothing is known of its outcome, or the
/// gateway gave other ids in its answer than in its receipts.
pub const SETTLED_BY_REFERENCE: [State; 2] = [State::Unknown, State::Accepted];

impl Tx {
    /// Keeps receipts whose part is not known (yet); one that is kept already stays.
    pub async fn callbacks_unmatched_put(&mut self, receipts: &[Unmatched]) -> Result<(), StoreError> {
        let mut rows: Vec<(&Unmatched, String, i16)> = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            let first = rows.len();
            for (id, place) in receipt.match_ids.iter().zip(0..) {
                let form = match_id(&foreign(id));
                // Two forms may be the same to whoever compares: the first of them is kept.
                if rows[first..].iter().all(|(_, known, _)| *known != form) {
                    rows.push((receipt, form, place));
                }
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let states: Vec<Option<i16>> = rows.iter().map(|row| row.0.state.map(State::code)).collect();
        let codes: Vec<Option<String>> = rows.iter().map(|row| row.0.code.as_deref().map(foreign)).collect();
        sqlx::query(
            "insert into callbacks_unmatched (id, gateway, match_id, state, code, at, received_at, reference, remote_id,
                 place, waits)
             select * from unnest($1::uuid[], $2::text[], $3::text[], $4::int2[], $5::text[], $6::timestamptz[],
                                  $7::timestamptz[], $8::uuid[], $9::text[], $10::int2[], $11::bool[])
             on conflict do nothing",
        )
        .bind(rows.iter().map(|row| row.0.id).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.0.gateway.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.1.as_str()).collect::<Vec<_>>())
        .bind(states)
        .bind(codes)
        .bind(rows.iter().map(|row| At(row.0.at)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| At(row.0.received_at)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.0.reference).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| foreign(&row.0.remote_id)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.2).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.0.waits).collect::<Vec<_>>())
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Takes the receipts that wait for one of these (gateway, match id), whose parts are written, in the order in which
    /// they came. One whose id has a part in a likelier form stays for that one.
    pub async fn callbacks_unmatched_take(&mut self, keys: &[(String, String)]) -> Result<Vec<Unmatched>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let gateways: Vec<&str> = keys.iter().map(|key| key.0.as_str()).collect();
        let match_ids: Vec<&str> = keys.iter().map(|key| key.1.as_str()).collect();
        // Mostly there is none.
        let found: Vec<Uuid> = sqlx::query_scalar(
            "select distinct u.id from unnest($1::text[], $2::text[]) as v (gateway, match_id) cross join lateral (
                 select id from callbacks_unmatched u where u.gateway = v.gateway and u.match_id = v.match_id offset 0
             ) u",
        )
        .bind(&gateways)
        .bind(&match_ids)
        .fetch_all(&mut *self.inner)
        .await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        // There may be as many as were asked for. A transaction by key joins row by row, which would be their square: so what
        // belongs together is brought together by sorting, and in the end by looking it up in one object.
        let rows = sqlx::query(
            "with best as (
                 select distinct on (u.id) u.id, u.gateway, u.match_id, u.place
                 from unnest($3::uuid[]) as f (id) cross join lateral (
                     select * from callbacks_unmatched u where u.id = f.id offset 0
                 ) u cross join lateral (
                     select from message_parts p where p.gateway = u.gateway and p.match_id = u.match_id
                       and (u.reference is null or p.message_id = u.reference) offset 0
                 ) p order by u.id, u.place
             ), ripe as (
                 select id, match_id from (
                     select id, match_id, place, min(place) over form as first, bool_or(is_asked) over form as is_asked
                     from (
                         select id, gateway, match_id, place, false as is_asked from best
                         union all
                         select null, gateway, match_id, null, true from unnest($1::text[], $2::text[]) as v (gateway, match_id)
                     ) b
                     window form as (partition by gateway, match_id)
                 ) b
                 where id is not null and is_asked and place = first
             ), gone as (
                 delete from callbacks_unmatched where id = any(array(select id from ripe)) returning *
             )
             select g.* from gone g
             where g.match_id = (select jsonb_object_agg(id, match_id) from ripe) ->> g.id::text
             order by g.received_at, g.id",
        )
        .bind(&gateways)
        .bind(&match_ids)
        .bind(&found)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(in_one_form).collect()
    }

    /// Takes receipts whose part has come in the meantime, up to `limit`, of those that were kept within `within` (for so
    /// long two transactions may have missed each other).
    pub async fn callbacks_unmatched_ripe(
        &mut self,
        within: SignedDuration,
        limit: i64,
    ) -> Result<Vec<Unmatched>, StoreError> {
        let keys: Vec<(String, String)> = sqlx::query_as(
            "select u.gateway, u.match_id from callbacks_unmatched u cross join lateral (
                 select from message_parts p where p.gateway = u.gateway and p.match_id = u.match_id
                   and (u.reference is null or p.message_id = u.reference) offset 0
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
                 where u.waits and u.kept_at <= now() - make_interval(secs => $3)
                 order by u.received_at limit $1
             ), gone as (
                 delete from callbacks_unmatched where id = any(array(select id from ripe)) returning *
             )
             select id, gateway, array_agg(match_id order by place) as match_ids, state, code, at, received_at, reference,
                 waits, coalesce(max(remote_id), min(match_id)) as remote_id
             from gone group by id, gateway, state, code, at, received_at, reference, waits order by received_at, id",
        )
        .bind(limit)
        .bind(SETTLED_BY_REFERENCE.map(State::code).to_vec())
        .bind(kept_for.as_secs_f64())
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(|row| read(row, row.try_get("match_ids")?)).collect()
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

impl Store {
    /// Receipts that have found no part, each once, the newest first: those that came from `since` on, of one gateway or of
    /// all.
    pub async fn unmatched_list(
        &self,
        since: Option<Timestamp>,
        gateway: Option<&str>,
        limit: i64,
    ) -> Result<Vec<Unmatched>, StoreError> {
        // Every receipt has one form in the first place.
        let rows = sqlx::query(
            "select * from callbacks_unmatched
             where place = 0 and ($1::timestamptz is null or received_at >= $1) and ($2::text is null or gateway = $2)
             order by received_at desc, id limit $3",
        )
        .persistent(false)
        .bind(at(since))
        .bind(gateway)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(in_one_form).collect()
    }
}

fn in_one_form(row: &PgRow) -> Result<Unmatched, StoreError> {
    read(row, vec![row.try_get("match_id")?])
}

fn read(row: &PgRow, match_ids: Vec<String>) -> Result<Unmatched, StoreError> {
    let state: Option<i16> = row.try_get("state")?;
    let state = state.map(|code| {
        State::from_code(code).ok_or_else(|| StoreError::Corrupt("an unmatched receipt's state is none of ours".into()))
    });
    let remote_id: Option<String> = row.try_get("remote_id")?;
    Ok(Unmatched {
        id: row.try_get("id")?,
        gateway: row.try_get("gateway")?,
        remote_id: remote_id.or_else(|| match_ids.first().cloned()).unwrap_or_default(),
        match_ids,
        state: state.transpose()?,
        code: row.try_get("code")?,
        at: row.try_get::<At, _>("at")?.0,
        received_at: row.try_get::<At, _>("received_at")?.0,
        reference: row.try_get("reference")?,
        waits: row.try_get("waits")?,
    })
}
