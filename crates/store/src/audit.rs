//! The conservation check (guarantee 5), and what a row of the ledger must look like.
//!
//! Everything is read in one snapshot. What is planned is committed before any of its jobs is on the bus, and the ledger's
//! rows come after, so a snapshot of a running system never shows a message before its plan.

use jiff::{SignedDuration, Timestamp};
use sqlx::{Row, postgres::PgRow};

use crate::{
    Store, StoreError,
    planned::LONGEST_WAY,
    time::{At, at},
};

/// What the audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    pub violations: i64,
    /// Campaigns, events and messages that were looked at.
    pub checked: i64,
    /// Messages that are planned and still on their way.
    pub pending: i64,
    /// The violations of each kind, up to the limit that was asked for.
    pub examples: Vec<Violation>,
}

/// One violation, without phones and texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: &'static str,
    pub id: String,
    pub detail: String,
    /// Of a campaign: the messages that are concerned, as far as they are in the ledger and as the limit allows.
    pub messages: Vec<String>,
    /// Those that were planned and have no message, as far as they are still known.
    pub contacts: Vec<String>,
}

struct Check {
    kind: &'static str,
    /// Gives `id`, `detail` and the `total` number of violations, and `messages` and `contacts` where it knows any. $1 and
    /// $2: the period; null is open. $3: how many of each. `{stale}`, `{lost}`: the times below.
    sql: &'static str,
}

/// How many violations of each kind are told where nobody says how many.
pub const AUDIT_LIMIT: i64 = 100;

/// A claim that is older than this will not be answered: its dispatcher is gone, and nobody was handed its record.
const STALE: SignedDuration = SignedDuration::from_hours(1);

/// A decision of `trigger_log` (l) without a message that is on its way nowhere: no topic keeps its record any more, and
/// nothing brings it back later.
const LOST_PLAN: &str = "not exists (select from messages m where m.contact_id = l.contact_id and m.trigger = l.trigger
                  and m.event_source = l.event_source and m.event_id = l.event_id)
              and l.planned_at < now() - {lost}
              and not exists (select from deferred d where d.key = l.contact_id and d.topic <> 'events')";

/// The same of a message (m) that was written down with its plan.
const LOST_MESSAGE: &str = "m.state = 0 and m.planned_at < now() - {lost}
              and not exists (select from deferred d where d.key = m.contact_id and starts_with(d.id, m.message_id::text))";

