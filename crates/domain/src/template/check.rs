//! What can be told of a template before it meets a contact.

use std::collections::{BTreeMap, BTreeSet};

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

/// Whether a contact has a field of its own of this name; any other is an attribute.
pub fn is_contact_field(name: &str) -> bool {
    CONTACT_FIELDS.contains(&name)
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

/// The values that are written without a default and outside of any test for them: a contact that lacks one gets no text.
///
/// A default counts wherever it stands in the value's filters, all of which pass on what is missing. Of a condition it is
/// known which values are there where it holds, and which where it does not.
pub(super) fn without_default(source: &str, undeclared: &BTreeSet<String>) -> BTreeSet<String> {
    let words: Vec<Word<'_>> = lex::words(source).iter().map(|placed| placed.word).collect();
    let mut reader = Reader {
        undeclared,
        blocks: Vec::new(),
        same: BTreeMap::new(),
        found: BTreeSet::new(),
    };
    let mut rest = words.as_slice();
    while let [Word::Open { statement }, inside @ ..] = rest {
        let end = inside
            .iter()
            .position(|word| *word == Word::Close)
            .unwrap_or(inside.len());
        reader.tag(*statement, trimmed(&inside[..end]));
        rest = inside.get(end + 1..).unwrap_or_default();
    }
    reader.found
}

/// Without the signs that trim the spaces around a tag.
fn trimmed<'w, 'a>(mut tag: &'w [Word<'a>]) -> &'w [Word<'a>] {
    if let [Word::Sign('-' | '+'), rest @ ..] = tag {
        tag = rest;
    }
    match tag {
        [rest @ .., Word::Sign('-' | '+')] => rest,
        _ => tag,
    }
}

type Paths = BTreeSet<String>;

/// What is known inside a statement that has an end.
#[derive(Default)]
struct Block {
    /// Values that are there in the branch that is read.
    there: Paths,
    /// Those that are there where no branch so far was taken.
    otherwise: Paths,
}

/// Goes through a template's tags.
struct Reader<'a> {
    undeclared: &'a BTreeSet<String>,
    blocks: Vec<Block>,
    /// Names that were set to a value as it is.
    same: BTreeMap<String, String>,
    found: Paths,
}

