//! Whether a contact matches, in memory. The rules stand in the module's doc; the SQL of the store follows the same.

use std::{borrow::Cow, cell::RefCell, collections::HashMap, sync::Arc};

use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use serde_json::{Map, Value};

use super::{
    Expression,
    number::Decimal,
    tree::{
        Comparison, Did, Field, Filter, Literal, Measure, Node, Operand, Path, Start, Subject, Test, Which, Window,
    },
};
use crate::{Consent, Contact};

/// Something that a contact did.
#[derive(Clone, Copy, Debug)]
pub struct Occurrence<'a> {
    pub kind: &'a str,
    /// With the id its identity; it orders what happened at the same instant.
    pub source: &'a str,
    pub id: &'a str,
    pub time: Timestamp,
    pub data: &'a Map<String, Value>,
}

/// What a contact did, in any order: at least all of the types that [`Expression::did_types`] names.
#[derive(Clone, Debug, Default)]
pub struct Past<'a> {
    pub occurrences: Vec<Occurrence<'a>>,
    /// The campaigns of which a message was accepted for the contact, by name and by id: all, where
    /// [`Expression::asks_received_with`] says so.
    pub received: &'a [String],
}

impl<'a> FromIterator<Occurrence<'a>> for Past<'a> {
    fn from_iter<I: IntoIterator<Item = Occurrence<'a>>>(occurrences: I) -> Self {
        Past {
            occurrences: occurrences.into_iter().collect(),
            received: &[],
        }
    }
}

/// How named audiences are looked up.
pub type Audiences<'a> = &'a dyn Fn(&str) -> Option<Arc<Expression>>;

/// Audiences within audiences beyond this hold for nobody; `apply` refuses them, and circles, before.
pub const MAX_NESTED_AUDIENCES: usize = 16;

/// A JSON scalar or a field.
pub(super) enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(Decimal),
    Bool(bool),
}

impl<'a> Scalar<'a> {
    pub(super) fn of(value: &'a Value) -> Option<Scalar<'a>> {
        match value {
            Value::String(text) => Some(Scalar::Text(text.as_str().into())),
            Value::Number(number) => Some(Scalar::Number(Decimal::from_json(number))),
            Value::Bool(value) => Some(Scalar::Bool(*value)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn text(&self) -> Cow<'_, str> {
        match self {
            Scalar::Text(text) => Cow::Borrowed(text),
            Scalar::Number(number) => number.to_string().into(),
            Scalar::Bool(value) => if *value { "true" } else { "false" }.into(),
        }
    }

    fn number(&self) -> Option<Decimal> {
        match self {
            Scalar::Text(text) => Decimal::from_text(text),
            Scalar::Number(number) => Some(number.clone()),
            Scalar::Bool(_) => None,
        }
    }

    /// The date that a text begins with, as text: `YYYY-MM-DD`, at its end or followed by `T` or a space.
    fn date(&self) -> Option<&str> {
        let Scalar::Text(text) = self else { return None };
        let bytes = text.as_bytes();
        let ends = bytes.len() == 10 || matches!(bytes.get(10), Some(b'T' | b' '));
        let digits = |range: std::ops::Range<usize>| {
            bytes
                .get(range)
                .filter(|part| part.iter().all(u8::is_ascii_digit))
                .map(|part| {
                    part.iter()
                        .fold(0_u32, |number, digit| number * 10 + u32::from(digit - b'0'))
                })
        };
        digits(0..4)?;
        let (month, day) = (digits(5..7)?, digits(8..10)?);
        let shaped = bytes.get(4) == Some(&b'-') && bytes.get(7) == Some(&b'-') && ends;
        (shaped && (1..=12).contains(&month) && (1..=31).contains(&day)).then(|| &text[..10])
    }
}

/// A value on a path through JSON objects; `None` where it is not set.
pub(super) fn find<'a>(data: &'a Map<String, Value>, path: &Path) -> Option<&'a Value> {
    let (first, rest) = path.0.split_first()?;
    rest.iter()
        .try_fold(data.get(first)?, |value, name| value.as_object()?.get(name))
}

/// A date as texts are compared with it.
pub fn iso(date: Date) -> String {
    if date.year() < 1 {
        return "0000-01-01".to_owned();
    }
    date.to_string()
}

/// All that an evaluation looks at.
pub(super) struct Context<'a> {
    pub contact: &'a Contact,
    pub past: &'a Past<'a>,
    pub event: Option<&'a Map<String, Value>>,
    pub audiences: Audiences<'a>,
    pub now: Timestamp,
    /// What is known of named audiences, by how deeply they are nested: each is asked once, however often it is named.
    members: RefCell<HashMap<String, [Option<bool>; MAX_NESTED_AUDIENCES]>>,
}

/// The date at `now`, in UTC.
pub fn today(now: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(now).date()
}

/// The latest birth date of somebody who is at least `age` on `today`. Born on 29 February, one is a year older on 1 March
/// of a year that has none.
pub fn born_by(today: Date, age: u32) -> Date {
    today.checked_sub(i64::from(age).years()).unwrap_or(Date::MIN)
}

