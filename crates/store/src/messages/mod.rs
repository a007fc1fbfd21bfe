//! The ledger: one row a message, from the first decision on it to its last state.
//!
//! Three kinds of writers move a row, and none of them ever moves it back:
//! - a decision ([`crate::Tx::messages_decide`]): not now, not at all, or not any more;
//! - an attempt: [`crate::Tx::messages_claim`] before it and [`crate::Tx::messages_outcome`] after it;
//! - a gateway's receipt ([`crate::Tx::messages_settle`]).
//!
//! All work on a batch with a constant number of statements. They lock the batch's rows in the order of their keys, so two
//! batches never wait for each other, decide in memory by [`State::may_become`], and write what changed in one statement.
//! The two moves that almost every message makes, from its claim to `accepted` and from there to what its receipt says, are
//! made where the row still stands there by one statement that neither reads nor locks it before; what it does not find there
//! goes the longer way.
//! A row is read and its receipts are made by one function each, so that a receipt that is emitted again (the consumer's
//! offset is the outbox) equals the first one, byte for byte.

mod claim;
mod counts;
mod decide;
mod kinds;
mod limits;
mod outcome;
mod rows;
mod said;

use std::collections::HashMap;

use data_encoding::HEXLOWER;
use domain::{Cause, Class, Reason, State};
use events::Receipt;
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Store, StoreError, Tx};
pub(crate) use rows::Key;

pub use crate::audit::{Audit, Violation};
pub use claim::{ClaimResult, ClaimWant, Claimant};
pub use counts::Counts;
pub use decide::{Settle, TakeOver, Verdict};
pub use limits::{Alarm, CapRule, ClaimRules, DestinationHour, WantRules};
pub use outcome::{AttemptOutcome, Outcomes, Settled};
pub use said::Said;

/// A message as the ledger has it.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageRow {
    pub contact_id: String,
    pub message_id: Uuid,
    pub class: Class,
    pub state: State,
    pub reason: Option<Reason>,
    /// As the gateway said it.
    pub gateway_code: Option<String>,
    pub cause: Cause,
    pub template: String,
    pub variant: Option<String>,
    pub encoding: Option<String>,
    pub parts: u16,
    pub cost_micros: i64,
    pub phone_hash: Option<Vec<u8>>,
    pub gateway: Option<String>,
    /// The dispatcher that claimed it.
    pub owner: Option<Uuid>,
    pub epoch: Option<i64>,
    /// Attempts started.
    pub attempt: u32,
    pub caused_at: Timestamp,
    pub planned_at: Timestamp,
    pub rendered_at: Option<Timestamp>,
    pub claimed_at: Option<Timestamp>,
    pub accepted_at: Option<Timestamp>,
    pub settled_at: Option<Timestamp>,
    /// When it reached its present state.
    pub changed_at: Timestamp,
    /// The rules by which it was last decided on, by their versions.
    pub decided_by: Option<String>,
    /// What its contact must have consented to, where that is not marketing; known once it was claimed.
    pub purpose: Option<String>,
    /// Of its dispatcher's span, where its way is traced.
    pub traceparent: Option<String>,
}

impl MessageRow {
    /// The receipt of its present state.
    pub fn to_receipt(&self) -> Receipt {
        self.receipt(self.state, self.changed_at)
    }

    /// Every receipt that the row still knows of: its acceptance, where it is past that, and its present state. What was
    /// only queued or claimed has none.
    pub fn to_receipts(&self) -> Vec<Receipt> {
        let mut receipts = Vec::with_capacity(2);
        if let Some(accepted_at) = self.accepted_at
            && self.state != State::Accepted
        {
            let mut receipt = self.receipt(State::Accepted, accepted_at);
            receipt.reason = None;
            receipt.gateway_code = None;
            receipts.push(receipt);
        }
        if !matches!(self.state, State::Queued | State::Sending) {
            receipts.push(self.to_receipt());
        }
        receipts
    }

