//! Sends finished texts through the gateways: each once, at the gateway's rate, through any fault.
//!
//! It is the one stage that talks to the world in the middle of its work, so it has a loop of its own. Two consumers of one
//! group read the two outbound topics ([`lane`]); an item is judged again, routed to a gateway ([`fleet`], [`gate`]),
//! claimed in the ledger ([`claims`]) and submitted ([`serve`]); what became of it is written with its receipts and offsets
//! ([`writer`]).
//!
//! # The delivery argument
//! A submission is preceded by a committed claim: the ledger's row says `sending`, by whom, and which attempt it is. A
//! record is finished when its outcome is written; a partition's offset is committed up to its lowest unfinished record. So
//! after a crash every record without a written outcome is read again by the partition's next owner, who finds in the
//! ledger how far it had come:
//!
//! | it died | the row says | the next owner |
//! |---|---|---|
//! | before the claim's commit (`dispatcher-before-claim`) | what it said before | claims and sends |
//! | after the claim, before the submission (`dispatcher-after-claim`, `dispatcher-before-submit`) | `sending`, by somebody else | cannot tell these four apart: a marketing message becomes `unknown`, a transactional one is claimed and sent again under the same client reference (a setting) |
//! | after the submission (`dispatcher-after-submit`) | the same | the same |
//! | before the outcome's commit (`dispatcher-before-outcome`, `dispatcher-before-commit`) | the same | the same |
//! | after the outcome, before the receipts (Kafka: `dispatcher-after-outcome`) | the outcome | sends nothing, makes the receipts again from the row |
//! | after the receipts, before the offset (Kafka: `dispatcher-after-commit`) | the outcome | the same; readers know the receipts by their ids |
//! | after the commit (PostgreSQL: `dispatcher-after-commit`) | the outcome | all is done: outcome, receipts and offset are one transaction |
//!
//! Few messages are ever claimed and unanswered: what the rate lets go while claims are made ([`pace`]; 40 ms of it where
//! the database is quick), and the gateway's window.
//!
//! - **A commit whose answer is lost** may have claimed: the same owner, who knows that it has submitted nothing, asks again
//!   and is told that the claim is its own ([`store::messages::ClaimWant::again`]).
//! - **One message, one flight**: a second record of a message that is under way here waits until the first is written
//!   ([`item::Flights`]). So a row that says `sending` at a claim is always somebody else's.
//! - **An owner that lost its partition and does not know it** may still submit what it had claimed. The next owner calls
//!   that unknown (or, transactional, sends it again); the late answer settles it forward.
//! - **A retry** is a record in the `deferred` table, written in the transaction that moves the row to `deferred` and counts
//!   the attempt. The record that led to it claims nothing any more: its attempt is over.
//! - **Nothing was handed over** (the gateway was down): the row goes back to what it was, and the item looks for another
//!   way in memory. After three seconds without one it goes to `deferred`, unclaimed, for longer the longer it waits.
//! - **No database, no sending**: a claim that cannot be made is tried again, for ever.
//!
//! Nothing is left `sending`: whoever owns the partition settles what its predecessors left, because the record's offset
//! cannot have been committed before its outcome. `tamtam audit` reports a claim that is an hour old.

mod breaker;
mod claims;
mod core;
mod dead;
mod fleet;
mod gate;
mod incoming;
mod item;
mod judge;
mod lane;
mod limiter;
mod limits;
mod metrics;
mod offsets;
mod pace;
mod recall;
mod retry;
mod room;
mod senders;
mod serve;
mod waiting;
mod writer;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bus::{BusError, Log};
use domain::phone::PhoneKey;
use gateways::{Gateway, GatewayError};
use resources::gateway::Secrets;
use stage::{Clock, Live};
use store::Store;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use fleet::Opener;
pub use retry::Limits;

use crate::{
    core::Core,
    fleet::Fleet,
    lane::{Lane, TOPICS},
};

/// The consumer group, and the stage's name.
pub const GROUP: &str = "dispatcher";

/// What a dispatcher is made of.
#[derive(Clone)]
pub struct Config {
    pub log: Arc<dyn Log>,
    pub store: Store,
    pub live: Live,
    pub clock: Clock,
    pub phone_key: PhoneKey,
    /// Who claims: new with each start.
    pub instance: Uuid,
    pub secrets: Secrets,
    pub limits: Limits,
    /// The most records read at once; four times as many of a topic, and 5,000 at least, are in memory.
    pub batch_records: usize,
    /// How long a stop, or a partition that is taken away, waits for what is under way.
    pub drain: Duration,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

/// Why a dispatcher cannot run at all; what may pass is waited for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the dispatcher cannot read its topics: {0}")]
    Bus(#[from] BusError),
}

/// Sends until `shutdown`, then drains.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let opener = Real {
        secrets: config.secrets.clone(),
        clock: config.clock.clone(),
        incoming: Arc::new(incoming::ToCallbacks {
            log: config.log.clone(),
            live: config.live.clone(),
            phone_key: config.phone_key.clone(),
            instance: config.instance,
            count: AtomicU64::new(0),
        }),
    };
    run_with(config, Arc::new(opener), shutdown).await
}

