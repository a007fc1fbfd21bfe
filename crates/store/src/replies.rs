//! What receipts and replies look up beside the ledger: whose phone it is, what was last sent there, which replies were heard
//! before, which messages nothing was heard of.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::{Store, StoreError, Tx, messages::foreign, parts::match_id, time::At};

/// A reply that its gateway gave an id to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeardReply {
    /// From the gateway's id of it.
    pub id: Uuid,
    /// From the record that brought it.
    pub origin: Uuid,
    pub received_at: Timestamp,
}

/// An accepted message of which nothing more was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unheard {
    pub contact_id: String,
    pub message_id: Uuid,
    pub accepted_at: Timestamp,
}

/// A message is accepted at most so long after it was planned: deadlines are shorter.
const LONGEST_WAY: SignedDuration = SignedDuration::from_hours(31 * 24);

impl Tx {
    /// The contacts with these phones (E.164), each phone's in the order of their ids.
    pub async fn contacts_by_phone(&mut self, phones: &[&str]) -> Result<HashMap<String, Vec<String>>, StoreError> {
        let mut found: HashMap<String, Vec<String>> = HashMap::new();
        if phones.is_empty() {
            return Ok(found);
        }
        let rows: Vec<(String, String)> =
            sqlx::query_as("select phone, id from contacts where phone = any($1) order by id")
                .bind(phones)
                .fetch_all(&mut *self.inner)
                .await?;
        for (phone, id) in rows {
            found.entry(phone).or_default().push(id);
        }
        Ok(found)
    }

    /// For each of these contacts, the last message that a gateway took for it.
    pub async fn messages_last_to(&mut self, contacts: &[&str]) -> Result<HashMap<String, Uuid>, StoreError> {
        if contacts.is_empty() {
            return Ok(HashMap::new());
        }
        let rows: Vec<(String, Uuid)> = sqlx::query_as(
            "select distinct on (contact_id) contact_id, message_id from messages
             where contact_id = any($1) and accepted_at is not null
             order by contact_id, accepted_at desc, message_id",
        )
        .bind(contacts)
        .fetch_all(&mut *self.inner)
        .await?;
        Ok(rows.into_iter().collect())
    }

    /// Notes replies, in the order in which they came. The origins of those that another record brought before: these are
    /// repeats. A record that is handed over again finds itself and is none.
    pub async fn replies_repeated(&mut self, heard: &[HeardReply]) -> Result<HashSet<Uuid>, StoreError> {
        if heard.is_empty() {
            return Ok(HashSet::new());
        }
        // In the order of the ids, so that two of us wait for each other and do not deadlock.
        let first: Vec<(Uuid, Uuid)> = sqlx::query_as(
            "insert into heard_replies (id, origin, heard_at)
             select distinct on (id) id, origin, heard_at
             from unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) with ordinality as n (id, origin, heard_at, place)
             order by id, place
             on conflict (id) do update set origin = heard_replies.origin
             returning id, origin",
        )
        .bind(heard.iter().map(|reply| reply.id).collect::<Vec<_>>())
        .bind(heard.iter().map(|reply| reply.origin).collect::<Vec<_>>())
        .bind(heard.iter().map(|reply| At(reply.received_at)).collect::<Vec<_>>())
        .fetch_all(&mut *self.inner)
        .await?;
        let first: HashMap<Uuid, Uuid> = first.into_iter().collect();
        Ok(heard
            .iter()
            .filter(|reply| first.get(&reply.id).is_some_and(|origin| *origin != reply.origin))
            .map(|reply| reply.origin)
            .collect())
    }

    /// Forgets which replies came before `before`; how many.
    pub async fn heard_replies_drop(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query("delete from heard_replies where heard_at < $1")
            .bind(At(before))
            .execute(&mut *self.inner)
            .await?;
        Ok(done.rows_affected())
    }

    /// Keeps a gateway's last words on parts: (gateway, id, code).
    pub async fn parts_note(&mut self, codes: &[(String, String, String)]) -> Result<(), StoreError> {
        let last: HashMap<(&str, String), String> = codes
            .iter()
            .map(|(gateway, id, code)| ((gateway.as_str(), match_id(id)), foreign(code)))
            .collect();
        if last.is_empty() {
            return Ok(());
        }
        let mut rows: Vec<_> = last.iter().collect();
        rows.sort_unstable();
        // The rows are locked in the order of their keys, as everywhere.
        sqlx::query(
            "with said as (
                 select v.gateway, v.match_id, v.code from unnest($1::text[], $2::text[], $3::text[]) as v (gateway, match_id, code)
             ), locked as (
                 select p.gateway, p.match_id from message_parts p join said s using (gateway, match_id)
                 order by p.gateway, p.match_id for update of p
             )
             update message_parts p set code = s.code from said s join locked l using (gateway, match_id)
             where p.gateway = s.gateway and p.match_id = s.match_id and p.code is distinct from s.code",
        )
        .bind(rows.iter().map(|row| row.0.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.0.1.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.1.as_str()).collect::<Vec<_>>())
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }
}

impl Store {
    /// Up to `limit` messages that a gateway accepted before `before` and that are still only accepted. It reads the
    /// planning times' BRIN index; ask seldom.
    pub async fn messages_unheard(
        &self,
        gateway: &str,
        before: Timestamp,
        limit: i64,
    ) -> Result<Vec<Unheard>, StoreError> {
        let from = before.checked_sub(LONGEST_WAY).unwrap_or(Timestamp::MIN);
        let rows: Vec<(String, Uuid, At)> = sqlx::query_as(
            "select contact_id, message_id, accepted_at from messages
             where gateway = $1 and state = $2 and accepted_at < $3 and planned_at < $3 and planned_at >= $4
             limit $5",
        )
        .bind(gateway)
        .bind(domain::State::Accepted.code())
        .bind(At(before))
        .bind(At(from))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|(contact_id, message_id, accepted_at)| Unheard {
                contact_id,
                message_id,
                accepted_at: accepted_at.0,
            })
            .collect())
    }
}
