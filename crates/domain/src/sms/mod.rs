//! How a text is written on the air: its encoding, how many parts it takes, and what is in each.
//!
//! Everything is counted in units: septets for GSM-7 (a character of the extension table takes two), UTF-16 code units
//! for UCS-2. One SMS holds 140 octets, that is 160 septets or 70 units. A longer text goes in parts that each begin with
//! a header (UDH) and hold 153 or 67, with a 16-bit reference 152 or 66 (3GPP TS 23.040, 9.2.3.24.1 and 9.2.3.24.8).

mod alphabet;
mod decode;
mod national;
mod reassemble;
mod smart;
mod split;
#[cfg(test)]
mod standard;
mod udh;

use std::{fmt, str::FromStr};

pub use decode::decode;
pub use national::{National, Shift};
pub use reassemble::{Fragment, Incomplete, join};
pub use smart::smart;
pub use split::{Part, split, split_national};
pub use udh::{Header, Udh};

use crate::message::UnknownWord;

/// How the characters are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// The GSM 7-bit default alphabet with its extension table (3GPP TS 23.038, 6.2.1).
    Gsm7,
    /// UTF-16BE in fact: a character outside the basic plane takes two units.
    Ucs2,
}

/// What a text costs in SMS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    pub encoding: Encoding,
    pub units: usize,
    pub parts: u16,
    /// What one part holds: 160 or 70 where one is enough, 153 or 67 otherwise.
    pub per_part: usize,
    /// Units left in the last part.
    pub remaining: usize,
    /// The characters that GSM-7 does not have, each once, in the order of the text.
    pub non_gsm: Vec<char>,
}

impl Encoding {
    pub fn as_str(self) -> &'static str {
        match self {
            Encoding::Gsm7 => "GSM-7",
            Encoding::Ucs2 => "UCS-2",
        }
    }

    /// What a text without a header may hold.
    pub fn single(self) -> usize {
        match self {
            Encoding::Gsm7 => 160,
            Encoding::Ucs2 => 70,
        }
    }

    /// What each part of a longer text holds; `wide` is a 16-bit reference.
    pub fn per_part(self, wide: bool) -> usize {
        match (self, wide) {
            (Encoding::Gsm7, false) => 153,
            (Encoding::Gsm7, true) => 152,
            (Encoding::Ucs2, false) => 67,
            (Encoding::Ucs2, true) => 66,
        }
    }

    /// The same beside a header that names national tables, which takes octets of the text's.
    fn single_by(self, shift: Shift) -> usize {
        match (self, header_octets(shift)) {
            (Encoding::Ucs2, _) | (_, 0) => self.single(),
            // The header's own length takes one octet.
            (Encoding::Gsm7, octets) => (140 - 1 - octets) * 8 / 7,
        }
    }

    fn per_part_by(self, shift: Shift, wide: bool) -> usize {
        let parts = if wide { 6 } else { 5 };
        match (self, header_octets(shift)) {
            (Encoding::Ucs2, _) | (_, 0) => self.per_part(wide),
            (Encoding::Gsm7, octets) => (140 - 1 - parts - octets) * 8 / 7,
        }
    }

    /// The narrowest encoding that has every character of `text`.
    pub fn of(text: &str) -> Encoding {
        match text.chars().all(alphabet::has) {
            true => Encoding::Gsm7,
            false => Encoding::Ucs2,
        }
    }
}

/// What naming the tables takes in a header.
fn header_octets(shift: Shift) -> usize {
    3 * (usize::from(shift.locking.is_some()) + usize::from(shift.single.is_some()))
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Encoding {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "GSM-7" => Ok(Encoding::Gsm7),
            "UCS-2" => Ok(Encoding::Ucs2),
            _ => Err(UnknownWord {
                kind: "encoding",
                word: word.chars().take(40).collect(),
                expected: "GSM-7, UCS-2".into(),
            }),
        }
    }
}

/// Measures a text as it would be sent with 8-bit references. An empty text is one part: an empty SMS is an SMS.
pub fn measure(text: &str) -> Measure {
    if let Some(units) = one_gsm7(text) {
        return Measure {
            encoding: Encoding::Gsm7,
            units,
            parts: 1,
            per_part: Encoding::Gsm7.single(),
            remaining: Encoding::Gsm7.single() - units,
            non_gsm: Vec::new(),
        };
    }
    measure_by(text, Encoding::of(text), Shift::default())
}

/// The septets of a text that is one SMS of GSM-7, which most are: in one pass.
fn one_gsm7(text: &str) -> Option<usize> {
    // No character is written in less than a septet, nor in less than a third of its bytes.
    if text.len() > 3 * Encoding::Gsm7.single() {
        return None;
    }
    let mut units = 0;
    for character in text.chars() {
        units += alphabet::septets(character)?.units();
    }
    (units <= Encoding::Gsm7.single()).then_some(units)
}

/// Measures a text as it would be sent where the tables of `national` may be used, and says which are: the fewest parts,
/// then the fewest octets of header. Where the tables do not have every character it is UCS-2 as without them.
pub fn measure_in(text: &str, national: National) -> (Measure, Shift) {
    let mut best = (measure(text), Shift::default());
    for shift in Shift::all_of(national) {
        if text.chars().any(|character| shift.septets(character).is_none()) {
            continue;
        }
        let measured = measure_by(text, Encoding::Gsm7, shift);
        // A text that fits is not made longer by tables that it does not need.
        if measured.parts < best.0.parts || (measured.parts == best.0.parts && best.0.encoding == Encoding::Ucs2) {
            best = (measured, shift);
        }
    }
    best
}

