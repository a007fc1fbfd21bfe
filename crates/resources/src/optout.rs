//! What a marketing text must hold beside what it says, and that counts in its parts: whom it is from, and how to get no
//! more of them. The sources are in `docs/rules.md`.
//!
//! The sender of a text is its name where it has letters. A number or short code says nobody's name: there the text begins
//! with the template's `brand`, else the policy's, unless it names it itself.
//!
//! The policy says the opt-out mention (`opt_out`, and `opt_outs` by language). Where it does not, there is a built-in one:
//! behind a number or short code the reader can answer, `STOP: répondez STOP`. Behind an alphanumeric sender nobody can
//! answer: there the provider's short code belongs into `opt_out` (`STOP au 36111`), and until it is set the mention sends
//! the reader to the shop, which is lawful and little help.

use domain::template::{HOLE, Language};

use crate::{Policy, composer::by_tag};

/// Puts `brand` before a text whose sender is a number, unless the text has that name.
pub(crate) fn add_brand(text: &mut String, brand: Option<&str>, sender: &str) {
    let Some(brand) = brand.map(str::trim).filter(|brand| !brand.is_empty()) else {
        return;
    };
    if is_number(sender) && !names(text, brand) {
        text.insert_str(0, ": ");
        text.insert_str(0, brand);
    }
}

/// Adds the mention at the end, unless the text has one: the policy's, or one of its author's (`literal`, what he wrote
/// without values), which must be left in the text whichever branches were taken. A value is nobody's mention.
pub(crate) fn add(
    text: &mut String,
    literal: &str,
    policy: &Policy,
    sender: &str,
    tag: Option<&str>,
    language: Language,
) {
    let mention = mention(policy, sender, tag, language);
    let whole = mention.contains(' ') && text.contains(mention);
    if mention.is_empty() || whole || (instructs(literal) && instructs(text)) {
        return;
    }
    text.push(' ');
    text.push_str(mention);
}

fn mention<'a>(policy: &'a Policy, sender: &str, tag: Option<&str>, language: Language) -> &'a str {
    let own = tag.filter(|_| !policy.opt_outs.is_empty()).and_then(|tag| {
        by_tag(tag, |tag| {
            policy
                .opt_outs
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(tag))
                .map(|(_, mention)| mention)
        })
    });
    match own.or(policy.opt_out.as_ref()) {
        Some(mention) => mention.trim(),
        None => built_in(sender, language),
    }
}

/// Whether a sender can be answered, and says no name.
fn is_number(sender: &str) -> bool {
    sender.starts_with(|first: char| first == '+' || first.is_ascii_digit())
}

/// All of them are GSM-7, the Turkish ones by words that need no letter of their own.
fn built_in(sender: &str, language: Language) -> &'static str {
    match (language, is_number(sender)) {
        (Language::French, true) => "STOP: répondez STOP",
        (Language::French, false) => "STOP: contactez-nous",
        (Language::English | Language::AmericanEnglish, true) => "Reply STOP to opt out",
        (Language::English | Language::AmericanEnglish, false) => "STOP: contact us",
        (Language::German, true) => "STOP: mit STOP antworten",
        (Language::German, false) => "STOP: kontaktieren Sie uns",
        (Language::Portuguese | Language::Spanish, true) => "STOP: responda STOP",
        (Language::Portuguese, false) => "STOP: contacte-nos",
        (Language::Spanish, false) => "STOP: contacte con nosotros",
        (Language::Turkish, true) => "STOP: STOP ile cevap verin",
        (Language::Turkish, false) => "STOP: bize bilgi verin",
    }
}

/// Whether `name` stands in the text by itself, in whatever case.
fn names(text: &str, name: &str) -> bool {
    let (text, name) = (text.to_lowercase(), name.to_lowercase());
    let mut from = 0;
    while let Some(at) = text[from..].find(&name).map(|found| from + found) {
        let (before, behind) = (&text[..at], &text[at + name.len()..]);
        if !before.ends_with(char::is_alphanumeric) && !behind.starts_with(char::is_alphanumeric) {
            return true;
        }
        from = at + name.chars().next().map_or(1, char::len_utf8);
    }
    false
}