/// The first day of the last `days` before `today`.
pub fn days_before(today: Date, days: i64) -> Date {
    today.checked_sub(days.days()).unwrap_or(Date::MIN)
}

/// When a window begins and ends (exclusively).
pub fn bounds(window: &Window, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
    let midnight = |date: Date| TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok();
    let from = match window.from {
        None => None,
        Some(Start::Within(span)) => Some(now.checked_sub(span.duration()).unwrap_or(Timestamp::MIN)),
        Some(Start::Since(date)) => midnight(date),
    };
    (from, window.before.and_then(midnight))
}

impl<'a> Context<'a> {
    pub(super) fn new(
        contact: &'a Contact,
        past: &'a Past<'a>,
        event: Option<&'a Map<String, Value>>,
        audiences: Audiences<'a>,
        now: Timestamp,
    ) -> Context<'a> {
        Context {
            contact,
            past,
            event,
            audiences,
            now,
            members: RefCell::default(),
        }
    }
}

impl Context<'_> {
    pub(super) fn node(&self, node: &Node, nested: usize) -> bool {
        match node {
            Node::And(nodes) => nodes.iter().all(|node| self.node(node, nested)),
            Node::Or(nodes) => nodes.iter().any(|node| self.node(node, nested)),
            Node::Not(node) => !self.node(node, nested),
            Node::Is(subject, test) => self.is(subject, test),
            Node::Did(did) => self.did(did),
            Node::Received(campaign) => self.past.received.contains(campaign),
            Node::Member(name) => nested < MAX_NESTED_AUDIENCES && self.member(name, nested),
        }
    }

    fn member(&self, name: &str, nested: usize) -> bool {
        let known = self.members.borrow().get(name).and_then(|known| known[nested]);
        if let Some(holds) = known {
            return holds;
        }
        let holds = (self.audiences)(name).is_some_and(|audience| self.node(audience.root(), nested + 1));
        self.members.borrow_mut().entry(name.to_owned()).or_default()[nested] = Some(holds);
        holds
    }

    fn is(&self, subject: &Subject, test: &Test) -> bool {
        let contact = self.contact;
        let text = |field: &'_ Option<String>| field.as_deref().map(|text| Scalar::Text(text.to_owned().into()));
        let scalar = match subject {
            Subject::Field(Field::BirthDate) => return self.birth_date(test),
            Subject::Field(Field::Age) => return self.age(test),
            Subject::Field(Field::Id) => Some(Scalar::Text(contact.id.as_str().into())),
            Subject::Field(Field::Phone) => contact.phone.as_ref().map(|phone| Scalar::Text(phone.e164().into())),
            Subject::Field(Field::FirstName) => text(&contact.first_name),
            Subject::Field(Field::LastName) => text(&contact.last_name),
            Subject::Field(Field::Gender) => text(&contact.gender),
            Subject::Field(Field::City) => text(&contact.city),
            Subject::Field(Field::Region) => text(&contact.region),
            Subject::Field(Field::PostalCode) => text(&contact.postal_code),
            Subject::Field(Field::Language) => text(&contact.language),
            Subject::Field(Field::TimeZone) => text(&contact.time_zone),
            Subject::Field(Field::MarketingConsent) => match contact.marketing_consent {
                Consent::Unset => None,
                Consent::No => Some(Scalar::Bool(false)),
                Consent::Given(_) => Some(Scalar::Bool(true)),
            },
            Subject::Field(Field::Attribute(name)) => contact.attributes.get(name).and_then(Scalar::of),
            Subject::Event(path) => self.event.and_then(|event| find(event, path)).and_then(Scalar::of),
        };
        self.test(scalar.as_ref(), test)
    }

    fn birth_date(&self, test: &Test) -> bool {
        let born = self.contact.birth_date;
        match test {
            Test::IsSet => born.is_some(),
            Test::Compare(Comparison::NotEqual, Operand::Literal(Literal::Date(date))) => born != Some(*date),
            Test::Compare(comparison, Operand::Literal(Literal::Date(date))) => {
                born.is_some_and(|born| comparison.holds(&born, date))
            }
            Test::In(list) => born.is_some_and(|born| list.contains(&Literal::Date(born))),
            Test::Within(span) => born.is_some_and(|born| {
                let today = today(self.now);
                days_before(today, span.days()) <= born && born <= today
            }),
            _ => false,
        }
    }

    /// Somebody who is not born yet has no age.
    fn age(&self, test: &Test) -> bool {
        let today = today(self.now);
        let born = self.contact.birth_date.filter(|born| *born <= today);
        let at_least = |age: u32| born.is_some_and(|born| born <= born_by(today, age));
        let exactly = |age: u32| at_least(age) && !at_least(age + 1);
        match test {
            Test::IsSet => born.is_some(),
            Test::In(list) => list.iter().filter_map(whole).any(exactly),
            Test::Compare(comparison, Operand::Literal(literal)) => {
                let Some(age) = whole(literal) else { return false };
                match comparison {
                    Comparison::Equal => exactly(age),
                    Comparison::NotEqual => !exactly(age),
                    Comparison::Less => born.is_some() && !at_least(age),
                    Comparison::LessOrEqual => born.is_some() && !at_least(age + 1),
                    Comparison::Greater => at_least(age + 1),
                    Comparison::GreaterOrEqual => at_least(age),
                }
            }
            _ => false,
        }
    }

    fn test(&self, value: Option<&Scalar<'_>>, test: &Test) -> bool {
        // `!=` is the negation of `=`: it holds for what is not set.
        if let Test::Compare(Comparison::NotEqual, operand) = test {
            return !self.compare(value, Comparison::Equal, operand);
        }
        match test {
            Test::Compare(comparison, operand) => self.compare(value, *comparison, operand),
            Test::In(list) => value.is_some_and(|value| list.iter().any(|one| compare(value, Comparison::Equal, one))),
            Test::Contains(operand) => self.both(value, operand, |text, part| text.contains(part)),
            Test::StartsWith(operand) => self.both(value, operand, |text, part| text.starts_with(part)),
            Test::IsSet => value.is_some(),
            Test::Within(span) => {
                let today = today(self.now);
                let from = iso(days_before(today, span.days()));
                value
                    .and_then(Scalar::date)
                    .is_some_and(|date| from.as_str() <= date && *date <= *iso(today))
            }
        }
    }

    fn both(&self, value: Option<&Scalar<'_>>, operand: &Operand, holds: fn(&str, &str) -> bool) -> bool {
        let Some(value) = value else { return false };
        match operand {
            Operand::Literal(Literal::Text(part)) => holds(&value.text(), part),
            Operand::Literal(_) => false,
            Operand::Event(path) => self
                .event
                .and_then(|event| find(event, path))
                .and_then(Scalar::of)
                .is_some_and(|part| holds(&value.text(), &part.text())),
        }
    }

    fn compare(&self, value: Option<&Scalar<'_>>, comparison: Comparison, operand: &Operand) -> bool {
        let Some(value) = value else { return false };
        match operand {
            Operand::Literal(literal) => compare(value, comparison, literal),
            Operand::Event(path) => {
                let Some(other) = self.event.and_then(|event| find(event, path)).and_then(Scalar::of) else {
                    return false;
                };
                let literal = match other {
                    Scalar::Text(text) => Literal::Text(text.into_owned()),
                    Scalar::Number(number) => Literal::Number(number),
                    Scalar::Bool(value) => Literal::Bool(value),
                };
                compare(value, comparison, &literal)
            }
        }
    }

    fn did(&self, did: &Did) -> bool {
        let of_type = || {
            self.past
                .occurrences
                .iter()
                .filter(|occurrence| occurrence.kind == did.kind)
        };
        let (from, before) = bounds(&did.window, self.now);
        // As exact as PostgreSQL keeps instants.
        let fits = |occurrence: &&Occurrence<'_>| {
            let at = occurrence.time.as_microsecond();
            from.is_none_or(|from| at >= from.as_microsecond())
                && before.is_none_or(|before| at < before.as_microsecond())
                && self.all(&did.filters, occurrence.data)
        };
        let key = |occurrence: &&Occurrence<'_>| {
            (
                occurrence.time.as_microsecond(),
                occurrence.source.to_owned(),
                occurrence.id.to_owned(),
            )
        };
        match did.which {
            Which::First => return of_type().min_by_key(key).is_some_and(|first| fits(&first)),
            Which::Last => return of_type().max_by_key(key).is_some_and(|last| fits(&last)),
            Which::Any => {}
        }
        match &did.measure {
            Measure::Exists => of_type().any(|occurrence| fits(&occurrence)),
            Measure::Count(comparison, count) => comparison.holds(&of_type().filter(fits).count(), &(*count as usize)),
            Measure::Sum(path, comparison, number) => {
                let sum: i128 = of_type()
                    .filter(fits)
                    .filter_map(|occurrence| find(occurrence.data, path).and_then(Scalar::of)?.number()?.to_nano())
                    .sum();
                // What people write has at most nine digits after the point.
                number.to_nano().is_some_and(|number| comparison.holds(&sum, &number))
            }
        }
    }

    /// Whether an event's data passes all filters.
    pub(super) fn all(&self, filters: &[Filter], data: &Map<String, Value>) -> bool {
        filters.iter().all(|filter| {
            let value = find(data, &filter.path).and_then(Scalar::of);
            self.test(value.as_ref(), &filter.test) != filter.negated
        })
    }
}

fn whole(literal: &Literal) -> Option<u32> {
    match literal {
        Literal::Number(number) => number.to_whole(),
        _ => None,
    }
}

/// The literal's type decides how a value is read.
fn compare(value: &Scalar<'_>, comparison: Comparison, literal: &Literal) -> bool {
    match literal {
        Literal::Text(text) => comparison.holds(&&*value.text(), &text.as_str()),
        Literal::Bool(flag) => comparison.holds(&&*value.text(), &if *flag { "true" } else { "false" }),
        Literal::Number(number) => value.number().is_some_and(|value| comparison.holds(&value, number)),
        Literal::Date(date) => value
            .date()
            .is_some_and(|value| comparison.holds(&value, &iso(*date).as_str())),
    }
}
