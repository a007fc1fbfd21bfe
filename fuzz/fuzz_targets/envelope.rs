//! Whatever headers a record has, they are refused or are an envelope that is written and read back as the same.
//!
//! The input: `name: value` lines.
#![no_main]

use events::{Envelope, Header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let headers: Vec<Header> = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if let Ok(envelope) = Envelope::from_headers(&headers) {
        assert_eq!(Envelope::from_headers(&envelope.to_headers()), Ok(envelope));
    }
});
