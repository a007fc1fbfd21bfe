//! From what became of each part to what became of the message.

use resources::gateway::Meaning;

use super::status;
use crate::Outcome;

/// What became of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Not answered yet.
    Open,
    /// Nothing of it reached the connection.
    NotSent,
    Accepted(String),
    /// Not taken, with the gateway's code.
    Not(Meaning, String),
    /// It may have been taken; with the code, where there was an answer.
    Unknown(Option<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Some parts are not answered yet.
    Wait,
    /// Some parts were taken and these, which were not, may be tried again: leaving it at that would show half a text.
    Resubmit(Vec<usize>),
    Done(Outcome),
}

/// `retry`: whether parts may still be tried again on this connection.
pub(crate) fn judge(parts: &[Part], retry: bool) -> Judgement {
    if parts.contains(&Part::Open) {
        return Judgement::Wait;
    }
    let accepted: Vec<String> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Accepted(id) => Some(id.clone()),
            _ => None,
        })
        .collect();
    if accepted.len() == parts.len() {
        return Judgement::Done(Outcome::Accepted { parts: accepted });
    }
    // A part that will never be taken decides: the text will never be whole.
    for part in parts {
        if let Part::Not(meaning @ (Meaning::Refused | Meaning::Undeliverable), code) = part {
            return Judgement::Done(Outcome::Refused {
                code: code.clone(),
                reason: status::reason(*meaning),
            });
        }
    }
    let unknown = parts.iter().find_map(|part| match part {
        Part::Unknown(code) => Some(code.clone()),
        _ => None,
    });
    if let Some(code) = unknown {
        return Judgement::Done(Outcome::Unknown { code, parts: accepted });
    }
    let refusal = parts.iter().find_map(|part| match part {
        Part::Not(meaning, code) => Some((*meaning, code.clone())),
        _ => None,
    });
    if accepted.is_empty() {
        return Judgement::Done(match refusal {
            Some((meaning, code)) => Outcome::Retry {
                code,
                throttled: meaning == Meaning::Throttled,
            },
            None => Outcome::Unreachable,
        });
    }
    if retry {
        let missing = parts
            .iter()
            .enumerate()
            .filter(|(_, part)| !matches!(part, Part::Accepted(_)));
        return Judgement::Resubmit(missing.map(|(index, _)| index).collect());
    }
    Judgement::Done(Outcome::Unknown {
        code: refusal.map(|(_, code)| code),
        parts: accepted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Reason;

    fn accepted(id: &str) -> Part {
        Part::Accepted(id.into())
    }

    fn not(meaning: Meaning) -> Part {
        Part::Not(meaning, "0x58".into())
    }

    #[test]
    fn nothing_is_sent_twice_and_nothing_is_guessed() {
        use Meaning::{Retry, Throttled, Undeliverable};
        let unknown = |parts: &[&str]| {
            Judgement::Done(Outcome::Unknown {
                code: None,
                parts: parts.iter().map(|id| (*id).to_owned()).collect(),
            })
        };
        assert_eq!(judge(&[accepted("a"), Part::Open], true), Judgement::Wait);
        assert_eq!(
            judge(&[accepted("a"), accepted("b")], true),
            Judgement::Done(Outcome::Accepted {
                parts: vec!["a".into(), "b".into()]
            })
        );
        // Untouched: another attempt is safe.
        assert_eq!(
            judge(&[Part::NotSent, Part::NotSent], true),
            Judgement::Done(Outcome::Unreachable)
        );
        assert_eq!(
            judge(&[not(Throttled), Part::NotSent], true),
            Judgement::Done(Outcome::Retry {
                code: "0x58".into(),
                throttled: true
            })
        );
        // Half taken: only the other half is tried again, and when it cannot be, the outcome has a name.
        assert_eq!(judge(&[accepted("a"), not(Retry)], true), Judgement::Resubmit(vec![1]));
        assert_eq!(judge(&[accepted("a"), Part::NotSent], false), unknown(&["a"]));
        assert_eq!(judge(&[Part::Unknown(None), accepted("b")], true), unknown(&["b"]));
        assert_eq!(judge(&[Part::Unknown(None), not(Throttled)], true), unknown(&[]));
        assert_eq!(
            judge(&[accepted("a"), not(Undeliverable)], true),
            Judgement::Done(Outcome::Refused {
                code: "0x58".into(),
                reason: Reason::Undeliverable
            })
        );
    }
}
