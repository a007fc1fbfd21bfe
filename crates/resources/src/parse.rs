//! TOML into resources, with every mistake at its line.
//!
//! The file is read into a tree that knows where each key stands; each table is then read by itself, so that one file
//! tells all of its mistakes at once and not only the first.

use std::collections::{BTreeMap, HashMap};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue, ValueDeserializer},
};

use crate::{Kind, Resource, composer::Composer};

/// A mistake in a file of resources. Its text says what was wrong and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ResourceError {
    pub line: usize,
    /// For example `trigger cart-reminder`; empty where no resource is concerned.
    pub resource: String,
    pub message: String,
}

/// A resource and where it stands in its file.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub resource: Resource,
    pub line: usize,
    keys: BTreeMap<String, usize>,
}

impl Parsed {
    /// The line of a key, or of the table where the key is not written.
    pub fn line_of(&self, key: &str) -> usize {
        self.keys.get(key).copied().unwrap_or(self.line)
    }

    /// A mistake found later, at this resource's key.
    pub fn error(&self, key: &str, message: impl std::fmt::Display) -> ResourceError {
        ResourceError {
            line: self.line_of(key),
            resource: format!("{} {}", self.resource.kind(), self.resource.name()),
            message: format!("{} `{}`: {key}: {message}", self.resource.kind(), self.resource.name()),
        }
    }
}

/// More is a mistake and not a configuration.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Reads resources. What concerns one resource by itself is checked here; references between resources, templates and
/// expressions are checked by whoever knows the other resources. Where something is wrong already, what is wrong with texts is
/// told with it.
pub fn parse_toml(text: &str) -> Result<Vec<Resource>, Vec<ResourceError>> {
    Ok(parse_toml_with_lines(text)?
        .into_iter()
        .map(|parsed| parsed.resource)
        .collect())
}

/// The same, with the lines kept for later checks.
pub fn parse_toml_with_lines(text: &str) -> Result<Vec<Parsed>, Vec<ResourceError>> {
    let at_line = |line: usize, message: String| ResourceError {
        line,
        resource: String::new(),
        message,
    };
    if text.len() > MAX_BYTES {
        return Err(vec![at_line(
            1,
            format!("the file is over the limit of {MAX_BYTES} bytes"),
        )]);
    }
    let lines = Lines::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors
            .iter()
            .map(|error| {
                at_line(
                    lines.of(error.span().map_or(0, |span| span.start)),
                    one_line(error.message()),
                )
            })
            .collect());
    }
    let mut parsed: Vec<Parsed> = Vec::new();
    let mut errors = Vec::new();
    for (key, value) in document.into_inner() {
        let line = lines.of(key.span().start);
        let Ok(kind) = key.get_ref().parse::<Kind>() else {
            let message = format!(
                "unknown table `{}`: expected [[gateway]], [[template]], [[audience]], [[trigger]] or [policy]",
                shortened(key.get_ref())
            );
            errors.push(at_line(line, message));
            continue;
        };
        let span = value.span();
        let tables: Vec<Spanned<DeValue<'_>>> = match (kind, value.into_inner()) {
            (Kind::Policy, table @ DeValue::Table(_)) => vec![Spanned::new(span, table)],
            (Kind::Policy, _) => {
                errors.push(at_line(line, "expected one table [policy]".into()));
                continue;
            }
            (_, DeValue::Array(items)) => items.into_iter().collect(),
            _ => {
                errors.push(at_line(line, format!("expected a list of tables [[{kind}]]")));
                continue;
            }
        };
        for table in tables {
            match read_table(kind, table, &lines) {
                Ok(resource) => {
                    let problems = resource.resource.check();
                    errors.extend(
                        problems
                            .into_iter()
                            .map(|problem| resource.error(problem.key, problem.message)),
                    );
                    parsed.push(resource);
                }
                Err(error) => errors.push(error),
            }
        }
    }
    parsed.sort_by_key(|resource| resource.line);
    let mut seen: HashMap<(Kind, String), usize> = HashMap::new();
    for resource in &parsed {
        let key = (resource.resource.kind(), resource.resource.name().to_owned());
        if let Some(first) = seen.insert(key, resource.line) {
            errors.push(resource.error(
                "name",
                format!("already stands at line {first}: expected each name once"),
            ));
        }
    }
    if errors.is_empty() {
        return Ok(parsed);
    }
    for resource in &parsed {
        if let Resource::Template(template) = &resource.resource {
            let problems = Composer::check(template).into_iter();
            errors.extend(problems.map(|problem| resource.error(problem.key, problem.message)));
        }
    }
    errors.sort_by_key(|error| error.line);
    Err(errors)
}

