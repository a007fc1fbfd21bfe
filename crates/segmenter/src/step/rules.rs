//! The triggers, compiled once per change of the resources and found by event type: what ten thousand triggers on other
//! types cost an event is one look into a map.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use domain::{
    Contact,
    audience::{self, Expression, Past, Unless},
};
use events::BusinessEvent;
use jiff::{SignedDuration, Timestamp};
use resources::{Snapshot, Trigger};

/// A trigger with its conditions parsed.
#[derive(Debug)]
pub(super) struct Rule {
    pub trigger: Arc<Trigger>,
    when: Option<Expression>,
    audience: Option<Arc<Expression>>,
    unless: Option<Unless>,
    /// The event types whose history it looks at, before it waits.
    conditions: BTreeSet<String>,
    /// Whether it looks at the contact's fields.
    contact: bool,
    /// Whether it looks at the campaigns that a contact received.
    received: bool,
}

#[derive(Debug, Default)]
pub(super) struct Rules {
    pub version: u64,
    by_type: HashMap<String, Vec<Arc<Rule>>>,
    by_name: HashMap<String, Arc<Rule>>,
    audiences: Named,
}

type Named = BTreeMap<String, Arc<Expression>>;

impl Rules {
    /// What cannot be parsed was let in by another version of ours: it is told, and starts nothing.
    pub fn new(snapshot: &Snapshot) -> Rules {
        let mut rules = Rules {
            version: snapshot.version,
            ..Rules::default()
        };
        for (name, audience) in &snapshot.audiences {
            match audience::parse(&audience.condition) {
                Ok(expression) => {
                    rules.audiences.insert(name.clone(), Arc::new(expression));
                }
                Err(error) => {
                    tracing::error!(audience = name, %error, "an audience cannot be read and holds for nobody")
                }
            }
        }
        for (name, trigger) in snapshot.triggers.iter().filter(|(_, trigger)| trigger.active) {
            match Rule::new(trigger.clone(), &rules.audiences) {
                Ok(rule) => {
                    let rule = Arc::new(rule);
                    rules.by_type.entry(trigger.on.clone()).or_default().push(rule.clone());
                    rules.by_name.insert(name.clone(), rule);
                }
                Err(error) => tracing::error!(trigger = name, error, "a trigger cannot be read and starts nothing"),
            }
        }
        rules
    }

    /// The active triggers on an event type.
    pub fn on(&self, kind: &str) -> &[Arc<Rule>] {
        self.by_type.get(kind).map_or(&[], Vec::as_slice)
    }

    /// An active trigger.
    pub fn named(&self, name: &str) -> Option<&Arc<Rule>> {
        self.by_name.get(name)
    }

    pub fn audiences(&self) -> &Named {
        &self.audiences
    }
}

impl Rule {
    fn new(trigger: Arc<Trigger>, audiences: &Named) -> Result<Rule, String> {
        let when = trigger.when.as_deref().map(audience::parse_for_trigger).transpose();
        let when = when.map_err(|error| format!("`when`: {error}"))?;
        let unless = trigger.unless.as_deref().map(audience::parse_unless).transpose();
        let unless = unless.map_err(|error| format!("`unless`: {error}"))?;
        let audience = match &trigger.audience {
            Some(name) => match audiences.get(name) {
                Some(audience) => Some(audience.clone()),
                None => return Err(format!("there is no audience `{name}`")),
            },
            None => None,
        };
        let find = |name: &str| audiences.get(name).cloned();
        let mut conditions = BTreeSet::new();
        let (mut contact, mut received) = (false, false);
        for expression in when.iter().chain(audience.as_deref()) {
            conditions.extend(expression.did_types_with(&find));
            contact |= expression.asks_contact_with(&find);
            received |= expression.asks_received_with(&find);
        }
        Ok(Rule {
            trigger,
            when,
            audience,
            unless,
            conditions,
            contact,
            received,
        })
    }

    pub fn waits(&self) -> bool {
        self.trigger.wait.is_some()
    }

