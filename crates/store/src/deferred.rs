//! Records that go onto their topic later: timers, schedules, quiet hours, retries, parked messages of paused campaigns.
//!
//! An id is deterministic, so that deferring twice is deferring once. A row leaves in the transaction of whoever took it,
//! after its record is on the bus: a crash in between appends the record again, and its readers know it by its id.

use domain::{CampaignState, Reason};
use events::{Envelope, Header, Job, Outbound, Record as _, Topic};
use jiff::Timestamp;
use serde_json::Map;
use sqlx::Row;
use uuid::Uuid;

use crate::{
    Store, StoreError, Tx,
    time::{At, at},
};

/// A record to be appended later. Either `due_at` says when, or `parked` says what it waits for.
#[derive(Clone, PartialEq)]
pub struct Deferred {
    /// Deterministic, for example `MESSAGE_ID:defer:2`.
    pub id: String,
    pub due_at: Option<Timestamp>,
    /// `campaign:ID`: until that campaign goes on ([`park_key`]).
    pub parked: Option<String>,
    /// The campaign it belongs to, so that cancelling finds it whatever it waits for.
    pub campaign_id: Option<Uuid>,
    /// The gateway that has too much before it; [`Store::deferred_recall`] makes it due when that has not.
    pub gateway: Option<String>,
    pub topic: Topic,
    pub key: String,
    pub headers: Vec<Header>,
    pub value: Vec<u8>,
}

impl std::fmt::Debug for Deferred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deferred")
            .field("id", &self.id)
            .field("due_at", &self.due_at)
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// What `Deferred::parked` holds for a campaign.
pub fn park_key(campaign: Uuid) -> String {
    format!("campaign:{campaign}")
}

