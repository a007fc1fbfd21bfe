//! The form: its fields, and what they mean.

use domain::Class;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use maud::{Markup, html};
use resources::Template;
use serde::Deserialize;

use crate::words::{Language, Words};

/// What is not as it must be, told without asking anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    Name,
    Sender,
    Text,
    Start,
    Deadline,
    Zone,
    /// The key of a summary is none of ours.
    Summary,
}

impl Mistake {
    pub(crate) fn message(self, words: &Words) -> &'static str {
        match self {
            Mistake::Name => words.name_wrong,
            Mistake::Sender => words.sender_wrong,
            Mistake::Text => words.text_wrong,
            Mistake::Start => words.start_wrong,
            Mistake::Deadline => words.deadline_wrong,
            Mistake::Zone => words.zone_wrong,
            Mistake::Summary => words.summary_wrong,
        }
    }
}

/// What is to be announced, as it was typed.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Announcement {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    expression: String,
    #[serde(default)]
    pub(crate) text: String,
    #[serde(default)]
    sender: String,
    /// A checkbox: there when it is ticked.
    smart: Option<String>,
    /// `YYYY-MM-DDTHH:MM` in `zone`, as browsers send it.
    #[serde(default)]
    start: String,
    #[serde(default)]
    deadline: String,
    #[serde(default)]
    pub(crate) zone: String,
}

/// An announcement and the key of its summary.
#[derive(Debug, Deserialize)]
pub(crate) struct Launch {
    // Not flattened: a form's fields are all texts, which serde's flatten would have to guess from.
    #[serde(default)]
    name: String,
    #[serde(default)]
    expression: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    sender: String,
    smart: Option<String>,
    #[serde(default)]
    start: String,
    #[serde(default)]
    deadline: String,
    #[serde(default)]
    zone: String,
    pub(crate) key: String,
}

impl Launch {
    pub(crate) fn announcement(&self) -> Announcement {
        Announcement {
            name: self.name.clone(),
            expression: self.expression.clone(),
            text: self.text.clone(),
            sender: self.sender.clone(),
            smart: self.smart.clone(),
            start: self.start.clone(),
            deadline: self.deadline.clone(),
            zone: self.zone.clone(),
        }
    }
}

impl Announcement {
    /// Nothing typed yet.
    pub(crate) fn empty(zone: String) -> Announcement {
        Announcement {
            zone,
            ..Announcement::default()
        }
    }

    /// Nothing typed means everybody, and every contact has an id.
    pub(crate) fn expression(&self) -> &str {
        match self.expression.trim() {
            "" => "id is set",
            expression => expression,
        }
    }

    /// What can be told without asking anybody.
    pub(crate) fn check(&self) -> Result<(), Mistake> {
        if self.name.trim().is_empty() || self.name.chars().count() > 200 {
            return Err(Mistake::Name);
        }
        self.template("check")?;
        self.start()?;
        self.deadline()?;
        Ok(())
    }

    /// The text as a marketing template.
    pub(crate) fn template(&self, name: &str) -> Result<Template, Mistake> {
        let template = Template {
            name: name.to_owned(),
            class: Class::Marketing,
            purpose: None,
            sender: self.sender.trim().to_owned(),
            brand: None,
            // Browsers end lines with CR LF; a line break costs one unit.
            text: self.text.trim_end().replace("\r\n", "\n"),
            smart: self.smart.is_some(),
            language: None,
            languages: Default::default(),
            variants: Vec::new(),
            validity: None,
            max_parts: None,
        };
        let problems = resources::Resource::Template(template.clone()).check();
        match problems.first() {
            None => Ok(template),
            Some(problem) if problem.key == "sender" => Err(Mistake::Sender),
            // Of what a person types only the text is left: the rest is ours.
            Some(_) => Err(Mistake::Text),
        }
    }

    pub(crate) fn start(&self) -> Result<Option<Timestamp>, Mistake> {
        self.instant(&self.start, Mistake::Start)
    }

