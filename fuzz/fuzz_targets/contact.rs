//! Whatever fields a contact comes with, they are refused by their name or are a contact that is written as JSON and read
//! back as the same.
#![no_main]

use domain::{Contact, contact::ContactChange};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|bytes: &[u8]| {
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(bytes) else {
        return;
    };
    match ContactChange::from_json("42", &fields, Some("RE")) {
        Ok(change) => {
            let blank = || Contact {
                id: "42".into(),
                ..Contact::default()
            };
            let mut contact = blank();
            change.merge(&mut contact);
            let again = ContactChange::from_json("42", &contact.to_json(), None).expect("what was written is read");
            let mut same = blank();
            again.merge(&mut same);
            assert!(same == contact);
        }
        Err(error) => assert!(!error.field.is_empty() || fields.contains_key("")),
    }
});
