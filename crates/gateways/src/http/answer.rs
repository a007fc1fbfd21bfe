//! What an HTTP answer says about a submission.

use domain::Reason;
use resources::gateway::{Answer, Http, Meaning};
use serde_json::Value;

use crate::Outcome;

/// From status and body to an outcome, by the description; `reference` is our own id of the message.
pub(crate) fn outcome(http: &Http, status: u16, body: &[u8], reference: &str) -> Outcome {
    let nothing = Answer::default();
    let answer = http.answer.as_ref().unwrap_or(&nothing);
    let parsed = Parsed::new(body);
    let words = |place: &Option<String>| match place {
        Some(place) => parsed.words(place, reference),
        None => Vec::new(),
    };
    let codes = words(&answer.code);
    let is_success = |code: &String| answer.success.contains(code);
    let is_good = (200..300).contains(&status);
    if is_good && (answer.success.is_empty() || codes.iter().any(is_success)) {
        let refused = codes
            .iter()
            .find(|code| !answer.success.is_empty() && !is_success(code));
        return match (ids(words(&answer.id)), refused) {
            (parts, None) if !parts.is_empty() => Outcome::Accepted { parts },
            // Of a text in parts it took some.
            (parts, Some(code)) => Outcome::Unknown {
                code: Some(short(code)),
                parts,
            },
            // It says yes and does not say to what.
            (parts, None) => Outcome::Unknown {
                code: Some("no-id".into()),
                parts,
            },
        };
    }
    let code = codes.into_iter().next();
    let by_status = format!("http-{status}");
    let by_hundred = format!("http-{}xx", status / 100);
    let meaning = code
        .iter()
        .chain([&by_status, &by_hundred])
        .find_map(|key| http.errors.get(key).copied())
        .unwrap_or_else(|| by_protocol(status));
    let code = code.filter(|code| !code.is_empty()).unwrap_or(by_status);
    let code = short(&code);
    match meaning {
        Meaning::Retry => Outcome::Retry { code, throttled: false },
        Meaning::Throttled => Outcome::Retry { code, throttled: true },
        Meaning::Refused => Outcome::Refused {
            code,
            reason: Reason::GatewayRefused,
        },
        Meaning::Undeliverable => Outcome::Refused {
            code,
            reason: Reason::Undeliverable,
        },
        Meaning::Unknown => Outcome::Unknown {
            code: Some(code),
            parts: Vec::new(),
        },
    }
}

/// What an answer may say of one message: a text has at most 255 parts.
const MOST_WORDS: usize = 255;

/// Each id once: two parts under one id would be one part to whoever looks for a receipt's.
fn ids(words: Vec<String>) -> Vec<String> {
    let mut ids: Vec<String> = Vec::with_capacity(words.len());
    for word in words {
        if !word.is_empty() && !ids.contains(&word) {
            ids.push(word);
        }
    }
    ids
}

fn short(code: &str) -> String {
    code.chars().take(100).collect()
}

/// HTTP's own meaning (RFC 9110, 15; RFC 6585, 4).
fn by_protocol(status: u16) -> Meaning {
    match status {
        429 => Meaning::Throttled,
        // Not now, or not with these credentials: ours to repair, the message is not at fault and was not taken.
        401 | 402 | 403 | 407 | 503 | 300..=399 => Meaning::Retry,
        // The request is wrong.
        400..=407 | 409..=499 => Meaning::Refused,
        // A good status whose body says something that the description does not know, or something broke while it was
        // being worked on.
        _ => Meaning::Unknown,
    }
}

struct Parsed<'a> {
    text: std::borrow::Cow<'a, str>,
    json: Option<Value>,
}

impl<'a> Parsed<'a> {
    fn new(body: &'a [u8]) -> Parsed<'a> {
        Parsed {
            text: String::from_utf8_lossy(body),
            json: serde_json::from_slice(body).ok(),
        }
    }

    /// What stands there; several words only where the place has a step `*`.
    fn words(&self, place: &str, reference: &str) -> Vec<String> {
        if place == "reference" {
            return vec![reference.to_owned()];
        }
        if let Some(prefix) = place.strip_prefix("text:") {
            return self.behind(prefix).into_iter().collect();
        }
        let mut found = Vec::new();
        if let Some(json) = &self.json {
            find(json, place, &mut found);
        }
        let word = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(yes) => Some(yes.to_string()),
            _ => None,
        };
        found.into_iter().filter_map(word).take(MOST_WORDS).collect()
    }

    fn behind(&self, prefix: &str) -> Option<String> {
        let at = self.text.find(prefix)? + prefix.len();
        let end = |character: char| character.is_whitespace() || character == '|';
        let word = self.text[at..].trim_start().split(end).next()?;
        Some(word.to_owned())
    }
}

