//! The records, one type each. Times are RFC 3339 in UTC, money is in millionths of the account's currency.

use base64::Engine as _;
use domain::{Cause, Class, MessageId, Phone, Reason, State};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Header, contract};

/// Hardly a record takes more: what is written does not have to grow, which would copy it three times.
const USUAL_BYTES: usize = 1024;

/// A record with a schema of its own: what its `ce_type` is, and how it is read and written.
pub trait Record: Serialize + DeserializeOwned {
    /// `tamtam.NAME.vN`
    const KIND: &'static str;

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        // A record's fields are plain data: serialization to memory has nothing that could fail.
        let _ = serde_json::to_writer(&mut bytes, self);
        bytes.shrink_to_fit();
        bytes
    }

    /// Reads a record of `kind`; a version that is not ours is refused, not guessed.
    fn from_bytes(kind: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        if kind != Self::KIND {
            return Err(RecordError::Kind {
                expected: Self::KIND,
                found: kind.chars().take(100).collect(),
            });
        }
        serde_json::from_slice(bytes).map_err(|error| RecordError::Malformed {
            kind: Self::KIND,
            line: error.line(),
            column: error.column(),
            category: error.classify(),
        })
    }
}

/// Why bytes are no record. It never repeats the bytes: they may hold a phone or a text.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the record's type is `{found}`, this version reads `{expected}`")]
    Kind { expected: &'static str, found: String },
    #[error("malformed {kind}: {category:?} error at line {line} column {column}")]
    Malformed {
        kind: &'static str,
        line: usize,
        column: usize,
        category: serde_json::error::Category,
    },
}

/// What a customer did. In binary mode the value is `data` alone; the rest is in the envelope
/// (`ce_id`, `ce_source`, `ce_type`, `ce_subject` = contact id, `ce_time`).
#[derive(Clone, Debug, PartialEq)]
pub struct BusinessEvent {
    pub id: String,
    pub source: String,
    pub kind: String,
    pub contact_id: String,
    pub time: Timestamp,
    pub data: Map<String, Value>,
}

/// `tamtam.job.v1`: one contact to be written to, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    pub message_id: Uuid,
    pub contact_id: String,
    #[serde(with = "cause")]
    #[schemars(with = "cause::Wire")]
    pub cause: Cause,
    pub template: String,
    /// When the cause happened: an event's time, a campaign's launch, a call.
    #[schemars(with = "contract::Time")]
    pub caused_at: Timestamp,
    #[schemars(with = "contract::Time")]
    pub planned_at: Timestamp,
    /// Nothing is sent after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<contract::Time>")]
    pub deadline: Option<Timestamp>,
    /// The triggering event's data, for `{{ event.… }}`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub event: Map<String, Value>,
    /// The campaign's or the caller's own values, for `{{ campaign.… }}` and `{{ custom.… }}`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub values: Map<String, Value>,
    /// How often it was deferred so far; a limit keeps it from going round for ever.
    #[serde(default)]
    pub deferrals: u32,
    /// Decided by the segmenter: the renderer only records it (budget, control group, duplicate phone).
    #[serde(default, skip_serializing_if = "Option::is_none", with = "word_option")]
    #[schemars(schema_with = "contract::reason")]
    pub suppress: Option<Reason>,
    /// Where to, if it answers somebody who is no contact; `contact_id` is then the phone's keyed hash, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "phone_option")]
    #[schemars(schema_with = "contract::phone_option")]
    pub phone: Option<Phone>,
}

/// `tamtam.timer.v1`: a trigger's wait is over. It comes back on `events`, under the contact's key; its `ce_id` is
/// [`Timer::stable_id`].
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timer {
    pub trigger: String,
    pub contact_id: String,
    /// The event that started the wait.
    pub event_id: String,
    pub event_source: String,
    pub event_type: String,
    #[schemars(with = "contract::Time")]
    pub event_time: Timestamp,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub data: Map<String, Value>,
}

