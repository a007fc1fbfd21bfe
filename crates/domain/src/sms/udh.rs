//! The user data header (3GPP TS 23.040, 9.2.3.24): which part of which text this is, and which national tables it is
//! written by.

use super::{National, Shift};

/// All of a header that concerns the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Absent: the text is one SMS.
    pub part: Option<Udh>,
    pub shift: Shift,
}

const CONCATENATION: u8 = 0x00;
const WIDE_CONCATENATION: u8 = 0x08;
const SINGLE_SHIFT: u8 = 0x24;
const LOCKING_SHIFT: u8 = 0x25;

impl Header {
    /// Empty where there is nothing to say.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = match self.part {
            Some(part) => part.to_bytes(),
            None => vec![0],
        };
        for (element, national) in [(SINGLE_SHIFT, self.shift.single), (LOCKING_SHIFT, self.shift.locking)] {
            if let Some(national) = national {
                bytes.extend([element, 1, national.identifier()]);
            }
        }
        match bytes.len() {
            1 => Vec::new(),
            length => {
                // At most 6 + 2 × 3 octets.
                bytes[0] = (length - 1) as u8;
                bytes
            }
        }
    }

    /// Reads the header that user data begins with, and how many octets it takes; the text begins behind it. Elements of
    /// other kinds are passed over. `None` where the octets do not hold together.
    pub fn parse(bytes: &[u8]) -> Option<(Header, usize)> {
        let length = usize::from(*bytes.first()?);
        let mut elements = bytes.get(1..=length)?;
        let mut header = Header::default();
        while let [kind, size, rest @ ..] = elements {
            let data = rest.get(..usize::from(*size))?;
            let part = match (*kind, data) {
                (CONCATENATION, [reference, total, sequence]) => {
                    Some((u16::from(*reference), false, *total, *sequence))
                }
                (WIDE_CONCATENATION, [high, low, total, sequence]) => {
                    Some((u16::from_be_bytes([*high, *low]), true, *total, *sequence))
                }
                (SINGLE_SHIFT, [identifier]) => {
                    header.shift.single = National::of_identifier(*identifier);
                    None
                }
                (LOCKING_SHIFT, [identifier]) => {
                    header.shift.locking = National::of_identifier(*identifier);
                    None
                }
                _ => None,
            };
            // A part 0, or one beyond the last, is to be ignored as if there were no such element (9.2.3.24.1).
            if let Some((reference, wide, total, sequence)) = part
                && sequence >= 1
                && sequence <= total
            {
                header.part = Some(Udh {
                    reference,
                    wide,
                    total,
                    sequence,
                });
            }
            elements = &rest[usize::from(*size)..];
        }
        Some((header, length + 1))
    }
}

/// Which part of which text this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Udh {
    /// The same on all parts of a text; must differ between texts that are under way to the same phone together.
    pub reference: u16,
    /// A 16-bit reference (element 0x08) instead of an 8-bit one (element 0x00).
    pub wide: bool,
    pub total: u8,
    /// From 1.
    pub sequence: u8,
}

impl Udh {
    pub fn to_bytes(self) -> Vec<u8> {
        let [high, low] = self.reference.to_be_bytes();
        match self.wide {
            false => vec![5, 0x00, 3, low, self.total, self.sequence],
            true => vec![6, 0x08, 4, high, low, self.total, self.sequence],
        }
    }

    /// Reads the header that user data begins with, and how many bytes it takes; the text begins behind it. `None` where
    /// it is no header or tells nothing of parts.
    pub fn parse(bytes: &[u8]) -> Option<(Udh, usize)> {
        let (header, length) = Header::parse(bytes)?;
        header.part.map(|part| (part, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip() {
        for wide in [false, true] {
            let udh = Udh {
                reference: 0xab,
                wide,
                total: 3,
                sequence: 2,
            };
            let mut bytes = udh.to_bytes();
            let length = bytes.len();
            bytes.extend(b"text");
            assert_eq!(Udh::parse(&bytes), Some((udh, length)));
        }
        // A port element before it.
        let (udh, length) = Udh::parse(&[11, 5, 4, 0, 1, 0, 2, 0, 3, 9, 2, 1, b'x']).unwrap();
        assert_eq!((udh.reference, udh.total, udh.sequence, length), (9, 2, 1, 12));
    }

    #[test]
    fn national_tables_are_named() {
        assert!(Header::default().to_bytes().is_empty());
        for (locking, single, octets) in [
            (None, Some(National::Turkish), 4),
            (Some(National::Portuguese), Some(National::Portuguese), 7),
        ] {
            let shift = Shift { locking, single };
            let alone = Header { part: None, shift };
            assert_eq!(alone.to_bytes().len(), octets);
            assert_eq!(Header::parse(&alone.to_bytes()), Some((alone, octets)));
            assert_eq!(Udh::parse(&alone.to_bytes()), None);
            let part = Udh {
                reference: 0x1234,
                wide: true,
                total: 2,
                sequence: 1,
            };
            let header = Header {
                part: Some(part),
                shift,
            };
            assert_eq!(Header::parse(&header.to_bytes()), Some((header, octets + 6)));
        }
        // Hindi, which we do not have: the text is read by the default alphabet.
        assert_eq!(Header::parse(&[3, 0x25, 1, 6]), Some((Header::default(), 4)));
    }

    #[test]
    fn what_is_no_header_is_none() {
        for bytes in [
            &[][..],
            &[5],
            &[5, 0, 3, 1, 2],
            &[5, 0, 3, 1, 2, 3],
            &[5, 0, 3, 1, 2, 0],
            &[5, 0, 200, 1, 2, 1],
            &[0],
            &[255, 0, 3, 1, 2, 1],
        ] {
            assert_eq!(Udh::parse(bytes), None, "{bytes:?}");
        }
    }
}
