//! What each (trigger, event) decided to send to a contact.
//!
//! The decision is written once, in the transaction that records the event (or fires the timer). An event that is
//! delivered again is not decided again: what is written here is emitted again, whatever became of the trigger, the
//! contact or the clock in between.

use std::collections::{HashMap, HashSet};

use domain::Reason;
use jiff::Timestamp;
use serde_json::{Map, Value};
use sqlx::Row;

use crate::{
    StoreError, Tx,
    fresh::Fresh,
    time::{At, at},
};

/// One message that an event started.
#[derive(Clone, Debug, PartialEq)]
pub struct Firing {
    pub contact_id: String,
    pub trigger: String,
    pub event_source: String,
    pub event_id: String,
    pub template: String,
    /// The event's time.
    pub caused_at: Timestamp,
    pub planned_at: Timestamp,
    pub deadline: Option<Timestamp>,
    /// The trigger's own values.
    pub vars: Map<String, Value>,
    pub suppress: Option<Reason>,
}

/// An event's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventKey<'a> {
    pub contact_id: &'a str,
    pub source: &'a str,
    pub event_id: &'a str,
}

impl Tx {
    /// Writes decisions; one that is there already stays. The answer says for each whether it is new.
    pub async fn trigger_log_put(&mut self, firings: &[Firing]) -> Result<Vec<bool>, StoreError> {
        if firings.is_empty() {
            return Ok(Vec::new());
        }
        let column = |of: fn(&Firing) -> &str| firings.iter().map(of).collect::<Vec<_>>();
        let caused: Vec<At> = firings.iter().map(|firing| At(firing.caused_at)).collect();
        let planned: Vec<At> = firings.iter().map(|firing| At(firing.planned_at)).collect();
        let deadlines: Vec<Option<At>> = firings.iter().map(|firing| at(firing.deadline)).collect();
        let vars: Vec<Value> = firings
            .iter()
            .map(|firing| Value::Object(firing.vars.clone()))
            .collect();
        let suppress: Vec<Option<&str>> = firings
            .iter()
            .map(|firing| firing.suppress.map(Reason::as_str))
            .collect();
        // In key order, so that two of us wait for each other and do not deadlock.
        let bound = |on_conflict: &str| {
            sqlx::query(sqlx::AssertSqlSafe(format!(
                "insert into trigger_log (contact_id, trigger, event_source, event_id, template, caused_at, planned_at,
                     deadline, vars, suppress)
                 select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
                                      $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::jsonb[], $10::text[])
                 order by 1, 2, 3, 4 {on_conflict}"
            )))
            .bind(column(|firing| &firing.contact_id))
            .bind(column(|firing| &firing.trigger))
            .bind(column(|firing| &firing.event_source))
            .bind(column(|firing| &firing.event_id))
            .bind(column(|firing| &firing.template))
            .bind(&caused)
            .bind(&planned)
            .bind(&deadlines)
            .bind(&vars)
            .bind(&suppress)
        };
        if self.insert_fresh(Fresh::TriggerLog, firings.len(), bound("")).await? {
            return Ok(vec![true; firings.len()]);
        }
        let rows = bound("on conflict do nothing returning contact_id, trigger, event_source, event_id")
            .fetch_all(&mut *self.inner)
            .await?;
        let mut new: HashSet<(String, String, String, String)> = rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)))
            .collect::<Result<_, sqlx::Error>>()?;
        let key = |firing: &Firing| {
            (
                firing.contact_id.clone(),
                firing.trigger.clone(),
                firing.event_source.clone(),
                firing.event_id.clone(),
            )
        };
        Ok(firings.iter().map(|firing| new.remove(&key(firing))).collect())
    }

    /// What these events have started so far.
    pub async fn trigger_log_for(&mut self, events: &[EventKey<'_>]) -> Result<Vec<Firing>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(
            "select l.* from unnest($1::text[], $2::text[], $3::text[]) e (contact_id, source, event_id) cross join lateral (
                 select * from trigger_log t
                 where t.contact_id = e.contact_id and t.event_source = e.source and t.event_id = e.event_id offset 0
             ) l order by l.contact_id, l.event_source, l.event_id, l.trigger",
        )
        .bind(events.iter().map(|event| event.contact_id).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.source).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.event_id).collect::<Vec<_>>())
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter()
            .map(|row| {
                let suppress: Option<String> = row.try_get("suppress")?;
                Ok(Firing {
                    contact_id: row.try_get("contact_id")?,
                    trigger: row.try_get("trigger")?,
                    event_source: row.try_get("event_source")?,
                    event_id: row.try_get("event_id")?,
                    template: row.try_get("template")?,
                    caused_at: row.try_get::<At, _>("caused_at")?.0,
                    planned_at: row.try_get::<At, _>("planned_at")?.0,
                    deadline: row.try_get::<Option<At>, _>("deadline")?.map(|at| at.0),
                    vars: match row.try_get("vars")? {
                        Value::Object(vars) => vars,
                        _ => Map::new(),
                    },
                    suppress: suppress
                        .map(|reason| reason.parse())
                        .transpose()
                        .map_err(|_| StoreError::Corrupt("a trigger's reason is none of ours".into()))?,
                })
            })
            .collect()
    }

    /// When each (contact, trigger) last planned a message that was not suppressed from the start.
    pub async fn trigger_log_latest(
        &mut self,
        pairs: &[(String, String)],
    ) -> Result<HashMap<(String, String), Timestamp>, StoreError> {
        if pairs.is_empty() {
            return Ok(HashMap::new());
        }
        let rows: Vec<(String, String, At)> = sqlx::query_as(
            "select l.contact_id, l.trigger, max(l.planned_at)
             from unnest($1::text[], $2::text[]) p (contact_id, trigger) cross join lateral (
                 select * from trigger_log t
                 where t.contact_id = p.contact_id and t.trigger = p.trigger and t.suppress is null offset 0
             ) l group by 1, 2",
        )
        .bind(pairs.iter().map(|pair| pair.0.as_str()).collect::<Vec<_>>())
        .bind(pairs.iter().map(|pair| pair.1.as_str()).collect::<Vec<_>>())
        .fetch_all(&mut *self.inner)
        .await?;
        Ok(rows
            .into_iter()
            .map(|(contact, trigger, latest)| ((contact, trigger), latest.0))
            .collect())
    }
}
