//! A person who can be written to, as the internal system knows them, and how they change.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date};

use crate::Phone;

mod change;

pub use change::{ContactChange, FieldError, MAX_ATTRIBUTES, check_id};

/// A contact. The named fields are the ones that policy and templates rely on; any further ones are `attributes`.
///
/// `Debug` shows the id alone: the rest is personal data.
#[derive(Clone, PartialEq, Default)]
pub struct Contact {
    /// The internal system's own id; also the key of every record about this contact.
    pub id: String,
    pub phone: Option<Phone>,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub gender: Option<String>,
    pub birth_date: Option<Date>,
    pub city: Option<String>,
    pub region: Option<String>,
    pub postal_code: Option<String>,
    /// BCP 47, for example `fr` or `fr-RE`.
    pub language: Option<String>,
    /// IANA name, for example `Indian/Reunion`.
    pub time_zone: Option<String>,
    pub marketing_consent: Consent,
    /// JSON scalars; an attribute that is not set is absent, never null.
    pub attributes: BTreeMap<String, serde_json::Value>,
}

impl std::fmt::Debug for Contact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contact").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Whether marketing messages may be sent (GDPR art. 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Consent {
    /// Never said: the same as no.
    #[default]
    Unset,
    No,
    /// Given, and when where that is known.
    Given(Option<Timestamp>),
}

impl Consent {
    pub fn is_given(self) -> bool {
        matches!(self, Consent::Given(_))
    }
}
