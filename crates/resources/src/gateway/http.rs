//! How an HTTP gateway is spoken to, as a description.
//!
//! Values are written with placeholders, `{{ to }}`, filled in and escaped for where they stand: percent-encoded in a
//! URL, as a JSON string's inside in a JSON body. So no text that a person wrote can break out of its place, and a
//! misspelt placeholder is found when the resource is applied. Answers and callbacks are read by names: a field of a
//! form, a query or a JSON object, or a JSON pointer (RFC 6901) where the name begins with `/`.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, Serialize};

use crate::Problem;

/// The ready-made profiles, as `[gateway.http]` would have them.
pub const PROFILES: [(&str, &str); 4] = [
    ("twilio", include_str!("profiles/twilio.toml")),
    ("vonage", include_str!("profiles/vonage.toml")),
    ("ovh", include_str!("profiles/ovh.toml")),
    ("kannel", include_str!("profiles/kannel.toml")),
];

/// What a description may refer to.
pub const PLACEHOLDERS: [(&str, &str); 12] = [
    ("to", "the phone in E.164, with its +"),
    ("to_digits", "the phone without the +"),
    ("from", "the sender"),
    ("text", "the text"),
    ("reference", "the message's id"),
    ("user", "the gateway's system_id"),
    ("password", "the gateway's password"),
    ("coding", "0 for a GSM-7 text, 2 for a UCS-2 one, as Kannel has it"),
    ("kind", "`text` for a GSM-7 text, `unicode` for a UCS-2 one"),
    ("parts", "how many parts the text has"),
    ("minutes", "how long the message is worth delivering, in minutes"),
    (
        "callback_url",
        "the gateway's callback_url, with `callback.query` behind it",
    ),
];

/// What a callback's fields may mean.
pub const CALLBACK_WORDS: [&str; 10] = [
    "id",
    "status",
    "code",
    "from",
    "to",
    "text",
    "reference",
    "part_reference",
    "part_total",
    "part_number",
];

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// A ready-made description that the other keys are laid over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Added to `address`: `?user={{ user }}&…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// What the body is; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The body's fields, for a form or a JSON object of texts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// The whole body, where fields do not say enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// What an error means: by the gateway's own code, else by `http-429` or `http-5xx`. What is not listed is read by
    /// HTTP's own meaning.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, Meaning>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<CallbackMap>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Post,
    Put,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Form,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// Nothing beyond what the description itself says.
    None,
    /// RFC 7617, with `system_id` and the password.
    Basic,
    /// RFC 6750, the password being the token.
    Bearer,
    /// OVH's: `system_id` is `APPLICATION_KEY:CONSUMER_KEY`, the password the application secret; a SHA-1 over both
    /// keys, method, URL, body and time in `X-Ovh-Signature`.
    Ovh,
}

/// How the answer to a submission is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Where the message's id stands, or those of its parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<AnswerWord>,
    /// Where the gateway's own status or error code stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<AnswerWord>,
    /// The codes that mean success, where a code stands in good answers too; empty: any 2xx is good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub success: Vec<String>,
}

/// A JSON pointer (`/sid`), in which a step `*` is every element of an array (`/messages/*/id`); `reference`, where the
/// gateway gives no id and reports under ours; or `text:PREFIX`: the word behind a prefix in a plain text, whose end is a
/// space, `|` or the end of the line; `text:` alone is the first word.
pub type AnswerWord = String;

/// What a failed submission means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Meaning {
    /// It was not taken; trying again later may help.
    Retry,
    /// It was not taken because we are too fast.
    Throttled,
    /// It will never be taken.
    Refused,
    /// It will never be taken: the phone cannot be reached.
    Undeliverable,
    /// It may have been taken.
    Unknown,
}

/// How receipts and replies are read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbackMap {
    /// Which field (or JSON pointer) holds what: `id`, `status`, `code`; a reply's `id`, `from`, `to`, `text`, and where it
    /// comes in parts `part_reference` (the same on all of them), `part_total`, `part_number` (from 1).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// The gateway's status words (lower case), as our states: `delivered`, `failed`, `expired`, `accepted`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub states: BTreeMap<String, String>,
    /// What is added to `callback_url` in a submission, for gateways that report on the URL they were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<CallbackAuth>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallbackAuth {
    /// The secret in `?secret=…`, in `X-Callback-Secret`, or as a bearer token.
    Secret,
    /// `webhook-id`, `webhook-timestamp`, `webhook-signature` (Standard Webhooks 1.0.0), within 300 s.
    StandardWebhooks,
    /// `X-Twilio-Signature`: HMAC-SHA-1 over the URL (`callback_url`) and the sorted form fields.
    Twilio,
}

/// A ready-made profile. Each callback asks for it, so it is read once.
fn parsed(name: &str) -> Option<&'static Http> {
    static PARSED: LazyLock<BTreeMap<&str, Http>> = LazyLock::new(|| {
        PROFILES
            .iter()
            .filter_map(|(name, text)| Some((*name, toml::from_str(text).ok()?)))
            .collect()
    });
    PARSED.get(name)
}

