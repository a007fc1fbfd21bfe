//! What an HTTP answer says about a submission.

use domain::Reason;
use resources::gateway::{Http, Meaning};
use serde_json::Value;

use crate::Outcome;

/// From status and body to an outcome, by the description; `reference` is our own id of the message.
pub(crate) fn outcome(http: &Http, status: u16, body: &[u8], reference: &str) -> Outcome {
    let answer = http.answer.clone().unwrap_or_default();
    let parsed = Parsed::new(body);
    let word = |place: &Option<String>| place.as_deref().and_then(|place| parsed.word(place, reference));
    let code = word(&answer.code);
    let good = (200..300).contains(&status)
        && (answer.success.is_empty() || code.as_ref().is_some_and(|code| answer.success.contains(code)));
    if good {
        return match word(&answer.id) {
            Some(id) if !id.is_empty() => Outcome::Accepted { parts: vec![id] },
            // It says yes and does not say to what.
            _ => Outcome::Unknown {
                code: Some("no-id".into()),
                parts: Vec::new(),
            },
        };
    }
    let by_status = format!("http-{status}");
    let by_hundred = format!("http-{}xx", status / 100);
    let meaning = code
        .iter()
        .chain([&by_status, &by_hundred])
        .find_map(|key| http.errors.get(key).copied())
        .unwrap_or_else(|| by_protocol(status));
    let code = code.filter(|code| !code.is_empty()).unwrap_or(by_status);
    let code: String = code.chars().take(100).collect();
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

    fn word(&self, place: &str, reference: &str) -> Option<String> {
        if place == "reference" {
            return Some(reference.to_owned());
        }
        if let Some(prefix) = place.strip_prefix("text:") {
            let at = self.text.find(prefix)? + prefix.len();
            let end = |character: char| character.is_whitespace() || character == '|';
            let word = self.text[at..].trim_start().split(end).next()?;
            return Some(word.to_owned());
        }
        match self.json.as_ref()?.pointer(place)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(yes) => Some(yes.to_string()),
            _ => None,
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
