//! The step on `events`.
//!
//! A batch is read, then contacts are changed and erased (`people`), then events and timers are decided on (`decide`) and
//! what is decided is emitted: jobs, and waits as deferred timers. Each batch takes a constant number of statements.
//!
//! Events are taken as new, and written; where one is there already nothing of that stays, and the batch begins again by asking
//! which are.
//!
//! Delivered again, a batch changes nothing: contacts are as they were made, events are known, and what was decided is
//! emitted again from the log, under the same ids.

mod clicks;
mod decide;
mod item;
mod people;
mod replies;
mod rules;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bus::NewRecord;
use decide::{Cause, Decision, Events};
use domain::{MessageId, phone::PhoneKey};
use events::{BusinessEvent, Envelope, Job, Record as _, Timer, Topic};
use item::Item;
use jiff::Timestamp;
use people::People;
use resources::Snapshot;
use rules::Rules;
use stage::{Clock, Input, Live, Output, Step, StepError};
use store::{Deferred, Tx, trigger_log::Firing};

/// See the module.
#[derive(Debug)]
pub struct Segmenter {
    live: Live,
    clock: Clock,
    phone_key: PhoneKey,
    /// Compiled from the latest snapshot seen.
    rules: Mutex<Option<Arc<Rules>>>,
}

impl Segmenter {
    pub fn new(live: Live, clock: Clock, phone_key: PhoneKey) -> Segmenter {
        Segmenter {
            live,
            clock,
            phone_key,
            rules: Mutex::new(None),
        }
    }

    fn rules(&self, snapshot: &Snapshot) -> Arc<Rules> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        match &*rules {
            Some(rules) if rules.version == snapshot.version => rules.clone(),
            _ => {
                let fresh = Arc::new(Rules::new(snapshot));
                *rules = Some(fresh.clone());
                fresh
            }
        }
    }
}

#[async_trait]
impl Step for Segmenter {
    fn name(&self) -> &'static str {
        "segmenter"
    }

    fn topics(&self) -> &'static [Topic] {
        &[Topic::Events, Topic::Inbound, Topic::Clicks]
    }

    async fn run(&self, topic: Topic, batch: &[&Input], tx: &mut Tx) -> Result<Output, StepError> {
        if tx.events_are_new() {
            if let Some(output) = self.run_once(topic, batch, tx, Events::New).await? {
                return Ok(output);
            }
            tx.events_were_known();
            tx.begin_again().await?;
        }
        // Who had the partition before may have written one in between: then its decision counts, at the next try.
        let between = || StepError::Transient("an event was written by somebody else just now".into());
        self.run_once(topic, batch, tx, Events::Asked)
            .await?
            .ok_or_else(between)
    }
}

impl Segmenter {
    /// `None`: see [`decide::decide`].
    async fn run_once(
        &self,
        topic: Topic,
        batch: &[&Input],
        tx: &mut Tx,
        events: Events,
    ) -> Result<Option<Output>, StepError> {
        let now = item::micros(self.clock.now());
        let snapshot = self.live.as_of(tx).await?;
        let rules = self.rules(&snapshot);
        let policy = snapshot.policy.clone();
        let mut output = Output::default();
        let mut people = People::default();
        let mut causes = Vec::new();
        for (place, input) in batch.iter().enumerate() {
            let read = match topic {
                Topic::Inbound => match replies::read(input) {
                    Ok(Some(event)) => Ok(Item::Event(event)),
                    Ok(None) => continue,
                    Err(reason) => Err(reason),
                },
                Topic::Clicks => clicks::read(input),
                _ => item::read(input, now, policy.region_of(&input.envelope.source)),
            };
            match read {
                Ok(Item::Event(event)) => causes.push(Cause {
                    place,
                    event,
                    timer: None,
                }),
                Ok(Item::Timer(timer)) => causes.push(Cause {
                    place,
                    event: timer.event(),
                    timer: Some(timer.trigger),
                }),
                Ok(Item::Changed(change)) => people.change(*change),
                Ok(Item::Erased(id)) => people.erase(id),
                Err(reason) => output.dead.push((place, reason)),
            }
        }
        people.write(tx, &self.phone_key, now).await?;

        let Some(decisions) = decide::decide(tx, &rules, &causes, events, now).await? else {
            return Ok(None);
        };
        let by_place: HashMap<usize, &Cause> = causes.iter().map(|cause| (cause.place, cause)).collect();
        let mut waits = Vec::new();
        for (place, decision) in decisions {
            let Some(cause) = by_place.get(&place) else { continue };
            let trace = batch[place].envelope.traceparent.as_deref();
            match decision {
                Decision::Fire(firing) => output.emit.push(job(&firing, &cause.event, trace)),
                Decision::Wait { trigger, due } => waits.push(wait(trigger, due, &cause.event, trace)),
            }
        }
        tx.deferred_put(&waits).await?;
        let jobs = output.emit.len() as u64;
        metrics::counter!("tamtam_segmenter_jobs_total", "cause" => "trigger").increment(jobs);
        Ok(Some(output))
    }
}

fn job(firing: &Firing, event: &BusinessEvent, trace: Option<&str>) -> NewRecord {
    let cause = domain::Cause::Trigger {
        trigger: firing.trigger.clone(),
        event_source: firing.event_source.clone(),
        event_id: firing.event_id.clone(),
    };
    let id = MessageId::derive(&cause, &firing.contact_id);
    let job = Job {
        message_id: id.0,
        contact_id: firing.contact_id.clone(),
        cause,
        template: firing.template.clone(),
        caused_at: firing.caused_at,
        planned_at: firing.planned_at,
        deadline: firing.deadline,
        event: event.data.clone(),
        values: firing.vars.clone(),
        deferrals: 0,
        suppress: firing.suppress,
        phone: None,
    };
    NewRecord::wrap(
        Topic::Jobs,
        &firing.contact_id,
        id.to_string(),
        firing.planned_at,
        trace,
        &job,
    )
}

/// The record that comes back onto `events` when the wait is over.
fn wait(trigger: String, due: Timestamp, event: &BusinessEvent, trace: Option<&str>) -> Deferred {
    let timer = Timer {
        trigger,
        contact_id: event.contact_id.clone(),
        event_id: event.id.clone(),
        event_source: event.source.clone(),
        event_type: event.kind.clone(),
        event_time: event.time,
        data: event.data.clone(),
    };
    let id = timer.stable_id();
    let envelope = Envelope {
        id: id.clone(),
        source: "tamtam".into(),
        kind: Timer::KIND.into(),
        time: Some(due),
        subject: Some(event.contact_id.clone()),
        traceparent: trace.map(str::to_owned),
    };
    Deferred {
        id,
        due_at: Some(due),
        parked: None,
        campaign_id: None,
        gateway: None,
        topic: Topic::Events,
        key: event.contact_id.clone(),
        headers: envelope.into_headers(),
        value: timer.to_bytes(),
    }
}
