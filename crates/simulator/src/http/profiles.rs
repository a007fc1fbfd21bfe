//! How each provider is asked, and how it answers.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Profile;

/// What a request asks for.
pub(crate) struct Wanted {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) text: String,
    pub(crate) reference: Option<Uuid>,
    pub(crate) callback: Option<String>,
}

impl Profile {
    pub(crate) fn read(self, query: &str, body: &[u8]) -> Option<Wanted> {
        match self {
            Profile::Twilio => {
                let get = form(body);
                Some(Wanted {
                    from: get("From")?,
                    to: get("To")?,
                    text: get("Body")?,
                    reference: None,
                    callback: get("StatusCallback"),
                })
            }
            Profile::Kannel => {
                let get = form(query.as_bytes());
                Some(Wanted {
                    from: get("from")?,
                    to: e164(get("to")?),
                    text: get("text")?,
                    reference: None,
                    callback: get("dlr-url").filter(|url| !url.is_empty()),
                })
            }
            Profile::Vonage => {
                let said: Value = serde_json::from_slice(body).ok()?;
                let get = |name: &str| said.get(name).and_then(Value::as_str).map(str::to_owned);
                Some(Wanted {
                    from: get("from")?,
                    to: e164(get("to")?),
                    text: get("text")?,
                    reference: get("client-ref").and_then(|text| Uuid::parse_str(&text).ok()),
                    callback: get("callback"),
                })
            }
            Profile::Ovh => {
                let said: Value = serde_json::from_slice(body).ok()?;
                let get = |place: &str| said.pointer(place).and_then(Value::as_str).map(str::to_owned);
                Some(Wanted {
                    from: get("/sender").unwrap_or_default(),
                    to: e164(get("/receivers/0")?),
                    text: get("/message")?,
                    reference: get("/tag").and_then(|text| Uuid::parse_str(&text).ok()),
                    callback: None,
                })
            }
            Profile::Listmonk => {
                let said: Value = serde_json::from_slice(body).ok()?;
                let get = |place: &str| said.pointer(place).and_then(Value::as_str).map(str::to_owned);
                Some(Wanted {
                    from: get("/from_email")?,
                    to: e164(get("/recipients/0/attribs/phone")?),
                    text: get("/body")?,
                    reference: get("/recipients/0/uuid").and_then(|text| Uuid::parse_str(&text).ok()),
                    callback: None,
                })
            }
        }
    }

    /// How many ids this provider gives a text of so many parts, each with receipts of its own.
    pub(super) fn ids(self, parts: u32) -> u32 {
        match self {
            Profile::Vonage => parts,
            _ => 1,
        }
    }

    /// The id as this provider writes it.
    pub(super) fn id(self, id: &str) -> String {
        match self {
            Profile::Twilio => format!("SM{id}"),
            _ => id.to_owned(),
        }
    }

    pub(super) fn taken(self, ids: &[String]) -> Response {
        let id = self.id(ids.first().map_or("", String::as_str));
        match self {
            Profile::Twilio => (
                StatusCode::CREATED,
                Json(json!({ "sid": id, "status": "queued", "error_code": null })),
            )
                .into_response(),
            Profile::Vonage => Json(json!({
                "message-count": ids.len().to_string(),
                "messages": ids
                    .iter()
                    .map(|id| json!({ "status": "0", "message-id": id, "remaining-balance": "1000" }))
                    .collect::<Vec<_>>(),
            }))
            .into_response(),
            Profile::Ovh => {
                let number = id.parse::<u64>().map_or(Value::String(id), Value::from);
                Json(json!({ "ids": [number], "invalidReceivers": [], "totalCreditsRemoved": 1 })).into_response()
            }
            Profile::Kannel => (StatusCode::ACCEPTED, "0: Accepted for delivery").into_response(),
            Profile::Listmonk => Json(json!({ "id": id })).into_response(),
        }
    }

    pub(super) fn throttled(self) -> Response {
        match self {
            Profile::Twilio => (
                StatusCode::TOO_MANY_REQUESTS,
                Json(json!({ "code": 20429, "message": "Too Many Requests", "status": 429 })),
            )
                .into_response(),
            Profile::Vonage => vonage_error("1", "Throttled"),
            Profile::Ovh => (
                StatusCode::TOO_MANY_REQUESTS,
                Json(json!({ "message": "Too many requests" })),
            )
                .into_response(),
            Profile::Kannel => (StatusCode::SERVICE_UNAVAILABLE, "Temporal failure, try again later.").into_response(),
            Profile::Listmonk => StatusCode::TOO_MANY_REQUESTS.into_response(),
        }
    }

    pub(super) fn refused(self) -> Response {
        match self {
            Profile::Twilio => (
                StatusCode::BAD_REQUEST,
                Json(json!({ "code": 21211, "message": "Invalid 'To' Phone Number", "status": 400 })),
            )
                .into_response(),
            Profile::Vonage => vonage_error("6", "The message was invalid"),
            Profile::Ovh => (
                StatusCode::BAD_REQUEST,
                Json(json!({ "errorCode": "INVALID_RECEIVER" })),
            )
                .into_response(),
            Profile::Kannel => (StatusCode::BAD_REQUEST, "Unroutable").into_response(),
            Profile::Listmonk => StatusCode::BAD_REQUEST.into_response(),
        }
    }

    /// The request lacks what it needs.
    pub(super) fn malformed(self) -> Response {
        (StatusCode::BAD_REQUEST, "expected a sender, a phone and a text").into_response()
    }
}

fn vonage_error(status: &str, text: &str) -> Response {
    Json(json!({ "message-count": "1", "messages": [{ "status": status, "error-text": text }] })).into_response()
}

fn form(text: &[u8]) -> impl Fn(&str) -> Option<String> {
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(text).into_owned().collect();
    move |name| {
        pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    }
}

fn e164(number: String) -> String {
    match number.starts_with('+') {
        true => number,
        false => format!("+{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_in_each_shape() {
        let id = Uuid::from_u128(7);
        let wanted = Profile::Twilio
            .read(
                "",
                b"To=%2B262692123456&From=A&Body=x+%26+y&StatusCallback=http%3A%2F%2Fh%2F",
            )
            .unwrap();
        assert_eq!(
            (wanted.text.as_str(), wanted.callback.as_deref()),
            ("x & y", Some("http://h/"))
        );
        let body = format!(r#"{{"from":"A","to":"262692123456","text":"x","client-ref":"{id}"}}"#);
        let wanted = Profile::Vonage.read("", body.as_bytes()).unwrap();
        assert_eq!((wanted.to.as_str(), wanted.reference), ("+262692123456", Some(id)));
        let wanted = Profile::Kannel
            .read("from=A&to=%2B262692123456&text=x&dlr-url=", b"")
            .unwrap();
        assert_eq!(wanted.callback, None);
        assert!(Profile::Ovh.read("", b"{}").is_none());
        let body = format!(
            r#"{{"subject":"s","from_email":"A","content_type":"plain","body":"x","campaign":null,"attachments":null,
                "recipients":[{{"uuid":"{id}","email":"a@b","name":"a","attribs":{{"phone":"+262692123456"}},"status":"enabled"}}]}}"#
        );
        let wanted = Profile::Listmonk.read("", body.as_bytes()).unwrap();
        assert_eq!(
            (wanted.to.as_str(), wanted.text.as_str(), wanted.reference),
            ("+262692123456", "x", Some(id))
        );
        assert!(Profile::Listmonk.read("", br#"{"recipients":[]}"#).is_none());
    }
}
