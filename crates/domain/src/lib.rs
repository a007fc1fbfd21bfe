//! What tamtam knows without asking anybody: contacts and phones, the audience language, templates, the parts of a
//! text, the rules on when and to whom it may go, ids, and the states of a message.
//!
//! Everything here is a pure function of its arguments: no input or output, no clock, no randomness. A caller passes the
//! instant and the rules; the same arguments give the same answer, so every decision can be repeated from its record.

pub mod audience;
pub mod campaign;
pub mod contact;
pub mod id;
pub mod keyword;
pub mod message;
pub mod money;
pub mod phone;
pub mod policy;
pub mod report;
pub mod schedule;
pub mod sms;
pub mod template;
pub mod territory;

pub use campaign::CampaignState;
pub use contact::{Consent, Contact};
pub use id::MessageId;
pub use message::{Cause, Class, Reason, State};
pub use phone::Phone;
