//! Reading and writing rows of the ledger in batches: insert, lock, update, one statement each.

use std::collections::{HashMap, HashSet};

use domain::{Cause, Class, State};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::{
    MessageRow, Settle, foreign,
    kinds::{self, Kinds},
};
use crate::{
    StoreError, Tx,
    fresh::Fresh,
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

/// Reads [`COLUMNS`], of which the first is at `place`.
pub(crate) fn read_from(row: &PgRow, place: usize) -> Result<MessageRow, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("a message's {what} is none of ours"));
    let mut columns = Columns { row, next: place };
    let contact_id = columns.take()?;
    let message_id = columns.take()?;
    let class = match columns.take::<i16>()? {
        0 => Class::Transactional,
        1 => Class::Marketing,
        _ => return Err(corrupt("class")),
    };
    let state = State::from_code(columns.take()?).ok_or_else(|| corrupt("state"))?;
    let reason = (columns.take::<Option<&str>>()?)
        .map(str::parse)
        .transpose()
        .map_err(|_| corrupt("reason"))?;
    let gateway_code = columns.take()?;
    let campaign: Option<Uuid> = columns.take()?;
    let trigger: Option<String> = columns.take()?;
    let event_source: Option<String> = columns.take()?;
    let event_id: Option<String> = columns.take()?;
    let idempotency_key: Option<String> = columns.take()?;
    let cause = match (campaign, trigger) {
        (Some(id), _) => Cause::Campaign {
            campaign_id: id.hyphenated().to_string(),
        },
        (None, Some(trigger)) => Cause::Trigger {
            trigger,
            event_source: event_source.unwrap_or_default(),
            event_id: event_id.unwrap_or_default(),
        },
        (None, None) => Cause::Direct {
            idempotency_key: idempotency_key.unwrap_or_default(),
        },
    };
    // In the order of the columns, as the fields of a literal are evaluated.
    Ok(MessageRow {
        contact_id,
        message_id,
        class,
        state,
        reason,
        gateway_code,
        cause,
        template: columns.take()?,
        variant: columns.take()?,
        encoding: columns.take()?,
        parts: u16::try_from(columns.take::<i16>()?).unwrap_or_default(),
        cost_micros: columns.take()?,
        phone_hash: columns.take()?,
        gateway: columns.take()?,
        owner: columns.take()?,
        epoch: columns.take()?,
        attempt: u32::try_from(columns.take::<i32>()?).unwrap_or_default(),
        caused_at: columns.take::<At>()?.0,
        planned_at: columns.take::<At>()?.0,
        rendered_at: from_at(columns.take()?),
        claimed_at: from_at(columns.take()?),
        accepted_at: from_at(columns.take()?),
        settled_at: from_at(columns.take()?),
        changed_at: columns.take::<At>()?.0,
        decided_by: columns.take()?,
        purpose: columns.take()?,
        traceparent: columns.take()?,
    })
}

pub(crate) fn read(row: &PgRow) -> Result<MessageRow, StoreError> {
    read_from(row, 0)
}

/// A row's columns one after the other: looking each up by its name would cost a hash a column.
struct Columns<'r> {
    row: &'r PgRow,
    next: usize,
}

impl<'r> Columns<'r> {
    fn take<T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(&mut self) -> Result<T, sqlx::Error> {
        let place = self.next;
        self.next += 1;
        self.row.try_get(place)
    }
}

fn parts(row: &MessageRow) -> i16 {
    kinds::parts_column(row.parts)
}

fn attempt(row: &MessageRow) -> i32 {
    kinds::attempts_column(row.attempt)
}

/// What [`all_columns`] binds. Rows are inserted, and waited for, in the order in which everybody locks them.
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

