//! The claim that precedes every submission (guarantee 3).
//!
//! Who gets the claim sends; who does not get it does not. It is decided under the row's lock, or by the primary key for a
//! message without a row, so of two claimants one waits for the other and then sees its claim. The suppression list is
//! read in the same transaction: a STOP that was kept before a message is claimed stops it. Whatever goes wrong here goes
//! wrong before anything is sent.

use std::collections::HashMap;

use domain::{Cause, Class, Reason, State};
use jiff::Timestamp;
use sqlx::Row;
use uuid::Uuid;

use super::{Alarm, ClaimRules, Key, MessageRow, limits::Counted, micros};
use crate::{StoreError, Tx};

/// A message that a dispatcher wants to send.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimWant {
    pub contact_id: String,
    pub message_id: Uuid,
    pub cause: Cause,
    pub class: Class,
    pub template: String,
    pub variant: Option<String>,
    pub encoding: String,
    pub parts: u16,
    pub cost_micros: i64,
    pub phone_hash: Vec<u8>,
    pub caused_at: Timestamp,
    pub planned_at: Timestamp,
    pub rendered_at: Timestamp,
    /// The record's: attempts made before it was written.
    pub attempt: u32,
    /// Where it is to be submitted.
    pub gateway: String,
    /// Of the partition that it came from.
    pub epoch: i64,
    /// Of our span, where the message's way is traced.
    pub traceparent: Option<String>,
    /// The same claim was tried before by this owner and its commit was not answered: it may stand.
    pub again: bool,
}

/// Who claims, and by which rules.
#[derive(Clone, Copy, Debug)]
pub struct Claimant {
    pub owner: Uuid,
    pub now: Timestamp,
    /// Whether a transactional message that an earlier owner left in flight is sent again (with the same reference).
    pub resend_transactional: bool,
    /// Attempts after which it is not.
    pub max_attempts: u32,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimResult {
    /// The row as it now stands.
    pub row: MessageRow,
    /// Whether it is ours to send, as attempt number `row.attempt`.
    pub granted: bool,
}

enum Suppressed {
    Marketing,
    All,
}

impl ClaimWant {
    pub(super) fn key(&self) -> super::rows::Key {
        (self.contact_id.clone(), self.message_id)
    }

    /// The row where there is none.
    fn row(&self, claimant: &Claimant, suppress: Option<Reason>) -> MessageRow {
        let now = micros(claimant.now);
        let mut row = MessageRow {
            contact_id: self.contact_id.clone(),
            message_id: self.message_id,
            class: self.class,
            state: State::Queued,
            reason: None,
            gateway_code: None,
            cause: self.cause.clone(),
            template: self.template.clone(),
            variant: self.variant.clone(),
            encoding: Some(self.encoding.clone()),
            parts: self.parts,
            cost_micros: self.cost_micros,
            phone_hash: Some(self.phone_hash.clone()),
            gateway: None,
            owner: None,
            epoch: None,
            attempt: self.attempt,
            caused_at: micros(self.caused_at),
            planned_at: micros(self.planned_at),
            rendered_at: Some(micros(self.rendered_at)),
            claimed_at: None,
            accepted_at: None,
            settled_at: None,
            changed_at: now,
            decided_by: None,
            purpose: None,
            traceparent: None,
        };
        match suppress {
            Some(reason) => row.enter(State::Suppressed, Some(reason), now),
            None => self.take(&mut row, claimant, self.attempt + 1),
        }
        row
    }

    fn take(&self, row: &mut MessageRow, claimant: &Claimant, attempt: u32) {
        let now = micros(claimant.now);
        row.variant.clone_from(&self.variant);
        row.encoding = Some(self.encoding.clone());
        row.parts = self.parts;
        row.cost_micros = self.cost_micros;
        row.phone_hash = Some(self.phone_hash.clone());
        row.rendered_at = Some(micros(self.rendered_at));
        row.gateway = Some(self.gateway.clone());
        row.gateway_code = None;
        row.owner = Some(claimant.owner);
        row.epoch = Some(self.epoch);
        row.attempt = attempt;
        row.claimed_at = Some(now);
        row.traceparent.clone_from(&self.traceparent);
        row.enter(State::Sending, None, now);
    }