fn measure_by(text: &str, encoding: Encoding, shift: Shift) -> Measure {
    let layout = split::layout(text, encoding, shift, false);
    let mut non_gsm = Vec::new();
    if encoding == Encoding::Ucs2 {
        for character in text.chars().filter(|character| !alphabet::has(*character)) {
            if !non_gsm.contains(&character) {
                non_gsm.push(character);
            }
        }
    }
    let per_part = match layout.len() {
        1 => encoding.single_by(shift),
        _ => encoding.per_part_by(shift, false),
    };
    Measure {
        encoding,
        units: layout.iter().map(|part| part.units).sum(),
        parts: u16::try_from(layout.len()).unwrap_or(u16::MAX),
        per_part,
        remaining: per_part.saturating_sub(layout.last().map_or(0, |part| part.units)),
        non_gsm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (&'static str, usize, u16, usize) {
        let measured = measure(text);
        (
            measured.encoding.as_str(),
            measured.units,
            measured.parts,
            measured.remaining,
        )
    }

    #[test]
    fn gsm7_boundaries() {
        assert_eq!(parts(""), ("GSM-7", 0, 1, 160));
        assert_eq!(parts(&"a".repeat(159)), ("GSM-7", 159, 1, 1));
        assert_eq!(parts(&"a".repeat(160)), ("GSM-7", 160, 1, 0));
        assert_eq!(parts(&"a".repeat(161)), ("GSM-7", 161, 2, 145));
        assert_eq!(parts(&"a".repeat(305)), ("GSM-7", 305, 2, 1));
        assert_eq!(parts(&"a".repeat(306)), ("GSM-7", 306, 2, 0));
        assert_eq!(parts(&"a".repeat(307)), ("GSM-7", 307, 3, 152));
        // An extension pair that would lie across the border moves over as a whole and leaves a septet unused.
        assert_eq!(parts(&"€".repeat(80)), ("GSM-7", 160, 1, 0));
        assert_eq!(parts(&"€".repeat(81)), ("GSM-7", 162, 2, 153 - 10));
        assert_eq!(
            parts(&format!("{}{{{}", "a".repeat(152), "b".repeat(153))),
            ("GSM-7", 307, 3, 151)
        );
    }

    #[test]
    fn ucs2_boundaries() {
        assert_eq!(parts(&"ж".repeat(69)), ("UCS-2", 69, 1, 1));
        assert_eq!(parts(&"ж".repeat(70)), ("UCS-2", 70, 1, 0));
        assert_eq!(parts(&"ж".repeat(71)), ("UCS-2", 71, 2, 63));
        assert_eq!(parts(&"ж".repeat(133)), ("UCS-2", 133, 2, 1));
        assert_eq!(parts(&"ж".repeat(134)), ("UCS-2", 134, 2, 0));
        assert_eq!(parts(&"ж".repeat(135)), ("UCS-2", 135, 3, 66));
        // 33 emoji and half of one would fit: 33 go, in 66 units.
        assert_eq!(parts(&"😀".repeat(36)), ("UCS-2", 72, 2, 67 - 6));
        // A family joined of four people is eleven units and stays together.
        let family = "👨‍👩‍👧‍👦";
        assert_eq!(parts(&family.repeat(7)), ("UCS-2", 77, 2, 67 - 11));
    }

    #[test]
    fn national_tables_take_room_and_save_more() {
        let measured = |text: &str, national| {
            let (measured, shift) = measure_in(text, national);
            let tables = (shift.locking.is_some(), shift.single.is_some());
            (measured.encoding.as_str(), measured.parts, measured.per_part, tables)
        };
        // 155 septets beside the single table, 152 beside both, 149 and 146 in a part (23.040, 9.2.3.24).
        let turkish = |length| format!("ş{}", "a".repeat(length));
        assert_eq!(
            measured(&turkish(153), National::Turkish),
            ("GSM-7", 1, 155, (false, true))
        );
        // One escape more is one part more; the locking table has the letter in one septet.
        assert_eq!(
            measured(&turkish(154), National::Turkish),
            ("GSM-7", 1, 155, (true, false))
        );
        assert_eq!(
            measured(&turkish(155), National::Turkish),
            ("GSM-7", 2, 149, (false, true))
        );
        let both = format!("ñΩã{}", "a".repeat(140));
        assert_eq!(measured(&both, National::Portuguese).3, (false, true));
        let both = format!("Ω{}", "ê".repeat(148));
        assert_eq!(measured(&both, National::Portuguese), ("GSM-7", 1, 152, (true, true)));
        // What needs no table gets none, and what no table has is UCS-2.
        assert_eq!(measured("señor", National::Spanish), ("GSM-7", 1, 160, (false, false)));
        assert_eq!(measured("ş 😀", National::Turkish), ("UCS-2", 1, 70, (false, false)));
    }

    #[test]
    fn what_gsm7_lacks_is_named_once() {
        assert_eq!(measure("Réduction à l’été").non_gsm, ['’']);
        assert_eq!(measure("ça ê ê ça 😀").non_gsm, ['ç', 'ê', '😀']);
        assert_eq!(measure("O'Brien & Söhne: 5 < 6 \"{}\" €").encoding, Encoding::Gsm7);
        assert_eq!("UCS-2".parse(), Ok(Encoding::Ucs2));
        assert!("UTF-8".parse::<Encoding>().is_err());
    }
}
