//! What replies mean, per territory and number, and what is answered: `[[policy.keyword]]`.
//!
//! The built-in words ([`domain::keyword`]) always hold. A rule adds words of one's own, or an answer: without words it
//! speaks of the built-in ones of what it does. Of several rules that fit the narrowest holds: number before territory.

use domain::{
    Phone,
    keyword::{self, Keyword},
    territory::Table,
};
use serde::{Deserialize, Serialize};

use crate::Problem;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeywordRule {
    /// `stop`, `start`, `help`, `contact`; any other word is one of your own, which events and topics then carry.
    pub does: String,
    /// Compared without case, accents, punctuation and spaces; empty: the built-in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// For phones of this territory (ISO 3166-1); absent: of every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub territory: Option<String>,
    /// For texts to this number or short code; absent: to every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// The transactional template that is sent back; absent: nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// What a reply means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning<'a> {
    pub keyword: &'a str,
    pub answer: Option<&'a str>,
}

impl KeywordRule {
    fn fits(&self, word: &str, territory: &str, to: &str) -> bool {
        let said = match self.words.is_empty() {
            true => keyword::keyword(word).is_some_and(|built_in| built_in.as_str() == self.does),
            false => self.words.iter().any(|own| keyword::word(own) == word),
        };
        said && self.territory.as_deref().is_none_or(|own| own == territory)
            && self.sender.as_deref().is_none_or(|own| own == to)
    }

    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        let mut wrong = |message: String| problems.push(Problem::new("keyword", message));
        let good = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
        if self.does.is_empty() || self.does.len() > 30 || !self.does.chars().all(good) {
            wrong("`does`: expected stop, start, help, contact, or a word of up to 30 of a-z, 0-9 and `-`".into());
        }
        let built_in = ["stop", "start", "help", "contact"].contains(&self.does.as_str());
        if self.words.is_empty() && !built_in {
            wrong(format!(
                "`does = \"{}\"`: expected `words`, there are no built-in ones",
                self.does
            ));
        }
        for word in &self.words {
            if keyword::word(word).is_empty() {
                wrong("`words`: expected letters or digits in each".into());
            }
            // The right to object does not depend on a setting.
            if keyword::keyword(word) == Some(Keyword::Stop) && self.does != "stop" {
                wrong("`words`: a built-in word of STOP can only do `stop`".into());
            }
        }
        if let Some(territory) = &self.territory
            && !Table::get().territories().any(|known| known.code == *territory)
        {
            wrong("`territory`: expected one of docs/rules.md, such as `RE`".into());
        }
    }
}

/// What a text means that `from` sent to `to`.
pub fn meaning<'a>(rules: &'a [KeywordRule], text: &str, from: &Phone, to: &str) -> Option<Meaning<'a>> {
    let word = keyword::word(text);
    if word.is_empty() {
        return None;
    }
    let territory = &Table::get().by_phone(from).code;
    let narrowest = rules
        .iter()
        .filter(|rule| rule.fits(&word, territory, to))
        // Of equals the first: `max_by_key` takes the last.
        .rev()
        .max_by_key(|rule| (rule.sender.is_some(), rule.territory.is_some()));
    match narrowest {
        Some(rule) => Some(Meaning {
            keyword: &rule.does,
            answer: rule.answer.as_deref(),
        }),
        None => keyword::keyword(&word).map(|built_in| Meaning {
            keyword: built_in.as_str(),
            answer: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(does: &str, words: &[&str], territory: Option<&str>, sender: Option<&str>, answer: &str) -> KeywordRule {
        KeywordRule {
            does: does.into(),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            territory: territory.map(str::to_owned),
            sender: sender.map(str::to_owned),
            answer: Some(answer.to_owned()).filter(|answer| !answer.is_empty()),
        }
    }

    #[test]
    fn the_narrowest_rule_holds_and_the_built_in_words_always_do() {
        let rules = [
            rule("stop", &[], None, None, "stopped"),
            rule("stop", &[], Some("RE"), None, "stopped-re"),
            rule("stop", &[], None, Some("36105"), "stopped-36105"),
            rule("stop", &["Baska !"], Some("YT"), None, "stopped-yt"),
            rule("points", &["MES POINTS"], None, None, "points"),
        ];
        let of = |text: &str, from: &str, to: &str| {
            meaning(&rules, text, &Phone::from_e164(from), to).map(|found| (found.keyword, found.answer))
        };
        let (reunion, mayotte, france) = ("+262692123456", "+262639123456", "+33612345678");
        assert_eq!(of("stop", france, "1"), Some(("stop", Some("stopped"))));
        assert_eq!(of("Arrêt.", reunion, "1"), Some(("stop", Some("stopped-re"))));
        assert_eq!(of("STOP", reunion, "36105"), Some(("stop", Some("stopped-36105"))));
        assert_eq!(of("baska", mayotte, "1"), Some(("stop", Some("stopped-yt"))));
        assert_eq!(of("baska", reunion, "1"), None);
        assert_eq!(of("mes points ?", france, "1"), Some(("points", Some("points"))));
        assert_eq!(of("start", france, "1"), Some(("start", None)));
        assert_eq!(of("!!", france, "1"), None);
    }

    #[test]
    fn rules_that_cannot_be_meant_are_told() {
        let problems = |rule: KeywordRule| {
            let mut problems = Vec::new();
            rule.check(&mut problems);
            problems.len()
        };
        assert_eq!(problems(rule("points", &["points"], Some("RE"), None, "")), 0);
        assert_eq!(problems(rule("points", &[], None, None, "")), 1);
        assert_eq!(problems(rule("points", &["Arrêt"], None, None, "")), 1);
        assert_eq!(problems(rule("Stop it", &["x", "!"], Some("XX"), None, "")), 3);
    }
}
