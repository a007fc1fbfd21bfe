//! What became of messages, counted: by campaign, trigger, gateway and day.
//!
//! A report is made of cells: so many messages of one cause, gateway and day in one state. The ledger gives them by one
//! query, the topics by reading their records; both come together here, so the two can only differ in what they counted.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use crate::State;

/// What a report can be divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum By {
    Campaign,
    Trigger,
    Gateway,
    /// The day on which the message was planned, in UTC.
    Day,
}

impl By {
    pub const ALL: [By; 4] = [By::Campaign, By::Trigger, By::Gateway, By::Day];

    pub fn as_str(self) -> &'static str {
        match self {
            By::Campaign => "campaign",
            By::Trigger => "trigger",
            By::Gateway => "gateway",
            By::Day => "day",
        }
    }
}

/// Which messages: a message of neither campaign nor trigger was asked for directly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    pub campaign: Option<String>,
    pub trigger: Option<String>,
    /// Absent: no gateway was chosen.
    pub gateway: Option<String>,
    pub day: Option<Date>,
}

impl Group {
    /// What is left of it in a report that is divided by these.
    pub fn projected(self, by: &BTreeSet<By>) -> Group {
        Group {
            campaign: self.campaign.filter(|_| by.contains(&By::Campaign)),
            trigger: self.trigger.filter(|_| by.contains(&By::Trigger)),
            gateway: self.gateway.filter(|_| by.contains(&By::Gateway)),
            day: self.day.filter(|_| by.contains(&By::Day)),
        }
    }
}

/// Messages that are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub group: Group,
    pub state: State,
    /// Suppressed: the reason. Failed: the gateway's code, else the reason.
    pub why: Option<String>,
    pub messages: i64,
    /// Of those that a gateway took.
    pub parts: i64,
    /// Millionths of the account's currency, of those that a gateway took.
    pub cost_micros: i64,
}

/// What answered to messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Click,
    Reply,
    /// A reply that was STOP.
    Stop,
}

/// The figures of a group. Each message is counted once, in its present state, so that `planned` is the sum of
/// `suppressed`, `accepted`, `delivered`, `failed`, `expired`, `cancelled`, `unknown` and `pending`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub planned: i64,
    pub suppressed: BTreeMap<String, i64>,
    pub accepted: i64,
    pub delivered: i64,
    pub failed: BTreeMap<String, i64>,
    pub expired: i64,
    pub cancelled: i64,
    pub unknown: i64,
    pub pending: i64,
    pub parts: i64,
    pub cost_micros: i64,
    pub clicks: i64,
    pub replies: i64,
    pub stops: i64,
}

/// A report, in the order of its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub by: BTreeSet<By>,
    pub rows: BTreeMap<Group, Figures>,
}

impl Report {
    pub fn new(by: BTreeSet<By>) -> Report {
        Report {
            by,
            rows: BTreeMap::new(),
        }
    }

    fn figures(&mut self, group: Group) -> &mut Figures {
        self.rows.entry(group.projected(&self.by)).or_default()
    }

    pub fn add(&mut self, cell: Cell) {
        let figures = self.figures(cell.group);
        let count = cell.messages;
        figures.planned += count;
        figures.parts += cell.parts;
        figures.cost_micros += cell.cost_micros;
        let why = cell.why.unwrap_or_else(|| "unsaid".into());
        match cell.state {
            State::Suppressed => *figures.suppressed.entry(why).or_default() += count,
            State::Failed => *figures.failed.entry(why).or_default() += count,
            State::Accepted => figures.accepted += count,
            State::Delivered => figures.delivered += count,
            State::Expired => figures.expired += count,
            State::Cancelled => figures.cancelled += count,
            State::Unknown => figures.unknown += count,
            State::Queued | State::Deferred | State::Sending => figures.pending += count,
        }
    }

    pub fn answered(&mut self, group: Group, answer: Answer, count: i64) {
        let figures = self.figures(group);
        match answer {
            Answer::Click => figures.clicks += count,
            Answer::Reply => figures.replies += count,
            Answer::Stop => {
                figures.replies += count;
                figures.stops += count;
            }
        }
    }
}

/// How many of a group did what was hoped for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub of: i64,
    pub converted: i64,
}

/// z of a two-sided 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

impl Share {
    /// 0 where there is nobody.
    pub fn rate(self) -> f64 {
        match self.of {
            0 => 0.0,
            of => self.converted as f64 / of as f64,
        }
    }