const KEYWORD: &str = "STOP";

/// Words that tell to send the keyword, before it, and what may stand between.
const SEND: [&str; 30] = [
    "répondez",
    "repondez",
    "répondre",
    "repondre",
    "réponds",
    "envoyez",
    "envoyer",
    "tapez",
    "taper",
    "sms",
    "reply",
    "text",
    "txt",
    "send",
    "responda",
    "responde",
    "responder",
    "envie",
    "envia",
    "envía",
    "enviar",
    "antworten",
    "antworte",
    "antwort",
    "senden",
    "sende",
    "sms'le",
    "yanıtla",
    "gönder",
    "texte",
];
const WITH: [&str; 8] = ["par", "with", "mit", "con", "com", "sie", "le", "mot"];
/// Words between the keyword and the number that it goes to.
const TO: [&str; 12] = ["au", "à", "a", "to", "al", "para", "an", "sms", "par", "no", "ao", "->"];
/// What it is for, behind it.
const PURPOSES: [&str; 9] = [
    "pour ne plus",
    "pour se désabonner",
    "pour se desabonner",
    "to opt out",
    "to opt-out",
    "to unsubscribe",
    "to end",
    "to cancel",
    "to stop",
];

/// Whether the text tells to send STOP: to a number (`STOP au 36111`), as an answer (`Reply STOP`), what for (`STOP to opt
/// out`), how (`. STOP: …`), or as all of its last sentence. "Ouvert NON-STOP", "panneau STOP" and "STOP! -50%" do not.
fn instructs(text: &str) -> bool {
    // Nearly every text is without it: that is seen at once.
    text.match_indices(KEYWORD)
        .any(|(at, _)| is_instruction(&text[..at], &text[at + KEYWORD.len()..]))
}

fn is_instruction(before: &str, behind: &str) -> bool {
    let joins = |character: char| character.is_alphanumeric() || matches!(character, '-' | '_' | '\'' | '’');
    if before.ends_with(joins) || behind.starts_with(joins) {
        return false;
    }
    let previous = before
        .split(|character: char| !character.is_alphanumeric() && character != '\'')
        .rfind(|word| !word.is_empty())
        .unwrap_or_default()
        .to_lowercase();
    if previous == "non" {
        return false;
    }
    goes_to_a_number(behind)
        || is_asked_for(before)
        || has_purpose(behind)
        || (begins_sentence(before) && (behind.trim_start().starts_with(':') || is_end(behind)))
}

/// `au 36111`, `: 36111`, `SMS au +33612345678`, or a value in that place.
fn goes_to_a_number(behind: &str) -> bool {
    let mut rest = behind.trim_start_matches([' ', ':']);
    for _ in 0..3 {
        let next = TO.iter().find_map(|word| {
            let rest = strip_word(rest, word)?;
            Some(rest.trim_start_matches([' ', ':']))
        });
        match next {
            Some(next) => rest = next,
            None => break,
        }
    }
    let digits = rest
        .trim_start_matches('+')
        .chars()
        .take_while(char::is_ascii_digit)
        .count();
    digits >= 3 || rest.starts_with(HOLE)
}

/// `rest` without the word that it begins with, in whatever case.
fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let begin = text.get(..word.len())?;
    let rest = &text[word.len()..];
    (begin.to_lowercase() == word && rest.starts_with([' ', ':'])).then_some(rest)
}

fn is_asked_for(before: &str) -> bool {
    // The last sentence alone.
    let sentence = before.rsplit(['.', '!', '?', '\n']).next().unwrap_or_default();
    let mut words = sentence
        .split_whitespace()
        .rev()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase())
        .filter(|word| !word.is_empty());
    let first = words.find(|word| !WITH.contains(&word.as_str()));
    first.is_some_and(|word| SEND.contains(&word.as_str()))
}

