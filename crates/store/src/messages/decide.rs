//! Decisions that need no gateway, and what gateways report later.

use std::collections::HashMap;

use domain::{Cause, Class, Reason, State};
use jiff::Timestamp;
use uuid::Uuid;

use super::{Key, MessageRow, foreign, micros};
use crate::{StoreError, Tx};

/// A decision on a message: where it stands when no gateway is asked (or not yet).
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub contact_id: String,
    pub message_id: Uuid,
    pub cause: Cause,
    pub class: Class,
    pub template: String,
    pub variant: Option<String>,
    /// Queued, deferred, failed, expired, suppressed or cancelled.
    pub state: State,
    pub reason: Option<Reason>,
    pub encoding: Option<String>,
    pub parts: u16,
    pub cost_micros: i64,
    pub phone_hash: Option<Vec<u8>>,
    pub caused_at: Timestamp,
    pub planned_at: Timestamp,
    pub rendered_at: Option<Timestamp>,
    /// The rules that decided, by their versions; absent: no rule did.
    pub decided_by: Option<String>,
    pub at: Timestamp,
}

/// What becomes of the messages that an earlier owner left in flight.
#[derive(Clone, Copy, Debug)]
pub struct TakeOver {
    pub resend_transactional: bool,
    /// Attempts after which it is not.
    pub max_attempts: u32,
}

/// A state that a gateway reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Settle {
    pub contact_id: String,
    pub message_id: Uuid,
    pub state: State,
    pub reason: Option<Reason>,
    pub gateway_code: Option<String>,
    pub at: Timestamp,
}

impl Verdict {
    fn row(&self) -> MessageRow {
        let at = micros(self.at);
        MessageRow {
            contact_id: self.contact_id.clone(),
            message_id: self.message_id,
            class: self.class,
            state: self.state,
            reason: self.reason,
            gateway_code: None,
            cause: self.cause.clone(),
            template: self.template.clone(),
            variant: self.variant.clone(),
            encoding: self.encoding.clone(),
            parts: self.parts,
            cost_micros: self.cost_micros,
            phone_hash: self.phone_hash.clone(),
            gateway: None,
            owner: None,
            epoch: None,
            attempt: 0,
            caused_at: micros(self.caused_at),
            planned_at: micros(self.planned_at),
            rendered_at: self.rendered_at.map(micros),
            claimed_at: None,
            accepted_at: None,
            settled_at: self.state.is_terminal().then_some(at),
            changed_at: at,
            decided_by: self.decided_by.clone(),
            purpose: None,
            traceparent: None,
        }
    }

    /// Whether the row changed.
    fn apply(&self, row: &mut MessageRow, takes_over: Option<TakeOver>) -> bool {
        match row.state {
            State::Queued | State::Deferred => {
                let again = row.state == self.state && (row.state == State::Queued || row.reason == self.reason);
                // A decision is none of an attempt's outcomes, and never leads back.
                let fits = !matches!(
                    self.state,
                    State::Sending | State::Unknown | State::Accepted | State::Delivered
                );
                if again || !fits || self.state < row.state {
                    return false;
                }
                row.template.clone_from(&self.template);
                row.variant = self.variant.clone().or(row.variant.take());
                row.phone_hash = self.phone_hash.clone().or(row.phone_hash.take());
                row.rendered_at = self.rendered_at.map(micros).or(row.rendered_at);
                if self.encoding.is_some() {
                    row.encoding.clone_from(&self.encoding);
                    row.parts = self.parts;
                    row.cost_micros = self.cost_micros;
                }
                row.decided_by = self.decided_by.clone().or(row.decided_by.take());
                row.enter(self.state, self.reason, micros(self.at));
                true
            }
            State::Sending => {
                let Some(rule) = takes_over else { return false };
                let again = rule.resend_transactional
                    && self.class == Class::Transactional
                    && self.state == State::Deferred
                    && row.attempt < rule.max_attempts;
                match again {
                    true => row.enter(State::Deferred, self.reason, micros(self.at)),
                    false => row.enter(State::Unknown, Some(Reason::OutcomeUnknown), micros(self.at)),
                }
                true
            }
            _ => false,
        }
    }
}

impl Tx {
    /// Writes decisions: a message without a row gets one, one that waits is moved on; one that a dispatcher has claimed,
    /// or that is past that, stays as it is. The rows as they now stand, in the order of the verdicts.
    pub async fn messages_decide(&mut self, verdicts: &[Verdict]) -> Result<Vec<MessageRow>, StoreError> {
        let rows = self.decide(verdicts, None).await?;
        Ok(rows.into_iter().map(|(row, _)| row).collect())
    }

    /// The same for a dispatcher that owns the messages' partition and has none of them in flight: a row that is still
    /// claimed was left by an earlier owner, and becomes unknown; or deferred where that is the decision and a
    /// transactional message is to be sent again. Beside each row, whether it changed.
    pub async fn messages_decide_owned(
        &mut self,
        verdicts: &[Verdict],
        rule: TakeOver,
    ) -> Result<Vec<(MessageRow, bool)>, StoreError> {
        self.decide(verdicts, Some(rule)).await
    }