impl Timer {
    /// `timer:TRIGGER:SOURCE:EVENT:CONTACT`, each part with its `%` and `:` escaped so that no two run into one another.
    pub fn stable_id(&self) -> String {
        let part = |text: &str| text.replace('%', "%25").replace(':', "%3A");
        format!(
            "{}{}:{}:{}",
            Timer::id_prefix(&self.trigger),
            part(&self.event_source),
            part(&self.event_id),
            part(&self.contact_id)
        )
    }

    /// What the ids of a trigger's timers begin with.
    pub fn id_prefix(trigger: &str) -> String {
        format!("timer:{}:", trigger.replace('%', "%25").replace(':', "%3A"))
    }

    pub fn event(&self) -> BusinessEvent {
        BusinessEvent {
            id: self.event_id.clone(),
            source: self.event_source.clone(),
            kind: self.event_type.clone(),
            contact_id: self.contact_id.clone(),
            time: self.event_time,
            data: self.data.clone(),
        }
    }
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timer")
            .field("trigger", &self.trigger)
            .field("event_type", &self.event_type)
            .finish_non_exhaustive()
    }
}

/// `tamtam.outbound.v1`: a finished text for one phone.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outbound {
    pub message_id: Uuid,
    pub contact_id: String,
    #[serde(with = "cause")]
    #[schemars(with = "cause::Wire")]
    pub cause: Cause,
    #[serde(with = "word")]
    #[schemars(schema_with = "contract::class")]
    pub class: Class,
    #[serde(with = "phone")]
    #[schemars(schema_with = "contract::phone")]
    pub phone: Phone,
    pub sender: String,
    pub text: String,
    /// `GSM-7` or `UCS-2`.
    pub encoding: String,
    pub parts: u16,
    pub template: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The contact's own zone (IANA): the dispatcher looks at the hours again before it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    #[schemars(with = "contract::Time")]
    pub caused_at: Timestamp,
    #[schemars(with = "contract::Time")]
    pub planned_at: Timestamp,
    #[schemars(with = "contract::Time")]
    pub rendered_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<contract::Time>")]
    pub deadline: Option<Timestamp>,
    /// Millionths of the account's currency, estimated.
    #[serde(default)]
    pub cost_micros: i64,
    /// Attempts made so far: 0 until the first.
    #[serde(default)]
    pub attempt: u32,
    /// What the contact must have consented to; absent: `marketing`, or nothing where it is transactional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound")
            .field("message_id", &self.message_id)
            .finish_non_exhaustive()
    }
}

/// `tamtam.callback.v1`: what a gateway said, as it came.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Callback {
    /// The gateway's name in the resources.
    pub gateway: String,
    /// `smpp` (the body is a whole PDU) or `http`.
    pub transport: String,
    #[schemars(with = "contract::Time")]
    pub received_at: Timestamp,
    /// HTTP: method, path and query, content type.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub meta: Map<String, Value>,
    #[serde(with = "bytes")]
    #[schemars(schema_with = "contract::base64")]
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Callback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callback")
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