fn has_purpose(behind: &str) -> bool {
    let behind = behind.trim_start_matches([' ', ',', ':']).to_lowercase();
    PURPOSES.iter().any(|purpose| behind.starts_with(purpose))
}

/// Something was said, and ended: a STOP that a text begins with is a cry.
fn begins_sentence(before: &str) -> bool {
    let before = before.trim_end_matches([' ', '"', '(', '«', '[']);
    before.ends_with(['.', '!', '?', '\n', ';', '-', '–', '—', '|', '/', '…'])
}

fn is_end(behind: &str) -> bool {
    behind
        .chars()
        .all(|character| character.is_whitespace() || matches!(character, '.' | '"' | ')' | '»' | ']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(text: &str, policy: &Policy, sender: &str, tag: Option<&str>) -> String {
        with_values(text, text, policy, sender, tag)
    }

    fn with_values(literal: &str, text: &str, policy: &Policy, sender: &str, tag: Option<&str>) -> String {
        let mut text = text.to_owned();
        let language = tag.map(Language::of).unwrap_or_default();
        add(&mut text, literal, policy, sender, tag, language);
        text
    }

    #[test]
    fn the_mention_is_in_the_readers_language_and_never_twice() {
        let built_in = Policy::default();
        for (text, sender, tag, mention) in [
            ("Soldes.", "36111", "fr-RE", "STOP: répondez STOP"),
            ("Soldes.", "BOUTIQUE", "fr", "STOP: contactez-nous"),
            ("Sales.", "+15005550006", "en", "Reply STOP to opt out"),
            ("Rabatt.", "36111", "de-AT", "STOP: mit STOP antworten"),
            ("Rebajas.", "36111", "es-MX", "STOP: responda STOP"),
            ("Saldos.", "36111", "pt-BR", "STOP: responda STOP"),
            ("Indirim.", "36111", "tr", "STOP: STOP ile cevap verin"),
            ("NONSTOP!", "36111", "en", "Reply STOP to opt out"),
        ] {
            assert_eq!(added(text, &built_in, sender, Some(tag)), format!("{text} {mention}"));
        }
        assert_eq!(
            added("Soldes. STOP 36111", &built_in, "BOUTIQUE", Some("fr")),
            "Soldes. STOP 36111"
        );

        let own = Policy {
            opt_out: Some(" STOP au 36111".into()),
            opt_outs: [("de".to_owned(), "Abmelden: 36111".to_owned())].into(),
            ..Policy::default()
        };
        assert_eq!(added("Soldes.", &own, "BOUTIQUE", Some("fr")), "Soldes. STOP au 36111");
        assert_eq!(
            added("Rabatt.", &own, "BOUTIQUE", Some("de-AT")),
            "Rabatt. Abmelden: 36111"
        );
        assert_eq!(
            added("Abmelden: 36111. Rabatt", &own, "BOUTIQUE", Some("de")),
            "Abmelden: 36111. Rabatt"
        );
        let none = Policy {
            opt_out: Some(String::new()),
            ..Policy::default()
        };
        assert_eq!(added("Soldes.", &none, "BOUTIQUE", Some("fr")), "Soldes.");
    }

    #[test]
    fn only_an_instruction_is_a_mention() {
        for text in [
            "Soldes. STOP au 36111",
            "Soldes STOP 36111",
            "Soldes, STOP SMS au 36111",
            "Soldes. STOP: 36111",
            "Soldes. STOP au \u{fffc}",
            "Soldes. Pour ne plus recevoir: envoyez STOP au 36111",
            "Soldes. Répondez STOP",
            "Soldes. Répondez par STOP",
            "Sales. Reply STOP to opt out",
            "Sales. Reply \"STOP\" to opt out.",
            "Sales, text STOP to end",
            "Rabatt. Antworten Sie mit STOP",
            "Soldes. STOP: contactez-nous",
            "Soldes - STOP pour ne plus en recevoir",
            "Soldes. STOP",
            "Soldes. (STOP)",
        ] {
            assert!(instructs(text), "{text}");
            assert_eq!(added(text, &Policy::default(), "36111", Some("fr")), text);
        }
        for text in [
            "Ouvert NON-STOP",
            "Ouvert NON STOP: 9h-20h",
            "Ouvert NON STOP au 12 rue du Port",
            "Au panneau STOP, à droite",
            "Rendez-vous au panneau STOP",
            "STOP! -50% sur tout",
            "STOP: les prix baissent",
            "NONSTOP 36111",
            "STOP-PUB 36111",
            "Soldes. STOP aux prix fous",
            "stop",
        ] {
            assert!(!instructs(text), "{text}");
            assert_eq!(
                added(text, &Policy::default(), "36111", Some("fr")),
                format!("{text} STOP: répondez STOP")
            );
        }
    }

    #[test]
    fn a_value_is_no_mention_nor_a_branch_that_was_not_taken() {
        let policy = Policy::default();
        for (literal, text) in [
            ("Chez \u{fffc}: soldes.", "Chez Panneau STOP 36111: soldes."),
            ("\u{fffc} ouvre.", "Le NON-STOP ouvre."),
            ("Soldes. STOP au 36111", "Soldes."),
        ] {
            assert_eq!(
                with_values(literal, text, &policy, "BOUTIQUE", Some("fr")),
                format!("{text} STOP: contactez-nous")
            );
        }
        assert_eq!(
            with_values(
                "Soldes. STOP au \u{fffc}",
                "Soldes. STOP au 36111",
                &policy,
                "BOUTIQUE",
                Some("fr")
            ),
            "Soldes. STOP au 36111"
        );
        // A policy whose mention is the bare word does not find it in any word.
        let bare = Policy {
            opt_out: Some("STOP".into()),
            ..Policy::default()
        };
        assert_eq!(
            added("Ouvert NON-STOP.", &bare, "36111", Some("fr")),
            "Ouvert NON-STOP. STOP"
        );
        assert_eq!(added("Soldes. STOP", &bare, "36111", Some("fr")), "Soldes. STOP");
    }

    #[test]
    fn the_built_in_mentions_cost_no_ucs2_and_are_instructions() {
        for tag in ["fr", "en", "en-US", "de", "pt", "es", "tr", "nl"] {
            for sender in ["36111", "BOUTIQUE"] {
                let mention = super::built_in(sender, Language::of(tag));
                assert_eq!(domain::sms::Encoding::of(mention), domain::sms::Encoding::Gsm7);
                assert!(instructs(&format!("Soldes. {mention}")), "{mention}");
            }
        }
    }

    #[test]
    fn a_number_is_given_a_name() {
        let named = |text: &str, brand: Option<&str>, sender: &str| {
            let mut text = text.to_owned();
            add_brand(&mut text, brand, sender);
            text
        };
        for sender in ["36111", "+262692000000"] {
            assert_eq!(named("Soldes.", Some("BOUTIQUE"), sender), "BOUTIQUE: Soldes.");
        }
        assert_eq!(named("Soldes.", Some("BOUTIQUE"), "BOUTIQUE"), "Soldes.");
        assert_eq!(named("Soldes.", None, "36111"), "Soldes.");
        assert_eq!(named("Soldes.", Some("  "), "36111"), "Soldes.");
        assert_eq!(
            named("Votre Boutique solde.", Some("BOUTIQUE"), "36111"),
            "Votre Boutique solde."
        );
        assert_eq!(named("Été à l'ÉPI", Some("Épi"), "36111"), "Été à l'ÉPI");
        assert_eq!(named("Oranges", Some("Orange"), "36111"), "Orange: Oranges");
        assert_eq!(named("Oranges? Orange!", Some("Orange"), "36111"), "Oranges? Orange!");
    }
}
