//! Texts with holes.
//!
//! The language is Jinja's (minijinja), without anything that reaches outside: no includes, no macros, no files, no function
//! but `link`; with a budget of work, a depth and a length. Values come from `contact`, `event`, `campaign` and `custom`. They
//! arrive as they are typed: nothing is escaped anywhere. A value that is missing, empty or blank and has no default is an
//! error, never a hole in the text.

mod check;
mod filters;
mod lex;
mod link;
mod locale;
mod values;
mod variant;

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use jiff::Timestamp;
use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Map, Value as Json};

pub use check::is_contact_field;
pub use lex::HOLE;
pub use link::{Link, Links};
pub use locale::{Language, Locale};
pub use variant::pick;

use crate::Contact;
use values::{Context, Missed, Need};

/// A template, read once and rendered often.
#[derive(Clone, Debug)]
pub struct Compiled {
    env: Environment<'static>,
    variables: BTreeSet<String>,
    needs: Vec<Need>,
    has_links: bool,
    literal: String,
}

/// A mistake in a template, with where it stands (both counted from 1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct TemplateError {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

/// What one text is made of.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    pub contact: &'a Contact,
    pub event: &'a Map<String, Json>,
    pub campaign: &'a Map<String, Json>,
    pub custom: &'a Map<String, Json>,
    /// `campaign.deadline`, where `campaign` does not say it.
    pub deadline: Option<Timestamp>,
    pub locale: Locale,
    /// What `link(…)` makes; absent: such a text fails.
    pub links: Option<Arc<Links>>,
}

/// Why there is no text. It names fields, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    #[error("`{name}` is missing and the template has no default for it")]
    MissingValue { name: String },
    #[error("the text is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the template asks for more work than a text may cost")]
    TooMuchWork,
    #[error("line {line}: {what}")]
    Failed { line: usize, what: String },
}

/// The name of the one template in its environment.
const NAME: &str = "text";

/// More than 255 parts hold.
const MAX_BYTES: usize = 65_536;

impl Compiled {
    /// Reads a template and tells everything that is wrong with it.
    pub fn compile(source: &str) -> Result<Compiled, Vec<TemplateError>> {
        static BASE: LazyLock<Environment<'static>> = LazyLock::new(filters::environment);
        let mut env = BASE.clone();
        env.add_template_owned(NAME, source.to_owned())
            .map_err(|error| vec![TemplateError::of_engine(source, &error)])?;
        let variables: BTreeSet<String> = env
            .get_template(NAME)
            .map_err(|error| vec![TemplateError::of_engine(source, &error)])?
            .undeclared_variables(true)
            .into_iter()
            .collect();
        let errors = check::check(source, &variables);
        if !errors.is_empty() {
            return Err(errors);
        }
        let needs = check::ROOTS
            .into_iter()
            .filter(|root| variables.iter().any(|name| check::root(name) == *root))
            .map(|root| {
                // `contact` by itself, or `contact[…]`: it could be any of its values.
                let whole = variables.contains(root);
                let mut keys: Vec<Arc<str>> = variables
                    .iter()
                    .filter_map(|name| name.strip_prefix(root)?.strip_prefix('.'))
                    .map(|path| Arc::from(check::root(path)))
                    .collect();
                keys.dedup();
                Need {
                    root,
                    keys: (!whole).then_some(keys),
                }
            })
            .collect();
        Ok(Compiled {
            env,
            variables,
            needs,
            has_links: check::has_links(source),
            literal: lex::literals(source),
        })
    }

    /// The values that the template looks at, such as `contact.first_name`.
    pub fn variables(&self) -> &BTreeSet<String> {
        &self.variables
    }

    /// Whether `link(…)` stands in it.
    pub fn has_links(&self) -> bool {
        self.has_links
    }

    /// What its author wrote, without tags; [`HOLE`] stands where a value will be.
    pub fn literal(&self) -> &str {
        &self.literal
    }

    /// Those of them that are written without a default: whoever lacks one gets no text.
    pub fn required(&self) -> BTreeSet<String> {
        match self.env.get_template(NAME) {
            Ok(template) => check::without_default(template.source(), &self.variables),
            Err(_) => BTreeSet::new(),
        }
    }

    pub fn render(&self, values: &Values<'_>) -> Result<String, RenderError> {
        let missed = Missed::default();
        let context = Value::from_object(Context::new(values, &self.needs, &missed));
        let rendered = self
            .env
            .get_template(NAME)
            .and_then(|template| template.render(context));
        let missing = || RenderError::MissingValue {
            name: missed.take().unwrap_or_else(|| "a value".into()),
        };
        match rendered {
            Ok(text) if text.len() > MAX_BYTES => Err(RenderError::TooLong { limit: MAX_BYTES }),
            Ok(text) => Ok(text),
            Err(error) => Err(match error.kind() {
                ErrorKind::UndefinedError => missing(),
                // `contact.points + 1` of a contact without points.
                ErrorKind::InvalidOperation if reckons_with_nothing(&error) => missing(),
                ErrorKind::OutOfFuel => RenderError::TooMuchWork,
                // The engine's own detail may repeat a value.
                kind => RenderError::Failed {
                    line: error.line().unwrap_or(1),
                    what: std::error::Error::source(&error)
                        .and_then(|source| source.downcast_ref::<filters::Expected>())
                        .map_or_else(|| kind.to_string(), ToString::to_string),
                },
            }),
        }
    }
}

/// Whether an operator was given a value that is not there. The engine says so in its detail alone: `tried to use +
/// operator on unsupported types undefined and number`, and of a sign `` `contact.points` is undefined``.
fn reckons_with_nothing(error: &minijinja::Error) -> bool {
    let detail = error.detail().unwrap_or_default();
    match detail.strip_prefix("tried to use ") {
        Some(kinds) => kinds.split(' ').any(|kind| kind == "undefined" || kind == "none"),
        None => detail.starts_with('`') && detail.contains("` is undefined"),
    }
}

impl TemplateError {
    fn at(source: &str, byte: usize, message: String) -> TemplateError {
        let (line, column) = lex::position(source, byte);
        TemplateError { line, column, message }
    }

    fn of_engine(source: &str, error: &minijinja::Error) -> TemplateError {
        let (line, column) = match error.range() {
            Some(range) => lex::position(source, range.start),
            None => (error.line().unwrap_or(1), 1),
        };
        let message = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        TemplateError { line, column, message }
    }
}

#[cfg(test)]
mod tests;