const CHECKS: &[Check] = &[
    Check {
        kind: "campaign-chunks",
        sql: "select c.id::text as id, format('planned is %s, its chunks hold %s', c.planned, k.planned) as detail, count(*) over () as total
              from campaigns c
              cross join lateral (select coalesce(sum(planned), 0) as planned from campaign_chunks where campaign_id = c.id) k
              where c.planned <> k.planned
                and ($1 is null or c.created_at >= $1) and ($2 is null or c.created_at < $2)",
    },
    Check {
        kind: "campaign-more-than-planned",
        sql: "select c.id::text as id, format('planned %s, the ledger has %s', c.planned, m.rows) as detail, count(*) over () as total,
                  array(select message_id::text from messages m
                        where m.campaign_id = c.id and not exists (select from campaign_chunks k
                            where k.campaign_id = c.id and k.after_contact < m.contact_id and k.last_contact >= m.contact_id)
                        order by 1 limit $3) as messages
              from campaigns c
              cross join lateral (select count(*) as rows from messages where campaign_id = c.id) m
              where m.rows > c.planned
                and ($1 is null or c.created_at >= $1) and ($2 is null or c.created_at < $2)",
    },
    Check {
        kind: "campaign-finished-with-messages-on-their-way",
        sql: "select c.id::text as id, format('planned %s, settled %s', c.planned, m.rows) as detail, count(*) over () as total,
                  array(select message_id::text from messages where campaign_id = c.id and state < 30
                        order by 1 limit $3) as messages,
                  array(select contact from campaign_chunks k cross join unnest(k.contacts) as contact
                        where k.campaign_id = c.id and not exists (select from messages m
                            where m.campaign_id = c.id and m.contact_id = contact)
                        order by 1 limit $3) as contacts
              from campaigns c
              cross join lateral (select count(*) as rows from messages where campaign_id = c.id and state >= 30) m
              where c.state = 'finished' and c.expanded_at is not null and m.rows < c.planned
                and ($1 is null or c.created_at >= $1) and ($2 is null or c.created_at < $2)",
    },
    Check {
        kind: "message-of-no-campaign",
        sql: "select m.message_id::text as id, format('campaign %s is not there', m.campaign_id) as detail, count(*) over () as total
              from messages m
              where m.campaign_id is not null and not exists (select from campaigns c where c.id = m.campaign_id)
                and ($1 is null or m.planned_at >= $1) and ($2 is null or m.planned_at < $2)",
    },
    Check {
        kind: "event-planned",
        sql: "select h.event_id as id, format('source %s: planned %s, decided %s', h.source, h.planned, l.firings) as detail, count(*) over () as total
              from history h
              cross join lateral (select count(*) as firings from trigger_log l
                  where l.contact_id = h.contact_id and l.event_source = h.source and l.event_id = h.event_id) l
              where h.planned <> l.firings
                and ($1 is null or h.time >= $1) and ($2 is null or h.time < $2)",
    },
    Check {
        kind: "event-more-than-planned",
        sql: "select l.event_id as id, format('source %s, trigger %s: %s messages', l.event_source, l.trigger, count(*)) as detail,
                  count(*) over () as total
              from trigger_log l
              join messages m on m.contact_id = l.contact_id and m.trigger = l.trigger
                  and m.event_source = l.event_source and m.event_id = l.event_id
              where ($1 is null or l.planned_at >= $1) and ($2 is null or l.planned_at < $2)
              group by l.contact_id, l.trigger, l.event_source, l.event_id having count(*) > 1",
    },
    Check {
        kind: "message-of-no-event",
        sql: "select m.message_id::text as id, format('trigger %s did not decide on event %s of %s', m.trigger, m.event_id, m.event_source) as detail,
                  count(*) over () as total
              from messages m
              where m.trigger is not null and m.campaign_id is null and not exists (select from trigger_log l
                  where l.contact_id = m.contact_id and l.trigger = m.trigger
                    and l.event_source = m.event_source and l.event_id = m.event_id)
                and ($1 is null or m.planned_at >= $1) and ($2 is null or m.planned_at < $2)",
    },
    Check {
        kind: "event-message-lost",
        sql: "select l.event_id as id, format('source %s, trigger %s: planned at %s, and never decided on', l.event_source, l.trigger, l.planned_at) as detail,
                  count(*) over () as total, array[l.contact_id] as contacts
              from trigger_log l
              where {lost_plan}
                and ($1 is null or l.planned_at >= $1) and ($2 is null or l.planned_at < $2)",
    },
    Check {
        kind: "message-lost",
        sql: "select m.message_id::text as id, format('planned at %s, and never decided on', m.planned_at) as detail, count(*) over () as total
              from messages m
              where {lost_message}
                and ($1 is null or m.planned_at >= $1) and ($2 is null or m.planned_at < $2)",
    },
    Check {
        kind: "message-twice",
        sql: "select message_id::text as id, format('%s rows', count(*)) as detail, count(*) over () as total
              from messages m
              where ($1 is null or m.planned_at >= $1) and ($2 is null or m.planned_at < $2)
              group by message_id having count(*) > 1",
    },
    Check {
        kind: "message-malformed",
        sql: "select m.message_id::text as id, format('state %s: %s', m.state, concat_ws(', ',
                  case when (m.state >= 50) <> (m.settled_at is not null) then 'settled_at does not fit' end,
                  case when m.state = 40 and (m.gateway is null or m.accepted_at is null) then 'accepted by nobody' end,
                  case when m.state = 20 and (m.owner is null or m.claimed_at is null) then 'claimed by nobody' end,
                  case when m.state in (30, 51, 52, 53, 54) and m.reason is null then 'no reason' end,
                  case when m.state not in (0, 10, 20, 30, 40, 50, 51, 52, 53, 54) then 'no such state' end)) as detail,
                  count(*) over () as total
              from messages m
              where ((m.state >= 50) <> (m.settled_at is not null)
                  or (m.state = 40 and (m.gateway is null or m.accepted_at is null))
                  or (m.state = 20 and (m.owner is null or m.claimed_at is null))
                  or (m.state in (30, 51, 52, 53, 54) and m.reason is null)
                  or m.state not in (0, 10, 20, 30, 40, 50, 51, 52, 53, 54))
                and ($1 is null or m.planned_at >= $1) and ($2 is null or m.planned_at < $2)",
    },
    Check {
        kind: "claim-never-answered",
        sql: "select m.message_id::text as id, format('attempt %s was claimed at %s and never answered', m.attempt, m.claimed_at) as detail,
                  count(*) over () as total
              from messages m
              where m.state = 20 and m.claimed_at < now() - {stale}
                and ($1 is null or m.planned_at >= $1) and ($2 is null or m.planned_at < $2)",
    },
];

