//! National language tables (3GPP TS 23.038, 6.2.1.2 and annex A): the letters that GSM-7 lacks for Turkish, Spanish and
//! Portuguese, without turning to UCS-2.
//!
//! A *single* shift table takes the place of the extension table, a *locking* one that of the default alphabet. Which are
//! in use is said in each part's header (23.040, 9.2.3.24.15 and 9.2.3.24.16), at three octets a table. A table is written
//! here as where it differs from the one whose place it takes. Not every handset reads them: they are used where somebody
//! asks for a language, and are always read.

use super::alphabet::{self, ESCAPE, Septets};

/// A language with tables of its own; its number is the identifier of 23.038, 6.2.1.2.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum National {
    Turkish = 1,
    Spanish = 2,
    Portuguese = 3,
}

/// Which tables a text is written by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shift {
    /// In the place of the default alphabet; Spanish has none.
    pub locking: Option<National>,
    /// In the place of the extension table.
    pub single: Option<National>,
}

/// (septet, character)
type Differences = &'static [(u8, char)];

impl National {
    pub const ALL: [National; 3] = [National::Turkish, National::Spanish, National::Portuguese];

    /// The language of a BCP 47 tag: `tr`, `es-ES`, `pt-BR`.
    pub fn of_tag(tag: &str) -> Option<National> {
        let language = tag.split(['-', '_']).next().unwrap_or(tag);
        National::ALL
            .into_iter()
            .find(|national| national.tag().eq_ignore_ascii_case(language))
    }

    pub fn tag(self) -> &'static str {
        match self {
            National::Turkish => "tr",
            National::Spanish => "es",
            National::Portuguese => "pt",
        }
    }

    pub fn identifier(self) -> u8 {
        self as u8
    }

    pub fn of_identifier(identifier: u8) -> Option<National> {
        National::ALL
            .into_iter()
            .find(|national| national.identifier() == identifier)
    }

    /// A.3: what differs from the default alphabet.
    fn locking(self) -> Option<Differences> {
        match self {
            National::Turkish => Some(&[
                (0x04, '€'),
                (0x07, 'ı'),
                (0x0b, 'Ğ'),
                (0x0c, 'ğ'),
                (0x1c, 'Ş'),
                (0x1d, 'ş'),
                (0x40, 'İ'),
                (0x60, 'ç'),
            ]),
            National::Spanish => None,
            National::Portuguese => Some(&[
                (0x04, 'ê'),
                (0x06, 'ú'),
                (0x07, 'í'),
                (0x08, 'ó'),
                (0x09, 'ç'),
                (0x0b, 'Ô'),
                (0x0c, 'ô'),
                (0x0e, 'Á'),
                (0x0f, 'á'),
                (0x12, 'ª'),
                (0x13, 'Ç'),
                (0x14, 'À'),
                (0x15, '∞'),
                (0x16, '^'),
                (0x17, '\\'),
                (0x18, '€'),
                (0x19, 'Ó'),
                (0x1a, '|'),
                (0x1c, 'Â'),
                (0x1d, 'â'),
                (0x1e, 'Ê'),
                (0x24, 'º'),
                (0x40, 'Í'),
                (0x5b, 'Ã'),
                (0x5c, 'Õ'),
                (0x5d, 'Ú'),
                (0x60, '~'),
                (0x7b, 'ã'),
                (0x7c, 'õ'),
                (0x7d, '`'),
            ]),
        }
    }

    /// A.2: what is behind the escape beside what the default extension table has.
    fn single(self) -> Differences {
        match self {
            National::Turkish => &[
                (0x47, 'Ğ'),
                (0x49, 'İ'),
                (0x53, 'Ş'),
                (0x63, 'ç'),
                (0x67, 'ğ'),
                (0x69, 'ı'),
                (0x73, 'ş'),
            ],
            National::Spanish => &[
                (0x09, 'ç'),
                (0x41, 'Á'),
                (0x49, 'Í'),
                (0x4f, 'Ó'),
                (0x55, 'Ú'),
                (0x61, 'á'),
                (0x69, 'í'),
                (0x6f, 'ó'),
                (0x75, 'ú'),
            ],
            National::Portuguese => &[
                (0x05, 'ê'),
                (0x09, 'ç'),
                (0x0b, 'Ô'),
                (0x0c, 'ô'),
                (0x0e, 'Á'),
                (0x0f, 'á'),
                (0x12, 'Φ'),
                (0x13, 'Γ'),
                (0x15, 'Ω'),
                (0x16, 'Π'),
                (0x17, 'Ψ'),
                (0x18, 'Σ'),
                (0x19, 'Θ'),
                (0x1f, 'Ê'),
                (0x41, 'À'),
                (0x49, 'Í'),
                (0x4f, 'Ó'),
                (0x55, 'Ú'),
                (0x5b, 'Ã'),
                (0x5c, 'Õ'),
                (0x61, 'Â'),
                (0x69, 'í'),
                (0x6f, 'ó'),
                (0x75, 'ú'),
                (0x7b, 'ã'),
                (0x7c, 'õ'),
                (0x7f, 'â'),
            ],
        }
    }
}

