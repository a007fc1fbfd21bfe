//! Whatever comes in over an SMPP connection, it is cut into PDUs or given up; and whatever a `deliver_sm` holds, it is read
//! as a receipt or a text or refused, and what is kept of it is short.
#![no_main]

use events::Callback;
use gateways::Heard;
use libfuzzer_sys::fuzz_target;

const DELIVER_SM: u32 = 5;

fuzz_target!(|bytes: &[u8]| {
    assert!(gateways::decoders::smpp_pdus(bytes) <= bytes.len() / 16);

    // The same as the body of a PDU whose header is right.
    let mut pdu = Vec::with_capacity(16 + bytes.len());
    for word in [16 + bytes.len() as u32, DELIVER_SM, 0, 1] {
        pdu.extend_from_slice(&word.to_be_bytes());
    }
    pdu.extend_from_slice(bytes);
    let mut resource = resources::Gateway::smpp("main", "h:1", "tamtam");
    resource.reference_tlv = 0x1400;
    for body in [pdu, bytes.to_vec()] {
        let callback = Callback {
            gateway: "main".into(),
            transport: "smpp".into(),
            received_at: jiff::Timestamp::UNIX_EPOCH,
            meta: serde_json::Map::new(),
            body,
        };
        for heard in gateways::understand(&callback, &resource).unwrap_or_default() {
            match heard {
                Heard::Receipt { code, .. } => assert!(code.is_none_or(|code| code.chars().count() <= 100)),
                Heard::Inbound { part, .. } => {
                    assert!(part.is_none_or(|part| part.key().is_some_and(|(_, _, total)| total > 1)));
                }
            }
        }
    }
});
