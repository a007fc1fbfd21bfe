//! An event type that starts messages.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Period, Problem, check_event_type, check_name};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    pub name: String,
    /// The event type that starts it.
    pub on: String,
    /// A condition in the audience language, `event.FIELD` being the event's own values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// A named audience that the contact must be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    pub template: String,
    /// How long after the event the message is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Period>,
    /// What, when it happens during the wait, makes the message unnecessary: an event type, with an optional filter as
    /// in `did`: `order.placed(category = event.category)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless: Option<String>,
    /// At most one message of this trigger to a contact in this period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once_per: Option<Period>,
    /// Nothing is sent later than this after the event (after the wait, where there is one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Period>,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub active: bool,
    /// Events before it start nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Events from it on start nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Events older than this when they arrive are history and start nothing; absent: one day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Period>,
    /// The template's `custom.…` values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vars: BTreeMap<String, Value>,
}

fn yes() -> bool {
    true
}

fn is_yes(active: &bool) -> bool {
    *active
}

impl Trigger {
    /// How old an event may be and still start this trigger. A day by default: loading last year's orders must not
    /// write to last year's customers.
    pub fn max_age(&self) -> Period {
        self.max_age.unwrap_or(Period::from_secs(86_400))
    }

    /// Whether an event of time `at`, arriving at `now`, may start it.
    pub fn takes(&self, at: Timestamp, now: Timestamp) -> bool {
        self.active
            && self.from.is_none_or(|from| at >= from)
            && self.until.is_none_or(|until| at < until)
            && now.duration_since(at) <= self.max_age().duration()
    }

    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        check_name("name", &self.name, problems);
        check_event_type("on", &self.on, problems);
        check_name("template", &self.template, problems);
        if let Some(audience) = &self.audience {
            check_name("audience", audience, problems);
        }
        if self.unless.is_some() && self.wait.is_none() {
            problems.push(Problem::new(
                "unless",
                "`unless` looks at what happens during `wait`: expected `wait = \"30m\"` beside it",
            ));
        }
        if let (Some(from), Some(until)) = (self.from, self.until)
            && from >= until
        {
            problems.push(Problem::new("until", "expected a time after `from`"));
        }
    }
}

#[cfg(test)]
mod tests {

    #[test]
    fn an_event_is_taken_within_the_dates_and_while_it_is_young() {
        let trigger = |more: &str| {
            let toml = format!("[[trigger]]\nname = \"t\"\non = \"x\"\ntemplate = \"t\"\n{more}");
            match crate::parse_toml(&toml).unwrap().remove(0) {
                crate::Resource::Trigger(trigger) => trigger,
                other => panic!("{other:?}"),
            }
        };
        let from = "from = \"2026-06-01T00:00:00Z\"";
        let until = "until = \"2026-07-01T00:00:00Z\"";
        let both = format!("{from}\n{until}");
        for (more, at, now, takes) in [
            ("", "2026-06-01T10:00:00Z", "2026-06-01T10:00:00Z", true),
            ("active = false", "2026-06-01T10:00:00Z", "2026-06-01T10:00:00Z", false),
            (from, "2026-05-31T23:59:59Z", "2026-06-01T10:00:00Z", false),
            (from, "2026-06-01T00:00:00Z", "2026-06-01T10:00:00Z", true),
            (until, "2026-06-30T23:59:59Z", "2026-07-01T00:00:01Z", true),
            (until, "2026-07-01T00:00:00Z", "2026-07-01T00:00:01Z", false),
            (both.as_str(), "2026-06-15T00:00:00Z", "2026-06-15T23:00:00Z", true),
            (both.as_str(), "2026-07-15T00:00:00Z", "2026-07-15T00:00:00Z", false),
            ("", "2026-06-01T10:00:00Z", "2026-06-02T10:00:01Z", false),
            ("max_age = \"2d\"", "2026-06-01T10:00:00Z", "2026-06-02T10:00:01Z", true),
        ] {
            let taken = trigger(more).takes(at.parse().unwrap(), now.parse().unwrap());
            assert_eq!(taken, takes, "{more}, {at}, {now}");
        }
    }
}
