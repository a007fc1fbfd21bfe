//! What a campaign would be, before it is launched: how many people, what they would read, what it costs, who would be
//! left out and why, and when it would be through.
//!
//! The count is exact; everything else is seen on a sample, the audience's first contacts in id order, and scaled up.
//! With an audience no larger than the sample it is exact too, but for what only the future tells: caps counted over
//! time, and quiet hours that begin while it runs.

mod sums;

use std::collections::{BTreeMap, HashSet};

use domain::{Cause, Class, Contact, MessageId, Reason, contact::MARKETING};
use jiff::{SignedDuration, Timestamp};
use resources::{
    Period, Snapshot, Template,
    composer::{Compose, Composed, Composer},
    rules::{Decision, Stopped, Subject, decide},
};
use serde_json::{Map, Value};
use store::suppressions::Scope;

use self::sums::Sums;
use crate::{
    Api, ApiError, Caller, Role,
    resources::{named, parse_condition},
};

/// The largest sample.
pub const MAX_SAMPLE: usize = 1_000;
/// Texts that are shown.
const TEXTS: usize = 3;
/// The name of a template that has none yet.
const UNNAMED: &str = "preview";

/// What to preview.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreviewRequest {
    /// The name of an audience, or
    pub audience: Option<String>,
    /// an expression.
    pub condition: Option<String>,
    /// The name of a template, or
    pub template: Option<String>,
    /// a text, with the three below.
    pub text: Option<String>,
    pub sender: Option<String>,
    /// Absent: marketing.
    pub class: Option<Class>,
    pub smart: bool,
    /// What the campaign would be called: `{{ campaign.name }}`.
    pub name: Option<String>,
    /// For `{{ campaign.NAME }}`.
    pub values: Map<String, Value>,
    /// When it would start; absent: now.
    pub at: Option<Timestamp>,
    pub deadline: Option<Timestamp>,
    /// How many contacts to look at; absent: [`MAX_SAMPLE`].
    pub sample: Option<usize>,
    /// The share of the audience that gets nothing, to compare with.
    pub control_percent: u32,
    /// What it may cost at most.
    pub budget_micros: Option<i64>,
}

/// A text as a contact would get it. It is shown to whoever may write to them, and never logged.
#[derive(Clone, PartialEq)]
pub struct PreviewText {
    pub contact_id: String,
    pub first_name: Option<String>,
    pub text: String,
    pub encoding: domain::sms::Encoding,
    pub parts: u16,
    pub language: Option<String>,
    pub variant: Option<String>,
}

impl std::fmt::Debug for PreviewText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreviewText")
            .field("contact_id", &self.contact_id)
            .finish_non_exhaustive()
    }
}

/// What it would be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preview {
    /// Everybody in the audience.
    pub count: i64,
    /// How many of them were looked at.
    pub sampled: usize,
    /// Estimated: those who would get it, at once or after quiet hours.
    pub sent: i64,
    /// Estimated: those of `sent` who would get it only after quiet hours.
    pub deferred: i64,
    /// Estimated: those who would not, by reason.
    pub suppressed: BTreeMap<Reason, i64>,
    /// Why no text came out, for the first contact where none did: names fields, not values.
    pub refusal: Option<String>,
    /// The first, one from the middle, and the longest of the sample.
    pub texts: Vec<PreviewText>,
    /// How many of the sample's texts have so many parts.
    pub parts: BTreeMap<u16, usize>,
    /// Estimated, over all.
    pub total_parts: i64,
    /// Estimated, over all: the parts without and with smart encoding, whichever the template has; absent where they are the
    /// same.
    pub smart: Option<SmartEffect>,
    /// Estimated, over all, in millionths of the account's currency.
    pub cost_micros: i64,
    /// How long the gateways need at their rates; absent where no gateway serves them.
    pub seconds: Option<i64>,
    pub ends_at: Option<Timestamp>,
}

/// What smart encoding makes of a campaign's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmartEffect {
    pub parts_without: i64,
    pub parts_with: i64,
}

