//! Whatever bytes lie on a topic, they are refused as no record or are one that is written and read back as the same.
//!
//! The input: the record's kind on a line, then its bytes.
#![no_main]

use std::fmt::Debug;

use events::{Callback, Click, DeadLetter, Inbound, Job, Outbound, Receipt, Record, Timer};
use fuzz::pieces;
use libfuzzer_sys::fuzz_target;

fn check<R: Record + PartialEq + Debug>(kind: &str, bytes: &[u8]) {
    match R::from_bytes(kind, bytes) {
        Ok(record) => {
            let written = record.to_bytes();
            let again = R::from_bytes(R::KIND, &written).expect("what was written is read");
            assert_eq!(again, record);
        }
        Err(error) => assert!(error.to_string().len() < 1_000),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let [kind, value] = pieces(bytes);
    let kind = String::from_utf8_lossy(kind);
    check::<Job>(&kind, value);
    check::<Timer>(&kind, value);
    check::<Outbound>(&kind, value);
    check::<Callback>(&kind, value);
    check::<Receipt>(&kind, value);
    check::<Inbound>(&kind, value);
    check::<Click>(&kind, value);
    check::<DeadLetter>(&kind, value);
});
