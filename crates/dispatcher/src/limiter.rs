//! A gateway's rate, as far as it is this dispatcher's.
//!
//! Rate is counted in parts. Two conditions hold at once:
//! - a token bucket that fills at the rate and holds 100 ms worth of it (one part at least) spreads the parts out, and lets
//!   a dispatcher that was held up for as long catch up. A message may take more parts than the bucket holds: it then leaves a debt, and the next one waits longer;
//! - in no second are there more parts than the rate, rounded up. Where a message has several parts this, not the bucket,
//!   is what keeps a window that begins with one and ends with one from being over the rate.
//!
//! All dispatchers together keep the rate because their shares add up to one: a dispatcher's share is the number of
//! outbound partitions that it owns, of both topics together, out of all. With the topics counted apart, the larger of the
//! two shares could add up to more than one, and reserving each topic its own part would leave the part of an idle topic
//! unused. Assignment spreads each topic evenly over the group, so a dispatcher's partitions of either topic can use its
//! whole share. It is reduced before a partition is let go and raised after one is taken. Whoever had it may have used a
//! whole bucket right before, so what is gained begins with that debt: the hand-over itself is within the rate. A share below one part a second
//! is rounded up within a second and kept on average: a group may be over a rate of N by one part a member.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(1);
const BURST_SECONDS: f64 = 0.1;
/// How long a limiter without a rate sleeps between looks; a change of its rate wakes its user earlier.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Limiter {
    rate: f64,
    tokens: f64,
    filled: Instant,
    /// When parts went out within the last second.
    sent: VecDeque<(Instant, u32)>,
    sent_parts: u32,
}

impl Limiter {
    pub(crate) fn new(rate: f64, now: Instant) -> Limiter {
        Limiter {
            rate,
            // Not a full bucket: whoever had this share before has just used it.
            tokens: 1.0,
            filled: now,
            sent: VecDeque::new(),
            sent_parts: 0,
        }
    }

    pub(crate) fn set_rate(&mut self, rate: f64, now: Instant) {
        self.fill(now);
        self.tokens -= (rate - self.rate).max(0.0) * BURST_SECONDS;
        self.rate = rate;
        self.tokens = self.tokens.min(self.capacity());
    }

    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    /// How long a message of `parts` has to wait; `None`: it may go now.
    pub(crate) fn wait(&mut self, parts: u32, now: Instant) -> Option<Duration> {
        if self.rate <= 0.0 {
            return Some(IDLE);
        }
        self.fill(now);
        let needed = f64::from(parts).min(self.capacity());
        let bucket = match self.tokens + 1e-9 < needed {
            true => Duration::from_secs_f64(((needed - self.tokens) / self.rate).min(3_600.0)),
            false => Duration::ZERO,
        };
        let wait = bucket.max(self.window_wait(parts, now));
        (wait > Duration::ZERO).then_some(wait)
    }

    /// Takes the parts of a message that [`Limiter::wait`] let go.
    pub(crate) fn spend(&mut self, parts: u32, now: Instant) {
        self.fill(now);
        self.tokens -= f64::from(parts);
        self.sent.push_back((now, parts));
        self.sent_parts += parts;
    }

