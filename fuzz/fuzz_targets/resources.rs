//! Whatever is applied as a file of resources, its mistakes stand at lines of the file, or it is read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(errors) = resources::parse_toml(text) {
        assert!(!errors.is_empty());
        for error in errors {
            assert!((1..=text.split('\n').count()).contains(&error.line), "{error:?}");
        }
    }
});
