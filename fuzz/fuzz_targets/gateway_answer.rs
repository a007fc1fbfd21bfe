//! Whatever an HTTP gateway answers, it means one thing; taken is only what a good status says with an id.
//!
//! The input: profile and status on a line each, then the body.
#![no_main]

use fuzz::{gateway, pieces};
use gateways::{Outcome, decoders::http_answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [profile, status, body] = pieces(bytes);
    let resource = gateway(profile);
    let status = std::str::from_utf8(status).ok().and_then(|text| text.parse().ok());
    let status = status.filter(|status| (100..1_000).contains(status)).unwrap_or(200);
    let code = match http_answer(&resource, status, body, "our-reference").expect("the profile is one of ours") {
        Outcome::Accepted { parts } => {
            assert!((200..300).contains(&status) && parts.iter().all(|id| !id.is_empty()));
            None
        }
        Outcome::Refused { code, .. } | Outcome::Retry { code, .. } => Some(code),
        Outcome::Unknown { code, .. } => code,
        Outcome::Unreachable => panic!("there was an answer"),
    };
    assert!(code.is_none_or(|code| code.chars().count() <= 100));
});
