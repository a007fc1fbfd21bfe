//! A gateway's rate, as far as it is this dispatcher's.
//!
//! Rate is counted in parts. All dispatchers together keep it without asking each other, because each knows its part of
//! it: the outbound partitions that it owns, of both topics together, out of all. With the topics counted apart, the larger
//! of the two shares could add up to more than one, and reserving each topic its own part would leave the part of an idle
//! topic unused. Assignment spreads each topic evenly over the group, so a dispatcher's partitions of either topic can use
//! its whole share.
//!
//! # Whole parts
//! The rate times its part of the partitions, rounded down, is what a dispatcher may send in any second, wherever it begins:
//! such limits add up whatever the dispatchers' seconds have to do with each other. Two conditions hold at once:
//! - a token bucket that holds 50 ms worth of it (some more where that is less than a message) spreads the parts out, and lets
//!   a dispatcher that was held up for as long catch up. A message may take more parts than the bucket holds: it then leaves
//!   a debt, and the next one waits longer;
//! - in no second are there more parts than that. Where a message has several parts this, not the bucket, is what keeps a
//!   window that begins with one and ends with one from being over the rate.
//!
//! # The way
//! What counts is when parts are at the gateway, and some are longer on their way than others. The window keeps what was sent
//! together: after a catch-up as many parts may leave at once again as soon as the first ones are out of it. With a window
//! of a second they would do so every second, and whenever the first ones were a little late and the next ones were not, one
//! second of the gateway would have both. So the window is longer than a second by [`WAY`]: whatever is not further apart
//! than that on its way stays within the rate by this alone. The bucket fills more slowly than the window would allow
//! ([`HEADROOM`]), so that such a heap is smaller each time and gone within a few seconds.
//!
//! # The rest
//! Where rounding down would leave too much unused, each partition is worth as many whole parts as the rate divided by the
//! partitions gives. What is left over (all of it, where the rate is below one part a partition) is dealt out by the clock: a
//! second has so many slots, each belongs to one partition in turn, and its owner may send one part when the slot begins, or
//! [`LATE`] after. So clocks matter, by as much as they are apart, and only for this rest.
//!
//! A message of several parts goes by whole parts where its dispatcher has any, else by one slot, and the next ones of its
//! dispatcher pass unused.
//!
//! # Changes
//! A share is reduced before a partition is let go and raised after one is taken. Whoever had it may have used a whole bucket
//! right before, and so may we: what is gained begins with both as a debt, and the hand-over itself is within the rate.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

/// What is used of a rate.
const HEADROOM: f64 = 0.97;
/// How much longer one part may be on its way to the gateway than another.
const WAY: Duration = Duration::from_millis(20);
const WINDOW: Duration = Duration::from_secs(1).saturating_add(WAY);
const BURST_SECONDS: f64 = 0.05;
/// How long after its beginning a slot may be used. With [`HEADROOM`] a second with this and [`WAY`] holds fewer slots than
/// the rate, so that together with one that just begins they are not more.
const LATE: f64 = 0.010;
/// What may be left of a share by rounding it down to whole parts; more than this goes by slots.
const ROUNDED: f64 = 0.025;
/// A clock that was set by more than this begins the count of its slots anew.
const CLOCK_SET: f64 = 0.1;
/// How long a limiter without a rate sleeps between looks; a change of its rate wakes its user earlier.
const IDLE: Duration = Duration::from_secs(1);

/// What part of every gateway's rate is ours, and what time it is.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    /// Which of the outbound partitions, in an order that all dispatchers have.
    ours: Arc<[bool]>,
    count: usize,
    /// Slot number `s` belongs to partition `s * stride`, so that neighbours' slots are apart.
    stride: usize,
    /// One moment by both clocks, the second in seconds since 1970.
    at: Instant,
    unix: f64,
}

impl Share {
    pub(crate) fn of(ours: Vec<bool>, at: Instant, unix: Timestamp) -> Share {
        let count = ours.iter().filter(|ours| **ours).count();
        let mut stride = (ours.len() * 5 / 8).max(1);
        while common_divisor(stride, ours.len().max(1)) > 1 {
            stride += 1;
        }
        Share {
            ours: ours.into(),
            count,
            stride,
            at,
            unix: unix.as_microsecond() as f64 / 1e6,
        }
    }

