//! What customers did, once per (contact, source, event id).

use std::collections::{HashMap, HashSet};

use events::BusinessEvent;
use jiff::Timestamp;
use serde_json::{Map, Value};
use sqlx::{Row, types::Json};

use crate::{
    StoreError, Tx,
    fresh::Fresh,
    time::{At, at},
    trigger_log::EventKey,
};

/// Notes which of these ids are no contact's (see the table `strangers`).
const STRANGERS: &str = "insert into strangers select distinct id from unnest($1::text[]) n (id)
     where not exists (select from contacts c where c.id = n.id) order by 1 on conflict do nothing";

impl Tx {
    /// Which of these events are not there; of the same one twice the first is not.
    pub async fn history_unknown(&mut self, events: &[&BusinessEvent]) -> Result<Vec<bool>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let column = |of: fn(&BusinessEvent) -> &str| events.iter().map(|event| of(event)).collect::<Vec<_>>();
        let rows = sqlx::query(
            "select v.number from unnest($1::text[], $2::text[], $3::text[])
                 with ordinality as v (contact_id, source, event_id, number) cross join lateral (
                 select from history h
                 where h.contact_id = v.contact_id and h.source = v.source and h.event_id = v.event_id offset 0
             ) h",
        )
        .bind(column(|event| &event.contact_id))
        .bind(column(|event| &event.source))
        .bind(column(|event| &event.id))
        .fetch_all(&mut *self.inner)
        .await?;
        let known: HashSet<i64> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let mut seen = HashSet::new();
        Ok(events
            .iter()
            .zip(1..)
            .map(|(event, number)| {
                seen.insert((&event.contact_id, &event.source, &event.id)) && !known.contains(&number)
            })
            .collect())
    }

    /// Writes events; the answer says for each whether it is new. Of the same event twice in one call the first is new.
    pub async fn history_put(&mut self, events: &[BusinessEvent]) -> Result<Vec<bool>, StoreError> {
        let events: Vec<(&BusinessEvent, i32)> = events.iter().map(|event| (event, 0)).collect();
        self.history_insert(&events).await
    }

    /// Writes events that should not be there, each with how many messages it has started. `false`: one is there, and others
    /// may have decided otherwise.
    pub async fn history_put_planned(&mut self, events: &[(&BusinessEvent, i32)]) -> Result<bool, StoreError> {
        Ok(!self.history_insert(events).await?.contains(&false))
    }

    async fn history_insert(&mut self, events: &[(&BusinessEvent, i32)]) -> Result<Vec<bool>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let column = |of: fn(&BusinessEvent) -> &str| events.iter().map(|(event, _)| of(event)).collect::<Vec<_>>();
        let times: Vec<At> = events.iter().map(|(event, _)| At(event.time)).collect();
        let data: Vec<Json<&Map<String, Value>>> = events.iter().map(|(event, _)| Json(&event.data)).collect();
        let planned: Vec<i32> = events.iter().map(|(_, planned)| *planned).collect();
        // In key order, so that two batches with the same events wait for each other and do not deadlock.
        const INSERT: &str = "insert into history (contact_id, source, event_id, type, time, data, planned)
             select distinct on (1, 2, 3) * from unnest($1::text[], $2::text[], $3::text[], $4::text[],
                 $5::timestamptz[], $6::jsonb[], $7::integer[])
             order by 1, 2, 3";
        let bound = |statement: String| {
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .bind(column(|event| &event.contact_id))
                .bind(column(|event| &event.source))
                .bind(column(|event| &event.id))
                .bind(column(|event| &event.kind))
                .bind(&times)
                .bind(&data)
                .bind(&planned)
        };
        let key = |event: &BusinessEvent| (event.contact_id.clone(), event.source.clone(), event.id.clone());
        let plainly = bound(format!("with written as ({INSERT}) {STRANGERS}"));
        let mut new: HashSet<(String, String, String)> =
            match self.insert_fresh(Fresh::History, events.len(), plainly).await? {
                true => events.iter().map(|(event, _)| key(event)).collect(),
                false => {
                    let new: HashSet<_> = bound(format!(
                        "{INSERT} on conflict do nothing returning contact_id, source, event_id"
                    ))
                    .fetch_all(&mut *self.inner)
                    .await?
                    .iter()
                    .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
                    .collect::<Result<_, sqlx::Error>>()?;
                    if !new.is_empty() {
                        sqlx::query(STRANGERS)
                            .bind(column(|event| &event.contact_id))
                            .execute(&mut *self.inner)
                            .await?;
                    }
                    new
                }
            };
        Ok(events.iter().map(|(event, _)| new.remove(&key(event))).collect())
    }

    /// Adds to how many messages events have started.
    pub async fn history_planned_add(&mut self, counts: &[(EventKey<'_>, i32)]) -> Result<(), StoreError> {
        if counts.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "update history h set planned = h.planned + c.planned
             from (select contact_id, source, event_id, sum(planned)::integer as planned
                   from unnest($1::text[], $2::text[], $3::text[], $4::integer[]) u (contact_id, source, event_id, planned)
                   group by 1, 2, 3) c
             where h.contact_id = c.contact_id and h.source = c.source and h.event_id = c.event_id",
        )
        .bind(counts.iter().map(|(key, _)| key.contact_id).collect::<Vec<_>>())
        .bind(counts.iter().map(|(key, _)| key.source).collect::<Vec<_>>())
        .bind(counts.iter().map(|(key, _)| key.event_id).collect::<Vec<_>>())
        .bind(counts.iter().map(|(_, planned)| *planned).collect::<Vec<_>>())
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// What these contacts did of these types, from `since` on where it is given, oldest first.
    pub async fn history_for(
        &mut self,
        contacts: &[&str],
        types: &[&str],
        since: Option<Timestamp>,
    ) -> Result<HashMap<String, Vec<BusinessEvent>>, StoreError> {
        if contacts.is_empty() || types.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = sqlx::query(
            "select h.* from (select distinct id from unnest($1::text[]) as v (id)) v cross join lateral (
                 select contact_id, source, event_id, type, time, data from history
                 where contact_id = v.id and type = any($2) and ($3::timestamptz is null or time >= $3) offset 0
             ) h order by h.contact_id, h.time, h.source, h.event_id",
        )
        .bind(contacts)
        .bind(types)
        .bind(at(since))
        .fetch_all(&mut *self.inner)
        .await?;
        let mut past: HashMap<String, Vec<BusinessEvent>> = HashMap::new();
        for row in &rows {
            let event = BusinessEvent {
                id: row.try_get("event_id")?,
                source: row.try_get("source")?,
                kind: row.try_get("type")?,
                contact_id: row.try_get("contact_id")?,
                time: row.try_get::<At, _>("time")?.0,
                data: match row.try_get("data")? {
                    Value::Object(data) => data,
                    _ => Map::new(),
                },
            };
            past.entry(event.contact_id.clone()).or_default().push(event);
        }
        Ok(past)
    }
}