/// The checks' times, and the bounds' type, which is not inferred from `$1 is null`.
fn complete(sql: &str) -> String {
    let interval = |time: SignedDuration| format!("interval '{} s'", time.as_secs());
    sql.replace("{lost_plan}", LOST_PLAN)
        .replace("{lost_message}", LOST_MESSAGE)
        .replace("{stale}", &interval(STALE))
        .replace("{lost}", &interval(LONGEST_WAY))
        .replace("$1", "$1::timestamptz")
        .replace("$2", "$2::timestamptz")
        .replace("$3", "$3::int8")
}

fn violation(kind: &'static str, row: &PgRow) -> Result<Violation, StoreError> {
    // Only checks of campaigns and events have them.
    let ids = |name: &str| match row.try_get(name) {
        Err(sqlx::Error::ColumnNotFound(_)) => Ok(Vec::new()),
        found => found,
    };
    Ok(Violation {
        kind,
        id: row.try_get("id")?,
        detail: row.try_get("detail")?,
        messages: ids("messages")?,
        contacts: ids("contacts")?,
    })
}

impl Store {
    /// Compares what campaigns and events planned with what the ledger holds. Campaigns are taken by when they were made,
    /// events by their time, messages by when they were planned; without bounds all are. Of each kind of violation up to
    /// [`AUDIT_LIMIT`] are told, all are counted.
    pub async fn audit(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> Result<Audit, StoreError> {
        self.audit_up_to(since, until, AUDIT_LIMIT).await
    }

    /// The same with up to `limit` of each kind told.
    pub async fn audit_up_to(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        limit: i64,
    ) -> Result<Audit, StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("set transaction isolation level repeatable read, read only")
            .execute(&mut *tx.inner)
            .await?;
        let mut audit = Audit::default();
        for check in CHECKS {
            let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
                "{} order by 1, 2 limit $3",
                complete(check.sql)
            )))
            .persistent(false)
            .bind(at(since))
            .bind(at(until))
            .bind(limit)
            .fetch_all(&mut *tx.inner)
            .await?;
            if let Some(first) = rows.first() {
                audit.violations += first.try_get::<i64, _>("total")?;
            }
            for row in &rows {
                audit.examples.push(violation(check.kind, row)?);
            }
        }
        let figures = "with period as (select coalesce($1, '-infinity') as since, coalesce($2, 'infinity') as until),
             m as (
                 select count(*) as rows,
                     count(*) filter (where m.state < 30 and m.campaign_id is null and not ({lost_message})) as pending
                 from messages m, period where m.planned_at >= since and m.planned_at < until
             ), c as (
                 select count(*) as rows, coalesce(sum(greatest(c.planned - s.settled, 0)), 0)::int8 as pending
                 from period, campaigns c
                 cross join lateral (select count(*) as settled from messages where campaign_id = c.id and state >= 30) s
                 where c.created_at >= since and c.created_at < until
             ), h as (
                 select count(*) as rows from history, period where time >= since and time < until
             ), l as (
                 select count(*) as pending from trigger_log l, period
                 where l.planned_at >= since and l.planned_at < until and not exists (select from messages m
                     where m.contact_id = l.contact_id and m.trigger = l.trigger
                       and m.event_source = l.event_source and m.event_id = l.event_id)
                   and not ({lost_plan})
             )
             select m.rows + c.rows + h.rows, m.pending + c.pending + l.pending from m, c, h, l";
        (audit.checked, audit.pending) = sqlx::query_as(sqlx::AssertSqlSafe(complete(figures)))
            .persistent(false)
            .bind(since.map(At))
            .bind(until.map(At))
            .fetch_one(&mut *tx.inner)
            .await?;
        Ok(audit)
    }
}