    pub(crate) fn deadline(&self) -> Result<Option<Timestamp>, Mistake> {
        self.instant(&self.deadline, Mistake::Deadline)
    }

    fn instant(&self, text: &str, mistake: Mistake) -> Result<Option<Timestamp>, Mistake> {
        if text.is_empty() {
            return Ok(None);
        }
        let zone = TimeZone::get(self.zone.trim()).map_err(|_| Mistake::Zone)?;
        text.parse::<DateTime>()
            .ok()
            .and_then(|civil| zone.to_timestamp(civil).ok())
            .map(Some)
            .ok_or(mistake)
    }
}

/// The fields to type into.
pub(crate) fn fields(language: Language, announcement: &Announcement) -> Markup {
    let words = language.words();
    html! {
        label for="name" { (words.campaign_name) }
        input id="name" name="name" value=(announcement.name) maxlength="200" required;
        label for="expression" { (words.whom) " " small { (words.whom_hint) } }
        textarea.code id="expression" name="expression" rows="3" spellcheck="false" { (announcement.expression) }
        p.hint { (words.everybody_hint) }
        label for="text" { (words.text) " " small { (words.text_hint) } }
        textarea id="text" name="text" rows="4" required { (announcement.text) }
        label { input.inline type="checkbox" name="smart" value="yes" checked[announcement.smart.is_some()]; " " span.plain-label { (words.smart) } }
        label for="sender" { (words.sender) " " small { (words.sender_hint) } }
        input id="sender" name="sender" value=(announcement.sender) maxlength="16" required;
        label for="start" { (words.starts) " " small { (words.starts_hint) } }
        input id="start" name="start" type="datetime-local" value=(announcement.start);
        label for="deadline" { (words.deadline) " " small { (words.deadline_hint) } }
        input id="deadline" name="deadline" type="datetime-local" value=(announcement.deadline);
        label for="zone" { (words.zone) }
        input id="zone" name="zone" value=(announcement.zone) spellcheck="false";
    }
}

/// The same, carried by the summary.
pub(crate) fn hidden(announcement: &Announcement) -> Markup {
    html! {
        @for (name, value) in [
            ("name", &announcement.name),
            ("expression", &announcement.expression),
            ("text", &announcement.text),
            ("sender", &announcement.sender),
            ("start", &announcement.start),
            ("deadline", &announcement.deadline),
            ("zone", &announcement.zone),
        ] {
            input type="hidden" name=(name) value=(value);
        }
        @if announcement.smart.is_some() { input type="hidden" name="smart" value="yes"; }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement() -> Announcement {
        Announcement {
            name: "Soldes".into(),
            text: "Bonjour\r\n-20%".into(),
            sender: "BOUTIQUE".into(),
            zone: "Indian/Reunion".into(),
            ..Announcement::default()
        }
    }

    #[test]
    fn times_are_meant_in_the_zone() {
        let announcement = Announcement {
            deadline: "2026-12-01T18:00".into(),
            ..announcement()
        };
        assert_eq!(
            announcement.deadline().unwrap(),
            Some("2026-12-01T14:00:00Z".parse().unwrap())
        );
        assert_eq!(announcement.start().unwrap(), None);
        let wrong = Announcement {
            zone: "Réunion".into(),
            ..announcement
        };
        assert_eq!(wrong.deadline(), Err(Mistake::Zone));
    }

    #[test]
    fn what_is_wrong_is_told_by_field() {
        assert!(announcement().check().is_ok());
        assert_eq!(announcement().template("x").unwrap().text, "Bonjour\n-20%");
        let mistake = |change: fn(&mut Announcement)| {
            let mut one = announcement();
            change(&mut one);
            one.check().unwrap_err()
        };
        assert_eq!(mistake(|one| one.name.clear()), Mistake::Name);
        assert_eq!(mistake(|one| one.text.clear()), Mistake::Text);
        assert_eq!(mistake(|one| one.sender = "X".into()), Mistake::Sender);
        assert_eq!(mistake(|one| one.start = "tomorrow".into()), Mistake::Start);
    }
}