/// A JSON pointer (RFC 6901) in which a step `*` stands for every element of an array.
fn find<'v>(value: &'v Value, place: &str, found: &mut Vec<&'v Value>) {
    let star = place.find("/*/").or_else(|| place.strip_suffix("/*").map(str::len));
    match star {
        None => found.extend(value.pointer(place)),
        Some(at) => {
            let (before, after) = (&place[..at], &place[at + 2..]);
            if let Some(Value::Array(items)) = value.pointer(before) {
                items.iter().for_each(|item| find(item, after, found));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str) -> Http {
        resources::Gateway::http("main", "http://h/", name)
            .http_description()
            .unwrap()
    }

    fn accepted(id: &str) -> Outcome {
        Outcome::Accepted { parts: vec![id.into()] }
    }

    #[test]
    fn each_profiles_answers_are_understood() {
        let twilio = profile("twilio");
        assert_eq!(
            outcome(&twilio, 201, br#"{"sid":"SM1","status":"queued"}"#, "r"),
            accepted("SM1")
        );
        assert_eq!(
            outcome(&twilio, 400, br#"{"code":21211,"message":"invalid"}"#, "r"),
            Outcome::Refused {
                code: "21211".into(),
                reason: Reason::Undeliverable
            }
        );
        let vonage = profile("vonage");
        assert_eq!(
            outcome(&vonage, 200, br#"{"messages":[{"status":"0","message-id":"A"}]}"#, "r"),
            accepted("A")
        );
        assert_eq!(
            outcome(&vonage, 200, br#"{"messages":[{"status":"1"}]}"#, "r"),
            Outcome::Retry {
                code: "1".into(),
                throttled: true
            }
        );
        // A long text: an id a part, each of which gets its receipt.
        let parts =
            br#"{"message-count":"3","messages":[{"status":"0","message-id":"A"},{"status":"0","message-id":"B"},
            {"status":"0","message-id":"C"}]}"#;
        assert_eq!(
            outcome(&vonage, 200, parts, "r"),
            Outcome::Accepted {
                parts: vec!["A".into(), "B".into(), "C".into()]
            }
        );
        // Some parts were taken: nobody may say that it was not, nor send it again.
        let some = br#"{"messages":[{"status":"0","message-id":"A"},{"status":"9","error-text":"quota"}]}"#;
        assert_eq!(
            outcome(&vonage, 200, some, "r"),
            Outcome::Unknown {
                code: Some("9".into()),
                parts: vec!["A".into()]
            }
        );
        let kannel = profile("kannel");
        assert_eq!(outcome(&kannel, 202, b"0: Accepted for delivery", "r"), accepted("r"));
        assert_eq!(
            outcome(&kannel, 503, b"Temporal failure, try again later.", "r"),
            Outcome::Retry {
                code: "Temporal".into(),
                throttled: true
            }
        );
        assert_eq!(
            outcome(&profile("ovh"), 200, br#"{"ids":[123456789012]}"#, "r"),
            accepted("123456789012")
        );
    }

    #[test]
    fn a_good_status_with_a_strange_body_is_not_guessed_at() {
        for name in ["twilio", "vonage", "ovh", "kannel"] {
            for body in [&b""[..], b"<html>", b"\xff\xfe\0", b"{}", b"[]"] {
                let outcome = outcome(&profile(name), 200, body, "r");
                assert!(matches!(outcome, Outcome::Unknown { .. }), "{name}: {outcome:?}");
            }
        }
    }

    #[test]
    fn a_star_is_every_element() {
        let all = |json: &str, place: &str| Parsed::new(json.as_bytes()).words(place, "r");
        assert_eq!(
            all(r#"{"a":[{"b":[1,2]},{"b":[3]},{"c":4}]}"#, "/a/*/b/*"),
            ["1", "2", "3"]
        );
        assert_eq!(all(r#"["x",null,true]"#, "/*"), ["x", "true"]);
        assert!(all(r#"{"a":{"b":1}}"#, "/a/*").is_empty());
        assert_eq!(ids(vec!["x".into(), String::new(), "y".into(), "x".into()]), ["x", "y"]);
    }

    #[test]
    fn what_may_have_been_taken_is_unknown() {
        let twilio = profile("twilio");
        let unknown = |code: &str| Outcome::Unknown {
            code: Some(code.into()),
            parts: vec![],
        };
        assert_eq!(outcome(&twilio, 201, b"<html>", "r"), unknown("no-id"));
        for status in [500, 502, 504, 408] {
            assert_eq!(outcome(&twilio, status, b"", "r"), unknown(&format!("http-{status}")));
        }
        assert!(matches!(
            outcome(&twilio, 503, b"", "r"),
            Outcome::Retry { throttled: false, .. }
        ));
        assert!(matches!(outcome(&twilio, 401, b"", "r"), Outcome::Retry { .. }));
        assert!(matches!(outcome(&twilio, 404, b"", "r"), Outcome::Refused { .. }));
    }
}
