//! A person who can be written to, as the internal system knows them, and how they change.

use std::collections::BTreeMap;

use jiff::civil::Date;

use crate::Phone;

mod change;
mod consent;

pub use change::{ContactChange, FieldError, MAX_ATTRIBUTES, check_id};
pub use consent::{Consent, ConsentChange, MARKETING, is_purpose};

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
    /// What was said of other purposes than [`MARKETING`], by purpose.
    pub consents: BTreeMap<String, Consent>,
    /// JSON scalars; an attribute that is not set is absent, never null.
    pub attributes: BTreeMap<String, serde_json::Value>,
}

impl std::fmt::Debug for Contact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contact").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Contact {
    /// Whether messages of this purpose may be sent.
    pub fn consent_to(&self, purpose: &str) -> Consent {
        match purpose {
            MARKETING => self.marketing_consent,
            other => self.consents.get(other).copied().unwrap_or_default(),
        }
    }

    /// Writes down what was said of a purpose. "Yes" again, without a date, does not forget the date that is known.
    fn say(&mut self, purpose: &str, consent: Consent) {
        let known = match purpose {
            MARKETING => &mut self.marketing_consent,
            other => self.consents.entry(other.to_owned()).or_default(),
        };
        if !matches!((consent, *known), (Consent::Given(None), Consent::Given(Some(_)))) {
            *known = consent;
        }
    }
}
