//! The words inside a template's tags, with where they stand.
//!
//! The engine looks filters, tests and names up only when it comes to them, so a misspelt one inside an `{% if %}` would
//! be found by the first customer for whom the branch is taken. This reads the tags word by word, so that all of them can
//! be looked at when the template is applied.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word<'a> {
    Name(&'a str),
    /// A quoted text, with its quotes.
    Text(&'a str),
    Number,
    Sign(char),
    /// `{{` or `{%`: a tag begins.
    Open {
        statement: bool,
    },
    Close,
}

/// A word and the byte at which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed<'a> {
    pub(super) word: Word<'a>,
    pub(super) at: usize,
}

/// All words of all tags. The source has been compiled before: what does not close is the engine's to report.
pub(super) fn words(source: &str) -> Vec<Placed<'_>> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(open) = source[at..].find('{').map(|found| at + found) {
        let rest = &source[open..];
        if rest.starts_with("{#") {
            at = rest.find("#}").map_or(source.len(), |end| open + end + 2);
        } else if rest.starts_with("{{") || rest.starts_with("{%") {
            let statement = rest.starts_with("{%");
            let first = words.len();
            at = tag(source, open, statement, &mut words);
            // What `raw` encloses is text, whatever it looks like.
            if statement && is_raw(&words[first..]) {
                at = raw_end(source, at);
            }
        } else {
            at = open + 1;
        }
    }
    words
}

/// What stands in [`literals`] where a value will be.
pub const HOLE: char = '\u{fffc}';

/// What is written outside of all tags, with a [`HOLE`] for each value.
pub(super) fn literals(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(open) = source[at..].find('{').map(|found| at + found) {
        text.push_str(&source[at..open]);
        let rest = &source[open..];
        if rest.starts_with("{#") {
            at = rest.find("#}").map_or(source.len(), |end| open + end + 2);
        } else if rest.starts_with("{{") || rest.starts_with("{%") {
            let statement = rest.starts_with("{%");
            words.clear();
            at = tag(source, open, statement, &mut words);
            if statement && is_raw(&words) {
                let end = raw_end(source, at);
                let inside = &source[at..end];
                text.push_str(inside.rsplit_once("{%").map_or(inside, |(inside, _)| inside));
                at = end;
            } else if !statement {
                text.push(HOLE);
            }
        } else {
            text.push('{');
            at = open + 1;
        }
    }
    text.push_str(&source[at..]);
    text
}

/// Whether a statement's words are `{% raw %}`, with or without a sign that trims.
fn is_raw(words: &[Placed<'_>]) -> bool {
    let first = words
        .iter()
        .skip(1)
        .find(|placed| !matches!(placed.word, Word::Sign('-' | '+')));
    first.map(|placed| placed.word) == Some(Word::Name("raw"))
}

/// The byte behind `{% endraw %}`.
fn raw_end(source: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(open) = source[at..].find("{%").map(|found| at + found) {
        let inside = source[open + 2..].trim_start_matches(['-', '+']).trim_start();
        if inside.starts_with("endraw") {
            return source[open..].find("%}").map_or(source.len(), |end| open + end + 2);
        }
        at = open + 2;
    }
    source.len()
}

/// Reads one tag; the byte behind it.
fn tag<'a>(source: &'a str, open: usize, statement: bool, words: &mut Vec<Placed<'a>>) -> usize {
    words.push(Placed {
        word: Word::Open { statement },
        at: open,
    });
    let close = if statement { "%}" } else { "}}" };
    let mut at = open + 2;
    // A bracket inside an expression (`{{ {"a": 1}.a }}`) does not close the tag.
    let mut braces = 0_usize;
    while let Some(character) = source[at..].chars().next() {
        let rest = &source[at..];
        if braces == 0 && rest.starts_with(close) {
            words.push(Placed { word: Word::Close, at });
            return at + 2;
        }
        let length = match character {
            '"' | '\'' => quoted(rest, character),
            _ if character.is_alphabetic() || character == '_' => rest
                .find(|next: char| !next.is_alphanumeric() && next != '_')
                .unwrap_or(rest.len()),
            _ if character.is_ascii_digit() => rest
                .find(|next: char| !next.is_ascii_alphanumeric() && next != '_')
                .unwrap_or(rest.len()),
            _ => character.len_utf8(),
        };
        let text = &rest[..length];
        let word = match character {
            '"' | '\'' => Some(Word::Text(text)),
            _ if character.is_alphabetic() || character == '_' => Some(Word::Name(text)),
            _ if character.is_ascii_digit() => Some(Word::Number),
            _ if character.is_whitespace() => None,
            _ => Some(Word::Sign(character)),
        };
        match character {
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            _ => {}
        }
        words.extend(word.map(|word| Placed { word, at }));
        at += length;
    }
    at
}

/// The length of a quoted text with its quotes.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, character) in rest.char_indices().skip(1) {
        if !escaped && character == quote {
            return index + 1;
        }
        escaped = !escaped && character == '\\';
    }
    rest.len()
}

/// Line and column of a byte, both from 1, the column in characters.
pub(super) fn position(source: &str, byte: usize) -> (usize, usize) {
    let mut byte = byte.min(source.len());
    while !source.is_char_boundary(byte) {
        byte -= 1;
    }
    let before = &source[..byte];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<&str> {
        words(source)
            .into_iter()
            .filter_map(|placed| match placed.word {
                Word::Name(name) => Some(name),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn only_what_is_in_tags_is_read() {
        assert_eq!(names("a { b } {{ c.d | e('}}') }} f"), ["c", "d", "e"]);
        assert_eq!(names("{# {{ a }} #}{%- if b -%}c{% endif %}"), ["if", "b", "endif"]);
        assert_eq!(names("{% raw %}{{ a }}{% endraw %}{{ b }}"), ["raw", "b"]);
        assert_eq!(names("{{ {'a': 1}.a }}{{ 'it\\'s' }}x"), ["a"]);
        assert_eq!(names("{{ é"), ["é"]);
        assert_eq!(names("{%- raw -%}{{ a }}{%- endraw -%}{{ b }}"), ["raw", "b"]);
    }

    #[test]
    fn only_what_is_outside_of_tags_is_literal() {
        for (source, literal) in [
            ("a { b } {{ c | d('STOP') }}!", "a { b } \u{fffc}!"),
            ("{# STOP #}a{% if b %}c{% else %}d{% endif %}", "acd"),
            ("{% raw %}{{ a }} STOP{% endraw %}{{ b }}", "{{ a }} STOP\u{fffc}"),
            ("{{ a", "\u{fffc}"),
            ("é{|}", "é{|}"),
        ] {
            assert_eq!(literals(source), literal, "{source}");
        }
    }

    #[test]
    fn positions_count_characters() {
        assert_eq!(position("é{{ x", 5), (1, 5));
        assert_eq!(position("a\nbc\n{{ x", 8), (3, 4));
        assert_eq!(position("a", 99), (1, 2));
    }
}
