//! Reports: what became of messages, and whether it was worth it.
//!
//! The live figures come from the ledger. The same report can be made from the topics alone ([`Source::Topics`]): `jobs` say
//! what was planned, `receipts` which states it reached, `clicks` and `inbound` who answered, and with `events` who converted.
//! The two are equal once nothing is on its way, for as long as the topics keep their records; `tamtam report rebuild` compares
//! them. An erased contact's clicks and replies stay counted on both sides; what else it did is gone from the history, and
//! the topics' side counts conversions by it until they have forgotten it, too.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    str::FromStr,
};

use domain::{
    Cause, Reason, State,
    report::{Answer, By, Cell, Conversions, Group, Report, Share},
};
use events::{Click, Envelope, Inbound, Job, Receipt, Record, Topic};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::{Map, Value};
use store::reports::Scope;
use uuid::Uuid;

use crate::{Api, ApiError, Caller, Role, topics::From as Begin};

/// Messages that a report from the topics holds in memory, some 200 bytes each.
const MOST_MESSAGES: usize = 5_000_000;
const MOST_DAYS: i64 = 366;

/// What figures are made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    #[default]
    Ledger,
    Topics,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct ReportRequest {
    pub by: BTreeSet<By>,
    pub scope: Scope,
    pub source: Source,
    /// Conversions: an event's type, and within how many days of being planned.
    pub conversions: Option<(String, i64)>,
}

/// A report and, where they were asked for, the conversions by campaign and trigger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportAnswer {
    pub report: Report,
    pub conversions: BTreeMap<Group, Conversions>,
}

impl FromStr for Source {
    type Err = ApiError;

    fn from_str(word: &str) -> Result<Self, ApiError> {
        match word {
            "ledger" => Ok(Source::Ledger),
            "topics" => Ok(Source::Topics),
            _ => Err(ApiError::invalid("source", "expected `ledger` or `topics`")),
        }
    }
}

/// `campaign,day`, in any order.
pub fn by(text: &str) -> Result<BTreeSet<By>, ApiError> {
    text.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(|word| {
            let known = By::ALL.into_iter().find(|by| by.as_str() == word);
            known
                .ok_or_else(|| ApiError::invalid("by", "expected campaign, trigger, gateway, day, with commas between"))
        })
        .collect()
}

