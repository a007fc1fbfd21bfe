//! What people configured and which campaigns are halted, as it is now, without reading it for each batch.
//!
//! One task a process keeps a [`Snapshot`] fresh: woken by PostgreSQL's notifications (`tamtam_resources`,
//! `tamtam_campaigns`), and once a second without, so that a lost notification costs a second and no more. A process that
//! cannot reach the database keeps its last snapshot: it cannot send either, because claims need the database too.
//!
//! Who applies a trigger and then publishes an event relies on the trigger being there, however slow this task is. So a
//! batch asks with [`Live::as_of`], which reads one number in the batch's transaction and looks again where it has moved.

use std::{sync::Arc, time::Duration};

use resources::{Resource, Snapshot};
use store::{Store, StoreError, Tx};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

/// The latest snapshot. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Live {
    latest: watch::Receiver<Arc<Snapshot>>,
    /// `None`: it never changes.
    keeper: Option<Arc<Mutex<Keeper>>>,
}

const POLL: Duration = Duration::from_secs(1);
/// A campaign that expands notifies many times a second: one look serves them all.
const GATHER: Duration = Duration::from_millis(50);
const CHANNELS: [&str; 2] = ["tamtam_resources", "tamtam_campaigns"];

impl Live {
    /// Reads the first snapshot and keeps it fresh until `shutdown`.
    pub async fn start(store: Store, shutdown: CancellationToken) -> Result<Live, StoreError> {
        let (sender, mut latest) = watch::channel(Arc::new(Snapshot::default()));
        let mut keeper = Keeper {
            store: store.apart(),
            sender,
        };
        keeper.refresh().await?;
        // Nobody has to be told of the first one.
        latest.mark_unchanged();
        let keeper = Arc::new(Mutex::new(keeper));
        tokio::spawn(keep(keeper.clone(), store, shutdown));
        Ok(Live {
            latest,
            keeper: Some(keeper),
        })
    }

    /// A snapshot that never changes; for tests.
    pub fn fixed(snapshot: Snapshot) -> Live {
        let (_, latest) = watch::channel(Arc::new(snapshot));
        Live { latest, keeper: None }
    }

    pub fn current(&self) -> Arc<Snapshot> {
        self.latest.borrow().clone()
    }

    /// A snapshot that is at least as new as what `tx` can see.
    pub async fn as_of(&self, tx: &mut Tx) -> Result<Arc<Snapshot>, StoreError> {
        if let Some(keeper) = &self.keeper {
            let generation = tx.resources_generation().await?.cast_unsigned();
            if self.latest.borrow().version < generation {
                let mut keeper = keeper.lock().await;
                // Perhaps somebody looked while this waited.
                if self.latest.borrow().version < generation {
                    keeper.refresh().await?;
                }
            }
        }
        Ok(self.current())
    }

    /// Waits until a newer snapshot than the last one seen by this clone is there; for ever once the keeper has ended.
    pub async fn changed(&mut self) {
        if self.latest.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[derive(Debug)]
struct Keeper {
    /// Its own connection: batches wait for it in the middle of their transactions.
    store: Store,
    sender: watch::Sender<Arc<Snapshot>>,
}

async fn keep(keeper: Arc<Mutex<Keeper>>, store: Store, shutdown: CancellationToken) {
    let mut listener = None;
    let mut failing = false;
    loop {
        if listener.is_none() {
            listener = store.listen(&CHANNELS).await.ok();
        }
        // Also right after listening began: what was said before was said to nobody.
        match keeper.lock().await.refresh().await {
            Ok(()) => failing = false,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "resources cannot be read, going on with the last ones");
                }
            }
        }
        let woken = async {
            match &mut listener {
                Some(notices) => notices.next().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            alive = woken => if !alive { listener = None },
            () = tokio::time::sleep(POLL) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

impl Keeper {
    async fn refresh(&mut self) -> Result<(), StoreError> {
        // The generation is read first: a change between the two reads is then seen again the next time.
        let generation = self.store.resources_generation().await?.cast_unsigned();
        let last = self.sender.borrow().clone();
        let mut snapshot = if last.version == generation {
            Snapshot::clone(&last)
        } else {
            let mut snapshot = Snapshot {
                version: generation,
                ..Snapshot::default()
            };
            for row in self.store.resources_list().await? {
                let resource = row
                    .kind
                    .parse()
                    .map_err(|_| ())
                    .and_then(|kind| Resource::from_json(kind, row.body).map_err(|_| ()));
                match resource {
                    Ok(resource) => snapshot.insert(resource, row.version),
                    // Written by a newer version of ours: the others are still good.
                    Err(()) => {
                        tracing::error!(kind = %row.kind, name = %row.name, "a stored resource cannot be read and is ignored")
                    }
                }
            }
            snapshot
        };
        snapshot.campaigns = self.store.campaigns_halted().await?.into_iter().collect();
        self.sender.send_if_modified(|current| {
            let differs = current.version != snapshot.version || current.campaigns != snapshot.campaigns;
            if differs {
                *current = Arc::new(snapshot);
            }
            differs
        });
        Ok(())
    }
}
