//! Whatever a callback carries as its proof, nobody without the secret is believed.
//!
//! The input: way, id, time, signature and query on a line each, then the body.
#![no_main]

use fuzz::{pieces, word};
use gateways::http::{CallbackRequest, verify};
use libfuzzer_sys::fuzz_target;
use resources::gateway::{CallbackAuth, CallbackMap};

/// The time by which a test's callback is late or not.
const NOW: i64 = 1_614_265_330;

fuzz_target!(|bytes: &[u8]| {
    let [way, id, time, signature, query, body] = pieces(bytes);
    let auth = match word(way, &["standard", "twilio"]) {
        "standard" => CallbackAuth::StandardWebhooks,
        _ => CallbackAuth::Twilio,
    };
    let mut resource = resources::Gateway::http("main", "http://h/", "twilio");
    resource.callback_url = Some("https://h/callbacks/main".into());
    if let Some(http) = &mut resource.http {
        http.callback = Some(CallbackMap {
            auth: Some(auth),
            ..CallbackMap::default()
        });
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let header = |name: &str| match name {
        "webhook-id" => Some(text(id)),
        "webhook-timestamp" => Some(text(time)),
        "webhook-signature" | "x-twilio-signature" => Some(text(signature)),
        _ => None,
    };
    let query = text(query);
    let request = CallbackRequest {
        query: &query,
        header: &header,
        body,
    };
    let now = jiff::Timestamp::from_second(NOW).expect("a time");
    // The secret is in no seed, and the proof is a hash with it.
    assert!(verify(&resource, Some("6b1f0f4c9d3a47a5b8e2"), &request, now).is_err());
    assert!(verify(&resource, None, &request, now).is_err());
});
