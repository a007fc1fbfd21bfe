//! The contract with whoever reads the topics, as documents: a JSON Schema for each record and one AsyncAPI 3 document,
//! both made from the types and the table of topics. `docs/topics/` holds them, and a test keeps them current.

use std::borrow::Cow;

use domain::{Class, Reason, State};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value, json};

use crate::{Callback, Click, DeadLetter, Inbound, Job, Outbound, Receipt, Record, Timer, Topic};

/// The schemas, by the record's type (`tamtam.receipt.v1`).
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        schema::<Job>(),
        schema::<Timer>(),
        schema::<Outbound>(),
        schema::<Callback>(),
        schema::<Receipt>(),
        schema::<Inbound>(),
        schema::<Click>(),
        schema::<DeadLetter>(),
    ]
}

fn schema<R: Record + JsonSchema>() -> (&'static str, Value) {
    let mut settings = SchemaSettings::draft2020_12();
    // A document by itself: nothing to follow.
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<R>();
    schema.insert("$id".into(), json!(format!("urn:{}", R::KIND)));
    schema.insert("title".into(), json!(R::KIND));
    (R::KIND, schema.to_value())
}

/// What a topic's records are, as AsyncAPI 3 says it: channels, messages with headers and payload, and who does what.
pub fn asyncapi() -> Value {
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for (kind, schema) in schemas() {
        messages.insert(
            kind.into(),
            message(
                kind,
                json!({
                    "schemaFormat": "application/schema+json;version=draft-2020-12",
                    "schema": schema,
                }),
            ),
        );
    }
    messages.insert(
        "business-event".into(),
        message(
            "a business event's own type, such as order.placed",
            json!({
                "type": "object",
                "description": "The event's data, as it was published.",
            }),
        ),
    );
    for topic in Topic::ALL {
        let spec = topic.spec();
        let name = spec.name.replace('.', "-");
        let mut held: Vec<&str> = vec![match messages.contains_key(spec.schema) {
            true => spec.schema,
            false => "business-event",
        }];
        if topic == Topic::Events {
            held.push(Timer::KIND);
        }
        let references: Map<String, Value> = held
            .iter()
            .map(|kind| {
                (
                    (*kind).to_owned(),
                    json!({"$ref": format!("#/components/messages/{kind}")}),
                )
            })
            .collect();
        channels.insert(
            name.clone(),
            json!({
                "address": format!("tamtam.{}", spec.name),
                "description": format!("{}. Key: {}. Kept {} days by default.", spec.holds, spec.key, spec.retention_hours / 24),
                "messages": references,
                "bindings": {"kafka": {"partitions": spec.partitions, "bindingVersion": "0.5.0"}},
                "x-producers": spec.producers,
                "x-consumers": spec.consumers,
            }),
        );
        let of_channel = json!({"$ref": format!("#/channels/{name}")});
        // As AsyncAPI has it: what the described application, tamtam, does.
        let action = match topic {
            Topic::Events => "receive",
            _ => "send",
        };
        operations.insert(
            format!("{action}-{name}"),
            json!({"action": action, "channel": of_channel}),
        );
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "tamtam's topics",
            "version": "1",
            "description": "CloudEvents 1.0 in Kafka's binary mode: attributes are headers named ce_…, the value is JSON. \
                `ce_id` is stable: a record may be there twice under it, and then says the same. Fields are only ever added; \
                a record that changes otherwise gets a new version in its `ce_type`.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    })
}

fn message(kind: &str, payload: Value) -> Value {
    json!({
        "name": kind,
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
            "properties": {
                "ce_specversion": {"const": "1.0"},
                "ce_id": {"type": "string", "description": "Stable: the same for the same fact, to de-duplicate by."},
                "ce_source": {"type": "string"},
                "ce_type": {"type": "string", "description": kind},
                "ce_time": {"type": "string", "format": "date-time"},
                "ce_subject": {"type": "string"},
                "content-type": {"const": "application/json"},
                "traceparent": {"type": "string", "description": "W3C Trace Context."},
            },
        },
        "payload": payload,
    })
}

/// How an instant is written. (The crate's own support is for an older jiff.)
pub(crate) struct Time;

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "description": "RFC 3339, in UTC"})
    }

    fn inline_schema() -> bool {
        true
    }
}

fn words<T>(all: &[T], as_str: fn(T) -> &'static str) -> Schema
where
    T: Copy,
{
    let words: Vec<&str> = all.iter().map(|word| as_str(*word)).collect();
    json_schema!({"type": "string", "enum": words})
}

pub(crate) fn class(_: &mut SchemaGenerator) -> Schema {
    words(&[Class::Transactional, Class::Marketing], Class::as_str)
}

pub(crate) fn state(_: &mut SchemaGenerator) -> Schema {
    words(&State::ALL, State::as_str)
}

/// Words are added: a reader takes one that it does not know as it is.
pub(crate) fn reason(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    json_schema!({
        "type": ["string", "null"],
        "description": "Why; further words may come.",
        "examples": words,
    })
}

pub(crate) fn phone(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^\\+[0-9]{4,15}$", "description": "E.164"})
}

pub(crate) fn phone_option(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": ["string", "null"], "pattern": "^\\+[0-9]{4,15}$", "description": "E.164"})
}

pub(crate) fn base64(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "contentEncoding": "base64"})
}
