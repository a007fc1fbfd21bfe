//! What an HTTP callback says, by the description's `callback` map.
//!
//! Fields come in the query, in a form or in JSON (an object, or a list of them). Where there is a status it is a
//! receipt; where there is a sender and a text it is a reply, or where it is numbered a part of one; anything else is an
//! error, and the callback is kept as a dead letter.

use domain::{
    State,
    sms::{Fragment, Shift, Udh},
};
use events::Callback;
use resources::gateway::CallbackMap;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{Heard, NotUnderstood};

const BYTE_ORDER_MARKS: [char; 2] = ['\u{feff}', '\u{fffe}'];

pub(crate) fn understand(callback: &Callback, resource: &resources::Gateway) -> Result<Vec<Heard>, NotUnderstood> {
    let map = resource
        .http_description()
        .ok()
        .and_then(|http| http.callback)
        .filter(|map| !map.fields.is_empty())
        .ok_or(NotUnderstood::NotDescribed)?;
    let query = callback.meta.get("query").and_then(Value::as_str).unwrap_or_default();
    let query = pairs(query.as_bytes());
    let said = Said::read(callback)?;
    match said {
        Said::Json(Value::Array(items)) => items
            .iter()
            .map(|item| one(&map, callback, &query, &Said::Json(item.clone())))
            .collect(),
        said => Ok(vec![one(&map, callback, &query, &said)?]),
    }
}

enum Said {
    Nothing,
    Form(Vec<(String, String)>),
    Json(Value),
}

impl Said {
    fn read(callback: &Callback) -> Result<Said, NotUnderstood> {
        if callback.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Said::Nothing);
        }
        let kind = callback
            .meta
            .get("content_type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let looks_like_json = matches!(
            callback.body.iter().find(|byte| !byte.is_ascii_whitespace()),
            Some(b'{' | b'[')
        );
        if kind.ends_with("json") || (looks_like_json && kind != "application/x-www-form-urlencoded") {
            return serde_json::from_slice(&callback.body)
                .map(Said::Json)
                .map_err(|_| NotUnderstood::Body("JSON"));
        }
        Ok(Said::Form(pairs(&callback.body)))
    }

    fn get(&self, name: &str) -> Option<String> {
        match self {
            Said::Nothing => None,
            Said::Form(pairs) => by_name(pairs, name),
            Said::Json(value) => {
                let found = match name.starts_with('/') {
                    true => value.pointer(name),
                    false => value.get(name),
                };
                match found? {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(number) => Some(number.to_string()),
                    _ => None,
                }
            }
        }
    }
}

fn pairs(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

fn by_name(pairs: &[(String, String)], name: &str) -> Option<String> {
    pairs
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.clone())
}

fn one(
    map: &CallbackMap,
    callback: &Callback,
    query: &[(String, String)],
    said: &Said,
) -> Result<Heard, NotUnderstood> {
    let get = |word: &str| {
        let name = map.fields.get(word)?;
        let value = said.get(name).or_else(|| by_name(query, name))?;
        (!value.is_empty()).then_some(value)
    };
    if let Some(status) = get("status") {
        let remote_id = get("id").ok_or(NotUnderstood::Missing("id"))?;
        let state = map
            .states
            .get(&status.to_lowercase())
            .and_then(|word| word.parse::<State>().ok());
        // Most write a code of zeros where nothing went wrong.
        let error = get("code").filter(|code| *code != status && code.bytes().any(|byte| byte != b'0'));
        let code = match error {
            Some(error) => format!("{status}:{error}"),
            None => status,
        };
        let reference = get("reference").or_else(|| Some(remote_id.clone()));
        return Ok(Heard::Receipt {
            reference: reference.and_then(|text| Uuid::parse_str(&text).ok()),
            remote_id,
            state,
            code: Some(code.chars().take(100).collect()),
            at: callback.received_at,
        });
    }
    let from = get("from").ok_or(NotUnderstood::Missing("status"))?;
    // An empty reply is a reply.
    let text = get("text").unwrap_or_default();
    Ok(Heard::Inbound {
        id: get("id"),
        from,
        to: get("to").unwrap_or_default(),
        part: part(&get).map(|part| fragment(&text, part)),
        text,
    })
}

/// Which part of which reply it is. `None`: it is a whole one, or its numbers make no sense, and then it is read by itself.
fn part(get: &impl Fn(&str) -> Option<String>) -> Option<Udh> {
    let number = |word: &str| get(word)?.trim().parse::<u8>().ok();
    let (total, sequence) = (number("part_total")?, number("part_number")?);
    let reference = get("part_reference")?;
    (total > 1 && (1..=total).contains(&sequence)).then(|| Udh {
        reference: reference.trim().parse().unwrap_or_else(|_| short(&reference)),
        wide: true,
        total,
        sequence,
    })
}

/// A reference that is a word, as a number.
fn short(word: &str) -> u16 {
    let digest = Sha256::digest(word.as_bytes());
    u16::from_be_bytes([digest[0], digest[1]])
}