impl Shift {
    /// The combinations in which a text of a language can be written, the cheapest header first.
    pub fn all_of(national: National) -> impl Iterator<Item = Shift> {
        let locking = national.locking().map(|_| national);
        let own = Some(national);
        [(None, None), (None, own), (locking, None), (locking, own)]
            .into_iter()
            .enumerate()
            .filter(move |(index, _)| locking.is_some() || *index < 2)
            .map(|(_, (locking, single))| Shift { locking, single })
    }

    /// How a character is written; `None` where these tables do not have it.
    pub(super) fn septets(self, character: char) -> Option<Septets> {
        if self == Shift::default() {
            return alphabet::septets(character);
        }
        let find = |differences: Differences| {
            let found = differences.iter().find(|(_, own)| *own == character);
            found.map(|(septet, _)| *septet)
        };
        let locking = self.locking.and_then(National::locking);
        if let Some(septet) = locking.and_then(find) {
            return Some(Septets::One(septet));
        }
        match alphabet::septets(character) {
            // Another character may stand in its place.
            Some(Septets::One(septet)) if locking.is_none_or(|list| list.iter().all(|(own, _)| *own != septet)) => {
                return Some(Septets::One(septet));
            }
            Some(Septets::Two(septet)) => return Some(Septets::Two(septet)),
            _ => {}
        }
        self.single.map(National::single).and_then(find).map(Septets::Two)
    }

    /// The character of a septet that no escape precedes; the escape itself is none.
    pub(super) fn plain(self, septet: u8) -> Option<char> {
        let own = self.locking.and_then(National::locking).unwrap_or_default();
        match own.iter().find(|(code, _)| *code == septet) {
            Some((_, character)) if septet != ESCAPE => Some(*character),
            _ => alphabet::plain(septet),
        }
    }

    /// The character of a septet behind the escape.
    pub(super) fn escaped(self, septet: u8) -> Option<char> {
        let own = self.single.map(National::single).unwrap_or_default();
        match own.iter().find(|(code, _)| *code == septet) {
            Some((_, character)) => Some(*character),
            // What the table does not have is shown as in the main one (23.038, 6.2.1.1, note 1).
            None => alphabet::extension(septet).or_else(|| self.plain(septet)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_agree() {
        for national in National::ALL {
            assert_eq!(National::of_identifier(national.identifier()), Some(national));
            assert_eq!(National::of_tag(&format!("{}-XX", national.tag())), Some(national));
            for shift in Shift::all_of(national) {
                let mut characters = std::collections::BTreeSet::new();
                for septet in (0..128).filter(|septet| *septet != ESCAPE) {
                    let plain = shift.plain(septet).unwrap();
                    assert_eq!(shift.septets(plain), Some(Septets::One(septet)), "{shift:?} {plain}");
                    assert!(characters.insert(plain), "{shift:?} has {plain} twice");
                    let behind = shift.escaped(septet).unwrap();
                    // Either the escape gives a character of its own, or the septet's.
                    match shift.septets(behind) {
                        Some(Septets::Two(own)) => assert_eq!(own, septet, "{shift:?} {behind}"),
                        one => assert!(one.is_some(), "{shift:?} {behind}"),
                    }
                }
                assert_eq!(shift.plain(ESCAPE), None);
            }
        }
        assert_eq!(National::of_tag("fr"), None);
        assert_eq!(Shift::all_of(National::Spanish).count(), 2);
        assert_eq!(Shift::all_of(National::Portuguese).count(), 4);
    }

    #[test]
    fn a_language_has_its_letters() {
        let has = |national: National, text: &str| {
            Shift::all_of(national)
                .all(|shift| shift == Shift::default() || text.chars().all(|letter| shift.septets(letter).is_some()))
        };
        assert!(has(National::Turkish, "Çığ öğle İŞ ışık ç ş"));
        assert!(has(
            National::Spanish,
            "¿Ópera? Sí, Ángel: camión, açúcar… ".trim_end_matches([' ', '…'])
        ));
        assert!(has(
            National::Portuguese,
            "São João: ação, você, avô, É Ê Í Ó Ú Â Ã Õ Ô"
        ));
        // The locking table took the place of `ñ`, and no table gives it back.
        let both = Shift {
            locking: Some(National::Portuguese),
            single: Some(National::Portuguese),
        };
        assert_eq!(both.septets('ñ'), None);
        assert_eq!(both.septets('Ω'), Some(Septets::Two(0x15)));
    }
}
