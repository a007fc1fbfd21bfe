//! What can be asked of tamtam: one function an operation, behind gRPC, HTTP and the console alike.
//!
//! An operation checks what it is given, writes to the store and to the bus, and answers; it knows no transport. Whoever
//! calls has been made a [`Caller`] by [`Api::key_verify`] before; the transport asks [`Caller::require`] for the role
//! that its route needs, and the operation uses the caller's name for what is written down ("who did it").
//!
//! Every error is an [`ApiError`]: what kind it is decides the status code, and its message says what was wrong, where
//! (`field`) and what was expected. No message holds a phone number or a text.

mod error;
mod role;

pub mod audience;
pub mod audit;
pub mod campaigns;
pub mod contacts;
pub mod dead_letters;
pub mod events;
pub mod gateways;
pub mod import;
pub mod keys;
pub mod messages;
pub mod messages_planned;
pub mod messages_show;
pub mod preview;
pub mod receipts;
pub mod replies;
pub mod reports;
pub mod resources;
pub mod suppressions;
pub mod topics;
pub mod trace;

use std::sync::Arc;

use bus::Log;
use stage::Clock;
use store::Store;

pub use error::{ApiError, ErrorDetail, ErrorKind};
pub use role::{Caller, Role};

/// The operations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    pub store: Store,
    pub log: Arc<dyn Log>,
    pub clock: Clock,
    /// The share of events without a `traceparent` of their own whose new trace is sampled: 0 to 1.
    pub sample_ratio: f64,
    keys: Arc<keys::Cache>,
}

impl Api {
    pub fn new(store: Store, log: Arc<dyn Log>, clock: Clock) -> Api {
        Api {
            store,
            log,
            clock,
            sample_ratio: 0.0,
            keys: Arc::default(),
        }
    }
}
