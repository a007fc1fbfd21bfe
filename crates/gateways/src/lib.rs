//! The ways to send: one folder an adapter, one contract that all of them keep ([`Gateway`]).
//!
//! The contract, which `tests/it/gateways.rs` checks on every adapter:
//! - [`Outcome::Accepted`], [`Outcome::Refused`] and [`Outcome::Retry`] are what the gateway said. Where it did not say,
//!   the outcome is [`Outcome::Unreachable`] if certainly nothing of the message reached the connection, and
//!   [`Outcome::Unknown`] otherwise. Nothing is guessed and nothing is submitted twice in one attempt.
//! - Never more than the window is under way; what waits is bounded.
//! - A gateway that sends rubbish loses its connection and costs a bounded amount of memory.
//! - No phone, no text and no password in a log, an error or a metric.
//!
//! How to add one stands in this crate's `README.md`.

mod backoff;
pub mod decoders;
pub mod http;
pub mod key;
pub mod smpp;
mod tls;
mod types;

use std::sync::Arc;

use resources::gateway::GatewayKind;
use tokio_util::sync::CancellationToken;

pub use types::{Gateway, GatewayError, Heard, Incoming, NotUnderstood, Now, Outcome, Submission, Undelivered};

/// Opens a gateway to send by. It connects in the background: [`Gateway::is_up`] says when. `incoming` is needed by SMPP
/// transceivers alone: receipts come on their own connection. Must be called within a tokio runtime.
pub fn open(
    resource: &resources::Gateway,
    password: Option<String>,
    now: Now,
    incoming: Option<Arc<dyn Incoming>>,
) -> Result<Arc<dyn Gateway>, GatewayError> {
    Ok(match resource.kind {
        GatewayKind::Smpp => Arc::new(smpp::SmppGateway::open(resource, password, now, incoming)?),
        GatewayKind::Http => Arc::new(http::HttpGateway::open(resource, password, now)?),
    })
}

/// Receives from a gateway until `shutdown`: the receiver bind of SMPP. For gateways that come to us (HTTP), or whose
/// dispatchers receive (transceivers), it only waits.
pub async fn receive(
    resource: resources::Gateway,
    password: Option<String>,
    now: Now,
    incoming: Arc<dyn Incoming>,
    shutdown: CancellationToken,
) {
    use resources::gateway::Bind;
    if resource.kind == GatewayKind::Smpp && resource.bind == Bind::TransmitterReceiver {
        smpp::receive(&resource, password, now, incoming, shutdown).await;
    } else {
        shutdown.cancelled().await;
    }
}

/// Reads what a gateway said. One callback may hold several things, or none that concerns us.
pub fn understand(callback: &events::Callback, resource: &resources::Gateway) -> Result<Vec<Heard>, NotUnderstood> {
    match callback.transport.as_str() {
        "smpp" => smpp::understand(callback, resource),
        "http" => http::understand(callback, resource),
        _ => Err(NotUnderstood::Transport),
    }
}
