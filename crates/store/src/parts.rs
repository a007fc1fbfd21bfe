//! The parts that gateways took, by the gateway's ids, and the receipts that find their message through them.
//!
//! A receipt that comes before its part waits for it ([`crate::unmatched`]). Where the answer that should have told the ids
//! was lost, our reference in the receipts does ([`Tx::parts_adopt`]).
//!
//! Locks are taken in one order everywhere: messages by their keys, then parts by theirs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::{Reason, State};
use jiff::Timestamp;
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    StoreError, Tx,
    fresh::Fresh,
    messages::{Key, MessageRow, Settle, foreign, micros},
    time::At,
};

/// A part as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct PartRow {
    pub gateway: String,
    /// The gateway's id as it came.
    pub remote_id: String,
    pub match_id: String,
    pub contact_id: String,
    pub message_id: Uuid,
    /// Counted from 1.
    pub part: u16,
    /// How many parts the message was taken in.
    pub total: u16,
    pub state: State,
    pub at: Timestamp,
}

/// What moved at once, and what is left.
type AtOnce<'r> = (Vec<(MessageRow, bool)>, Vec<&'r (PartState, PartOf)>);

pub(crate) struct NewPart {
    pub gateway: String,
    pub remote_id: String,
    pub contact_id: String,
    pub message_id: Uuid,
    pub part: u16,
    pub total: u16,
    pub at: Timestamp,
}

/// A part that only its receipt told of, of a message whose answer was lost.
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptedPart {
    pub gateway: String,
    /// In the form in which its next receipts look for it.
    pub remote_id: String,
    pub contact_id: String,
    pub message_id: Uuid,
    pub at: Timestamp,
}

/// What a receipt says of a part.
#[derive(Clone, Debug, PartialEq)]
pub struct PartState {
    pub gateway: String,
    pub match_id: String,
    pub state: State,
    /// The gateway's own code, as it came.
    pub code: Option<String>,
    pub at: Timestamp,
}

/// Whose a part is.
#[derive(Clone, Debug, PartialEq)]
pub struct PartOf {
    pub contact_id: String,
    pub message_id: Uuid,
    /// The gateway took the message in this part alone. What is said of it is then said of the message, unless it was sent
    /// again: its own row need not be read and written for that, and stays at `accepted`.
    pub alone: bool,
}

impl PartOf {
    /// Of a message that the gateway took in `total` parts.
    pub(crate) fn new(contact_id: &str, message_id: Uuid, total: u16) -> PartOf {
        PartOf {
            contact_id: contact_id.to_owned(),
            message_id,
            alone: total <= 1,
        }
    }
}

impl PartRow {
    pub fn of(&self) -> PartOf {
        PartOf::new(&self.contact_id, self.message_id, self.total)
    }
}

/// The form in which ids are compared: lower case, without leading zeros.
pub fn match_id(remote_id: &str) -> String {
    let lower = remote_id.trim().to_ascii_lowercase();
    let stripped = lower.trim_start_matches('0');
    match stripped.is_empty() && !lower.is_empty() {
        true => "0".into(),
        false => stripped.into(),
    }
}

/// What its parts say of a message: delivered when all parts are; failed or expired as soon as one is. A part that was
/// sent twice (a resend) is as good as the better of the two.
fn state_of(of: &[PartRow]) -> Option<State> {
    let mut parts: BTreeMap<u16, State> = BTreeMap::new();
    let mut total = 1;
    for part in of {
        total = total.max(part.total);
        let known = parts.entry(part.part).or_insert(part.state);
        *known = better(*known, part.state);
    }
    let mut ends = parts.values().copied().filter(|state| state.is_terminal());
    if let Some(bad) = ends.clone().find(|state| *state != State::Delivered) {
        return Some(bad);
    }
    let delivered = ends.by_ref().count();
    (delivered > 0 && delivered >= usize::from(total)).then_some(State::Delivered)
}

fn better(one: State, other: State) -> State {
    let rank = |state: State| match state {
        State::Delivered => 2,
        state if state.is_terminal() => 0,
        _ => 1,
    };
    match rank(other) > rank(one) {
        true => other,
        false => one,
    }
}

const COLUMNS: &str = "p.gateway, p.remote_id, p.match_id, p.contact_id, p.message_id, p.part, p.total, p.state, p.at";

fn read(row: &PgRow) -> Result<PartRow, StoreError> {
    Ok(PartRow {
        gateway: row.try_get("gateway")?,
        remote_id: row.try_get("remote_id")?,
        match_id: row.try_get("match_id")?,
        contact_id: row.try_get("contact_id")?,
        message_id: row.try_get("message_id")?,
        part: u16::try_from(row.try_get::<i16, _>("part")?).unwrap_or_default(),
        total: u16::try_from(row.try_get::<i16, _>("total")?).unwrap_or_default(),
        state: State::from_code(row.try_get("state")?)
            .ok_or_else(|| StoreError::Corrupt("a part's state is none of ours".into()))?,
        at: row.try_get::<At, _>("at")?.0,
    })
}

