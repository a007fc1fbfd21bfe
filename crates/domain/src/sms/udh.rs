//! The user data header of a concatenated SMS (3GPP TS 23.040, 9.2.3.24).

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
    /// it is no header or tells nothing of parts. Elements of other kinds are passed over.
    pub fn parse(bytes: &[u8]) -> Option<(Udh, usize)> {
        let length = usize::from(*bytes.first()?);
        let mut elements = bytes.get(1..=length)?;
        let mut found = None;
        while let [kind, size, rest @ ..] = elements {
            let data = rest.get(..usize::from(*size))?;
            match (kind, data) {
                (0x00, [reference, total, sequence]) => {
                    found = Some((u16::from(*reference), false, *total, *sequence));
                }
                (0x08, [high, low, total, sequence]) => {
                    found = Some((u16::from_be_bytes([*high, *low]), true, *total, *sequence));
                }
                _ => {}
            }
            elements = &rest[usize::from(*size)..];
        }
        let (reference, wide, total, sequence) = found?;
        // A part 0, or one beyond the last, is to be ignored as if there were no such element (9.2.3.24.1).
        (sequence >= 1 && sequence <= total).then_some((
            Udh {
                reference,
                wide,
                total,
                sequence,
            },
            length + 1,
        ))
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
