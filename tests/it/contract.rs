//! The contract with analysts: `docs/topics/` is what the code says, and the topics that they read name nobody.
//!
//! `TAMTAM_UPDATE_DOCS=1` writes the files.

use std::{collections::BTreeSet, fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use events::contract;
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/topics")
}

fn documents() -> Vec<(String, Value)> {
    contract::schemas()
        .into_iter()
        .map(|(kind, schema)| (format!("{kind}.schema.json"), schema))
        .chain([("asyncapi.json".to_owned(), contract::asyncapi())])
        .collect()
}

#[test]
fn the_documents_are_what_the_code_says() {
    for (name, document) in documents() {
        let text = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
        let path = directory().join(&name);
        if std::env::var_os("TAMTAM_UPDATE_DOCS").is_some() {
            fs::create_dir_all(directory()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == text,
            "docs/topics/{name} is not current: TAMTAM_UPDATE_DOCS=1 cargo test -p tests -- contract:: writes it"
        );
    }
}

/// The schema of a record as `docs/topics/` has it, which is what an analyst holds.
pub fn written_schema(kind: &str) -> Value {
    let text = fs::read_to_string(directory().join(format!("{kind}.schema.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Where `value` is not as `schema` says, for the words of JSON Schema 2020-12 that our documents use; at any other it
/// fails. Stricter in one thing: a field that the schema does not name is a deviation.
pub fn deviations(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(schema, value, "", &mut found);
    found
}

fn compare(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let words: &Map<String, Value> = match schema {
        Value::Object(words) => words,
        Value::Bool(true) => return,
        other => panic!("{at}: {other} is no schema that we write"),
    };
    for (word, said) in words {
        let is_so = match word.as_str() {
            "$id" | "$schema" | "title" | "description" | "default" | "examples" => true,
            "type" => match said {
                Value::Array(names) => names.iter().any(|name| is_a(name.as_str().unwrap(), value)),
                name => is_a(name.as_str().unwrap(), value),
            },
            "const" => said == value,
            "enum" => said.as_array().unwrap().contains(value),
            "format" => is_written(said.as_str().unwrap(), value),
            "contentEncoding" => {
                assert_eq!(said, "base64", "{at}");
                value.as_str().is_none_or(|text| STANDARD.decode(text).is_ok())
            }
            "pattern" => {
                assert_eq!(said, r"^\+[0-9]{4,15}$", "{at}: no other pattern is known here");
                value.as_str().is_none_or(|text| {
                    let digits = text.strip_prefix('+').unwrap_or_default();
                    (4..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
                })
            }
            "minimum" => value.as_f64().is_none_or(|number| number >= said.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= said.as_f64().unwrap()),
            "minItems" => value
                .as_array()
                .is_none_or(|all| all.len() as u64 >= said.as_u64().unwrap()),
            "maxItems" => value
                .as_array()
                .is_none_or(|all| all.len() as u64 <= said.as_u64().unwrap()),
            "oneOf" => {
                let variants = said.as_array().unwrap().iter();
                variants.filter(|variant| deviations(variant, value).is_empty()).count() == 1
            }
            "required" => value.as_object().is_none_or(|fields| {
                let names = said.as_array().unwrap().iter();
                names
                    .map(|name| name.as_str().unwrap())
                    .all(|name| fields.contains_key(name))
            }),
            "items" => {
                for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                    compare(said, item, &format!("{at}/{number}"), found);
                }
                true
            }
            "prefixItems" => {
                let pairs = said
                    .as_array()
                    .unwrap()
                    .iter()
                    .zip(value.as_array().into_iter().flatten());
                for (number, (said, item)) in pairs.enumerate() {
                    compare(said, item, &format!("{at}/{number}"), found);
                }
                true
            }
            "properties" => {
                let known = said.as_object().unwrap();
                for (name, field) in value.as_object().into_iter().flatten() {
                    match known.get(name) {
                        Some(said) => compare(said, field, &format!("{at}/{name}"), found),
                        None => found.push(format!("{at}/{name}: not in the schema")),
                    }
                }
                true
            }
            "additionalProperties" => {
                assert!(said == true && !words.contains_key("properties"), "{at}");
                true
            }
            other => panic!("{at}: `{other}` is a word of JSON Schema that is not known here"),
        };
        if !is_so {
            found.push(format!("{at}: not as `{word}` has it"));
        }
    }
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("`{other}` is a type that is not known here"),
    }
}

/// A format is of one type and says nothing of values of others.
fn is_written(format: &str, value: &Value) -> bool {
    let text = |good: fn(&str) -> bool| value.as_str().is_none_or(good);
    let number = |good: fn(i128) -> bool| {
        let number = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
        number.is_none_or(good)
    };
    match format {
        "uuid" => text(|text| text.len() == 36 && Uuid::parse_str(text).is_ok()),
        "date-time" => text(|text| text.ends_with('Z') && text.parse::<Timestamp>().is_ok()),
        "uint16" => number(|number| u16::try_from(number).is_ok()),
        "uint32" => number(|number| u32::try_from(number).is_ok()),
        "int64" => number(|number| i64::try_from(number).is_ok()),
        other => panic!("`{other}` is a format that is not known here"),
    }
}

/// Every record that was ever written, of each version, is as the schema of today says.
#[test]
fn every_golden_record_is_as_its_schema_says() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates/events/golden");
    let mut kinds: BTreeSet<&str> = BTreeSet::new();
    for entry in fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".json") {
            continue;
        }
        let schemas = contract::schemas();
        let kind = schemas.iter().map(|(kind, _)| *kind).find(|kind| {
            let rest = name.strip_prefix(kind);
            rest.is_some_and(|rest| rest.starts_with('.'))
        });
        let kind = kind.unwrap_or_else(|| panic!("{name} is of no record"));
        let record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let none: [&str; 0] = [];
        assert_eq!(deviations(&written_schema(kind), &record), none, "{name}");
        kinds.insert(kind);
    }
    let all: BTreeSet<&str> = contract::schemas().into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, all);
}

