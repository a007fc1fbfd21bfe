//! What people configure: gateways, templates, audiences, triggers and the policy.
//!
//! `tamtam apply` reads them from TOML ([`parse_toml`]), the store keeps each as JSON under (kind, name) with a version,
//! and the services read them through a [`Snapshot`]. Both forms are the same serde types; unknown keys are refused in
//! both, so that a misspelt key is never silently ignored.

pub mod audience;
pub mod composer;
pub mod gateway;
pub mod keyword;
mod optout;
mod parse;
mod period;
pub mod policy;
mod resource;
pub mod rules;
mod snapshot;
pub mod template;
pub mod trigger;

pub use audience::Audience;
pub use composer::{Compose, Composed, Composer, Refusal};
pub use gateway::Gateway;
pub use parse::{Parsed, ResourceError, parse_toml, parse_toml_with_lines};
pub use period::{Period, PeriodError};
pub use policy::Policy;
pub use resource::{Kind, Resource};
pub use snapshot::Snapshot;
pub use template::Template;
pub use trigger::Trigger;

/// Something wrong with a resource: the key it is about, what was wrong, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub key: &'static str,
    pub message: String,
}

impl Problem {
    pub fn new(key: &'static str, message: impl Into<String>) -> Problem {
        Problem {
            key,
            message: message.into(),
        }
    }
}

/// A name as resources have it: it stands in URLs, in metrics' labels and in the audience language.
pub(crate) fn check_name(key: &'static str, name: &str, problems: &mut Vec<Problem>) {
    let good = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    if name.is_empty() || name.len() > 100 || !name.chars().all(good) {
        problems.push(Problem::new(
            key,
            "expected 1 to 100 letters, digits, `-`, `_` or `.` (ASCII)",
        ));
    }
}

/// An event's type, as CloudEvents has it.
pub(crate) fn check_event_type(key: &'static str, kind: &str, problems: &mut Vec<Problem>) {
    let good = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    if kind.is_empty() || kind.len() > 200 || !kind.chars().all(good) {
        problems.push(Problem::new(
            key,
            "expected an event type such as `order.placed`: 1 to 200 letters, digits, `.`, `_` or `-`",
        ));
    }
}