/// Joined like a part from SMPP: its text is decoded already, and UCS-2 (`data_coding` 8) holds any. A byte order mark would
/// be taken for one.
fn fragment(text: &str, part: Udh) -> Fragment {
    let text = text.trim_start_matches(BYTE_ORDER_MARKS);
    Fragment {
        part: Some(part),
        shift: Shift::default(),
        data_coding: 8,
        octets: text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn callback(kind: &str, query: &str, body: &str) -> Callback {
        let meta = json!({ "method": "POST", "query": query, "content_type": kind });
        Callback {
            gateway: "main".into(),
            transport: "http".into(),
            received_at: jiff::Timestamp::UNIX_EPOCH,
            meta: meta.as_object().cloned().unwrap_or_default(),
            body: body.into(),
        }
    }

    fn receipt(profile: &str, callback: &Callback) -> (String, Option<State>, String) {
        let resource = resources::Gateway::http("main", "http://h/", profile);
        match understand(callback, &resource).unwrap().remove(0) {
            Heard::Receipt {
                remote_id, state, code, ..
            } => (remote_id, state, code.unwrap_or_default()),
            Heard::Inbound { .. } => panic!("not a receipt"),
        }
    }

    #[test]
    fn receipts_as_form_json_and_query() {
        let form = "application/x-www-form-urlencoded";
        assert_eq!(
            receipt(
                "twilio",
                &callback(form, "", "MessageSid=SM1&MessageStatus=undelivered&ErrorCode=30003")
            ),
            ("SM1".into(), Some(State::Failed), "undelivered:30003".into())
        );
        let body = r#"{"messageId":"A","status":"delivered","err-code":"0"}"#;
        assert_eq!(
            receipt("vonage", &callback("application/json; charset=utf-8", "", body)),
            ("A".into(), Some(State::Delivered), "delivered".into())
        );
        let id = "00000000-0000-0000-0000-000000000007";
        assert_eq!(
            receipt("kannel", &callback("", &format!("reference={id}&status=8"), "")),
            (id.into(), Some(State::Accepted), "8".into())
        );
        assert_eq!(
            receipt("twilio", &callback(form, "", "MessageSid=SM1&MessageStatus=teleported")),
            ("SM1".into(), None, "teleported".into())
        );
    }

    #[test]
    fn replies_and_what_is_neither() {
        let resource = resources::Gateway::http("main", "http://h/", "twilio");
        let reply = callback(
            "application/x-www-form-urlencoded",
            "",
            "MessageSid=SM7&From=%2B262692123456&To=36105&Body=STOP",
        );
        assert_eq!(
            understand(&reply, &resource).unwrap(),
            [Heard::Inbound {
                id: Some("SM7".into()),
                from: "+262692123456".into(),
                to: "36105".into(),
                text: "STOP".into(),
                part: None
            }]
        );
        // Fields that are no text of anybody's are none.
        let nameless = callback(
            "application/x-www-form-urlencoded",
            "",
            "From=%2B262692123456&MessageSid=",
        );
        assert!(matches!(
            &understand(&nameless, &resource).unwrap()[..],
            [Heard::Inbound { id: None, .. }]
        ));
        let neither = callback("", "", "hello");
        assert_eq!(understand(&neither, &resource), Err(NotUnderstood::Missing("status")));
        let broken = callback("application/json", "", "{");
        assert_eq!(understand(&broken, &resource), Err(NotUnderstood::Body("JSON")));
    }

    #[test]
    fn a_reply_in_parts_is_joined_as_one() {
        let resource = resources::Gateway::http("main", "http://h/", "vonage");
        let read = |body: &str| {
            understand(&callback("application/json", "", body), &resource)
                .unwrap()
                .remove(0)
        };
        let part = |reference: &str, total: &str, number: &str, text: &str| {
            let body = json!({
                "msisdn": "262692123456", "to": "36105", "messageId": format!("ID{number}"), "text": text, "concat": "true",
                "concat-ref": reference, "concat-total": total, "concat-part": number,
            });
            match read(&body.to_string()) {
                Heard::Inbound { id, text, part, .. } => (id.unwrap_or_default(), text, part),
                Heard::Receipt { .. } => panic!("not a reply"),
            }
        };
        for reference in ["108", "a-word"] {
            let (id, text, first) = part(reference, "2", "1", "à bientôt 👍, ");
            assert_eq!((id.as_str(), text.as_str()), ("ID1", "à bientôt 👍, "));
            let (_, _, second) = part(reference, "2", "2", "stop");
            let fragments = [second.unwrap(), first.unwrap()];
            assert_eq!(domain::sms::join(&fragments).unwrap(), "à bientôt 👍, stop");
        }
        let of = |reference: &str| part(reference, "2", "1", "x").2.unwrap().key();
        assert_ne!(of("108"), of("109"));
        assert_ne!(of("a-word"), of("another"));
        // Numbers that make no sense do not keep a text from being read.
        for (total, number) in [
            ("1", "1"),
            ("2", "3"),
            ("2", "0"),
            ("many", "1"),
            ("", ""),
            ("300", "1"),
        ] {
            assert_eq!(part("108", total, number, "stop").2, None, "{total} {number}");
        }
    }
}
