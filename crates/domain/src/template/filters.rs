//! The filters and tests of a text, and how a value is written where no filter says how.
//!
//! What is missing passes through every filter that changes a text, so that `| title | default('…')` works in either
//! order; only `default` replaces it, and writing it is an error.

use std::{borrow::Cow, fmt};

use minijinja::{
    Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, filters, tests,
    value::{Kwargs, Rest, ValueKind},
};
use unicode_segmentation::UnicodeSegmentation as _;

use super::{
    Language, Locale, MAX_BYTES, link,
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
    env.add_filter("upper", upper);
    env.add_filter("lower", lower);
    env.add_filter("trim", |value: Value| map(value, |text| text.trim().to_owned()));
    env.add_filter("title", title);
    env.add_filter("capitalize", capitalize);
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
    env.add_filter("abs", |value: Value| given(value, filters::abs));
    env.add_filter("round", round);
    env.add_filter("int", int);
    env.add_filter("float", float);
    env.add_filter("length", length);
    env.add_filter("count", length);
    env.add_filter("first", |value: Value| given(value, |value| filters::first(&value)));
    env.add_filter("last", |value: Value| given(value, filters::last));
    env.add_filter("min", min);
    env.add_filter("max", max);
    env.add_filter("join", join);
    env.add_test("defined", tests::is_defined);
    env.add_test("undefined", tests::is_undefined);
    env.add_test("none", |value: &Value| is_missing(value));
    env.add_test("number", tests::is_number);
    env.add_test("sequence", tests::is_sequence);
    env.add_test("mapping", tests::is_mapping);
    env.add_test("odd", tests::is_odd);
    env.add_test("even", tests::is_even);
    env.add_test("divisibleby", tests::is_divisibleby);
    env.add_test("startingwith", |value: &Value, start: &str| {
        value.as_str().is_some_and(|text| text.starts_with(start))
    });
    env.add_test("endingwith", |value: &Value, end: &str| {
        value.as_str().is_some_and(|text| text.ends_with(end))
    });
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

/// Applies `change` to a text; what is missing stays so, and a text of which nothing is left is missing.
fn map(value: Value, change: impl FnOnce(&str) -> String) -> Value {
    let changed = match value.kind() {
        _ if is_missing(&value) => return Value::UNDEFINED,
        ValueKind::String => change(value.as_str().unwrap_or_default()),
        ValueKind::Number | ValueKind::Bool => change(&value.to_string()),
        _ => return value,
    };
    match changed.trim().is_empty() {
        true => Value::UNDEFINED,
        false => Value::from(changed),
    }
}

/// Applies a filter of the engine's; what is missing stays so.
fn given(value: Value, filter: impl FnOnce(Value) -> Result<Value, Error>) -> Result<Value, Error> {
    match is_missing(&value) {
        true => Ok(Value::UNDEFINED),
        false => filter(value),
    }
}

fn round(value: Value, precision: Option<i32>, method: Option<&str>, options: Kwargs) -> Result<Value, Error> {
    given(value, |value| filters::round(value, precision, method, options))
}

fn int(
    state: &State<'_, '_>,
    value: Value,
    fallback: Option<Value>,
    base: Option<u32>,
    options: Kwargs,
) -> Result<Value, Error> {
    if is_missing(&value) {
        return Ok(fallback.or(options.get("default")?).unwrap_or(Value::UNDEFINED));
    }
    filters::int(state, &value, fallback, base, options)
}

fn float(state: &State<'_, '_>, value: Value, fallback: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    if is_missing(&value) {
        return Ok(fallback.or(options.get("default")?).unwrap_or(Value::UNDEFINED));
    }
    filters::float(state, &value, fallback, options)
}

fn length(value: Value) -> Result<Value, Error> {
    given(value, |value| filters::length(&value).map(Value::from))
}

fn min(state: &State<'_, '_>, value: Value, options: Kwargs) -> Result<Value, Error> {
    given(value, |value| filters::min(state, value, options))
}

fn max(state: &State<'_, '_>, value: Value, options: Kwargs) -> Result<Value, Error> {
    given(value, |value| filters::max(state, value, options))
}

/// The values of a list in one text: `{{ event.sizes | join(', ') }}`, or of its objects `| join(', ', 'name')`. Where the
/// list is empty or one of its values is missing the whole is: "Bonjour ," must never go out.
fn join(
    state: &State<'_, '_>,
    value: Value,
    between: Option<&str>,
    attribute: Option<&str>,
    options: Kwargs,
) -> Result<Value, Error> {
    let between = match between {
        Some(between) => between,
        None => options.get::<Option<&str>>("d")?.unwrap_or_default(),
    };
    let attribute = match attribute {
        Some(attribute) => Some(attribute),
        None => options.get::<Option<&str>>("attribute")?,
    };
    options.assert_all_used()?;
    if is_missing(&value) {
        return Ok(Value::UNDEFINED);
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(expected("join: expected a list"));
    }
    let mut joined = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        let item = match attribute {
            Some(attribute) => item.get_attr(attribute)?,
            None => item,
        };
        if is_missing(&item) {
            return Ok(Value::UNDEFINED);
        }
        if index > 0 {
            joined.push_str(between);
        }
        joined.push_str(&spelled(state, &item)?);
        // A list of the engine's making can be of any length.
        if joined.len() > MAX_BYTES {
            return Err(expected("join: expected a list that a text can hold"));
        }
    }
    match joined.trim().is_empty() {
        true => Ok(Value::UNDEFINED),
        false => Ok(Value::from(joined)),
    }
}

