//! What changes about a contact, read from JSON or from a table's cells by one set of rules.
//!
//! A field that is not named stays as it is; null or an empty text unsets it. A mistake names the field and what was
//! expected, never the value.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::{civil::Date, tz::TimeZone};
use serde_json::{Map, Value, json};

use super::{Consent, ConsentChange, Contact, MARKETING, consent};
use crate::Phone;

const MAX_ID: usize = 200;
const MAX_TEXT: usize = 500;
const MAX_WORD: usize = 100;
const MAX_ATTRIBUTE_NAME: usize = 100;
const MAX_ATTRIBUTE_TEXT: usize = 2_000;
/// Attributes in one change.
pub const MAX_ATTRIBUTES: usize = 200;

/// What changes about a contact. `None`: stays as it is; `Some(None)`: unset.
#[derive(Clone, PartialEq, Default)]
pub struct ContactChange {
    pub id: String,
    pub phone: Option<Option<Phone>>,
    pub first_name: Option<Option<String>>,
    pub last_name: Option<Option<String>>,
    pub gender: Option<Option<String>>,
    pub birth_date: Option<Option<Date>>,
    pub city: Option<Option<String>>,
    pub region: Option<Option<String>>,
    pub postal_code: Option<Option<String>>,
    pub language: Option<Option<String>>,
    pub time_zone: Option<Option<String>>,
    pub marketing_consent: Option<Consent>,
    /// What was said of purposes, each with its proof; a purpose that is not named stays. Made after `marketing_consent`,
    /// which is the same as the purpose `marketing` without a proof.
    pub consents: Vec<ConsentChange>,
    /// Every purpose is withdrawn (STOP), whichever there are.
    pub withdraws_all: bool,
    /// JSON scalars; null unsets.
    pub attributes: BTreeMap<String, Value>,
}

impl std::fmt::Debug for ContactChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContactChange")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Which field is wrong, and what was expected. It never repeats the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    pub field: String,
    pub message: String,
}

impl FieldError {
    pub(super) fn new(field: &str, message: impl Into<String>) -> FieldError {
        FieldError {
            field: field.chars().take(MAX_ATTRIBUTE_NAME).collect(),
            message: message.into(),
        }
    }
}

/// An id of the internal system: 1 to 200 characters, none of them a control character.
pub fn check_id(id: &str) -> Result<(), FieldError> {
    if id.is_empty() {
        return Err(FieldError::new(
            "id",
            "missing or empty: expected the internal system's id",
        ));
    }
    if id.len() > MAX_ID && id.chars().count() > MAX_ID {
        return Err(FieldError::new("id", format!("expected 1 to {MAX_ID} characters")));
    }
    if id.chars().any(char::is_control) {
        return Err(FieldError::new("id", "expected no control characters"));
    }
    Ok(())
}

impl ContactChange {
    /// Reads fields as JSON has them. `region` (ISO 3166-1) says what national phone numbers belong to.
    pub fn from_json(id: &str, fields: &Map<String, Value>, region: Option<&str>) -> Result<ContactChange, FieldError> {
        check_id(id)?;
        let mut change = ContactChange {
            id: id.to_owned(),
            ..ContactChange::default()
        };
        for (name, value) in fields {
            change.set_json(name, value, region)?;
        }
        Ok(change)
    }

    /// Sets one field from JSON.
    pub fn set_json(&mut self, name: &str, value: &Value, region: Option<&str>) -> Result<(), FieldError> {
        match value {
            Value::Null => self.set(name, "", region),
            Value::String(text) => self.set(name, text, region),
            Value::Array(items) if name == "consents" => {
                self.consents = consent::from_json(items)?;
                Ok(())
            }
            Value::Bool(_) if name == "marketing_consent" => self.set(name, &value.to_string(), region),
            // Whoever keeps postal codes as numbers has none that begin with 0.
            Value::Number(number) if name == "postal_code" && (number.is_u64()) => {
                self.set(name, &number.to_string(), region)
            }
            Value::Bool(_) | Value::Number(_) if !is_field(name) => self.set_attribute(name, value.clone()),
            Value::Array(_) | Value::Object(_) if !is_field(name) => {
                Err(FieldError::new(name, "expected a text, a number, true, false or null"))
            }
            _ if name == "marketing_consent" => Err(FieldError::new(name, CONSENT)),
            _ if name == "consents" => Err(consent::expected_list()),
            _ => Err(FieldError::new(name, "expected a text or null")),
        }
    }

