//! What became of attempts.
//!
//! That a gateway took a message is true whoever learns it and however late: it moves the row forward, also when another
//! owner has called the attempt unknown or started the next one. Everything else (refused, to be tried again, unknown) is
//! said of one attempt, and counts only while the row still stands at that attempt.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use domain::{Reason, State};
use jiff::Timestamp;
use uuid::Uuid;

use super::{MessageRow, foreign, micros, rows::Key};
use crate::{
    StoreError, Tx,
    parts::{NewPart, PartOf, PartState},
    unmatched::Unmatched,
};

/// What an attempt's end makes of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Accepted,
    Failed(Reason),
    Expired(Reason),
    /// It is tried again: the caller defers the record of the next attempt in the same transaction.
    Deferred,
    /// Nothing was handed over: the record, written after `attempt` attempts, may claim again.
    Released {
        attempt: u32,
    },
    Unknown,
}

/// The outcome of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptOutcome {
    pub contact_id: String,
    pub message_id: Uuid,
    /// Of the claim.
    pub owner: Uuid,
    pub attempt: u32,
    pub settled: Settled,
    pub gateway: String,
    pub gateway_code: Option<String>,
    /// The gateway's ids of the parts that it certainly took, in their order.
    pub remote_ids: Vec<String>,
    /// How many parts it takes in all, where that is known.
    pub total: u16,
    pub at: Timestamp,
    /// The row as the claim left it, where whoever made the claim still has it. It is not read again then.
    pub claimed: Option<Arc<MessageRow>>,
}

/// What [`Tx::messages_outcome`] did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcomes {
    /// For each outcome in order: the row as it now stands and whether it moved; `None`: there is no such message.
    pub rows: Vec<Option<(MessageRow, bool)>>,
    /// Messages that a receipt, which had come before the answer to the submission, moved on at once.
    pub early: Vec<MessageRow>,
}

impl AttemptOutcome {
    fn key(&self) -> Key {
        (self.contact_id.clone(), self.message_id)
    }

    /// The claim's row as accepted, where that is the outcome and the row is known to be this attempt's.
    fn accepted_claim(&self) -> Option<MessageRow> {
        let claimed = self.claimed.as_deref()?;
        let fits = self.settled == Settled::Accepted
            && claimed.state == State::Sending
            && (&claimed.contact_id, claimed.message_id) == (&self.contact_id, self.message_id)
            && (claimed.owner, claimed.attempt) == (Some(self.owner), self.attempt)
            && claimed.gateway.as_ref() == Some(&self.gateway);
        let mut row = fits.then(|| claimed.clone())?;
        self.apply(&mut row).then_some(row)
    }

    /// Whether the row changed.
    fn apply(&self, row: &mut MessageRow) -> bool {
        let at = micros(self.at);
        let ours = row.state == State::Sending && row.owner == Some(self.owner) && row.attempt == self.attempt;
        let called_unknown =
            row.state == State::Unknown && row.owner == Some(self.owner) && row.attempt == self.attempt;
        let code = self.gateway_code.as_deref().map(foreign);
        let fits = match self.settled {
            Settled::Accepted => row.state.may_become(State::Accepted),
            Settled::Failed(_) | Settled::Expired(_) => ours || called_unknown,
            Settled::Deferred | Settled::Released { .. } | Settled::Unknown => ours,
        };
        if !fits {
            return false;
        }
        row.gateway_code = code;
        match self.settled {
            Settled::Accepted => {
                row.gateway = Some(self.gateway.clone());
                row.enter(State::Accepted, None, at);
            }
            Settled::Failed(reason) => row.enter(State::Failed, Some(reason), at),
            Settled::Expired(reason) => row.enter(State::Expired, Some(reason), at),
            Settled::Deferred => row.enter(State::Deferred, None, at),
            Settled::Unknown => row.enter(State::Unknown, Some(Reason::OutcomeUnknown), at),
            Settled::Released { attempt } => {
                row.attempt = attempt;
                (row.owner, row.epoch, row.gateway, row.claimed_at) = (None, None, None, None);
                row.enter(State::Deferred, None, at);
            }
        }
        true
    }
}