    /// What the claim makes of the row that is there: (changed, granted).
    fn apply(&self, row: &mut MessageRow, claimant: &Claimant, suppress: Option<Reason>) -> (bool, bool) {
        let now = micros(claimant.now);
        match row.state {
            // A later attempt than this record's is waiting elsewhere: that one goes on.
            State::Queued | State::Deferred if row.attempt > self.attempt => (false, false),
            State::Queued | State::Deferred => match suppress {
                Some(reason) => {
                    row.enter(State::Suppressed, Some(reason), now);
                    (true, false)
                }
                None => {
                    self.take(row, claimant, self.attempt + 1);
                    (true, true)
                }
            },
            State::Sending if self.again && row.owner == Some(claimant.owner) => (false, true),
            // Left by an earlier owner: it may have been sent.
            State::Sending => {
                let resend = self.class == Class::Transactional
                    && claimant.resend_transactional
                    && row.attempt < claimant.max_attempts
                    && suppress.is_none();
                if resend {
                    self.take(row, claimant, row.attempt + 1);
                } else {
                    row.enter(State::Unknown, Some(Reason::OutcomeUnknown), now);
                }
                (true, resend)
            }
            _ => (false, false),
        }
    }
}

impl Tx {
    /// Claims messages (distinct ones, none of them in flight at this owner); results in the order asked. Send only after
    /// the commit.
    pub async fn messages_claim(
        &mut self,
        wants: &[ClaimWant],
        claimant: &Claimant,
    ) -> Result<Vec<ClaimResult>, StoreError> {
        let (results, _) = self
            .messages_claim_within(wants, claimant, &ClaimRules::default())
            .await?;
        Ok(results)
    }

    /// The same within caps and limits, which are counted in this transaction; with the limits that were reached now.
    pub async fn messages_claim_within(
        &mut self,
        wants: &[ClaimWant],
        claimant: &Claimant,
        rules: &ClaimRules,
    ) -> Result<(Vec<ClaimResult>, Vec<Alarm>), StoreError> {
        if wants.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let suppressed = self.claim_suppressed(wants).await?;
        let suppress = |want: &ClaimWant| match (suppressed.get(&want.phone_hash), want.class) {
            (Some(Suppressed::All), _) => Some(Reason::Blocked),
            (Some(Suppressed::Marketing), Class::Marketing) => Some(Reason::Stopped),
            _ => None,
        };
        let suppressed: Vec<Option<Reason>> = wants.iter().map(suppress).collect();
        let Counted { refused, alarms } = match rules.version {
            Some(_) => self.claim_limits(wants, &suppressed, rules, claimant.now).await?,
            None => Counted::default(),
        };
        let suppress = |index: usize| suppressed[index].or(refused.get(index).copied().flatten());
        let purpose = |index: usize| rules.each.get(index).and_then(|rules| rules.purpose.clone());
        let rows: Vec<MessageRow> = wants
            .iter()
            .enumerate()
            .map(|(index, want)| {
                let mut row = want.row(claimant, suppress(index));
                row.decided_by.clone_from(&rules.version);
                row.purpose = purpose(index);
                row
            })
            .collect();
        let inserted = self.messages_insert(&rows).await?;
        let there: Vec<Key> = (rows.iter().zip(&inserted))
            .filter(|(_, inserted)| !**inserted)
            .map(|(row, _)| row.key())
            .collect();
        let mut current = self.messages_lock_all(&there).await?;
        let mut changed = Vec::new();
        let mut results = Vec::with_capacity(wants.len());
        for (index, (mut row, inserted)) in rows.into_iter().zip(inserted).enumerate() {
            let want = &wants[index];
            let mut granted = row.state == State::Sending;
            if !inserted {
                let Some(there) = current.remove(&want.key()) else {
                    continue;
                };
                row = there;
                let differs;
                (differs, granted) = want.apply(&mut row, claimant, suppress(index));
                if differs {
                    row.decided_by = rules.version.clone().or(row.decided_by.take());
                    row.purpose = purpose(index).or(row.purpose.take());
                    changed.push(results.len());
                }
            }
            results.push(ClaimResult { row, granted });
        }
        let changed: Vec<&MessageRow> = changed.iter().map(|place| &results[*place].row).collect();
        self.messages_write(&changed).await?;
        Ok((results, alarms))
    }

