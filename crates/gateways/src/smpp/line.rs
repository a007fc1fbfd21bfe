//! What a bind's task tells those who hand it messages: whether it is up, and how long it sends nothing.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct State {
    up: AtomicBool,
    paused_until: Mutex<Option<Instant>>,
}

impl State {
    fn paused(&self) -> MutexGuard<'_, Option<Instant>> {
        self.paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn up(&self) {
        self.up.store(true, Ordering::Relaxed);
    }

    /// A pause ends with its connection.
    pub(crate) fn down(&self) {
        self.up.store(false, Ordering::Relaxed);
        *self.paused() = None;
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub(crate) fn pause_until(&self, until: Instant) {
        *self.paused() = Some(until);
    }

    /// How long it still sends nothing.
    pub(crate) fn pause(&self, now: Instant) -> Option<Duration> {
        self.paused()
            .map(|until| until.saturating_duration_since(now))
            .filter(|left| !left.is_zero())
    }
}
