//! Values by dotted key, each with where it was written, and what was wrong with them.
//!
//! The default file is the list of the keys that exist; a file, the environment and options of the command go over it,
//! in this order. Nothing here knows what a value means: see `read`.

use std::{collections::BTreeMap, fmt};

use toml::de::{DeTable, DeValue};

/// Keys under it are somebody else's (librdkafka's) and not known here.
const FREE: &str = "bus.kafka.";
const PREFIX: &str = "TAMTAM__";

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { name: String, line: usize },
    Environment { name: String },
    Option { name: &'static str },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { name, line } => write!(f, "{name}, line {line}"),
            Origin::Environment { name } => write!(f, "environment variable {name}"),
            Origin::Option { name } => f.write_str(name),
        }
    }
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub key: String,
    /// As written; absent where it is a secret or where there is none.
    pub value: Option<String>,
    pub origin: Origin,
    /// What is wrong or what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`", self.origin, self.key)?;
        if let Some(value) = &self.value {
            write!(f, " is `{value}`")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A value as text, whatever its type in TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub text: String,
    pub origin: Origin,
}

#[derive(Debug, Default)]
pub struct Layers {
    entries: BTreeMap<String, Entry>,
    pub problems: Vec<Problem>,
}

impl Layers {
    /// The default file: what it holds is what there is.
    pub fn new(default: &str) -> Layers {
        let mut layers = Layers::default();
        for (key, text, _) in layers.leaves(default, "default.toml") {
            let origin = Origin::Default;
            layers.entries.insert(key, Entry { text, origin });
        }
        layers
    }

    pub fn file(&mut self, name: &str, text: &str) {
        for (key, text, line) in self.leaves(text, name) {
            let name = name.to_owned();
            self.put(key, text, Origin::File { name, line });
        }
    }

    /// Variables named `TAMTAM__SECTION__KEY`; others are not looked at.
    pub fn environment(&mut self, variables: &BTreeMap<String, String>) {
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let mut key = rest.to_ascii_lowercase().replace("__", ".");
            if let Some(free) = key.strip_prefix(FREE) {
                // librdkafka's names have dots, which a variable's name cannot have.
                key = format!("{FREE}{}", free.replace('_', "."));
            }
            self.put(key, text.clone(), Origin::Environment { name: name.clone() });
        }
    }

    pub fn option(&mut self, key: &str, text: String, name: &'static str) {
        self.put(key.to_owned(), text, Origin::Option { name });
    }

    /// The value of a key of the default file.
    pub fn get(&self, key: &str) -> Entry {
        self.entries.get(key).cloned().unwrap_or(Entry {
            text: String::new(),
            origin: Origin::Default,
        })
    }

    /// What stands under `bus.kafka`, by librdkafka's names.
    pub fn free(&self) -> BTreeMap<String, String> {
        self.entries
            .iter()
            .filter_map(|(key, entry)| Some((key.strip_prefix(FREE)?.to_owned(), entry.text.clone())))
            .collect()
    }

    fn put(&mut self, key: String, text: String, origin: Origin) {
        let free = key.strip_prefix(FREE).is_some_and(|name| !name.is_empty());
        if free || self.entries.contains_key(&key) {
            self.entries.insert(key, Entry { text, origin });
            return;
        }
        let message = match self.similar(&key) {
            Some(known) => format!("there is no such setting: did you mean `{known}`?"),
            None => "there is no such setting: `tamtam settings` prints all of them".to_owned(),
        };
        self.problems.push(Problem {
            key,
            value: None,
            origin,
            message,
        });
    }

    /// The known key that looks most like it, or the one of the same last word.
    fn similar(&self, key: &str) -> Option<&str> {
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let distance = |known: &str| match last(known) == last(key) {
            true => 1,
            false => strsim::levenshtein(known, key),
        };
        self.entries
            .keys()
            .map(|known| (distance(known), known.as_str()))
            .min()
            .filter(|(distance, _)| *distance <= 3)
            .map(|(_, known)| known)
    }

    /// (dotted key, value as text, line) of each value in a TOML text.
    fn leaves(&mut self, text: &str, name: &str) -> Vec<(String, String, usize)> {
        let line_of = |offset: usize| text.get(..offset).map_or(1, |before| before.matches('\n').count() + 1);
        let origin = |line| Origin::File {
            name: name.to_owned(),
            line,
        };
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            self.problems.push(Problem {
                key: "TOML".into(),
                value: None,
                origin: origin(line_of(error.span().map_or(0, |span| span.start))),
                message: error.message().lines().collect::<Vec<_>>().join(", "),
            });
        }
        if !errors.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut waiting = vec![(String::new(), document.into_inner())];
        while let Some((prefix, table)) = waiting.pop() {
            for (key, value) in table {
                let line = line_of(key.span().start);
                let key = format!("{prefix}{}", key.get_ref());
                let leaf = match value.into_inner() {
                    DeValue::Table(inner) => {
                        waiting.push((format!("{key}."), inner));
                        continue;
                    }
                    DeValue::String(text) => text.into_owned(),
                    DeValue::Boolean(flag) => flag.to_string(),
                    DeValue::Integer(number) if number.radix() == 10 => number.as_str().replace('_', ""),
                    DeValue::Float(number) => number.as_str().replace('_', ""),
                    other => {
                        self.problems.push(Problem {
                            key,
                            value: None,
                            origin: origin(line),
                            message: format!("expected a text, a number or true/false, not {}", other.type_str()),
                        });
                        continue;
                    }
                };
                found.push((key, leaf, line));
            }
        }
        found.sort_by_key(|(_, _, line)| *line);
        found
    }
}
