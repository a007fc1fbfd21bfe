//! Consent by purpose, and its proof: who said what, when, where and in which words (GDPR art. 7.1).

use std::collections::HashSet;

use jiff::{Timestamp, tz::TimeZone};
use serde::Deserialize;
use serde_json::Value;

use super::FieldError;

/// The purpose of marketing that names no other.
pub const MARKETING: &str = "marketing";

/// Purposes in one change.
const MAX_CONSENTS: usize = 50;
const MAX_PURPOSE: usize = 50;
const MAX_SOURCE: usize = 200;
const MAX_WORDING: usize = 2_000;

/// Whether messages of a purpose may be sent (GDPR art. 7).
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

/// What somebody said of one purpose, with its proof.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ConsentChange {
    pub purpose: String,
    pub given: bool,
    /// When it was said, where that is known.
    pub at: Option<Timestamp>,
    /// Where it was said: a form, a shop's counter, a page's address.
    pub source: Option<String>,
    /// The words that the person agreed to.
    pub wording: Option<String>,
}

/// The purpose alone: a source and a wording are free texts.
impl std::fmt::Debug for ConsentChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsentChange")
            .field("purpose", &self.purpose)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

impl ConsentChange {
    pub(super) fn consent(&self) -> Consent {
        match self.given {
            true => Consent::Given(self.at),
            false => Consent::No,
        }
    }

    /// The same purpose withdrawn: what a consent becomes that an opt-out takes back. The words that it came with were said
    /// of the consent and not of this.
    pub fn taken_back(&self) -> ConsentChange {
        ConsentChange {
            purpose: self.purpose.clone(),
            ..ConsentChange::default()
        }
    }
}

/// Whether a text can be the name of a purpose: 1 to 50 lower-case letters, digits, `-`, `_` or `.`.
pub fn is_purpose(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_PURPOSE).contains(&text.len()) && text.bytes().all(good)
}

/// A time, or a date for its midnight in UTC; as exact as the store keeps it, so that the same again changes nothing.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    let at = text.parse::<Timestamp>().ok().or_else(|| {
        let date = crate::audience::read_date(text)?;
        TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()
    })?;
    let at = Some(at).filter(|at| *at >= Timestamp::UNIX_EPOCH)?;
    Timestamp::from_microsecond(at.as_microsecond()).ok()
}

/// The list of a text: JSON, as a table's cell has it. An empty text is an empty list, which says nothing.
pub(super) fn from_text(text: &str) -> Result<Vec<ConsentChange>, FieldError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    match serde_json::from_str(text) {
        Ok(Value::Array(items)) => from_json(&items),
        _ => Err(expected_list()),
    }
}

pub(super) fn expected_list() -> FieldError {
    FieldError::new(
        "consents",
        r#"expected a JSON list such as [{"purpose": "newsletter", "given": true}]"#,
    )
}

pub(super) fn from_json(items: &[Value]) -> Result<Vec<ConsentChange>, FieldError> {
    if items.len() > MAX_CONSENTS {
        return Err(FieldError::new(
            "consents",
            format!("expected up to {MAX_CONSENTS} purposes"),
        ));
    }
    let mut purposes = HashSet::with_capacity(items.len());
    let mut consents = Vec::with_capacity(items.len());
    for item in items {
        let consent = read(item)?;
        if !purposes.insert(consent.purpose.clone()) {
            return Err(FieldError::new("consents", "expected each `purpose` once"));
        }
        consents.push(consent);
    }
    Ok(consents)
}

/// As JSON has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    purpose: String,
    given: bool,
    #[serde(default)]
    at: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    wording: Option<String>,
}

fn read(item: &Value) -> Result<ConsentChange, FieldError> {
    let wrong = |message: &str| FieldError::new("consents", message);
    // serde's own message would repeat the value.
    let wire = Wire::deserialize(item).map_err(|_| {
        wrong("expected `purpose`, `given` (true or false) and, where known, `at`, `source` and `wording` in each")
    })?;
    if !is_purpose(&wire.purpose) {
        return Err(wrong(
            "`purpose` expected as 1 to 50 lower-case letters, digits, `-`, `_` or `.`",
        ));
    }
    let set = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let at = match set(wire.at) {
        None => None,
        Some(text) => Some(
            instant(&text)
                .ok_or_else(|| wrong("`at` expected as the time when it was said, such as 2026-01-31T10:00:00Z"))?,
        ),
    };
    let (source, wording) = (set(wire.source), set(wire.wording));
    let line = |text: &String| text.chars().count() <= MAX_SOURCE && !text.contains(char::is_control);
    if !source.as_ref().is_none_or(line) {
        return Err(wrong("`source` expected as one line of up to 200 characters"));
    }
    let words = |text: &String| text.chars().count() <= MAX_WORDING && !text.contains('\0');
    if !wording.as_ref().is_none_or(words) {
        return Err(wrong("`wording` expected as a text of up to 2,000 characters"));
    }
    Ok(ConsentChange {
        purpose: wire.purpose,
        given: wire.given,
        at,
        source,
        wording,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_read_from_json_and_from_a_cell() {
        let list = json!([
            {"purpose": "newsletter", "given": true, "at": "2026-01-31", "source": "form /inscription",
             "wording": "J'accepte de recevoir la lettre."},
            {"purpose": "marketing", "given": false, "at": null, "source": " "},
        ]);
        let read = from_json(list.as_array().unwrap()).unwrap();
        assert_eq!(from_text(&list.to_string()).unwrap(), read);
        assert_eq!(read[0].at, Some("2026-01-31T00:00:00Z".parse().unwrap()));
        assert_eq!(read[0].consent(), Consent::Given(read[0].at));
        assert_eq!((read[1].consent(), &read[1].source), (Consent::No, &None));
        assert_eq!(read[0].taken_back().wording, None);
        assert!(from_text("").unwrap().is_empty());
    }

    #[test]
    fn a_mistake_says_what_was_expected_and_not_the_value() {
        for (list, expected) in [
            (json!([{"purpose": "Secret", "given": true}]), "`purpose` expected"),
            (json!([{"purpose": "a"}]), "`given` (true or false)"),
            (json!([{"purpose": "a", "given": "secret"}]), "`given` (true or false)"),
            (
                json!([{"purpose": "a", "given": true, "secret": 1}]),
                "`purpose`, `given`",
            ),
            (
                json!([{"purpose": "a", "given": true, "at": "secret"}]),
                "`at` expected",
            ),
            (
                json!([{"purpose": "a", "given": true, "source": "secret\n"}, "x"]),
                "in each",
            ),
            (
                json!([{"purpose": "a", "given": true, "source": "a\nb"}]),
                "`source` expected",
            ),
            (
                json!([{"purpose": "a", "given": true}, {"purpose": "a", "given": false}]),
                "once",
            ),
        ] {
            let error = from_json(list.as_array().unwrap()).unwrap_err();
            assert_eq!(error.field, "consents");
            assert!(error.message.contains(expected), "{list}: {error}");
            assert!(!error.to_string().contains("ecret"), "{error}");
        }
        assert!(from_text("yes").is_err() && from_text("{}").is_err());
    }
}
