//! PostgreSQL: contacts and their history, resources, the ledger, campaigns, deferred work, keys.
//!
//! One module a subject; SQL stands beside the function that runs it. Functions are named noun first
//! (`messages_claim`, `campaign_pause`). Nothing outside this crate and the bus's PostgreSQL half names sqlx.

mod error;
mod pool;

pub use error::StoreError;
pub use pool::{Store, Tx};
