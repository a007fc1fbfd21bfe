//! The parsed form of an expression. What the parser builds is already typed: a test fits its field.

use jiff::{SignedDuration, civil::Date};

use super::number::Decimal;

/// A condition on a contact, which holds or does not hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Two or more, none of them an `And` itself.
    And(Vec<Node>),
    /// Two or more, none of them an `Or` itself.
    Or(Vec<Node>),
    Not(Box<Node>),
    Is(Subject, Test),
    Did(Did),
    /// `in audience "NAME"`
    Member(String),
    /// `received campaign "NAME or ID"`
    Received(String),
}

/// What a test looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    Field(Field),
    /// `event.PATH`: the triggering event's own value.
    Event(Path),
}

/// A name, or a way through nested JSON objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path(pub Vec<String>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Id,
    Phone,
    FirstName,
    LastName,
    Gender,
    BirthDate,
    /// Full years since the birth date.
    Age,
    City,
    Region,
    PostalCode,
    Language,
    TimeZone,
    MarketingConsent,
    /// Any other name.
    Attribute(String),
}

impl Field {
    /// The fields that every contact can have.
    pub const BUILT_IN: [(&'static str, Field); 13] = [
        ("id", Field::Id),
        ("phone", Field::Phone),
        ("first_name", Field::FirstName),
        ("last_name", Field::LastName),
        ("gender", Field::Gender),
        ("birth_date", Field::BirthDate),
        ("age", Field::Age),
        ("city", Field::City),
        ("region", Field::Region),
        ("postal_code", Field::PostalCode),
        ("language", Field::Language),
        ("time_zone", Field::TimeZone),
        ("marketing_consent", Field::MarketingConsent),
    ];

    pub fn by_name(name: &str) -> Field {
        let built_in = Field::BUILT_IN.into_iter().find(|(known, _)| *known == name);
        built_in.map_or_else(|| Field::Attribute(name.to_owned()), |(_, field)| field)
    }

    pub fn name(&self) -> &str {
        match self {
            Field::Attribute(name) => name,
            built_in => Field::BUILT_IN
                .iter()
                .find(|(_, field)| field == built_in)
                .map_or("", |(name, _)| name),
        }
    }
}

/// What must be true of a value. A value that is not set fails every test, so its negation holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    Compare(Comparison, Operand),
    In(Vec<Literal>),
    Contains(Operand),
    StartsWith(Operand),
    IsSet,
    /// The date lies in the last days, today included.
    Within(Span),
}

impl Test {
    /// Whether it asks for one of some fixed texts.
    pub fn is_equal_to_texts(&self) -> bool {
        let is_text = |literal: &Literal| matches!(literal, Literal::Text(_));
        match self {
            Test::Compare(Comparison::Equal, Operand::Literal(literal)) => is_text(literal),
            Test::In(list) => list.iter().all(is_text),
            _ => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    Equal,
    /// The negation of `Equal`: it holds for what is not set.
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub const ALL: [Comparison; 6] = [
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Comparison::Equal => "=",
            Comparison::NotEqual => "!=",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        }
    }

    pub fn holds<T: Ord>(self, one: &T, two: &T) -> bool {
        match self {
            Comparison::Equal => one == two,
            Comparison::NotEqual => one != two,
            Comparison::Less => one < two,
            Comparison::LessOrEqual => one <= two,
            Comparison::Greater => one > two,
            Comparison::GreaterOrEqual => one >= two,
        }
    }

    /// The comparison that holds exactly where this one does not.
    pub fn negated(self) -> Comparison {
        match self {
            Comparison::Equal => Comparison::NotEqual,
            Comparison::NotEqual => Comparison::Equal,
            Comparison::Less => Comparison::GreaterOrEqual,
            Comparison::LessOrEqual => Comparison::Greater,
            Comparison::Greater => Comparison::LessOrEqual,
            Comparison::GreaterOrEqual => Comparison::Less,
        }
    }
}

/// What a value is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Literal(Literal),
    Event(Path),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Text(String),
    Number(Decimal),
    Bool(bool),
    /// Of the years 1 to 9999.
    Date(Date),
}

/// `did TYPE(…) …`
#[derive(Clone, Debug, PartialEq)]
pub struct Did {
    pub kind: String,
    pub which: Which,
    /// All must hold.
    pub filters: Vec<Filter>,
    pub measure: Measure,
    pub window: Window,
}

/// What must be true of a property of a past event.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    pub path: Path,
    pub test: Test,
    /// `is not set`, `not in`, …
    pub negated: bool,
}

/// Which of a contact's events of the type are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Any,
    /// The earliest of the type, whatever it says; filters and window are then asked of it.
    First,
    Last,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// At least one.
    Exists,
    Count(Comparison, u32),
    /// The sum of a property's numbers; of none it is 0.
    Sum(Path, Comparison, Decimal),
}

/// When it happened; both ends may be open.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Window {
    pub from: Option<Start>,
    /// Before that day's midnight (UTC).
    pub before: Option<Date>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    Within(Span),
    /// From that day's midnight (UTC) on.
    Since(Date),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    pub amount: u32,
    pub unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Minutes,
    Hours,
    Days,
    Weeks,
}

impl Unit {
    pub const ALL: [Unit; 4] = [Unit::Minutes, Unit::Hours, Unit::Days, Unit::Weeks];

    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Minutes => "minutes",
            Unit::Hours => "hours",
            Unit::Days => "days",
            Unit::Weeks => "weeks",
        }
    }

    fn seconds(self) -> i64 {
        match self {
            Unit::Minutes => 60,
            Unit::Hours => 3_600,
            Unit::Days => 86_400,
            Unit::Weeks => 604_800,
        }
    }
}

impl Span {
    pub fn duration(self) -> SignedDuration {
        SignedDuration::from_secs(i64::from(self.amount) * self.unit.seconds())
    }

    /// In whole days, for dates.
    pub fn days(self) -> i64 {
        i64::from(self.amount) * self.unit.seconds() / 86_400
    }
}

impl Node {
    pub(crate) fn and(nodes: Vec<Node>) -> Node {
        let mut flat = Vec::with_capacity(nodes.len());
        for node in nodes {
            match node {
                Node::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        match flat.len() {
            1 => flat.remove(0),
            _ => Node::And(flat),
        }
    }

    pub(crate) fn or(nodes: Vec<Node>) -> Node {
        let mut flat = Vec::with_capacity(nodes.len());
        for node in nodes {
            match node {
                Node::Or(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        match flat.len() {
            1 => flat.remove(0),
            _ => Node::Or(flat),
        }
    }

    /// Calls `visit` with this node and all below it.
    pub fn walk(&self, visit: &mut dyn FnMut(&Node)) {
        visit(self);
        match self {
            Node::And(nodes) | Node::Or(nodes) => nodes.iter().for_each(|node| node.walk(visit)),
            Node::Not(node) => node.walk(visit),
            Node::Is(..) | Node::Did(_) | Node::Member(_) | Node::Received(_) => {}
        }
    }
}
