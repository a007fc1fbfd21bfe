//! Reading and writing rows of the ledger in batches: insert, lock, update, one statement each.

use std::collections::{HashMap, HashSet};

use domain::{Cause, Class, State};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::MessageRow;
use crate::{
    StoreError, Tx,
    time::{At, at, from_at},
};

pub(crate) type Key = (String, Uuid);

pub(crate) const COLUMNS: &str = "m.contact_id, m.message_id, m.class, m.state, m.reason, m.gateway_code,
    m.campaign_id, m.trigger, m.event_source, m.event_id, m.idempotency_key, m.template, m.variant, m.encoding, m.parts,
    m.cost_micros, m.phone_hash, m.gateway, m.owner, m.epoch, m.attempt, m.caused_at, m.planned_at, m.rendered_at,
    m.claimed_at, m.accepted_at, m.settled_at, m.changed_at, m.decided_by, m.purpose, m.traceparent";

pub(crate) fn class_code(class: Class) -> i16 {
    match class {
        Class::Transactional => 0,
        Class::Marketing => 1,
    }
}

pub(crate) fn read(row: &PgRow) -> Result<MessageRow, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("a message's {what} is none of ours"));
    let time = |name: &str| -> Result<_, sqlx::Error> { Ok(from_at(row.try_get::<Option<At>, _>(name)?)) };
    let campaign: Option<Uuid> = row.try_get("campaign_id")?;
    let trigger: Option<String> = row.try_get("trigger")?;
    let cause = match (campaign, trigger) {
        (Some(id), _) => Cause::Campaign {
            campaign_id: id.hyphenated().to_string(),
        },
        (None, Some(trigger)) => Cause::Trigger {
            trigger,
            event_source: row.try_get::<Option<String>, _>("event_source")?.unwrap_or_default(),
            event_id: row.try_get::<Option<String>, _>("event_id")?.unwrap_or_default(),
        },
        (None, None) => Cause::Direct {
            idempotency_key: row.try_get::<Option<String>, _>("idempotency_key")?.unwrap_or_default(),
        },
    };
    let reason: Option<String> = row.try_get("reason")?;
    Ok(MessageRow {
        contact_id: row.try_get("contact_id")?,
        message_id: row.try_get("message_id")?,
        class: match row.try_get::<i16, _>("class")? {
            0 => Class::Transactional,
            1 => Class::Marketing,
            _ => return Err(corrupt("class")),
        },
        state: State::from_code(row.try_get("state")?).ok_or_else(|| corrupt("state"))?,
        reason: reason
            .map(|reason| reason.parse())
            .transpose()
            .map_err(|_| corrupt("reason"))?,
        gateway_code: row.try_get("gateway_code")?,
        cause,
        template: row.try_get("template")?,
        variant: row.try_get("variant")?,
        encoding: row.try_get("encoding")?,
        parts: u16::try_from(row.try_get::<i16, _>("parts")?).unwrap_or_default(),
        cost_micros: row.try_get("cost_micros")?,
        phone_hash: row.try_get("phone_hash")?,
        gateway: row.try_get("gateway")?,
        owner: row.try_get("owner")?,
        epoch: row.try_get("epoch")?,
        attempt: u32::try_from(row.try_get::<i32, _>("attempt")?).unwrap_or_default(),
        caused_at: row.try_get::<At, _>("caused_at")?.0,
        planned_at: row.try_get::<At, _>("planned_at")?.0,
        rendered_at: time("rendered_at")?,
        claimed_at: time("claimed_at")?,
        accepted_at: time("accepted_at")?,
        settled_at: time("settled_at")?,
        changed_at: row.try_get::<At, _>("changed_at")?.0,
        decided_by: row.try_get("decided_by")?,
        purpose: row.try_get("purpose")?,
        traceparent: row.try_get("traceparent")?,
    })
}

fn parts(row: &MessageRow) -> i16 {
    i16::try_from(row.parts).unwrap_or(i16::MAX)
}

fn attempt(row: &MessageRow) -> i32 {
    i32::try_from(row.attempt).unwrap_or(i32::MAX)
}

