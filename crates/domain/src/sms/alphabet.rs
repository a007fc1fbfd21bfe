//! The GSM 7-bit default alphabet and its extension table (3GPP TS 23.038, 6.2.1 and 6.2.1.1).
//!
//! One table, checked against an independent implementation by the oracle test. The crates that have it either hide it,
//! or bring a whole SMPP stack with them, or do not decode.

pub(super) const ESCAPE: u8 = 0x1b;

/// By septet. 0x1B is the escape and stands for no character.
const DEFAULT: [char; 128] = [
    '@', '£', '$', '¥', 'è', 'é', 'ù', 'ì', 'ò', 'Ç', '\n', 'Ø', 'ø', '\r', 'Å', 'å', //
    'Δ', '_', 'Φ', 'Γ', 'Λ', 'Ω', 'Π', 'Ψ', 'Σ', 'Θ', 'Ξ', '\u{1b}', 'Æ', 'æ', 'ß', 'É', //
    ' ', '!', '"', '#', '¤', '%', '&', '\'', '(', ')', '*', '+', ',', '-', '.', '/', //
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ':', ';', '<', '=', '>', '?', //
    '¡', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', //
    'P', 'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', 'Ä', 'Ö', 'Ñ', 'Ü', '§', //
    '¿', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', //
    'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', 'ä', 'ö', 'ñ', 'ü', 'à', //
];

/// Behind the escape.
const EXTENSION: [(u8, char); 10] = [
    (0x0a, '\u{c}'),
    (0x14, '^'),
    (0x28, '{'),
    (0x29, '}'),
    (0x2f, '\\'),
    (0x3c, '['),
    (0x3d, '~'),
    (0x3e, ']'),
    (0x40, '|'),
    (0x65, '€'),
];

/// How a character is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Septets {
    One(u8),
    /// Behind the escape.
    Two(u8),
}

impl Septets {
    pub(super) fn units(self) -> usize {
        match self {
            Septets::One(_) => 1,
            Septets::Two(_) => 2,
        }
    }
}

/// All characters but `€` lie below U+0400.
const REACH: usize = 0x400;
const NONE: u8 = 0xff;
const EXTENDED: u8 = 0x80;

/// By character: the septet, with the top bit set where the escape goes before it.
static BY_CHARACTER: [u8; REACH] = by_character();

const fn by_character() -> [u8; REACH] {
    let mut table = [NONE; REACH];
    let mut septet = 0;
    while septet < DEFAULT.len() {
        if septet != ESCAPE as usize {
            table[DEFAULT[septet] as usize] = septet as u8;
        }
        septet += 1;
    }
    let mut row = 0;
    while row < EXTENSION.len() {
        let (septet, character) = EXTENSION[row];
        if (character as usize) < REACH {
            table[character as usize] = septet | EXTENDED;
        }
        row += 1;
    }
    table
}

pub(super) fn septets(character: char) -> Option<Septets> {
    if character == '€' {
        return Some(Septets::Two(0x65));
    }
    match BY_CHARACTER.get(character as usize) {
        None | Some(&NONE) => None,
        Some(septet) if septet & EXTENDED != 0 => Some(Septets::Two(septet & !EXTENDED)),
        Some(septet) => Some(Septets::One(*septet)),
    }
}

pub(super) fn has(character: char) -> bool {
    septets(character).is_some()
}

/// The character of a septet that no escape precedes; the escape itself is none.
pub(super) fn plain(septet: u8) -> Option<char> {
    DEFAULT.get(usize::from(septet)).copied().filter(|_| septet != ESCAPE)
}

/// The character that the extension table has for a septet.
pub(super) fn extension(septet: u8) -> Option<char> {
    EXTENSION
        .iter()
        .find(|(code, _)| *code == septet)
        .map(|(_, character)| *character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_agree() {
        let mut characters = 0;
        for septet in 0..128 {
            if let Some(character) = plain(septet) {
                assert_eq!(septets(character), Some(Septets::One(septet)));
                characters += 1;
            }
        }
        for (septet, character) in EXTENSION {
            assert_eq!(septets(character), Some(Septets::Two(septet)));
            assert_eq!(extension(septet), Some(character));
            characters += 1;
        }
        assert_eq!(characters, 137);
        assert_eq!(('\0'..=char::MAX).filter(|character| has(*character)).count(), 137);
    }
}
