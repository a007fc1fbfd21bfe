//! Any resource, by kind.

use std::{fmt, str::FromStr};

use serde_json::Value;

use crate::{Audience, Gateway, Policy, Problem, Template, Trigger};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Gateway,
    Template,
    Audience,
    Trigger,
    Policy,
}

impl Kind {
    pub const ALL: [Kind; 5] = [
        Kind::Gateway,
        Kind::Template,
        Kind::Audience,
        Kind::Trigger,
        Kind::Policy,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Gateway => "gateway",
            Kind::Template => "template",
            Kind::Audience => "audience",
            Kind::Trigger => "trigger",
            Kind::Policy => "policy",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| "unknown kind of resource: expected gateway, template, audience, trigger or policy".into())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    Gateway(Gateway),
    Template(Template),
    Audience(Audience),
    Trigger(Trigger),
    /// There is one: its name in the store is `policy`.
    Policy(Policy),
}

impl Resource {
    pub fn kind(&self) -> Kind {
        match self {
            Resource::Gateway(_) => Kind::Gateway,
            Resource::Template(_) => Kind::Template,
            Resource::Audience(_) => Kind::Audience,
            Resource::Trigger(_) => Kind::Trigger,
            Resource::Policy(_) => Kind::Policy,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Resource::Gateway(gateway) => &gateway.name,
            Resource::Template(template) => &template.name,
            Resource::Audience(audience) => &audience.name,
            Resource::Trigger(trigger) => &trigger.name,
            Resource::Policy(_) => "policy",
        }
    }

    /// As the store keeps it.
    pub fn to_json(&self) -> Value {
        match self {
            Resource::Gateway(gateway) => serde_json::to_value(gateway),
            Resource::Template(template) => serde_json::to_value(template),
            Resource::Audience(audience) => serde_json::to_value(audience),
            Resource::Trigger(trigger) => serde_json::to_value(trigger),
            Resource::Policy(policy) => serde_json::to_value(policy),
        }
        // Plain data with text keys: there is nothing in it that JSON could not hold.
        .unwrap_or_default()
    }

    pub fn from_json(kind: Kind, body: Value) -> Result<Resource, serde_json::Error> {
        Ok(match kind {
            Kind::Gateway => Resource::Gateway(serde_json::from_value(body)?),
            Kind::Template => Resource::Template(serde_json::from_value(body)?),
            Kind::Audience => Resource::Audience(serde_json::from_value(body)?),
            Kind::Trigger => Resource::Trigger(serde_json::from_value(body)?),
            Kind::Policy => Resource::Policy(serde_json::from_value(body)?),
        })
    }

    /// What is wrong with it by itself: names, limits, keys that do not go together.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        match self {
            Resource::Gateway(gateway) => gateway.check(&mut problems),
            Resource::Template(template) => template.check(&mut problems),
            Resource::Audience(audience) => audience.check(&mut problems),
            Resource::Trigger(trigger) => trigger.check(&mut problems),
            Resource::Policy(policy) => policy.check(&mut problems),
        }
        problems
    }
}
