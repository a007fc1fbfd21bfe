//! The SMPP server.

mod pdu;
mod session;

use std::{sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use pdu::{arrival, receipt, reply};

use crate::core::Core;

/// No PDU that we know is longer: `message_payload` holds 64 KiB.
pub(crate) const MAX_PDU: usize = 70_000;
/// How long sessions may take to end when the simulator stops.
const PARTING: Duration = Duration::from_secs(2);

pub(crate) async fn serve(core: Arc<Core>, listener: TcpListener, shutdown: CancellationToken) {
    let sessions = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                sessions.spawn(session::run(core.clone(), stream, shutdown.clone()));
            }
            Err(error) => {
                // Out of file handles, most likely: it passes when connections end.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    sessions.close();
    let _ = tokio::time::timeout(PARTING, sessions.wait()).await;
}
