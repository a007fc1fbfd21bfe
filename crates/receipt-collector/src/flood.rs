//! When the step makes way for the edge.
//!
//! Gateways wait for their answer and give up, and messages wait to be sent; what is kept can be understood a little later.
//! So in a flood of callbacks the edge goes first, and the step after it.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use stage::Clock;
use tokio::time::Instant;

/// More callbacks than this waiting for their answer: the machine has its hands full.
const FLOOD: usize = 200;
/// A flood is over when there were no more than that for so long.
const EBB: Duration = Duration::from_millis(250);
/// How old receipts may become, unread, while more flood in.
const PUT_OFF: SignedDuration = SignedDuration::from_secs(20);
/// The same where a reply has come with them or after them: it may want no more messages. Of replies that another replica
/// received nothing is known here; they wait as receipts do.
const PUT_OFF_BEFORE_REPLY: SignedDuration = SignedDuration::from_secs(10);
/// How often to look.
const LOOK: Duration = Duration::from_millis(50);

/// The callbacks that wait for their answer, and when there were too many of them.
#[derive(Debug)]
pub(crate) struct Flood {
    unanswered: AtomicUsize,
    begun: Instant,
    /// When there were last too many, in milliseconds since `begun`.
    flooded_at: AtomicU64,
    /// When the last reply was received, in milliseconds since 1970.
    reply_at: AtomicI64,
}

impl Default for Flood {
    fn default() -> Flood {
        Flood {
            unanswered: AtomicUsize::new(0),
            begun: Instant::now(),
            flooded_at: AtomicU64::new(u64::MAX),
            reply_at: AtomicI64::new(i64::MIN),
        }
    }
}

impl Flood {
    /// Waits until the flood is over, or what came at `since` has waited for long enough.
    pub(crate) async fn calm(&self, since: Timestamp, clock: &Clock) {
        while self.is_on(Instant::now()) && clock.now().duration_since(since) < self.put_off(since) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A callback waits for its answer until what this gives is dropped.
    pub(crate) fn enter(&self, now: Instant) -> Unanswered<'_> {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) >= FLOOD {
            self.flooded_at.store(self.place(now), Ordering::Relaxed);
        }
        Unanswered(self)
    }

    pub(crate) fn note_reply(&self, at: Timestamp) {
        self.reply_at.fetch_max(at.as_millisecond(), Ordering::Relaxed);
    }

    fn is_on(&self, now: Instant) -> bool {
        match self.flooded_at.load(Ordering::Relaxed) {
            u64::MAX => false,
            at => u128::from(self.place(now).saturating_sub(at)) < EBB.as_millis(),
        }
    }

    /// How old may become what was received since then.
    fn put_off(&self, since: Timestamp) -> SignedDuration {
        match self.reply_at.load(Ordering::Relaxed) >= since.as_millisecond() {
            true => PUT_OFF_BEFORE_REPLY,
            false => PUT_OFF,
        }
    }

    fn place(&self, now: Instant) -> u64 {
        u64::try_from((now - self.begun).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Counts as answered when it is dropped, also where nobody waits for the answer any more.
pub(crate) struct Unanswered<'a>(&'a Flood);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.unanswered.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_many_at_once_and_is_over_a_little_later() {
        let flood = Flood::default();
        let begun = flood.begun;
        let few: Vec<_> = (0..FLOOD).map(|_| flood.enter(begun)).collect();
        assert!(!flood.is_on(begun), "as many as that are none");
        let at = begun + Duration::from_secs(3);
        drop(flood.enter(at));
        drop(few);
        assert!(flood.is_on(at));
        assert!(flood.is_on(at + EBB - Duration::from_millis(1)));
        assert!(!flood.is_on(at + EBB));
        drop(flood.enter(at + EBB));
        assert!(!flood.is_on(at + EBB), "those before were answered");
    }

    #[tokio::test]
    async fn what_is_old_enough_is_put_off_no_longer() {
        let flood = Flood::default();
        // It does not end by itself.
        flood.flooded_at.store(u64::MAX - 1, Ordering::Relaxed);
        let now = Timestamp::UNIX_EPOCH + PUT_OFF;
        flood.calm(Timestamp::UNIX_EPOCH, &Clock::fixed(now)).await;
        let late = now - SignedDuration::from_nanos(1);
        let clock = Clock::fixed(late);
        let calm = flood.calm(Timestamp::UNIX_EPOCH, &clock);
        assert!(tokio::time::timeout(LOOK, calm).await.is_err());
    }

    #[test]
    fn what_came_before_a_reply_is_put_off_for_less() {
        let flood = Flood::default();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(flood.put_off(at(0)), PUT_OFF);
        flood.note_reply(at(5));
        flood.note_reply(at(3));
        assert_eq!(flood.put_off(at(0)), PUT_OFF_BEFORE_REPLY);
        assert_eq!(flood.put_off(at(5)), PUT_OFF_BEFORE_REPLY, "it is among them");
        assert_eq!(flood.put_off(at(6)), PUT_OFF, "it came before them");
    }
}