fn read_table(kind: Kind, table: Spanned<DeValue<'_>>, lines: &Lines) -> Result<Parsed, ResourceError> {
    let line = lines.of(table.span().start);
    let name = match table.get_ref() {
        DeValue::Table(table) => table
            .get("name")
            .and_then(|name| name.get_ref().as_str())
            .map(shortened),
        _ => None,
    };
    let title = match &name {
        Some(name) => format!("{kind} {name}"),
        None => kind.to_string(),
    };
    let keys = match table.get_ref() {
        DeValue::Table(table) => table
            .keys()
            .map(|key| (key.get_ref().to_string(), lines.of(key.span().start)))
            .collect(),
        _ => BTreeMap::new(),
    };
    let table = times_as_text(table);
    let read = match kind {
        Kind::Gateway => read(table).map(Resource::Gateway),
        Kind::Template => read(table).map(Resource::Template),
        Kind::Audience => read(table).map(Resource::Audience),
        Kind::Trigger => read(table).map(Resource::Trigger),
        Kind::Policy => read(table).map(Resource::Policy),
    };
    match read {
        Ok(resource) => Ok(Parsed { resource, line, keys }),
        Err(error) => Err(ResourceError {
            line: error.span().map_or(line, |span| lines.of(span.start)),
            message: format!("{title}: {}", one_line(error.message())),
            resource: title,
        }),
    }
}

fn read<T: DeserializeOwned>(table: Spanned<DeValue<'_>>) -> Result<T, toml::de::Error> {
    T::deserialize(ValueDeserializer::from(table))
}

