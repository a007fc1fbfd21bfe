//! From a template and a contact to a finished text: which of the template's texts, rendered, with the opt-out mention
//! where the rules ask for one, in how many parts, at what cost.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use domain::{
    Class, Contact, Phone, Reason,
    sms::{self, Encoding},
    template::{Compiled, Language, Link, Links, Locale, RenderError, TemplateError, Values, pick},
    territory::{Place, Table},
};
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Policy, Problem, Snapshot, Template, optout, rules};

/// All templates of a snapshot, compiled once.
#[derive(Debug)]
pub struct Composer {
    version: u64,
    templates: HashMap<String, Prepared>,
    policy: Arc<Policy>,
    /// Of short links.
    link_base: Option<String>,
}

/// A template with its texts compiled.
#[derive(Debug)]
struct Prepared {
    template: Arc<Template>,
    /// The first mistake of a template that an older version of ours let in.
    texts: Result<Texts, String>,
}

#[derive(Debug)]
struct Texts {
    text: Compiled,
    /// By tag, in lower case.
    languages: HashMap<String, (String, Compiled)>,
    variants: Vec<(String, Compiled)>,
}

/// What a text is made from.
#[derive(Clone, Copy, Debug)]
pub struct Compose<'a> {
    pub template: &'a str,
    pub contact: &'a Contact,
    pub message_id: Uuid,
    pub event: &'a Map<String, Value>,
    pub campaign: &'a Map<String, Value>,
    pub custom: &'a Map<String, Value>,
    /// For contacts whose own zone is unknown (IANA); the policy's where it is absent.
    pub default_zone: Option<&'a str>,
    /// `campaign.deadline`, where `campaign` does not say it itself.
    pub deadline: Option<Timestamp>,
}

/// A finished text.
#[derive(Clone, PartialEq)]
pub struct Composed {
    pub class: Class,
    pub sender: String,
    pub text: String,
    pub encoding: Encoding,
    pub parts: u16,
    pub variant: Option<String>,
    pub language: Option<String>,
    /// Millionths of the account's currency, estimated.
    pub cost_micros: i64,
    /// To be kept before the text goes out.
    pub links: Vec<Link>,
}

impl std::fmt::Debug for Composed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Composed")
            .field("encoding", &self.encoding)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

/// What a template's texts look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Values such as `contact.first_name`.
    pub variables: BTreeSet<String>,
    /// Those of them that are written without a default.
    pub required: BTreeSet<String>,
}

/// Why there is no text. The detail names fields and limits; it holds no values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub detail: String,
}

/// The most parts of a text where neither its template nor the policy says so. A longer one is a mistake that would be
/// expensive, and it is refused rather than cut.
pub const DEFAULT_MAX_PARTS: u16 = 10;

impl Composer {
    pub fn new(snapshot: &Snapshot) -> Composer {
        let templates = snapshot
            .templates
            .values()
            .map(|template| {
                let texts = Texts::compile(template).map_err(|mut wrong| match wrong.is_empty() {
                    true => "the template cannot be read".to_owned(),
                    false => wrong.swap_remove(0).message,
                });
                let prepared = Prepared {
                    template: template.clone(),
                    texts,
                };
                (template.name.clone(), prepared)
            })
            .collect();
        Composer {
            version: snapshot.version,
            templates,
            link_base: snapshot.policy.link_base(),
            policy: snapshot.policy.clone(),
        }
    }

    /// The version of the snapshot it was made from.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The template of a name.
    pub fn template(&self, name: &str) -> Option<&Template> {
        self.templates.get(name).map(|prepared| prepared.template.as_ref())
    }

    /// The most parts that a text of this template may take.
    pub fn max_parts(&self, template: &str) -> u16 {
        self.template(template)
            .and_then(|template| template.max_parts)
            .or(self.policy.max_parts)
            .unwrap_or(DEFAULT_MAX_PARTS)
    }

    pub fn compose(&self, input: &Compose<'_>) -> Result<Composed, Refusal> {
        let composed = self.write(input, None)?;
        let most = self.max_parts(input.template);
        match composed.parts > most {
            true => Err(failed(format!(
                "the text takes {} parts, the limit is {most}",
                composed.parts
            ))),
            false => Ok(composed),
        }
    }

    /// The text as it would be if the template's `smart` were the other way, however many parts it takes: to show what
    /// `smart` is good for.
    pub fn compose_otherwise(&self, input: &Compose<'_>) -> Result<Composed, Refusal> {
        let smart = self.template(input.template).is_some_and(|template| template.smart);
        self.write(input, Some(!smart))
    }