    async fn decide(
        &mut self,
        verdicts: &[Verdict],
        takes_over: Option<TakeOver>,
    ) -> Result<Vec<(MessageRow, bool)>, StoreError> {
        let rows: Vec<MessageRow> = verdicts.iter().map(Verdict::row).collect();
        let mut current = self.messages_insert_or_lock(&rows).await?;
        let mut changed = std::collections::BTreeSet::new();
        let mut after = Vec::with_capacity(verdicts.len());
        for (verdict, new) in verdicts.iter().zip(rows) {
            // Whatever was just inserted is in the verdict's own state: applying it changes nothing.
            if let Some((row, _)) = current.get_mut(&new.key()) {
                let moved = verdict.apply(row, takes_over);
                if moved {
                    changed.insert(row.key());
                }
                after.push((row.clone(), moved));
            }
        }
        let changed: Vec<&MessageRow> = (changed.iter())
            .filter_map(|key| current.get(key).map(|(row, _)| row))
            .collect();
        self.messages_write(&changed).await?;
        Ok(after)
    }

    /// Moves messages to what gateways reported, forward only. For each message that there is, in the order given: the
    /// row as it now stands, and whether it moved.
    pub async fn messages_settle(&mut self, changes: &[Settle]) -> Result<Vec<(MessageRow, bool)>, StoreError> {
        let mut keys: Vec<_> = changes
            .iter()
            .map(|change| (change.contact_id.clone(), change.message_id))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let mut current = self.messages_lock(&keys).await?;
        self.settle_locked(changes, &mut current).await
    }

    /// The same for rows that this transaction has locked and read.
    pub(crate) async fn settle_locked(
        &mut self,
        changes: &[Settle],
        current: &mut HashMap<Key, MessageRow>,
    ) -> Result<Vec<(MessageRow, bool)>, StoreError> {
        let mut changed = std::collections::BTreeSet::new();
        let mut after = Vec::with_capacity(changes.len());
        for change in changes {
            let Some(row) = current.get_mut(&(change.contact_id.clone(), change.message_id)) else {
                continue;
            };
            let moved = row.state.may_become(change.state);
            if moved {
                if change.gateway_code.is_some() {
                    row.gateway_code = change.gateway_code.as_deref().map(foreign);
                }
                let reason = change.reason.or(match change.state {
                    State::Failed => Some(Reason::Undeliverable),
                    State::Expired => Some(Reason::ValidityPassed),
                    _ => None,
                });
                row.enter(change.state, reason, micros(change.at));
                changed.insert(row.key());
            }
            after.push((row.clone(), moved));
        }
        let changed: Vec<&MessageRow> = changed.iter().filter_map(|key| current.get(key)).collect();
        self.messages_move(&changed).await?;
        Ok(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(state: State, reason: Option<Reason>) -> Verdict {
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        Verdict {
            contact_id: "42".into(),
            message_id: Uuid::from_u128(7),
            cause: Cause::Direct {
                idempotency_key: "k".into(),
            },
            class: Class::Marketing,
            template: "t".into(),
            variant: None,
            state,
            reason,
            encoding: None,
            parts: 0,
            cost_micros: 0,
            phone_hash: None,
            caused_at: at,
            planned_at: at,
            rendered_at: None,
            decided_by: None,
            at,
        }
    }

    const RULE: TakeOver = TakeOver {
        resend_transactional: true,
        max_attempts: 12,
    };

    #[test]
    fn a_decision_only_moves_what_waits() {
        for state in State::ALL {
            let mut row = verdict(State::Queued, None).row();
            row.state = state;
            let waits = matches!(state, State::Queued | State::Deferred);
            let stopped = verdict(State::Suppressed, Some(Reason::Stopped));
            assert_eq!(stopped.apply(&mut row.clone(), None), waits, "{state}");
            assert!(!verdict(State::Queued, None).apply(&mut row.clone(), None), "{state}");
            let taken_over = verdict(State::Expired, None).apply(&mut row, Some(RULE));
            assert_eq!(taken_over, waits || state == State::Sending, "{state}");
            assert_eq!(
                row.state == State::Unknown,
                matches!(state, State::Sending | State::Unknown)
            );
        }
    }

    #[test]
    fn what_an_earlier_owner_left_waits_on_only_if_it_is_to_be_sent_again() {
        for (class, attempt, expected) in [
            (Class::Transactional, 1, State::Deferred),
            (Class::Transactional, 12, State::Unknown),
            (Class::Marketing, 1, State::Unknown),
        ] {
            let mut wait = verdict(State::Deferred, None);
            wait.class = class;
            let mut row = wait.row();
            (row.state, row.attempt) = (State::Sending, attempt);
            assert!(wait.apply(&mut row, Some(RULE)));
            assert_eq!((row.state, row.attempt), (expected, attempt));
        }
    }

    #[test]
    fn deferring_again_for_the_same_reason_changes_nothing() {
        let mut row = verdict(State::Deferred, Some(Reason::QuietHours)).row();
        assert!(!verdict(State::Deferred, Some(Reason::QuietHours)).apply(&mut row, None));
        assert!(verdict(State::Deferred, None).apply(&mut row, None));
    }
}
