//! What the fuzz targets share. A target whose decoder takes several things reads them from lines, so that a seed is a file
//! that a person can write; see `seeds/`.

use std::collections::BTreeMap;

use resources::gateway::{Answer, CALLBACK_WORDS, CallbackMap};

/// The profiles of HTTP gateways that are ours, and a description that reads everything by JSON pointers.
const PROFILES: [&str; 5] = ["twilio", "vonage", "ovh", "kannel", "custom"];

/// The gateway of a profile.
pub fn gateway(profile: &[u8]) -> resources::Gateway {
    let profile = word(profile, &PROFILES);
    let mut gateway = resources::Gateway::http("main", "http://h/", profile);
    if let (Some(http), "custom") = (&mut gateway.http, profile) {
        http.answer = Some(Answer {
            id: Some("/data/*/id".into()),
            code: Some("/error/code".into()),
            success: Vec::new(),
        });
        http.callback = Some(CallbackMap {
            fields: CALLBACK_WORDS
                .map(|word| (word.to_owned(), format!("/data/{word}")))
                .into(),
            states: BTreeMap::from([("ok".into(), "delivered".into())]),
            ..CallbackMap::default()
        });
    }
    gateway
}

/// The first lines, and the rest as the last piece. What is not there is empty.
pub fn pieces<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut found = bytes.splitn(N, |byte| *byte == b'\n');
    std::array::from_fn(|_| found.next().unwrap_or_default())
}

/// One of the words, whatever is written: most inputs would name none.
pub fn word(written: &[u8], words: &[&'static str]) -> &'static str {
    let named = words.iter().find(|word| word.as_bytes() == written);
    named.unwrap_or(&words[written.len() % words.len()])
}