    async fn claim_suppressed(&mut self, wants: &[ClaimWant]) -> Result<HashMap<Vec<u8>, Suppressed>, StoreError> {
        let mut hashes: Vec<&[u8]> = wants.iter().map(|want| want.phone_hash.as_slice()).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let rows = sqlx::query(
            "select s.phone_hash, s.scope from unnest($1::bytea[]) as v (phone_hash)
             join suppressions s on s.phone_hash = v.phone_hash",
        )
        .bind(hashes)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter()
            .map(|row| {
                let scope: String = row.try_get("scope")?;
                let scope = match scope.as_str() {
                    "marketing" => Suppressed::Marketing,
                    // Anything else stops everything: the look-up fails closed.
                    _ => Suppressed::All,
                };
                Ok((row.try_get("phone_hash")?, scope))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(class: Class, attempt: u32) -> ClaimWant {
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        ClaimWant {
            contact_id: "42".into(),
            message_id: Uuid::from_u128(7),
            cause: Cause::Direct {
                idempotency_key: "k".into(),
            },
            class,
            template: "t".into(),
            variant: None,
            encoding: "GSM-7".into(),
            parts: 1,
            cost_micros: 0,
            phone_hash: vec![1],
            caused_at: at,
            planned_at: at,
            rendered_at: at,
            attempt,
            gateway: "main".into(),
            epoch: 1,
            traceparent: None,
            again: false,
        }
    }

    fn claimant(owner: u128) -> Claimant {
        Claimant {
            owner: Uuid::from_u128(owner),
            now: Timestamp::from_second(1_700_000_100).unwrap(),
            resend_transactional: true,
            max_attempts: 12,
        }
    }

    #[test]
    fn what_an_earlier_owner_left_is_ambiguous() {
        for class in [Class::Transactional, Class::Marketing] {
            let want = want(class, 0);
            let mut row = want.row(&claimant(1), None);
            assert_eq!((row.state, row.attempt), (State::Sending, 1));
            let (changed, granted) = want.apply(&mut row, &claimant(2), None);
            assert!(changed);
            assert_eq!(granted, class == Class::Transactional);
            match class {
                Class::Transactional => assert_eq!((row.state, row.attempt), (State::Sending, 2)),
                Class::Marketing => assert_eq!((row.state, row.attempt), (State::Unknown, 1)),
            }
        }
    }

    #[test]
    fn a_resend_ends_somewhere_and_never_goes_to_a_blocked_phone() {
        let want = want(Class::Transactional, 0);
        let mut row = want.row(&claimant(1), None);
        row.attempt = 12;
        assert_eq!(want.apply(&mut row.clone(), &claimant(2), None), (true, false));
        row.attempt = 1;
        assert_eq!(want.apply(&mut row, &claimant(2), Some(Reason::Blocked)), (true, false));
        assert_eq!(row.state, State::Unknown);
    }

    #[test]
    fn an_unanswered_commit_of_ours_is_our_claim() {
        let mut want = want(Class::Marketing, 3);
        let mut row = want.row(&claimant(1), None);
        want.again = true;
        assert_eq!(want.apply(&mut row.clone(), &claimant(1), None), (false, true));
        assert_eq!(want.apply(&mut row, &claimant(2), None), (true, false));
    }

    #[test]
    fn a_record_whose_retry_waits_elsewhere_claims_nothing() {
        let mut row = want(Class::Marketing, 0).row(&claimant(1), None);
        row.state = State::Deferred;
        assert_eq!(
            want(Class::Marketing, 0).apply(&mut row.clone(), &claimant(1), None),
            (false, false)
        );
        assert_eq!(
            want(Class::Marketing, 1).apply(&mut row, &claimant(1), None),
            (true, true)
        );
        assert_eq!(row.attempt, 2);
    }
}