fn language(state: &State<'_, '_>) -> Language {
    in_locale(state, |locale| locale.language)
}

fn upper(state: &State<'_, '_>, value: Value) -> Value {
    map(value, |text| language(state).upper(text))
}

fn lower(state: &State<'_, '_>, value: Value) -> Value {
    map(value, |text| language(state).lower(text))
}

fn title(state: &State<'_, '_>, value: Value) -> Value {
    map(value, |text| titled(text, language(state)))
}

fn capitalize(state: &State<'_, '_>, value: Value) -> Value {
    map(value, |text| capitalized(text, language(state)))
}

/// `jean-pierre d'ALMEIDA` as `Jean-Pierre D'Almeida`.
fn titled(text: &str, language: Language) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        match inside {
            true => language.push_lower(character, &mut titled),
            false => language.push_upper(character, &mut titled),
        }
        inside = character.is_alphanumeric();
    }
    titled
}

fn capitalized(text: &str, language: Language) -> String {
    let mut capitalized = String::with_capacity(text.len());
    let mut characters = text.chars();
    if let Some(first) = characters.next() {
        language.push_upper(first, &mut capitalized);
        capitalized.push_str(&language.lower(characters.as_str()));
    }
    capitalized
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
    out.write_str(&spelled(state, value)?)?;
    Ok(())
}

/// A value in the reader's language.
fn spelled<'v>(state: &State<'_, '_>, value: &'v Value) -> Result<Cow<'v, str>, Error> {
    Ok(match value.kind() {
        ValueKind::Undefined | ValueKind::None => return Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            let moment = in_locale(state, |locale| {
                Moment::read(text, &locale.zone).map(|moment| locale.moment(moment))
            });
            moment.map_or(Cow::Borrowed(text), Cow::Owned)
        }
        ValueKind::Number if value.is_integer() => Cow::Owned(value.to_string()),
        ValueKind::Number => {
            let number = value.to_string();
            match language(state).has_decimal_comma() {
                true => Cow::Owned(number.replace('.', ",")),
                false => Cow::Owned(number),
            }
        }
        ValueKind::Bool => Cow::Borrowed(language(state).yes_or_no(value.is_true())),
        _ => {
            return Err(expected(
                "a list or an object cannot be written into a text: expected one of its values, or `| join(', ')`",
            ));
        }
    })
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn names_are_written_as_names() {
        use Language::{English, French, Turkish};
        assert_eq!(titled("jean-pierre d'ALMEIDA", French), "Jean-Pierre D'Almeida");
        assert_eq!(titled("éLODIE", French), "Élodie");
        assert_eq!(capitalized("éLODIE payet", French), "Élodie payet");
        // The dot of the Turkish i stays where it is.
        assert_eq!(titled("irem ILGAZ", Turkish), "İrem Ilgaz");
        assert_eq!(titled("ışık İNCİ", Turkish), "Işık İnci");
        assert_eq!(capitalized("İSTANBUL", Turkish), "İstanbul");
        assert_eq!(titled("irem ILGAZ", English), "Irem Ilgaz");
        assert_eq!((Turkish.upper("iı"), Turkish.lower("Iİ")), ("İI".into(), "ıi".into()));
        assert_eq!((French.upper("iı"), French.lower("IÉ")), ("II".into(), "ié".into()));
        assert_eq!(truncate("a👨‍👩‍👧‍👦bc", 2), "a👨‍👩‍👧‍👦");
    }

    #[test]
    fn a_loop_does_not_go_deeper_than_it_may() {
        let nested =
            |depth: usize| (0..depth).fold(Value::from(Vec::<Value>::new()), |inside, _| Value::from(vec![inside]));
        let render = |depth| {
            environment().render_str(
                "{% for x in t recursive %}.{{ loop(x) }}{% endfor %}",
                minijinja::context!(t => nested(depth)),
            )
        };
        assert_eq!(render(10).unwrap(), ".".repeat(10));
        let error = render(200).unwrap_err();
        assert!(format!("{error:?}").contains("recursion"), "{error:?}");
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