impl Api {
    /// Makes a report.
    pub async fn report(&self, caller: &Caller, request: &ReportRequest) -> Result<ReportAnswer, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        let scope = &request.scope;
        if let (Some(since), Some(until)) = (scope.since, scope.until)
            && since >= until
        {
            return Err(ApiError::invalid("until", "expected a time after `since`"));
        }
        if let Some((kind, days)) = &request.conversions {
            crate::events::check_id("conversions", kind)
                .map_err(|error| ApiError::invalid("conversions", error.message))?;
            if !(1..=MOST_DAYS).contains(days) {
                return Err(ApiError::invalid("within", format!("expected 1 to {MOST_DAYS} days")));
            }
        }
        match request.source {
            Source::Ledger => self.report_live(request).await,
            Source::Topics => self.report_from_topics(request).await,
        }
    }

    async fn report_live(&self, request: &ReportRequest) -> Result<ReportAnswer, ApiError> {
        let mut report = Report::new(request.by.clone());
        for cell in self.store.report_cells(&request.scope).await? {
            report.add(cell);
        }
        for (group, answer, count) in self.store.report_answers(&request.scope).await? {
            report.answered(group, answer, count);
        }
        let conversions = match &request.conversions {
            Some((kind, days)) => {
                let within = SignedDuration::from_hours(days * 24);
                self.store.report_conversions(&request.scope, kind, within).await?
            }
            None => BTreeMap::new(),
        };
        Ok(ReportAnswer { report, conversions })
    }

    async fn report_from_topics(&self, request: &ReportRequest) -> Result<ReportAnswer, ApiError> {
        let mut facts = Facts::new(&request.scope);
        self.each::<Job>(Topic::Jobs, |_, job| facts.planned(&job)).await?;
        self.each::<Receipt>(Topic::Receipts, |_, receipt| facts.reached(&receipt))
            .await?;
        if facts.messages.len() > MOST_MESSAGES {
            return Err(ApiError::invalid(
                "since",
                format!("the period has more than {MOST_MESSAGES} messages: expected a shorter one"),
            ));
        }
        let mut report = Report::new(request.by.clone());
        let mut seen = HashSet::new();
        let mut answers = Vec::new();
        self.each::<Inbound>(Topic::Inbound, |id, inbound| {
            let answer = match inbound.keyword.as_deref() {
                Some("stop") => Answer::Stop,
                _ => Answer::Reply,
            };
            // A reply of nobody that we know is no event of a contact's history either.
            if let (Some(message), Some(_)) = (inbound.in_reply_to, inbound.contact_id)
                && seen.insert(id)
            {
                answers.push((message, answer));
            }
        })
        .await?;
        self.each_value(Topic::Clicks, |envelope, value| {
            let message = value.get("message_id").and_then(Value::as_str);
            if let Some(message) = message.and_then(|text| text.parse().ok())
                && seen.insert(envelope.id.clone())
            {
                answers.push((message, Answer::Click));
            }
        })
        .await?;
        for (message, answer) in answers {
            if let Some(fact) = facts.messages.get(&message) {
                report.answered(fact.group.clone(), answer, 1);
            }
        }
        let mut conversions = BTreeMap::new();
        if let Some((kind, days)) = &request.conversions {
            let done = self.done(kind).await?;
            conversions = facts.conversions(&done, SignedDuration::from_hours(days * 24));
        }
        for cell in facts.cells() {
            report.add(cell);
        }
        Ok(ReportAnswer { report, conversions })
    }

    /// When contacts did something, by their ids: what the segmenter makes events of the history from.
    async fn done(&self, kind: &str) -> Result<HashMap<String, Vec<Timestamp>>, ApiError> {
        let mut done: HashMap<String, Vec<Timestamp>> = HashMap::new();
        let mut add = |contact: String, time: Timestamp| done.entry(contact).or_default().push(micros(time));
        // These two change a contact and are no events of its history.
        if !["contact.updated", "contact.erased"].contains(&kind) {
            self.each_value(Topic::Events, |envelope, value| {
                if envelope.kind == kind
                    && value.is_object()
                    && let (Some(contact), Some(time)) = (&envelope.subject, envelope.time)
                {
                    add(contact.clone(), time);
                }
            })
            .await?;
        }
        match kind {
            "sms.clicked" => {
                self.each::<Click>(Topic::Clicks, |_, click| add(click.contact_id, click.at))
                    .await?;
            }
            "sms.replied" => {
                self.each::<Inbound>(Topic::Inbound, |_, inbound| {
                    if let Some(contact) = inbound.contact_id {
                        add(contact, inbound.received_at);
                    }
                })
                .await?;
            }
            _ => {}
        }
        Ok(done)
    }

    /// Every record of a topic that is one of ours.
    async fn each<R: Record>(&self, topic: Topic, mut take: impl FnMut(String, R) + Send) -> Result<(), ApiError> {
        let mut records = std::pin::pin!(self.topic_records(topic, Begin::Start, false).await?);
        while let Some(record) = records.next().await {
            let (_, record) = record?;
            // What no stage could read either is in the dead letters, and no part of the figures.
            if let Ok(envelope) = Envelope::from_headers(&record.headers)
                && let Ok(data) = R::from_bytes(&envelope.kind, &record.value)
            {
                take(envelope.id, data);
            }
        }
        Ok(())
    }

    /// Every record of a topic, whose data may be anybody's. What its headers do not say is read as the segmenter does: the
    /// contact from the key, the time from when it was appended; no data is an object without fields.
    async fn each_value(&self, topic: Topic, mut take: impl FnMut(&Envelope, &Value) + Send) -> Result<(), ApiError> {
        let mut records = std::pin::pin!(self.topic_records(topic, Begin::Start, false).await?);
        while let Some(record) = records.next().await {
            let (_, record) = record?;
            if let Ok(mut envelope) = Envelope::from_headers(&record.headers) {
                envelope.time = envelope.time.or_else(|| record.appended_at());
                envelope.subject = envelope.subject.or(Some(record.key)).filter(|id| !id.is_empty());
                let value = match record.value.is_empty() {
                    true => Value::Object(Map::new()),
                    false => serde_json::from_slice(&record.value).unwrap_or_default(),
                };
                take(&envelope, &value);
            }
        }
        Ok(())
    }
}

/// What the topics say of one message.
struct Fact {
    contact_id: String,
    group: Group,
    planned_at: Timestamp,
    state: State,
    at: Timestamp,
    why: Option<String>,
    is_control: bool,
    parts: i64,
    cost_micros: i64,
}