impl Reader<'_> {
    fn tag(&mut self, statement: bool, words: &[Word<'_>]) {
        let (Some(Word::Name(name)), true) = (words.first(), statement) else {
            return self.expression(words);
        };
        let rest = &words[1..];
        match *name {
            "if" => {
                self.uses(rest, true, &Paths::new());
                let (there, otherwise) = meaning(rest);
                self.blocks.push(Block { there, otherwise });
            }
            "elif" => {
                if let Some(block) = self.blocks.last_mut() {
                    block.there = block.otherwise.clone();
                }
                self.uses(rest, true, &Paths::new());
                let (there, otherwise) = meaning(rest);
                if let Some(block) = self.blocks.last_mut() {
                    block.there.extend(there);
                    block.otherwise.extend(otherwise);
                }
            }
            "else" => {
                if let Some(block) = self.blocks.last_mut() {
                    block.there = std::mem::take(&mut block.otherwise);
                }
            }
            "for" | "with" => {
                self.expression(rest);
                self.blocks.push(Block::default());
            }
            "endif" | "endfor" | "endwith" => {
                self.blocks.pop();
            }
            "set" => match rest {
                // What is missing may be set; writing it later is what fails.
                [Word::Name(name), Word::Sign('='), value @ ..]
                    if path(value).is_some_and(|(_, rest)| rest.is_empty()) =>
                {
                    if let Some((path, _)) = path(value) {
                        self.same.insert((*name).to_owned(), path);
                    }
                }
                _ => self.expression(rest),
            },
            _ => self.expression(rest),
        }
    }

    /// An expression, which may be `A if CONDITION else B`. Without `else` nothing is written where it does not hold, which
    /// is missing as any other value.
    fn expression(&mut self, words: &[Word<'_>]) {
        let at = |name: &str, from: usize| {
            let found = words[from..].iter().position(|word| *word == Word::Name(name));
            found.map(|found| from + found).filter(|at| !after_dot(words, *at))
        };
        if let Some(condition) = at("if", 0)
            && let Some(other) = at("else", condition)
        {
            let (there, not_there) = meaning(&words[condition + 1..other]);
            self.uses(&words[..condition], false, &there);
            self.uses(&words[condition + 1..other], true, &Paths::new());
            self.uses(&words[other + 1..], false, &not_there);
        } else {
            self.uses(words, false, &Paths::new());
        }
    }

    /// Notes the values in `words` that must be there; `there` are some that are. In a condition a value may be missing
    /// unless it is reckoned with or compared, which the engine refuses.
    fn uses(&mut self, words: &[Word<'_>], condition: bool, there: &Paths) {
        let fallbacks = fallbacks(words);
        for index in 0..words.len() {
            let Word::Name(name) = words[index] else { continue };
            if after_dot(words, index) {
                continue;
            }
            let (used, rest) = match (ROOTS.contains(&name), self.same.get(name)) {
                (true, _) => match path(&words[index..]) {
                    Some(found) => found,
                    None => continue,
                },
                (false, Some(same)) => (same.clone(), &words[index + 1..]),
                (false, None) => continue,
            };
            let before = index.checked_sub(1).map(|before| words[before]);
            let behind = behind_filters(rest);
            let asked = rest.first() == Some(&Word::Name("is"))
                || (condition
                    && !needs_a_value(before)
                    && !needs_a_value(behind.first().copied())
                    && behind.get(..2) != Some(&[Word::Name("not"), Word::Name("in")]));
            let known = there.contains(&used)
                || self.blocks.iter().any(|block| block.there.contains(&used))
                || (condition && asked_before(&words[..index], &used));
            // A root is always there.
            if used.contains('.')
                && !asked
                && !known
                && !has_default(rest)
                && !fallbacks.iter().any(|argument| argument.contains(&index))
                && self.undeclared.contains(&used)
            {
                self.found.insert(used);
            }
        }
    }
}

/// Whether an operator beside a value does nothing with one that is missing.
fn needs_a_value(word: Option<Word<'_>>) -> bool {
    matches!(
        word,
        Some(Word::Sign('+' | '-' | '*' | '/' | '%' | '~' | '=' | '!' | '<' | '>') | Word::Name("in"))
    )
}

/// `contact.city and contact.city == 'Paris'`: the second is looked at only where there is one. `words` are those before
/// it. What an `or` or a closed parenthesis lies between was perhaps not asked.
fn asked_before(words: &[Word<'_>], used: &str) -> bool {
    let mut closed = 0_usize;
    let mut past_or = false;
    for (index, word) in words.iter().enumerate().rev() {
        match word {
            Word::Sign(')' | ']') => closed += 1,
            Word::Sign('(' | '[') if closed > 0 => closed -= 1,
            // What the whole parenthesis is joined to.
            Word::Sign('(' | '[') => past_or = false,
            Word::Name(name) if closed == 0 && !after_dot(words, index) => {
                past_or |= *name == "or";
                let is_not = index.checked_sub(1).map(|before| words[before]) == Some(Word::Name("not"));
                let is_asked = !is_not
                    && path(&words[index..])
                        .is_some_and(|(path, rest)| path == used && rest.first() == Some(&Word::Name("and")));
                if is_asked && !past_or {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// The words behind a value's filters.
fn behind_filters<'w, 'a>(mut words: &'w [Word<'a>]) -> &'w [Word<'a>] {
    while let [Word::Sign('|'), Word::Name(_), rest @ ..] = words {
        words = behind_arguments(rest);
    }
    words
}

fn after_dot(words: &[Word<'_>], index: usize) -> bool {
    index
        .checked_sub(1)
        .is_some_and(|before| words[before] == Word::Sign('.'))
}

/// The path that words begin with, such as `contact.city`, and the words behind it.
fn path<'w, 'a>(words: &'w [Word<'a>]) -> Option<(String, &'w [Word<'a>])> {
    let (Word::Name(root), mut rest) = words.split_first()? else {
        return None;
    };
    if !ROOTS.contains(root) {
        return None;
    }
    let mut path = (*root).to_owned();
    while let [Word::Sign('.'), Word::Name(field), behind @ ..] = rest {
        path.push('.');
        path.push_str(field);
        rest = behind;
    }
    Some((path, rest))
}

/// The words behind one parenthesis that `words` begin with, if they do.
fn behind_arguments<'w, 'a>(words: &'w [Word<'a>]) -> &'w [Word<'a>] {
    let mut depth = 0_usize;
    for (index, word) in words.iter().enumerate() {
        match word {
            Word::Sign('(') => depth += 1,
            Word::Sign(')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            let taken = if index == 0 { 0 } else { index + 1 };
            return &words[taken..];
        }
    }
    &[]
}

const DEFAULTS: [&str; 2] = ["default", "d"];

/// Whether one of the filters that `words` begin with is a default.
fn has_default(mut words: &[Word<'_>]) -> bool {
    while let [Word::Sign('|'), Word::Name(filter), rest @ ..] = words {
        if DEFAULTS.contains(filter) {
            return true;
        }
        words = behind_arguments(rest);
    }
    false
}

/// Where the arguments of defaults stand: a value there is only asked for by who lacks another.
fn fallbacks(words: &[Word<'_>]) -> Vec<std::ops::Range<usize>> {
    (2..words.len())
        .filter(|index| {
            matches!(words[index - 2], Word::Sign('|'))
                && matches!(words[index - 1], Word::Name(name) if DEFAULTS.contains(&name))
        })
        .map(|index| index..words.len() - behind_arguments(&words[index..]).len())
        .collect()
}

/// Which values are there where a condition holds, and which where it does not.
fn meaning(words: &[Word<'_>]) -> (Paths, Paths) {
    let all = |sets: &[Paths]| sets.iter().flatten().cloned().collect();
    let common = |sets: &[Paths]| {
        let (first, others) = sets
            .split_first()
            .map_or((Paths::new(), &[][..]), |(first, others)| (first.clone(), others));
        let everywhere = |path: &String| others.iter().all(|other| other.contains(path));
        first.into_iter().filter(everywhere).collect()
    };
    for (operator, is_or) in [("or", true), ("and", false)] {
        let terms = terms(words, operator);
        if terms.len() > 1 {
            let (holds, fails): (Vec<Paths>, Vec<Paths>) = terms.into_iter().map(meaning).unzip();
            return match is_or {
                true => (common(&holds), all(&fails)),
                false => (all(&holds), common(&fails)),
            };
        }
    }
    match words {
        [Word::Name("not"), rest @ ..] => {
            let (holds, fails) = meaning(rest);
            (fails, holds)
        }
        [Word::Sign('('), inside @ .., Word::Sign(')')] if behind_arguments(words).is_empty() => meaning(inside),
        _ => {
            let Some((path, mut rest)) = path(words) else {
                return Default::default();
            };
            if has_default(rest) {
                return Default::default();
            }
            while let [Word::Sign('|'), Word::Name(_), behind @ ..] = rest {
                rest = behind_arguments(behind);
            }
            let path = Paths::from([path]);
            match rest {
                [Word::Name("is"), Word::Name("undefined" | "none")]
                | [Word::Name("is"), Word::Name("not"), Word::Name("defined")] => (Paths::new(), path),
                [Word::Name("is"), Word::Name("not"), Word::Name("undefined" | "none")] => (path, Paths::new()),
                [Word::Name("is"), Word::Name("not"), ..] => Default::default(),
                // No other test holds of what is missing, and nothing equals it.
                [] | [Word::Name("is"), ..] | [Word::Sign('='), Word::Sign('='), Word::Text(_) | Word::Number] => {
                    (path, Paths::new())
                }
                [Word::Sign('>'), ..] => (path, Paths::new()),
                _ => Default::default(),
            }
        }
    }
}

/// The parts between an operator's words, but for those inside parentheses.
fn terms<'w, 'a>(words: &'w [Word<'a>], operator: &str) -> Vec<&'w [Word<'a>]> {
    let mut depth = 0_usize;
    words
        .split(|word| {
            match word {
                Word::Sign('(' | '[') => depth += 1,
                Word::Sign(')' | ']') => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && *word == Word::Name(operator)
        })
        .collect()
}
