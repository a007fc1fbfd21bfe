//! An SMS gateway to test against, a product of its own: an SMPP server and HTTP gateways of the known shapes, which take
//! messages, send receipts and replies, count what phones got, and misbehave as a script says.
//!
//! - SMPP (`smpp`): transmitter, receiver and transceiver binds of any system id. Receipts go to any receiver of the same
//!   system id, wait while there is none, and are brought again until they are acknowledged.
//! - HTTP (`http`): `POST /twilio/…`, `POST /vonage/…`, `POST /ovh/…`, `GET /kannel/…`; receipts go to the callback
//!   address of the request, or to the script's. `POST /listmonk/…` takes what listmonk's HTTP messenger posts, without
//!   receipts.
//! - Control: `GET /stats`, `GET /messages?after=&limit=`, `POST /inbound`, `GET` and `POST /script`, `POST /reset`, a page
//!   at `/`.
//!
//! What happens to a message is decided by the script's seed with the message's client reference and part, not by the
//! order of arrival: the same messages meet the same fate however they come. Messages are counted by client reference:
//! a (reference, part) that comes again is a duplicate, whether or not anybody would have noticed.
//!
//! It is a test tool: it keeps and shows texts and phones, in memory only.

mod control;
mod core;
pub mod decoders;
mod dice;
mod http;
mod mailbox;
mod page;
mod schedule;
mod script;
mod smpp;
mod stats;
mod text;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use script::{Ids, Script, ScriptError};
pub use stats::Stats;

use crate::core::Core;

/// What the simulator needs. The listeners are bound by the caller.
#[derive(Debug)]
pub struct Config {
    pub http: TcpListener,
    pub smpp: TcpListener,
    pub script: Script,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the simulator's HTTP server failed")]
    Http(#[source] std::io::Error),
}

/// Serves until `shutdown`.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let core = Arc::new(Core::new(config.script));
    let pump = tokio::spawn(schedule::run(core.clone(), shutdown.clone()));
    let smpp = tokio::spawn(smpp::serve(core.clone(), config.smpp, shutdown.clone()));
    let served = axum::serve(config.http, control::router(core))
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .await;
    shutdown.cancel();
    let _ = tokio::join!(pump, smpp);
    served.map_err(Error::Http)
}
