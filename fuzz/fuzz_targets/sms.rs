//! Whatever octets a phone or a gateway calls a text, they are read; a header that holds together is written back as one
//! that says the same; and fragments of one key are one text or say what lacks.
//!
//! The input: the data coding, whether there is a header, then the user data.
#![no_main]

use domain::sms::{Fragment, Header, decode, join};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [data_coding, flags, user_data @ ..] = bytes else {
        return;
    };
    let fragment = Fragment::read(*data_coding, flags & 1 != 0, user_data);
    assert!(fragment.octets.len() <= user_data.len());
    let text = fragment.text();
    if flags & 1 == 0 {
        assert_eq!(text, decode(*data_coding, user_data));
    }
    if let Some((header, length)) = Header::parse(user_data) {
        assert!(length <= user_data.len());
        let written = header.to_bytes();
        let read = Header::parse(&written).map_or_else(Header::default, |(header, _)| header);
        assert_eq!(read, header);
    }
    match fragment.key() {
        None => assert_eq!(join(std::slice::from_ref(&fragment)).as_ref(), Ok(&text)),
        Some((reference, _, total)) => {
            // All parts alike: one text.
            let all: Vec<Fragment> = (1..=total)
                .map(|sequence| fragment.clone().with_sar(reference, total, sequence))
                .collect();
            assert!(join(&all).is_ok());
            assert!(join(&all[1..]).is_err());
        }
    }
});
