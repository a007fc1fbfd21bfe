//! An expression as a condition in SQL, true exactly where [`Expression::matches`] is.
//!
//! The text is made of constants and placeholders alone; every name and value of the expression is a bound parameter.
//! `not` is carried down to the leaves: under `and` and `or` alone, SQL's null counts as false, which is what the language
//! means by a value that is not set, so a leaf stands bare where it must hold (and an index can answer it) and as
//! `(…) is not true` where it must not.
//!
//! What a contact did is asked by `exists` where it must hold of everybody that is found (or must not): the planner makes a
//! semi-join or an anti-join of it. Below an `or` it would become a subplan that is built again for every partition of
//! `contacts`; there it is joined once, from the left, and the condition asks whether there was a match.

use std::{fmt::Write as _, sync::Arc};

use domain::audience::{
    Expression, MAX_NESTED_AUDIENCES, born_by, bounds, days_before, iso,
    number::Decimal,
    today,
    tree::{Comparison, Did, Field, Literal, Measure, Node, Operand, Path, Subject, Test, Which},
};
use jiff::{Timestamp, civil::Date};
use sqlx::{Arguments as _, Encode, Postgres, Type, postgres::PgArguments};

use super::{Indexed, Named};
use crate::{
    StoreError,
    time::{At, Day},
};

/// Audiences that name each other can multiply; PostgreSQL takes 65,535 parameters.
const MAX_PARAMETERS: usize = 20_000;
/// Of a statement's text, in bytes: what is accepted takes a tenth of it.
const MAX_TEXT: usize = 4 * 1024 * 1024;

/// A statement that is being written.
pub(super) struct Sql<'a> {
    text: String,
    arguments: PgArguments,
    count: usize,
    /// Joins that the condition needs.
    joins: Vec<String>,
    audiences: &'a Named,
    indexed: &'a Indexed,
    now: Timestamp,
    failed: Option<StoreError>,
}