impl Api {
    /// Counts, samples and composes.
    pub async fn preview(&self, caller: &Caller, request: &PreviewRequest) -> Result<Preview, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        let now = self.clock.now();
        let start = request.at.unwrap_or(now).max(now);
        let sample = request.sample.unwrap_or(MAX_SAMPLE);
        if request.control_percent > 100 {
            return Err(ApiError::invalid("control_percent", "expected 0 to 100"));
        }
        if !(1..=MAX_SAMPLE).contains(&sample) {
            return Err(ApiError::invalid("sample", format!("expected 1 to {MAX_SAMPLE}")));
        }
        let mut snapshot = self.snapshot().await?;
        let (field, condition) = match (&request.audience, &request.condition) {
            (Some(name), None) => match snapshot.audiences.get(name) {
                Some(audience) => ("audience", audience.condition.clone()),
                None => return Err(ApiError::invalid("audience", "there is no audience of this name")),
            },
            (None, Some(text)) => ("where", text.clone()),
            _ => {
                return Err(ApiError::invalid(
                    "audience",
                    "expected either `audience` (a name) or `where` (an expression)",
                ));
            }
        };
        let expression = parse_condition(&condition, &snapshot).map_err(|message| ApiError::invalid(field, message))?;
        let template = template_of(request, &snapshot)?;
        // Only this one needs to be compiled.
        snapshot.templates = BTreeMap::from([(template.name.clone(), std::sync::Arc::new(template.clone()))]);

        let named = named(&snapshot);
        let count = self.store.audience_count(&expression, &named, now).await?;
        let limit = i64::try_from(sample).unwrap_or(i64::MAX);
        let contacts = self.store.audience_page(&expression, &named, "", limit, now).await?;
        let stopped = self.stopped(&contacts).await?;

        let judge = Judge {
            composer: Composer::new(&snapshot),
            snapshot: &snapshot,
            template: &template,
            values: values(request),
            deadline: request.deadline,
            start,
        };
        let mut sums = Sums::default();
        let mut refusal = None;
        let mut composed = Vec::new();
        let mut phones = HashSet::new();
        for (contact, stopped) in contacts.iter().zip(stopped) {
            match judge.judge(contact, stopped, &mut phones) {
                Ok((text, deferred, otherwise)) => {
                    sums.add(&snapshot, contact, &text, deferred);
                    sums.add_smart(match template.smart {
                        true => (otherwise, text.parts),
                        false => (text.parts, otherwise),
                    });
                    composed.push((contact, text));
                }
                Err((reason, detail)) => {
                    *sums.suppressed.entry(reason).or_default() += 1;
                    refusal = refusal.or(detail);
                }
            }
        }
        let mut preview = sums.scale(count, contacts.len(), &snapshot, start, refusal, shown(&composed));
        preview.hold_back(request.control_percent, request.budget_micros, start);
        Ok(preview)
    }

    /// What the suppression list says of each contact's phone.
    async fn stopped(&self, contacts: &[Contact]) -> Result<Vec<Stopped>, ApiError> {
        let key = self.store.phone_key().await?;
        let hashes: Vec<Option<Vec<u8>>> = contacts
            .iter()
            .map(|contact| contact.phone.as_ref().map(|phone| key.hash(phone)))
            .collect();
        let wanted: Vec<Vec<u8>> = hashes.iter().flatten().cloned().collect();
        let mut tx = self.store.begin().await?;
        let found = tx.suppressions_get(&wanted).await?;
        Ok(hashes
            .iter()
            .map(|hash| match hash.as_ref().and_then(|hash| found.get(hash)) {
                None => Stopped::No,
                Some(Scope::Marketing) => Stopped::Marketing,
                Some(Scope::All) => Stopped::All,
            })
            .collect())
    }
}

/// The template that is asked for, or one made from the text.
fn template_of(request: &PreviewRequest, snapshot: &Snapshot) -> Result<Template, ApiError> {
    match (&request.template, &request.text) {
        (Some(name), None) => match snapshot.templates.get(name) {
            Some(template) => Ok((**template).clone()),
            None => Err(ApiError::invalid("template", "there is no template of this name")),
        },
        (None, Some(text)) => {
            let template = Template {
                name: UNNAMED.into(),
                class: request.class.unwrap_or(Class::Marketing),
                purpose: None,
                sender: request.sender.clone().unwrap_or_else(|| "PREVIEW".into()),
                text: text.clone(),
                brand: None,
                smart: request.smart,
                language: None,
                languages: BTreeMap::new(),
                variants: Vec::new(),
                validity: None,
                max_parts: None,
            };
            let own = resources::Resource::Template(template.clone()).check();
            match own.into_iter().chain(Composer::check(&template)).next() {
                Some(problem) => Err(ApiError::invalid(problem.key, problem.message)),
                None => Ok(template),
            }
        }
        _ => Err(ApiError::invalid(
            "template",
            "expected either `template` (a name) or `text`",
        )),
    }
}

