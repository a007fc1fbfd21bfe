//! PostgreSQL: contacts and their history, resources, the ledger, campaigns, deferred work, keys.
//!
//! One module a subject; SQL stands beside the function that runs it. Functions are named noun first
//! (`messages_claim`, `campaign_pause`). Nothing outside this crate and the bus's PostgreSQL half names sqlx.

pub mod audience;
pub mod audit;
pub mod campaigns;
pub mod caps;
pub mod consents;
pub mod contacts;
pub mod dead_letters;
pub mod deferred;
mod erasure;
mod error;
pub mod explain;
pub mod fields;
mod fresh;
pub mod gateway_traffic;
pub mod history;
mod installation;
mod kept;
pub mod keys;
pub mod links;
mod listen;
pub mod messages;
pub mod parts;
pub mod planned;
mod pool;
pub mod replies;
pub mod reply_parts;
pub mod reports;
pub mod resources;
pub mod suppressions;
pub(crate) mod time;
pub mod trigger_log;
pub mod unmatched;

pub use campaigns::{Campaign, CampaignError, NewCampaign};
pub use deferred::Deferred;
pub use error::StoreError;
pub use keys::KeyRow;
pub use listen::Notices;
pub use pool::{Store, Tx};
