//! CloudEvents 1.0 in Kafka binary content mode: the attributes are headers named `ce_…`, the value is the data
//! (CloudEvents Kafka protocol binding 1.0.2, section 3.2). `traceparent` is W3C Trace Context's header.

use std::borrow::Cow;

use jiff::Timestamp;

/// A header's name or value. Those that every record carries are static: a record is read and written without a copy of them.
pub type Text = Cow<'static, str>;

/// A header as both buses carry it: UTF-8 text throughout.
pub type Header = (Text, Text);

/// A text as it came, without a copy where it is one of [`KNOWN`].
pub fn text(came: &str) -> Text {
    match KNOWN.iter().find(|known| **known == came) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(came.to_owned()),
    }
}

/// What every record's headers hold.
const KNOWN: [&str; 11] = [
    "ce_specversion",
    "1.0",
    "ce_id",
    "ce_source",
    "tamtam",
    "ce_type",
    "ce_time",
    "ce_subject",
    "content-type",
    "application/json",
    "traceparent",
];

/// The attributes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub id: String,
    pub source: String,
    /// `ce_type`: a business event's own type, or `tamtam.NAME.vN`.
    pub kind: String,
    pub time: Option<Timestamp>,
    /// `ce_subject`: the contact id.
    pub subject: Option<String>,
    pub traceparent: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("header `{0}` is missing (CloudEvents 1.0, binary mode)")]
    Missing(&'static str),
    #[error("header `ce_specversion` is `{0}`, expected `1.0`")]
    SpecVersion(String),
    #[error("header `ce_time` is no RFC 3339 time")]
    Time,
}

/// An envelope's headers, without one being made: what is static stays so.
pub fn headers(
    id: Text,
    source: Text,
    kind: Text,
    time: Option<Timestamp>,
    subject: Option<Text>,
    traceparent: Option<Text>,
) -> Vec<Header> {
    let mut headers: Vec<Header> = Vec::with_capacity(8);
    headers.extend([
        ("ce_specversion".into(), "1.0".into()),
        ("ce_id".into(), id),
        ("ce_source".into(), source),
        ("ce_type".into(), kind),
    ]);
    if let Some(time) = time {
        headers.push(("ce_time".into(), time.to_string().into()));
    }
    if let Some(subject) = subject {
        headers.push(("ce_subject".into(), subject));
    }
    headers.push(("content-type".into(), "application/json".into()));
    if let Some(traceparent) = traceparent {
        headers.push(("traceparent".into(), traceparent));
    }
    headers
}

impl Envelope {
    pub fn into_headers(self) -> Vec<Header> {
        headers(
            self.id.into(),
            self.source.into(),
            self.kind.into(),
            self.time,
            self.subject.map(Text::from),
            self.traceparent.map(Text::from),
        )
    }

    pub fn from_headers(headers: &[Header]) -> Result<Envelope, EnvelopeError> {
        let get = |name: &str| {
            headers
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_ref())
        };
        let need = |name: &'static str| match get(name) {
            Some(value) if !value.is_empty() => Ok(value.to_owned()),
            _ => Err(EnvelopeError::Missing(name)),
        };
        match get("ce_specversion") {
            Some("1.0") => {}
            Some(other) => return Err(EnvelopeError::SpecVersion(other.to_owned())),
            None => return Err(EnvelopeError::Missing("ce_specversion")),
        }
        Ok(Envelope {
            id: need("ce_id")?,
            source: need("ce_source")?,
            kind: need("ce_type")?,
            time: get("ce_time")
                .map(|time| time.parse().map_err(|_| EnvelopeError::Time))
                .transpose()?,
            subject: get("ce_subject")
                .filter(|subject| !subject.is_empty())
                .map(str::to_owned),
            traceparent: get("traceparent").map(str::to_owned),
        })
    }
}
