//! How much is claimed ahead of a gateway's rate.
//!
//! What is claimed and not submitted becomes `unknown` when the dispatcher dies, so it should be little; yet the rate must
//! not be left unused while the next claim is made. A claim is begun when half of what may be claimed ahead has left: the
//! other half has to last as long as a claim takes. So what is claimed ahead follows from how long claims take: three
//! times as long, of which half is more than one claim. The limiter's bucket makes up for a claim that is slower for once.
//!
//! A gateway may carry less than its rate. It is not claimed for beyond some windows then, unless more than these left of late
//! while claims were made: its window then empties quickly.

use std::time::Duration;

use tokio::time::Instant;

const CLAIMS_AHEAD: f64 = 3.0;
/// Less would make many tiny claims.
const LEAST: f64 = 0.04;
/// A database that is slower than this slows the gateway down.
const MOST: f64 = 0.2;
/// How much of what is known a claim that is quicker than the others changes.
const FORGETS: f64 = 1.0 / 16.0;

/// What leaves is counted over so long at least.
const SLICE: Duration = Duration::from_millis(50);
/// What left in a slice that is longer than this says nothing of what left before.
const PAST: Duration = Duration::from_secs(1);
/// How much of what is known a slice in which less left changes.
const FALLS: f64 = 1.0 / 4.0;

#[derive(Debug)]
pub(crate) struct Pace {
    /// The longest that claims take of late, in seconds.
    claims: f64,
    /// Parts that left of late, a second.
    left: f64,
    /// Since when a slice is counted, and the parts that left in it.
    slice: Option<(Instant, u32)>,
}

impl Pace {
    /// Nothing is known yet.
    pub(crate) fn new() -> Pace {
        Pace {
            claims: LEAST,
            left: 0.0,
            slice: None,
        }
    }

    pub(crate) fn note(&mut self, took: Duration) {
        let took = took.as_secs_f64().min(MOST);
        if took > self.claims {
            self.claims = took;
        } else {
            self.claims += (took - self.claims) * FORGETS;
        }
    }

    /// So many parts leave.
    pub(crate) fn leaves(&mut self, parts: u32, now: Instant) {
        let Some((since, before)) = self.slice else {
            self.slice = Some((now, 0));
            return;
        };
        let (parts, lasted) = (before + parts, now.saturating_duration_since(since));
        if lasted < SLICE {
            self.slice = Some((since, parts));
            return;
        }
        let left = f64::from(parts) / lasted.as_secs_f64();
        if left > self.left || lasted > PAST {
            self.left = left;
        } else {
            self.left += (left - self.left) * FALLS;
        }
        self.slice = Some((now, 0));
    }

    /// The part of a second's rate that is claimed ahead.
    pub(crate) fn ahead_seconds(&self) -> f64 {
        (self.claims * CLAIMS_AHEAD).clamp(LEAST, MOST)
    }

    /// Parts that leave meanwhile, if they leave as of late.
    pub(crate) fn leaving(&self) -> u32 {
        (self.left * self.ahead_seconds()) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_at_once_and_falls_slowly_within_its_limits() {
        let mut pace = Pace::new();
        for _ in 0..200 {
            pace.note(Duration::from_millis(2));
        }
        assert_eq!(pace.ahead_seconds(), LEAST);
        pace.note(Duration::from_millis(30));
        assert!((pace.ahead_seconds() - 0.09).abs() < 1e-9);
        pace.note(Duration::from_millis(2));
        assert!(pace.ahead_seconds() > 0.08, "one quick claim does not make it forget");
        pace.note(Duration::from_secs(5));
        assert_eq!(pace.ahead_seconds(), MOST);
    }

    #[test]
    fn what_leaves_is_what_left_of_late() {
        let mut pace = Pace::new();
        for _ in 0..200 {
            pace.note(Duration::from_millis(2));
        }
        let mut now = Instant::now();
        let mut leave = |pace: &mut Pace, parts: u32, every: u64, times: u32| {
            for _ in 0..times {
                now += Duration::from_millis(every);
                pace.leaves(parts, now);
            }
            pace.leaving()
        };
        assert_eq!(leave(&mut pace, 10, 1, 1), 0, "nothing is known yet");
        // 10,000 a second, of which 40 ms are claimed ahead.
        let leaving = leave(&mut pace, 10, 1, 100);
        assert!((396..=404).contains(&leaving), "{leaving}");
        // Half as much for a moment changes little.
        let leaving = leave(&mut pace, 5, 1, 60);
        assert!((330..=370).contains(&leaving), "{leaving}");
        assert!(leave(&mut pace, 5, 1, 1_000) < 210);
        // Once a second.
        assert!(leave(&mut pace, 1, 1_500, 2) < 2);
    }
}