    fn receipt(&self, state: State, at: Timestamp) -> Receipt {
        Receipt {
            message_id: self.message_id,
            contact_id: self.contact_id.clone(),
            cause: self.cause.clone(),
            class: self.class,
            state,
            reason: self.reason,
            gateway_code: self.gateway_code.clone(),
            template: self.template.clone(),
            variant: self.variant.clone(),
            gateway: self.gateway.clone(),
            encoding: self.encoding.clone(),
            parts: self.parts,
            cost_micros: self.cost_micros,
            phone_hash: self.phone_hash.as_deref().map(|hash| HEXLOWER.encode(hash)),
            at,
            caused_at: self.caused_at,
            planned_at: Some(self.planned_at),
            rendered_at: self.rendered_at,
            // A message that was only decided on was claimed by nobody.
            claimed_at: self.claimed_at.filter(|_| self.accepted_at.is_some()),
            accepted_at: self.accepted_at,
            latency_ms: self.accepted_at.map(|accepted| milliseconds(self.caused_at, accepted)),
            delivery_ms: (self.accepted_at)
                .filter(|_| state == State::Delivered)
                .map(|accepted| milliseconds(accepted, at)),
            decided_by: self.decided_by.clone(),
        }
    }

    pub(crate) fn key(&self) -> rows::Key {
        (self.contact_id.clone(), self.message_id)
    }

    /// Moves it to `state`, whoever asked whether that may be.
    fn enter(&mut self, state: State, reason: Option<Reason>, at: Timestamp) {
        self.state = state;
        self.reason = reason;
        self.changed_at = at;
        if state == State::Accepted {
            self.accepted_at = Some(at);
        }
        if state.is_terminal() {
            self.settled_at = Some(at);
        }
    }
}

impl Tx {
    /// The messages with these ids that there are.
    pub async fn messages_by_id(&mut self, ids: &[Uuid]) -> Result<HashMap<Uuid, MessageRow>, StoreError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {} from messages m where message_id = any($1)",
            rows::COLUMNS
        )))
        .bind(ids)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter()
            .map(|row| rows::read(row).map(|row| (row.message_id, row)))
            .collect()
    }
}

impl Store {
    pub async fn message_get(&self, id: Uuid) -> Result<Option<MessageRow>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {} from messages m where message_id = $1 limit 1",
            rows::COLUMNS
        )))
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(rows::read).transpose()
    }

    /// A contact's messages, the newest first.
    pub async fn messages_of(&self, contact_id: &str, limit: i64) -> Result<Vec<MessageRow>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {} from messages m where contact_id = $1 order by planned_at desc, message_id limit $2",
            rows::COLUMNS
        )))
        .bind(contact_id)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(rows::read).collect()
    }
}

/// What PostgreSQL keeps of an instant: a row that was just written and the same row read later are equal.
pub(crate) fn micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// A gateway's words: PostgreSQL's `text` has no NUL, and nothing of theirs is long.
pub(crate) fn foreign(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').take(200).collect()
}

fn milliseconds(from: Timestamp, to: Timestamp) -> i64 {
    to.as_millisecond() - from.as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_row_still_knows_of_its_acceptance() {
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        let mut row = MessageRow {
            contact_id: "42".into(),
            message_id: Uuid::from_u128(7),
            class: Class::Marketing,
            state: State::Sending,
            reason: None,
            gateway_code: None,
            cause: Cause::Campaign {
                campaign_id: Uuid::nil().to_string(),
            },
            template: "t".into(),
            variant: None,
            encoding: Some("GSM-7".into()),
            parts: 1,
            cost_micros: 40_000,
            phone_hash: Some(vec![0x0A, 0xFF]),
            gateway: Some("main".into()),
            owner: None,
            epoch: None,
            attempt: 1,
            caused_at: at,
            planned_at: at,
            rendered_at: None,
            claimed_at: Some(at),
            accepted_at: None,
            settled_at: None,
            changed_at: at,
            decided_by: Some("policy 7".into()),
            purpose: None,
            traceparent: None,
        };
        assert!(row.to_receipts().is_empty());
        row.enter(State::Accepted, None, at);
        let accepted = row.to_receipts();
        assert_eq!(accepted.len(), 1);
        assert_eq!(accepted[0].phone_hash.as_deref(), Some("0aff"));
        assert_eq!(accepted[0].decided_by.as_deref(), Some("policy 7"));
        row.gateway_code = Some("034".into());
        row.enter(
            State::Failed,
            Some(Reason::Undeliverable),
            at + jiff::SignedDuration::from_secs(5),
        );
        let both = row.to_receipts();
        assert_eq!(
            both[0], accepted[0],
            "the receipt of its acceptance is the same for ever"
        );
        assert_eq!(both[1].state, State::Failed);
        assert_eq!(both[1].stable_id(), format!("{}:failed", row.message_id));
    }
}
