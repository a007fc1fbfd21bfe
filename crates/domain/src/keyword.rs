//! What a reply means, where it is one word that we know.
//!
//! The whole text is the keyword: without case, accents, punctuation and spaces. A sentence that only contains one is not
//! a keyword; where it looks as if somebody wants no more messages, a person is to decide: by a word or a phrase in it, or
//! because it is a keyword mistyped ([`needs_review`]).

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
const HINTS: [&str; 8] = [
    "STOP", "ARRET", "DESABO", "DESINSC", "UNSUBSC", "OPTOUT", "SPAM", "HARCEL",
];

/// Words in a row that do; of the last one its beginning is enough. An apostrophe parts words.
const PHRASES: [&str; 61] = [
    // Nothing any more.
    "PLUS DE PUB",
    "PLUS DE MESSAGE",
    "PLUS DE SMS",
    "PLUS DE TEXTO",
    "PLUS DE PROMO",
    "PLUS RIEN RECEVOIR",
    "NE PLUS RECEVOIR",
    "NE VEUX PLUS",
    "VEUX PLUS RECEVOIR",
    "NE SOUHAITE PLUS",
    "SOUHAITE PLUS RECEVOIR",
    "NE DESIRE PLUS",
    "NE PLUS ETRE CONTACT",
    "NE PLUS M",
    "NE PLUS ME",
    "M ECRIVEZ PLUS",
    "M ECRIS PLUS",
    "M ENVOYEZ PLUS",
    "M ENVOIE PLUS",
    "ME CONTACTEZ PLUS",
    "ME DERANGEZ PLUS",
    "CESSEZ",
    "CA SUFFIT",
    "J EN AI ASSEZ",
    "PAS INTERESS",
    "PLUS INTERESS",
    // Off the list.
    "RETIREZ MOI",
    "RETIRER MOI",
    "RETIREZ MON NUMERO",
    "RETIRER MON NUMERO",
    "ENLEVEZ MOI",
    "ENLEVEZ MON NUMERO",
    "SUPPRIMEZ MOI",
    "SUPPRIMEZ MON NUMERO",
    "SUPPRIMER MON NUMERO",
    "EFFACEZ MON NUMERO",
    "MAUVAIS NUMERO",
    "FAUX NUMERO",
    // In peace.
    "LAISSEZ MOI TRANQUILLE",
    "LAISSEZ MOI EN PAIX",
    "FOUTEZ MOI LA PAIX",
    "FICHEZ MOI LA PAIX",
    // The same in English.
    "NO MORE",
    "NOT INTERESTED",
    "LEAVE ME ALONE",
    "GO AWAY",
    "REMOVE ME",
    "REMOVE MY NUMBER",
    "DELETE MY NUMBER",
    "LOSE MY NUMBER",
    "WRONG NUMBER",
    "TAKE ME OFF",
    "OPT OUT",
    "OPT ME OUT",
    "DO NOT TEXT",
    "DO NOT CONTACT",
    "DO NOT MESSAGE",
    "DO NOT SEND",
    "T TEXT ME",
    "T CONTACT ME",
    "T SEND ME",
];

/// Words that are one letter off a keyword and mean themselves.
const ORDINARY: [&str; 8] = ["TOP", "SHOP", "STEP", "STAR", "STARS", "STAT", "SMART", "REPRIS"];

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

/// Whether a text that is no keyword sounds as if somebody wants to be left alone, or may have been meant for STOP or START.
pub fn needs_review(text: &str) -> bool {
    if keyword(text).is_some() {
        return false;
    }
    let plain: String = plain(text).collect();
    let words: Vec<&str> = plain
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    if let [word] = words[..]
        && is_mistyped(word)
    {
        return true;
    }
    let hinted = words.iter().any(|word| HINTS.iter().any(|hint| word.starts_with(hint)));
    let spaced = format!(" {}", words.join(" "));
    hinted || PHRASES.iter().any(|phrase| contains_words(&spaced, phrase))
}

/// Whether these words begin at a word of `text`, each of which has a space before it.
fn contains_words(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| text[..at].ends_with(' '))
}

/// Whether a word is one letter off a keyword of STOP or START: one too many, one missing, another one, or two swapped.
fn is_mistyped(word: &str) -> bool {
    // One letter off a short word there are many that mean something else (quit: huit, nuit, qui); STOP is worth it.
    let is_telling = |known: &str| known.len() >= 5 || known == "STOP";
    !ORDINARY.contains(&word)
        && WORDS
            .iter()
            .filter(|(keyword, _)| matches!(keyword, Keyword::Stop | Keyword::Start))
            .flat_map(|(_, words)| words.iter())
            .filter(|known| is_telling(known) && known.len().abs_diff(word.len()) <= 1)
            .any(|known| strsim::osa_distance(known, word) == 1)
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

    #[test]
    fn phrases_and_mistyped_keywords_are_for_a_person() {
        for text in [
            "Plus de pub !",
            "svp plus de publicités",
            "ne m'écrivez plus",
            "Ne m’écrivez plus",
            "merci de ne plus recevoir vos sms",
            "je ne veux plus de vos messages",
            "Retirez-moi de votre liste",
            "laissez moi tranquille",
            "pas intéressée",
            "LEAVE ME ALONE",
            "no more.",
            "please remove me",
            "don't text me",
            "unsubscribe me",
            "Opt out please",
            "C'est du spam",
            "c'est un faux numéro",
            // Mistyped.
            "STPO",
            "sotp",
            "Stopp",
            "STO",
            "xstop",
            "ARET",
            "arrrêt",
            "désbonner",
            "STRT",
            "Unsubscibe",
        ] {
            assert!(needs_review(text), "{text}");
            assert_eq!(keyword(text), None, "{text}");
        }
    }

    #[test]
    fn ordinary_replies_are_nobodys_business() {
        for text in [
            "",
            "👍",
            "ok",
            "oui",
            "Non merci",
            "Merci beaucoup !",
            "top",
            "Super, à demain",
            "le shop ouvre à quelle heure ?",
            "shop",
            "star",
            "smart",
            "quoi ?",
            "qui",
            "un step de plus",
            "Je voudrais savoir quand ma commande arrive.",
            "je veux plus de points",
            "il en reste plus d'un ?",
            "And",
            "hello",
            "where is my order, any news? more later",
            "C'est un casino, more or less",
            "cancel my order",
            "12",
        ] {
            assert!(!needs_review(text), "{text}");
        }
    }
}
