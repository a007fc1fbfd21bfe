//! A message as an HTTP request, by the description.

use std::{borrow::Cow, collections::BTreeMap};

use base64::Engine as _;
use bytes::Bytes;
use domain::sms::Encoding;
use http_body_util::Full;
use hyper::{
    Request, Uri,
    header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT},
    http::uri::PathAndQuery,
};
use jiff::Timestamp;
use resources::gateway::{Auth, Format, Http, Method, Placeholders};
use serde::Serializer as _;
use sha1::{Digest as _, Sha1};
use url::{Position, Url};

use crate::Submission;

/// How long a message is worth delivering where it has no deadline of its own.
const LONGEST_MINUTES: i64 = 2 * 24 * 60;
/// Hardly a body is longer, so it does not have to grow.
const USUAL_BYTES: usize = 512;

pub(super) struct Writer {
    method: hyper::Method,
    address: String,
    /// The same, read once.
    uri: Uri,
    host: HeaderValue,
    query: Option<Placeholders>,
    format: Option<Format>,
    fields: Vec<(String, Placeholders)>,
    body: Option<Placeholders>,
    headers: Vec<(HeaderName, Placeholders)>,
    callback_url: Option<String>,
    callback_query: Option<Placeholders>,
    auth: Auth,
    user: String,
    password: String,
}

/// The description and the message do not make a request; neither is repeated.
#[derive(Debug)]
pub(super) struct Unwritable;

