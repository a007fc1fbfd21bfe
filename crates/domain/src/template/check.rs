//! What can be told of a template before it meets a contact.

use std::collections::BTreeSet;

use super::{
    TemplateError,
    filters::{FILTERS, TESTS},
    lex::{self, Placed, Word},
    link,
};

/// What a template's values come from.
pub(super) const ROOTS: [&str; 4] = ["contact", "event", "campaign", "custom"];

/// The contact's own fields; any other name is one of its attributes.
pub(super) const CONTACT_FIELDS: [&str; 11] = [
    "id",
    "phone",
    "first_name",
    "last_name",
    "gender",
    "birth_date",
    "city",
    "region",
    "postal_code",
    "language",
    "time_zone",
];

const STATEMENTS: [&str; 11] = [
    "if", "elif", "else", "endif", "for", "endfor", "set", "endset", "with", "endwith", "raw",
];

/// Words of the language that a parenthesis may follow.
const OPERATORS: [&str; 9] = ["and", "or", "not", "in", "is", "if", "elif", "else", "recursive"];

/// All mistakes that a look at the words shows. `undeclared` are the names that nothing in the template sets, as
/// `name` or `name.field`.
pub(super) fn check(source: &str, undeclared: &BTreeSet<String>) -> Vec<TemplateError> {
    let words = lex::words(source);
    let mut errors = Vec::new();
    for (index, placed) in words.iter().enumerate() {
        let Word::Name(name) = placed.word else { continue };
        let before = |steps: usize| index.checked_sub(steps).map(|before| words[before].word);
        let after = words.get(index + 1).map(|placed| placed.word);
        let problem = match before(1) {
            Some(Word::Open { statement: true }) => statement(name),
            // `{%- if`
            Some(Word::Sign('-' | '+')) if matches!(before(2), Some(Word::Open { statement: true })) => statement(name),
            Some(Word::Sign('|')) => unknown("filter", name, &FILTERS),
            Some(Word::Name("is")) if name != "not" && !is_field(&words, index - 1) => unknown("test", name, &TESTS),
            Some(Word::Name("not")) if before(2) == Some(Word::Name("is")) => unknown("test", name, &TESTS),
            Some(Word::Sign('.')) if after == Some(Word::Sign('(')) => Some(format!(
                "`{name}(…)` is a method, and values have none: expected a filter such as `| upper`"
            )),
            Some(Word::Sign('.')) => None,
            _ if after == Some(Word::Sign('(')) && name == LINK => link_problem(&words[index + 2..]),
            _ if after == Some(Word::Sign('(')) && !OPERATORS.contains(&name) => Some(format!(
                "there is no function `{name}`: expected a value, with filters such as `| date`"
            )),
            _ => None,
        };
        errors.extend(problem.map(|message| TemplateError::at(source, placed.at, message)));
    }
    let roots: BTreeSet<&str> = undeclared.iter().map(|name| root(name)).collect();
    for name in roots.iter().filter(|name| !ROOTS.contains(name)) {
        // A function that does not exist has been told already.
        let place = words.iter().enumerate().find(|(index, placed)| {
            placed.word == Word::Name(name)
                && !is_field(&words, *index)
                && words.get(index + 1).map(|placed| placed.word) != Some(Word::Sign('('))
        });
        if let Some((_, placed)) = place {
            let message = format!(
                "unknown value `{name}`: expected `contact.…`, `event.…`, `campaign.…` or `custom.…`{}",
                suggestion(name, &ROOTS, 3)
            );
            errors.push(TemplateError::at(source, placed.at, message));
        }
    }
    for name in undeclared.iter().filter_map(|name| name.strip_prefix("contact.")) {
        let field = name.split('.').next().unwrap_or(name);
        if let Some(known) = misspelt(field)
            && let Some(placed) = field_of("contact", field, &words)
        {
            let message = format!(
                "a contact has no `{field}`: did you mean `{known}`? (An attribute of that name cannot be used.)"
            );
            errors.push(TemplateError::at(source, placed.at, message));
        }
    }
    errors.sort_by_key(|error| (error.line, error.column));
    errors.dedup();
    errors
}

