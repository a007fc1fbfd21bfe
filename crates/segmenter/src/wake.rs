//! Wakes whoever waits for campaigns to change: in this process at once, from others by PostgreSQL's notification.

use std::time::Duration;

use store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Woken or not, this often one looks.
const POLL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(crate) struct Wake {
    sender: watch::Sender<()>,
}

impl Wake {
    pub fn new() -> Wake {
        Wake {
            sender: watch::Sender::new(()),
        }
    }

    pub fn wake(&self) {
        self.sender.send_replace(());
    }

    /// What happened before this call is not waited for: call it before looking.
    pub fn listener(&self) -> Listener {
        Listener {
            receiver: self.sender.subscribe(),
        }
    }

    /// Passes on the database's notifications until `stop`.
    pub async fn listen(self, store: Store, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let heard = async {
                let mut notices = store.listen(&["tamtam_campaigns"]).await?;
                // What was said before we listened.
                self.wake();
                loop {
                    notices.next().await?;
                    self.wake();
                }
            };
            let lost: Result<(), store::StoreError> = tokio::select! {
                () = stop.cancelled() => return,
                lost = heard => lost,
            };
            if let Err(error) = lost {
                tracing::debug!(%error, "not listening for changes of campaigns; looking every second until it works again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Listener {
    receiver: watch::Receiver<()>,
}

impl Listener {
    /// Waits until something changed since the last call, or `most` has passed; `false`: stop.
    pub async fn wait(&mut self, most: Duration, stop: &CancellationToken) -> bool {
        tokio::select! {
            () = stop.cancelled() => return false,
            changed = self.receiver.changed() => if changed.is_err() { return false },
            () = tokio::time::sleep(most.min(POLL)) => {}
        }
        !stop.is_cancelled()
    }
}
