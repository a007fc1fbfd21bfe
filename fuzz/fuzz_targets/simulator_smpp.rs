//! Whatever comes in over an SMPP connection to the simulator, it is read as submissions or given up.
#![no_main]

use libfuzzer_sys::fuzz_target;

const SUBMIT_SM: u32 = 4;

fuzz_target!(|bytes: &[u8]| {
    assert!(simulator::decoders::smpp_submissions(bytes) <= bytes.len() / 16);

    // The same as the body of a PDU whose header is right.
    let mut pdu = Vec::with_capacity(16 + bytes.len());
    for word in [16 + bytes.len() as u32, SUBMIT_SM, 0, 1] {
        pdu.extend_from_slice(&word.to_be_bytes());
    }
    pdu.extend_from_slice(bytes);
    assert!(simulator::decoders::smpp_submissions(&pdu) <= 1);
});
