//! Whatever an HTTP gateway calls back with, it is read as what it says or refused, and what is kept of it is short.
//!
//! The input: profile, content type and query on a line each, then the body.
#![no_main]

use events::Callback;
use fuzz::{gateway, pieces};
use gateways::Heard;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|bytes: &[u8]| {
    let [profile, kind, query, body] = pieces(bytes);
    let resource = gateway(profile);
    let meta = json!({
        "method": "POST",
        "content_type": String::from_utf8_lossy(kind),
        "query": String::from_utf8_lossy(query),
    });
    let callback = Callback {
        gateway: "main".into(),
        transport: "http".into(),
        received_at: jiff::Timestamp::UNIX_EPOCH,
        meta: meta.as_object().cloned().unwrap_or_default(),
        body: body.to_vec(),
    };
    for heard in gateways::understand(&callback, &resource).unwrap_or_default() {
        match heard {
            Heard::Receipt { remote_id, code, .. } => {
                assert!(!remote_id.is_empty());
                assert!(code.is_none_or(|code| code.chars().count() <= 100));
            }
            Heard::Inbound {
                id, from, text, part, ..
            } => {
                assert!(!from.is_empty() && id.is_none_or(|id| !id.is_empty()));
                // A part is read as what it came as.
                assert!(part.is_none_or(|part| part.key().is_some() && text.ends_with(&part.text())));
            }
        }
    }
});