    /// `smart` instead of the template's own.
    fn write(&self, input: &Compose<'_>, smart: Option<bool>) -> Result<Composed, Refusal> {
        let Some(prepared) = self.templates.get(input.template) else {
            return Err(Refusal {
                reason: Reason::UnknownTemplate,
                detail: format!("there is no template `{}`", input.template),
            });
        };
        let texts = prepared.texts.as_ref().map_err(|wrong| failed(wrong.clone()))?;
        let template = &prepared.template;
        let nowhere = Phone::from_e164(String::new());
        let phone = input.contact.phone.as_ref().unwrap_or(&nowhere);

        let chosen = texts.choose(template, input.contact);
        let locale = self.locale(input, phone, chosen.language);
        let language = locale.language;
        let links = match &self.link_base {
            Some(base) if chosen.text.has_links() => Some(Links::new(base.as_str(), input.message_id)),
            _ => None,
        };
        let rendered = chosen.text.render(&Values {
            contact: input.contact,
            event: input.event,
            campaign: input.campaign,
            custom: input.custom,
            deadline: input.deadline,
            locale,
            links: links.clone(),
        });
        let mut text = rendered.map_err(|error| match error {
            RenderError::MissingValue { .. } => Refusal {
                reason: Reason::MissingValue,
                detail: error.to_string(),
            },
            _ => failed(error.to_string()),
        })?;
        // The end of a text in several lines of TOML is not meant to be sent.
        text.truncate(text.trim_end().len());
        if text.is_empty() {
            return Err(failed("the text is empty".into()));
        }
        if template.class == Class::Marketing {
            let tag = chosen.language.or(input.contact.language.as_deref());
            let brand = template.brand.as_ref().or(self.policy.brand.as_ref());
            optout::add_brand(&mut text, brand.map(String::as_str), &template.sender);
            let literal = chosen.text.literal();
            optout::add(&mut text, literal, &self.policy, &template.sender, tag, language);
        }
        if smart.unwrap_or(template.smart) {
            text = sms::smart(&text);
        }
        let measured = sms::measure(&text);
        Ok(Composed {
            class: template.class,
            sender: template.sender.clone(),
            text,
            encoding: measured.encoding,
            parts: measured.parts,
            variant: chosen.variant.map(str::to_owned),
            language: chosen.language.map(str::to_owned),
            links: links.map(|links| links.take()).unwrap_or_default(),
            cost_micros: rules::price(&self.policy, phone, None).saturating_mul(i64::from(measured.parts)),
        })
    }

    /// What is wrong with a template's texts, with line and column.
    pub fn check(template: &Template) -> Vec<Problem> {
        Texts::compile(template).err().unwrap_or_default()
    }

    /// What all texts of a template look at; of one that cannot be read nothing.
    pub fn needs(template: &Template) -> Needs {
        let mut needs = Needs::default();
        for compiled in template.texts().filter_map(|(_, text)| Compiled::compile(text).ok()) {
            needs.variables.extend(compiled.variables().iter().cloned());
            needs.required.extend(compiled.required());
        }
        needs
    }

    /// Whether any of a template's texts has a short link.
    pub fn has_links(template: &Template) -> bool {
        template
            .texts()
            .any(|(_, text)| Compiled::compile(text).is_ok_and(|compiled| compiled.has_links()))
    }

    /// Dates and amounts are written in the text's language; where the template does not say it, in the contact's, and
    /// else in the one of the phone's territory.
    fn locale(&self, input: &Compose<'_>, phone: &Phone, language: Option<&str>) -> Locale {
        let default_zone = input.default_zone.or(self.policy.default_zone.as_deref());
        let place = Place::of(input.contact.time_zone.as_deref(), phone, default_zone);
        let home = Table::get().by_phone(phone);
        let language = language
            .or(input.contact.language.as_deref())
            .or(home.language.as_deref());
        Locale {
            language: language.map(Language::of).unwrap_or_default(),
            zone: place.zone(),
            currency: self.policy.currency.clone().unwrap_or_default(),
            country: Some(home.code.clone()),
        }
    }
}

fn failed(detail: String) -> Refusal {
    Refusal {
        reason: Reason::TemplateFailed,
        detail,
    }
}

/// The one of a template's texts that a contact gets.
struct Chosen<'a> {
    text: &'a Compiled,
    language: Option<&'a str>,
    variant: Option<&'a str>,
}

impl Texts {
    fn compile(template: &Template) -> Result<Texts, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut compile = |key: &'static str, which: Option<&str>, text: &str| match Compiled::compile(text) {
            Ok(compiled) => Some(compiled),
            Err(errors) => {
                let name = which.map(|which| format!("`{which}`: ")).unwrap_or_default();
                let told = |error: &TemplateError| Problem::new(key, format!("{name}{error}"));
                problems.extend(errors.iter().map(told));
                None
            }
        };
        let text = compile("text", None, &template.text);
        let languages = template
            .languages
            .iter()
            .filter_map(|(tag, text)| {
                let compiled = compile("languages", Some(tag), text)?;
                Some((tag.to_ascii_lowercase(), (tag.clone(), compiled)))
            })
            .collect();
        let variants = template
            .variants
            .iter()
            .filter_map(|variant| {
                let compiled = compile("variant", Some(&variant.name), &variant.text)?;
                Some((variant.name.clone(), compiled))
            })
            .collect();
        match text {
            Some(text) if problems.is_empty() => Ok(Texts {
                text,
                languages,
                variants,
            }),
            _ => Err(problems),
        }
    }

    /// A contact whose language has a text of its own gets that one; variants are variants of the main text.
    fn choose<'a>(&'a self, template: &'a Template, contact: &Contact) -> Chosen<'a> {
        let main = template.language.as_deref();
        if let Some(wanted) = contact.language.as_deref()
            && !self.languages.is_empty()
            && !main.is_some_and(|main| main.eq_ignore_ascii_case(wanted))
            && let Some((tag, text)) = by_tag(wanted, |tag| self.languages.get(tag))
        {
            return Chosen {
                text,
                language: Some(tag),
                variant: None,
            };
        }
        let weights = template.variants.iter().map(|variant| variant.weight);
        match pick(&template.name, &contact.id, weights).and_then(|index| self.variants.get(index)) {
            Some((name, text)) => Chosen {
                text,
                language: main,
                variant: Some(name),
            },
            None => Chosen {
                text: &self.text,
                language: main,
                variant: None,
            },
        }
    }
}

/// Looks a tag up as it is, then without its last subtags: `fr-RE`, then `fr` (RFC 4647, 3.4).
pub(crate) fn by_tag<'a, T>(tag: &str, find: impl Fn(&str) -> Option<&'a T>) -> Option<&'a T> {
    let mut tag = tag.to_ascii_lowercase();
    loop {
        if let Some(found) = find(&tag) {
            return Some(found);
        }
        tag.truncate(tag.rfind(['-', '_'])?);
    }
}

#[cfg(test)]
mod tests;