    /// Nothing.
    pub(crate) fn none() -> Share {
        Share::of(Vec::new(), Instant::now(), Timestamp::UNIX_EPOCH)
    }

    #[cfg(test)]
    pub(crate) fn whole() -> Share {
        Share::of(vec![true], Instant::now(), Timestamp::UNIX_EPOCH)
    }

    /// The same by clocks that were read again.
    pub(crate) fn at(&self, at: Instant, unix: Timestamp) -> Share {
        Share {
            at,
            unix: unix.as_microsecond() as f64 / 1e6,
            ..self.clone()
        }
    }

    /// As a number from 0 to 1.
    pub(crate) fn part(&self) -> f64 {
        self.count as f64 / self.ours.len().max(1) as f64
    }

    fn unix(&self, now: Instant) -> f64 {
        match now.checked_duration_since(self.at) {
            Some(passed) => self.unix + passed.as_secs_f64(),
            None => self.unix - self.at.duration_since(now).as_secs_f64(),
        }
    }

    fn owns(&self, slot: i64) -> bool {
        let length = self.ours.len().max(1) as i64;
        let partition = slot.rem_euclid(length) * self.stride as i64 % length;
        usize::try_from(partition).is_ok_and(|partition| self.ours.get(partition).copied().unwrap_or(false))
    }
}

fn common_divisor(one: usize, other: usize) -> usize {
    match other {
        0 => one,
        other => common_divisor(other, one % other),
    }
}

#[derive(Debug)]
pub(crate) struct Limiter {
    /// Over all dispatchers.
    rate: f64,
    share: Share,
    /// How many whole parts a second the bucket gets, and the most in any second.
    whole: f64,
    limit: u32,
    tokens: f64,
    filled: Instant,
    /// When parts went out within the last second.
    sent: VecDeque<(Instant, u32)>,
    sent_parts: u32,
    /// Slots a second, over all dispatchers.
    slots: f64,
    /// Slots up to this one are used.
    used: i64,
    /// A slot waits until it is used, one at most.
    patient: bool,
}

impl Limiter {
    /// `rate` is that of all dispatchers.
    pub(crate) fn new(rate: f64, share: &Share, now: Instant) -> Limiter {
        let mut limiter = Limiter {
            rate: 0.0,
            share: share.clone(),
            whole: 0.0,
            limit: 0,
            tokens: 0.0,
            filled: now,
            sent: VecDeque::new(),
            sent_parts: 0,
            slots: 0.0,
            used: 0,
            patient: false,
        };
        limiter.set_rate(rate, share, now);
        // Not a full bucket: whoever had this share before has just used it.
        limiter.tokens = 1.0;
        limiter
    }

    pub(crate) fn set_rate(&mut self, rate: f64, share: &Share, now: Instant) {
        self.fill(1, now);
        let clock = (share.unix(now) - self.share.unix(now)).abs();
        let partitions = share.ours.len() as f64;
        let own = rate * share.part();
        let rounded = (own + 1e-9).floor();
        let (whole, limit, slots) = if share.count == 0 {
            (0.0, 0.0, 0.0)
        } else if share.count == share.ours.len() {
            (own, (own - 1e-9).ceil(), 0.0)
        } else if rounded >= own * (1.0 - ROUNDED) {
            (own, rounded, 0.0)
        } else {
            let each = (rate / partitions + 1e-9).floor();
            let own = each * share.count as f64;
            (own, own, (rate - each * partitions).max(0.0))
        };
        let (whole, slots) = (whole * HEADROOM, slots * HEADROOM);
        let gained = whole - self.whole;
        let other_slots = (slots - self.slots).abs() > 1e-9;
        (self.rate, self.whole, self.limit, self.slots) = (rate, whole, limit as u32, slots);
        self.share = share.clone();
        self.tokens = match gained > 0.0 {
            true => (self.tokens - gained * BURST_SECONDS).min(-whole * BURST_SECONDS),
            false => self.tokens.min(self.capacity(1)),
        };
        if other_slots || clock > CLOCK_SET {
            self.used = (share.unix(now) * slots).floor() as i64;
        }
    }

    /// Whether a slot that nobody could use waits instead of passing. It may then come together with others': for a limit
    /// below another one whose slots would hardly ever meet with its own.
    pub(crate) fn set_patient(&mut self, patient: bool) {
        self.patient = patient;
    }