    /// Sets one field from text, as a table's cell has it.
    pub fn set(&mut self, name: &str, text: &str, region: Option<&str>) -> Result<(), FieldError> {
        let text = text.trim();
        match name {
            "id" => {
                return if text == self.id {
                    Ok(())
                } else {
                    Err(FieldError::new(name, "differs from the contact's id"))
                };
            }
            "phone" => {
                let phone = (!text.is_empty()).then(|| Phone::parse(text, region)).transpose();
                self.phone = Some(phone.map_err(|error| FieldError::new(name, error.to_string()))?);
            }
            "first_name" => self.first_name = Some(line(name, text)?),
            "last_name" => self.last_name = Some(line(name, text)?),
            "gender" => self.gender = Some(word(name, text)?),
            "birth_date" => self.birth_date = Some(birth_date(text)?),
            "city" => self.city = Some(line(name, text)?),
            "region" => self.region = Some(word(name, text)?),
            "postal_code" => self.postal_code = Some(line(name, text)?),
            "language" => self.language = Some(language(text)?),
            "time_zone" => self.time_zone = Some(time_zone(text)?),
            "marketing_consent" => self.marketing_consent = Some(marketing_consent(text)?),
            "consents" => self.consents = consent::from_text(text)?,
            _ => return self.set_attribute(name, if text.is_empty() { Value::Null } else { text.into() }),
        }
        Ok(())
    }

    fn set_attribute(&mut self, name: &str, value: Value) -> Result<(), FieldError> {
        let bad = |c: char| c.is_control() || c == '`';
        if name.is_empty() || name.chars().count() > MAX_ATTRIBUTE_NAME || name.chars().any(bad) {
            return Err(FieldError::new(
                "attribute",
                format!(
                    "expected a name of 1 to {MAX_ATTRIBUTE_NAME} characters, without control characters and backquotes"
                ),
            ));
        }
        if let Value::String(text) = &value {
            if text.len() > MAX_ATTRIBUTE_TEXT && text.chars().count() > MAX_ATTRIBUTE_TEXT {
                return Err(FieldError::new(
                    name,
                    format!("expected up to {MAX_ATTRIBUTE_TEXT} characters"),
                ));
            }
            if text.contains('\0') {
                return Err(FieldError::new(name, "expected a text without NUL"));
            }
        }
        self.attributes.insert(name.to_owned(), value);
        if self.attributes.len() > MAX_ATTRIBUTES {
            return Err(FieldError::new(
                name,
                format!("expected up to {MAX_ATTRIBUTES} attributes"),
            ));
        }
        Ok(())
    }

    /// Makes the change to a contact as it is.
    pub fn merge(&self, contact: &mut Contact) {
        fn set<T: Clone>(field: &mut Option<T>, change: &Option<Option<T>>) {
            if let Some(value) = change {
                field.clone_from(value);
            }
        }
        contact.id.clone_from(&self.id);
        set(&mut contact.phone, &self.phone);
        set(&mut contact.first_name, &self.first_name);
        set(&mut contact.last_name, &self.last_name);
        set(&mut contact.gender, &self.gender);
        set(&mut contact.birth_date, &self.birth_date);
        set(&mut contact.city, &self.city);
        set(&mut contact.region, &self.region);
        set(&mut contact.postal_code, &self.postal_code);
        set(&mut contact.language, &self.language);
        set(&mut contact.time_zone, &self.time_zone);
        if let Some(consent) = self.marketing_consent {
            contact.say(MARKETING, consent);
        }
        if self.withdraws_all {
            contact.say(MARKETING, Consent::No);
            contact.consents.values_mut().for_each(|consent| *consent = Consent::No);
        }
        for said in &self.consents {
            contact.say(&said.purpose, said.consent());
        }
        for (name, value) in &self.attributes {
            match value {
                Value::Null => contact.attributes.remove(name),
                value => contact.attributes.insert(name.clone(), value.clone()),
            };
        }
    }
}

impl Contact {
    /// Its fields but the id, by name, as JSON has them: what [`ContactChange::from_json`] reads. What is not set is absent.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut fields: Map<String, Value> = self.attributes.clone().into_iter().collect();
        let consent = match self.marketing_consent {
            Consent::Unset => None,
            Consent::No => Some(Value::Bool(false)),
            Consent::Given(None) => Some(Value::Bool(true)),
            Consent::Given(Some(at)) => Some(Value::String(at.to_string())),
        };
        let consents: Vec<Value> = self.consents.iter().filter_map(consent_json).collect();
        let text = |text: &Option<String>| text.clone().map(Value::String);
        let named = [
            ("phone", self.phone.as_ref().map(|phone| phone.e164().into())),
            ("first_name", text(&self.first_name)),
            ("last_name", text(&self.last_name)),
            ("gender", text(&self.gender)),
            ("birth_date", self.birth_date.map(|date| date.to_string().into())),
            ("city", text(&self.city)),
            ("region", text(&self.region)),
            ("postal_code", text(&self.postal_code)),
            ("language", text(&self.language)),
            ("time_zone", text(&self.time_zone)),
            ("marketing_consent", consent),
            ("consents", (!consents.is_empty()).then_some(Value::Array(consents))),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        }
        fields
    }
}