impl Writer {
    pub(super) fn new(resource: &resources::Gateway, http: &Http, password: Option<String>) -> Result<Writer, String> {
        let all = |fields: &BTreeMap<String, String>| {
            fields
                .iter()
                .map(|(name, value)| Ok((name.clone(), Placeholders::parse(value)?)))
                .collect::<Result<Vec<_>, String>>()
        };
        let parsed = |text: &Option<String>| text.as_deref().map(Placeholders::parse).transpose();
        let no_url = || "`address` is no URL".to_owned();
        let url = Url::parse(&resource.address).map_err(|_| no_url())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("`address` holds a user: `system_id` and `password` are for that".to_owned());
        }
        let uri: Uri = url[..Position::AfterQuery].parse().map_err(|_| no_url())?;
        Ok(Writer {
            method: match http.method.unwrap_or(Method::Post) {
                Method::Get => hyper::Method::GET,
                Method::Post => hyper::Method::POST,
                Method::Put => hyper::Method::PUT,
            },
            address: resource.address.clone(),
            host: url[Position::BeforeHost..Position::AfterPort]
                .parse()
                .map_err(|_| no_url())?,
            uri,
            query: parsed(&http.query)?,
            format: http.format,
            fields: all(&http.fields)?,
            body: parsed(&http.body)?,
            headers: all(&http.headers)?
                .into_iter()
                .map(|(name, value)| {
                    let name = name.parse().map_err(|_| "a header's name is wrong".to_owned())?;
                    Ok((name, value))
                })
                .collect::<Result<_, String>>()?,
            callback_url: resource.callback_url.clone(),
            callback_query: parsed(&http.callback.as_ref().and_then(|callback| callback.query.clone()))?,
            auth: http.auth.unwrap_or(Auth::None),
            user: resource.system_id.clone().unwrap_or_default(),
            password: password.unwrap_or_default(),
        })
    }

    pub(super) fn address(&self) -> Uri {
        self.uri.clone()
    }

    pub(super) fn write(&self, message: &Submission, now: Timestamp) -> Result<Request<Full<Bytes>>, Unwritable> {
        let value = |name: &str| self.value(name, message, now);
        // As it is written, which is what a signature is made over, and as it is read.
        let (text, target) = match &self.query {
            None => (Cow::Borrowed(&self.address), self.uri.path_and_query().cloned()),
            Some(query) => {
                let joint = if self.address.contains('?') { '&' } else { '?' };
                let text = format!("{}{joint}{}", self.address, query.fill(value, percent));
                let url = Url::parse(&text).map_err(|_| Unwritable)?;
                let target = PathAndQuery::try_from(&url[Position::BeforePath..Position::AfterQuery]);
                (Cow::Owned(text), Some(target.map_err(|_| Unwritable)?))
            }
        };
        let body = self.body(value)?;
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static("tamtam"));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(format) = self.format {
            let kind = match format {
                Format::Form => "application/x-www-form-urlencoded",
                Format::Json => "application/json",
            };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        for (name, filling) in &self.headers {
            let filled = filling.fill(value, as_it_is);
            headers.insert(name, HeaderValue::from_str(&filled).map_err(|_| Unwritable)?);
        }
        self.authorize(&mut headers, &text, &body, now)?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn body<'a>(&self, value: impl Fn(&str) -> Cow<'a, str> + Copy) -> Result<String, Unwritable> {
        // A field that turns out empty is left out: a callback address that is not configured, for example.
        let fields = || {
            self.fields
                .iter()
                .map(move |(name, text)| (name, text.fill(value, as_it_is)))
                .filter(|(_, text)| !text.is_empty())
        };
        Ok(match (self.format, &self.body) {
            (None, _) => String::new(),
            (Some(Format::Json), Some(body)) => body.fill(value, json),
            (Some(Format::Form), Some(body)) => body.fill(value, percent),
            (Some(Format::Form), None) => url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(fields())
                .finish(),
            (Some(Format::Json), None) => {
                let mut object = Vec::with_capacity(USUAL_BYTES);
                let mut to = serde_json::Serializer::new(&mut object);
                to.collect_map(fields()).map_err(|_| Unwritable)?;
                String::from_utf8(object).map_err(|_| Unwritable)?
            }
        })
    }

    fn value<'a>(&'a self, name: &str, message: &'a Submission, now: Timestamp) -> Cow<'a, str> {
        let unicode = message.encoding == Encoding::Ucs2;
        match name {
            "to" => message.phone.e164().into(),
            "to_digits" => message.phone.e164().trim_start_matches('+').into(),
            "from" => message.sender.as_str().into(),
            "text" => message.text.as_str().into(),
            "reference" => message.reference.hyphenated().to_string().into(),
            "user" => self.user.as_str().into(),
            "password" => self.password.as_str().into(),
            "coding" => if unicode { "2" } else { "0" }.into(),
            "kind" => if unicode { "unicode" } else { "text" }.into(),
            "parts" => message.parts.to_string().into(),
            "minutes" => message
                .expires_at
                .map_or(LONGEST_MINUTES, |at| {
                    (at.duration_since(now).as_secs() / 60).clamp(1, LONGEST_MINUTES)
                })
                .to_string()
                .into(),
            "callback_url" => self.callback_url(message, now).into(),
            // Unknown ones were refused when the description was read.
            _ => "".into(),
        }
    }

    fn callback_url(&self, message: &Submission, now: Timestamp) -> String {
        let Some(url) = &self.callback_url else {
            return String::new();
        };
        match &self.callback_query {
            None => url.clone(),
            Some(query) => {
                let joint = if url.contains('?') { '&' } else { '?' };
                // A callback's address does not hold itself.
                let value = |name: &str| match name {
                    "callback_url" => Cow::Borrowed(""),
                    other => self.value(other, message, now),
                };
                format!("{url}{joint}{}", query.fill(value, percent))
            }
        }
    }

    fn authorize(&self, headers: &mut HeaderMap, url: &str, body: &str, now: Timestamp) -> Result<(), Unwritable> {
        let mut set = |name: &'static str, text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| Unwritable)?;
            value.set_sensitive(true);
            headers.insert(name, value);
            Ok(())
        };
        match self.auth {
            Auth::None => Ok(()),
            Auth::Basic => {
                let both = format!("{}:{}", self.user, self.password);
                let both = base64::engine::general_purpose::STANDARD.encode(both);
                set("authorization", &format!("Basic {both}"))
            }
            Auth::Bearer => set("authorization", &format!("Bearer {}", self.password)),
            Auth::Ovh => {
                let (application, consumer) = self.user.split_once(':').unwrap_or((&self.user, ""));
                let time = now.as_second().to_string();
                let signed = [&self.password, consumer, self.method.as_str(), url, body, &time].join("+");
                let digest = Sha1::digest(signed.as_bytes());
                let digest = data_encoding::HEXLOWER.encode(&digest);
                set("x-ovh-application", application)?;
                set("x-ovh-consumer", consumer)?;
                set("x-ovh-timestamp", &time)?;
                set("x-ovh-signature", &format!("$1${digest}"))
            }
        }
    }
}