/// `tamtam.receipt.v1`: a state that a message reached, once per message and state. `ce_id` is `MESSAGE:STATE`, with more
/// behind it where a message may come to a state again: `MESSAGE:deferred:AT` (microseconds), `MESSAGE:unknown:REASON`.
/// It holds no phone number and no text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    pub message_id: Uuid,
    pub contact_id: String,
    #[serde(with = "cause")]
    #[schemars(with = "cause::Wire")]
    pub cause: Cause,
    #[serde(with = "word")]
    #[schemars(schema_with = "contract::class")]
    pub class: Class,
    #[serde(with = "word")]
    #[schemars(schema_with = "contract::state")]
    pub state: State,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "word_option")]
    #[schemars(schema_with = "contract::reason")]
    pub reason: Option<Reason>,
    /// The gateway's own code, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_code: Option<String>,
    pub template: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    #[serde(default)]
    pub parts: u16,
    #[serde(default)]
    pub cost_micros: i64,
    /// Keyed hash (HMAC-SHA-256, hexadecimal) of the phone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_hash: Option<String>,
    /// When it reached this state.
    #[schemars(with = "contract::Time")]
    pub at: Timestamp,
    #[schemars(with = "contract::Time")]
    pub caused_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<contract::Time>")]
    pub planned_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<contract::Time>")]
    pub rendered_at: Option<Timestamp>,
    /// When a dispatcher claimed it for the attempt that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<contract::Time>")]
    pub claimed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<contract::Time>")]
    pub accepted_at: Option<Timestamp>,
    /// Milliseconds from what caused it to the gateway's taking it (`accepted_at` - `caused_at`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<i64>,
    /// Milliseconds from the gateway's taking it to its delivery (`at` - `accepted_at`); on `delivered` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_ms: Option<i64>,
    /// By which rules it was last decided on when it reached this state, by their versions, such as `policy 7, territories
    /// 2026-11-24`. The rule is `reason` and the clock `at`; of what went on the clock is `claimed_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
}

impl Receipt {
    /// `ce_id`: stable, so that readers can de-duplicate by it.
    ///
    /// A message is put off as often as it has to be, also twice in one attempt and for one reason; and it may be unknown
    /// after an attempt, then accepted by a late answer, then unknown because no receipt came. Each is a receipt of its own.
    pub fn stable_id(&self) -> String {
        let id = format!("{}:{}", MessageId(self.message_id), self.state);
        match (self.state, self.reason) {
            (State::Deferred, _) => format!("{id}:{}", self.at.as_microsecond()),
            (State::Unknown, Some(reason)) => format!("{id}:{reason}"),
            _ => id,
        }
    }
}

/// `tamtam.inbound.v1`: a text that a person sent.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Inbound {
    pub id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_id: Option<String>,
    pub phone_hash: String,
    pub gateway: String,
    /// The number or short code that was written to.
    pub to: String,
    /// `stop`, `start`, `help`, `contact`, or a word of the installation's own; absent: it is none of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyword: Option<String>,
    /// Looks like an intent that only a person may decide.
    #[serde(default)]
    pub needs_review: bool,
    #[schemars(with = "contract::Time")]
    pub received_at: Timestamp,
    /// The latest message to this phone, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_reply_to: Option<Uuid>,
    /// How many texts it came in; absent: one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u16>,
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound")
            .field("id", &self.id)
            .field("keyword", &self.keyword)
            .finish_non_exhaustive()
    }
}

/// `tamtam.click.v1`: somebody followed a short link of a message.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Click {
    /// One a click; following a link twice is two.
    pub id: Uuid,
    pub contact_id: String,
    pub message_id: Uuid,
    /// The link's code.
    pub code: String,
    /// Where it led, without query and fragment.
    pub url: String,
    #[schemars(with = "contract::Time")]
    pub at: Timestamp,
}

impl std::fmt::Debug for Click {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Click")
            .field("id", &self.id)
            .field("message_id", &self.message_id)
            .finish_non_exhaustive()
    }
}

/// `tamtam.dead-letter.v1`: a record that could not be processed.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// Stable: topic, partition and offset decide it.
    pub id: Uuid,
    pub stage: String,
    pub topic: String,
    pub partition: u32,
    pub offset: i64,
    pub reason: String,
    #[schemars(with = "contract::Time")]
    pub failed_at: Timestamp,
    pub key: String,
    pub headers: Vec<Header>,
    #[serde(with = "bytes")]
    #[schemars(schema_with = "contract::base64")]
    pub value: Vec<u8>,
}