/// Rows are inserted, and waited for, in the order in which everybody locks them.
const INSERT: &str = "insert into messages (contact_id, message_id, class, state, reason, gateway_code, campaign_id, trigger,
         event_source, event_id, idempotency_key, template, variant, encoding, parts, cost_micros, phone_hash, gateway,
         owner, epoch, attempt, caused_at, planned_at, rendered_at, claimed_at, accepted_at, settled_at, changed_at,
         decided_by, purpose, traceparent)
     select * from unnest($1::text[], $2::uuid[], $3::int2[], $4::int2[], $5::text[], $6::text[], $7::uuid[], $8::text[],
         $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::int2[], $16::int8[], $17::bytea[],
         $18::text[], $19::uuid[], $20::int8[], $21::int4[], $22::timestamptz[], $23::timestamptz[], $24::timestamptz[],
         $25::timestamptz[], $26::timestamptz[], $27::timestamptz[], $28::timestamptz[], $29::text[],
         $30::text[], $31::text[]) as v (contact_id, message_id)
     order by v.contact_id, v.message_id";

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Binds what [`INSERT`] asks for: an array a column.
fn all_columns<'q>(query: Query<'q>, rows: &[&'q MessageRow]) -> Result<Query<'q>, StoreError> {
    let mut campaigns: Vec<Option<Uuid>> = Vec::with_capacity(rows.len());
    let mut triggers: Vec<Option<&str>> = Vec::with_capacity(rows.len());
    let mut sources: Vec<Option<&str>> = Vec::with_capacity(rows.len());
    let mut events: Vec<Option<&str>> = Vec::with_capacity(rows.len());
    let mut keys: Vec<Option<&str>> = Vec::with_capacity(rows.len());
    for row in rows {
        let (mut campaign, mut trigger, mut source, mut event, mut key) = (None, None, None, None, None);
        match &row.cause {
            Cause::Campaign { campaign_id } => {
                let id = campaign_id.parse().map_err(|_| {
                    StoreError::Corrupt("a message's campaign id is no UUID: its record was not made by us".into())
                })?;
                campaign = Some(id);
            }
            Cause::Trigger {
                trigger: name,
                event_source,
                event_id,
            } => {
                (trigger, source, event) = (
                    Some(name.as_str()),
                    Some(event_source.as_str()),
                    Some(event_id.as_str()),
                )
            }
            Cause::Direct { idempotency_key } => key = Some(idempotency_key.as_str()),
        }
        campaigns.push(campaign);
        triggers.push(trigger);
        sources.push(source);
        events.push(event);
        keys.push(key);
    }
    Ok(query
        .bind(column(rows, |row| row.contact_id.as_str()))
        .bind(column(rows, |row| row.message_id))
        .bind(column(rows, |row| class_code(row.class)))
        .bind(column(rows, |row| row.state.code()))
        .bind(column(rows, |row| row.reason.map(|reason| reason.as_str())))
        .bind(column(rows, |row| row.gateway_code.as_deref()))
        .bind(campaigns)
        .bind(triggers)
        .bind(sources)
        .bind(events)
        .bind(keys)
        .bind(column(rows, |row| row.template.as_str()))
        .bind(column(rows, |row| row.variant.as_deref()))
        .bind(column(rows, |row| row.encoding.as_deref()))
        .bind(column(rows, parts))
        .bind(column(rows, |row| row.cost_micros))
        .bind(column(rows, |row| row.phone_hash.as_deref()))
        .bind(column(rows, |row| row.gateway.as_deref()))
        .bind(column(rows, |row| row.owner))
        .bind(column(rows, |row| row.epoch))
        .bind(column(rows, attempt))
        .bind(column(rows, |row| At(row.caused_at)))
        .bind(column(rows, |row| At(row.planned_at)))
        .bind(column(rows, |row| at(row.rendered_at)))
        .bind(column(rows, |row| at(row.claimed_at)))
        .bind(column(rows, |row| at(row.accepted_at)))
        .bind(column(rows, |row| at(row.settled_at)))
        .bind(column(rows, |row| At(row.changed_at)))
        .bind(column(rows, |row| row.decided_by.as_deref()))
        .bind(column(rows, |row| row.purpose.as_deref()))
        .bind(column(rows, |row| row.traceparent.as_deref())))
}

impl Tx {
    /// Inserts the rows that are not there; the keys of those that were. The keys of one call are distinct.
    pub(crate) async fn messages_insert(&mut self, rows: &[MessageRow]) -> Result<HashSet<Key>, StoreError> {
        if rows.is_empty() {
            return Ok(HashSet::new());
        }
        let rows: Vec<&MessageRow> = rows.iter().collect();
        let inserted = all_columns(
            sqlx::query(sqlx::AssertSqlSafe(format!(
                "{INSERT} on conflict (contact_id, message_id) do nothing returning contact_id, message_id"
            ))),
            &rows,
        )?
        .fetch_all(&mut *self.inner)
        .await?;
        inserted
            .iter()
            .map(|row| Ok((row.try_get("contact_id")?, row.try_get("message_id")?)))
            .collect()
    }

    /// Locks these rows in the order of their keys, until the transaction ends, and reads them as they now are.
    pub(crate) async fn messages_lock(&mut self, keys: &[Key]) -> Result<HashMap<Key, MessageRow>, StoreError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        // `lateral … for update` is never turned round: each key is looked up, in this order.
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select m.* from (
                 select * from unnest($1::text[], $2::uuid[]) as v (contact_id, message_id) order by 1, 2
             ) v cross join lateral (
                 select {COLUMNS} from messages m
                 where m.contact_id = v.contact_id and m.message_id = v.message_id for update
             ) m"
        )))
        .bind(keys.iter().map(|key| key.0.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.1).collect::<Vec<_>>())
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(|row| read(row).map(|row| (row.key(), row))).collect()
    }

    /// Writes what can change of rows that this transaction has locked. They are there, so it is an insert that finds each
    /// by its key: no plan can do otherwise.
    pub(crate) async fn messages_write(&mut self, rows: &[&MessageRow]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        all_columns(sqlx::query(sqlx::AssertSqlSafe(format!(
            "{INSERT} on conflict (contact_id, message_id) do update set state = excluded.state, reason = excluded.reason,
                 gateway_code = excluded.gateway_code, template = excluded.template, variant = excluded.variant,
                 encoding = excluded.encoding, parts = excluded.parts, cost_micros = excluded.cost_micros,
                 phone_hash = excluded.phone_hash, gateway = excluded.gateway, owner = excluded.owner,
                 epoch = excluded.epoch, attempt = excluded.attempt, rendered_at = excluded.rendered_at,
                 claimed_at = excluded.claimed_at, accepted_at = excluded.accepted_at, settled_at = excluded.settled_at,
                 changed_at = excluded.changed_at, decided_by = excluded.decided_by, purpose = excluded.purpose,
                 traceparent = excluded.traceparent"
        ))), rows)?
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Writes where messages stand that this transaction has locked: state and reason, the attempt, its times. That is all
    /// that outcomes and receipts change, and a third of the columns. An insert for the same reason; what it would insert
    /// stands for columns that are never written.
    pub(crate) async fn messages_move(&mut self, rows: &[&MessageRow]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into messages (contact_id, message_id, class, template, caused_at, planned_at, state, reason,
                 gateway_code, gateway, owner, epoch, attempt, claimed_at, accepted_at, settled_at, changed_at)
             select v.contact_id, v.message_id, 0, '', v.changed_at, v.changed_at, v.state, v.reason, v.gateway_code, v.gateway,
                 v.owner, v.epoch, v.attempt, v.claimed_at, v.accepted_at, v.settled_at, v.changed_at
             from unnest($1::text[], $2::uuid[], $3::int2[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::int8[],
                     $9::int4[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[])
                 as v (contact_id, message_id, state, reason, gateway_code, gateway, owner, epoch, attempt, claimed_at,
                     accepted_at, settled_at, changed_at)
             order by v.contact_id, v.message_id
             on conflict (contact_id, message_id) do update set state = excluded.state, reason = excluded.reason,
                 gateway_code = excluded.gateway_code, gateway = excluded.gateway, owner = excluded.owner,
                 epoch = excluded.epoch, attempt = excluded.attempt, claimed_at = excluded.claimed_at,
                 accepted_at = excluded.accepted_at, settled_at = excluded.settled_at, changed_at = excluded.changed_at",
        )
        .bind(column(rows, |row| row.contact_id.as_str()))
        .bind(column(rows, |row| row.message_id))
        .bind(column(rows, |row| row.state.code()))
        .bind(column(rows, |row| row.reason.map(|reason| reason.as_str())))
        .bind(column(rows, |row| row.gateway_code.as_deref()))
        .bind(column(rows, |row| row.gateway.as_deref()))
        .bind(column(rows, |row| row.owner))
        .bind(column(rows, |row| row.epoch))
        .bind(column(rows, attempt))
        .bind(column(rows, |row| at(row.claimed_at)))
        .bind(column(rows, |row| at(row.accepted_at)))
        .bind(column(rows, |row| at(row.settled_at)))
        .bind(column(rows, |row| At(row.changed_at)))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Rows to insert, or the rows that stand in their place: what is there when this returns is locked by us. The second
    /// part says which were inserted. Keys may repeat: the first of its kind is inserted.
    pub(crate) async fn messages_insert_or_lock(
        &mut self,
        rows: &[MessageRow],
    ) -> Result<(HashMap<Key, MessageRow>, HashSet<Key>), StoreError> {
        let mut seen = HashSet::new();
        let fresh: Vec<MessageRow> = rows.iter().filter(|row| seen.insert(row.key())).cloned().collect();
        let inserted = self.messages_insert(&fresh).await?;
        let there: Vec<Key> = seen.into_iter().filter(|key| !inserted.contains(key)).collect();
        let mut current = self.messages_lock(&there).await?;
        if current.len() < there.len() {
            // Deleted between the two statements: whoever calls tries again.
            return Err(StoreError::Unavailable(sqlx::Error::RowNotFound));
        }
        current.extend(
            fresh
                .into_iter()
                .filter(|row| inserted.contains(&row.key()))
                .map(|row| (row.key(), row)),
        );
        Ok((current, inserted))
    }
}

fn column<'a, T>(rows: &[&'a MessageRow], of: impl Fn(&'a MessageRow) -> T) -> Vec<T> {
    rows.iter().map(|row| of(row)).collect()
}