fn as_it_is(text: &str, out: &mut String) {
    out.push_str(text);
}

fn percent(text: &str, out: &mut String) {
    out.extend(url::form_urlencoded::byte_serialize(text.as_bytes()));
}

/// The inside of a JSON string.
fn json(text: &str, out: &mut String) {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    out.push_str(quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Phone, sms};
    use futures::FutureExt as _;
    use http_body_util::BodyExt as _;
    use uuid::Uuid;

    fn message(text: &str) -> Submission {
        let measured = sms::measure(text);
        Submission {
            reference: Uuid::from_u128(7),
            phone: Phone::from_e164("+262692123456"),
            sender: "BOUTIQUE".into(),
            text: text.into(),
            encoding: measured.encoding,
            parts: measured.parts,
            expires_at: Some(Timestamp::from_second(3_600).unwrap()),
        }
    }

    fn request(resource: &resources::Gateway, text: &str) -> (String, String, HeaderMap) {
        let http = resource.http_description().unwrap();
        let writer = Writer::new(resource, &http, Some("s3cret".into())).unwrap();
        let request = writer.write(&message(text), Timestamp::UNIX_EPOCH).unwrap();
        let (head, body) = request.into_parts();
        let body = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        (
            head.uri.to_string(),
            String::from_utf8(body.to_vec()).unwrap(),
            head.headers,
        )
    }

    fn http(profile: &str) -> resources::Gateway {
        resources::Gateway {
            system_id: Some("account".into()),
            ..resources::Gateway::http("main", "https://gateway.example/send", profile)
        }
    }

    #[test]
    fn a_form_with_basic_authentication() {
        let (url, body, headers) = request(&http("twilio"), "O'Brien & Söhne=1");
        // Of the address a request names the path (RFC 9112, 3.2.1), and its host in a header.
        assert_eq!(url, "/send");
        assert_eq!(headers["host"], "gateway.example");
        assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
        assert_eq!(
            body,
            "Body=O%27Brien+%26+S%C3%B6hne%3D1&From=BOUTIQUE&To=%2B262692123456"
        );
        assert_eq!(headers["authorization"], "Basic YWNjb3VudDpzM2NyZXQ=");
    }

    #[test]
    fn a_get_with_a_callback_address_in_it() {
        let mut resource = http("kannel");
        resource.callback_url = Some("http://ours.example/callbacks/main?secret=x".into());
        let (url, body, _) = request(&resource, "ж & ж");
        assert!(body.is_empty());
        let url = Url::parse(&format!("http://h{url}")).unwrap();
        let pairs: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        assert_eq!(pairs["text"], "ж & ж");
        assert_eq!((pairs["coding"].as_str(), pairs["validity"].as_str()), ("2", "60"));
        assert_eq!(
            pairs["dlr-url"],
            "http://ours.example/callbacks/main?secret=x&reference=00000000-0000-0000-0000-000000000007&status=%d"
        );
    }

    #[test]
    fn an_address_is_asked_as_it_stands() {
        let mut resource = http("twilio");
        for (address, host, path) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", "/"),
            ("http://[::1]:8080/a%20b/?x=1#f", "[::1]:8080", "/a%20b/?x=1"),
            // The port of its scheme goes without saying.
            ("https://Gateway.Example:443/send", "gateway.example", "/send"),
        ] {
            resource.address = address.into();
            let (url, _, headers) = request(&resource, "x");
            assert_eq!((url.as_str(), headers["host"].to_str().unwrap()), (path, host));
        }
        resource.address = "http://user:secret@gateway.example/".into();
        let description = resource.http_description().unwrap();
        let refused = Writer::new(&resource, &description, None).err().unwrap();
        assert!(!refused.contains("secret"), "{refused}");
    }

    #[test]
    fn json_cannot_be_broken_out_of() {
        let (_, body, headers) = request(&http("ovh"), "\"},{\"x\":\"\\\n");
        let read: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(read["message"], "\"},{\"x\":\"\\\n");
        assert_eq!(read["validityPeriod"], 60);
        assert!(headers["x-ovh-signature"].to_str().unwrap().starts_with("$1$"));
        let (_, body, _) = request(&http("vonage"), "a\"b");
        let read: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&read["text"], &read["to"]), (&"a\"b".into(), &"262692123456".into()));
        assert!(read.get("callback").is_none());
    }
}
