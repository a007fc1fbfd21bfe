//! What an attempt's outcome makes of a message, and when it is tried again.
//!
//! | outcome | what the message becomes |
//! |---|---|
//! | accepted | accepted |
//! | refused | failed, with the gateway's reason and code |
//! | retry, throttled | deferred with back-off; failed (`retries-exhausted`) after the last attempt, expired when the deadline comes first |
//! | unreachable | as it was: nothing was handed over |
//! | unknown | unknown; a transactional one is deferred and sent again with the same reference, where that is set |

use std::time::Duration;

use domain::{Class, Reason};
use events::record::Outbound;
use gateways::Outcome;
use jiff::{SignedDuration, Timestamp};
use store::messages::{Settled, TakeOver};

use crate::breaker::Sign;

/// The limits of trying.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Whether a transactional message of unknown outcome is sent again, with the same client reference.
    pub resend_transactional: bool,
    /// Attempts in all, for each class.
    pub attempts_transactional: u32,
    pub attempts_marketing: u32,
    /// How long a message without a deadline may wait for a gateway that is down.
    pub wait_transactional: SignedDuration,
    pub wait_marketing: SignedDuration,
}

/// As the default settings have it.
impl Default for Limits {
    fn default() -> Limits {
        Limits {
            resend_transactional: true,
            attempts_transactional: 12,
            attempts_marketing: 12,
            wait_transactional: SignedDuration::from_hours(24),
            wait_marketing: SignedDuration::from_hours(72),
        }
    }
}

impl Limits {
    pub(crate) fn attempts(&self, class: Class) -> u32 {
        match class {
            Class::Transactional => self.attempts_transactional,
            Class::Marketing => self.attempts_marketing,
        }
    }

    /// What becomes of a message that an earlier owner left in flight and that does not go now.
    pub(crate) fn take_over(&self) -> TakeOver {
        TakeOver {
            resend_transactional: self.resend_transactional,
            max_attempts: self.attempts_transactional,
        }
    }

    fn wait(&self, class: Class) -> SignedDuration {
        match class {
            Class::Transactional => self.wait_transactional,
            Class::Marketing => self.wait_marketing,
        }
    }
}

/// What to write for an outcome.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settlement {
    pub settled: Settled,
    pub code: Option<String>,
    pub remote_ids: Vec<String>,
    pub total: u16,
    /// When the next attempt is due, where there is one.
    pub due: Option<Timestamp>,
}

const FIRST: Duration = Duration::from_secs(2);
const FIRST_THROTTLED: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);

/// The wait before the attempt after attempt number `attempt`: doubling, half of it at random. `jitter` is from 0 to 1.
fn back_off(first: Duration, attempt: u32, jitter: f64) -> SignedDuration {
    let full = first
        .saturating_mul(1 << attempt.saturating_sub(1).min(16))
        .min(LONGEST)
        .as_secs_f64();
    SignedDuration::from_millis((full * (0.5 + jitter / 2.0) * 1_000.0) as i64)
}

/// What the outcome of attempt number `attempt` makes of its message.
pub(crate) fn settle(
    outcome: Outcome,
    record: &Outbound,
    attempt: u32,
    limits: &Limits,
    now: Timestamp,
    jitter: f64,
) -> Settlement {
    let plain = |settled, code| Settlement {
        settled,
        code,
        remote_ids: Vec::new(),
        total: record.parts,
        due: None,
    };
    let again = |first, code: Option<String>| {
        if attempt >= limits.attempts(record.class) {
            return plain(Settled::Failed(Reason::RetriesExhausted), code);
        }
        match due_by(now + back_off(first, attempt, jitter), record.deadline, now) {
            Some(due) => Settlement {
                due: Some(due),
                ..plain(Settled::Deferred, code)
            },
            None => plain(Settled::Expired(Reason::DeadlinePassed), code),
        }
    };
    match outcome {
        Outcome::Accepted { parts } => Settlement {
            total: u16::try_from(parts.len()).unwrap_or(u16::MAX),
            remote_ids: parts,
            ..plain(Settled::Accepted, None)
        },
        Outcome::Refused { code, reason } => plain(Settled::Failed(reason), Some(code)),
        Outcome::Retry { code, throttled } => again(if throttled { FIRST_THROTTLED } else { FIRST }, Some(code)),
        Outcome::Unreachable => plain(
            Settled::Released {
                attempt: record.attempt,
            },
            None,
        ),
        Outcome::Unknown { code, parts } => {
            let resend = record.class == Class::Transactional && limits.resend_transactional;
            let mut settlement = match resend {
                true => again(FIRST, code.clone()),
                false => plain(Settled::Unknown, code.clone()),
            };
            if settlement.settled != Settled::Deferred {
                // Nothing more is tried, and it may have been sent: that is neither failed nor expired.
                settlement = plain(Settled::Unknown, code);
            }
            Settlement {
                remote_ids: parts,
                ..settlement
            }
        }
    }
}