impl Tx {
    /// Writes the outcomes of attempts, the parts that were taken, and what receipts that came early say of them.
    ///
    /// What a gateway took is written first, where the claim's row is known and the message still stands there. Rows that
    /// have moved meanwhile are locked and read like all others; they may then be locked in another order than by their keys,
    /// and of two transactions that wait for each other over that PostgreSQL refuses one, which is tried again.
    pub async fn messages_outcome(&mut self, outcomes: &[AttemptOutcome]) -> Result<Outcomes, StoreError> {
        let mut rows: Vec<Option<(MessageRow, bool)>> = vec![None; outcomes.len()];
        self.outcomes_accepted(outcomes, &mut rows).await?;
        self.outcomes_locked(outcomes, &mut rows).await?;
        let mut parts = Vec::with_capacity(outcomes.len());
        for (outcome, row) in outcomes.iter().zip(&rows) {
            if row.is_none() {
                continue;
            }
            let total = outcome
                .total
                .max(u16::try_from(outcome.remote_ids.len()).unwrap_or(u16::MAX));
            parts.extend(outcome.remote_ids.iter().zip(1..).map(|(id, part)| NewPart {
                gateway: outcome.gateway.clone(),
                remote_id: foreign(id),
                contact_id: outcome.contact_id.clone(),
                message_id: outcome.message_id,
                part,
                total,
                at: outcome.at,
            }));
        }
        let early = match parts.is_empty() {
            true => Vec::new(),
            false => self.parts_put_and_join(&parts).await?,
        };
        Ok(Outcomes { rows, early })
    }

    /// Accepts what still stands at its claim, without reading it.
    async fn outcomes_accepted(
        &mut self,
        outcomes: &[AttemptOutcome],
        rows: &mut [Option<(MessageRow, bool)>],
    ) -> Result<(), StoreError> {
        let mut seen = HashSet::with_capacity(outcomes.len());
        let repeated: HashSet<Uuid> = (outcomes.iter())
            .filter_map(|outcome| (!seen.insert(outcome.message_id)).then_some(outcome.message_id))
            .collect();
        let mut places = Vec::with_capacity(outcomes.len());
        let mut after = Vec::with_capacity(outcomes.len());
        for (place, outcome) in outcomes.iter().enumerate() {
            let Some(row) = outcome
                .accepted_claim()
                .filter(|_| !repeated.contains(&outcome.message_id))
            else {
                continue;
            };
            places.push(place);
            after.push(row);
        }
        if places.is_empty() {
            return Ok(());
        }
        let moved = self.messages_accept(&after.iter().collect::<Vec<_>>()).await?;
        let mut after: Vec<Option<MessageRow>> = after.into_iter().map(Some).collect();
        for number in moved {
            if let (Some(row), Some(place)) = (after.get_mut(number).and_then(Option::take), places.get(number)) {
                rows[*place] = Some((row, true));
            }
        }
        Ok(())
    }

    /// The other outcomes, on rows that are locked and read first.
    async fn outcomes_locked(
        &mut self,
        outcomes: &[AttemptOutcome],
        rows: &mut [Option<(MessageRow, bool)>],
    ) -> Result<(), StoreError> {
        let left = || (outcomes.iter().zip(0..)).filter(|(_, place): &(_, usize)| rows[*place].is_none());
        let keys: BTreeSet<Key> = left().map(|(outcome, _)| outcome.key()).collect();
        let keys: Vec<Key> = keys.into_iter().collect();
        let mut current = self.messages_lock(&keys).await?;
        let mut changed = BTreeSet::new();
        let mut after = Vec::new();
        for (outcome, place) in left() {
            let Some(row) = current.get_mut(&outcome.key()) else {
                continue;
            };
            let moved = outcome.apply(row);
            if moved {
                changed.insert(row.key());
            }
            after.push((place, row.clone(), moved));
        }
        for (place, row, moved) in after {
            rows[place] = Some((row, moved));
        }
        let changed: Vec<&MessageRow> = changed.iter().filter_map(|key| current.get(key)).collect();
        self.messages_move(&changed).await
    }