impl Tx {
    /// Keeps parts that a gateway took. A gateway that gives an id a second time means the newer message by it.
    pub(crate) async fn parts_put(&mut self, parts: &[NewPart]) -> Result<(), StoreError> {
        self.parts_insert(
            parts,
            "do update set remote_id = excluded.remote_id, contact_id = excluded.contact_id,
                 message_id = excluded.message_id, part = excluded.part, total = excluded.total, state = excluded.state,
                 at = excluded.at
             where message_parts.message_id <> excluded.message_id and message_parts.at <= excluded.at",
        )
        .await
    }

    /// Takes ids that only receipts told for parts of the messages that they refer to: the gateway's answer, which should
    /// have told them, was lost. Each is the next part of its message, so that as many have to come as it has parts. An id
    /// that is known stays whose it is.
    pub async fn parts_adopt(&mut self, parts: &[AdoptedPart]) -> Result<(), StoreError> {
        let mut keys: Vec<Key> = parts
            .iter()
            .map(|part| (part.contact_id.clone(), part.message_id))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        // Two that adopt for one message count on from each other.
        let messages = self.messages_lock(&keys).await?;
        let ids: Vec<Uuid> = keys.iter().map(|key| key.1).collect();
        let counted: Vec<(Uuid, i16)> =
            sqlx::query_as("select message_id, max(part) from message_parts where message_id = any($1) group by 1")
                .bind(&ids)
                .fetch_all(&mut *self.inner)
                .await?;
        let mut last: HashMap<Uuid, u16> = counted
            .into_iter()
            .map(|(message, part)| (message, u16::try_from(part).unwrap_or_default()))
            .collect();
        let mut seen: BTreeSet<(&str, String)> = BTreeSet::new();
        let mut rows = Vec::with_capacity(parts.len());
        for part in parts {
            let message = messages.get(&(part.contact_id.clone(), part.message_id));
            let Some(message) = message.filter(|_| seen.insert((&part.gateway, match_id(&part.remote_id)))) else {
                continue;
            };
            let number = last.entry(part.message_id).or_default();
            *number = number.saturating_add(1);
            rows.push(NewPart {
                gateway: part.gateway.clone(),
                remote_id: foreign(&part.remote_id),
                contact_id: part.contact_id.clone(),
                message_id: part.message_id,
                part: *number,
                total: message.parts,
                at: part.at,
            });
        }
        match rows.is_empty() {
            true => Ok(()),
            false => self.parts_insert(&rows, "do nothing").await,
        }
    }