/// The comparison finds what it is for.
#[test]
fn a_record_that_is_not_as_its_schema_says_is_found() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates/events/golden/tamtam.receipt.v1.json");
    let receipt: Value = serde_json::from_slice(&fs::read(golden).unwrap()).unwrap();
    type Change = fn(&mut Map<String, Value>);
    let schema = written_schema("tamtam.receipt.v1");
    let changed = |change: Change| {
        let mut record = receipt.clone();
        change(record.as_object_mut().unwrap());
        deviations(&schema, &record)
    };
    assert!(changed(|_| ()).is_empty());
    let wrong: [(&str, Change); 7] = [
        ("a field is missing", |record| {
            record.remove("state");
        }),
        ("a phone", |record| {
            record.insert("phone".into(), "+262692123456".into());
        }),
        ("a number as a text", |record| {
            record.insert("parts".into(), "2".into());
        }),
        ("no time", |record| {
            record.insert("at".into(), "yesterday".into());
        }),
        ("no id", |record| {
            record.insert("message_id".into(), "7".into());
        }),
        ("a word that is none", |record| {
            record.insert("class".into(), "urgent".into());
        }),
        ("a cause of no kind", |record| {
            record["cause"]["kind"] = "chance".into();
        }),
    ];
    for (what, change) in wrong {
        assert!(!changed(change).is_empty(), "{what}");
    }
}

/// A topic's schema is among them, and every field says what it is in a type.
#[test]
fn every_topic_has_its_schema_and_the_analysts_topics_name_nobody() {
    let schemas = contract::schemas();
    for topic in events::Topic::ALL {
        let kind = topic.spec().schema;
        if kind.starts_with("tamtam.") {
            assert!(schemas.iter().any(|(name, _)| *name == kind), "{kind}");
        }
    }
    let fields = |kind: &str| -> Vec<String> {
        let (_, schema) = schemas.iter().find(|(name, _)| *name == kind).unwrap();
        schema["properties"].as_object().unwrap().keys().cloned().collect()
    };
    for kind in ["tamtam.receipt.v1", "tamtam.inbound.v1", "tamtam.click.v1"] {
        for personal in ["phone", "text", "from", "sender", "first_name"] {
            assert!(
                !fields(kind).iter().any(|field| field == personal),
                "{kind}: {personal}"
            );
        }
    }
    // What an analyst joins on.
    let receipt = fields("tamtam.receipt.v1");
    for field in [
        "message_id",
        "contact_id",
        "cause",
        "template",
        "variant",
        "class",
        "gateway",
        "encoding",
        "parts",
        "cost_micros",
        "state",
        "reason",
        "gateway_code",
        "phone_hash",
        "at",
        "caused_at",
        "planned_at",
        "rendered_at",
        "claimed_at",
        "accepted_at",
        "latency_ms",
        "delivery_ms",
        "decided_by",
    ] {
        assert!(receipt.iter().any(|name| name == field), "{field}");
    }
    let document = contract::asyncapi();
    assert_eq!(document["asyncapi"], "3.0.0");
    assert_eq!(
        document["channels"].as_object().unwrap().len(),
        events::Topic::ALL.len()
    );
}
