//! The time, as a value that is handed in: services never ask the machine for it themselves, so a test sets it.

use std::{fmt, sync::Arc};

use jiff::Timestamp;

/// Where a service reads the time. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's own.
    pub fn system() -> Clock {
        Clock(Arc::new(Timestamp::now))
    }

    /// Always `at`.
    pub fn fixed(at: Timestamp) -> Clock {
        Clock(Arc::new(move || at))
    }

    /// Any function of nothing, for example one that reads a test's atomic.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
