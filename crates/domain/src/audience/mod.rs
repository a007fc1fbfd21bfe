//! The audience language: who is written to, as a condition on a contact and what the contact did.
//!
//! ```text
//! gender = "female" and age < 30 and region = "north"
//!     and did order.placed(category = "shoes") within 30 days
//! ```
//!
//! # Grammar
//! ```text
//! condition = FIELD test | "did" ["not"] ["first" | "last"] TYPE ["(" PROPERTY test {"," PROPERTY test} ")"]
//!                              ["count" op N | "sum(" PROPERTY ")" op NUMBER] ["within" N UNIT | "since" DATE] ["before" DATE]
//!           | "in audience" NAME | "received campaign" NAME | "not" condition | "(" condition ")" | condition "and" condition | condition "or" condition
//! test      = op value | ["not"] "in (" value {"," value} ")" | ["not"] "contains" TEXT | ["not"] "starts with" TEXT
//!           | "is" ["not"] "set" | "within" N ("days" | "weeks")
//! op        = "=" | "!=" | "<" | "<=" | ">" | ">="
//! value     = TEXT | NUMBER | DATE | "true" | "false" | "event." PROPERTY (in triggers)
//! ```
//! `not` binds most, then `and`, then `or`. Keywords are read in any case, names exactly as they are. A text stands in
//! `"` or `'` with `\` escapes; a date is `2026-01-31`; a name that is no plain word stands in backquotes. Any field that
//! is not built in ([`tree::Field::BUILT_IN`]) is an attribute of the contact; dots lead into an event's nested objects.
//!
//! # What holds
//! 1. Logic is two-valued. A value that is absent, JSON null, a list or an object is *not set* and fails every test; so
//!    `not` of a test and `!=`, which is `not … =`, hold for it.
//! 2. The literal's type decides how a value is read:
//!    - a *text* and `true`/`false` are compared with the value's text: a number's is its plain decimal form without
//!      trailing zeros (`97400`, `1.5`), a boolean's is `true` or `false`. The order of texts is by code point;
//!      everything is case-sensitive;
//!    - a *number* is compared exactly with a JSON number, or with a text that is a plain decimal number
//!      ([`number::Decimal::from_text`]: what a CSV cell holds); any other text fails;
//!    - a *date* is compared with a text that begins with a date (`2026-01-31`, `2026-01-31T10:00:00Z`), as written;
//!    - `event.PROPERTY` is read by the type that the event's value has.
//! 3. `age` is in full years on the date at `now` **in UTC**; a person born on 29 February turns on 1 March where the year
//!    has no 29 February. Born after that date, one has no age. `FIELD within N days` is from N days ago up to today, the
//!    same date in UTC.
//! 4. `did … within N UNIT` is from exactly that long before `now` on, with no upper end (a clock may run ahead); `since`
//!    and `before` are that day's midnight in UTC, included and excluded. Instants are exact to the microsecond.
//! 5. `did first TYPE(…)` takes the contact's earliest event of the type (by time, then source, then id) and asks filters
//!    and window of it; `last` likewise. `count` and `sum` are 0 where nothing matches. `sum` adds the numbers (as in 2) to
//!    nine digits after the point, and leaves out those from 10^18 on.
//! 6. `received campaign` holds for whom a gateway took a message of a campaign of that name or id (of all such campaigns,
//!    and of the occurrences of a recurring one), and it was not found undeliverable later.
//! 7. An audience that is not there holds for nobody, nor does one nested deeper than [`MAX_NESTED_AUDIENCES`].
//!    [`Expression::check_reach`] refuses both, and what is too large with its audiences written out, before it is kept.
//!
//! There is one tree and two evaluators: [`Expression::matches`] here, for triggers, and SQL in the store, for campaigns.
//! A property test on a real PostgreSQL holds them equal.

mod evaluate;
mod explain;
mod lexer;
pub mod number;
mod parser;
mod printer;
mod reach;
pub mod tree;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, sync::Arc};