    async fn parts_insert(&mut self, parts: &[NewPart], on_conflict: &str) -> Result<(), StoreError> {
        let mut rows: BTreeMap<(&str, String), &NewPart> = BTreeMap::new();
        for part in parts {
            rows.insert((&part.gateway, match_id(&part.remote_id)), part);
        }
        let small = |number: u16| i16::try_from(number).unwrap_or(i16::MAX);
        let bound = |on_conflict: String| {
            sqlx::query(sqlx::AssertSqlSafe(format!(
                "insert into message_parts (gateway, remote_id, match_id, contact_id, message_id, part, total, state, at)
                 select gateway, remote_id, match_id, contact_id, message_id, part, total, $8, at
                 from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::int2[], $7::int2[],
                             $9::timestamptz[])
                     as v (gateway, remote_id, match_id, contact_id, message_id, part, total, at)
                 order by gateway, match_id {on_conflict}"
            )))
            .bind(rows.keys().map(|key| key.0).collect::<Vec<_>>())
            .bind(rows.values().map(|part| part.remote_id.as_str()).collect::<Vec<_>>())
            .bind(rows.keys().map(|key| key.1.as_str()).collect::<Vec<_>>())
            .bind(rows.values().map(|part| part.contact_id.as_str()).collect::<Vec<_>>())
            .bind(rows.values().map(|part| part.message_id).collect::<Vec<_>>())
            .bind(rows.values().map(|part| small(part.part)).collect::<Vec<_>>())
            .bind(rows.values().map(|part| small(part.total)).collect::<Vec<_>>())
            .bind(State::Accepted.code())
            .bind(rows.values().map(|part| At(part.at)).collect::<Vec<_>>())
        };
        if self
            .insert_fresh(Fresh::Parts, rows.len(), bound(String::new()))
            .await?
        {
            return Ok(());
        }
        bound(format!("on conflict (gateway, match_id) {on_conflict}"))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Finds parts: for each (gateway, forms that the id may have) the part of the first form that is known.
    pub async fn parts_match(&mut self, keys: &[(String, Vec<String>)]) -> Result<Vec<Option<PartRow>>, StoreError> {
        let mut found: Vec<Option<PartRow>> = vec![None; keys.len()];
        let (mut numbers, mut gateways, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (gateway, candidates)) in keys.iter().enumerate() {
            for candidate in candidates {
                numbers.push(number as i64);
                gateways.push(gateway.as_str());
                ids.push(match_id(candidate));
            }
        }
        if numbers.is_empty() {
            return Ok(found);
        }
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select distinct on (v.number) v.number, p.*
             from unnest($1::int8[], $2::text[], $3::text[]) with ordinality as v (number, gateway, match_id, place)
             cross join lateral (
                 select {COLUMNS} from message_parts p where p.gateway = v.gateway and p.match_id = v.match_id offset 0
             ) p order by v.number, v.place"
        )))
        .bind(numbers)
        .bind(gateways)
        .bind(ids)
        .fetch_all(&mut *self.inner)
        .await?;
        for row in &rows {
            let number: i64 = row.try_get("number")?;
            if let Some(place) = usize::try_from(number).ok().and_then(|number| found.get_mut(number)) {
                *place = Some(read(row)?);
            }
        }
        Ok(found)
    }

    /// Moves parts forward; each message concerned with all its parts as they now are. The messages stay locked until the
    /// transaction ends, so of two receipts for two parts of one message the second sees the first.
    async fn part_states(
        &mut self,
        changes: &[&PartState],
        of: &BTreeSet<Key>,
    ) -> Result<BTreeMap<Key, Vec<PartRow>>, StoreError> {
        let ids: Vec<Uuid> = of.iter().map(|key| key.1).collect();
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from message_parts p where p.message_id = any($1)
             order by p.gateway, p.match_id for update"
        )))
        .bind(&ids)
        .fetch_all(&mut *self.inner)
        .await?;
        let mut parts: BTreeMap<(String, String), PartRow> = BTreeMap::new();
        for row in &rows {
            let part = read(row)?;
            parts.insert((part.gateway.clone(), part.match_id.clone()), part);
        }
        let mut moved = BTreeSet::new();
        for change in changes {
            let key = (change.gateway.clone(), match_id(&change.match_id));
            if let Some(part) = parts.get_mut(&key)
                && part.state.may_become(change.state)
            {
                (part.state, part.at) = (change.state, micros(change.at));
                moved.insert(key);
            }
        }
        let moved: Vec<&PartRow> = moved.iter().filter_map(|key| parts.get(key)).collect();
        self.parts_write(&moved).await?;
        let mut after: BTreeMap<Key, Vec<PartRow>> = BTreeMap::new();
        for part in parts.into_values() {
            let key = (part.contact_id.clone(), part.message_id);
            after.entry(key).or_default().push(part);
        }
        for parts in after.values_mut() {
            parts.sort_unstable_by_key(|one| (one.part, one.at));
        }
        Ok(after)
    }

    /// Writes the states of parts that this transaction has locked: an insert that finds each by its key.
    async fn parts_write(&mut self, parts: &[&PartRow]) -> Result<(), StoreError> {
        if parts.is_empty() {
            return Ok(());
        }
        let small = |number: u16| i16::try_from(number).unwrap_or(i16::MAX);
        sqlx::query(
            "insert into message_parts (gateway, remote_id, match_id, contact_id, message_id, part, total, state, at)
             select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::int2[], $7::int2[],
                                  $8::int2[], $9::timestamptz[])
             on conflict (gateway, match_id) do update set state = excluded.state, at = excluded.at",
        )
        .bind(parts.iter().map(|part| part.gateway.as_str()).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| part.remote_id.as_str()).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| part.match_id.as_str()).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| part.contact_id.as_str()).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| part.message_id).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| small(part.part)).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| small(part.total)).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| part.state.code()).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| At(part.at)).collect::<Vec<_>>())
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Applies receipts to their parts, and to the messages that this settles (delivered when all parts are); each with
    /// whose part it is of, which whoever found the part knows. For each message that its parts say something of: the row
    /// as it now stands, and whether it moved.
    pub async fn receipts_apply(
        &mut self,
        receipts: &[(PartState, PartOf)],
    ) -> Result<Vec<(MessageRow, bool)>, StoreError> {
        if receipts.is_empty() {
            return Ok(Vec::new());
        }
        let (mut after, left) = self.settled_at_once(receipts).await?;
        let key = |of: &PartOf| (of.contact_id.clone(), of.message_id);
        let mut keys: Vec<Key> = left.iter().map(|(_, of)| key(of)).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut messages = self.messages_lock(&keys).await?;
        let mut settles = Vec::with_capacity(left.len());
        let (mut shared, mut of_shared) = (Vec::new(), BTreeSet::new());
        for (said, of) in left {
            let key = key(of);
            let Some(message) = messages.get(&key) else { continue };
            if !of.alone || message.attempt > 1 {
                shared.push(said);
                of_shared.insert(key);
            } else if said.state.is_terminal() {
                settles.push(settle(key, said.state, said.code.clone(), said.at));
            }
        }
        if !shared.is_empty() {
            settles.extend(self.settled_by_parts(&shared, &of_shared, &messages).await?);
        }
        after.extend(self.settle_locked(&settles, &mut messages).await?);
        Ok(after)
    }

    /// Settles messages of which one receipt alone says what became of them and which stand where such a receipt finds
    /// them, without reading them before; the receipts that are left. What these then lock may come before what is locked by
    /// now: of two transactions that wait for each other over that PostgreSQL refuses one, which is tried again.
    async fn settled_at_once<'r>(&mut self, receipts: &'r [(PartState, PartOf)]) -> Result<AtOnce<'r>, StoreError> {
        let mut times: HashMap<Uuid, u32> = HashMap::with_capacity(receipts.len());
        for (_, of) in receipts {
            *times.entry(of.message_id).or_default() += 1;
        }
        let (mut alone, mut left) = (Vec::with_capacity(receipts.len()), Vec::new());
        for receipt in receipts {
            let (said, of) = receipt;
            match of.alone && said.state.is_terminal() && times.get(&of.message_id) == Some(&1) {
                true => alone.push(receipt),
                false => left.push(receipt),
            }
        }
        if alone.is_empty() {
            return Ok((Vec::new(), left));
        }
        let settles: Vec<Settle> = alone
            .iter()
            .map(|(said, of)| {
                let key = (of.contact_id.clone(), of.message_id);
                settle(key, said.state, said.code.clone(), said.at)
            })
            .collect();
        let moved = self.messages_settle_accepted(&settles).await?;
        let mut stays = vec![true; alone.len()];
        let mut after = Vec::with_capacity(moved.len());
        for (place, row) in moved {
            if let Some(stays) = stays.get_mut(place) {
                *stays = false;
            }
            after.push((row, true));
        }
        left.extend(
            alone
                .iter()
                .zip(stays)
                .filter(|(_, stays)| *stays)
                .map(|(receipt, _)| *receipt),
        );
        Ok((after, left))
    }

    /// What receipts for parts of messages with several settle.
    async fn settled_by_parts(
        &mut self,
        receipts: &[&PartState],
        of: &BTreeSet<Key>,
        messages: &HashMap<Key, MessageRow>,
    ) -> Result<Vec<Settle>, StoreError> {
        let parts = self.part_states(receipts, of).await?;
        let codes: HashMap<(&str, String, State), Option<&str>> = receipts
            .iter()
            .map(|receipt| {
                let id = match_id(&receipt.match_id);
                ((receipt.gateway.as_str(), id, receipt.state), receipt.code.as_deref())
            })
            .collect();
        let mut settles = Vec::with_capacity(parts.len());
        for (key, parts) in parts {
            let (Some(state), Some(message)) = (state_of(&parts), messages.get(&key)) else {
                continue;
            };
            // The code is the one of a part in the state that the message takes.
            let code = parts
                .iter()
                .find_map(|part| codes.get(&(part.gateway.as_str(), part.match_id.clone(), state)))
                .and_then(|code| code.map(str::to_owned));
            let at = parts
                .iter()
                .filter(|part| part.state == state)
                .map(|part| part.at)
                .max()
                .unwrap_or(message.changed_at);
            settles.push(settle(key, state, code, at));
        }
        Ok(settles)
    }
}

fn settle((contact_id, message_id): Key, state: State, gateway_code: Option<String>, at: Timestamp) -> Settle {
    Settle {
        contact_id,
        message_id,
        state,
        reason: reason_of(state),
        gateway_code,
        at,
    }
}

/// Why a message ends in a state that its receipt told.
pub(crate) fn reason_of(state: State) -> Option<Reason> {
    match state {
        State::Failed => Some(Reason::Undeliverable),
        State::Expired => Some(Reason::ValidityPassed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_compared_without_case_and_leading_zeros() {
        for (remote, expected) in [("00A1f", "a1f"), ("A1F", "a1f"), ("000", "0"), ("", ""), (" 7 ", "7")] {
            assert_eq!(match_id(remote), expected, "{remote}");
        }
    }
}
