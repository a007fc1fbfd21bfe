//! The contract between the services, and with everybody who reads or writes the topics: which topics there are, how a
//! record is wrapped (CloudEvents 1.0, Kafka binary mode), and what each record holds.
//!
//! A record's schema has a version in its `ce_type` (`tamtam.job.v1`). Fields are only ever added; a reader ignores what
//! it does not know and refuses a version it does not know. The golden files under `golden/` are the proof.

pub mod contract;
pub mod envelope;
#[cfg(test)]
mod golden;
pub mod record;
pub mod topic;

pub use envelope::{Envelope, EnvelopeError, Header, Text, headers, text};
pub use record::{
    BusinessEvent, Callback, Click, DeadLetter, Inbound, Job, Outbound, Receipt, Record, RecordError, Timer,
};
pub use topic::Topic;
