//! Putting a text together that came in parts: replies of more than one SMS.
//!
//! Each part is read into a [`Fragment`]; its key says with which others it belongs together, beside the phone that sent
//! it and the number that it was sent to. [`join`] takes the fragments of one key in any order and with repetitions. The
//! octets are joined before they are read: senders are known to cut through an escape pair and through a surrogate pair.

use super::{Header, Shift, Udh, decode::decode_shifted};

/// The user data of one SMS.
#[derive(Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Absent: it is a whole text.
    pub part: Option<Udh>,
    pub shift: Shift,
    /// SMPP's; the parts of one text share it.
    pub data_coding: u8,
    /// Without the header.
    pub octets: Vec<u8>,
}

impl std::fmt::Debug for Fragment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fragment")
            .field("part", &self.part)
            .field("octets", &self.octets.len())
            .finish_non_exhaustive()
    }
}

/// Why there is no text yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incomplete {
    #[error("there is no part")]
    Empty,
    #[error("parts {missing:?} of {total} have not come")]
    Missing { total: u8, missing: Vec<u8> },
    #[error("the parts are not of one text: their references or totals differ")]
    Mixed,
}

impl Fragment {
    /// Reads user data. `has_header` is the UDH indicator (0x40 in SMPP's `esm_class`); what then is no header is taken
    /// for text.
    pub fn read(data_coding: u8, has_header: bool, user_data: &[u8]) -> Fragment {
        let (header, length) = match has_header {
            true => Header::parse(user_data).unwrap_or_default(),
            false => (Header::default(), 0),
        };
        Fragment {
            part: header.part,
            shift: header.shift,
            data_coding,
            octets: user_data.get(length..).unwrap_or_default().to_vec(),
        }
    }

    /// A part that is numbered by SMPP's `sar_…` TLVs instead of a header.
    pub fn with_sar(mut self, reference: u16, total: u8, sequence: u8) -> Fragment {
        if sequence >= 1 && sequence <= total {
            self.part = Some(Udh {
                reference,
                wide: true,
                total,
                sequence,
            });
        }
        self
    }

    /// The text by itself.
    pub fn text(&self) -> String {
        decode_shifted(self.data_coding, &self.octets, self.shift)
    }

    /// (reference, wide, total): equal on the parts of one text. A total of 1 is a whole text.
    pub fn key(&self) -> Option<(u16, bool, u8)> {
        self.part
            .filter(|part| part.total > 1)
            .map(|part| (part.reference, part.wide, part.total))
    }
}

