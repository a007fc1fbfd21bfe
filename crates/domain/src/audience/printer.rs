//! A tree as text again: `parse(print(tree)) == tree`.

use std::fmt::{self, Display, Formatter, Write as _};

use super::{
    lexer::{is_bare, is_bare_start},
    parser::{NO_TYPE, RESERVED},
    tree::{Did, Field, Filter, Literal, Measure, Node, Operand, Path, Span, Start, Subject, Test, Which, Window},
};

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Node::And(nodes) => separated(f, nodes, " and ", |f, node| match node {
                Node::Or(_) => write!(f, "({node})"),
                other => other.fmt(f),
            }),
            Node::Or(nodes) => separated(f, nodes, " or ", |f, node| node.fmt(f)),
            Node::Not(node) => match &**node {
                Node::And(_) | Node::Or(_) => write!(f, "not ({node})"),
                Node::Is(subject, test @ (Test::IsSet | Test::In(_) | Test::Contains(_) | Test::StartsWith(_))) => {
                    subject.fmt(f)?;
                    negated(f, test)
                }
                Node::Did(did) => {
                    f.write_str("did not ")?;
                    did.fmt(f)
                }
                other => write!(f, "not {other}"),
            },
            Node::Is(subject, test) => write!(f, "{subject} {test}"),
            Node::Did(did) => write!(f, "did {did}"),
            Node::Member(name) => {
                f.write_str("in audience ")?;
                text(f, name)
            }
            Node::Received(campaign) => {
                f.write_str("received campaign ")?;
                text(f, campaign)
            }
        }
    }
}

fn separated<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    separator: &str,
    print: impl Fn(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            f.write_str(separator)?;
        }
        print(f, item)?;
    }
    Ok(())
}

fn negated(f: &mut Formatter<'_>, test: &Test) -> fmt::Result {
    match test {
        Test::IsSet => f.write_str(" is not set"),
        test => write!(f, " not {test}"),
    }
}

impl Display for Subject {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Field(Field::Attribute(name)) => {
                let mut segments = name.split('.');
                let bare = segments.next().is_some_and(is_bare_start) && segments.all(is_bare);
                let reserved = RESERVED.iter().any(|word| name.eq_ignore_ascii_case(word));
                // Neither a built-in field nor `event.…`, which it would be without backquotes.
                let other = matches!(Field::by_name(name), Field::Attribute(_)) && !name.starts_with("event.");
                if bare && other && !reserved {
                    f.write_str(name)
                } else {
                    write!(f, "`{name}`")
                }
            }
            Subject::Field(field) => f.write_str(field.name()),
            Subject::Event(path) => write!(f, "event.{}", After(path)),
        }
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let first = self.0.first().map_or("", String::as_str);
        let reserved = self.0.len() > 1 && first == "event";
        for (place, segment) in self.0.iter().enumerate() {
            let bare = if place == 0 {
                is_bare_start(segment) && !reserved
            } else {
                is_bare(segment)
            };
            write_segment(f, place, segment, bare)?;
        }
        Ok(())
    }
}

/// A path that stands after a dot.
struct After<'a>(&'a Path);

impl Display for After<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (place, segment) in self.0.0.iter().enumerate() {
            write_segment(f, place, segment, is_bare(segment))?;
        }
        Ok(())
    }
}

fn write_segment(f: &mut Formatter<'_>, place: usize, segment: &str, bare: bool) -> fmt::Result {
    if place > 0 {
        f.write_char('.')?;
    }
    if bare {
        f.write_str(segment)
    } else {
        write!(f, "`{segment}`")
    }
}

impl Display for Test {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Test::Compare(comparison, operand) => write!(f, "{} {operand}", comparison.as_str()),
            Test::In(list) => {
                f.write_str("in (")?;
                separated(f, list, ", ", |f, literal| literal.fmt(f))?;
                f.write_char(')')
            }
            Test::Contains(operand) => write!(f, "contains {operand}"),
            Test::StartsWith(operand) => write!(f, "starts with {operand}"),
            Test::IsSet => f.write_str("is set"),
            Test::Within(span) => write!(f, "within {span}"),
        }
    }
}

impl Display for Operand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Literal(literal) => literal.fmt(f),
            Operand::Event(path) => write!(f, "event.{}", After(path)),
        }
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Text(value) => text(f, value),
            Literal::Number(number) => number.fmt(f),
            Literal::Bool(value) => value.fmt(f),
            Literal::Date(date) => write!(f, "{date}"),
        }
    }
}

fn text(f: &mut Formatter<'_>, value: &str) -> fmt::Result {
    f.write_char('"')?;
    for character in value.chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            '\r' => f.write_str("\\r")?,
            c if c.is_control() => write!(f, "\\u{{{:x}}}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// What follows `did` or `did not`.
impl Display for Did {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.which {
            Which::Any => "",
            Which::First => "first ",
            Which::Last => "last ",
        })?;
        event_type(f, &self.kind)?;
        filters(f, &self.filters)?;
        match &self.measure {
            Measure::Exists => {}
            Measure::Count(comparison, count) => write!(f, " count {} {count}", comparison.as_str())?,
            Measure::Sum(path, comparison, number) => write!(f, " sum({path}) {} {number}", comparison.as_str())?,
        }
        self.window.fmt(f)
    }
}

pub(super) fn event_type(f: &mut Formatter<'_>, kind: &str) -> fmt::Result {
    let mut segments = kind.split('.');
    let bare = segments.next().is_some_and(is_bare_start) && segments.all(is_bare);
    if bare && !NO_TYPE.iter().any(|word| kind.eq_ignore_ascii_case(word)) {
        f.write_str(kind)
    } else {
        text(f, kind)
    }
}

pub(super) fn filters(f: &mut Formatter<'_>, filters: &[Filter]) -> fmt::Result {
    if filters.is_empty() {
        return Ok(());
    }
    f.write_char('(')?;
    separated(f, filters, ", ", |f, filter| {
        filter.path.fmt(f)?;
        if filter.negated {
            negated(f, &filter.test)
        } else {
            write!(f, " {}", filter.test)
        }
    })?;
    f.write_char(')')
}

impl Display for Window {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.from {
            None => {}
            Some(Start::Within(span)) => write!(f, " within {span}")?,
            Some(Start::Since(date)) => write!(f, " since {date}")?,
        }
        match self.before {
            None => Ok(()),
            Some(date) => write!(f, " before {date}"),
        }
    }
}

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let unit = self.unit.as_str();
        let unit = if self.amount == 1 {
            unit.trim_end_matches('s')
        } else {
            unit
        };
        write!(f, "{} {unit}", self.amount)
    }
}
