//! What an HTTP callback says, by the description's `callback` map.
//!
//! Fields come in the query, in a form or in JSON (an object, or a list of them). Where there is a status it is a
//! receipt; where there is a sender and a text it is a reply; anything else is an error, and the callback is kept as a
//! dead letter.

use domain::State;
use events::Callback;
use resources::gateway::CallbackMap;
use serde_json::Value;
use uuid::Uuid;

use crate::{Heard, NotUnderstood};

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
    Ok(Heard::Inbound {
        from,
        to: get("to").unwrap_or_default(),
        // An empty reply is a reply.
        text: get("text").unwrap_or_default(),
        part: None,
    })
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
            "From=%2B262692123456&To=36105&Body=STOP",
        );
        assert_eq!(
            understand(&reply, &resource).unwrap(),
            [Heard::Inbound {
                from: "+262692123456".into(),
                to: "36105".into(),
                text: "STOP".into(),
                part: None
            }]
        );
        let neither = callback("", "", "hello");
        assert_eq!(understand(&neither, &resource), Err(NotUnderstood::Missing("status")));
        let broken = callback("application/json", "", "{");
        assert_eq!(understand(&broken, &resource), Err(NotUnderstood::Body("JSON")));
    }
}