const CONSENT: &str = "expected true, false, or the time when it was given, such as 2026-01-31T10:00:00Z";

fn is_field(name: &str) -> bool {
    matches!(
        name,
        "id" | "phone"
            | "first_name"
            | "last_name"
            | "gender"
            | "birth_date"
            | "city"
            | "region"
            | "postal_code"
            | "language"
            | "time_zone"
            | "marketing_consent"
            | "consents"
    )
}

/// As [`ContactChange::from_json`] reads it; its proof is in the store's log of consents.
fn consent_json((purpose, consent): (&String, &Consent)) -> Option<Value> {
    let said = match consent {
        Consent::Unset => return None,
        Consent::No => json!({"purpose": purpose, "given": false}),
        Consent::Given(None) => json!({"purpose": purpose, "given": true}),
        Consent::Given(Some(at)) => json!({"purpose": purpose, "given": true, "at": at.to_string()}),
    };
    Some(said)
}

/// As [`line()`], and short: it stands in an index.
fn word(field: &str, text: &str) -> Result<Option<String>, FieldError> {
    if text.len() > MAX_WORD && text.chars().count() > MAX_WORD {
        return Err(FieldError::new(field, format!("expected up to {MAX_WORD} characters")));
    }
    line(field, text)
}

fn line(field: &str, text: &str) -> Result<Option<String>, FieldError> {
    if text.len() > MAX_TEXT && text.chars().count() > MAX_TEXT {
        return Err(FieldError::new(field, format!("expected up to {MAX_TEXT} characters")));
    }
    // Names stand in one line of a text.
    if text.chars().any(char::is_control) {
        return Err(FieldError::new(field, "expected no control characters"));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// `YYYY-MM-DD`, whatever follows a `T` or a space (exports write midnight) left out.
fn birth_date(text: &str) -> Result<Option<Date>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    let day = match text.get(10..).map(|rest| rest.starts_with(['T', ' '])) {
        Some(true) => &text[..10],
        _ => text,
    };
    let date = crate::audience::read_date(day).filter(|date| date.year() >= 1800);
    let error = || FieldError::new("birth_date", "expected a date as YYYY-MM-DD, from 1800 on");
    date.map(Some).ok_or_else(error)
}

/// BCP 47 as far as its shape: `fr`, `fr-RE`, `zh-Hant-TW`.
fn language(text: &str) -> Result<Option<String>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut parts = text.split('-');
    let first = |part: &str| (2..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphabetic());
    let further = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if text.len() > 35 || !parts.next().is_some_and(first) || !parts.all(further) {
        return Err(FieldError::new(
            "language",
            "expected a language such as fr or fr-RE (BCP 47)",
        ));
    }
    Ok(Some(text.to_owned()))
}

fn time_zone(text: &str) -> Result<Option<String>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    TimeZone::get(text)
        .map(|_| Some(text.to_owned()))
        .map_err(|_| FieldError::new("time_zone", "expected a time zone such as Indian/Reunion (IANA)"))
}

