//! A text's values as the engine reads them.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
};

use minijinja::{Value, value::Object};
use serde_json::Value as Json;

use super::{
    Locale, Values,
    link::{LINKS, Links},
};
use crate::Contact;

/// The values of one text: what the template needs of each root, and what it asked for in vain.
#[derive(Debug)]
pub(super) struct Context {
    roots: Vec<(&'static str, Value)>,
    locale: Value,
    links: Option<Arc<Links>>,
}

/// The name under which filters find the locale. It cannot be written in a template.
pub(super) const LOCALE: &str = " locale";

impl Object for Context {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if key == LOCALE {
            return Some(self.locale.clone());
        }
        if key == LINKS {
            return self.links.clone().map(Value::from_dyn_object);
        }
        self.roots
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.clone())
    }
}

/// The last value that was asked for and was not there.
#[derive(Clone, Debug, Default)]
pub(super) struct Missed(Arc<Mutex<Option<String>>>);

impl Missed {
    fn note(&self, path: &str, key: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{path}.{key}"));
    }

    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The locale on its way to the filters.
#[derive(Debug)]
pub(super) struct Carried(pub(super) Locale);

impl Object for Carried {}

/// A map of values that remembers its own name, so that a missing one can be named whole.
#[derive(Debug)]
struct Branch {
    path: Cow<'static, str>,
    /// A text looks at a few of them: they are gone through, which is quicker than a tree of them is made.
    values: Vec<(Arc<str>, Value)>,
    missed: Missed,
}

impl Object for Branch {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let found = self.values.iter().find(|(name, _)| **name == *key);
        let value = found.map(|(_, value)| value.clone());
        if value.is_none() {
            self.missed.note(&self.path, key);
        }
        value
    }

    fn enumerate(self: &Arc<Self>) -> minijinja::value::Enumerator {
        minijinja::value::Enumerator::Values(self.values.iter().map(|(key, _)| Value::from(key.clone())).collect())
    }
}

/// What a template needs of one root.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub(super) root: &'static str,
    /// Absent: all of it.
    pub(super) keys: Option<Vec<Arc<str>>>,
}

impl Context {
    pub(super) fn new(values: &Values<'_>, needs: &[Need], missed: &Missed) -> Context {
        let roots = needs
            .iter()
            .map(|need| {
                let all: Vec<Arc<str>>;
                let keys = match &need.keys {
                    Some(keys) => keys,
                    None => {
                        all = all_keys(values, need.root).into_iter().map(Arc::from).collect();
                        &all
                    }
                };
                let mut found = Vec::with_capacity(keys.len());
                for name in keys {
                    let key: &str = name;
                    let value = match need.root {
                        "contact" => contact_value(values.contact, key, missed),
                        "event" => values
                            .event
                            .get(key)
                            .and_then(|json| convert(json, "event", key, missed)),
                        "campaign" => campaign_value(values, key, missed),
                        _ => values
                            .custom
                            .get(key)
                            .and_then(|json| convert(json, "custom", key, missed)),
                    };
                    if let Some(value) = value {
                        found.push((name.clone(), value));
                    }
                }
                let branch = Branch {
                    path: Cow::Borrowed(need.root),
                    values: found,
                    missed: missed.clone(),
                };
                (need.root, Value::from_object(branch))
            })
            .collect();
        Context {
            roots,
            locale: Value::from_object(Carried(values.locale.clone())),
            links: values.links.clone(),
        }
    }
}

fn all_keys<'a>(values: &Values<'a>, root: &str) -> Vec<&'a str> {
    match root {
        "contact" => super::check::CONTACT_FIELDS
            .into_iter()
            .chain(values.contact.attributes.keys().map(String::as_str))
            .collect(),
        "event" => values.event.keys().map(String::as_str).collect(),
        "campaign" => values.campaign.keys().map(String::as_str).chain(["deadline"]).collect(),
        _ => values.custom.keys().map(String::as_str).collect(),
    }
}

fn campaign_value(values: &Values<'_>, key: &str, missed: &Missed) -> Option<Value> {
    match values.campaign.get(key) {
        Some(json) => convert(json, "campaign", key, missed),
        None if key == "deadline" => values.deadline.map(|at| Value::from(at.to_string())),
        None => None,
    }
}

fn contact_value(contact: &Contact, key: &str, missed: &Missed) -> Option<Value> {
    let own = |value: &Option<String>| value.as_deref().and_then(text);
    match key {
        "id" => text(&contact.id),
        "phone" => contact.phone.as_ref().map(|phone| Value::from(phone.e164())),
        "first_name" => own(&contact.first_name),
        "last_name" => own(&contact.last_name),
        "gender" => own(&contact.gender),
        "birth_date" => contact.birth_date.map(|date| Value::from(date.to_string())),
        "city" => own(&contact.city),
        "region" => own(&contact.region),
        "postal_code" => own(&contact.postal_code),
        "language" => own(&contact.language),
        "time_zone" => own(&contact.time_zone),
        _ => contact
            .attributes
            .get(key)
            .and_then(|json| convert(json, "contact", key, missed)),
    }
}

/// A blank text is no value: "Bonjour ," must never go out.
fn text(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| Value::from(text))
}

/// JSON as the engine has it; `null` and blank texts are not there.
fn convert(json: &Json, path: &str, key: &str, missed: &Missed) -> Option<Value> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(truth) => Value::from(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::from(whole),
            // A Struct on the wire knows only doubles: `2` comes as `2.0`. Below 2^53 they are the same.
            (None, Some(double)) if double.fract() == 0.0 && double.abs() < 9_007_199_254_740_992.0 => {
                Value::from(double as i64)
            }
            (None, double) => Value::from(double?),
        },
        Json::String(string) => return text(string),
        Json::Array(items) => {
            let path = format!("{path}.{key}");
            items
                .iter()
                .filter_map(|item| convert(item, &path, "[]", missed))
                .collect()
        }
        Json::Object(map) => {
            let path = format!("{path}.{key}");
            let values = map
                .iter()
                .filter_map(|(key, json)| Some((Arc::from(key.as_str()), convert(json, &path, key, missed)?)))
                .collect();
            Value::from_object(Branch {
                path: Cow::Owned(path),
                values,
                missed: missed.clone(),
            })
        }
    })
}
