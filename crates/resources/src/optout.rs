//! The mention by which a marketing text tells how to get no more of them. It counts in the parts.
//!
//! The policy says it (`opt_out`, and `opt_outs` by language). Where it does not, there is a built-in one: behind a number
//! or short code the reader can answer, `STOP: répondez STOP`. Behind an alphanumeric sender nobody can answer: there the
//! provider's short code belongs into `opt_out` (`STOP au 36111`), and until it is set the mention sends the reader to the
//! shop, which is lawful and little help.

use domain::template::Language;

use crate::{Policy, composer::by_tag};

/// Adds the mention at the end, unless the text has one: its own, or the word STOP.
pub(crate) fn add(text: &mut String, policy: &Policy, sender: &str, tag: Option<&str>, language: Language) {
    let mention = mention(policy, sender, tag, language);
    if mention.is_empty() || text.contains(mention) || has_word(text, "STOP") {
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

fn built_in(sender: &str, language: Language) -> &'static str {
    let answers = sender.starts_with(|first: char| first == '+' || first.is_ascii_digit());
    match (language, answers) {
        (Language::French, true) => "STOP: répondez STOP",
        (Language::French, false) => "STOP: contactez-nous",
        (_, true) => "Reply STOP to opt out",
        (_, false) => "STOP: contact us",
    }
}

/// Whether `word` stands in the text by itself.
fn has_word(text: &str, word: &str) -> bool {
    // Nearly every text is without it: that is seen at once.
    text.contains(word)
        && text
            .split(|character: char| !character.is_alphanumeric())
            .any(|found| found == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(text: &str, policy: &Policy, sender: &str, tag: Option<&str>) -> String {
        let mut text = text.to_owned();
        add(
            &mut text,
            policy,
            sender,
            tag,
            tag.map(Language::of).unwrap_or_default(),
        );
        text
    }

    #[test]
    fn the_mention_is_in_the_readers_language_and_never_twice() {
        let built_in = Policy::default();
        assert_eq!(
            added("Soldes.", &built_in, "36111", Some("fr-RE")),
            "Soldes. STOP: répondez STOP"
        );
        assert_eq!(
            added("Sales.", &built_in, "+15005550006", Some("en")),
            "Sales. Reply STOP to opt out"
        );
        assert_eq!(
            added("Soldes.", &built_in, "BOUTIQUE", Some("fr")),
            "Soldes. STOP: contactez-nous"
        );
        assert_eq!(
            added("Soldes. STOP 36111", &built_in, "BOUTIQUE", Some("fr")),
            "Soldes. STOP 36111"
        );
        assert_eq!(
            added("NONSTOP!", &built_in, "36111", None),
            "NONSTOP! Reply STOP to opt out"
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
        let none = Policy {
            opt_out: Some(String::new()),
            ..Policy::default()
        };
        assert_eq!(added("Soldes.", &none, "BOUTIQUE", Some("fr")), "Soldes.");
    }

    #[test]
    fn the_built_in_mentions_cost_no_ucs2() {
        for language in [Language::French, Language::English] {
            for sender in ["36111", "BOUTIQUE"] {
                let mention = super::built_in(sender, language);
                assert_eq!(domain::sms::Encoding::of(mention), domain::sms::Encoding::Gsm7);
            }
        }
    }
}
