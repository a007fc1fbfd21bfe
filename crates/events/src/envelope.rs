//! CloudEvents 1.0 in Kafka binary content mode: the attributes are headers named `ce_…`, the value is the data
//! (CloudEvents Kafka protocol binding 1.0.2, section 3.2). `traceparent` is W3C Trace Context's header.

use jiff::Timestamp;

/// A header as both buses carry it: UTF-8 text throughout.
pub type Header = (String, String);

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

impl Envelope {
    pub fn to_headers(&self) -> Vec<Header> {
        let mut headers: Vec<Header> = vec![
            ("ce_specversion".into(), "1.0".into()),
            ("ce_id".into(), self.id.clone()),
            ("ce_source".into(), self.source.clone()),
            ("ce_type".into(), self.kind.clone()),
        ];
        if let Some(time) = self.time {
            headers.push(("ce_time".into(), time.to_string()));
        }
        if let Some(subject) = &self.subject {
            headers.push(("ce_subject".into(), subject.clone()));
        }
        headers.push(("content-type".into(), "application/json".into()));
        if let Some(traceparent) = &self.traceparent {
            headers.push(("traceparent".into(), traceparent.clone()));
        }
        headers
    }

    pub fn from_headers(headers: &[Header]) -> Result<Envelope, EnvelopeError> {
        let get = |name: &str| {
            headers
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
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