impl std::fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetter")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl Record for Job {
    const KIND: &'static str = "tamtam.job.v1";
}
impl Record for Timer {
    const KIND: &'static str = "tamtam.timer.v1";
}
impl Record for Outbound {
    const KIND: &'static str = "tamtam.outbound.v1";
}
impl Record for Callback {
    const KIND: &'static str = "tamtam.callback.v1";
}
impl Record for Receipt {
    const KIND: &'static str = "tamtam.receipt.v1";
}
impl Record for Inbound {
    const KIND: &'static str = "tamtam.inbound.v1";
}
impl Record for Click {
    const KIND: &'static str = "tamtam.click.v1";
}
impl Record for DeadLetter {
    const KIND: &'static str = "tamtam.dead-letter.v1";
}

/// A cause as `{"kind":"trigger","trigger":…,"event_source":…,"event_id":…}`.
pub mod cause {
    use super::*;

    /// What a message was caused by.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[schemars(rename = "Cause")]
    #[serde(tag = "kind", rename_all = "lowercase")]
    pub(super) enum Wire {
        /// A trigger fired on an event.
        Trigger {
            trigger: String,
            event_source: String,
            event_id: String,
        },
        /// A campaign planned it.
        Campaign { campaign_id: String },
        /// A system asked for it, or a reply is answered.
        Direct { idempotency_key: String },
    }

    pub fn serialize<S: Serializer>(cause: &Cause, serializer: S) -> Result<S::Ok, S::Error> {
        match cause.clone() {
            Cause::Trigger {
                trigger,
                event_source,
                event_id,
            } => Wire::Trigger {
                trigger,
                event_source,
                event_id,
            },
            Cause::Campaign { campaign_id } => Wire::Campaign { campaign_id },
            Cause::Direct { idempotency_key } => Wire::Direct { idempotency_key },
        }
        .serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cause, D::Error> {
        Ok(match Wire::deserialize(deserializer)? {
            Wire::Trigger {
                trigger,
                event_source,
                event_id,
            } => Cause::Trigger {
                trigger,
                event_source,
                event_id,
            },
            Wire::Campaign { campaign_id } => Cause::Campaign { campaign_id },
            Wire::Direct { idempotency_key } => Cause::Direct { idempotency_key },
        })
    }
}

mod word {
    use super::*;

    pub fn serialize<T: std::fmt::Display, S: Serializer>(word: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(word)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
        D: Deserializer<'de>,
    {
        let word = std::borrow::Cow::<str>::deserialize(deserializer)?;
        word.parse().map_err(serde::de::Error::custom)
    }
}

mod word_option {
    use super::*;

    pub fn serialize<T: std::fmt::Display, S: Serializer>(word: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match word {
            Some(word) => serializer.collect_str(word),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
        D: Deserializer<'de>,
    {
        let word = Option::<String>::deserialize(deserializer)?;
        word.map(|word| word.parse().map_err(serde::de::Error::custom))
            .transpose()
    }
}

mod phone {
    use super::*;

    pub fn serialize<S: Serializer>(phone: &Phone, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(phone.e164())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Phone, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix('+').unwrap_or_default();
        if (4..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Phone::from_e164(text))
        } else {
            Err(serde::de::Error::custom("expected a phone in E.164"))
        }
    }
}

mod phone_option {
    use super::*;

    #[derive(Deserialize)]
    struct Wire(#[serde(with = "phone")] Phone);

    pub fn serialize<S: Serializer>(phone: &Option<Phone>, serializer: S) -> Result<S::Ok, S::Error> {
        match phone {
            Some(phone) => phone::serialize(phone, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Phone>, D::Error> {
        Ok(Option::<Wire>::deserialize(deserializer)?.map(|Wire(phone)| phone))
    }
}

/// Bytes as standard base64 (RFC 4648, section 4).
mod bytes {
    use super::*;

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::display::Base64Display::new(
            bytes,
            &base64::engine::general_purpose::STANDARD,
        ))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(serde::de::Error::custom)
    }
}
