//! Whether a gateway is worth trying: a breaker against failures and a pause against throttling.
//!
//! The breaker has hysteresis, so that one error does not make traffic flap between two gateways: it opens after
//! [`OPENS_AFTER`] failures in a row, lets one message through at a time after a cool-down that doubles with each
//! disappointment, and closes after [`CLOSES_AFTER`] successes in a row. A failure is what the gateway does not answer
//! for (cut, timed out, not there). A refusal is an answer. An answer that it cannot now (a full queue, a system error) may
//! concern one phone or all: it takes [`FALTERS_LIKE_FAILURE`] of these to count as one failure. What fails together is one
//! failure: a cut connection takes everything with it that was in flight, which says no more than one message would.
//!
//! Throttling is no failure: it pauses the gateway, the longer the more often it comes without another answer in between.

use std::time::Duration;

use tokio::time::Instant;

const OPENS_AFTER: u32 = 5;
const FALTERS_LIKE_FAILURE: u32 = 4;
/// What fails within this of a failure that is counted already, and was under way by then, is part of it.
const TOGETHER: Duration = Duration::from_millis(100);
const CLOSES_AFTER: u32 = 3;
const COOL_DOWN: Duration = Duration::from_secs(1);
const COOL_DOWN_MAX: Duration = Duration::from_secs(60);
const PAUSES: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// What an attempt says about its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Works,
    Throttles,
    /// It answers that it cannot now.
    Falters,
    Fails,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// How near it is to opening, in parts of a failure.
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        successes: u32,
    },
}

#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    cool_down: Duration,
    /// When the last failure was counted, and as how much.
    last: Option<(Instant, u32)>,
    throttled: u32,
    paused_until: Option<Instant>,
}

impl Breaker {
    pub(crate) fn new() -> Breaker {
        Breaker {
            state: State::Closed { failures: 0 },
            cool_down: COOL_DOWN,
            last: None,
            throttled: 0,
            paused_until: None,
        }
    }

    /// How many messages may be with the gateway now, `out` of them being there.
    pub(crate) fn allowance(&mut self, out: usize, now: Instant) -> usize {
        if let State::Open { until } = self.state
            && now >= until
        {
            self.state = State::HalfOpen { successes: 0 };
        }
        match self.state {
            State::Closed { .. } => usize::MAX,
            State::Open { .. } => 0,
            State::HalfOpen { .. } => 1_usize.saturating_sub(out),
        }
    }

    /// Whether traffic should look for another way now. A probe that is under way is no reason to come here.
    pub(crate) fn is_open(&mut self, out: usize, now: Instant) -> bool {
        self.allowance(out, now) == 0
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Whether not even a probe may go.
    pub(crate) fn refuses(&self, now: Instant) -> bool {
        matches!(self.state, State::Open { until } if now < until)
    }

    /// How long throttling keeps it paused.
    pub(crate) fn pause(&self, now: Instant) -> Option<Duration> {
        self.paused_until
            .map(|until| until.saturating_duration_since(now))
            .filter(|left| *left > Duration::ZERO)
    }

    /// Whether it throttles so much that traffic should look for another way while it is paused.
    pub(crate) fn throttles(&self) -> bool {
        self.throttled >= 3
    }

    /// An attempt that began at `begun` says this.
    pub(crate) fn note(&mut self, sign: Sign, begun: Instant, now: Instant) {
        match sign {
            Sign::Works => {
                self.throttled = 0;
                match &mut self.state {
                    State::Closed { failures } => *failures = 0,
                    // An answer to what was sent before it opened says nothing about now.
                    State::Open { .. } => {}
                    State::HalfOpen { successes } => {
                        *successes += 1;
                        if *successes >= CLOSES_AFTER {
                            self.state = State::Closed { failures: 0 };
                            self.cool_down = COOL_DOWN;
                        }
                    }
                }
            }
            Sign::Throttles => {
                let pause = PAUSES[(self.throttled as usize).min(PAUSES.len() - 1)];
                // A window full of messages is throttled together: that is one pause.
                if self.pause(now).is_none() {
                    self.throttled += 1;
                    self.paused_until = Some(now + pause);
                }
            }
            Sign::Fails | Sign::Falters => {
                if sign == Sign::Falters {
                    self.throttled = 0;
                }
                self.failed(sign, begun, now);
            }
        }
    }

    fn failed(&mut self, sign: Sign, begun: Instant, now: Instant) {
        match &mut self.state {
            State::Closed { failures } => {
                let weight = if sign == Sign::Fails { FALTERS_LIKE_FAILURE } else { 1 };
                match &mut self.last {
                    Some((at, counted)) if begun <= *at && now.saturating_duration_since(*at) < TOGETHER => {
                        *failures += weight.saturating_sub(*counted);
                        *counted = weight.max(*counted);
                    }
                    last => {
                        *last = Some((now, weight));
                        *failures += weight;
                    }
                }
                if *failures >= OPENS_AFTER * FALTERS_LIKE_FAILURE {
                    self.open(now);
                }
            }
            State::Open { .. } => {}
            State::HalfOpen { .. } => {
                if sign == Sign::Fails {
                    self.cool_down = (self.cool_down * 2).min(COOL_DOWN_MAX);
                }
                self.open(now);
            }
        }
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open {
            until: now + self.cool_down,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attempt that began only after all before it had ended.
    fn note(breaker: &mut Breaker, sign: Sign, now: Instant) {
        breaker.last = None;
        breaker.note(sign, now, now);
    }

    #[test]
    fn one_error_does_not_open_it_and_one_success_does_not_close_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 1..OPENS_AFTER {
            note(&mut breaker, Sign::Fails, now);
        }
        note(&mut breaker, Sign::Works, now);
        for _ in 0..OPENS_AFTER {
            assert!(!breaker.is_open(0, now));
            note(&mut breaker, Sign::Fails, now);
        }
        assert!(breaker.is_open(0, now));
        note(&mut breaker, Sign::Works, now);
        assert!(breaker.is_open(0, now), "a late answer does not close it");
        let later = now + COOL_DOWN;
        assert_eq!(breaker.allowance(0, later), 1);
        assert_eq!(breaker.allowance(1, later), 0, "one probe at a time");
        note(&mut breaker, Sign::Works, later);
        assert_eq!(breaker.allowance(0, later), 1);
        note(&mut breaker, Sign::Works, later);
        note(&mut breaker, Sign::Works, later);
        assert_eq!(breaker.allowance(9, later), usize::MAX);
    }

    #[test]
    fn each_disappointment_doubles_the_cool_down() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..OPENS_AFTER {
            note(&mut breaker, Sign::Fails, now);
        }
        for cool_down in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(breaker.is_open(0, now + Duration::from_secs(cool_down) - Duration::from_millis(1)));
            now += Duration::from_secs(cool_down);
            assert!(!breaker.is_open(0, now));
            note(&mut breaker, Sign::Fails, now);
        }
    }

