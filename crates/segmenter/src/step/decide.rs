//! What a batch of events and timers leads to: which messages, and which waits.
//!
//! An event is decided on once, in the transaction that keeps it in the history; a timer in the one that writes its
//! message down. What was decided before is read from the log and emitted again. An event is written when it is decided on,
//! with how many messages it starts: writing that afterwards would cost as much again.
//!
//! A condition sees the contact as it is, and what it did up to the event: events that came later in the same batch are
//! left out, so that a batch decides as single events would.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use domain::{
    Contact,
    audience::{Occurrence, Past},
};
use events::BusinessEvent;
use jiff::Timestamp;
use store::{
    StoreError, Tx,
    trigger_log::{EventKey, Firing},
};

use super::rules::{Rule, Rules};

/// An event of the batch: just arrived, or remembered by a timer that fired.
#[derive(Debug)]
pub(super) struct Cause {
    /// The place in the batch.
    pub place: usize,
    pub event: BusinessEvent,
    /// The trigger whose wait is over.
    pub timer: Option<String>,
}

/// What a cause leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// A message, decided now or before.
    Fire(Firing),
    /// The trigger's wait begins, or goes on because it became longer.
    Wait { trigger: String, due: Timestamp },
}

/// A trigger that a cause may start.
struct Candidate<'a> {
    cause: &'a Cause,
    rule: &'a Arc<Rule>,
}

impl Candidate<'_> {
    fn fires(&self) -> bool {
        self.cause.timer.is_some() || !self.rule.waits()
    }

    fn pair(&self) -> (String, String) {
        (self.cause.event.contact_id.clone(), self.rule.trigger.name.clone())
    }
}

pub(super) fn key(event: &BusinessEvent) -> EventKey<'_> {
    EventKey {
        contact_id: &event.contact_id,
        source: &event.source,
        event_id: &event.id,
    }
}

fn key_of(firing: &Firing) -> EventKey<'_> {
    EventKey {
        contact_id: &firing.contact_id,
        source: &firing.event_source,
        event_id: &firing.event_id,
    }
}

/// How a batch takes its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Events {
    /// As new, without asking: almost all are, and writing them shows it.
    New,
    Asked,
}

/// Decides on all of them with a constant number of statements. The answers stand by the causes' places, in order. `None`: an
/// event was known that was not asked for, or somebody else has written one in between; nothing of this may stay.
pub(super) async fn decide(
    tx: &mut Tx,
    rules: &Rules,
    causes: &[Cause],
    taken: Events,
    now: Timestamp,
) -> Result<Option<Vec<(usize, Decision)>>, StoreError> {
    let fresh = fresh(tx, causes, taken).await?;

    // What was decided before: of events that are not new, and of timers.
    let known = causes.iter().filter(|cause| !fresh.contains(&cause.place));
    let mut asked: Vec<EventKey<'_>> = known.map(|cause| key(&cause.event)).collect();
    asked.sort_unstable_by_key(|key| (key.contact_id, key.source, key.event_id));
    asked.dedup();
    let logged = tx.trigger_log_for(&asked).await?;
    let mut before: HashMap<EventKey<'_>, Vec<&Firing>> = HashMap::new();
    for firing in &logged {
        before.entry(key_of(firing)).or_default().push(firing);
    }

    let mut decisions = Vec::new();
    let mut candidates = Vec::new();
    for cause in causes {
        let event = &cause.event;
        let logged = before.get(&key(event)).map_or(&[][..], Vec::as_slice);
        match &cause.timer {
            Some(name) => match logged.iter().find(|firing| firing.trigger == *name) {
                Some(firing) => decisions.push((cause.place, Decision::Fire((*firing).clone()))),
                // `takes` at the event's own time: the trigger is on, and the event lies in its dates.
                None => match rules
                    .named(name)
                    .filter(|rule| rule.trigger.takes(event.time, event.time))
                {
                    // The wait became longer.
                    Some(rule) if rule.due(event.time) > now => decisions.push((
                        cause.place,
                        Decision::Wait {
                            trigger: name.clone(),
                            due: rule.due(event.time),
                        },
                    )),
                    Some(rule) => candidates.push(Candidate { cause, rule }),
                    None => {}
                },
            },
            None if fresh.contains(&cause.place) => {
                let takes = rules
                    .on(&event.kind)
                    .iter()
                    .filter(|rule| rule.trigger.takes(event.time, now));
                candidates.extend(takes.map(|rule| Candidate { cause, rule }));
            }
            None => decisions.extend(
                logged
                    .iter()
                    .map(|firing| (cause.place, Decision::Fire((*firing).clone()))),
            ),
        }
    }
    let known = Known::load(tx, causes, &fresh, &candidates).await?;
    let planned = decided(tx, rules, &known, candidates, now, &mut decisions).await?;
    if !write(tx, causes, &fresh, planned).await? {
        return Ok(None);
    }
    decisions.sort_by_key(|(place, _)| *place);
    Ok(Some(decisions))
}

