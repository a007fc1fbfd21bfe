//! Tokens to a tree, by recursive descent. Each error names its column and what was expected there.

use super::{
    ParseError,
    lexer::{Placed, Token, lex, read_date},
    number::Decimal,
    tree::{
        Comparison, Did, Field, Filter, Literal, Measure, Node, Operand, Path, Span, Start, Subject, Test, Unit, Which,
        Window,
    },
};

/// Limits that keep an expression from being a burden to whoever evaluates it.
pub const MAX_CHARACTERS: usize = 16_384;
pub const MAX_DEPTH: usize = 64;
pub const MAX_CONDITIONS: usize = 500;
pub const MAX_LIST: usize = 1_000;
/// A hundred years.
pub const MAX_DAYS: i64 = 36_525;
pub const MAX_AGE: u32 = 150;

/// Words that begin something else where a field could stand, so a field of that name needs backquotes.
pub(super) const RESERVED: [&str; 8] = ["and", "or", "not", "did", "in", "received", "true", "false"];
/// Words that cannot stand unquoted for an event's type.
pub(super) const NO_TYPE: [&str; 11] = [
    "and", "or", "not", "in", "did", "first", "last", "count", "within", "since", "before",
];
const AFTER_DID: [&str; 7] = ["within", "since", "before", "count", "sum", "and", "or"];
const OPERATORS: [&str; 6] = ["in", "contains", "starts", "is", "within", "not"];

/// What a subject's values are, as far as that is known before any are seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Date,
    Age,
    Consent,
    /// Whatever JSON has: attributes, and the data of events.
    Any,
}

pub(super) struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
    conditions: usize,
    /// Whether there is a triggering event that `event.FIELD` could stand for.
    in_trigger: bool,
}

type Parsed<T> = Result<T, ParseError>;

impl Parser {
    pub(super) fn new(text: &str, in_trigger: bool) -> Parsed<Parser> {
        let length = text.chars().count();
        if length > MAX_CHARACTERS {
            return Err(ParseError {
                column: MAX_CHARACTERS + 1,
                message: format!("{length} characters: expected up to {MAX_CHARACTERS}"),
            });
        }
        Ok(Parser {
            tokens: lex(text)?,
            at: 0,
            depth: 0,
            conditions: 0,
            in_trigger,
        })
    }

    /// The whole text as an expression.
    pub(super) fn expression(mut self) -> Parsed<Node> {
        let node = self.or()?;
        if *self.peek() != Token::End {
            return Err(self.expected("`and`, `or` or the end", &AFTER_DID));
        }
        Ok(node)
    }

    /// The whole text as an event's type with filters.
    pub(super) fn occurrence(mut self) -> Parsed<(String, Vec<Filter>)> {
        let kind = self.event_type()?;
        let filters = self.filters()?;
        if *self.peek() != Token::End {
            return Err(self.expected(
                "the end: `unless` takes an event type and, in parentheses, conditions on it",
                &[],
            ));
        }
        Ok((kind, filters))
    }

    fn peek(&self) -> &Token {
        self.look(0)
    }

    fn look(&self, ahead: usize) -> &Token {
        self.tokens
            .get(self.at + ahead)
            .map_or(&Token::End, |placed| &placed.token)
    }

    fn column(&self) -> usize {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(1, |placed| placed.column)
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError {
            column: self.column(),
            message: message.into(),
        }
    }

    /// What was expected and what was found. A text, number or date is not repeated: it may be somebody's.
    fn expected(&self, what: &str, words: &[&str]) -> ParseError {
        let mut message = match self.peek() {
            Token::End => format!("expected {what}, found the end"),
            Token::Word(segments) => {
                let word = segments
                    .iter()
                    .map(|segment| segment.text.as_str())
                    .collect::<Vec<_>>()
                    .join(".");
                let mut message = format!("expected {what}, found `{word}`");
                if let Some(close) = closest(&word, words) {
                    message.push_str(&format!("; did you mean `{close}`?"));
                }
                message
            }
            Token::Text(_) => format!("expected {what}, found a text"),
            Token::Number(_) => format!("expected {what}, found a number"),
            Token::Date(_) => format!("expected {what}, found a date"),
            Token::Sign(sign) => format!("expected {what}, found `{sign}`"),
        };
        // A name that nearly is a field's explains many a mistake further on: right behind it, or behind its comparison.
        let before = self.at.checked_sub(1);
        let name = match before.map(|before| &self.tokens[before].token) {
            Some(Token::Sign("=" | "!=" | "<" | "<=" | ">" | ">=")) => self.at.checked_sub(2),
            _ => before,
        };
        if let Some(hint) = name.and_then(|name| self.field_hint(name)) {
            message.push_str(&hint);
        }
        self.error(message)
    }