/// What [`own_columns`] binds: columns in which all rows are alike are given once, those of few kinds once a kind ([`Kinds`]).
const INSERT_ALIKE: &str = "insert into messages (contact_id, message_id, event_id, idempotency_key, phone_hash, epoch, caused_at,
         planned_at, rendered_at, traceparent, campaign_id, trigger, event_source, template, variant, encoding, parts,
         cost_micros, attempt, purpose, class, state, reason, gateway_code, gateway, owner, claimed_at, accepted_at,
         settled_at, changed_at, decided_by)
     select v.contact_id, v.message_id, v.event_id, v.idempotency_key, v.phone_hash, v.epoch, v.caused_at, v.planned_at,
         v.rendered_at, v.traceparent, ($12::uuid[])[v.kind], ($13::text[])[v.kind], ($14::text[])[v.kind],
         ($15::text[])[v.kind], ($16::text[])[v.kind], ($17::text[])[v.kind], ($18::int2[])[v.kind], ($19::int8[])[v.kind],
         ($20::int4[])[v.kind], ($21::text[])[v.kind], $22::int2, $23::int2, $24::text, $25::text, $26::text, $27::uuid,
         $28::timestamptz, $29::timestamptz, $30::timestamptz, $31::timestamptz, $32::text
     from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::int8[], $7::timestamptz[],
             $8::timestamptz[], $9::timestamptz[], $10::text[], $11::int4[])
         as v (contact_id, message_id, event_id, idempotency_key, phone_hash, epoch, caused_at, planned_at, rendered_at,
             traceparent, kind)
     order by v.contact_id, v.message_id";

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// The cause's columns that causes of a kind share.
#[derive(Default)]
struct Causes<'a> {
    campaigns: Vec<Option<Uuid>>,
    triggers: Vec<Option<&'a str>>,
    sources: Vec<Option<&'a str>>,
}

fn causes<'a>(rows: &[&'a MessageRow]) -> Result<Causes<'a>, StoreError> {
    let mut causes = Causes::default();
    for row in rows {
        let (mut campaign, mut trigger, mut source) = (None, None, None);
        match &row.cause {
            Cause::Campaign { campaign_id } => campaign = Some(kinds::campaign_column(campaign_id)?),
            Cause::Trigger {
                trigger: name,
                event_source,
                ..
            } => (trigger, source) = (Some(name.as_str()), Some(event_source.as_str())),
            Cause::Direct { .. } => {}
        }
        causes.campaigns.push(campaign);
        causes.triggers.push(trigger);
        causes.sources.push(source);
    }
    Ok(causes)
}