    fn capacity(&self) -> f64 {
        (self.rate * BURST_SECONDS).max(1.0)
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + passed * self.rate).min(self.capacity());
    }

    fn window_wait(&mut self, parts: u32, now: Instant) -> Duration {
        while let Some((at, gone)) = self.sent.front().copied()
            && at + WINDOW <= now
        {
            self.sent.pop_front();
            self.sent_parts -= gone;
        }
        // A message of more parts than a second holds goes out alone.
        let limit = ((self.rate - 1e-9).ceil() as u32).max(parts);
        let mut left = self.sent_parts;
        if left + parts <= limit {
            return Duration::ZERO;
        }
        for (at, gone) in &self.sent {
            left -= gone;
            if left + parts <= limit {
                return (*at + WINDOW).saturating_duration_since(now);
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as fast as the limiter lets it, sleeping as long as it says, in steps of a timer of 1 ms.
    fn run(rate: f64, parts: &[u32], seconds: u64) -> Vec<(Duration, u32)> {
        let start = Instant::now();
        let (mut now, mut limiter) = (start, Limiter::new(rate, start));
        let mut sent = Vec::new();
        let mut sizes = parts.iter().cycle().copied();
        let mut next = sizes.next().unwrap();
        while now - start < Duration::from_secs(seconds) {
            match limiter.wait(next, now) {
                Some(wait) => now += wait.max(Duration::from_millis(1)),
                None => {
                    limiter.spend(next, now);
                    sent.push((now - start, next));
                    next = sizes.next().unwrap();
                }
            }
        }
        sent
    }

    fn most_in_a_second(sent: &[(Duration, u32)]) -> u32 {
        (0..sent.len())
            .map(|first| {
                sent[first..]
                    .iter()
                    .take_while(|(at, _)| *at < sent[first].0 + WINDOW)
                    .map(|(_, parts)| parts)
                    .sum()
            })
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn no_second_is_over_the_rate_and_little_of_it_is_left() {
        for (rate, parts) in [
            (10.0, vec![1]),
            (100.0, vec![1, 2, 3]),
            (500.0, vec![1]),
            (500.0, vec![1, 1, 1, 4]),
            (3_000.0, vec![2]),
        ] {
            let sent = run(rate, &parts, 20);
            let total: u32 = sent.iter().map(|(_, parts)| parts).sum();
            let most = most_in_a_second(&sent);
            assert!(f64::from(most) <= rate, "{most} parts in a second at {rate}");
            assert!(
                f64::from(total) >= 0.95 * rate * 20.0,
                "{total} parts in 20 s at {rate}"
            );
        }
    }

    #[test]
    fn after_a_rest_no_second_is_over_the_rate_either() {
        let start = Instant::now();
        let mut limiter = Limiter::new(200.0, start);
        let mut now = start + Duration::from_secs(60);
        let mut sent = Vec::new();
        while now < start + Duration::from_secs(62) {
            match limiter.wait(1, now) {
                Some(wait) => now += wait,
                None => {
                    limiter.spend(1, now);
                    sent.push((now - start, 1));
                }
            }
        }
        assert!(most_in_a_second(&sent) <= 200);
    }

    #[test]
    fn shares_of_a_slow_gateway_are_kept_on_average() {
        let sent = run(1.25, &[1], 100);
        assert!((119..=127).contains(&sent.len()), "{}", sent.len());
        assert!(most_in_a_second(&sent) <= 2);
        let long = run(2.0, &[5], 100);
        assert!((38..=42).contains(&long.len()), "{}", long.len());
    }

    #[test]
    fn without_a_share_nothing_goes() {
        let now = Instant::now();
        let mut limiter = Limiter::new(0.0, now);
        assert!(limiter.wait(1, now + Duration::from_secs(10)).is_some());
        limiter.set_rate(100.0, now + Duration::from_secs(10));
        assert!(limiter.wait(1, now + Duration::from_millis(10_110)).is_none());
    }

    #[test]
    fn a_share_that_goes_from_one_to_another_is_used_once() {
        let start = Instant::now();
        let (mut old, mut new) = (Limiter::new(200.0, start), Limiter::new(0.0, start));
        let mut sent = Vec::new();
        let mut offer = |limiter: &mut Limiter, now: Instant| {
            while limiter.wait(1, now).is_none() {
                limiter.spend(1, now);
                sent.push((now - start, 1));
            }
        };
        for ms in 0..3_000 {
            let now = start + Duration::from_millis(ms);
            match ms {
                // Held up for a while, the old owner catches up right before it lets go.
                1_400..=1_499 => {}
                1_500 => {
                    old.set_rate(0.0, now);
                    new.set_rate(200.0, now);
                }
                _ => {
                    offer(&mut old, now);
                    offer(&mut new, now);
                }
            }
        }
        assert!(most_in_a_second(&sent) <= 202, "{}", most_in_a_second(&sent));
        assert!(sent.len() >= 540, "{}", sent.len());
    }
}
