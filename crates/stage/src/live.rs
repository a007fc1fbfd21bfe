//! What people configured and which campaigns are halted, as it is now, without a query for each batch.
//!
//! One task a process keeps a [`Snapshot`] fresh: woken by PostgreSQL's notifications (`tamtam_resources`,
//! `tamtam_campaigns`), and once a second without, so that a lost notification costs a second and no more. A process that
//! cannot reach the database keeps its last snapshot: it cannot send either, because claims need the database too.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use resources::{Resource, Snapshot};
use store::{Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The latest snapshot. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Live {
    latest: watch::Receiver<Arc<Snapshot>>,
}

const POLL: Duration = Duration::from_secs(1);
/// A campaign that expands notifies many times a second: one look serves them all.
const GATHER: Duration = Duration::from_millis(50);

type Stamp = (i64, i64, Option<Timestamp>);

impl Live {
    /// Reads the first snapshot and keeps it fresh until `shutdown`.
    pub async fn start(store: Store, shutdown: CancellationToken) -> Result<Live, StoreError> {
        let mut keeper = Keeper::new(store);
        let first = keeper.read().await?;
        let (sender, latest) = watch::channel(Arc::new(first));
        tokio::spawn(async move { keeper.keep(sender, shutdown).await });
        Ok(Live { latest })
    }

    /// A snapshot that never changes; for tests.
    pub fn fixed(snapshot: Snapshot) -> Live {
        let (_, latest) = watch::channel(Arc::new(snapshot));
        Live { latest }
    }

    pub fn current(&self) -> Arc<Snapshot> {
        self.latest.borrow().clone()
    }

    /// Waits until a newer snapshot than the last one seen by this clone is there; for ever once the keeper has ended.
    pub async fn changed(&mut self) {
        if self.latest.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

struct Keeper {
    store: Store,
    snapshot: Snapshot,
    stamp: Option<Stamp>,
}

impl Keeper {
    fn new(store: Store) -> Keeper {
        Keeper {
            store,
            snapshot: Snapshot::default(),
            stamp: None,
        }
    }

    async fn keep(mut self, sender: watch::Sender<Arc<Snapshot>>, shutdown: CancellationToken) {
        let mut listener = None;
        let mut failing = false;
        loop {
            if listener.is_none() {
                listener = self.store.listen(&["tamtam_resources", "tamtam_campaigns"]).await.ok();
            }
            let woken = async {
                match &mut listener {
                    Some(notices) => notices.next().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                alive = woken => if !alive { listener = None },
                () = tokio::time::sleep(POLL) => {}
            }
            tokio::time::sleep(GATHER).await;
            match self.read().await {
                Ok(snapshot) => {
                    failing = false;
                    sender.send_if_modified(|current| {
                        let differs = current.version != snapshot.version || current.campaigns != snapshot.campaigns;
                        if differs {
                            *current = Arc::new(snapshot);
                        }
                        differs
                    });
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "resources cannot be read, going on with the last ones");
                    }
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Snapshot, StoreError> {
        // The stamp is read first: a change between the two reads is then seen again the next time.
        let stamp = self.store.resources_stamp().await?;
        if self.stamp != Some(stamp) {
            let mut snapshot = Snapshot {
                version: self.snapshot.version + 1,
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
            self.snapshot = snapshot;
            self.stamp = Some(stamp);
        }
        self.snapshot.campaigns = self.store.campaigns_halted().await?.into_iter().collect();
        Ok(self.snapshot.clone())
    }
}