impl Tx {
    /// Defers; an id that is already there stays as it is.
    ///
    /// A record parked for a campaign is parked only while that campaign is paused: the campaign's row is locked
    /// (`for share`), so a resume either sees the parked row or is seen here, and the record is then due at once. That
    /// closes the gap between a dispatcher's look at the campaign and its parking.
    pub async fn deferred_put(&mut self, records: &[Deferred]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut parked_for: Vec<Uuid> = records
            .iter()
            .filter(|record| record.parked.is_some())
            .filter_map(|record| record.campaign_id)
            .collect();
        parked_for.sort_unstable();
        parked_for.dedup();
        let mut paused = Vec::new();
        if !parked_for.is_empty() {
            // `order by id`: two of us lock the same campaigns in the same order.
            paused = sqlx::query_scalar::<_, Uuid>(
                "select id from (select id, state from campaigns where id = any($1) order by id for share) c where state = $2",
            )
            .bind(&parked_for)
            .bind(CampaignState::Paused.as_str())
            .fetch_all(&mut *self.inner)
            .await?;
        }
        let waits = |record: &Deferred| {
            record.parked.is_some() && record.campaign_id.is_none_or(|campaign| paused.contains(&campaign))
        };
        let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
        let due: Vec<Option<At>> = records
            .iter()
            .map(|record| match waits(record) {
                true => None,
                // Due since 1970: at once.
                false => at(record.due_at.or(Some(Timestamp::UNIX_EPOCH))),
            })
            .collect();
        let parked: Vec<Option<&str>> = records
            .iter()
            .map(|record| record.parked.as_deref().filter(|_| waits(record)))
            .collect();
        let campaigns: Vec<Option<Uuid>> = records.iter().map(|record| record.campaign_id).collect();
        let gateways: Vec<Option<&str>> = records.iter().map(|record| record.gateway.as_deref()).collect();
        let topics: Vec<&str> = records.iter().map(|record| record.topic.name()).collect();
        let keys: Vec<&str> = records.iter().map(|record| record.key.as_str()).collect();
        let headers: Vec<serde_json::Value> = records
            .iter()
            .map(|record| serde_json::to_value(&record.headers).unwrap_or_default())
            .collect();
        let values: Vec<&[u8]> = records.iter().map(|record| record.value.as_slice()).collect();
        sqlx::query(
            "insert into deferred (id, due_at, parked, campaign_id, topic, key, headers, value, gateway)
             select * from unnest($1::text[], $2::timestamptz[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::jsonb[], $8::bytea[], $9::text[])
             on conflict (id) do nothing",
        )
        .bind(&ids)
        .bind(&due)
        .bind(&parked)
        .bind(&campaigns)
        .bind(&topics)
        .bind(&keys)
        .bind(&headers)
        .bind(&values)
        .bind(&gateways)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Takes what is due, oldest first, out of the table; rows that another replica is taking are passed over. Append the
    /// records to the bus, then commit.
    pub async fn deferred_take_due(&mut self, now: Timestamp, limit: i64) -> Result<Vec<Deferred>, StoreError> {
        // A topic that a newer version of ours defers for is left to it.
        let topics: Vec<&str> = Topic::ALL.iter().map(|topic| topic.name()).collect();
        let rows = sqlx::query(
            "with due as (
                 select id from deferred where due_at <= $1 and topic = any($3)
                 order by due_at, id limit $2 for update skip locked
             ), taken as (
                 delete from deferred d using due where d.id = due.id
                 returning d.id, d.due_at, d.campaign_id, d.topic, d.key, d.headers, d.value
             )
             select * from taken order by due_at, id",
        )
        .bind(At(now))
        .bind(limit)
        .bind(&topics)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Makes what is parked under `parked` due at once.
    pub async fn deferred_unpark(&mut self, parked: &str) -> Result<u64, StoreError> {
        let done = sqlx::query("update deferred set parked = null, due_at = 'epoch' where parked = $1")
            .bind(parked)
            .execute(&mut *self.inner)
            .await?;
        Ok(done.rows_affected())
    }

    /// Makes everything that waits for a campaign due at once, whatever it waits for: a cancelled campaign's messages go
    /// down the pipeline, where each becomes `cancelled`.
    pub async fn deferred_release_campaign(&mut self, campaign: Uuid) -> Result<u64, StoreError> {
        let done = sqlx::query("update deferred set parked = null, due_at = 'epoch' where campaign_id = $1")
            .bind(campaign)
            .execute(&mut *self.inner)
            .await?;
        Ok(done.rows_affected())
    }

    /// Moves waiting timers to where their triggers' waits put them now: `waits` are triggers by the prefix of their
    /// timers' ids, each with its wait in seconds. Doing it twice moves nothing; the number of rows that moved.
    ///
    /// The prefixes' names are compared for equality, so that an index finds a few triggers' timers and a hash join those of many:
    /// ten thousand triggers and a million waiting timers are gone through once, not ten thousand times.
    pub async fn deferred_align_timers(&mut self, waits: &[(String, i64)]) -> Result<u64, StoreError> {
        if waits.is_empty() {
            return Ok(0);
        }
        let done = sqlx::query(
            "with timers as (
                 select d.id, (convert_from(d.value, 'UTF8')::jsonb->>'event_time')::timestamptz
                              + make_interval(secs => w.seconds) as due_at
                 from unnest($1::text[], $2::bigint[]) w (prefix, seconds)
                 join deferred d on split_part(d.id, ':', 2) = split_part(w.prefix, ':', 2) and d.topic = 'events' and d.due_at is not null
                     and starts_with(d.id, 'timer:')
             )
             update deferred d set due_at = t.due_at from timers t where d.id = t.id and d.due_at <> t.due_at",
        )
        .bind(waits.iter().map(|(prefix, _)| prefix.as_str()).collect::<Vec<_>>())
        .bind(waits.iter().map(|(_, seconds)| *seconds).collect::<Vec<_>>())
        .execute(&mut *self.inner)
        .await?;
        Ok(done.rows_affected())
    }

    /// What waits for contacts that are erased: timers are forgotten; messages that are planned go back to the renderer at
    /// once, without what they hold of the person, and come to be suppressed there, so that everything still adds up.
    pub async fn deferred_drop_contacts(&mut self, contacts: &[&str]) -> Result<u64, StoreError> {
        let rows: Vec<(String, String, serde_json::Value, Vec<u8>)> =
            sqlx::query_as("delete from deferred where key = any($1) returning id, topic, headers, value")
                .bind(contacts)
                .fetch_all(&mut *self.inner)
                .await?;
        let count = rows.len() as u64;
        let jobs: Vec<Deferred> = rows
            .into_iter()
            .filter_map(|(id, topic, headers, value)| suppressed(id, &topic, headers, &value))
            .collect();
        self.deferred_put(&jobs).await?;
        Ok(count)
    }
}

/// A planned message of an erased contact as the job that suppresses it.
fn suppressed(id: String, topic: &str, headers: serde_json::Value, value: &[u8]) -> Option<Deferred> {
    let mut job = match Topic::by_name(topic)? {
        Topic::Jobs => Job::from_bytes(Job::KIND, value).ok()?,
        Topic::OutboundTransactional | Topic::OutboundBulk => {
            let outbound = Outbound::from_bytes(Outbound::KIND, value).ok()?;
            Job {
                message_id: outbound.message_id,
                contact_id: outbound.contact_id,
                cause: outbound.cause,
                template: outbound.template,
                caused_at: outbound.caused_at,
                planned_at: outbound.planned_at,
                deadline: None,
                event: Map::new(),
                values: Map::new(),
                deferrals: 0,
                suppress: None,
                phone: None,
            }
        }
        _ => return None,
    };
    job.event.clear();
    job.values.clear();
    job.suppress = Some(Reason::UnknownContact);
    let headers: Vec<Header> = serde_json::from_value(headers).unwrap_or_default();
    let envelope = Envelope {
        id: job.message_id.to_string(),
        source: "tamtam".into(),
        kind: Job::KIND.into(),
        time: Some(job.planned_at),
        subject: Some(job.contact_id.clone()),
        traceparent: headers
            .into_iter()
            .find(|(name, _)| name == "traceparent")
            .map(|(_, value)| value.into_owned()),
    };
    Some(Deferred {
        id,
        due_at: Some(Timestamp::UNIX_EPOCH),
        parked: None,
        campaign_id: None,
        gateway: None,
        topic: Topic::Jobs,
        key: job.contact_id.clone(),
        headers: envelope.into_headers(),
        value: job.to_bytes(),
    })
}

impl Store {
    /// When the next record is due, if any is.
    pub async fn deferred_next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let due: Option<At> = sqlx::query_scalar("select min(due_at) from deferred where due_at is not null")
            .fetch_one(&self.pool)
            .await?;
        Ok(due.map(|due| due.0))
    }

