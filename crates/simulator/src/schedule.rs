//! Receipts at their time: put into mailboxes for SMPP, called back over HTTP.

use std::{cmp::Ordering, collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Script,
    core::{Client, Core},
    dice::Dice,
    http,
    mailbox::Mailbox,
    smpp,
};

/// What a receipt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    Failed,
    Expired,
    /// A word that nobody knows.
    Unheard,
    /// It is on its way: what happens to it beside its end.
    Enroute,
}

#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    pub(crate) client: Client,
    pub(crate) id: u64,
    pub(crate) reference: Option<Uuid>,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) fate: Fate,
    pub(crate) tries: u32,
}

/// A receipt and its time. Equal times keep the order in which they were planned.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    pub(crate) order: u64,
    pub(crate) receipt: Receipt,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl Fate {
    pub(crate) fn decide(dice: Dice, script: &Script) -> Fate {
        if dice.happens("failed", script.failed_percent) {
            Fate::Failed
        } else if dice.happens("expired", script.expired_percent) {
            Fate::Expired
        } else if dice.happens("unknown", script.unknown_percent) {
            Fate::Unheard
        } else {
            Fate::Delivered
        }
    }

    /// What a message of which this is all that is heard ends as.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Fate::Delivered => "delivered",
            Fate::Failed => "failed",
            Fate::Expired => "expired",
            Fate::Unheard | Fate::Enroute => "none",
        }
    }
}

/// Receipts handled in one go, so that the state's lock is not held long.
const BATCH: usize = 1_000;
/// Due times are looked at this often at most: a thousand receipts cost one wake-up.
const TICK: Duration = Duration::from_millis(2);
/// Callbacks under way at once.
const CALLBACKS: usize = 64;
/// How often a callback that is not answered well is tried, a second apart at least.
const TRIES: u32 = 300;

pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    let client = http::client();
    let places = Arc::new(Semaphore::new(CALLBACKS));
    while !shutdown.is_cancelled() {
        let (receipts, next) = core.take_due(Instant::now(), BATCH);
        if !receipts.is_empty() {
            let script = core.script();
            let mut by_mailbox: HashMap<usize, (Arc<Mailbox>, Vec<_>)> = HashMap::new();
            for receipt in receipts {
                match &receipt.client {
                    Client::Smpp(mailbox) => {
                        let delivery = smpp::receipt(&receipt, &script);
                        by_mailbox
                            .entry(Arc::as_ptr(mailbox) as usize)
                            .or_insert_with(|| (mailbox.clone(), Vec::new()))
                            .1
                            .push(delivery);
                    }
                    Client::Http { .. } => {
                        let (core, client, script) = (core.clone(), client.clone(), script.clone());
                        let places = places.clone();
                        tokio::spawn(async move {
                            // A slow client of one gateway does not hold up the others' receipts.
                            let _place = places.acquire_owned().await;
                            call_back(&core, &client, &script, receipt).await;
                        });
                    }
                }
            }
            for (mailbox, deliveries) in by_mailbox.into_values() {
                mailbox.put(deliveries);
            }
            continue;
        }
        let wake = next.map_or(Duration::from_secs(3_600), |at| {
            at.saturating_duration_since(Instant::now())
        });
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(wake.max(TICK)) => {}
            () = core.scheduled.notified() => tokio::time::sleep(TICK).await,
        }
    }
}

async fn call_back(core: &Core, client: &reqwest::Client, script: &Script, mut receipt: Receipt) {
    match http::call_back(client, script, &receipt).await {
        http::CalledBack::Kept => core.acknowledged(1, 0),
        // Nobody asked for it.
        http::CalledBack::Nowhere => core.acknowledged(0, 0),
        http::CalledBack::Failed => {
            receipt.tries += 1;
            if receipt.tries < TRIES {
                core.schedule(receipt, Duration::from_secs(1));
            } else {
                core.acknowledged(0, 0);
            }
        }
    }
}
