//! A message's class, cause, states and reasons.

use std::{fmt, str::FromStr};

/// What kind of text it is; the rules differ (`policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    Transactional,
    Marketing,
}

/// What a message was caused by; with the contact it decides the message's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    Trigger {
        trigger: String,
        event_source: String,
        event_id: String,
    },
    Campaign {
        campaign_id: String,
    },
    Direct {
        idempotency_key: String,
    },
}

/// A state that a message reached. Declared in rank order: a message only moves to a state of higher rank, and a
/// terminal state is never left (guarantee 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Planned and not yet decided on.
    Queued,
    /// Its time has not come: quiet hours, a retry, a paused campaign.
    Deferred,
    /// Claimed by a dispatcher; an attempt may be under way.
    Sending,
    /// The outcome of an attempt is not known, or no receipt came in time. A late receipt still settles it.
    Unknown,
    /// A gateway took it.
    Accepted,
    Delivered,
    Failed,
    /// Its deadline or validity passed before it was sent or delivered.
    Expired,
    Suppressed,
    Cancelled,
}

impl State {
    pub const ALL: [State; 10] = [
        State::Queued,
        State::Deferred,
        State::Sending,
        State::Unknown,
        State::Accepted,
        State::Delivered,
        State::Failed,
        State::Expired,
        State::Suppressed,
        State::Cancelled,
    ];

    pub fn is_terminal(self) -> bool {
        self >= State::Delivered
    }

    /// Whether a message in `self` may be moved to `next`.
    ///
    /// Two steps go against the rank: a transactional message of unknown outcome is tried again (the caller decides by
    /// class), and an accepted one whose receipt never came becomes unknown.
    pub fn may_become(self, next: State) -> bool {
        match (self, next) {
            (from, _) if from.is_terminal() => false,
            (State::Sending, State::Deferred) | (State::Accepted, State::Unknown) => true,
            (from, to) => to > from,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Deferred => "deferred",
            State::Sending => "sending",
            State::Unknown => "unknown",
            State::Accepted => "accepted",
            State::Delivered => "delivered",
            State::Failed => "failed",
            State::Expired => "expired",
            State::Suppressed => "suppressed",
            State::Cancelled => "cancelled",
        }
    }

    /// The number in the ledger's `state` column; it follows the rank.
    pub fn code(self) -> i16 {
        match self {
            State::Queued => 0,
            State::Deferred => 10,
            State::Sending => 20,
            State::Unknown => 30,
            State::Accepted => 40,
            State::Delivered => 50,
            State::Failed => 51,
            State::Expired => 52,
            State::Suppressed => 53,
            State::Cancelled => 54,
        }
    }

    pub fn from_code(code: i16) -> Option<State> {
        State::ALL.into_iter().find(|state| state.code() == code)
    }
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Transactional => "transactional",
            Class::Marketing => "marketing",
        }
    }
}

/// Why a message was suppressed, failed or expired. The text is stable: analysts group by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    // Suppressed
    UnknownContact,
    NoPhone,
    NoConsent,
    Stopped,
    Blocked,
    QuietHours,
    CapReached,
    DuplicatePhone,
    DuplicateText,
    InvalidPhone,
    DestinationNotAllowed,
    DestinationLimit,
    MissingValue,
    UnknownTemplate,
    TemplateFailed,
    Budget,
    ControlGroup,
    // Expired
    DeadlinePassed,
    ValidityPassed,
    // Failed
    NoGateway,
    GatewayRefused,
    RetriesExhausted,
    Undeliverable,
    // Unknown
    OutcomeUnknown,
    NoReceipt,
    // Cancelled
    CampaignCancelled,
    TriggerOff,
}

impl Reason {
    pub const ALL: [Reason; 27] = [
        Reason::UnknownContact,
        Reason::NoPhone,
        Reason::NoConsent,
        Reason::Stopped,
        Reason::Blocked,
        Reason::QuietHours,
        Reason::CapReached,
        Reason::DuplicatePhone,
        Reason::DuplicateText,
        Reason::InvalidPhone,
        Reason::DestinationNotAllowed,
        Reason::DestinationLimit,
        Reason::MissingValue,
        Reason::UnknownTemplate,
        Reason::TemplateFailed,
        Reason::Budget,
        Reason::ControlGroup,
        Reason::DeadlinePassed,
        Reason::ValidityPassed,
        Reason::NoGateway,
        Reason::GatewayRefused,
        Reason::RetriesExhausted,
        Reason::Undeliverable,
        Reason::OutcomeUnknown,
        Reason::NoReceipt,
        Reason::CampaignCancelled,
        Reason::TriggerOff,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::UnknownContact => "unknown-contact",
            Reason::NoPhone => "no-phone",
            Reason::NoConsent => "no-consent",
            Reason::Stopped => "stopped",
            Reason::Blocked => "blocked",
            Reason::QuietHours => "quiet-hours",
            Reason::CapReached => "cap-reached",
            Reason::DuplicatePhone => "duplicate-phone",
            Reason::DuplicateText => "duplicate-text",
            Reason::InvalidPhone => "invalid-phone",
            Reason::DestinationNotAllowed => "destination-not-allowed",
            Reason::DestinationLimit => "destination-limit",
            Reason::MissingValue => "missing-value",
            Reason::UnknownTemplate => "unknown-template",
            Reason::TemplateFailed => "template-failed",
            Reason::Budget => "budget",
            Reason::ControlGroup => "control-group",
            Reason::DeadlinePassed => "deadline-passed",
            Reason::ValidityPassed => "validity-passed",
            Reason::NoGateway => "no-gateway",
            Reason::GatewayRefused => "gateway-refused",
            Reason::RetriesExhausted => "retries-exhausted",
            Reason::Undeliverable => "undeliverable",
            Reason::OutcomeUnknown => "outcome-unknown",
            Reason::NoReceipt => "no-receipt",
            Reason::CampaignCancelled => "campaign-cancelled",
            Reason::TriggerOff => "trigger-off",
        }
    }
}

/// A word that names no class, state or reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} `{word}`: expected one of {expected}")]
pub struct UnknownWord {
    pub kind: &'static str,
    pub word: String,
    pub expected: String,
}

fn by_word<T: Copy>(kind: &'static str, word: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, UnknownWord> {
    all.iter()
        .copied()
        .find(|item| name(*item) == word)
        .ok_or_else(|| UnknownWord {
            kind,
            word: word.to_owned(),
            expected: all.iter().map(|item| name(*item)).collect::<Vec<_>>().join(", "),
        })
}

impl FromStr for State {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        by_word("state", word, &State::ALL, State::as_str)
    }
}

impl FromStr for Class {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        by_word("class", word, &[Class::Transactional, Class::Marketing], Class::as_str)
    }
}

impl FromStr for Reason {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        by_word("reason", word, &Reason::ALL, Reason::as_str)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_state_is_never_left() {
        for from in State::ALL {
            for to in State::ALL {
                if from.is_terminal() {
                    assert!(!from.may_become(to), "{from} → {to}");
                }
            }
        }
        assert!(State::Unknown.may_become(State::Delivered));
        assert!(!State::Accepted.may_become(State::Sending));
    }

    #[test]
    fn words_and_codes_round_trip() {
        for state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(State::from_code(state.code()), Some(state));
        }
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        assert!("sent".parse::<State>().is_err());
    }
}
