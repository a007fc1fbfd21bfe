//! Where items wait while every gateway that serves them is down: in memory for a moment, in the durable `deferred` table
//! after that.
//!
//! The moment covers a reconnect or a breaker's first cool-down. Once a gateway has been down for longer, what arrives for
//! it is deferred at once, so that the items of other gateways behind it on the partition are not held up.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::{core::Core, item::Item};

/// How long an item waits in memory.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(crate) struct WaitingRoom {
    items: Mutex<VecDeque<Item>>,
    arrived: Notify,
}

impl WaitingRoom {
    pub(crate) fn push(&self, item: Item) {
        self.items
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(item);
        self.arrived.notify_one();
    }

    fn take(&self) -> VecDeque<Item> {
        std::mem::take(&mut self.items.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Places what waits again and again, until the dispatcher stops.
pub(crate) async fn run(core: &Core) {
    loop {
        let items = core.waiting.take();
        if items.is_empty() {
            tokio::select! {
                () = core.stopping.cancelled() => return,
                () = core.waiting.arrived.notified() => {}
            }
        }
        for item in items {
            core.place(item);
        }
        tokio::select! {
            () = core.stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
