//! How much is claimed ahead of a gateway's rate.
//!
//! What is claimed and not submitted becomes `unknown` when the dispatcher dies, so it should be little; yet the rate must
//! not be left unused while the next claim is made. A claim is begun when half of what may be claimed ahead has left: the
//! other half has to last as long as a claim takes. So what is claimed ahead follows from how long claims take: three
//! times as long, of which half is more than one claim. The limiter's bucket makes up for a claim that is slower for once.

use std::time::Duration;

const CLAIMS_AHEAD: f64 = 3.0;
/// Less would make many tiny claims.
const LEAST: f64 = 0.04;
/// A database that is slower than this slows the gateway down.
const MOST: f64 = 0.2;
/// How much of what is known a claim that is quicker than the others changes.
const FORGETS: f64 = 1.0 / 16.0;

/// The longest that claims take of late, in seconds.
#[derive(Debug)]
pub(crate) struct Pace(f64);

impl Pace {
    /// Nothing is known yet.
    pub(crate) fn new() -> Pace {
        Pace(LEAST)
    }

    pub(crate) fn note(&mut self, took: Duration) {
        let took = took.as_secs_f64().min(MOST);
        if took > self.0 {
            self.0 = took;
        } else {
            self.0 += (took - self.0) * FORGETS;
        }
    }

    /// The part of a second's rate that is claimed ahead.
    pub(crate) fn ahead_seconds(&self) -> f64 {
        (self.0 * CLAIMS_AHEAD).clamp(LEAST, MOST)
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
}