    /// Parts a second that are ours.
    pub(crate) fn rate(&self) -> f64 {
        self.rate * self.share.part()
    }

    /// Whether all that is ours are slots.
    pub(crate) fn is_slotted(&self) -> bool {
        self.whole <= 0.0 && self.slots > 0.0
    }

    /// How long a message of `parts` has to wait; `None`: it may go now.
    pub(crate) fn wait(&mut self, parts: u32, now: Instant) -> Option<Duration> {
        let by_whole = self.whole_wait(parts, now);
        let by_slot = self.slot(parts, now).map(|(_, wait)| wait);
        let wait = match (by_whole, by_slot) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other).unwrap_or(IDLE),
        };
        (wait > Duration::ZERO).then_some(wait)
    }

    /// Takes the parts of a message that [`Limiter::wait`] let go.
    pub(crate) fn spend(&mut self, parts: u32, now: Instant) {
        // A slot passes; whole parts stay.
        if let Some((slot, Duration::ZERO)) = self.slot(parts, now) {
            self.used = slot;
            for _ in 1..parts {
                self.used = self.own_slot(self.used + 1);
            }
            return;
        }
        self.fill(parts, now);
        self.tokens -= f64::from(parts);
        self.sent.push_back((now, parts));
        self.sent_parts += parts;
    }

    /// How long until whole parts let it go; `None`: they never do.
    fn whole_wait(&mut self, parts: u32, now: Instant) -> Option<Duration> {
        if self.whole <= 0.0 {
            return None;
        }
        self.fill(parts, now);
        let needed = self.needed(parts);
        let bucket = match self.tokens + 1e-9 < needed {
            true => Duration::from_secs_f64(((needed - self.tokens) / self.whole).min(3_600.0)),
            false => Duration::ZERO,
        };
        Some(bucket.max(self.window_wait(parts, now)))
    }

    /// The slot that a message may use, and how long until it begins.
    fn slot(&self, parts: u32, now: Instant) -> Option<(i64, Duration)> {
        if self.slots <= 0.0 || self.share.count == 0 || (parts > 1 && self.whole > 0.0) {
            return None;
        }
        let unix = self.share.unix(now);
        let length = self.share.ours.len() as i64;
        let current = (unix * self.slots).floor() as i64;
        if self.patient
            && let Some(slot) = (self.used + 1..=current)
                .rev()
                .take(self.share.ours.len())
                .find(|slot| self.share.owns(*slot))
        {
            return Some((slot, Duration::ZERO));
        }
        let first = ((unix - LATE) * self.slots).ceil() as i64;
        let slot = self.own_slot(first.max(self.used + 1));
        // A message of many parts used many slots before; whoever waits looks again by then.
        let wait = (slot as f64 / self.slots - unix).clamp(0.0, 60.0 * length as f64);
        Some((slot, Duration::from_secs_f64(wait)))
    }

    /// The first slot of ours from `slot` on.
    fn own_slot(&self, slot: i64) -> i64 {
        let length = self.share.ours.len() as i64;
        (slot..slot + length)
            .find(|slot| self.share.owns(*slot))
            .unwrap_or(slot)
    }

    /// What has to be in the bucket for a message of `parts`.
    fn needed(&self, parts: u32) -> f64 {
        f64::from(parts).min((self.whole * BURST_SECONDS).max(1.0))
    }

    /// Some way beyond what is waited for: who wakes a little late would lose it every time.
    fn capacity(&self, parts: u32) -> f64 {
        (self.whole * BURST_SECONDS).max(self.needed(parts) + f64::from(parts) / 2.0)
    }

    fn fill(&mut self, parts: u32, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + passed * self.whole).min(self.capacity(parts));
    }

    fn window_wait(&mut self, parts: u32, now: Instant) -> Duration {
        while let Some((at, gone)) = self.sent.front().copied()
            && at + WINDOW <= now
        {
            self.sent.pop_front();
            self.sent_parts -= gone;
        }
        // A message of more parts than a second holds goes out alone.
        let limit = self.limit.max(parts);
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
        let (mut now, mut limiter) = (start, Limiter::new(rate, &Share::whole(), start));
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
        let (mut first, mut within, mut most) = (0, 0, 0);
        for (at, parts) in sent {
            within += parts;
            while *at >= sent[first].0 + Duration::from_secs(1) {
                within -= sent[first].1;
                first += 1;
            }
            most = most.max(within);
        }
        most
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
        let mut limiter = Limiter::new(200.0, &Share::whole(), start);
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
        let mut limiter = Limiter::new(100.0, &Share::none(), now);
        assert!(limiter.wait(1, now + Duration::from_secs(10)).is_some());
        limiter.set_rate(100.0, &Share::whole(), now + Duration::from_secs(10));
        assert!(limiter.wait(1, now + Duration::from_millis(10_110)).is_none());
    }

    #[test]
    fn a_share_that_goes_from_one_to_another_is_used_once() {
        let start = Instant::now();
        let unix = Timestamp::from_microsecond(1_790_000_000_123_456).unwrap();
        let quarters = |most: usize| (0..PARTITIONS).map(|number| (number % 4 < 3) == (most == 3)).collect();
        let part = |most: usize| Share::of(quarters(most), start, unix);
        for (olds, news) in [(Share::whole(), Share::none()), (part(1), part(3))] {
            let (mut old, mut new) = (Limiter::new(200.0, &olds, start), Limiter::new(200.0, &news, start));
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
                    // Held up for a while, both catch up right before the old owner lets go.
                    1_400..=1_498 => {}
                    1_500 => {
                        old.set_rate(200.0, &Share::none(), now);
                        new.set_rate(200.0, &Share::whole(), now);
                    }
                    _ => {
                        offer(&mut old, now);
                        offer(&mut new, now);
                    }
                }
            }
            assert!(most_in_a_second(&sent) <= 200, "{}", most_in_a_second(&sent));
            assert!(sent.len() >= 540, "{}", sent.len());
        }
    }

    /// The partitions of both outbound topics.
    const PARTITIONS: usize = 16;

    fn shares(dispatchers: usize, start: Instant) -> Vec<Share> {
        let unix = Timestamp::from_microsecond(1_790_000_000_123_456).unwrap();
        (0..dispatchers)
            .map(|one| {
                let ours = (0..PARTITIONS)
                    .map(|partition| partition % dispatchers == one)
                    .collect();
                Share::of(ours, start, unix)
            })
            .collect()
    }

    struct Noise(u64);

    impl Noise {
        fn below(&mut self, most: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % most
        }
    }

    /// Each of these sends as fast as its limiter lets it, and wakes up to 3 ms late.
    fn together(limiters: &mut [Limiter], parts: u32, start: Instant, seconds: u64) -> Vec<(Duration, u32)> {
        on_a_machine(limiters, parts, start, seconds, 0)
    }

    /// The same on a machine that holds each of them up about twice a second, for at most so many milliseconds.
    fn on_a_machine(
        limiters: &mut [Limiter],
        parts: u32,
        start: Instant,
        seconds: u64,
        held_up: u64,
    ) -> Vec<(Duration, u32)> {
        let end = start + Duration::from_secs(seconds);
        let mut wakes: Vec<Instant> = vec![start; limiters.len()];
        let mut holds: Vec<Instant> = vec![start; limiters.len()];
        let (mut sent, mut noise) = (Vec::new(), Noise(1));
        loop {
            let (one, now) = wakes.iter().copied().enumerate().min_by_key(|(_, wake)| *wake).unwrap();
            if now >= end {
                return sent;
            }
            if held_up > 0 && now >= holds[one] {
                holds[one] = now + Duration::from_millis(200 + noise.below(600));
                wakes[one] = now + Duration::from_millis(noise.below(held_up + 1));
                continue;
            }
            wakes[one] = match limiters[one].wait(parts, now) {
                Some(wait) => now + wait + Duration::from_micros(1_000 + noise.below(2_000)),
                None => {
                    limiters[one].spend(parts, now);
                    sent.push((now - start, parts));
                    now + Duration::from_micros(20)
                }
            };
        }
    }

    #[test]
    fn all_dispatchers_together_are_within_the_rate_in_any_second_and_use_it() {
        for rate in [10.0, 46.0, 50.0, 100.0, 150.0, 3_000.0] {
            for dispatchers in [1, 2, 3, 4, 8] {
                let start = Instant::now();
                let mut limiters: Vec<Limiter> = shares(dispatchers, start)
                    .iter()
                    .map(|share| Limiter::new(rate, share, start))
                    .collect();
                let sent = together(&mut limiters, 1, start, 20);
                let (most, total) = (most_in_a_second(&sent), sent.len() as f64);
                assert!(
                    f64::from(most) <= rate * 1.02,
                    "{dispatchers} dispatchers: {most} parts in a second at {rate}"
                );
                assert!(
                    total >= 0.95 * rate * 20.0,
                    "{dispatchers} dispatchers: {total} parts in 20 s at {rate}"
                );
                // Each has its part.
                let own = rate / dispatchers as f64;
                assert!(limiters.iter().all(|one| (one.rate() - own).abs() <= own * 0.2));
            }
        }
    }

    #[test]
    fn at_the_gateway_no_second_is_over_the_rate_however_long_the_way_is_and_whoever_is_held_up() {
        let start = Instant::now();
        for (rate, parts, dispatchers) in [
            (150.0, 3, 1),
            (150.0, 3, 4),
            (200.0, 1, 1),
            (200.0, 1, 4),
            (500.0, 2, 2),
            (500.0, 5, 1),
        ] {
            let mut limiters: Vec<Limiter> = shares(dispatchers, start)
                .iter()
                .map(|share| Limiter::new(rate, share, start))
                .collect();
            let sent = on_a_machine(&mut limiters, parts, start, 60, 60);
            let mut noise = Noise(2);
            let mut there: Vec<(Duration, u32)> = sent
                .iter()
                .map(|(at, parts)| (*at + Duration::from_millis(noise.below(21)), *parts))
                .collect();
            there.sort_unstable();
            let (most, total) = (
                most_in_a_second(&there),
                there.iter().map(|(_, parts)| parts).sum::<u32>(),
            );
            let whom = format!("{dispatchers} dispatchers, {parts} parts a message");
            assert!(f64::from(most) <= rate, "{whom}: {most} parts in a second at {rate}");
            // Of 37 parts a second a dispatcher, messages of three can use 36, and of a window a little less.
            let least = if (parts, dispatchers) == (3, 4) { 0.92 } else { 0.95 };
            assert!(
                f64::from(total) >= least * rate * 60.0,
                "{whom}: {total} parts in a minute at {rate}"
            );
        }
    }

    #[test]
    fn long_texts_are_within_the_rate_too() {
        let start = Instant::now();
        let mut limiters: Vec<Limiter> = shares(4, start)
            .iter()
            .map(|share| Limiter::new(100.0, share, start))
            .collect();
        let sent = together(&mut limiters, 3, start, 20);
        assert!(most_in_a_second(&sent) <= 100);
        // Where slots are all that there is, they are kept on average.
        let mut limiters: Vec<Limiter> = shares(4, start)
            .iter()
            .map(|share| Limiter::new(10.0, share, start))
            .collect();
        let sent = together(&mut limiters, 3, start, 60);
        let total: u32 = sent.iter().map(|(_, parts)| parts).sum();
        assert!((560..=600).contains(&total), "{total}");
    }

    #[test]
    fn a_clock_that_is_set_stops_nobody() {
        let start = Instant::now();
        let share = &shares(4, start)[1];
        let mut limiter = Limiter::new(10.0, share, start);
        assert!(limiter.is_slotted());
        let unix = Timestamp::from_microsecond(1_790_000_000_123_456).unwrap();
        let later = start + Duration::from_secs(10);
        let back = share.at(later, unix - jiff::SignedDuration::from_secs(3_600));
        limiter.set_rate(10.0, &back, later);
        let sent = together(std::slice::from_mut(&mut limiter), 1, later, 20);
        assert!((45..=50).contains(&sent.len()), "{}", sent.len());
    }

    #[test]
    fn a_patient_one_keeps_a_slot() {
        let start = Instant::now();
        let share = &shares(4, start)[1];
        let mut limiter = Limiter::new(10.0, share, start);
        limiter.set_patient(true);
        let later = start + Duration::from_secs(5);
        assert_eq!(limiter.wait(1, later), None);
        limiter.spend(1, later);
        assert!(limiter.wait(1, later).is_some(), "one, not all that passed");
    }
}
