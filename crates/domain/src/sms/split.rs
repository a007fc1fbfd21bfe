//! Cutting a text into parts.
//!
//! A part never ends between an escape and its septet or between two surrogates, and where that can be avoided not
//! inside what a reader takes for one character (an extended grapheme cluster, UAX #29).

use unicode_segmentation::UnicodeSegmentation as _;

use super::{
    Encoding, Header, Shift, Udh,
    alphabet::{ESCAPE, Septets},
};

/// One SMS of a text.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    /// Absent where the text is one SMS.
    pub udh: Option<Udh>,
    /// The national tables that it is written by; none in what [`split`] gives.
    pub shift: Shift,
    /// GSM-7: one septet an octet, not packed, as SMPP has it; otherwise UTF-16BE. Without the header.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part")
            .field("udh", &self.udh)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

impl Part {
    /// The whole header, for the octets before [`Part::bytes`]; empty where there is none.
    pub fn header(&self) -> Vec<u8> {
        let header = Header {
            part: self.udh,
            shift: self.shift,
        };
        header.to_bytes()
    }
}

/// What a header can count.
const MAX_PARTS: usize = 255;

/// The parts of a text, under `reference` where there are several; `wide` makes that a 16-bit reference, of which
/// otherwise only the low byte goes out.
///
/// A text of more than 255 parts cannot be sent and gives none: nothing is ever cut off. A character that `encoding`
/// does not have becomes `?`; [`Encoding::of`] chooses one that has them all.
pub fn split(text: &str, encoding: Encoding, reference: u16, wide: bool) -> Vec<Part> {
    split_by(text, encoding, Shift::default(), reference, wide)
}

/// The parts of a GSM-7 text that is written by national tables (see [`measure_in`](super::measure_in)).
pub fn split_national(text: &str, shift: Shift, reference: u16, wide: bool) -> Vec<Part> {
    split_by(text, Encoding::Gsm7, shift, reference, wide)
}

fn split_by(text: &str, encoding: Encoding, shift: Shift, reference: u16, wide: bool) -> Vec<Part> {
    let pieces = layout(text, encoding, shift, wide);
    if pieces.len() > MAX_PARTS {
        return Vec::new();
    }
    let total = pieces.len() as u8;
    let mut rest = text;
    let mut parts = Vec::with_capacity(pieces.len());
    for (index, piece) in pieces.iter().enumerate() {
        let (own, after) = rest.split_at(piece.bytes);
        rest = after;
        parts.push(Part {
            udh: (total > 1).then_some(Udh {
                reference: if wide { reference } else { reference & 0xff },
                wide,
                total,
                sequence: index as u8 + 1,
            }),
            shift,
            bytes: encode(own, encoding, shift),
        });
    }
    parts
}

/// How much of the text a part holds.
pub(super) struct Piece {
    /// UTF-8 bytes of the text.
    pub(super) bytes: usize,
    pub(super) units: usize,
}

/// The parts' lengths; at least one.
pub(super) fn layout(text: &str, encoding: Encoding, shift: Shift, wide: bool) -> Vec<Piece> {
    let units = |text: &str| {
        text.chars()
            .map(|character| units(character, encoding, shift))
            .sum::<usize>()
    };
    let whole = Piece {
        bytes: text.len(),
        units: units(text),
    };
    if whole.units <= encoding.single_by(shift) {
        return vec![whole];
    }
    let per_part = encoding.per_part_by(shift, wide);
    let mut pieces = vec![Piece { bytes: 0, units: 0 }];
    let mut add = |bytes: usize, units: usize| match pieces.last_mut() {
        Some(last) if last.units + units <= per_part => {
            last.bytes += bytes;
            last.units += units;
        }
        _ => pieces.push(Piece { bytes, units }),
    };
    match encoding {
        // Every character of the alphabet is a grapheme of its own, but for the line's end.
        Encoding::Gsm7 => {
            for character in text.chars() {
                add(character.len_utf8(), self::units(character, encoding, shift));
            }
        }
        Encoding::Ucs2 => {
            for grapheme in text.graphemes(true) {
                let together = units(grapheme);
                // A line's end is two characters to a phone; and what fits in no part must be cut somewhere.
                if grapheme == "\r\n" || together > per_part {
                    for character in grapheme.chars() {
                        add(character.len_utf8(), character.len_utf16());
                    }
                } else {
                    add(grapheme.len(), together);
                }
            }
        }
    }
    pieces
}

