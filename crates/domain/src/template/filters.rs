//! The filters and tests of a text, and how a value is written where no filter says how.
//!
//! What is missing passes through every filter that changes a text, so that `| title | default('…')` works in either
//! order; only `default` replaces it, and writing it is an error.

use std::fmt;

use minijinja::{
    Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, filters, tests,
    value::{Rest, ValueKind},
};
use unicode_segmentation::UnicodeSegmentation as _;

use super::{
    Language, Locale, link,
    locale::{Moment, Style},
    values::{Carried, LOCALE},
};
use crate::{Phone, money};

pub(super) const FILTERS: [&str; 24] = [
    "abs",
    "capitalize",
    "count",
    "d",
    "date",
    "default",
    "first",
    "float",
    "int",
    "join",
    "last",
    "length",
    "lower",
    "max",
    "min",
    "money",
    "phone",
    "replace",
    "round",
    "time",
    "title",
    "trim",
    "truncate",
    "upper",
];

pub(super) const TESTS: [&str; 12] = [
    "defined",
    "divisibleby",
    "endingwith",
    "even",
    "in",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "undefined",
];

/// What a render may cost: instructions, and 64 bytes of data each.
const FUEL: u64 = 20_000;

/// An environment in which a template can read its values and nothing else: no loader, no function but `link`, no
/// escaping.
pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_debug(false);
    env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(50);
    env.set_formatter(write);
    env.add_function("link", link::link);
    env.add_filter("default", default);
    env.add_filter("d", default);
    env.add_filter("upper", |value: Value| map(value, |text| text.to_uppercase()));
    env.add_filter("lower", |value: Value| map(value, |text| text.to_lowercase()));
    env.add_filter("trim", |value: Value| map(value, |text| text.trim().to_owned()));
    env.add_filter("title", |value: Value| map(value, title));
    env.add_filter("capitalize", |value: Value| map(value, capitalize));
    env.add_filter("replace", |value: Value, from: &str, to: &str| {
        map(value, |text| text.replace(from, to))
    });
    env.add_filter("truncate", |value: Value, length: usize| {
        map(value, |text| truncate(text, length))
    });
    env.add_filter("money", money);
    env.add_filter("date", date);
    env.add_filter("time", time);
    env.add_filter("phone", phone);
    env.add_filter("abs", filters::abs);
    env.add_filter("round", filters::round);
    env.add_filter("int", filters::int);
    env.add_filter("float", filters::float);
    env.add_filter("length", filters::length);
    env.add_filter("count", filters::length);
    env.add_filter("first", filters::first);
    env.add_filter("last", filters::last);
    env.add_filter("min", filters::min);
    env.add_filter("max", filters::max);
    env.add_filter("join", filters::join);
    env.add_test("defined", tests::is_defined);
    env.add_test("undefined", tests::is_undefined);
    env.add_test("none", |value: &Value| is_missing(value));
    env.add_test("number", tests::is_number);
    env.add_test("sequence", tests::is_sequence);
    env.add_test("mapping", tests::is_mapping);
    env.add_test("odd", tests::is_odd);
    env.add_test("even", tests::is_even);
    env.add_test("divisibleby", tests::is_divisibleby);
    env.add_test("startingwith", tests::is_startingwith);
    env.add_test("endingwith", tests::is_endingwith);
    env.add_test("in", tests::is_in);
    env
}

/// What a filter of ours expected; safe to show, because it holds no value.
#[derive(Debug)]
pub(super) struct Expected(pub(super) &'static str);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Expected {}

pub(super) fn expected(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what).with_source(Expected(what))
}

pub(super) fn is_missing(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => true,
        ValueKind::String => value.as_str().is_some_and(|text| text.trim().is_empty()),
        _ => false,
    }
}

fn default(value: &Value, fallback: Value) -> Value {
    match is_missing(value) {
        true => fallback,
        false => value.clone(),
    }
}

/// Applies `change` to a text; what is missing stays so.
fn map(value: Value, change: impl FnOnce(&str) -> String) -> Value {
    match value.kind() {
        _ if is_missing(&value) => Value::UNDEFINED,
        ValueKind::String => Value::from(change(value.as_str().unwrap_or_default())),
        ValueKind::Number | ValueKind::Bool => Value::from(change(&value.to_string())),
        _ => value,
    }
}

/// `jean-pierre d'ALMEIDA` as `Jean-Pierre D'Almeida`.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        match inside {
            true => titled.extend(character.to_lowercase()),
            false => titled.extend(character.to_uppercase()),
        }
        inside = character.is_alphanumeric();
    }
    titled
}

fn capitalize(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().collect::<String>() + &characters.as_str().to_lowercase(),
        None => String::new(),
    }
}

fn truncate(text: &str, length: usize) -> String {
    text.graphemes(true)
        .take(length)
        .collect::<String>()
        .trim_end()
        .to_owned()
}

fn in_locale<T>(state: &State<'_, '_>, act: impl FnOnce(&Locale) -> T) -> T {
    let carried = state.lookup(LOCALE);
    match carried
        .as_ref()
        .and_then(|value| value.downcast_object_ref::<Carried>())
    {
        Some(carried) => act(&carried.0),
        None => act(&Locale::default()),
    }
}