use jiff::Timestamp;
use serde_json::{Map, Value};

pub use evaluate::{Audiences, MAX_NESTED_AUDIENCES, Occurrence, Past, born_by, bounds, days_before, iso, today};
pub use explain::Explained;
pub(crate) use lexer::read_date;
pub use parser::{MAX_CHARACTERS, MAX_CONDITIONS, MAX_DEPTH, MAX_LIST};
pub use reach::{Find, MAX_EXPANDED, ReachError};

use self::{
    evaluate::Context,
    parser::Parser,
    tree::{Field, Filter, Node, Subject, Test},
};
use crate::Contact;

/// A parsed condition. `Display` gives a text that parses to the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression(Node);

/// Where a text is no condition, and what was expected there. It repeats names and signs of the text, never its values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct ParseError {
    /// In characters, from 1.
    pub column: usize,
    pub message: String,
}

/// Reads a condition on contacts.
pub fn parse(text: &str) -> Result<Expression, ParseError> {
    Parser::new(text, false)?.expression().map(Expression)
}

/// Of the fields that every contact can have and of `attributes`, the one that a name which is none of them nearly is:
/// probably what was meant, though any name may be an attribute's.
pub fn nearest(name: &str, attributes: &[String]) -> Option<String> {
    let known: Vec<&str> = attributes.iter().map(String::as_str).collect();
    let field = parser::near_field(name).map(str::to_owned);
    field.or_else(|| parser::closest(name, &known).map(str::to_owned))
}

/// Reads a trigger's condition, where `event.PROPERTY` is the triggering event's own.
pub fn parse_for_trigger(text: &str) -> Result<Expression, ParseError> {
    Parser::new(text, true)?.expression().map(Expression)
}

impl Expression {
    pub fn root(&self) -> &Node {
        &self.0
    }

    /// Whether a contact matches at `now`. `past` holds what the contact did, all of the types of
    /// [`Expression::did_types`] here and in the audiences that are named; `event` is the triggering one's data.
    pub fn matches(
        &self,
        contact: &Contact,
        past: &Past<'_>,
        event: Option<&Map<String, Value>>,
        audiences: Audiences<'_>,
        now: Timestamp,
    ) -> bool {
        Context::new(contact, past, event, audiences, now).node(&self.0, 0)
    }

    /// The event types that it asks after, without those of named audiences.
    pub fn did_types(&self) -> BTreeSet<String> {
        let mut types = BTreeSet::new();
        self.0.walk(&mut |node| {
            if let Node::Did(did) = node {
                types.insert(did.kind.clone());
            }
        });
        types
    }

    /// The event types that it and the audiences that it leads to ask after.
    pub fn did_types_with(&self, audiences: Audiences<'_>) -> BTreeSet<String> {
        let mut types = self.did_types();
        for audience in self.leads_to(audiences) {
            types.extend(audience.did_types());
        }
        types
    }

    /// Whether it or an audience that it leads to asks what campaigns a contact received.
    pub fn asks_received_with(&self, audiences: Audiences<'_>) -> bool {
        self.asks_with(audiences, |node| matches!(node, Node::Received(_)))
    }

    /// Whether it or an audience that it leads to looks at a field of the contact.
    pub fn asks_contact_with(&self, audiences: Audiences<'_>) -> bool {
        self.asks_with(audiences, |node| matches!(node, Node::Is(Subject::Field(_), _)))
    }

    fn asks_with(&self, audiences: Audiences<'_>, what: impl Fn(&Node) -> bool) -> bool {
        let asks = |expression: &Expression| {
            let mut asks = false;
            expression.0.walk(&mut |node| asks |= what(node));
            asks
        };
        asks(self) || self.leads_to(audiences).iter().any(|audience| asks(audience))
    }

