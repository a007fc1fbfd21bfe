//! The commands that talk to a running tamtam over its HTTP API, and `sms`, which needs none.

pub mod apply;
pub mod audience;
pub mod audit;
pub mod campaign;
pub mod client;
pub mod contacts;
pub mod dead_letters;
pub mod events;
pub mod gateway;
pub mod keys;
pub mod message;
pub mod output;
mod parquet_file;
pub mod progress;
pub mod receipts;
pub mod replies;
pub mod report;
pub mod sms;
pub mod suppressions;
pub mod topics;
