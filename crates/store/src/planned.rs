//! Messages that are planned for a contact and have no row in the ledger yet: they are on their way to whoever decides on
//! them, and until then only what planned them knows of them.
//!
//! A trigger's decision is in `trigger_log`. Of a campaign there is the list of the chunk that the contact falls in. What a
//! system asked for directly has a row from the start.

use domain::{CampaignState, Cause, Reason};
use jiff::{SignedDuration, Timestamp};
use sqlx::Row;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    time::{At, from_at},
};

/// As long as the topics keep a record that nobody read: what was planned before is on its way nowhere.
pub const LONGEST_WAY: SignedDuration = SignedDuration::from_hours(8 * 24);

/// A message that is planned and not in the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub contact_id: String,
    pub cause: Cause,
    pub template: String,
    /// The event's time, or the campaign's launch.
    pub caused_at: Timestamp,
    pub planned_at: Timestamp,
    pub deadline: Option<Timestamp>,
    /// Why it will be suppressed, where that was decided with the plan.
    pub suppress: Option<Reason>,
    /// Where a campaign planned it.
    pub campaign: Option<PlannedBy>,
}

/// The campaign that planned a message.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedBy {
    pub name: String,
    pub state: CampaignState,
    /// When the record was put on the bus; absent: it is about to be.
    pub on_bus_at: Option<Timestamp>,
}

impl Store {
    /// Up to `limit` messages that are planned for a contact and not in the ledger, the newest first.
    pub async fn messages_planned(
        &self,
        contact_id: &str,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<Planned>, StoreError> {
        let since = now.checked_sub(LONGEST_WAY).unwrap_or(Timestamp::MIN);
        let mut planned = self.planned_by_triggers(contact_id, since, limit).await?;
        planned.extend(self.planned_by_campaigns(contact_id, since, limit).await?);
        planned.sort_by_key(|message| std::cmp::Reverse(message.planned_at));
        planned.truncate(usize::try_from(limit).unwrap_or(0));
        Ok(planned)
    }

    async fn planned_by_triggers(
        &self,
        contact_id: &str,
        since: Timestamp,
        limit: i64,
    ) -> Result<Vec<Planned>, StoreError> {
        let rows = sqlx::query(
            "select l.trigger, l.event_source, l.event_id, l.template, l.caused_at, l.planned_at, l.deadline, l.suppress
             from trigger_log l
             where l.contact_id = $1 and l.planned_at >= $2 and not exists (
                 select from messages m where m.contact_id = $1 and m.trigger = l.trigger
                   and m.event_source = l.event_source and m.event_id = l.event_id)
             order by l.planned_at desc limit $3",
        )
        .bind(contact_id)
        .bind(At(since))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Planned {
                    contact_id: contact_id.to_owned(),
                    cause: Cause::Trigger {
                        trigger: row.try_get("trigger")?,
                        event_source: row.try_get("event_source")?,
                        event_id: row.try_get("event_id")?,
                    },
                    template: row.try_get("template")?,
                    caused_at: row.try_get::<At, _>("caused_at")?.0,
                    planned_at: row.try_get::<At, _>("planned_at")?.0,
                    deadline: from_at(row.try_get("deadline")?),
                    suppress: reason(row.try_get("suppress")?)?,
                    campaign: None,
                })
            })
            .collect()
    }

    async fn planned_by_campaigns(
        &self,
        contact_id: &str,
        since: Timestamp,
        limit: i64,
    ) -> Result<Vec<Planned>, StoreError> {
        // A chunk is planned only while its campaign runs, and both are written then.
        let rows = sqlx::query(
            "select c.id, c.name, c.state, c.template, c.launched_at, c.deadline, k.planned_at, k.done_at,
                 k.reasons[array_position(k.contacts, $1)] as suppress
             from campaigns c
             join campaign_chunks k on k.campaign_id = c.id and k.after_contact < $1 and k.last_contact >= $1
             where c.updated_at >= $2 and k.planned_at >= $2
               and not exists (select from messages m where m.contact_id = $1 and m.campaign_id = c.id)
               and $1 = any (k.contacts)
             order by k.planned_at desc limit $3",
        )
        .bind(contact_id)
        .bind(At(since))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let planned_at = row.try_get::<At, _>("planned_at")?.0;
                let state: String = row.try_get("state")?;
                Ok(Planned {
                    contact_id: contact_id.to_owned(),
                    cause: Cause::Campaign {
                        campaign_id: row.try_get::<Uuid, _>("id")?.hyphenated().to_string(),
                    },
                    template: row.try_get("template")?,
                    // As its job says it.
                    caused_at: from_at(row.try_get("launched_at")?).unwrap_or(planned_at),
                    planned_at,
                    deadline: from_at(row.try_get("deadline")?),
                    suppress: reason(row.try_get("suppress")?)?,
                    campaign: Some(PlannedBy {
                        name: row.try_get("name")?,
                        state: crate::campaigns::parse_state(&state)?,
                        on_bus_at: from_at(row.try_get("done_at")?),
                    }),
                })
            })
            .collect()
    }
}

fn reason(word: Option<String>) -> Result<Option<Reason>, StoreError> {
    word.map(|word| word.parse())
        .transpose()
        .map_err(|_| StoreError::Corrupt("a plan's reason is none of ours".into()))
}