fn units(character: char, encoding: Encoding, shift: Shift) -> usize {
    match encoding {
        Encoding::Gsm7 => shift.septets(character).map_or(1, Septets::units),
        Encoding::Ucs2 => character.len_utf16(),
    }
}

fn encode(text: &str, encoding: Encoding, shift: Shift) -> Vec<u8> {
    match encoding {
        Encoding::Gsm7 => {
            let mut bytes = Vec::with_capacity(text.len());
            for character in text.chars() {
                match shift.septets(character) {
                    Some(Septets::One(septet)) => bytes.push(septet),
                    Some(Septets::Two(septet)) => bytes.extend([ESCAPE, septet]),
                    None => bytes.push(b'?'),
                }
            }
            bytes
        }
        Encoding::Ucs2 => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sms::{decode, measure};
    use proptest::prelude::*;

    #[test]
    fn one_sms_has_no_header() {
        let parts = split("a€{", Encoding::Gsm7, 7, false);
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].udh, None);
        assert_eq!(parts[0].bytes, [0x61, 0x1b, 0x65, 0x1b, 0x28]);
        assert_eq!(
            split("ж😀", Encoding::Ucs2, 7, false)[0].bytes,
            [0x04, 0x36, 0xd8, 0x3d, 0xde, 0x00]
        );
        assert_eq!(split("", Encoding::Gsm7, 7, false).len(), 1);
    }

    #[test]
    fn pairs_and_graphemes_stay_whole() {
        let text = format!("{}€{}", "a".repeat(152), "b".repeat(20));
        let parts = split(&text, Encoding::Gsm7, 0x1234, false);
        assert_eq!(parts[0].bytes.len(), 152);
        assert_eq!(parts[1].bytes[..2], [0x1b, 0x65]);
        assert_eq!(parts[0].udh.unwrap().reference, 0x34);
        // With the wide header 152 septets fit: the pair would begin at the last one.
        let wide = split(
            &format!("{}€{}", "a".repeat(151), "b".repeat(20)),
            Encoding::Gsm7,
            0x1234,
            true,
        );
        assert_eq!((wide[0].bytes.len(), wide[0].udh.unwrap().reference), (151, 0x1234));

        let text = format!("{}👍🏽{}", "a".repeat(65), "b".repeat(20));
        let parts = split(&text, Encoding::Ucs2, 1, false);
        assert_eq!(parts[0].bytes.len(), 130);
        // What is longer than a part is cut all the same, between two characters.
        let endless = format!("a{}", "\u{301}".repeat(100));
        let parts = split(&endless, Encoding::Ucs2, 1, false);
        assert_eq!(parts.iter().map(|part| part.bytes.len()).collect::<Vec<_>>(), [134, 68]);
    }

    #[test]
    fn nothing_is_cut_off_silently() {
        assert_eq!(split(&"a".repeat(153 * 255), Encoding::Gsm7, 1, false).len(), 255);
        assert!(split(&"a".repeat(153 * 255 + 1), Encoding::Gsm7, 1, false).is_empty());
    }

    proptest! {
        #[test]
        fn the_parts_together_are_the_text(text in "(?s)[ -~€é\u{c}\r\n]{0,400}|(?s).{0,300}", wide: bool) {
            // A part that begins with a byte order mark is read as one that has it: it does not belong in a text.
            let text = text.replace(['\u{feff}', '\u{fffe}'], "");
            let encoding = Encoding::of(&text);
            let parts = split(&text, encoding, 9, wide);
            let coding = if encoding == Encoding::Gsm7 { 0 } else { 8 };
            let octets = if encoding == Encoding::Gsm7 { 1 } else { 2 };
            let limit = if parts.len() == 1 { encoding.single() } else { encoding.per_part(wide) };
            for part in &parts {
                prop_assert!(part.bytes.len() <= limit * octets);
            }
            // Each part is whole by itself: decoding them one by one gives back the text.
            let together: String = parts.iter().map(|part| decode(coding, &part.bytes)).collect();
            prop_assert_eq!(&together, &text);
            if !wide {
                prop_assert_eq!(usize::from(measure(&text).parts), parts.len());
            }
        }
    }
}