    /// The audiences that it names, and those that they name, each once.
    fn leads_to(&self, audiences: Audiences<'_>) -> Vec<Arc<Expression>> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut waiting: Vec<String> = self.audiences().into_iter().collect();
        while let Some(name) = waiting.pop() {
            if let Some(audience) = audiences(&name)
                && seen.insert(name)
            {
                waiting.extend(audience.audiences());
                found.push(audience);
            }
        }
        found
    }

    /// The audiences that it names itself.
    pub fn audiences(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        self.0.walk(&mut |node| {
            if let Node::Member(name) = node {
                names.insert(name.clone());
            }
        });
        names
    }

    /// The properties of events that it and the audiences that it leads to compare for equality with a text: (event type,
    /// path). What an index can find.
    pub fn equal_properties_with(&self, audiences: Audiences<'_>) -> BTreeSet<(String, Vec<String>)> {
        let mut found = BTreeSet::new();
        let mut look = |expression: &Expression| {
            expression.0.walk(&mut |node| {
                let Node::Did(did) = node else { return };
                let equal = did
                    .filters
                    .iter()
                    .filter(|filter| !filter.negated && filter.test.is_equal_to_texts());
                found.extend(equal.map(|filter| (did.kind.clone(), filter.path.0.clone())));
            });
        };
        look(self);
        self.leads_to(audiences).iter().for_each(|audience| look(audience));
        found
    }

    /// The attributes that it asks after.
    pub fn attributes(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        self.0.walk(&mut |node| {
            if let Node::Is(Subject::Field(Field::Attribute(name)), _) = node {
                names.insert(name.clone());
            }
        });
        names
    }

    /// The conditions that must all hold.
    pub fn clauses(&self) -> Vec<Expression> {
        match &self.0 {
            Node::And(nodes) => nodes.iter().cloned().map(Expression).collect(),
            one => vec![Expression(one.clone())],
        }
    }

    /// Membership of a named audience.
    pub fn member(audience: &str) -> Expression {
        Expression(Node::Member(audience.to_owned()))
    }

    /// That all of these hold; `None` of none.
    pub fn all(clauses: &[Expression]) -> Option<Expression> {
        let nodes: Vec<Node> = clauses.iter().map(|clause| clause.0.clone()).collect();
        (!nodes.is_empty()).then(|| Expression(Node::and(nodes)))
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What makes a waiting message unnecessary: that the contact did something in the meantime.
#[derive(Clone, Debug, PartialEq)]
pub struct Unless {
    /// The event's type.
    pub kind: String,
    filters: Vec<Filter>,
}

/// Reads `TYPE` or `TYPE(PROPERTY test, …)`, where `event.PROPERTY` is the triggering event's own.
pub fn parse_unless(text: &str) -> Result<Unless, ParseError> {
    let (kind, filters) = Parser::new(text, true)?.occurrence()?;
    Ok(Unless { kind, filters })
}

impl Unless {
    /// Whether it happened from `since` to `until`, both included. `past` is without the triggering event itself, which may
    /// be of the same type; `event` is that event's data.
    pub fn happened(&self, past: &Past<'_>, event: &Map<String, Value>, since: Timestamp, until: Timestamp) -> bool {
        let nobody = Contact::default();
        let context = Context::new(&nobody, past, Some(event), &|_| None, until);
        let (since, until) = (since.as_microsecond(), until.as_microsecond());
        past.occurrences.iter().any(|occurrence| {
            occurrence.kind == self.kind
                && (since..=until).contains(&occurrence.time.as_microsecond())
                && context.all(&self.filters, occurrence.data)
        })
    }

    /// Whether its filters look at the triggering event.
    pub fn uses_event(&self) -> bool {
        self.filters.iter().any(|filter| test_uses_event(&filter.test))
    }
}

fn test_uses_event(test: &Test) -> bool {
    use tree::Operand::Event;
    matches!(
        test,
        Test::Compare(_, Event(_)) | Test::Contains(Event(_)) | Test::StartsWith(Event(_))
    )
}

impl fmt::Display for Unless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        printer::event_type(f, &self.kind)?;
        printer::filters(f, &self.filters)
    }
}
