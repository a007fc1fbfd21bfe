//! Whatever a client asks the simulator's HTTP gateways, it is read in its provider's shape or refused.
//!
//! The input: profile and query on a line each, then the body.
#![no_main]

use fuzz::{pieces, word};
use libfuzzer_sys::fuzz_target;
use simulator::decoders::{PROFILES, http_request};

fuzz_target!(|bytes: &[u8]| {
    let [profile, query, body] = pieces(bytes);
    let query = String::from_utf8_lossy(query);
    if let Some(parts) = http_request(word(profile, &PROFILES), &query, body) {
        assert!(usize::from(parts) <= bytes.len().max(1));
    }
});
