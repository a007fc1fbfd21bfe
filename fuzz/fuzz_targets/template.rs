//! Whatever is written as a template, its mistakes stand at places of the text, or it is filled in within its limits.
#![no_main]

use domain::{
    Contact,
    template::{Compiled, Locale, Values},
};
use libfuzzer_sys::fuzz_target;
use serde_json::Map;

fuzz_target!(|text: &str| {
    match Compiled::compile(text) {
        Ok(compiled) => {
            let none = Map::new();
            let values = Values {
                contact: &Contact::default(),
                event: &none,
                campaign: &none,
                custom: &none,
                deadline: None,
                locale: Locale::default(),
                links: None,
            };
            if let Ok(text) = compiled.render(&values) {
                assert!(text.len() <= 65_536);
            }
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!((1..=text.split('\n').count()).contains(&error.line), "{error}");
                assert!((1..=text.chars().count() + 1).contains(&error.column), "{error}");
            }
        }
    }
});