impl Http {
    /// The profile with the keys here over it.
    pub fn resolved(mut self) -> Result<Http, Problem> {
        let name = match self.profile.take() {
            None => return Ok(self),
            Some(name) if name == "custom" => return Ok(self),
            Some(name) => name,
        };
        let base = parsed(&name)
            .cloned()
            .ok_or_else(|| Problem::new("http", "`profile` expected: twilio, vonage, ovh, kannel or custom"))?;
        let mut headers = base.headers;
        headers.extend(self.headers);
        let mut errors = base.errors;
        errors.extend(self.errors);
        let callback = match (base.callback, self.callback) {
            (Some(mut base), Some(own)) => {
                base.fields.extend(own.fields);
                base.states.extend(own.states);
                base.query = own.query.or(base.query);
                base.auth = own.auth.or(base.auth);
                Some(base)
            }
            (base, own) => own.or(base),
        };
        let (fields, body) = match (self.fields.is_empty(), self.body) {
            (true, None) => (base.fields, base.body),
            // Own fields complete those of the profile; a whole body of one's own replaces them.
            (false, None) => (base.fields.into_iter().chain(self.fields).collect(), base.body),
            (_, own) => (self.fields, own),
        };
        Ok(Http {
            profile: None,
            method: self.method.or(base.method),
            query: self.query.or(base.query),
            format: self.format.or(base.format),
            fields,
            body,
            headers,
            auth: self.auth.or(base.auth),
            answer: self.answer.or(base.answer),
            errors,
            callback,
        })
    }

    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        let mut wrong = |message: String| problems.push(Problem::new("http", message));
        let values = self
            .query
            .iter()
            .chain(self.fields.values())
            .chain(self.body.iter())
            .chain(self.headers.values())
            .chain(self.callback.iter().filter_map(|callback| callback.query.as_ref()));
        for value in values {
            if let Err(message) = Placeholders::parse(value) {
                wrong(message);
            }
        }
        if self.format.is_none() && (self.body.is_some() || !self.fields.is_empty()) {
            wrong("`format` expected beside a body: \"form\" or \"json\"".into());
        }
        if self.body.is_some() && !self.fields.is_empty() {
            wrong("expected either `fields` or `body`".into());
        }
        if self.method == Some(Method::Get) && self.format.is_some() {
            wrong("`method = \"GET\"` has no body: expected `query` alone".into());
        }
        for (name, value) in &self.headers {
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) || value.bytes().any(|byte| byte < 0x20 || byte == 0x7F) {
                wrong(format!(
                    "header `{}`: expected a name and a value without line breaks",
                    short(name)
                ));
            }
        }
        if let Some(callback) = &self.callback {
            for word in callback.fields.keys() {
                if !CALLBACK_WORDS.contains(&word.as_str()) {
                    wrong(format!(
                        "`callback.fields.{}` is unknown: expected {}",
                        short(word),
                        CALLBACK_WORDS.join(", ")
                    ));
                }
            }
            for state in callback.states.values() {
                if !["accepted", "delivered", "failed", "expired"].contains(&state.as_str()) {
                    wrong(format!(
                        "`callback.states`: `{}` is unknown: expected accepted, delivered, failed or expired",
                        short(state)
                    ));
                }
            }
        }
    }
}

/// A text with its placeholders found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholders(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(String),
}

impl Placeholders {
    pub fn parse(text: &str) -> Result<Placeholders, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, behind) = after
                .split_once("}}")
                .ok_or_else(|| format!("`{}`: expected `}}}}` behind `{{{{`", short(text)))?;
            let name = name.trim();
            if !PLACEHOLDERS.iter().any(|(known, _)| *known == name) {
                let known: Vec<&str> = PLACEHOLDERS.iter().map(|(known, _)| *known).collect();
                return Err(format!(
                    "unknown placeholder `{}`: expected one of {}",
                    short(name),
                    known.join(", ")
                ));
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Value(name.to_owned()));
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Placeholders(pieces))
    }

    /// Fills in, each value escaped by `escape`.
    pub fn fill<'a>(&self, value: impl Fn(&str) -> std::borrow::Cow<'a, str>, escape: fn(&str, &mut String)) -> String {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Value(name) => escape(&value(name), &mut filled),
            }
        }
        filled
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_a_good_description() {
        for (name, _) in PROFILES {
            let http = Http {
                profile: Some(name.into()),
                ..Http::default()
            };
            let resolved = http.resolved().unwrap();
            let mut problems = Vec::new();
            resolved.check(&mut problems);
            assert!(problems.is_empty(), "{name}: {problems:?}");
            assert!(resolved.answer.unwrap().id.is_some(), "{name}");
        }
    }

    #[test]
    fn own_keys_are_laid_over_the_profile() {
        let own: Http = toml::from_str(
            "profile = \"twilio\"\nfields = { ValidityPeriod = \"60\" }\nerrors = { \"30001\" = \"throttled\" }",
        )
        .unwrap();
        let http = own.resolved().unwrap();
        assert_eq!(http.fields["ValidityPeriod"], "60");
        assert_eq!(http.fields["To"], "{{ to }}");
        assert_eq!(http.errors["30001"], Meaning::Throttled);
        assert_eq!(http.errors["21610"], Meaning::Refused);
    }

    #[test]
    fn mistakes_are_told() {
        assert!(
            Placeholders::parse("{{ too }}")
                .unwrap_err()
                .contains("unknown placeholder `too`")
        );
        assert!(Placeholders::parse("{{ to").is_err());
        let filled = Placeholders::parse("a={{to}}&b={{ text }}!")
            .unwrap()
            .fill(|name| name.to_uppercase().into(), |value, out| out.push_str(value));
        assert_eq!(filled, "a=TO&b=TEXT!");
    }
}
