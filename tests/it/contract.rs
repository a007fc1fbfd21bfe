//! The contract with analysts: `docs/topics/` is what the code says, and the topics that they read name nobody.
//!
//! `TAMTAM_UPDATE_DOCS=1` writes the files.

use std::{fs, path::PathBuf};

use events::contract;
use serde_json::Value;

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