    #[test]
    fn a_gateway_that_answers_gets_more_patience() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 1..OPENS_AFTER * FALTERS_LIKE_FAILURE {
            note(&mut breaker, Sign::Falters, now);
        }
        assert!(!breaker.is_open(0, now));
        note(&mut breaker, Sign::Falters, now);
        assert!(breaker.is_open(0, now));
    }

    #[test]
    fn throttling_pauses_longer_and_longer() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..50 {
            note(&mut breaker, Sign::Throttles, now);
        }
        assert_eq!(
            breaker.pause(now),
            Some(PAUSES[0]),
            "a window full of them is one pause"
        );
        assert!(!breaker.throttles());
        let mut at = now;
        for pause in &PAUSES[1..] {
            at += Duration::from_secs(40);
            note(&mut breaker, Sign::Throttles, at);
            assert_eq!(breaker.pause(at), Some(*pause));
        }
        assert!(breaker.throttles());
        note(&mut breaker, Sign::Works, at);
        assert!(!breaker.throttles());
    }

    #[test]
    fn a_cut_connection_is_one_failure_however_much_was_in_flight() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut breaker = Breaker::new();
        for cut in 1..u64::from(OPENS_AFTER) {
            let now = at(cut * 1_000);
            for number in 0..100 {
                breaker.note(
                    Sign::Fails,
                    at(cut * 1_000 - 500),
                    now + Duration::from_micros(number * 500),
                );
            }
            assert!(!breaker.is_open(0, now), "after {cut} cuts");
        }
        breaker.note(Sign::Works, at(9_000), at(9_000));
        // Whoever tried only after the others had failed says something new, however soon.
        for number in 1..u64::from(OPENS_AFTER) {
            breaker.note(Sign::Fails, at(10_000 + number), at(10_000 + number));
            assert!(!breaker.is_open(0, at(10_000 + number)));
        }
        breaker.note(Sign::Fails, at(10_050), at(10_051));
        assert!(breaker.is_open(0, at(10_051)));
    }

    #[test]
    fn answers_that_do_not_come_open_it_one_by_one() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut breaker = Breaker::new();
        // All were under way together and run out at the pace at which they were sent.
        for number in 0..u64::from(OPENS_AFTER) {
            assert!(!breaker.is_open(0, at(10_000)));
            breaker.note(Sign::Fails, at(number * 100), at(10_000 + number * 100));
        }
        assert!(breaker.is_open(0, at(10_500)));
    }

    #[test]
    fn a_full_queue_that_hits_a_whole_window_is_one_answer() {
        let start = Instant::now();
        let mut breaker = Breaker::new();
        for moment in 0..u64::from(FALTERS_LIKE_FAILURE * OPENS_AFTER) {
            let now = start + Duration::from_millis(moment * 200);
            assert!(!breaker.is_open(0, now), "after {moment} moments");
            for _ in 0..50 {
                breaker.note(Sign::Falters, start, now);
            }
        }
        assert!(breaker.is_open(0, start + Duration::from_millis(200 * 19)));
    }
}