    /// Makes records that were put off for a gateway due at once, those that have waited longest first: for each gateway at
    /// most so many. How many there were.
    pub async fn deferred_recall(&self, gateways: &[(String, u32)], now: Timestamp) -> Result<u64, StoreError> {
        if gateways.is_empty() {
            return Ok(0);
        }
        let done = sqlx::query(
            "update deferred set due_at = $3 where id in (
                 select d.id from unnest($1::text[], $2::int8[]) g (name, most), lateral (
                     select id from deferred where gateway = g.name and due_at > $3
                     order by due_at limit g.most for update skip locked
                 ) d
             )",
        )
        .bind(gateways.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
        .bind(gateways.iter().map(|(_, most)| i64::from(*most)).collect::<Vec<_>>())
        .bind(At(now))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// How many records wait, and how many of them are parked.
    pub async fn deferred_count(&self) -> Result<(i64, i64), StoreError> {
        Ok(sqlx::query_as("select count(*), count(parked) from deferred")
            .fetch_one(&self.pool)
            .await?)
    }
}

fn read(row: &sqlx::postgres::PgRow) -> Result<Deferred, StoreError> {
    let topic: String = row.try_get("topic")?;
    let headers: serde_json::Value = row.try_get("headers")?;
    Ok(Deferred {
        id: row.try_get("id")?,
        due_at: row.try_get::<Option<At>, _>("due_at")?.map(|due| due.0),
        parked: None,
        campaign_id: row.try_get("campaign_id")?,
        gateway: None,
        topic: Topic::by_name(&topic)
            .ok_or_else(|| StoreError::Corrupt("a deferred record is for a topic that does not exist".into()))?,
        key: row.try_get("key")?,
        headers: serde_json::from_value(headers)
            .map_err(|_| StoreError::Corrupt("a deferred record's headers are no list of pairs".into()))?,
        value: row.try_get("value")?,
    })
}