/// The text of fragments of one key, in whatever order they came; of one that came twice the first counts.
pub fn join(fragments: &[Fragment]) -> Result<String, Incomplete> {
    let first = fragments.first().ok_or(Incomplete::Empty)?;
    let Some((_, _, total)) = first.key() else {
        return match fragments {
            [whole] => Ok(whole.text()),
            _ => Err(Incomplete::Mixed),
        };
    };
    if fragments.iter().any(|fragment| fragment.key() != first.key()) {
        return Err(Incomplete::Mixed);
    }
    let at = |sequence: u8| {
        let is = |fragment: &&Fragment| fragment.part.is_some_and(|part| part.sequence == sequence);
        fragments.iter().find(is)
    };
    let missing: Vec<u8> = (1..=total).filter(|sequence| at(*sequence).is_none()).collect();
    if !missing.is_empty() {
        return Err(Incomplete::Missing { total, missing });
    }
    let parts: Vec<&Fragment> = (1..=total).filter_map(at).collect();
    // Parts in unlike codings or tables are read each by itself.
    let alike = |part: &&Fragment| part.data_coding == first.data_coding && part.shift == first.shift;
    if parts.iter().all(alike) {
        let octets: Vec<u8> = parts.iter().flat_map(|part| part.octets.iter().copied()).collect();
        return Ok(decode_shifted(first.data_coding, &octets, first.shift));
    }
    Ok(parts.iter().map(|part| part.text()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sms::{Encoding, National, measure_in, split, split_national};
    use proptest::prelude::*;

    fn read(parts: &[crate::sms::Part], data_coding: u8) -> Vec<Fragment> {
        parts
            .iter()
            .map(|part| {
                let mut user_data = part.header();
                let has_header = !user_data.is_empty();
                user_data.extend(&part.bytes);
                Fragment::read(data_coding, has_header, &user_data)
            })
            .collect()
    }

    #[test]
    fn pairs_that_a_sender_cut_are_whole_again() {
        let fragment = |sequence: u8, data_coding, octets: &[u8]| {
            let mut user_data = vec![5, 0, 3, 9, 2, sequence];
            user_data.extend(octets);
            Fragment::read(data_coding, true, &user_data)
        };
        let escape = [fragment(2, 0, &[0x65, b'!']), fragment(1, 0, &[b'1', 0x1b])];
        assert_eq!(join(&escape).unwrap(), "1€!");
        let surrogates = [fragment(1, 8, &[0xd8, 0x3d]), fragment(2, 8, &[0xde, 0x00])];
        assert_eq!(join(&surrogates).unwrap(), "😀");
        assert_eq!(
            join(&[fragment(1, 0, b"STOP"), fragment(2, 8, &[0x04, 0x36])]).unwrap(),
            "STOPж"
        );
    }

    #[test]
    fn what_is_not_whole_says_what_lacks() {
        let parts = read(&split(&"a".repeat(400), Encoding::Gsm7, 7, false), 0);
        assert_eq!(join(&[]), Err(Incomplete::Empty));
        assert_eq!(
            join(&parts[1..2]),
            Err(Incomplete::Missing {
                total: 3,
                missing: vec![1, 3]
            })
        );
        let other = read(&split(&"b".repeat(400), Encoding::Gsm7, 8, false), 0);
        assert_eq!(join(&[parts[0].clone(), other[1].clone()]), Err(Incomplete::Mixed));
        let whole = Fragment::read(0, false, b"STOP");
        assert_eq!(
            (join(std::slice::from_ref(&whole)).as_deref(), whole.key()),
            (Ok("STOP"), None)
        );
        assert_eq!(join(&[whole.clone(), whole.clone()]), Err(Incomplete::Mixed));
        assert_eq!(whole.with_sar(5, 2, 1).key(), Some((5, true, 2)));
        // An indicator without a header: it is all text.
        assert_eq!(Fragment::read(0, true, b"STOP").text(), "STOP");
    }

    proptest! {
        #[test]
        fn what_is_split_is_joined(
            text in "(?s)[ -~€é\u{c}\r\n]{0,700}|(?s).{0,400}",
            wide: bool,
            order in any::<prop::sample::Index>(),
        ) {
            let text = text.replace(['\u{feff}', '\u{fffe}'], "");
            let encoding = Encoding::of(&text);
            let mut parts = read(&split(&text, encoding, 9, wide), if encoding == Encoding::Gsm7 { 0 } else { 8 });
            let turns = order.index(parts.len());
            parts.rotate_left(turns);
            parts.push(parts[0].clone());
            if parts.len() == 2 {
                parts.pop();
            }
            prop_assert_eq!(join(&parts), Ok(text));
        }

        #[test]
        fn national_tables_lose_nothing(
            text in "[ -_a-z€çÇğĞıİşŞñÑáéíóúÁÉÍÓÚãõâêôÃÕÂÊÔàÀüÜªº]{0,500}",
            national in prop::sample::select(National::ALL.to_vec()),
            wide: bool,
        ) {
            let (measured, shift) = measure_in(&text, national);
            let (parts, coding) = match measured.encoding {
                Encoding::Gsm7 => (split_national(&text, shift, 0x1ff, wide), 0),
                Encoding::Ucs2 => (split(&text, Encoding::Ucs2, 0x1ff, wide), 8),
            };
            if !wide {
                prop_assert_eq!(parts.len(), usize::from(measured.parts));
            }
            for part in &parts {
                let bits = match measured.encoding {
                    Encoding::Gsm7 => (part.header().len() * 8).div_ceil(7) * 7 + part.bytes.len() * 7,
                    Encoding::Ucs2 => (part.header().len() + part.bytes.len()) * 8,
                };
                prop_assert!(bits <= 140 * 8, "{bits}");
            }
            prop_assert_eq!(join(&read(&parts, coding)), Ok(text));
        }
    }
}