/// The places of the events that are taken as new; of the same one twice the first is.
async fn fresh(tx: &mut Tx, causes: &[Cause], taken: Events) -> Result<HashSet<usize>, StoreError> {
    let arrived: Vec<&Cause> = causes.iter().filter(|cause| cause.timer.is_none()).collect();
    let new: Vec<bool> = match taken {
        Events::New => {
            let mut seen = HashSet::with_capacity(arrived.len());
            arrived.iter().map(|cause| seen.insert(key(&cause.event))).collect()
        }
        Events::Asked => {
            let events: Vec<&BusinessEvent> = arrived.iter().map(|cause| &cause.event).collect();
            tx.history_unknown(&events).await?
        }
    };
    let new = arrived.iter().zip(new).filter(|(_, new)| *new);
    Ok(new.map(|(cause, _)| cause.place).collect())
}

/// Keeps the events that are new, and counts what they and the timers have started. `false`: one of them is not new.
async fn write(
    tx: &mut Tx,
    causes: &[Cause],
    fresh: &HashSet<usize>,
    mut planned: HashMap<EventKey<'_>, i32>,
) -> Result<bool, StoreError> {
    let events: Vec<(&BusinessEvent, i32)> = causes
        .iter()
        .filter(|cause| fresh.contains(&cause.place))
        .map(|cause| (&cause.event, planned.remove(&key(&cause.event)).unwrap_or(0)))
        .collect();
    if !tx.history_put_planned(&events).await? {
        return Ok(false);
    }
    let others: Vec<(EventKey<'_>, i32)> = planned.into_iter().collect();
    tx.history_planned_add(&others).await?;
    Ok(true)
}

/// How many messages are new, by their events.
async fn decided<'a>(
    tx: &mut Tx,
    rules: &Rules,
    known: &Known<'_>,
    candidates: Vec<Candidate<'a>>,
    now: Timestamp,
    decisions: &mut Vec<(usize, Decision)>,
) -> Result<HashMap<EventKey<'a>, i32>, StoreError> {
    let passed: Vec<Candidate<'_>> = candidates
        .into_iter()
        .filter(|candidate| known.pass(rules, candidate, now))
        .collect();

    let limited = passed
        .iter()
        .filter(|candidate| candidate.fires() && candidate.rule.trigger.once_per.is_some());
    let pairs: BTreeSet<(String, String)> = limited.map(Candidate::pair).collect();
    let mut latest = tx.trigger_log_latest(&pairs.into_iter().collect::<Vec<_>>()).await?;

    let mut firings = Vec::new();
    let mut of = Vec::new();
    for candidate in passed {
        let Candidate { cause, rule } = candidate;
        let (event, trigger) = (&cause.event, &rule.trigger);
        if !candidate.fires() {
            decisions.push((
                cause.place,
                Decision::Wait {
                    trigger: trigger.name.clone(),
                    due: rule.due(event.time),
                },
            ));
            continue;
        }
        if let Some(period) = trigger.once_per {
            let pair = candidate.pair();
            let within = latest
                .get(&pair)
                .is_some_and(|last| now.duration_since(*last) < period.duration());
            if within {
                continue;
            }
            latest.insert(pair, now);
        }
        of.push(cause);
        firings.push(Firing {
            contact_id: event.contact_id.clone(),
            trigger: trigger.name.clone(),
            event_source: event.source.clone(),
            event_id: event.id.clone(),
            template: trigger.template.clone(),
            caused_at: event.time,
            planned_at: now,
            deadline: rule.deadline(event.time),
            vars: trigger.vars.clone().into_iter().collect(),
            suppress: None,
        });
    }
    let new = tx.trigger_log_put(&firings).await?;
    // Only what is new is planned: somebody else's decision was counted by them.
    let mut planned: HashMap<EventKey<'a>, i32> = HashMap::new();
    for (cause, _) in of.iter().zip(&new).filter(|(_, new)| **new) {
        *planned.entry(key(&cause.event)).or_default() += 1;
    }
    let places = of.iter().map(|cause| cause.place);
    decisions.extend(places.zip(firings.into_iter().map(Decision::Fire)));
    Ok(planned)
}

