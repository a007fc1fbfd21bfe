//! The conservation check (guarantee 5), and what a row of the ledger must look like.
//!
//! Everything is read in one snapshot. What is planned is committed before any of its jobs is on the bus, and the ledger's
//! rows come after, so a snapshot of a running system never shows a message before its plan.

use jiff::Timestamp;
use sqlx::Row;

use crate::{
    Store, StoreError,
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
    /// Some of the violations of each kind.
    pub examples: Vec<Violation>,
}

/// One violation, without phones and texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: &'static str,
    pub id: String,
    pub detail: String,
}

struct Check {
    kind: &'static str,
    /// Gives `id`, `detail` and the `total` number of violations, for up to ten of them. $1 and $2: the period; null
    /// is open.
    sql: &'static str,
}

/// A claim that is older than this will not be answered: its dispatcher is gone, and nobody was handed its record.
const STALE: &str = "1 hour";

const CHECKS: &[Check] = &[
    Check {
        kind: "campaign-chunks",
        sql: "select c.id::text as id, format('planned is %s, its chunks hold %s', c.planned, k.planned) as detail, count(*) over () as total
              from campaigns c
              cross join lateral (select coalesce(sum(planned), 0) as planned from campaign_chunks where campaign_id = c.id) k
              where c.planned <> k.planned
                and ($1 is null or c.created_at >= $1) and ($2 is null or c.created_at < $2)
              limit 10",
    },
    Check {
        kind: "campaign-more-than-planned",
        sql: "select c.id::text as id, format('planned %s, the ledger has %s', c.planned, m.rows) as detail, count(*) over () as total
              from campaigns c
              cross join lateral (select count(*) as rows from messages where campaign_id = c.id) m
              where m.rows > c.planned
                and ($1 is null or c.created_at >= $1) and ($2 is null or c.created_at < $2)
              limit 10",
    },
    Check {
        kind: "campaign-finished-with-messages-on-their-way",
        sql: "select c.id::text as id, format('planned %s, settled %s', c.planned, m.rows) as detail, count(*) over () as total
              from campaigns c
              cross join lateral (select count(*) as rows from messages where campaign_id = c.id and state >= 30) m
              where c.state = 'finished' and c.expanded_at is not null and m.rows < c.planned
                and ($1 is null or c.created_at >= $1) and ($2 is null or c.created_at < $2)
              limit 10",
    },
    Check {
        kind: "message-of-no-campaign",
        sql: "select m.message_id::text as id, format('campaign %s is not there', m.campaign_id) as detail, count(*) over () as total
              from messages m
              where m.campaign_id is not null and not exists (select from campaigns c where c.id = m.campaign_id)
                and ($1 is null or m.planned_at >= $1) and ($2 is null or m.planned_at < $2)
              limit 10",
    },
    Check {
        kind: "event-planned",
        sql: "select h.event_id as id, format('source %s: planned %s, decided %s', h.source, h.planned, l.firings) as detail, count(*) over () as total
              from history h
              cross join lateral (select count(*) as firings from trigger_log l
                  where l.contact_id = h.contact_id and l.event_source = h.source and l.event_id = h.event_id) l
              where h.planned <> l.firings
                and ($1 is null or h.time >= $1) and ($2 is null or h.time < $2)
              limit 10",
    },
    Check {
        kind: "event-more-than-planned",
        sql: "select l.event_id as id, format('source %s, trigger %s: %s messages', l.event_source, l.trigger, count(*)) as detail,
                  count(*) over () as total
              from trigger_log l
              join messages m on m.contact_id = l.contact_id and m.trigger = l.trigger
                  and m.event_source = l.event_source and m.event_id = l.event_id
              where ($1 is null or l.planned_at >= $1) and ($2 is null or l.planned_at < $2)
              group by l.contact_id, l.trigger, l.event_source, l.event_id having count(*) > 1
              limit 10",
    },
    Check {
        kind: "message-of-no-event",
        sql: "select m.message_id::text as id, format('trigger %s did not decide on event %s of %s', m.trigger, m.event_id, m.event_source) as detail,
                  count(*) over () as total
              from messages m
              where m.trigger is not null and m.campaign_id is null and not exists (select from trigger_log l
                  where l.contact_id = m.contact_id and l.trigger = m.trigger
                    and l.event_source = m.event_source and l.event_id = m.event_id)
                and ($1 is null or m.planned_at >= $1) and ($2 is null or m.planned_at < $2)
              limit 10",
    },
    Check {
        kind: "message-twice",
        sql: "select message_id::text as id, format('%s rows', count(*)) as detail, count(*) over () as total
              from messages m
              where ($1 is null or m.planned_at >= $1) and ($2 is null or m.planned_at < $2)
              group by message_id having count(*) > 1
              limit 10",
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
                and ($1 is null or m.planned_at >= $1) and ($2 is null or m.planned_at < $2)
              limit 10",
    },
];

const STALE_CLAIMS: &str =
    "select m.message_id::text as id, format('attempt %s was claimed at %s and never answered', m.attempt, m.claimed_at) as detail,
         count(*) over () as total
     from messages m
     where m.state = 20 and m.claimed_at < now() - $3::text::interval
       and ($1 is null or m.planned_at >= $1) and ($2 is null or m.planned_at < $2)
     limit 10";

impl Store {
    /// Compares what campaigns and events planned with what the ledger holds. Campaigns are taken by when they were made,
    /// events by their time, messages by when they were planned; without bounds all are.
    pub async fn audit(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> Result<Audit, StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("set transaction isolation level repeatable read, read only")
            .execute(&mut *tx.inner)
            .await?;
        let mut audit = Audit::default();
        let checks = CHECKS.iter().map(|check| (check.kind, check.sql));
        for (kind, sql) in checks.chain([("claim-never-answered", STALE_CLAIMS)]) {
            // The bounds' type is not inferred from `$1 is null`.
            let sql = sql.replace("$1", "$1::timestamptz").replace("$2", "$2::timestamptz");
            let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(at(since)).bind(at(until));
            if kind == "claim-never-answered" {
                query = query.bind(STALE);
            }
            let rows = query.persistent(false).fetch_all(&mut *tx.inner).await?;
            if let Some(first) = rows.first() {
                audit.violations += first.try_get::<i64, _>("total")?;
            }
            for row in &rows {
                audit.examples.push(Violation {
                    kind,
                    id: row.try_get("id")?,
                    detail: row.try_get("detail")?,
                });
            }
        }
        (audit.checked, audit.pending) = sqlx::query_as(
            "with period as (select coalesce($1::timestamptz, '-infinity') as since, coalesce($2::timestamptz, 'infinity') as until),
             m as (
                 select count(*) as rows, count(*) filter (where state < 30 and campaign_id is null) as pending
                 from messages, period where planned_at >= since and planned_at < until
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
             )
             select m.rows + c.rows + h.rows, m.pending + c.pending + l.pending from m, c, h, l",
        )
        .persistent(false)
        .bind(since.map(At))
        .bind(until.map(At))
        .fetch_one(&mut *tx.inner)
        .await?;
        Ok(audit)
    }
}
