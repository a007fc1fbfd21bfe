//! The states of a campaign and who may follow whom.

use std::{fmt, str::FromStr};

use crate::message::UnknownWord;

/// draft → scheduled → running ⇄ paused → finished, and cancelled from anywhere before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CampaignState {
    Draft,
    /// Waits for its time, or comes back on a schedule.
    Scheduled,
    Running,
    Paused,
    Finished,
    Cancelled,
}

impl CampaignState {
    pub const ALL: [CampaignState; 6] = [
        CampaignState::Draft,
        CampaignState::Scheduled,
        CampaignState::Running,
        CampaignState::Paused,
        CampaignState::Finished,
        CampaignState::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            CampaignState::Draft => "draft",
            CampaignState::Scheduled => "scheduled",
            CampaignState::Running => "running",
            CampaignState::Paused => "paused",
            CampaignState::Finished => "finished",
            CampaignState::Cancelled => "cancelled",
        }
    }

    pub fn is_over(self) -> bool {
        matches!(self, CampaignState::Finished | CampaignState::Cancelled)
    }

    pub fn may_become(self, next: CampaignState) -> bool {
        use CampaignState::{Cancelled, Draft, Finished, Paused, Running, Scheduled};
        matches!(
            (self, next),
            (Draft, Scheduled | Running | Cancelled)
                | (Scheduled, Running | Paused | Finished | Cancelled)
                | (Running, Paused | Finished | Cancelled)
                | (Paused, Running | Scheduled | Cancelled)
        )
    }
}

impl FromStr for CampaignState {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        CampaignState::ALL
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or_else(|| UnknownWord {
                kind: "campaign state",
                word: word.to_owned(),
                expected: CampaignState::ALL.map(CampaignState::as_str).join(", "),
            })
    }
}

impl fmt::Display for CampaignState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_stays_over() {
        for from in CampaignState::ALL {
            assert_eq!(from.as_str().parse(), Ok(from));
            for to in CampaignState::ALL {
                assert!(!(from.is_over() && from.may_become(to)), "{from} → {to}");
            }
        }
    }
}