    /// The 95 % confidence interval by Wilson's score method; everything where there is nobody.
    pub fn interval(self) -> (f64, f64) {
        if self.of <= 0 {
            return (0.0, 1.0);
        }
        let (n, p) = (self.of as f64, self.rate());
        let middle = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        (((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0))
    }

    /// By how much this share is above `other`, with the 95 % confidence interval of the difference: Newcombe's hybrid
    /// score method (R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics
    /// in Medicine 17, 1998, method 10). It keeps its coverage in small groups and at rates near 0. `None` where one of
    /// the groups is empty.
    pub fn above(self, other: Share) -> Option<Difference> {
        if self.of <= 0 || other.of <= 0 {
            return None;
        }
        let (one, two) = (self.rate(), other.rate());
        let ((low_one, high_one), (low_two, high_two)) = (self.interval(), other.interval());
        let difference = one - two;
        Some(Difference {
            difference,
            low: difference - ((one - low_one).powi(2) + (high_two - two).powi(2)).sqrt(),
            high: difference + ((high_one - one).powi(2) + (two - low_two).powi(2)).sqrt(),
        })
    }
}

/// A difference of two shares, with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    pub difference: f64,
    pub low: f64,
    pub high: f64,
}

/// Conversions of one campaign or trigger: everybody that was planned, whatever became of their message, against the
/// control group. Leaving out whom a rule suppressed would compare unlike people: nobody looked at the rules for the
/// control group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conversions {
    pub planned: Share,
    pub control: Share,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(converted: i64, of: i64) -> Share {
        Share { of, converted }
    }

    /// The examples of Newcombe's paper (table II, method 10).
    #[test]
    fn the_interval_is_that_of_the_paper() {
        for (one, other, low, high) in [
            (share(56, 70), share(48, 80), 0.0524, 0.3339),
            (share(9, 10), share(3, 10), 0.1705, 0.8090),
            (share(5, 56), share(0, 29), -0.0381, 0.1926),
            (share(0, 10), share(0, 20), -0.1611, 0.2775),
            (share(10, 10), share(0, 10), 0.6075, 1.0000),
        ] {
            let found = one.above(other).unwrap();
            assert!(
                (found.low - low).abs() < 6e-5 && (found.high - high).abs() < 6e-5,
                "{found:?}"
            );
        }
        assert_eq!(share(0, 0).above(share(1, 2)), None);
        assert_eq!(share(0, 0).interval(), (0.0, 1.0));
    }

    #[test]
    fn every_message_is_in_one_place() {
        let group = Group {
            campaign: Some("c".into()),
            gateway: Some("main".into()),
            ..Group::default()
        };
        let mut report = Report::new([By::Campaign].into());
        for (number, state) in State::ALL.into_iter().enumerate() {
            report.add(Cell {
                group: group.clone(),
                state,
                why: None,
                messages: number as i64 + 1,
                parts: 0,
                cost_micros: 0,
            });
        }
        report.answered(group.clone(), Answer::Stop, 2);
        let figures = &report.rows[&group.projected(&report.by)];
        assert_eq!(figures.planned, 55);
        let sum = figures.suppressed.values().sum::<i64>()
            + figures.failed.values().sum::<i64>()
            + figures.accepted
            + figures.delivered
            + figures.expired
            + figures.cancelled
            + figures.unknown
            + figures.pending;
        assert_eq!((sum, figures.replies, figures.stops), (55, 2, 2));
        assert_eq!(report.rows.len(), 1);
    }

    #[test]
    fn a_cost_is_counted_where_it_was_made() {
        let group = |campaign: &str, day: i8| Group {
            campaign: Some(campaign.into()),
            day: Some(jiff::civil::date(2026, 11, day)),
            gateway: Some("main".into()),
            ..Group::default()
        };
        let cells = [
            (group("a", 24), State::Delivered, 3, 4, 160_000),
            (group("a", 24), State::Failed, 1, 1, 40_000),
            (group("a", 25), State::Accepted, 2, 2, 80_000),
            (group("b", 25), State::Delivered, 1, 3, 135_000),
            (group("b", 25), State::Suppressed, 5, 0, 0),
        ];
        let costs = |by: &[By]| {
            let mut report = Report::new(by.iter().copied().collect());
            for (group, state, messages, parts, cost_micros) in cells.clone() {
                report.add(Cell {
                    group,
                    state,
                    why: None,
                    messages,
                    parts,
                    cost_micros,
                });
            }
            let rows = report.rows.values();
            rows.map(|figures| (figures.parts, figures.cost_micros))
                .collect::<Vec<_>>()
        };
        assert_eq!(costs(&[By::Campaign]), [(7, 280_000), (3, 135_000)]);
        assert_eq!(costs(&[By::Day]), [(5, 200_000), (5, 215_000)]);
        assert_eq!(
            costs(&[By::Campaign, By::Day]),
            [(5, 200_000), (2, 80_000), (3, 135_000)]
        );
    }
}
