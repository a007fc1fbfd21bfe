//! Whatever is written, the parser answers: with an error at a column of the text, or with a tree that prints to a text
//! which parses to the same tree.
#![no_main]

use domain::audience::{MAX_CHARACTERS, parse, parse_for_trigger, parse_unless};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for read in [parse, parse_for_trigger] {
        match read(text) {
            Ok(expression) => {
                let printed = expression.to_string();
                // Escapes can make it longer than what is read.
                if printed.chars().count() > MAX_CHARACTERS {
                    continue;
                }
                assert_eq!(read(&printed).as_ref(), Ok(&expression), "{printed}");
            }
            Err(error) => assert!((1..=text.chars().count() + 1).contains(&error.column), "{error}"),
        }
    }
    if let Ok(unless) = parse_unless(text) {
        assert_eq!(parse_unless(&unless.to_string()).as_ref(), Ok(&unless));
    }
});