/// The one function.
const LINK: &str = "link";

pub(super) fn has_links(source: &str) -> bool {
    let words = lex::words(source);
    words
        .windows(2)
        .any(|two| two[0].word == Word::Name(LINK) && two[1].word == Word::Sign('('))
}

/// What is wrong with the argument that begins here.
fn link_problem(argument: &[Placed<'_>]) -> Option<String> {
    let text = match argument.first().map(|placed| placed.word) {
        Some(Word::Text(text)) => text,
        _ => "",
    };
    let next = argument.get(1).map(|placed| placed.word);
    // A filter behind the text could make anything of it.
    let follows = matches!(next, Some(Word::Sign(')' | '~')));
    let text = if follows { text } else { "" };
    link::check_literal(text, next == Some(Word::Sign(')'))).map(str::to_owned)
}

pub(super) fn root(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn statement(name: &str) -> Option<String> {
    (!STATEMENTS.contains(&name) && name != "endraw").then(|| {
        format!(
            "there is no statement `{name}` in a text: expected {}",
            STATEMENTS.join(", ")
        )
    })
}

fn unknown(kind: &str, name: &str, known: &[&'static str]) -> Option<String> {
    (!known.contains(&name)).then(|| {
        format!(
            "unknown {kind} `{name}`: expected one of {}{}",
            known.join(", "),
            suggestion(name, known, 2)
        )
    })
}

fn suggestion(name: &str, known: &[&'static str], within: usize) -> String {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= within)
        .min()
        .map(|(_, candidate)| format!(". Did you mean `{candidate}`?"))
        .unwrap_or_default()
}

/// A contact's field that `field` looks like. Names that somebody may well have chosen for an attribute (`phone2`,
/// `regions`) are left alone.
fn misspelt(field: &str) -> Option<&'static str> {
    if CONTACT_FIELDS.contains(&field) || field.contains(|character: char| character.is_ascii_digit()) {
        return None;
    }
    CONTACT_FIELDS.into_iter().find(|known| {
        let distance = strsim::damerau_levenshtein(field, known);
        match known.contains('_') {
            true => distance <= 2,
            false => distance == 1 && known.len() >= 5 && known.len() == field.len(),
        }
    })
}

/// Whether the word at `index` follows a dot.
fn is_field(words: &[Placed<'_>], index: usize) -> bool {
    index
        .checked_sub(1)
        .is_some_and(|before| words[before].word == Word::Sign('.'))
}

fn field_of<'a>(root: &str, field: &str, words: &[Placed<'a>]) -> Option<Placed<'a>> {
    words.windows(3).find_map(|three| {
        (three[0].word == Word::Name(root) && three[1].word == Word::Sign('.') && three[2].word == Word::Name(field))
            .then_some(three[2])
    })
}

/// The values that are written without a default right behind them: a contact that lacks one gets no text.
pub(super) fn without_default(source: &str, undeclared: &BTreeSet<String>) -> BTreeSet<String> {
    let words = lex::words(source);
    let mut found = BTreeSet::new();
    for (index, placed) in words.iter().enumerate() {
        let Word::Name(name) = placed.word else { continue };
        if !ROOTS.contains(&name) || is_field(&words, index) {
            continue;
        }
        let mut path = name.to_owned();
        let mut next = index + 1;
        while let (Some(Word::Sign('.')), Some(Word::Name(field))) = (
            words.get(next).map(|placed| placed.word),
            words.get(next + 1).map(|placed| placed.word),
        ) {
            path.push('.');
            path.push_str(field);
            next += 2;
        }
        let defaulted = matches!(
            (
                words.get(next).map(|placed| placed.word),
                words.get(next + 1).map(|placed| placed.word)
            ),
            (Some(Word::Sign('|')), Some(Word::Name("default" | "d")))
        );
        let asked = matches!(words.get(next).map(|placed| placed.word), Some(Word::Name("is")))
            || matches!(
                words[..index].last().map(|placed| placed.word),
                Some(Word::Name("if" | "elif"))
            );
        if !defaulted && !asked && undeclared.contains(&path) {
            found.insert(path);
        }
    }
    found
}
