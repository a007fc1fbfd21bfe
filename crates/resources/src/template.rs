//! A text with holes, and the rules that apply to it.

use std::collections::BTreeMap;

use domain::{
    Class,
    contact::{MARKETING, is_purpose},
};
use serde::{Deserialize, Serialize};

use crate::{Period, Problem, check_name};

/// What a purpose's name is expected to be.
pub(crate) const PURPOSE: &str =
    "`purpose` expected as 1 to 50 lower-case letters, digits, `-`, `_` or `.`, such as `newsletter`";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    pub name: String,
    #[serde(with = "class")]
    pub class: Class,
    /// What a marketing text is for: whom it is sent to consented to that purpose; absent: `marketing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// What the phone shows as sender: a number, a short code, or 3 to 11 characters beginning with a letter.
    pub sender: String,
    /// The text in the language that is used when no other fits.
    pub text: String,
    /// Whose name a marketing text begins with where its sender is a number and it does not name itself; absent: the
    /// policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brand: Option<String>,
    /// Replace what has a faithful GSM-7 form, so that the text needs fewer parts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub smart: bool,
    /// The language of `text`, as BCP 47.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The same text in other languages, by BCP 47 tag: `fr` serves `fr-RE` too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub languages: BTreeMap<String, String>,
    /// A/B variants: which contact gets which is decided by a hash. Empty: everybody gets `text`.
    #[serde(default, rename = "variant", skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
    /// How long after planning it is still worth sending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity: Option<Period>,
    /// Longer texts are refused (suppressed with `template-failed`); absent: the installation's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parts: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    pub name: String,
    pub text: String,
    /// Its share against the other variants' weights.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

impl Template {
    /// What whom it is sent to must have consented to; `None`: it is transactional and asks for no consent.
    pub fn purpose(&self) -> Option<&str> {
        match self.class {
            Class::Marketing => Some(self.purpose.as_deref().unwrap_or(MARKETING)),
            Class::Transactional => None,
        }
    }

    /// Every text of the template, with the key it stands under.
    pub fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        std::iter::once(("text", self.text.as_str()))
            .chain(self.languages.values().map(|text| ("languages", text.as_str())))
            .chain(self.variants.iter().map(|variant| ("variant", variant.text.as_str())))
    }

    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        check_name("name", &self.name, problems);
        if !sender_is_good(&self.sender) {
            problems.push(Problem::new(
                "sender",
                "expected 3 to 11 letters, digits or spaces beginning with a letter, a short code of 3 to 8 digits, or a number in E.164",
            ));
        }
        match &self.purpose {
            Some(_) if self.class == Class::Transactional => {
                problems.push(Problem::new(
                    "purpose",
                    "expected on marketing templates alone: a transactional text asks for no consent",
                ));
            }
            Some(purpose) if !is_purpose(purpose) => problems.push(Problem::new("purpose", PURPOSE)),
            _ => {}
        }
        for (key, text) in self.texts() {
            if text.trim().is_empty() || text.len() > 10_000 {
                problems.push(Problem::new(key, "expected a text of 1 to 10,000 bytes"));
            } else if text.contains('\0') {
                problems.push(Problem::new(key, "a NUL character cannot be sent: expected plain text"));
            }
        }
        for tag in self.language.iter().chain(self.languages.keys()) {
            let good = |character: char| character.is_ascii_alphanumeric() || character == '-';
            if !(2..=35).contains(&tag.len()) || !tag.chars().all(good) {
                problems.push(Problem::new(
                    "languages",
                    "expected language tags such as `fr` or `fr-RE` (BCP 47)",
                ));
            }
        }
        for variant in &self.variants {
            check_name("variant", &variant.name, problems);
            if !(1..=1_000).contains(&variant.weight) {
                problems.push(Problem::new("variant", "`weight` expected from 1 to 1000"));
            }
        }
        if self.brand.as_deref().is_some_and(|brand| !brand_is_good(brand)) {
            problems.push(Problem::new("brand", BRAND));
        }
        if self.max_parts.is_some_and(|parts| !(1..=255).contains(&parts)) {
            problems.push(Problem::new("max_parts", "expected 1 to 255"));
        }
    }
}

/// What a brand is to be.
pub(crate) const BRAND: &str = "expected a name of 1 to 30 characters";

pub(crate) fn brand_is_good(brand: &str) -> bool {
    let brand = brand.trim();
    !brand.is_empty() && brand.chars().count() <= 30 && !brand.contains(char::is_control)
}

fn sender_is_good(sender: &str) -> bool {
    let digits = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    match sender.strip_prefix('+') {
        Some(number) => digits(number, 5..=15),
        None if sender.starts_with(|first: char| first.is_ascii_alphabetic()) => {
            (3..=11).contains(&sender.len())
                && sender
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'-' | b'.' | b'&' | b'_'))
        }
        None => digits(sender, 3..=8),
    }
}

/// A class by its word.
mod class {
    use domain::Class;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(class: &Class, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(class.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Class, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