/// What a contact's message is judged by.
struct Judge<'a> {
    snapshot: &'a Snapshot,
    composer: Composer,
    template: &'a Template,
    values: Map<String, Value>,
    deadline: Option<Timestamp>,
    start: Timestamp,
}

impl Judge<'_> {
    /// What would become of one contact's message: its text, whether it waits, and how many parts it would take with `smart`
    /// the other way; or why there is none.
    fn judge<'c>(
        &self,
        contact: &'c Contact,
        stopped: Stopped,
        phones: &mut HashSet<&'c str>,
    ) -> Result<(Composed, bool, u16), (Reason, Option<String>)> {
        let phone = contact.phone.as_ref().ok_or((Reason::NoPhone, None))?;
        if !phones.insert(phone.e164()) {
            return Err((Reason::DuplicatePhone, None));
        }
        let validity = self.template.validity.map(Period::duration);
        let purpose = self.template.purpose().unwrap_or(MARKETING);
        let subject = Subject {
            class: self.template.class,
            phone,
            zone: contact.time_zone.as_deref(),
            purpose,
            consent: contact.consent_to(purpose),
            premium: phone.kind() == Some(domain::phone::Kind::Premium),
            stopped,
            deadline: self.deadline,
            valid_until: validity.map(|validity| after(self.start, validity)),
            sent: &[],
        };
        let deferred = match decide(&self.snapshot.policy, &subject, self.start) {
            Decision::Send => false,
            Decision::Defer { .. } => true,
            Decision::Suppress(reason) | Decision::Expire(reason) => return Err((reason, None)),
        };
        let cause = Cause::Campaign {
            campaign_id: UNNAMED.into(),
        };
        let compose = Compose {
            template: &self.template.name,
            contact,
            message_id: MessageId::derive(&cause, &contact.id).0,
            event: &Map::new(),
            campaign: &self.values,
            custom: &self.values,
            default_zone: None,
            deadline: self.deadline,
        };
        match self.composer.compose(&compose) {
            Ok(text) => {
                let otherwise = self.composer.compose_otherwise(&compose);
                let otherwise = otherwise.map_or(text.parts, |otherwise| otherwise.parts);
                Ok((text, deferred, otherwise))
            }
            Err(refusal) => Err((refusal.reason, Some(refusal.detail))),
        }
    }
}

/// What `{{ campaign.… }}` stands for: the values, and the name where they do not say it.
fn values(request: &PreviewRequest) -> Map<String, Value> {
    let mut values = request.values.clone();
    if let Some(name) = &request.name
        && !values.contains_key("name")
    {
        values.insert("name".into(), name.as_str().into());
    }
    values
}

/// The first, the one in the middle and the longest, each once.
fn shown(composed: &[(&Contact, Composed)]) -> Vec<PreviewText> {
    let longest = (0..composed.len()).max_by_key(|at| {
        let text = &composed[*at].1;
        (text.parts, text.text.chars().count())
    });
    let mut wanted: Vec<usize> = [Some(0), Some(composed.len() / 2), longest]
        .into_iter()
        .flatten()
        .collect();
    // Where two of them are the same contact, the next ones fill up.
    wanted.extend(1..TEXTS);
    let mut seen = HashSet::new();
    wanted.retain(|at| *at < composed.len() && seen.insert(*at));
    wanted.truncate(TEXTS);
    wanted
        .into_iter()
        .map(|at| {
            let (contact, text) = &composed[at];
            PreviewText {
                contact_id: contact.id.clone(),
                first_name: contact.first_name.clone(),
                text: text.text.clone(),
                encoding: text.encoding,
                parts: text.parts,
                language: text.language.clone(),
                variant: text.variant.clone(),
            }
        })
        .collect()
}

fn after(start: Timestamp, duration: SignedDuration) -> Timestamp {
    start.checked_add(duration).unwrap_or(Timestamp::MAX)
}