/// What becomes of a message that waits for any gateway to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// It is looked at again then: the longer it waited, the longer it waits on.
    Until(Timestamp),
    Enough,
    /// Its deadline comes first.
    TooLate,
}

pub(crate) fn wait_for_gateway(record: &Outbound, limits: &Limits, now: Timestamp, jitter: f64) -> Waiting {
    let age = now.duration_since(record.rendered_at);
    if age >= limits.wait(record.class) {
        return Waiting::Enough;
    }
    let wait = (age / 2).clamp(SignedDuration::from_secs(5), SignedDuration::from_secs(300));
    let wait = SignedDuration::from_millis((wait.as_millis() as f64 * (0.75 + jitter / 2.0)) as i64);
    match due_by(now + wait, record.deadline, now) {
        Some(due) => Waiting::Until(due),
        None => Waiting::TooLate,
    }
}

/// `due`, or a last time shortly before the deadline; `None`: there is no time left.
pub(crate) fn due_by(due: Timestamp, deadline: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let Some(deadline) = deadline else { return Some(due) };
    let last = deadline - SignedDuration::from_secs(1);
    if due <= last {
        Some(due)
    } else {
        (last > now + SignedDuration::from_secs(1)).then_some(last)
    }
}

/// What an outcome says about its gateway.
pub(crate) fn sign(outcome: &Outcome) -> Sign {
    match outcome {
        Outcome::Accepted { .. } | Outcome::Refused { .. } => Sign::Works,
        Outcome::Retry { throttled: true, .. } => Sign::Throttles,
        Outcome::Retry { throttled: false, .. } => Sign::Falters,
        Outcome::Unreachable | Outcome::Unknown { .. } => Sign::Fails,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::sample;

    fn outbound(class: Class, deadline: Option<i64>) -> Outbound {
        Outbound {
            deadline: deadline.map(|second| Timestamp::from_second(second).unwrap()),
            ..sample::outbound(class)
        }
    }

    fn unknown() -> Outcome {
        Outcome::Unknown {
            code: None,
            parts: vec!["a".into()],
        }
    }

    #[test]
    fn an_unknown_outcome_is_sent_again_for_transactional_alone() {
        let now = Timestamp::from_second(1_000).unwrap();
        let of = |class, limits: &Limits, attempt, deadline| {
            settle(unknown(), &outbound(class, deadline), attempt, limits, now, 0.5)
        };
        let limits = Limits::default();
        assert_eq!(of(Class::Marketing, &limits, 1, None).settled, Settled::Unknown);
        let again = of(Class::Transactional, &limits, 1, None);
        assert_eq!((again.settled, again.remote_ids.len()), (Settled::Deferred, 1));
        assert!(again.due.unwrap() > now);
        assert_eq!(of(Class::Transactional, &limits, 12, None).settled, Settled::Unknown);
        assert_eq!(
            of(Class::Transactional, &limits, 1, Some(1_001)).settled,
            Settled::Unknown
        );
        assert_eq!(
            of(
                Class::Transactional,
                &Limits {
                    resend_transactional: false,
                    ..Limits::default()
                },
                1,
                None
            )
            .settled,
            Settled::Unknown
        );
    }

    #[test]
    fn retries_end_at_their_limit_or_the_deadline() {
        let (limits, now) = (Limits::default(), Timestamp::from_second(1_000).unwrap());
        let retry = |attempt, deadline| {
            let outcome = Outcome::Retry {
                code: "8".into(),
                throttled: false,
            };
            settle(
                outcome,
                &outbound(Class::Marketing, deadline),
                attempt,
                &limits,
                now,
                1.0,
            )
        };
        assert_eq!(retry(12, None).settled, Settled::Failed(Reason::RetriesExhausted));
        assert_eq!(retry(12, None).code.as_deref(), Some("8"));
        assert_eq!(retry(3, None).due, Some(now + SignedDuration::from_secs(8)));
        assert_eq!(retry(3, Some(1_006)).due, Some(now + SignedDuration::from_secs(5)));
        assert_eq!(retry(3, Some(1_001)).settled, Settled::Expired(Reason::DeadlinePassed));
        assert_eq!(retry(11, None).due, Some(now + SignedDuration::from_secs(600)));
    }

    #[test]
    fn waiting_for_a_gateway_grows_with_age_and_ends() {
        let limits = Limits::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let wait = |now, deadline| wait_for_gateway(&outbound(Class::Marketing, deadline), &limits, at(now), 0.5);
        assert_eq!(wait(1_001, None), Waiting::Until(at(1_006)));
        assert_eq!(wait(1_100, None), Waiting::Until(at(1_150)));
        assert_eq!(wait(90_000, None), Waiting::Until(at(90_300)));
        assert_eq!(wait(1_000 + 72 * 3_600, None), Waiting::Enough);
        assert_eq!(wait(1_100, Some(1_101)), Waiting::TooLate);
    }
}
