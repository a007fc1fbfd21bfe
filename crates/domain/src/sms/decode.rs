//! Reading what phones and gateways send.

use encoding_rs::{EUC_JP, EUC_KR, Encoding, ISO_2022_JP, ISO_8859_5, ISO_8859_8};

use super::{Shift, alphabet::ESCAPE};

/// The text of user data in an SMPP data coding (SMPP 3.4, 5.2.19), without its UDH. What cannot be read becomes
/// U+FFFD; nothing makes it fail.
///
/// Codings that SMPP does not name are those of 3GPP TS 23.038, section 4. GSM-7 is expected as SMPP has it, one septet an
/// octet. A coding that is not known is read as the default one; a text that is compressed (TS 23.042), as no phone sends it,
/// is one U+FFFD.
pub fn decode(data_coding: u8, bytes: &[u8]) -> String {
    decode_shifted(data_coding, bytes, Shift::default())
}

/// The same for a text that is written by national tables.
pub(super) fn decode_shifted(data_coding: u8, bytes: &[u8], shift: Shift) -> String {
    match data_coding {
        1 => bytes.iter().map(|byte| ascii(*byte)).collect(),
        // Octets without a meaning of their own are shown as Latin-1, which shows every one.
        2..=4 => bytes.iter().map(|byte| char::from(*byte)).collect(),
        5 | 10 => by_table(ISO_2022_JP, bytes),
        6 => by_table(ISO_8859_5, bytes),
        7 => by_table(ISO_8859_8, bytes),
        8 => ucs2(bytes),
        13 => by_table(EUC_JP, bytes),
        14 => by_table(EUC_KR, bytes),
        // A message class: bit 2 tells octets from septets (23.038, section 4).
        0xf0..=0xff if data_coding & 0b100 != 0 => bytes.iter().map(|byte| char::from(*byte)).collect(),
        // The general group, and the same with the wish to be deleted once read: bit 5 tells that the text is compressed,
        // bits 3 and 2 tell the alphabet.
        0x10..=0x7f if data_coding & 0b10_0000 != 0 => char::REPLACEMENT_CHARACTER.to_string(),
        0x10..=0x7f if data_coding & 0b1100 == 0b1000 => ucs2(bytes),
        0x10..=0x7f if data_coding & 0b1100 == 0b0100 => bytes.iter().map(|byte| char::from(*byte)).collect(),
        // A waiting message that is told in UCS-2.
        0xe0..=0xef => ucs2(bytes),
        _ => gsm7(bytes, shift),
    }
}

fn ascii(byte: u8) -> char {
    match byte.is_ascii() {
        true => char::from(byte),
        false => char::REPLACEMENT_CHARACTER,
    }
}

fn gsm7(bytes: &[u8], shift: Shift) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut octets = bytes.iter();
    while let Some(octet) = octets.next() {
        let character = match *octet {
            ESCAPE => match octets.next() {
                Some(behind) => shift.escaped(*behind),
                None => None,
            },
            septet => shift.plain(septet),
        };
        text.push(character.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    text
}

fn ucs2(bytes: &[u8]) -> String {
    // Some senders put the byte order mark that does not belong there.
    let (bytes, little) = match bytes {
        [0xfe, 0xff, rest @ ..] => (rest, false),
        [0xff, 0xfe, rest @ ..] => (rest, true),
        _ => (bytes, false),
    };
    let (pairs, odd) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|pair| match little {
        true => u16::from_le_bytes(*pair),
        false => u16::from_be_bytes(*pair),
    });
    let mut text: String = char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    if !odd.is_empty() {
        text.push(char::REPLACEMENT_CHARACTER);
    }
    text
}

fn by_table(table: &'static Encoding, bytes: &[u8]) -> String {
    table.decode_without_bom_handling(bytes).0.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_coding_is_read() {
        assert_eq!(decode(0, &[0x00, 0x1b, 0x65, 0x05, 0x11]), "@€é_");
        assert_eq!(decode(1, b"STOP"), "STOP");
        assert_eq!(decode(3, &[b'a', 0xe7, b'a']), "aça");
        assert_eq!(decode(6, &[0xbf, 0xe0]), "Пр");
        assert_eq!(decode(8, &[0x04, 0x36, 0xd8, 0x3d, 0xde, 0x00]), "ж😀");
        assert_eq!(decode(8, &[0xff, 0xfe, 0x36, 0x04]), "ж");
        assert_eq!(decode(0xf0, b"STOP"), "STOP");
        assert_eq!(decode(0x18, &[0x04, 0x36]), "ж");
        // ISO 2022-JP, by SMPP's two names for it; Hebrew; EUC-JP with a character of JIS X 0212; EUC-KR.
        let japanese = [0x1b, 0x24, 0x42, 0x46, 0x7c, 0x4b, 0x5c, 0x1b, 0x28, 0x42];
        assert_eq!(decode(5, &japanese), "日本");
        assert_eq!(decode(10, &japanese), "日本");
        assert_eq!(decode(7, &[0xf9, 0xec, 0xe5, 0xed]), "שלום");
        assert_eq!(decode(13, &[0xc6, 0xfc, 0xcb, 0xdc, 0x8f, 0xb0, 0xa1]), "日本丂");
        assert_eq!(decode(14, &[0xc7, 0xd1, 0xb1, 0xb9]), "한국");
    }

    #[test]
    fn the_groups_of_23_038_are_read() {
        let (septets, octets, units): (&[u8], &[u8], &[u8]) = (&[0x00, 0x1b, 0x65], &[b'a', 0xe7], &[0x04, 0x36]);
        // The general group with and without a class, with and without automatic deletion; a reserved alphabet is the
        // default one.
        for group in [0x10, 0x40, 0x50] {
            for class in 0..4 {
                assert_eq!(decode(group | class, septets), "@€", "{group:x}");
                assert_eq!(decode(group | 0x4 | class, octets), "aç", "{group:x}");
                assert_eq!(decode(group | 0x8 | class, units), "ж", "{group:x}");
                assert_eq!(decode(group | 0xc | class, septets), "@€", "{group:x}");
            }
        }
        // Compressed.
        for coding in (0x20..0x40).chain(0x60..0x80) {
            for bytes in [septets, octets, units] {
                assert_eq!(decode(coding, bytes), "\u{fffd}", "{coding:x}");
            }
        }
        // Message waiting: discarded, stored, stored in UCS-2. Then the message class.
        for (coding, bytes, text) in [
            (0xc0, septets, "@€"),
            (0xc8, septets, "@€"),
            (0xd0, septets, "@€"),
            (0xe0, units, "ж"),
            (0xe9, units, "ж"),
            (0xf0, septets, "@€"),
            (0xf3, septets, "@€"),
            (0xf4, octets, "aç"),
            (0xf7, octets, "aç"),
        ] {
            assert_eq!(decode(coding, bytes), text, "{coding:x}");
        }
    }

    #[test]
    fn nothing_makes_it_fail() {
        assert_eq!(decode(0, &[0x1b]), "\u{fffd}");
        assert_eq!(decode(0, &[0x1b, 0x1b, 0xff]), "\u{fffd}\u{fffd}");
        assert_eq!(decode(8, &[0xd8, 0x3d, 0x00]), "\u{fffd}\u{fffd}");
        for coding in 0..=255 {
            let everything: Vec<u8> = (0..=255).collect();
            assert!(!decode(coding, &everything).is_empty());
        }
    }
}
