//! The gateways as they are configured now, and the way to one for each phone.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use domain::Class;
use gateways::{Gateway, GatewayError, Outcome, Submission};
use jiff::Timestamp;
use resources::Snapshot;
use tokio::time::Instant;

use crate::{
    gate::{Gate, Standing},
    limiter::Share,
};

/// Opens gateways; the real ones, or a test's.
pub trait Opener: Send + Sync + 'static {
    fn open(&self, resource: &resources::Gateway) -> Result<Arc<dyn Gateway>, GatewayError>;
}

pub(crate) struct Fleet {
    opener: Arc<dyn Opener>,
    gates: Mutex<BTreeMap<String, Arc<Gate>>>,
    share: Mutex<Share>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}

/// Where a message goes.
#[derive(Debug)]
pub(crate) enum Route {
    To(Arc<Gate>),
    /// No configured gateway serves this phone and class.
    NoneServes,
    /// All that do are down, the last one since then.
    Down(Instant),
}

/// Throttling ones last, then by priority, then by how long their work takes.
type Rank = (bool, u32, f64);

/// What a new snapshot changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// To be served.
    pub opened: Vec<Arc<Gate>>,
    /// To be closed.
    pub retired: Vec<Arc<dyn Gateway>>,
}

impl Fleet {
    pub(crate) fn new(opener: Arc<dyn Opener>) -> Fleet {
        Fleet {
            opener,
            gates: Mutex::default(),
            share: Mutex::new(Share::none()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Gate>>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Always before the gates' lock.
    fn share(&self) -> MutexGuard<'_, Share> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What part of every gateway's rate is ours.
    pub(crate) fn set_share(&self, of: impl FnOnce(&Share) -> Share) {
        let mut share = self.share();
        *share = of(&share);
        for gate in self.lock().values() {
            gate.set_share(&share, Instant::now());
        }
    }

    /// Follows the clock where it is set.
    pub(crate) fn set_clock(&self, unix: Timestamp) {
        self.set_share(|share| share.at(Instant::now(), unix));
    }

    pub(crate) fn all(&self) -> Vec<Arc<Gate>> {
        self.lock().values().cloned().collect()
    }

    /// Takes over a new snapshot.
    pub(crate) fn reload(&self, snapshot: &Snapshot) -> Changes {
        let mut changes = Changes::default();
        let (share, now) = (self.share(), Instant::now());
        let mut gates = self.lock();
        gates.retain(|name, gate| {
            let stays = snapshot.gateways.contains_key(name);
            if !stays {
                changes.retired.push(gate.close());
            }
            stays
        });
        for (name, resource) in &snapshot.gateways {
            match gates.get(name) {
                None => {
                    let gate = Arc::new(Gate::new(resource.clone(), self.open(resource), &share, now));
                    gates.insert(name.clone(), gate.clone());
                    changes.opened.push(gate);
                }
                Some(gate) => {
                    let current = gate.resource();
                    if current == *resource {
                        continue;
                    }
                    let handle = (!same_connection(&current, resource)).then(|| self.open(resource));
                    changes
                        .retired
                        .extend(gate.change(resource.clone(), handle, &share, now));
                }
            }
        }
        changes
    }

    fn open(&self, resource: &resources::Gateway) -> Arc<dyn Gateway> {
        match self.opener.open(resource) {
            Ok(gateway) => gateway,
            Err(error) => {
                tracing::error!(gateway = resource.name, %error, "gateway cannot be opened, nothing is sent through it");
                Arc::new(Broken)
            }
        }
    }

    pub(crate) fn route(&self, e164: &str, class: Class, now: Instant) -> Route {
        let gates = self.lock();
        let mut best: Option<(Rank, &Arc<Gate>)> = None;
        let mut down: Option<Instant> = None;
        for gate in gates.values().filter(|gate| gate.resource().serves(e164, class)) {
            match gate.standing(now) {
                Standing::Down { since } => down = Some(down.map_or(since, |known| known.max(since))),
                standing => {
                    let (priority, waits) = gate.rank();
                    let rank = (standing == Standing::Throttles, priority, waits);
                    if best.as_ref().is_none_or(|(known, _)| rank < *known) {
                        best = Some((rank, gate));
                    }
                }
            }
        }
        match (best, down) {
            (Some((_, gate)), _) => Route::To(gate.clone()),
            (None, Some(since)) => Route::Down(since),
            (None, None) => Route::NoneServes,
        }
    }
}

/// Whether two versions of a resource differ only in what this side applies.
fn same_connection(one: &resources::Gateway, other: &resources::Gateway) -> bool {
    let mut one = one.clone();
    one.rate = other.rate;
    one.sender_rate = other.sender_rate;
    one.classes.clone_from(&other.classes);
    one.priority = other.priority;
    one.prefixes.clone_from(&other.prefixes);
    one == *other
}

/// A gateway that is configured and cannot be opened.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl Gateway for Broken {
    async fn submit(&self, _: Submission) -> Outcome {
        Outcome::Unreachable
    }

    fn is_up(&self) -> bool {
        false
    }

    async fn close(&self) {}
}