fn marketing_consent(text: &str) -> Result<Consent, FieldError> {
    let lower: Cow<'_, str> = if text.is_ascii() {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    };
    Ok(match &*lower {
        "" => Consent::Unset,
        "true" | "yes" | "oui" | "1" => Consent::Given(None),
        "false" | "no" | "non" | "0" => Consent::No,
        _ => {
            let at = consent::instant(text).ok_or_else(|| FieldError::new("marketing_consent", CONSENT))?;
            Consent::Given(Some(at))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(fields: Value) -> Result<ContactChange, FieldError> {
        let Value::Object(fields) = fields else { panic!() };
        ContactChange::from_json("1", &fields, Some("RE"))
    }

    #[test]
    fn what_was_read_is_given_back() {
        let fields = json!({"phone": "0692 12 34 56", "first_name": " Ana ", "birth_date": "2000-02-29T00:00:00",
            "marketing_consent": "2026-01-31", "language": "fr-RE", "time_zone": "Indian/Reunion", "postal_code": 97400,
            "points": 12, "vip": true, "note": "", "city": null});
        let mut contact = Contact::default();
        change(fields).unwrap().merge(&mut contact);
        let expected = json!({"phone": "+262692123456", "first_name": "Ana", "birth_date": "2000-02-29",
            "marketing_consent": "2026-01-31T00:00:00Z", "language": "fr-RE", "time_zone": "Indian/Reunion",
            "postal_code": "97400", "points": 12, "vip": true});
        assert_eq!(Value::Object(contact.to_json()), expected);
        let mut again = Contact::default();
        change(Value::Object(contact.to_json())).unwrap().merge(&mut again);
        assert!(again == contact);
        // "Yes" keeps the date; null unsets; what is not named stays.
        change(json!({"marketing_consent": true, "points": null}))
            .unwrap()
            .merge(&mut contact);
        assert!(matches!(contact.marketing_consent, Consent::Given(Some(_))));
        assert!(!contact.attributes.contains_key("points") && contact.attributes.contains_key("vip"));
    }

    #[test]
    fn each_purpose_has_a_consent_of_its_own() {
        let fields = json!({"marketing_consent": false, "consents": [
            {"purpose": "newsletter", "given": true, "at": "2026-01-31T10:00:00Z", "wording": "Oui."},
            {"purpose": "survey", "given": false}]});
        let mut contact = Contact::default();
        change(fields).unwrap().merge(&mut contact);
        assert!(contact.consent_to("newsletter").is_given());
        assert_eq!(contact.consent_to("survey"), Consent::No);
        assert_eq!(contact.consent_to("other"), Consent::Unset);
        assert_eq!(contact.consent_to(MARKETING), Consent::No);
        let expected = json!({"marketing_consent": false, "consents": [
            {"purpose": "newsletter", "given": true, "at": "2026-01-31T10:00:00Z"},
            {"purpose": "survey", "given": false}]});
        assert_eq!(Value::Object(contact.to_json()), expected);
        // The purpose `marketing` is the field; what is not named stays, and "yes" keeps its date.
        let more =
            json!({"consents": [{"purpose": "marketing", "given": true}, {"purpose": "newsletter", "given": true}]});
        let before = contact.consent_to("newsletter");
        change(more).unwrap().merge(&mut contact);
        assert_eq!(contact.marketing_consent, Consent::Given(None));
        assert_eq!(contact.consent_to("newsletter"), before);
        change(json!({"consents": null})).unwrap().merge(&mut contact);
        assert_eq!(contact.consent_to("newsletter"), before);
        // STOP withdraws all of them.
        let stop = ContactChange {
            withdraws_all: true,
            ..ContactChange::default()
        };
        stop.merge(&mut contact);
        for purpose in [MARKETING, "newsletter", "survey"] {
            assert_eq!(contact.consent_to(purpose), Consent::No);
        }
        assert_eq!(contact.consent_to("other"), Consent::Unset);
    }

    #[test]
    fn a_mistake_names_the_field_and_not_the_value() {
        for (fields, field) in [
            (json!({"phone": "0612"}), "phone"),
            (json!({"birth_date": "31/12/1990"}), "birth_date"),
            (json!({"birth_date": "1990-02-30"}), "birth_date"),
            (json!({"birth_date": "é-12-31-éé"}), "birth_date"),
            (json!({"language": "français"}), "language"),
            (json!({"time_zone": "Reunion"}), "time_zone"),
            (json!({"marketing_consent": "maybe"}), "marketing_consent"),
            (json!({"marketing_consent": 1}), "marketing_consent"),
            (json!({"consents": "yes"}), "consents"),
            (json!({"consents": {"newsletter": true}}), "consents"),
            (json!({"first_name": 1}), "first_name"),
            (json!({"first_name": "a\nb"}), "first_name"),
            (json!({"id": "2"}), "id"),
            (json!({"tags": ["a"]}), "tags"),
            (json!({"a`b": "a"}), "attribute"),
            (json!({"note": "a\u{0}"}), "note"),
        ] {
            let error = change(fields.clone()).unwrap_err();
            assert_eq!(error.field, field, "{fields}");
            assert!(!error.to_string().contains("0612") && !error.to_string().contains("maybe"));
        }
        assert_eq!(check_id("").unwrap_err().field, "id");
        assert!(check_id(&"é".repeat(200)).is_ok() && check_id(&"é".repeat(201)).is_err());
    }
}
