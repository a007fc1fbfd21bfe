//! What a reply means, where it is one word that we know.
//!
//! The whole text is the keyword: without case, accents, punctuation and spaces. A sentence that only contains one is not
//! a keyword; where it looks as if somebody wants no more messages, a person is to decide.

use unicode_normalization::UnicodeNormalization as _;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyword {
    /// No marketing any more.
    Stop,
    /// Marketing again.
    Start,
    Help,
    Contact,
}

impl Keyword {
    pub fn as_str(self) -> &'static str {
        match self {
            Keyword::Stop => "stop",
            Keyword::Start => "start",
            Keyword::Help => "help",
            Keyword::Contact => "contact",
        }
    }
}

const WORDS: [(Keyword, &[&str]); 4] = [
    (
        Keyword::Stop,
        &[
            "STOP",
            "STOPALL",
            "STOPSMS",
            "ARRET",
            "ARRETE",
            "ARRETER",
            "ARRETEZ",
            "DESABO",
            "DESABONNER",
            "DESABONNEMENT",
            "DESINSCRIRE",
            "DESINSCRIPTION",
            // 47 CFR 64.1200 (a)(10)
            "QUIT",
            "END",
            "REVOKE",
            "OPTOUT",
            "CANCEL",
            "UNSUBSCRIBE",
        ],
    ),
    (Keyword::Start, &["START", "UNSTOP", "REPRISE", "REABO", "SUBSCRIBE"]),
    (Keyword::Help, &["HELP", "AIDE", "INFO"]),
    (Keyword::Contact, &["CONTACT"]),
];

/// Beginnings of words that make a sentence worth a person's look.
const HINTS: [&str; 7] = ["STOP", "ARRET", "DESABO", "DESINSC", "UNSUBSC", "OPTOUT", "SPAM"];

/// A text as keywords are compared: upper case, without accents, punctuation and spaces.
pub fn word(text: &str) -> String {
    plain(text)
        .filter(|character| character.is_alphanumeric())
        .take(40)
        .collect()
}

/// The keyword that a text is, by the words that are built in.
pub fn keyword(text: &str) -> Option<Keyword> {
    let word = word(text);
    WORDS
        .iter()
        .find(|(_, words)| words.contains(&word.as_str()))
        .map(|(keyword, _)| *keyword)
}

/// Whether a text that is no keyword sounds as if somebody wants to be left alone.
pub fn needs_review(text: &str) -> bool {
    let plain: String = plain(text).collect();
    keyword(text).is_none()
        && plain
            .split(|character: char| !character.is_alphanumeric())
            .any(|word| HINTS.iter().any(|hint| word.starts_with(hint)))
}

/// Upper case without accents.
fn plain(text: &str) -> impl Iterator<Item = char> {
    text.nfd()
        .filter(|character| !unicode_normalization::char::is_combining_mark(*character))
        .flat_map(char::to_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_is_the_keyword() {
        for text in [
            "STOP",
            " stop ",
            "Stop!",
            "Arrêt",
            "ARRÊTER.",
            "désabo",
            "opt-out",
            "OPT OUT",
            "« stop »",
        ] {
            assert_eq!(keyword(text), Some(Keyword::Stop), "{text}");
        }
        assert_eq!(keyword("start"), Some(Keyword::Start));
        assert_eq!(keyword("Aide ?"), Some(Keyword::Help));
        assert_eq!(keyword("contact"), Some(Keyword::Contact));
        for text in ["", "!!!", "don't stop", "stop it please", "le bus s'arrête où ?", "👍"] {
            assert_eq!(keyword(text), None, "{text}");
        }
    }

    #[test]
    fn a_wish_in_other_words_is_for_a_person() {
        assert!(needs_review("arrêtez svp"));
        assert!(needs_review("please STOP texting me"));
        assert!(!needs_review("merci beaucoup"));
        assert!(!needs_review("STOP"), "that is clear");
        assert!(!needs_review("top !"));
    }
}