/// TOML has times of its own; our types read them as text, as in JSON.
fn times_as_text(value: Spanned<DeValue<'_>>) -> Spanned<DeValue<'_>> {
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::Datetime(time) => DeValue::String(DeString::Owned(time.to_string())),
        DeValue::Array(items) => DeValue::Array(items.into_iter().map(times_as_text).collect()),
        DeValue::Table(table) => DeValue::Table(
            table
                .into_iter()
                .map(|(key, value)| (key, times_as_text(value)))
                .collect(),
        ),
        other => other,
    };
    Spanned::new(span, value)
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Where each line begins.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Lines {
        Lines(
            std::iter::once(0)
                .chain(text.match_indices('\n').map(|(at, _)| at + 1))
                .collect(),
        )
    }

    /// The line of a byte, counted from 1.
    fn of(&self, byte: usize) -> usize {
        self.0.partition_point(|start| *start <= byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::QuietHours;

    const EXAMPLE: &str = r#"
[[gateway]]
name = "main"
kind = "smpp"                      # smpp | http
address = "127.0.0.1:2775"
system_id = "tamtam"
password_env = "MAIN_PASSWORD"     # or password = "…"
rate = 500                         # parts (SMS) a second over all dispatchers
window = 50
prefixes = ["+262"]                # empty: every phone
priority = 1                       # lower first; the next one takes over when this one is down

[[template]]
name = "flash-sale"
class = "marketing"                # marketing | transactional
sender = "BOUTIQUE"
text = "{{ contact.first_name | default('Bonjour') }}, -20% sur {{ campaign.article }} jusqu'au {{ campaign.deadline }}."

[[audience]]
name = "young-north"
where = 'gender = "female" and age < 30 and region = "north" and did order.placed(category = "shoes") within 30 days'

[[trigger]]
name = "order-confirmation"
on = "order.placed"
when = 'event.amount > 0'
template = "order-confirmation"

[[trigger]]
name = "cart-reminder"
on = "cart.updated"
wait = "30m"
unless = "order.placed"
template = "cart-reminder"
once_per = "7d"
until = 2026-12-24T18:00:00Z

[policy]
quiet_hours = "by-territory"       # or "off", or "08:00-20:00" in the recipient's zone
"#;

    #[test]
    fn the_designs_example_is_read_and_kept() {
        let resources = parse_toml(EXAMPLE).unwrap();
        let names: Vec<(Kind, &str)> = resources.iter().map(|one| (one.kind(), one.name())).collect();
        assert_eq!(
            names,
            [
                (Kind::Gateway, "main"),
                (Kind::Template, "flash-sale"),
                (Kind::Audience, "young-north"),
                (Kind::Trigger, "order-confirmation"),
                (Kind::Trigger, "cart-reminder"),
                (Kind::Policy, "policy"),
            ]
        );
        let Resource::Trigger(reminder) = &resources[4] else {
            panic!()
        };
        assert_eq!(reminder.wait.unwrap().as_secs(), 1_800);
        assert_eq!(reminder.until, Some("2026-12-24T18:00:00Z".parse().unwrap()));
        for resource in resources {
            let back = Resource::from_json(resource.kind(), resource.to_json()).unwrap();
            assert_eq!(back, resource);
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let text = r#"
[[template]]
name = "a"
class = "promotional"
sender = "BOUTIQUE"
text = "x"

[[trigger]]
name = "b"
on = "order.placed"
wiat = "30m"
template = "a"

[[trigger]]
name = "c"
on = "order placed"
wait = "soon"
template = "a"

[[trigger]]
name = "d"
on = "order placed"
unless = "order.placed"
template = "a"

[[campaign]]
name = "x"

[policy]
quiet_hours = "never"

[[template]]
name = "e"
class = "transactional"
sender = "BOUTIQUE"
text = "{{ contact.city | titel }}"
"#;
        let errors = parse_toml(text).unwrap_err();
        let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [4, 11, 17, 22, 23, 26, 30, 36], "{errors:#?}");
        assert!(
            errors[1].message.contains("wiat") && errors[1].message.contains("wait"),
            "{}",
            errors[1]
        );
        assert!(errors[2].message.contains("`30m`"), "{}", errors[2]);
        assert!(errors[7].message.contains("line 1, column 19"), "{}", errors[7]);
    }

    #[test]
    fn short_links_begin_with_no_path_of_theirs() {
        for (address, good) in [
            ("https://s.example.com", true),
            ("https://s.example.com/shop/", true),
            ("http://l", true),
            ("https://s.example.com/l", false),
            ("https://s.example.com/l/", false),
            ("s.example.com", false),
        ] {
            let parsed = parse_toml(&format!("[policy]\nshort_links = \"{address}\"\n"));
            assert_eq!(parsed.is_ok(), good, "{address}: {parsed:?}");
        }
    }

    #[test]
    fn broken_toml_and_names_given_twice_are_told() {
        assert_eq!(parse_toml("[[template]]\nname = ").unwrap_err()[0].line, 2);
        let twice =
            "[[audience]]\nname = \"a\"\nwhere = \"age < 30\"\n[[audience]]\nname = \"a\"\nwhere = \"age < 40\"\n";
        let errors = parse_toml(twice).unwrap_err();
        assert_eq!((errors.len(), errors[0].line), (1, 5));
        assert_eq!(parse_toml("template = 1").unwrap_err()[0].line, 1);
    }

    #[test]
    fn quiet_hours_are_three_things() {
        assert_eq!("off".parse(), Ok(QuietHours::Off));
        let window: QuietHours = "08:00-20:00".parse().unwrap();
        assert_eq!(window.to_string(), "08:00-20:00");
        assert_eq!("00:00-24:00".parse::<QuietHours>().unwrap().to_string(), "00:00-24:00");
        assert!("20:00-08:00".parse::<QuietHours>().is_err());
    }
}