/// The contacts and histories that a batch's conditions look at.
#[derive(Default)]
struct Known<'a> {
    contacts: HashMap<String, Contact>,
    history: HashMap<String, Vec<BusinessEvent>>,
    received: HashMap<String, Vec<String>>,
    /// Where each new event of the batch came: one that was known before counts wherever it comes again.
    places: HashMap<EventKey<'a>, usize>,
}

impl<'a> Known<'a> {
    async fn load(
        tx: &mut Tx,
        causes: &'a [Cause],
        fresh: &HashSet<usize>,
        candidates: &[Candidate<'_>],
    ) -> Result<Known<'a>, StoreError> {
        let mut contacts = BTreeSet::new();
        let mut types = BTreeSet::new();
        let mut with_history = BTreeSet::new();
        let mut with_received = BTreeSet::new();
        for candidate in candidates {
            let fired = candidate.cause.timer.is_some();
            if !candidate.rule.is_conditional(fired) {
                continue;
            }
            let contact = candidate.cause.event.contact_id.as_str();
            if candidate.rule.asks_contact() {
                contacts.insert(contact);
            }
            if candidate.rule.asks_received() {
                with_received.insert(contact);
            }
            for kind in candidate.rule.types(fired) {
                types.insert(kind);
                with_history.insert(contact);
            }
        }
        let as_list = |set: BTreeSet<_>| set.into_iter().collect::<Vec<&str>>();
        let mut places = HashMap::new();
        for cause in causes.iter().filter(|cause| fresh.contains(&cause.place)) {
            places.insert(key(&cause.event), cause.place);
        }
        let (with_history, types) = (as_list(with_history), as_list(types));
        let mut history = tx.history_for(&with_history, &types, None).await?;
        // The batch's own, which are not written yet.
        for cause in causes.iter().filter(|cause| fresh.contains(&cause.place)) {
            let event = &cause.event;
            if with_history.binary_search(&event.contact_id.as_str()).is_ok()
                && types.binary_search(&event.kind.as_str()).is_ok()
            {
                history.entry(event.contact_id.clone()).or_default().push(event.clone());
            }
        }
        for events in history.values_mut() {
            events.sort_by(|one, other| (one.time, &one.source, &one.id).cmp(&(other.time, &other.source, &other.id)));
        }
        Ok(Known {
            contacts: tx.contacts_get(&as_list(contacts)).await?,
            history,
            received: tx.campaigns_received(&as_list(with_received)).await?,
            places,
        })
    }

    fn pass(&self, rules: &Rules, candidate: &Candidate<'_>, now: Timestamp) -> bool {
        let Candidate { cause, rule } = candidate;
        let fired = cause.timer.is_some();
        if !rule.is_conditional(fired) {
            return true;
        }
        let event = &cause.event;
        // Of a contact that is not looked at, or not known, only the id is; whoever is not known comes to be suppressed, with
        // that reason.
        let unknown = Contact {
            id: event.contact_id.clone(),
            ..Contact::default()
        };
        let contact = self.contacts.get(&event.contact_id).unwrap_or(&unknown);
        let mut past: Past<'_> = self
            .history
            .get(&event.contact_id)
            .map_or(&[][..], Vec::as_slice)
            .iter()
            // A timer sees all that is known.
            .filter(|other| fired || self.places.get(&key(other)).is_none_or(|place| *place <= cause.place))
            .map(occurrence)
            .collect();
        past.received = self.received.get(&event.contact_id).map_or(&[], Vec::as_slice);
        if !rule.holds(contact, &past, event, rules.audiences(), now) {
            return false;
        }
        if !fired {
            return true;
        }
        let without: Past<'_> = past.occurrences.into_iter().filter(|other| !is(other, event)).collect();
        !rule.is_unnecessary(&without, event, now)
    }
}

fn occurrence(event: &BusinessEvent) -> Occurrence<'_> {
    Occurrence {
        kind: &event.kind,
        source: &event.source,
        id: &event.id,
        time: event.time,
        data: &event.data,
    }
}

fn is(occurrence: &Occurrence<'_>, event: &BusinessEvent) -> bool {
    occurrence.source == event.source && occurrence.id == event.id
}
