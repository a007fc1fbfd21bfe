//! For which phones somebody speaks in a campaign: the first contact that a walk meets with it.
//!
//! A walk holds them all, some 20 bytes each, so that it asks nobody. What it adds is written with each chunk, and who takes
//! a campaign over begins with what its chunks say: no other walk writes a chunk in between, or the next one of this walk is
//! refused.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use domain::phone::PhoneMark;

/// What one walk has met.
#[derive(Debug)]
pub(super) struct Seen(Mutex<BTreeSet<PhoneMark>>);

impl Seen {
    pub(super) fn new(spoken_for: BTreeSet<PhoneMark>) -> Seen {
        Seen(Mutex::new(spoken_for))
    }

    /// Whether nobody speaks for the phone yet; now somebody does.
    pub(super) fn is_first(&self, mark: PhoneMark) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(mark)
    }
}
