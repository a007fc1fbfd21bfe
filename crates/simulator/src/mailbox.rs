//! Receipts and replies on their way to a client: kept until they are acknowledged.

use std::{collections::VecDeque, sync::Mutex};

use bytes::Bytes;
use tokio::sync::Notify;

/// A `deliver_sm` without its sequence number.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) pdu: Bytes,
    pub(crate) is_receipt: bool,
}

/// What waits for the receivers of one system id. They share it: each takes what it has room for.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    queue: Mutex<VecDeque<Delivery>>,
    filled: Notify,
}

impl Mailbox {
    pub(crate) fn put(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        self.lock().extend(deliveries);
        self.filled.notify_waiters();
        // Also for a receiver that looked just before and has not begun to wait.
        self.filled.notify_one();
    }

    /// What was not acknowledged comes first the next time.
    pub(crate) fn put_back(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        {
            let mut queue = self.lock();
            for delivery in deliveries {
                queue.push_front(delivery);
            }
        }
        self.filled.notify_waiters();
        self.filled.notify_one();
    }

    pub(crate) fn take(&self, most: usize) -> Vec<Delivery> {
        let mut queue = self.lock();
        let most = most.min(queue.len());
        queue.drain(..most).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Delivery>> {
        // Nothing between lock and unlock can leave the queue half changed.
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