struct Facts<'a> {
    scope: &'a Scope,
    messages: HashMap<Uuid, Fact>,
}

impl Facts<'_> {
    fn new(scope: &Scope) -> Facts<'_> {
        Facts {
            scope,
            messages: HashMap::new(),
        }
    }

    /// The message, unless it is none of the scope.
    fn entry(&mut self, id: Uuid, contact_id: &str, cause: &Cause, planned_at: Timestamp) -> Option<&mut Fact> {
        let planned_at = micros(planned_at);
        let mut group = Group {
            day: Some(TimeZone::UTC.to_datetime(planned_at).date()),
            ..Group::default()
        };
        match cause {
            Cause::Campaign { campaign_id } => {
                // As the ledger writes it.
                let id = campaign_id.parse::<Uuid>().ok();
                group.campaign = Some(id.map_or(campaign_id.clone(), |id| id.to_string()));
            }
            Cause::Trigger { trigger, .. } => group.trigger = Some(trigger.clone()),
            Cause::Direct { .. } => {}
        }
        let scope = self.scope;
        let wanted = scope.since.is_none_or(|since| planned_at >= since)
            && scope.until.is_none_or(|until| planned_at < until)
            && (scope.campaign).is_none_or(|campaign| group.campaign == Some(campaign.to_string()))
            && (scope.trigger.as_ref()).is_none_or(|trigger| group.trigger.as_ref() == Some(trigger));
        if !wanted || (self.messages.len() > MOST_MESSAGES && !self.messages.contains_key(&id)) {
            return None;
        }
        Some(self.messages.entry(id).or_insert_with(|| Fact {
            contact_id: contact_id.to_owned(),
            group,
            planned_at,
            state: State::Queued,
            at: Timestamp::MIN,
            why: None,
            is_control: false,
            parts: 0,
            cost_micros: 0,
        }))
    }

    fn planned(&mut self, job: &Job) {
        self.entry(job.message_id, &job.contact_id, &job.cause, job.planned_at);
    }

    /// A terminal state stays; of others the last one holds.
    fn reached(&mut self, receipt: &Receipt) {
        let planned_at = receipt.planned_at.unwrap_or(receipt.caused_at);
        let Some(fact) = self.entry(receipt.message_id, &receipt.contact_id, &receipt.cause, planned_at) else {
            return;
        };
        let rank = |state: State, at: Timestamp| (state.is_terminal(), at, state);
        if rank(receipt.state, receipt.at) < rank(fact.state, fact.at) {
            return;
        }
        (fact.state, fact.at) = (receipt.state, receipt.at);
        fact.group.gateway.clone_from(&receipt.gateway);
        let reason = receipt.reason.map(|reason| reason.as_str().to_owned());
        fact.why = match receipt.state {
            State::Suppressed => reason,
            State::Failed => receipt.gateway_code.clone().or(reason),
            _ => None,
        };
        fact.is_control = receipt.reason == Some(Reason::ControlGroup);
        let taken = receipt.accepted_at.is_some();
        fact.parts = if taken { receipt.parts.into() } else { 0 };
        fact.cost_micros = if taken { receipt.cost_micros } else { 0 };
    }

    fn conversions(
        &self,
        done: &HashMap<String, Vec<Timestamp>>,
        within: SignedDuration,
    ) -> BTreeMap<Group, Conversions> {
        let by = [By::Campaign, By::Trigger].into();
        let mut found: BTreeMap<Group, Conversions> = BTreeMap::new();
        for fact in self.messages.values() {
            let group = fact.group.clone().projected(&by);
            if group == Group::default() {
                continue;
            }
            let until = fact.planned_at.saturating_add(within).unwrap_or(Timestamp::MAX);
            let converted = done
                .get(&fact.contact_id)
                .is_some_and(|times| times.iter().any(|time| *time >= fact.planned_at && *time < until));
            let conversions = found.entry(group).or_default();
            let share: &mut Share = match fact.is_control {
                true => &mut conversions.control,
                false => &mut conversions.planned,
            };
            share.of += 1;
            share.converted += i64::from(converted);
        }
        found
    }

    fn cells(self) -> impl Iterator<Item = Cell> {
        self.messages.into_values().map(|fact| Cell {
            group: fact.group,
            state: fact.state,
            why: fact.why,
            messages: 1,
            parts: fact.parts,
            cost_micros: fact.cost_micros,
        })
    }
}

/// As the ledger keeps it.
fn micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}