    /// Keeps the parts, and applies the receipts that came before them.
    async fn parts_put_and_join(&mut self, parts: &[NewPart]) -> Result<Vec<MessageRow>, StoreError> {
        self.parts_put(parts).await?;
        let keys: Vec<(String, String)> = parts
            .iter()
            .map(|part| (part.gateway.clone(), crate::parts::match_id(&part.remote_id)))
            .collect();
        let waiting = self.callbacks_unmatched_take(&keys).await?;
        let notes: Vec<_> = waiting.iter().filter_map(Unmatched::note).collect();
        self.parts_note(&notes).await?;
        let of: HashMap<&(String, String), &NewPart> = keys.iter().zip(parts).collect();
        let told: Vec<(PartState, PartOf)> = waiting
            .iter()
            .filter_map(Unmatched::part_state)
            .filter_map(|said| {
                let part = of.get(&(said.gateway.clone(), said.match_id.clone()))?;
                Some((said, PartOf::new(&part.contact_id, part.message_id, part.total)))
            })
            .collect();
        let moved = self.receipts_apply(&told).await?;
        Ok(moved
            .into_iter()
            .filter(|(_, moved)| *moved)
            .map(|(row, _)| row)
            .collect())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use domain::{Cause, Class};

    use super::*;

    pub(in crate::messages) fn sending(owner: u128, attempt: u32) -> MessageRow {
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        MessageRow {
            contact_id: "42".into(),
            message_id: Uuid::from_u128(7),
            class: Class::Transactional,
            state: State::Sending,
            reason: None,
            gateway_code: None,
            cause: Cause::Direct {
                idempotency_key: "k".into(),
            },
            template: "t".into(),
            variant: None,
            encoding: None,
            parts: 1,
            cost_micros: 0,
            phone_hash: None,
            gateway: Some("main".into()),
            owner: Some(Uuid::from_u128(owner)),
            epoch: Some(1),
            attempt,
            caused_at: at,
            planned_at: at,
            rendered_at: None,
            claimed_at: Some(at),
            accepted_at: None,
            settled_at: None,
            changed_at: at,
            decided_by: None,
            purpose: None,
            traceparent: None,
        }
    }

    fn outcome(owner: u128, attempt: u32, settled: Settled) -> AttemptOutcome {
        AttemptOutcome {
            contact_id: "42".into(),
            message_id: Uuid::from_u128(7),
            owner: Uuid::from_u128(owner),
            attempt,
            settled,
            gateway: "main".into(),
            gateway_code: None,
            remote_ids: Vec::new(),
            total: 1,
            at: Timestamp::from_second(1_700_000_001).unwrap(),
            claimed: None,
        }
    }

    #[test]
    fn an_earlier_owners_late_answer_only_counts_when_it_was_taken() {
        let refused = Settled::Failed(Reason::GatewayRefused);
        let released = Settled::Released { attempt: 0 };
        for settled in [refused, Settled::Deferred, released, Settled::Unknown] {
            let mut row = sending(2, 2);
            assert!(!outcome(1, 1, settled).apply(&mut row), "{settled:?}");
        }
        let mut row = sending(2, 2);
        assert!(outcome(1, 1, Settled::Accepted).apply(&mut row));
        assert!(!outcome(2, 2, refused).apply(&mut row), "one of the two was taken");
    }

    #[test]
    fn unknown_is_settled_by_a_late_answer() {
        for settled in [Settled::Accepted, Settled::Failed(Reason::GatewayRefused)] {
            let mut row = sending(1, 1);
            row.state = State::Unknown;
            assert!(outcome(1, 1, settled).apply(&mut row));
            assert_ne!(row.state, State::Unknown);
        }
        let mut row = sending(1, 1);
        row.state = State::Unknown;
        assert!(!outcome(1, 1, Settled::Deferred).apply(&mut row), "never back");
    }

    #[test]
    fn a_release_leaves_the_row_as_it_was() {
        let mut row = sending(1, 3);
        assert!(outcome(1, 3, Settled::Released { attempt: 2 }).apply(&mut row));
        assert_eq!((row.state, row.attempt, row.owner), (State::Deferred, 2, None));
    }
}