    /// When the message of an event is due.
    pub fn due(&self, event: Timestamp) -> Timestamp {
        let wait = self
            .trigger
            .wait
            .map_or(SignedDuration::ZERO, resources::Period::duration);
        event.checked_add(wait).unwrap_or(Timestamp::MAX)
    }

    /// After which nothing is sent.
    pub fn deadline(&self, event: Timestamp) -> Option<Timestamp> {
        let after = self.trigger.deadline?.duration();
        Some(self.due(event).checked_add(after).unwrap_or(Timestamp::MAX))
    }

    /// Whether it has conditions at an event's arrival (`false`) or when the wait is over.
    pub fn is_conditional(&self, fired: bool) -> bool {
        self.when.is_some() || self.audience.is_some() || (fired && self.unless.is_some())
    }

    /// Whether it looks at the contact's fields.
    pub fn asks_contact(&self) -> bool {
        self.contact
    }

    /// Whether it looks at the campaigns that the contact received.
    pub fn asks_received(&self) -> bool {
        self.received
    }

    /// The event types whose history it looks at.
    pub fn types(&self, fired: bool) -> impl Iterator<Item = &str> {
        let unless = self
            .unless
            .iter()
            .filter(move |_| fired)
            .map(|unless| unless.kind.as_str());
        self.conditions.iter().map(String::as_str).chain(unless)
    }

    /// Whether `when` and `audience` hold now.
    pub fn holds(
        &self,
        contact: &Contact,
        past: &Past<'_>,
        event: &BusinessEvent,
        named: &Named,
        now: Timestamp,
    ) -> bool {
        let find = |name: &str| named.get(name).cloned();
        self.when
            .iter()
            .chain(self.audience.as_deref())
            .all(|expression| expression.matches(contact, past, Some(&event.data), &find, now))
    }

    /// Whether what makes the message unnecessary happened. `past` is without the event itself.
    pub fn is_unnecessary(&self, past: &Past<'_>, event: &BusinessEvent, now: Timestamp) -> bool {
        self.unless
            .as_ref()
            .is_some_and(|unless| unless.happened(past, &event.data, event.time, now))
    }
}

#[cfg(test)]
mod tests {
    use resources::parse_toml;

    use super::*;

    #[test]
    fn triggers_are_found_by_type_and_only_active_ones() {
        let toml = r#"
            [[audience]]
            name = "north"
            where = 'region = "north" and did order.placed'
            [[trigger]]
            name = "a"
            on = "order.placed"
            template = "t"
            [[trigger]]
            name = "b"
            on = "cart.updated"
            wait = "30m"
            unless = "order.placed(category = event.category)"
            audience = "north"
            deadline = "1h"
            template = "t"
            [[trigger]]
            name = "c"
            on = "cart.abandoned"
            when = 'event.amount > 0 and (event.category = "shoes" or did order.placed within 30 days)'
            template = "t"
            [[trigger]]
            name = "off"
            on = "order.placed"
            active = false
            template = "t"
        "#;
        let mut snapshot = Snapshot::default();
        for resource in parse_toml(toml).unwrap() {
            snapshot.insert(resource, 1);
        }
        let rules = Rules::new(&snapshot);
        assert_eq!(rules.on("order.placed").len(), 1);
        assert!(rules.on("other").is_empty() && rules.named("off").is_none());
        assert!(!rules.on("order.placed")[0].asks_contact());
        let waiting = rules.named("b").unwrap();
        assert!(waiting.asks_contact(), "its audience does");
        assert!(!rules.named("c").unwrap().asks_contact(), "event and history alone");
        assert!(waiting.waits());
        let types = |fired| waiting.types(fired).map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(types(false), ["order.placed".to_owned()].into());
        let at: Timestamp = "2026-06-01T10:00:00Z".parse().unwrap();
        assert_eq!(waiting.due(at).to_string(), "2026-06-01T10:30:00Z");
        assert_eq!(waiting.deadline(at).unwrap().to_string(), "2026-06-01T11:30:00Z");
    }
}