/// Where a value stands.
enum Source<'a> {
    /// A column of type text.
    Column(&'static str),
    /// A boolean column, compared as text.
    Flag(&'static str),
    /// Within a jsonb column.
    Json(&'static str, &'a [String]),
}

impl<'a> Sql<'a> {
    /// `indexed`: the properties of events that an index finds by the text's key.
    pub fn new(audiences: &'a Named, indexed: &'a Indexed, now: Timestamp) -> Sql<'a> {
        Sql {
            text: String::new(),
            arguments: PgArguments::default(),
            count: 0,
            joins: Vec::new(),
            audiences,
            indexed,
            now,
            failed: None,
        }
    }

    pub fn push(&mut self, sql: &str) -> &mut Self {
        self.text.push_str(sql);
        self
    }

    /// Writes a placeholder for `value`.
    pub fn bind<T>(&mut self, value: T) -> &mut Self
    where
        T: for<'q> Encode<'q, Postgres> + Type<Postgres>,
    {
        self.count += 1;
        if let Err(error) = self.arguments.add(value) {
            self.failed = Some(StoreError::Refused(sqlx::Error::Encode(error)));
        }
        let _ = write!(self.text, "${}", self.count);
        self
    }

    /// The text and its arguments.
    pub fn finish(self) -> Result<(String, PgArguments), StoreError> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok((self.text, self.arguments)),
        }
    }

    /// Writes `contacts c … where …`: those that match and, where it is given, come after an id.
    pub fn matching(&mut self, expression: &Expression, after: Option<&str>) -> &mut Self {
        let condition = self.apart(|sql| {
            if let Some(after) = after {
                sql.push("c.id > ").bind(after.to_owned()).push(" and ");
            }
            sql.node(expression.root(), true, true, 0);
        });
        let joins = std::mem::take(&mut self.joins).concat();
        self.push("contacts c").push(&joins).push(" where ").push(&condition)
    }

    /// What `write` writes, taken out of the text. Placeholders are numbered, so where it goes does not matter.
    fn apart(&mut self, write: impl FnOnce(&mut Self)) -> String {
        let start = self.text.len();
        write(self);
        self.text.split_off(start)
    }

    /// `all`: everybody that is found must pass this node.
    fn node(&mut self, node: &Node, holds: bool, all: bool, nested: usize) {
        match node {
            Node::And(nodes) => self.joined(nodes, holds, all && holds, nested, if holds { " and " } else { " or " }),
            Node::Or(nodes) => self.joined(
                nodes,
                holds,
                all && !holds,
                nested,
                if holds { " or " } else { " and " },
            ),
            Node::Not(node) => self.node(node, !holds, all, nested),
            Node::Is(subject, test) => self.leaf(holds, |sql| sql.is(subject, test)),
            Node::Did(did) => self.did(did, holds, all),
            Node::Received(campaign) => self.received(campaign, holds),
            Node::Member(name) => {
                let audience = self.audiences.get(name).map(Arc::clone);
                match audience {
                    Some(audience) if nested < MAX_NESTED_AUDIENCES && self.failed.is_none() => {
                        let joins: usize = self.joins.iter().map(String::len).sum();
                        if self.count > MAX_PARAMETERS || self.text.len() + joins > MAX_TEXT {
                            self.failed = Some(StoreError::Corrupt(
                                "an audience leads to too many others: too many conditions in all".into(),
                            ));
                        }
                        self.node(audience.root(), holds, all, nested + 1);
                    }
                    _ => {
                        self.push(if holds { "false" } else { "true" });
                    }
                }
            }
        }
    }

    /// The campaigns of that name or id are few and found first; then their messages by index.
    fn received(&mut self, campaign: &str, holds: bool) {
        self.push(if holds { "c.id in (" } else { "c.id not in (" });
        self.push("select m.contact_id from messages m where m.state = any(");
        self.bind(crate::campaigns::received_states());
        self.push(") and m.campaign_id in (")
            .push(crate::campaigns::NAMED)
            .bind(campaign.to_owned())
            .push("))");
    }

    fn joined(&mut self, nodes: &[Node], holds: bool, all: bool, nested: usize, separator: &str) {
        self.push("(");
        for (place, node) in nodes.iter().enumerate() {
            if place > 0 {
                self.push(separator);
            }
            self.node(node, holds, all, nested);
        }
        self.push(")");
    }

    /// `test` says whether what it wrote is to be negated once more.
    fn leaf(&mut self, holds: bool, test: impl FnOnce(&mut Self) -> bool) {
        let start = self.text.len();
        let positive = test(self);
        let (before, after) = if holds == positive {
            ("(", ")")
        } else {
            ("((", ") is not true)")
        };
        self.text.insert_str(start, before);
        self.push(after);
    }

    fn is(&mut self, subject: &Subject, test: &Test) -> bool {
        let source = match subject {
            Subject::Field(Field::BirthDate) => return self.birth_date(test),
            Subject::Field(Field::Age) => return self.age(test),
            Subject::Field(Field::Id) => Source::Column("c.id"),
            Subject::Field(Field::Phone) => Source::Column("c.phone"),
            Subject::Field(Field::FirstName) => Source::Column("c.first_name"),
            Subject::Field(Field::LastName) => Source::Column("c.last_name"),
            Subject::Field(Field::Gender) => Source::Column("c.gender"),
            Subject::Field(Field::City) => Source::Column("c.city"),
            Subject::Field(Field::Region) => Source::Column("c.region"),
            Subject::Field(Field::PostalCode) => Source::Column("c.postal_code"),
            Subject::Field(Field::Language) => Source::Column("c.language"),
            Subject::Field(Field::TimeZone) => Source::Column("c.time_zone"),
            Subject::Field(Field::MarketingConsent) => Source::Flag("c.marketing_consent"),
            Subject::Field(Field::Attribute(name)) => Source::Json("c.attributes", std::slice::from_ref(name)),
            // There is no event here: its values are not set.
            Subject::Event(_) => {
                self.push("false");
                return !matches!(test, Test::Compare(Comparison::NotEqual, _));
            }
        };
        self.test(&source, test)
    }

    fn birth_date(&mut self, test: &Test) -> bool {
        let today = today(self.now);
        match test {
            Test::IsSet => {
                self.push("c.birth_date is not null");
            }
            Test::Compare(comparison, Operand::Literal(Literal::Date(date))) => {
                let (operator, positive) = operator(*comparison);
                self.push("c.birth_date ").push(operator).push(" ").bind(Day(*date));
                return positive;
            }
            Test::In(list) => {
                let dates: Vec<Day> = list
                    .iter()
                    .filter_map(|literal| match literal {
                        Literal::Date(date) => Some(Day(*date)),
                        _ => None,
                    })
                    .collect();
                self.push("c.birth_date = any(").bind(dates).push(")");
            }
            Test::Within(span) => {
                self.born(days_before(today, span.days()), today);
            }
            _ => {
                self.push("false");
            }
        }
        true
    }

    fn born(&mut self, from: Date, to: Date) {
        self.push("c.birth_date >= ")
            .bind(Day(from))
            .push(" and c.birth_date <= ")
            .bind(Day(to));
    }

    /// Ages as ranges of birth dates.
    fn age(&mut self, test: &Test) -> bool {
        let today = today(self.now);
        let after = |date: Date| date.tomorrow().unwrap_or(Date::MAX);
        match test {
            Test::IsSet => {
                self.push("c.birth_date <= ").bind(Day(today));
            }
            Test::In(list) => {
                self.push("false");
                for age in list.iter().filter_map(whole) {
                    self.push(" or (");
                    self.born(after(born_by(today, age + 1)), born_by(today, age));
                    self.push(")");
                }
            }
            Test::Compare(comparison, Operand::Literal(literal)) => {
                let Some(age) = whole(literal) else {
                    self.push("false");
                    return true;
                };
                match comparison {
                    Comparison::Equal | Comparison::NotEqual => {
                        self.born(after(born_by(today, age + 1)), born_by(today, age));
                        return *comparison == Comparison::Equal;
                    }
                    Comparison::Less => self.born(after(born_by(today, age)), today),
                    Comparison::LessOrEqual => self.born(after(born_by(today, age + 1)), today),
                    Comparison::Greater => {
                        self.push("c.birth_date <= ").bind(Day(born_by(today, age + 1)));
                    }
                    Comparison::GreaterOrEqual => {
                        self.push("c.birth_date <= ").bind(Day(born_by(today, age)));
                    }
                }
            }
            _ => {
                self.push("false");
            }
        }
        true
    }

    fn json(&mut self, column: &str, path: &[String]) {
        self.push(column);
        for name in path {
            self.push(" -> ").bind(name.clone());
        }
    }

    /// The value's text, null where it is not set.
    fn text_of(&mut self, source: &Source<'_>) {
        match source {
            Source::Column(column) => self.push(column),
            Source::Flag(column) => self.push(column).push("::text"),
            Source::Json(column, path) => {
                self.push("audience_text(");
                self.json(column, path);
                self.push(")")
            }
        };
    }

    fn read_by(&mut self, function: &str, source: &Source<'_>) {
        match source {
            Source::Column(column) => {
                self.push(function).push("(").push(column).push(")");
            }
            // A boolean is neither a number nor a date.
            Source::Flag(_) => {
                self.push("null");
            }
            Source::Json(column, path) => {
                self.push(function).push("(");
                self.json(column, path);
                self.push(")");
            }
        }
    }

    /// Writes the test; `false`: its negation is what was written.
    fn test(&mut self, source: &Source<'_>, test: &Test) -> bool {
        match test {
            Test::IsSet => {
                self.text_of(source);
                self.push(" is not null");
            }
            Test::Compare(comparison, Operand::Literal(literal)) => return self.compare(source, *comparison, literal),
            Test::Contains(Operand::Literal(Literal::Text(part))) => {
                self.push("strpos(");
                self.text_of(source);
                self.push(", ").bind(part.clone()).push(") > 0");
            }
            Test::StartsWith(Operand::Literal(Literal::Text(part))) => {
                self.push("starts_with(");
                self.text_of(source);
                self.push(", ").bind(part.clone()).push(")");
            }
            Test::In(list) => self.any_of(source, list),
            Test::Within(span) => {
                let today = today(self.now);
                self.read_by("audience_date", source);
                self.push(" collate \"C\" between ")
                    .bind(iso(days_before(today, span.days())));
                self.push(" and ").bind(iso(today));
            }
            // The event's own values: there is no event here.
            Test::Compare(comparison, Operand::Event(_)) => {
                self.push("false");
                return *comparison != Comparison::NotEqual;
            }
            Test::Contains(_) | Test::StartsWith(_) => {
                self.push("false");
            }
        }
        true
    }

    fn compare(&mut self, source: &Source<'_>, comparison: Comparison, literal: &Literal) -> bool {
        let (operator, positive) = operator(comparison);
        // Equality is by bytes in every collation that a database can have by default; order is not.
        let collate = if operator == "=" { " " } else { " collate \"C\" " };
        match literal {
            Literal::Text(text) => {
                self.text_of(source);
                self.push(collate).push(operator).push(" ").bind(text.clone());
            }
            Literal::Bool(value) => {
                self.text_of(source);
                self.push(collate).push(operator).push(" ").bind(value.to_string());
            }
            Literal::Number(number) => {
                self.read_by("audience_number", source);
                self.push(" ")
                    .push(operator)
                    .push(" ")
                    .bind(number.to_string())
                    .push("::numeric");
            }
            Literal::Date(date) => {
                self.read_by("audience_date", source);
                self.push(collate).push(operator).push(" ").bind(iso(*date));
            }
        }
        positive
    }

    /// Equal to one of a list: an array a kind of literal.
    fn any_of(&mut self, source: &Source<'_>, list: &[Literal]) {
        let (mut texts, mut numbers, mut dates) = (Vec::new(), Vec::new(), Vec::new());
        for literal in list {
            match literal {
                Literal::Text(text) => texts.push(text.clone()),
                Literal::Bool(value) => texts.push(value.to_string()),
                Literal::Number(number) => numbers.push(number.to_string()),
                Literal::Date(date) => dates.push(iso(*date)),
            }
        }
        let mut separator = "";
        if !texts.is_empty() {
            self.text_of(source);
            self.push(" = any(").bind(texts).push(")");
            separator = " or ";
        }
        if !numbers.is_empty() {
            self.push(separator);
            self.read_by("audience_number", source);
            self.push(" = any(").bind(numbers).push("::numeric[])");
            separator = " or ";
        }
        if !dates.is_empty() {
            self.push(separator);
            self.read_by("audience_date", source);
            self.push(" = any(").bind(dates).push(")");
        }
    }

    fn did(&mut self, did: &Did, holds: bool, all: bool) {
        // Who did nothing is in no group: where none is enough, those are sought for whom it does not hold.
        let (with_none, having) = self.having(did);
        let found = holds != with_none;
        if all {
            self.push(if found { "exists (" } else { "not exists (" });
            if having.is_none() && is_any(did) {
                self.push("select from history h where h.contact_id = c.id and ");
                self.events(did);
            } else {
                self.push("select from (");
                self.who(did, having.as_deref());
                self.push(") g where g.contact_id = c.id");
            }
            self.push(")");
            return;
        }
        let place = self.joins.len();
        let join = self.apart(|sql| {
            sql.push(" left join (");
            sql.who(did, having.as_deref());
            let _ = write!(sql.text, ") d{place} on d{place}.contact_id = c.id");
        });
        self.joins.push(join);
        let _ = write!(
            self.text,
            "d{place}.contact_id is {}null",
            if found { "not " } else { "" }
        );
    }

    /// What the events of one contact must come to, if anything; and whether what is written is the negation, because a
    /// contact without any passes.
    fn having(&mut self, did: &Did) -> (bool, Option<String>) {
        match &did.measure {
            Measure::Exists
            | Measure::Count(Comparison::GreaterOrEqual, 1)
            | Measure::Count(Comparison::Greater, 0) => (false, None),
            Measure::Count(comparison, count) => {
                let with_none = comparison.holds(&0, count);
                let sought = if with_none { comparison.negated() } else { *comparison };
                let having = self.apart(|sql| {
                    sql.push("count(*) ")
                        .push(sought.as_str())
                        .push(" ")
                        .bind(i64::from(*count));
                });
                (with_none, Some(having))
            }
            Measure::Sum(path, comparison, number) => {
                let with_none = comparison.holds(&Decimal::zero(), number);
                let sought = if with_none { comparison.negated() } else { *comparison };
                let source = Source::Json("h.data", &path.0);
                let having = self.apart(|sql| {
                    sql.push("coalesce(sum(round(");
                    sql.read_by("audience_number", &source);
                    sql.push(", 9)) filter (where abs(");
                    sql.read_by("audience_number", &source);
                    sql.push(") < 1e18), 0) ")
                        .push(sought.as_str())
                        .push(" ")
                        .bind(number.to_string());
                    sql.push("::numeric");
                });
                (with_none, Some(having))
            }
        }
    }

    /// A query of the contacts that did it, each once.
    fn who(&mut self, did: &Did, having: Option<&str>) {
        if is_any(did) {
            self.push("select h.contact_id from history h where ");
            self.events(did);
            self.push(" group by h.contact_id");
            if let Some(having) = having {
                self.push(" having ").push(having);
            }
            return;
        }
        let last = did.which == Which::Last;
        self.push("select h.contact_id from (select distinct on (h.contact_id) h.contact_id, h.type, h.time, h.data from history h where h.type = ");
        self.bind(did.kind.clone());
        // The last event is among those from the window's beginning on, or not in the window; the first likewise.
        let (from, before) = bounds(&did.window, self.now);
        match (from, before) {
            (Some(from), _) if last => {
                self.push(" and h.time >= ").bind(At(from));
            }
            (_, Some(before)) if !last => {
                self.push(" and h.time < ").bind(At(before));
            }
            _ => {}
        }
        self.push(if last {
            " order by h.contact_id, h.time desc, h.source collate \"C\" desc, h.event_id collate \"C\" desc) h where "
        } else {
            " order by h.contact_id, h.time, h.source collate \"C\", h.event_id collate \"C\") h where "
        });
        self.events(did);
    }

    /// For an index: that a text's key is one of those asked for. That the text is, is asked beside it.
    /// `false`: it does not ask for texts.
    fn key(&mut self, path: &[String], test: &Test) -> bool {
        let texts: Vec<String> = match test {
            Test::Compare(Comparison::Equal, Operand::Literal(Literal::Text(text))) => vec![text.clone()],
            Test::In(list) if test.is_equal_to_texts() => list
                .iter()
                .filter_map(|literal| match literal {
                    Literal::Text(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            _ => return false,
        };
        self.push("audience_key(");
        self.text_of(&Source::Json("h.data", path));
        match texts.as_slice() {
            [one] => self.push(") = audience_key(").bind(one.clone()).push(") and "),
            _ => self
                .push(") = any(array(select audience_key(t) from unnest(")
                .bind(texts)
                .push("::text[]) t)) and "),
        };
        true
    }

    /// The condition on the row `h` of `history`, that it was done.
    pub fn done(&mut self, did: &Did) -> &mut Self {
        self.events(did);
        self
    }

    /// A query of the contacts that did it, each once and whether there is such a contact or not.
    pub fn doers(&mut self, did: &Did) -> &mut Self {
        self.who(did, None);
        self
    }

    /// The condition on the row `h` of `history`.
    fn events(&mut self, did: &Did) {
        self.push("h.type = ").bind(did.kind.clone());
        let (from, before) = bounds(&did.window, self.now);
        if let Some(from) = from {
            self.push(" and h.time >= ").bind(At(from));
        }
        if let Some(before) = before {
            self.push(" and h.time < ").bind(At(before));
        }
        for filter in &did.filters {
            self.push(" and ");
            let Path(path) = &filter.path;
            let mut is = |(kind, known): &(String, Vec<String>)| *kind == did.kind && known == path;
            let keyed = !filter.negated && self.indexed.iter().any(&mut is) && self.key(path, &filter.test);
            // Of a text whose key is right nearly all are right: within `coalesce` the planner thinks about half, bare a few
            // of a thousand, and joins accordingly.
            self.push(if keyed { "coalesce(" } else { "" });
            self.leaf(!filter.negated, |sql| {
                sql.test(&Source::Json("h.data", path), &filter.test)
            });
            self.push(if keyed { ", false)" } else { "" });
        }
    }
}

/// Whether any event will do, as the count of the history needs it.
pub(super) fn is_plain(did: &Did) -> bool {
    is_any(did) && !matches!(did.measure, Measure::Sum(..) | Measure::Count(..))
}

/// Whether any event will do. The last one lies in a window without end exactly where any does, and the first one in a
/// window without beginning.
fn is_any(did: &Did) -> bool {
    match did.which {
        Which::Any => true,
        Which::Last => did.filters.is_empty() && did.window.before.is_none(),
        Which::First => did.filters.is_empty() && did.window.from.is_none(),
    }
}

/// The operator, and whether it stands for the comparison itself: `!=` is written as the negation of `=`.
fn operator(comparison: Comparison) -> (&'static str, bool) {
    match comparison {
        Comparison::NotEqual => ("=", false),
        other => (other.as_str(), true),
    }
}

fn whole(literal: &Literal) -> Option<u32> {
    match literal {
        Literal::Number(number) => number.to_whole(),
        _ => None,
    }
}
