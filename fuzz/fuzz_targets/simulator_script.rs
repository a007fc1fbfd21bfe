//! Whatever is given to the simulator as a script, it is one that it can follow, and that it reads again, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simulator::Script;

fuzz_target!(|text: &str| {
    if let Ok(script) = Script::parse(text) {
        let again = serde_json::to_string(&script).unwrap();
        assert!(Script::parse(&again).is_ok());
    }
});
