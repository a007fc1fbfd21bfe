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

    /// The parts of a message that gateways took, in their order.
    pub async fn message_parts_of(&self, message: Uuid) -> Result<Vec<PartLine>, StoreError> {
        let rows = sqlx::query(
            "select part, gateway, remote_id, state, code, at from message_parts
             where message_id = $1 order by part, at limit 1000",
        )
        .bind(message)
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