/// Binds what [`INSERT`] asks for: an array a column.
fn all_columns<'q>(query: Query<'q>, rows: &[&'q MessageRow]) -> Result<Query<'q>, StoreError> {
    let causes = causes(rows)?;
    Ok(query
        .bind(column(rows, |row| row.contact_id.as_str()))
        .bind(column(rows, |row| row.message_id))
        .bind(column(rows, |row| class_code(row.class)))
        .bind(column(rows, |row| row.state.code()))
        .bind(column(rows, |row| row.reason.map(|reason| reason.as_str())))
        .bind(column(rows, |row| row.gateway_code.as_deref()))
        .bind(causes.campaigns)
        .bind(causes.triggers)
        .bind(causes.sources)
        .bind(column(rows, event_id))
        .bind(column(rows, idempotency_key))
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

/// Whether two rows can be inserted by [`INSERT_ALIKE`], as those of one claim mostly can.
fn are_alike(one: &MessageRow, other: &MessageRow) -> bool {
    (one.class, one.state, one.reason) == (other.class, other.state, other.reason)
        && (&one.gateway_code, &one.gateway, one.owner) == (&other.gateway_code, &other.gateway, other.owner)
        && (one.claimed_at, one.accepted_at, one.settled_at) == (other.claimed_at, other.accepted_at, other.settled_at)
        && (one.changed_at, &one.decided_by) == (other.changed_at, &other.decided_by)
}

/// Binds what [`INSERT_ALIKE`] asks for: an array for each column of their own, their kinds, and once what `all` have in common.
fn own_columns<'q>(query: Query<'q>, rows: &[&'q MessageRow], kinds: &Kinds<'q>, all: &'q MessageRow) -> Query<'q> {
    query
        .bind(column(rows, |row| row.contact_id.as_str()))
        .bind(column(rows, |row| row.message_id))
        .bind(column(rows, event_id))
        .bind(column(rows, idempotency_key))
        .bind(column(rows, |row| row.phone_hash.as_deref()))
        .bind(column(rows, |row| row.epoch))
        .bind(column(rows, |row| At(row.caused_at)))
        .bind(column(rows, |row| At(row.planned_at)))
        .bind(column(rows, |row| at(row.rendered_at)))
        .bind(column(rows, |row| row.traceparent.as_deref()))
        .bind(kinds.each.clone())
        .bind(kinds.campaigns.clone())
        .bind(kinds.triggers.clone())
        .bind(kinds.sources.clone())
        .bind(kinds.templates.clone())
        .bind(kinds.variants.clone())
        .bind(kinds.encodings.clone())
        .bind(kinds.parts.clone())
        .bind(kinds.costs.clone())
        .bind(kinds.attempts.clone())
        .bind(kinds.purposes.clone())
        .bind(class_code(all.class))
        .bind(all.state.code())
        .bind(all.reason.map(|reason| reason.as_str()))
        .bind(all.gateway_code.as_deref())
        .bind(all.gateway.as_deref())
        .bind(all.owner)
        .bind(at(all.claimed_at))
        .bind(at(all.accepted_at))
        .bind(at(all.settled_at))
        .bind(At(all.changed_at))
        .bind(all.decided_by.as_deref())
}

fn event_id(row: &MessageRow) -> Option<&str> {
    match &row.cause {
        Cause::Trigger { event_id, .. } => Some(event_id),
        Cause::Campaign { .. } | Cause::Direct { .. } => None,
    }
}

fn idempotency_key(row: &MessageRow) -> Option<&str> {
    match &row.cause {
        Cause::Direct { idempotency_key } => Some(idempotency_key),
        Cause::Campaign { .. } | Cause::Trigger { .. } => None,
    }
}

impl Tx {
    /// Inserts the rows that are not there; for each, whether it was inserted. The keys of one call are distinct.
    pub(crate) async fn messages_insert(&mut self, rows: &[MessageRow]) -> Result<Vec<bool>, StoreError> {
        let Some(first) = rows.first() else {
            return Ok(Vec::new());
        };
        let all: Vec<&MessageRow> = rows.iter().collect();
        let alike = rows.iter().all(|row| are_alike(first, row));
        let kinds = if alike { Kinds::of(&all)? } else { None };
        let bound = |statement: String| {
            let query = sqlx::query(sqlx::AssertSqlSafe(statement));
            match &kinds {
                Some(kinds) => Ok(own_columns(query, &all, kinds, first)),
                None => all_columns(query, &all),
            }
        };
        let insert = if kinds.is_some() { INSERT_ALIKE } else { INSERT };
        // What has waited has a row already.
        if alike && first.state == State::Sending && first.attempt == 1 {
            let plain = bound(insert.to_owned())?;
            if self.insert_fresh(Fresh::Messages, rows.len(), plain).await? {
                return Ok(vec![true; rows.len()]);
            }
        }
        let inserted = bound(format!(
            "{insert} on conflict (contact_id, message_id) do nothing returning message_id, contact_id"
        ))?
        .fetch_all(&mut *self.inner)
        .await?;
        if inserted.len() == rows.len() {
            return Ok(vec![true; rows.len()]);
        }
        let inserted: HashSet<(Uuid, &str)> = inserted
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, sqlx::Error>>()?;
        Ok(rows
            .iter()
            .map(|row| inserted.contains(&(row.message_id, row.contact_id.as_str())))
            .collect())
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

    /// Moves messages to `accepted` as these rows show it, and says by their places which moved: those that still stand at the
    /// rows' attempt. Their rows are neither read nor locked before.
    ///
    /// `= any (array[…])` is `=`, of which the planner does not know that both sides are sorted alike: so there is no plan but
    /// to look each key up, whatever it thinks of a young table's size.
    pub(crate) async fn messages_accept(&mut self, rows: &[&MessageRow]) -> Result<Vec<usize>, StoreError> {
        let moved = sqlx::query(
            "update messages m set state = $8, reason = null, gateway_code = v.code, accepted_at = v.at, changed_at = v.at
             from (select * from unnest($1::text[], $2::uuid[], $3::uuid[], $4::int4[], $5::text[], $6::timestamptz[])
                       with ordinality as v (contact_id, message_id, owner, attempt, code, at, number)
                   order by v.contact_id, v.message_id) v
             where m.contact_id = any (array[v.contact_id]) and m.message_id = any (array[v.message_id])
               and m.state = $7 and m.owner = v.owner and m.attempt = v.attempt
             returning v.number",
        )
        .bind(column(rows, |row| row.contact_id.as_str()))
        .bind(column(rows, |row| row.message_id))
        .bind(column(rows, |row| row.owner))
        .bind(column(rows, attempt))
        .bind(column(rows, |row| row.gateway_code.as_deref()))
        .bind(column(rows, |row| At(row.changed_at)))
        .bind(State::Sending.code())
        .bind(State::Accepted.code())
        .fetch_all(&mut *self.inner)
        .await?;
        moved.iter().map(place).collect()
    }

    /// Settles messages that stand at `accepted` after one attempt: those that moved by their places, as they now are. Each
    /// key comes once. Their rows are neither read nor locked before; looked up as for [`Tx::messages_accept`].
    pub(crate) async fn messages_settle_accepted(
        &mut self,
        settles: &[Settle],
    ) -> Result<Vec<(usize, MessageRow)>, StoreError> {
        let of = |settle: &Settle| settle.reason.map(|reason| reason.as_str());
        let moved = sqlx::query(sqlx::AssertSqlSafe(format!(
            "update messages m set state = v.state, reason = v.reason, gateway_code = coalesce(v.code, m.gateway_code),
                 settled_at = v.at, changed_at = v.at
             from (select * from unnest($1::text[], $2::uuid[], $3::int2[], $4::text[], $5::text[], $6::timestamptz[])
                       with ordinality as v (contact_id, message_id, state, reason, code, at, number)
                   order by v.contact_id, v.message_id) v
             where m.contact_id = any (array[v.contact_id]) and m.message_id = any (array[v.message_id])
               and m.state = $7 and m.attempt <= 1
             returning v.number, {COLUMNS}"
        )))
        .bind(
            settles
                .iter()
                .map(|settle| settle.contact_id.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(settles.iter().map(|settle| settle.message_id).collect::<Vec<_>>())
        .bind(settles.iter().map(|settle| settle.state.code()).collect::<Vec<_>>())
        .bind(settles.iter().map(of).collect::<Vec<_>>())
        .bind(
            settles
                .iter()
                .map(|settle| settle.gateway_code.as_deref().map(foreign))
                .collect::<Vec<_>>(),
        )
        .bind(settles.iter().map(|settle| At(settle.at)).collect::<Vec<_>>())
        .bind(State::Accepted.code())
        .fetch_all(&mut *self.inner)
        .await?;
        moved.iter().map(|row| Ok((place(row)?, read_from(row, 1)?))).collect()
    }

    /// Rows to insert, or the rows that stand in their place: what is there when this returns is locked by us. Beside each
    /// key, whether its row was inserted. Keys may repeat: the first of its kind is inserted.
    pub(crate) async fn messages_insert_or_lock(
        &mut self,
        rows: &[MessageRow],
    ) -> Result<HashMap<Key, (MessageRow, bool)>, StoreError> {
        let mut seen = HashSet::with_capacity(rows.len());
        let fresh: Vec<MessageRow> = rows.iter().filter(|row| seen.insert(row.key())).cloned().collect();
        let inserted = self.messages_insert(&fresh).await?;
        let mut current = HashMap::with_capacity(fresh.len());
        let mut there = Vec::new();
        for (row, inserted) in fresh.into_iter().zip(inserted) {
            match inserted {
                true => drop(current.insert(row.key(), (row, true))),
                false => there.push(row.key()),
            }
        }
        let locked = self.messages_lock_all(&there).await?;
        current.extend(locked.into_iter().map(|(key, row)| (key, (row, false))));
        Ok(current)
    }

    /// Locks and reads rows that an insert has just met.
    pub(crate) async fn messages_lock_all(&mut self, keys: &[Key]) -> Result<HashMap<Key, MessageRow>, StoreError> {
        let rows = self.messages_lock(keys).await?;
        match rows.len() < keys.len() {
            // Deleted between the two statements: whoever calls tries again.
            true => Err(StoreError::Unavailable(sqlx::Error::RowNotFound)),
            false => Ok(rows),
        }
    }
}

/// The place, from 0, that `with ordinality` gave a row from 1.
pub(super) fn place(row: &PgRow) -> Result<usize, StoreError> {
    let number: i64 = row.try_get(0)?;
    usize::try_from(number - 1).map_err(|_| StoreError::Corrupt("a row's number is none of ours".into()))
}

fn column<'a, T>(rows: &[&'a MessageRow], of: impl Fn(&'a MessageRow) -> T) -> Vec<T> {
    rows.iter().map(|row| of(row)).collect()
}