/// An amount: `{{ event.amount | money }}`, or in another currency `| money('USD')`.
fn money(state: &State<'_, '_>, value: Value, currency: Rest<Value>) -> Result<Value, Error> {
    const WRONG: &str = "money: expected a number such as 12.5 or \"12.50\"";
    if is_missing(&value) {
        return Ok(Value::UNDEFINED);
    }
    let micros = match value.kind() {
        ValueKind::Number => f64::try_from(value.clone())
            .ok()
            .map(|number| (number * 1_000_000.0).round())
            .filter(|micros| micros.abs() < 9.0e18)
            .map(|micros| micros as i64),
        ValueKind::String => value.as_str().and_then(money::parse_micros),
        _ => None,
    }
    .ok_or_else(|| expected(WRONG))?;
    let given = match currency.first() {
        None => None,
        Some(given) => Some(
            given
                .as_str()
                .filter(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase()))
                .ok_or_else(|| expected("money: expected a currency such as 'EUR' (ISO 4217)"))?,
        ),
    };
    Ok(in_locale(state, |locale| {
        let own = match locale.currency.is_empty() {
            true => "EUR",
            false => &locale.currency,
        };
        Value::from(money::format_micros(micros, given.unwrap_or(own), locale.language))
    }))
}

/// A date by the reader's calendar: `| date`, `| date('long')`, `| date('day')`.
fn date(state: &State<'_, '_>, value: Value, style: Rest<Value>) -> Result<Value, Error> {
    if is_missing(&value) {
        return Ok(Value::UNDEFINED);
    }
    let style = match style.first() {
        None => Style::Short,
        Some(word) => word
            .as_str()
            .and_then(Style::of)
            .ok_or_else(|| expected("date: expected 'short', 'long' or 'day'"))?,
    };
    in_locale(state, |locale| {
        let moment = value
            .as_str()
            .and_then(|text| Moment::read(text, &locale.zone))
            .ok_or_else(|| expected("date: expected a date such as 2026-11-24, or a time in RFC 3339"))?;
        Ok(Value::from(locale.date(moment.date, style)))
    })
}

/// A time by the reader's clock.
fn time(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    if is_missing(&value) {
        return Ok(Value::UNDEFINED);
    }
    in_locale(state, |locale| {
        let time = value
            .as_str()
            .and_then(|text| Moment::read(text, &locale.zone)?.time)
            .ok_or_else(|| expected("time: expected a time in RFC 3339 such as 2026-11-24T18:00:00+04:00"))?;
        Ok(Value::from(locale.time(time)))
    })
}

/// A number as it is dialled in the reader's country, and internationally elsewhere.
fn phone(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    if is_missing(&value) {
        return Ok(Value::UNDEFINED);
    }
    in_locale(state, |locale| {
        value
            .as_str()
            .and_then(|text| Phone::parse(text, locale.country.as_deref()).ok())
            .and_then(|phone| written(&phone, locale.country.as_deref()))
            .map(Value::from)
            .ok_or_else(|| expected("phone: expected a number such as +262692123456"))
    })
}

fn written(phone: &Phone, country: Option<&str>) -> Option<String> {
    let number = phonenumber::parse(None, phone.e164()).ok()?;
    let theirs = number.country().id().map(|id| format!("{id:?}"));
    let mode = match theirs.as_deref() == country && country.is_some() {
        true => phonenumber::Mode::National,
        false => phonenumber::Mode::International,
    };
    Some(number.format().mode(mode).to_string())
}

/// Writes a value into the text, as it is: nothing is escaped anywhere.
fn write(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => return Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            match in_locale(state, |locale| {
                Moment::read(text, &locale.zone).map(|moment| locale.moment(moment))
            }) {
                Some(moment) => out.write_str(&moment)?,
                None => out.write_str(text)?,
            }
        }
        ValueKind::Number if value.is_integer() => out.write_str(&value.to_string())?,
        ValueKind::Number => {
            let number = value.to_string();
            match in_locale(state, |locale| locale.language) {
                Language::French => out.write_str(&number.replace('.', ","))?,
                _ => out.write_str(&number)?,
            }
        }
        ValueKind::Bool => out.write_str(match (value.is_true(), in_locale(state, |locale| locale.language)) {
            (true, Language::French) => "oui",
            (false, Language::French) => "non",
            (true, _) => "yes",
            (false, _) => "no",
        })?,
        _ => {
            return Err(expected(
                "a list or an object cannot be written into a text: expected one of its values, or `| join(', ')`",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn names_are_written_as_names() {
        assert_eq!(title("jean-pierre d'ALMEIDA"), "Jean-Pierre D'Almeida");
        assert_eq!(title("éLODIE"), "Élodie");
        assert_eq!(capitalize("éLODIE payet"), "Élodie payet");
        assert_eq!(truncate("a👨‍👩‍👧‍👦bc", 2), "a👨‍👩‍👧‍👦");
    }

    #[test]
    fn every_filter_and_test_that_is_named_is_there() {
        let env = environment();
        for name in FILTERS {
            let source = format!("{{{{ x | {name} }}}}");
            let error = env.render_str(&source, minijinja::context!(x => 1)).err();
            assert!(
                error.is_none_or(|error| error.kind() != ErrorKind::UnknownFilter),
                "{name}"
            );
        }
        for name in TESTS {
            let source = format!("{{{{ x is {name} }}}}");
            let error = env.render_str(&source, minijinja::context!(x => 1)).err();
            assert!(
                error.is_none_or(|error| error.kind() != ErrorKind::UnknownTest),
                "{name}"
            );
        }
    }
}