    fn field_hint(&self, at: usize) -> Option<String> {
        match &self.tokens.get(at)?.token {
            Token::Word(segments) if segments.len() == 1 && !segments[0].quoted => {
                let word = &segments[0].text;
                let near = near_field(word)?;
                Some(format!(
                    " (`{word}` is no field of every contact; did you mean `{near}`?)"
                ))
            }
            _ => None,
        }
    }

    fn is_word(&self, ahead: usize, word: &str) -> bool {
        matches!(self.look(ahead), Token::Word(segments)
            if segments.len() == 1 && !segments[0].quoted && segments[0].text.eq_ignore_ascii_case(word))
    }

    fn is_any_word(&self, ahead: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is_word(ahead, word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(0, word);
        self.at += usize::from(found);
        found
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.at += usize::from(found);
        found
    }

    fn need_sign(&mut self, sign: &str) -> Parsed<()> {
        if self.take_sign(sign) {
            return Ok(());
        }
        Err(self.expected(&format!("`{sign}`"), &[]))
    }

    fn deeper(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }

    fn one_more(&mut self) -> Parsed<()> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            return Err(self.error(format!("more than {MAX_CONDITIONS} conditions")));
        }
        Ok(())
    }

    fn or(&mut self) -> Parsed<Node> {
        let mut nodes = vec![self.and()?];
        while self.take_word("or") {
            nodes.push(self.and()?);
        }
        Ok(Node::or(nodes))
    }

    fn and(&mut self) -> Parsed<Node> {
        let mut nodes = vec![self.unary()?];
        while self.take_word("and") {
            nodes.push(self.unary()?);
        }
        Ok(Node::and(nodes))
    }

    fn unary(&mut self) -> Parsed<Node> {
        if self.take_word("not") {
            self.deeper()?;
            let node = self.unary()?;
            self.depth -= 1;
            return Ok(Node::Not(Box::new(node)));
        }
        if self.take_sign("(") {
            self.deeper()?;
            let node = self.or()?;
            self.depth -= 1;
            if !self.take_sign(")") {
                return Err(self.expected("`and`, `or` or `)`", &AFTER_DID));
            }
            return Ok(node);
        }
        self.one_more()?;
        if self.take_word("did") {
            return self.did();
        }
        if self.take_word("in") {
            return self.member();
        }
        if self.take_word("received") {
            return self.received();
        }
        let subject = self.subject()?;
        let kind = match &subject {
            Subject::Field(Field::BirthDate) => Kind::Date,
            Subject::Field(Field::Age) => Kind::Age,
            Subject::Field(Field::MarketingConsent) => Kind::Consent,
            Subject::Field(Field::Attribute(_)) | Subject::Event(_) => Kind::Any,
            Subject::Field(_) => Kind::Text,
        };
        let (test, negated) = self.test(kind)?;
        let node = Node::Is(subject, test);
        Ok(if negated { Node::Not(Box::new(node)) } else { node })
    }

    fn member(&mut self) -> Parsed<Node> {
        if !self.take_word("audience") {
            return Err(self.expected("`audience` and its name in quotes", &["audience"]));
        }
        self.name("an audience's name in quotes").map(Node::Member)
    }

    fn received(&mut self) -> Parsed<Node> {
        if !self.take_word("campaign") {
            return Err(self.expected("`campaign` and its name or id in quotes", &["campaign"]));
        }
        self.name("a campaign's name or id in quotes").map(Node::Received)
    }

    fn name(&mut self, expected: &str) -> Parsed<String> {
        let name = match self.peek() {
            Token::Text(name) if !name.is_empty() => name.clone(),
            Token::Word(segments) => segments
                .iter()
                .map(|segment| segment.text.as_str())
                .collect::<Vec<_>>()
                .join("."),
            _ => return Err(self.expected(expected, &[])),
        };
        self.at += 1;
        Ok(name)
    }

    fn subject(&mut self) -> Parsed<Subject> {
        let Token::Word(segments) = self.peek() else {
            return Err(self.expected(
                "a condition: a field's name, `did`, `not`, `in audience`, `received campaign` or `(`",
                &[],
            ));
        };
        if self.is_any_word(0, &RESERVED) {
            return Err(self.expected(
                "a condition: a field's name (in backquotes if it is a word of the language), `did`, `not` or `(`",
                &[],
            ));
        }
        if let Some(path) = self.event_path()? {
            self.at += 1;
            return Ok(Subject::Event(path));
        }
        let field = match segments.as_slice() {
            [one] if one.quoted => Field::Attribute(one.text.clone()),
            segments => {
                let texts: Vec<&str> = segments.iter().map(|segment| segment.text.as_str()).collect();
                Field::by_name(&texts.join("."))
            }
        };
        self.at += 1;
        Ok(Subject::Field(field))
    }

    /// The path of `event.PATH`, if that is what stands here.
    fn event_path(&self) -> Parsed<Option<Path>> {
        match self.peek() {
            Token::Word(segments) if segments.len() > 1 && !segments[0].quoted && segments[0].text == "event" => {
                if !self.in_trigger {
                    return Err(self.error(
                        "`event.…` is the event that starts a trigger: expected a contact's field, there is no event here",
                    ));
                }
                let path = segments[1..].iter().map(|segment| segment.text.clone());
                Ok(Some(Path(path.collect())))
            }
            _ => Ok(None),
        }
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let Token::Sign(sign) = self.peek() else { return None };
        let comparison = Comparison::ALL
            .into_iter()
            .find(|comparison| comparison.as_str() == *sign)?;
        self.at += 1;
        Some(comparison)
    }

    fn test(&mut self, kind: Kind) -> Parsed<(Test, bool)> {
        let operators = self.at;
        let refuse = |parser: &mut Parser, expected: &str| {
            parser.at = operators;
            Err(parser.error(format!("this cannot be asked here: expected {expected}")))
        };
        if let Some(comparison) = self.comparison() {
            let ordered = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
            if ordered && kind == Kind::Consent {
                return refuse(self, "`=`, `!=` or `is set`");
            }
            let place = self.at;
            let operand = self.operand(kind)?;
            if ordered && matches!(operand, Operand::Literal(Literal::Bool(_))) {
                self.at = place;
                return Err(self.error("true and false have no order: expected `=` or `!=` before them"));
            }
            return Ok((Test::Compare(comparison, operand), false));
        }
        if self.take_word("is") {
            let negated = self.take_word("not");
            if !self.take_word("set") {
                return Err(self.expected("`set`", &["set"]));
            }
            return Ok((Test::IsSet, negated));
        }
        let negated = self.take_word("not");
        if self.take_word("in") {
            if kind == Kind::Consent {
                return refuse(self, "`=`, `!=` or `is set`");
            }
            return Ok((Test::In(self.list(kind)?), negated));
        }
        let contains = self.take_word("contains");
        if contains || self.take_word("starts") {
            if !matches!(kind, Kind::Text | Kind::Any) {
                return refuse(self, "a comparison: this field is no text");
            }
            if !contains && !self.take_word("with") {
                return Err(self.expected("`with`", &["with"]));
            }
            let operand = match (self.peek(), self.event_path()?) {
                (_, Some(path)) => Operand::Event(path),
                (Token::Text(text), None) => Operand::Literal(Literal::Text(text.clone())),
                _ => return Err(self.expected("a text in quotes", &[])),
            };
            self.at += 1;
            let test = if contains {
                Test::Contains(operand)
            } else {
                Test::StartsWith(operand)
            };
            return Ok((test, negated));
        }
        if negated {
            return Err(self.expected("`in`, `contains` or `starts with`", &["in", "contains", "starts"]));
        }
        if self.take_word("within") {
            if !matches!(kind, Kind::Date | Kind::Any) {
                return refuse(self, "a comparison: this field is no date");
            }
            let column = self.at;
            let span = self.span()?;
            if matches!(span.unit, Unit::Minutes | Unit::Hours) {
                self.at = column;
                return Err(self.error("a date has no hours: expected days or weeks"));
            }
            return Ok((Test::Within(span), false));
        }
        Err(self.expected(
            "an operator: `=`, `!=`, `<`, `<=`, `>`, `>=`, `in (…)`, `contains`, `starts with`, `is set` or `within`",
            &OPERATORS,
        ))
    }

    fn list(&mut self, kind: Kind) -> Parsed<Vec<Literal>> {
        self.need_sign("(")?;
        let mut list = Vec::new();
        loop {
            let place = self.at;
            match self.operand(kind)? {
                Operand::Literal(literal) => list.push(literal),
                Operand::Event(_) => {
                    self.at = place;
                    return Err(self.error("a list holds fixed values: expected a text in quotes, a number or a date"));
                }
            }
            if list.len() > MAX_LIST {
                return Err(self.error(format!("a list of more than {MAX_LIST} values")));
            }
            if self.take_sign(")") {
                return Ok(list);
            }
            if !self.take_sign(",") {
                return Err(self.expected("`,` or `)`", &[]));
            }
        }
    }

    /// What a value is compared with, fitting the subject.
    fn operand(&mut self, kind: Kind) -> Parsed<Operand> {
        let any = matches!(kind, Kind::Text | Kind::Any);
        if let Some(path) = self.event_path()? {
            if !any {
                return Err(self.error("expected a fixed value here, not one of the event's"));
            }
            self.at += 1;
            return Ok(Operand::Event(path));
        }
        let literal = match (kind, self.peek()) {
            (Kind::Date, Token::Date(date)) => Some(Literal::Date(*date)),
            (Kind::Date, Token::Text(text)) => read_date(text).map(Literal::Date),
            (Kind::Age, Token::Number(number)) => number
                .to_whole()
                .filter(|age| *age <= MAX_AGE)
                .map(|age| Literal::Number(age.into())),
            (Kind::Date | Kind::Age, _) => None,
            (_, _) if self.is_word(0, "true") => Some(Literal::Bool(true)),
            (_, _) if self.is_word(0, "false") => Some(Literal::Bool(false)),
            (Kind::Consent, _) => None,
            (_, Token::Text(text)) => Some(Literal::Text(text.clone())),
            (_, Token::Number(number)) => Some(Literal::Number(number.clone())),
            (_, Token::Date(date)) => Some(Literal::Date(*date)),
            _ => None,
        };
        let Some(literal) = literal else {
            return Err(match (kind, self.peek()) {
                (Kind::Date, _) => self.expected("a date such as 1990-12-31", &[]),
                (Kind::Age, _) => self.expected(&format!("a whole number of years from 0 to {MAX_AGE}"), &[]),
                (Kind::Consent, _) => self.expected("true or false", &["true", "false"]),
                (_, Token::Word(segments)) if segments.len() == 1 => {
                    let word = &segments[0].text;
                    self.error(format!(
                        "expected a value, found the name `{word}`; did you mean the text \"{word}\"?"
                    ))
                }
                _ => self.expected("a value: a text in quotes, a number, a date, true or false", &[]),
            });
        };
        self.at += 1;
        Ok(Operand::Literal(literal))
    }

    fn did(&mut self) -> Parsed<Node> {
        let negated = self.take_word("not");
        let which = [("first", Which::First), ("last", Which::Last)]
            .into_iter()
            .find(|(word, _)| self.is_word(0, word))
            .map_or(Which::Any, |(_, which)| which);
        if which != Which::Any {
            self.at += 1;
        }
        let kind = self.event_type()?;
        let filters = self.filters()?;
        let mut did = Did {
            kind,
            which,
            filters,
            measure: Measure::Exists,
            window: Window::default(),
        };
        while self.did_suffix(&mut did)? {}
        let node = Node::Did(did);
        Ok(if negated { Node::Not(Box::new(node)) } else { node })
    }

    fn did_suffix(&mut self, did: &mut Did) -> Parsed<bool> {
        let place = self.at;
        let twice = |parser: &mut Parser, what: &str| {
            parser.at = place;
            Err(parser.error(format!("{what} is given twice")))
        };
        if self.take_word("within") {
            let start = Start::Within(self.span()?);
            if did.window.from.replace(start).is_some() {
                return twice(self, "the beginning of the time");
            }
        } else if self.take_word("since") {
            let start = Start::Since(self.day()?);
            if did.window.from.replace(start).is_some() {
                return twice(self, "the beginning of the time");
            }
        } else if self.take_word("before") {
            let day = self.day()?;
            if did.window.before.replace(day).is_some() {
                return twice(self, "the end of the time");
            }
        } else if self.is_any_word(0, &["count", "sum"]) {
            let measure = self.measure()?;
            if did.which != Which::Any {
                self.at = place;
                return Err(self.error("`first` and `last` are one event: there is nothing to count"));
            }
            if did.measure != Measure::Exists {
                return twice(self, "what is counted");
            }
            did.measure = measure;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn measure(&mut self) -> Parsed<Measure> {
        let operator = "an operator: `=`, `!=`, `<`, `<=`, `>` or `>=`";
        if self.take_word("count") {
            let comparison = self.comparison().ok_or_else(|| self.expected(operator, &[]))?;
            let count = match self.peek() {
                Token::Number(number) => number.to_whole(),
                _ => None,
            };
            let count = count.ok_or_else(|| self.expected("a whole number, 0 or more", &[]))?;
            self.at += 1;
            return Ok(Measure::Count(comparison, count));
        }
        self.at += 1;
        self.need_sign("(")?;
        let path = self.property()?;
        self.need_sign(")")?;
        let comparison = self.comparison().ok_or_else(|| self.expected(operator, &[]))?;
        let Token::Number(number) = self.peek() else {
            return Err(self.expected("a number", &[]));
        };
        let number: Decimal = number.clone();
        self.at += 1;
        Ok(Measure::Sum(path, comparison, number))
    }

    fn event_type(&mut self) -> Parsed<String> {
        let kind = match self.peek() {
            Token::Word(segments)
                if segments.iter().all(|segment| !segment.quoted) && !self.is_any_word(0, &NO_TYPE) =>
            {
                segments
                    .iter()
                    .map(|segment| segment.text.as_str())
                    .collect::<Vec<_>>()
                    .join(".")
            }
            Token::Text(text) => text.clone(),
            _ => return Err(self.expected("an event type such as order.placed", &[])),
        };
        let good = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
        if kind.is_empty() || kind.len() > 200 || !kind.chars().all(good) {
            return Err(self.error(
                "expected an event type such as order.placed: 1 to 200 letters, digits, `.`, `_` or `-` (ASCII)",
            ));
        }
        self.at += 1;
        Ok(kind)
    }

    fn filters(&mut self) -> Parsed<Vec<Filter>> {
        let mut filters = Vec::new();
        if !self.take_sign("(") || self.take_sign(")") {
            return Ok(filters);
        }
        loop {
            self.one_more()?;
            let path = self.property()?;
            let (test, negated) = self.test(Kind::Any)?;
            filters.push(Filter { path, test, negated });
            if self.take_sign(")") {
                return Ok(filters);
            }
            if !self.take_sign(",") && !self.take_word("and") {
                return Err(self.expected("`,` or `)`", &[]));
            }
        }
    }

    /// A property of a past event.
    fn property(&mut self) -> Parsed<Path> {
        match self.peek() {
            Token::Word(segments) => {
                if segments.len() > 1 && !segments[0].quoted && segments[0].text == "event" {
                    return Err(self.error(
                        "expected a property of the past event on this side; `event.…` goes on the other, as in (category = event.category)",
                    ));
                }
                let path = Path(segments.iter().map(|segment| segment.text.clone()).collect());
                self.at += 1;
                Ok(path)
            }
            _ => Err(self.expected("a property of the event", &[])),
        }
    }

    fn span(&mut self) -> Parsed<Span> {
        let Token::Number(number) = self.peek() else {
            return Err(self.expected("a number of days, as in `within 30 days`", &[]));
        };
        let amount = number.to_whole();
        let place = self.at;
        self.at += 1;
        let unit = Unit::ALL.into_iter().find(|unit| {
            let plural = unit.as_str();
            self.is_word(0, plural) || self.is_word(0, plural.trim_end_matches('s'))
        });
        let Some(unit) = unit else {
            return Err(self.expected(
                "`minutes`, `hours`, `days` or `weeks`",
                &["minutes", "hours", "days", "weeks"],
            ));
        };
        self.at += 1;
        let span = amount.map(|amount| Span { amount, unit });
        span.filter(|span| span.amount > 0 && span.days() <= MAX_DAYS)
            .ok_or_else(|| {
                self.at = place;
                self.error(format!("expected a whole number, from 1 up to {MAX_DAYS} days"))
            })
    }

    fn day(&mut self) -> Parsed<jiff::civil::Date> {
        let day = match self.peek() {
            Token::Date(date) => Some(*date),
            Token::Text(text) => read_date(text),
            _ => None,
        };
        let day = day.ok_or_else(|| self.expected("a date such as 2026-01-31", &[]))?;
        self.at += 1;
        Ok(day)
    }
}

/// The word that was probably meant.
pub(super) fn closest<'a>(word: &str, words: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_lowercase();
    words
        .iter()
        .map(|known| (strsim::osa_distance(&lower, known), *known))
        .filter(|(distance, known)| *distance > 0 && *distance <= if known.len() > 4 { 2 } else { 1 })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The built-in field that a name which is none nearly is.
pub(super) fn near_field(name: &str) -> Option<&'static str> {
    let known: Vec<&'static str> = Field::BUILT_IN.iter().map(|(known, _)| *known).collect();
    if known.contains(&name) {
        return None;
    }
    let plain = name.to_lowercase().replace(['-', ' '], "_");
    let same = known
        .iter()
        .copied()
        .find(|known| *known == plain || known.replace('_', "") == plain);
    same.or_else(|| {
        closest(
            &plain,
            &known.into_iter().filter(|known| known.len() > 3).collect::<Vec<_>>(),
        )
    })
}
