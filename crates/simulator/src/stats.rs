//! Counting.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// What `GET /stats` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Parts that were taken, repeated ones too; of a text that came whole over HTTP, as many as it is SMS.
    pub accepted: u64,
    /// Different messages among them, by client reference (a message without one counts as new).
    pub distinct: u64,
    /// Submissions that were taken again: the same reference and part.
    pub duplicates: u64,
    /// Texts that phones show, put together from their parts.
    pub texts: u64,
    pub refused: u64,
    pub throttled: u64,
    pub busy: u64,
    /// Answers that said nothing, or never came, though the part was taken.
    pub ambiguous: u64,
    /// Connections that the script cut.
    pub cuts: u64,
    /// Receipts that were acknowledged, each delivery counted.
    pub receipts: u64,
    pub receipts_lost: u64,
    /// Receipts and replies that are still to be delivered.
    pub waiting: u64,
    /// Replies that were acknowledged, each part counted.
    pub inbound: u64,
    /// SMPP sessions that are bound now.
    pub binds: u64,
    /// Parts taken in each second, from `since` (seconds since 1970) on; the last hour.
    pub since: i64,
    pub per_second: Vec<u32>,
    /// The most parts taken in any second, wherever it begins (to 10 ms).
    pub busiest_second: u32,
}

const HOUR: usize = 3_600;
const TICKS: i64 = 100;

/// Parts by the time they were taken.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    since: i64,
    seconds: VecDeque<u32>,
    ticks: VecDeque<(i64, u32)>,
    sliding: u32,
    busiest: u32,
}

impl Rates {
    /// A part was taken at `ms` since 1970.
    pub(crate) fn count(&mut self, ms: i64) {
        let second = ms / 1_000;
        if self.seconds.is_empty() {
            self.since = second;
        }
        let index = usize::try_from(second - self.since).unwrap_or(0);
        while self.seconds.len() <= index {
            self.seconds.push_back(0);
            // A long pause is many zeros, of which the last hour is enough.
            if self.seconds.len() > HOUR {
                self.seconds.pop_front();
                self.since += 1;
                return self.count(ms);
            }
        }
        self.seconds[index] += 1;
        let tick = ms / 10;
        self.forget(tick);
        match self.ticks.back_mut() {
            Some((at, count)) if *at >= tick => *count += 1,
            _ => self.ticks.push_back((tick, 1)),
        }
        self.sliding += 1;
        self.busiest = self.busiest.max(self.sliding);
    }

    /// Parts taken in the second that ends at `ms`.
    pub(crate) fn in_last_second(&mut self, ms: i64) -> u32 {
        self.forget(ms / 10);
        self.sliding
    }

    fn forget(&mut self, tick: i64) {
        while let Some((at, count)) = self.ticks.front() {
            if *at > tick - TICKS {
                break;
            }
            self.sliding -= count;
            self.ticks.pop_front();
        }
    }

    pub(crate) fn tell(&self, stats: &mut Stats) {
        stats.since = self.since;
        stats.per_second = self.seconds.iter().copied().collect();
        stats.busiest_second = self.busiest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_second_may_begin_anywhere() {
        let mut rates = Rates::default();
        for ms in [10_400, 10_900, 11_100, 11_300, 11_500, 13_000] {
            rates.count(ms);
        }
        let mut stats = Stats::default();
        rates.tell(&mut stats);
        assert_eq!((stats.since, stats.per_second.as_slice()), (10, &[2, 3, 0, 1][..]));
        assert_eq!(stats.busiest_second, 4);
        assert_eq!(rates.in_last_second(13_500), 1);
        assert_eq!(rates.in_last_second(20_000), 0);
    }

    #[test]
    fn a_long_silence_costs_an_hour_of_zeros() {
        let mut rates = Rates::default();
        rates.count(0);
        rates.count(4_000_000);
        assert_eq!((rates.seconds.len(), rates.seconds.back()), (HOUR, Some(&1)));
    }
}
