//! What is known about one message beside its row: what it waits for, and its parts at the gateways.

use domain::State;
use jiff::Timestamp;
use sqlx::Row;
use uuid::Uuid;

use crate::{Store, StoreError, time::At};

/// What a message waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    pub due_at: Option<Timestamp>,
    /// `campaign:ID`: until that campaign goes on.
    pub parked: Option<String>,
}

/// A part that a gateway took.
#[derive(Clone, Debug, PartialEq)]
pub struct PartLine {
    /// Counted from 1.
    pub part: i16,
    pub gateway: String,
    /// The gateway's id, as it came.
    pub remote_id: String,
    pub state: State,
    /// What the gateway last said of it in a word that we do not know, as it came.
    pub code: Option<String>,
    pub at: Timestamp,
}

impl Store {
    /// What a message waits for, if it does. The ids of deferred records begin with the message's.
    pub async fn message_waiting(&self, contact_id: &str, message: Uuid) -> Result<Option<Waiting>, StoreError> {
        let row: Option<(Option<At>, Option<String>)> = sqlx::query_as(
            "select due_at, parked from deferred where key = $1 and starts_with(id, $2) order by due_at nulls last limit 1",
        )
        .bind(contact_id)
        .bind(message.hyphenated().to_string())
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|(due, parked)| Waiting {
            due_at: due.map(|due| due.0),
            parked,
        }))
    }

    /// The parts of a message that gateways took, in their order. Of one that was taken in one part, what became of it is
    /// what became of the message (see [`crate::parts::PartOf`]).
    pub async fn message_parts_of(&self, message: Uuid) -> Result<Vec<PartLine>, StoreError> {
        let rows = sqlx::query(
            "select p.part, p.gateway, p.remote_id, p.code,
                 case when m.message_id is null then p.state else m.state end as state,
                 case when m.message_id is null then p.at else m.changed_at end as at
             from message_parts p left join messages m
                 on m.contact_id = p.contact_id and m.message_id = p.message_id
                 and p.total <= 1 and m.attempt <= 1 and m.accepted_at is not null and p.state = $2 and m.state > $2
             where p.message_id = $1 order by p.part, p.at limit 1000",
        )
        .bind(message)
        .bind(State::Accepted.code())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(PartLine {
                    part: row.try_get("part")?,
                    gateway: row.try_get("gateway")?,
                    remote_id: row.try_get("remote_id")?,
                    state: State::from_code(row.try_get("state")?)
                        .ok_or_else(|| StoreError::Corrupt("a part's state is none of ours".into()))?,
                    code: row.try_get("code")?,
                    at: row.try_get::<At, _>("at")?.0,
                })
            })
            .collect()
    }
}
