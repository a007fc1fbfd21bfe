//! Campaigns: started at their time (`schedule`), expanded into jobs (`plan`, `emit`), finished when all is settled
//! (`finish`). Any number of replicas do this side by side.

mod emit;
mod finish;
mod plan;
mod schedule;
mod seen;

use std::sync::Arc;

use bus::Log;
use domain::phone::PhoneKey;
use stage::{Clock, Live};
use store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Config, wake::Wake};

/// How many append jobs at the same time.
const EMITTERS: usize = 2;

/// Contacts after which whoever works on a chunk lets others work: a campaign's first messages are on their way meanwhile,
/// and have few threads to go on with.
const AT_ONCE: usize = 200;

/// Called before each contact of a chunk, with its place.
async fn give_way(place: usize) {
    if place % AT_ONCE == AT_ONCE - 1 {
        tokio::task::yield_now().await;
    }
}

/// What all of them work with.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    log: Arc<dyn Log>,
    store: Store,
    live: Live,
    clock: Clock,
    phone_key: PhoneKey,
    trace_sample: f64,
    wake: Wake,
    stop: CancellationToken,
}

pub(crate) fn spawn(config: &Config, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
    let work = Work {
        log: config.log.clone(),
        store: config.store.clone(),
        live: config.live.clone(),
        clock: config.clock.clone(),
        phone_key: config.phone_key.clone(),
        trace_sample: config.trace_sample,
        wake: Wake::new(),
        stop: stop.clone(),
    };
    tasks.spawn(work.wake.clone().listen(config.store.clone(), stop.clone()));
    tasks.spawn(schedule::run(work.clone()));
    tasks.spawn(plan::run(work.clone()));
    for _ in 0..EMITTERS {
        tasks.spawn(emit::run(work.clone()));
    }
    tasks.spawn(finish::run(work));
}

/// Tells a failure that recurs once, and when it is over.
#[derive(Debug)]
struct Trouble {
    what: &'static str,
    failing: bool,
}

impl Trouble {
    fn new(what: &'static str) -> Trouble {
        Trouble { what, failing: false }
    }

    fn failed(&mut self, error: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(%error, "{}: failed, trying again", self.what);
        }
    }

    fn went_well(&mut self) {
        if std::mem::replace(&mut self.failing, false) {
            tracing::info!("{}: works again", self.what);
        }
    }
}