/// The same through gateways that `opener` opens.
pub async fn run_with(config: Config, opener: Arc<dyn Opener>, shutdown: CancellationToken) -> Result<(), Error> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let core = Arc::new(Core::new(
        config.log.clone(),
        config.store,
        config.live,
        config.clock,
        config.phone_key,
        config.instance,
        config.limits,
        Fleet::new(opener),
        sender,
    ));
    let mut consumers = Vec::with_capacity(TOPICS.len());
    for topic in TOPICS {
        consumers.push((topic, config.log.subscribe(GROUP, &[topic]).await?));
    }
    let writer = tokio::spawn(writer::run(core.clone(), receiver));
    let reloads = tokio::spawn(reload(core.clone()));
    let lags = tokio::spawn(lag(core.clone()));
    let recalls = tokio::spawn(recall::run(core.clone()));
    let waiting = tokio::spawn({
        let core = core.clone();
        async move { waiting::run(&core).await }
    });
    // A lane that cannot go on stops the others as a stop from outside does.
    let (stop, end) = (shutdown.child_token(), CancellationToken::new());
    let lanes: Vec<_> = consumers
        .into_iter()
        .map(|(topic, consumer)| {
            let lane = Lane::new(core.clone(), topic, consumer, config.batch_records, config.drain);
            let (stop, end) = (stop.clone(), end.clone());
            tokio::spawn(async move {
                let result = lane.run(stop.clone(), end).await;
                stop.cancel();
                result
            })
        })
        .collect();

    stop.cancelled().await;
    tracing::info!("dispatcher stops: what is claimed is still sent");
    core.stopping.cancel();
    drain(&core, config.drain).await;
    end.cancel();
    let mut result = Ok(());
    for lane in lanes {
        match lane.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if shutdown.is_cancelled() => tracing::warn!(%error, "the group was not left in order"),
            Ok(Err(error)) => result = Err(Error::Bus(error)),
            Err(error) => tracing::error!(%error, "reading ended by a mistake of ours"),
        }
    }
    core.abandon.cancel();
    // None of these is cancelled in the middle of a transaction: they are told, and end.
    for task in [writer, reloads, recalls, waiting, lags] {
        if let Err(error) = task.await {
            tracing::error!(%error, "a task of the dispatcher ended by a mistake of ours");
        }
    }
    for gate in core.fleet.all() {
        gate.close().close().await;
    }
    tracing::info!("dispatcher stopped");
    result
}

/// Waits until what is claimed is answered and written; what is not submitted near the end is let go of.
async fn drain(core: &Core, patience: Duration) {
    let last = patience.min(Duration::from_secs(2)) / 2;
    if tokio::time::timeout(patience - last, core.offsets.quiet(None))
        .await
        .is_ok()
    {
        return;
    }
    for gate in core.fleet.all() {
        serve::release(core, &gate, gate.release());
    }
    if tokio::time::timeout(last, core.offsets.quiet(None)).await.is_err() {
        tracing::warn!("stopped with messages in flight, which become unknown or are sent again");
    }
}

/// Shows how far behind the partitions that are ours are, until the dispatcher stops.
async fn lag(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.stopping.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(10)) => {}
        }
        let owned: Vec<_> = TOPICS.iter().flat_map(|topic| core.offsets.owned_of(*topic)).collect();
        if let Ok(lags) = core.log.lag(GROUP, &TOPICS).await {
            lags.iter()
                .filter(|lag| owned.contains(&lag.partition))
                .for_each(crate::metrics::lag);
        }
    }
}

/// Follows the resources until the dispatcher stops.
async fn reload(core: Arc<Core>) {
    let mut live = core.live.clone();
    loop {
        core.fleet.set_clock(core.clock.now());
        let changes = core.fleet.reload(&live.current());
        for gate in changes.opened {
            serve::start(&core, gate);
        }
        for gateway in changes.retired {
            tokio::spawn(async move { gateway.close().await });
        }
        for gate in core.fleet.all() {
            let up = gate.standing(tokio::time::Instant::now()) == gate::Standing::Up;
            crate::metrics::standing(&gate.name, up);
        }
        tokio::select! {
            () = core.stopping.cancelled() => return,
            () = live.changed() => {}
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
}

struct Real {
    secrets: Secrets,
    clock: Clock,
    incoming: Arc<incoming::ToCallbacks>,
}

impl Opener for Real {
    fn open(&self, resource: &resources::Gateway) -> Result<Arc<dyn Gateway>, GatewayError> {
        let clock = self.clock.clone();
        gateways::open(
            resource,
            resource.password(&self.secrets),
            Arc::new(move || clock.now()),
            Some(self.incoming.clone()),
        )
    }
}
