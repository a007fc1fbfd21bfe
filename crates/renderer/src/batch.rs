//! A batch of jobs: the same few queries however many there are.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use bus::NewRecord;
use domain::{Class, Contact, MessageId, Reason, State, contact::MARKETING, phone::PhoneKey, template::Link};
use events::{Job, Outbound, Record as _, Topic};
use jiff::Timestamp;
use resources::{
    Composer, Kind, Snapshot,
    rules::{self, Stopped},
};
use sha2::{Digest, Sha256};
use stage::{Input, Output, StepError};
use store::{
    Deferred, Tx,
    caps::{Counting, TextOut},
    deferred::park_key,
    links::ShortLink,
    messages::Verdict,
    suppressions::Scope,
};
use uuid::Uuid;

use crate::{
    judge::{Case, Judgement, campaign, class, judge},
    kinds::Kinds,
};

/// The composer of the latest snapshot: templates are compiled when they change and not for each batch.
#[derive(Debug, Default)]
pub(crate) struct Composers(Mutex<Option<Arc<Composer>>>);

impl Composers {
    pub(crate) fn of(&self, snapshot: &Snapshot) -> Arc<Composer> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match latest.as_ref() {
            Some(composer) if composer.version() == snapshot.version => composer.clone(),
            _ => {
                let composer = Arc::new(Composer::new(snapshot));
                *latest = Some(composer.clone());
                composer
            }
        }
    }
}

/// What a batch is judged by.
pub(crate) struct Batch<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) composer: &'a Composer,
    pub(crate) phone_key: &'a PhoneKey,
    pub(crate) kinds: &'a Kinds,
    pub(crate) now: Timestamp,
}

/// A job with the record it came in.
struct Read<'a> {
    input: &'a Input,
    job: Job,
}

/// What the database knows of the batch's contacts.
struct Known {
    contacts: HashMap<String, Contact>,
    /// By contact id.
    hashes: HashMap<String, Vec<u8>>,
    stopped: HashMap<Vec<u8>, Scope>,
    /// By contact id, as the caps count.
    sent: HashMap<String, Vec<u32>>,
}

/// A message that goes on.
struct Passed<'a> {
    read: &'a Read<'a>,
    outbound: Box<Outbound>,
    links: Vec<Link>,
}

/// A message that does not go on now.
struct Held<'a> {
    read: &'a Read<'a>,
    verdict: Verdict,
    deferred: Option<Deferred>,
}

impl Batch<'_> {
    pub(crate) async fn run(&self, batch: &[&Input], tx: &mut Tx) -> Result<Output, StepError> {
        let mut output = Output::default();
        let jobs = read(batch, &mut output.dead);
        let mut known = self.look_up(&jobs, tx).await?;

        let mut passed: Vec<Passed<'_>> = Vec::with_capacity(jobs.len());
        let mut held: Vec<Held<'_>> = Vec::new();
        for read in &jobs {
            let judged = self.judge(read, &known);
            if let Judgement::Send(outbound, links) = judged {
                if outbound.class == Class::Marketing
                    && let Some(sent) = known.sent.get_mut(&read.job.contact_id)
                {
                    // The next one in this batch sees this one; the ledger does not know of it yet.
                    let purpose = outbound.purpose.as_deref().unwrap_or(MARKETING);
                    for (cap, count) in self.snapshot.policy.caps.iter().zip(sent.iter_mut()) {
                        *count = count.saturating_add(u32::from(cap.counts(purpose)));
                    }
                }
                passed.push(Passed { read, outbound, links });
            } else {
                held.push(self.hold(read, judged, &known, None));
            }
        }
        for index in self.repeated(&passed, &known, tx).await?.into_iter().rev() {
            let Passed { read, outbound, .. } = passed.remove(index);
            let judged = Judgement::End(State::Suppressed, Reason::DuplicateText);
            held.push(self.hold(read, judged, &known, Some(&outbound)));
        }

        let mut links = Vec::new();
        for Passed {
            read,
            outbound,
            links: made,
        } in &passed
        {
            let topic = match outbound.class {
                Class::Transactional => Topic::OutboundTransactional,
                Class::Marketing => Topic::OutboundBulk,
            };
            links.extend(made.iter().map(|link| ShortLink {
                code: link.code.clone(),
                url: link.url.clone(),
                contact_id: outbound.contact_id.clone(),
                message_id: outbound.message_id,
            }));
            let id = MessageId(outbound.message_id).to_string();
            let trace = read.input.envelope.traceparent.as_deref();
            let record = NewRecord::wrap(topic, &outbound.contact_id, id, self.now, trace, outbound.as_ref());
            output.emit.push(record);
            metrics::counter!("tamtam_renderer_passed_total", "class" => outbound.class.as_str()).increment(1);
        }
        tx.links_put(&links, self.now).await?;
        self.write(held, tx, &mut output.emit).await?;
        Ok(output)
    }

    /// Contacts, suppressions and, where the policy has caps, what was sent: three queries.
    async fn look_up(&self, jobs: &[Read<'_>], tx: &mut Tx) -> Result<Known, StepError> {
        let mut ids: Vec<&str> = jobs.iter().map(|read| read.job.contact_id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut contacts = tx.contacts_get(&ids).await?;
        // Whoever is no contact and is answered: all that is known is the phone.
        for job in jobs.iter().map(|read| &read.job) {
            if let Some(phone) = &job.phone {
                contacts.entry(job.contact_id.clone()).or_insert_with(|| Contact {
                    id: job.contact_id.clone(),
                    phone: Some(phone.clone()),
                    ..Contact::default()
                });
            }
        }
        let hashes: HashMap<String, Vec<u8>> = contacts
            .values()
            .filter_map(|contact| Some((contact.id.clone(), self.phone_key.hash(contact.phone.as_ref()?))))
            .collect();
        let all: Vec<Vec<u8>> = hashes.values().cloned().collect();
        let stopped = tx.suppressions_get(&all).await?;
        let caps: Vec<Counting> = self
            .snapshot
            .policy
            .caps
            .iter()
            .map(|cap| Counting {
                since: cap.since(self.now),
                purpose: cap.purpose.clone(),
            })
            .collect();
        let mut sent = tx.sent_counts(&ids, &caps).await?;
        if !caps.is_empty() {
            for id in contacts.keys() {
                sent.entry(id.clone()).or_insert_with(|| vec![0; caps.len()]);
            }
        }
        Ok(Known {
            contacts,
            hashes,
            stopped,
            sent,
        })
    }

    fn judge(&self, read: &Read<'_>, known: &Known) -> Judgement {
        let contact_id = &read.job.contact_id;
        let stopped = known.hashes.get(contact_id).and_then(|hash| known.stopped.get(hash));
        let case = Case {
            job: &read.job,
            contact: known.contacts.get(contact_id),
            stopped: match stopped {
                None => Stopped::No,
                Some(Scope::Marketing) => Stopped::Marketing,
                Some(Scope::All) => Stopped::All,
            },
            kinds: self.kinds,
            sent: known.sent.get(contact_id).map_or(&[][..], Vec::as_slice),
            now: self.now,
        };
        judge(&case, self.snapshot, self.composer)
    }

    /// The marketing texts in `passed` that their phone got from another message within the policy's period, by index,
    /// rising.
    async fn repeated(&self, passed: &[Passed<'_>], known: &Known, tx: &mut Tx) -> Result<Vec<usize>, StepError> {
        let Some(within) = self.snapshot.policy.same_text_within else {
            return Ok(Vec::new());
        };
        let Ok(since) = self.now.checked_sub(within.duration()) else {
            return Ok(Vec::new());
        };
        let texts: Vec<TextOut> = passed
            .iter()
            .filter(|passed| passed.outbound.class == Class::Marketing)
            .filter_map(|Passed { outbound, links, .. }| {
                let phone_hash = known.hashes.get(&outbound.contact_id)?.clone();
                let mut hash = Sha256::new();
                hash.update(&phone_hash);
                hash.update(without_codes(&outbound.text, links).as_bytes());
                Some(TextOut {
                    phone_hash,
                    text_hash: hash.finalize().to_vec(),
                    message_id: outbound.message_id,
                    campaign_id: campaign(&outbound.cause),
                })
            })
            .collect();
        let repeated: HashSet<Uuid> = tx.texts_repeated(&texts, since, self.now).await?;
        Ok(passed
            .iter()
            .enumerate()
            .filter(|(_, passed)| repeated.contains(&passed.outbound.message_id))
            .map(|(index, _)| index)
            .collect())
    }

    /// The verdict on a message that does not go on, and the record that brings it back.
    fn hold<'a>(&self, read: &'a Read<'a>, judged: Judgement, known: &Known, composed: Option<&Outbound>) -> Held<'a> {
        let job = &read.job;
        let (state, reason, deferred) = match judged {
            Judgement::End(state, reason) => (state, Some(reason), None),
            Judgement::Defer(until, reason) => {
                let next = Job {
                    deferrals: job.deferrals + 1,
                    ..job.clone()
                };
                let id = format!("{}:defer:{}", MessageId(job.message_id), next.deferrals);
                let deferred = self.later(read, &next, id, Some(until), None);
                (State::Deferred, Some(reason), Some(deferred))
            }
            Judgement::Park(campaign) => {
                let id = format!("{}:park:{}", MessageId(job.message_id), job.deferrals);
                let deferred = self.later(read, job, id, None, Some(park_key(campaign)));
                (State::Deferred, None, Some(deferred))
            }
            // What is passed on is held by nobody.
            Judgement::Send(..) => (State::Queued, None, None),
        };
        let verdict = Verdict {
            contact_id: job.contact_id.clone(),
            message_id: job.message_id,
            cause: job.cause.clone(),
            class: class(job, self.composer.template(&job.template)),
            template: job.template.clone(),
            variant: composed.and_then(|outbound| outbound.variant.clone()),
            state,
            reason,
            encoding: composed.map(|outbound| outbound.encoding.clone()),
            parts: composed.map_or(0, |outbound| outbound.parts),
            cost_micros: 0,
            phone_hash: known.hashes.get(&job.contact_id).cloned(),
            caused_at: job.caused_at,
            planned_at: job.planned_at,
            rendered_at: composed.map(|outbound| outbound.rendered_at),
            decided_by: Some(rules::versions(self.snapshot.version_of(Kind::Policy, "policy"))),
            at: self.now,
        };
        Held {
            read,
            verdict,
            deferred,
        }
    }

    fn later(
        &self,
        read: &Read<'_>,
        job: &Job,
        id: String,
        due_at: Option<Timestamp>,
        parked: Option<String>,
    ) -> Deferred {
        let envelope = &read.input.envelope;
        let trace = envelope.traceparent.as_deref();
        let record = NewRecord::wrap(Topic::Jobs, &job.contact_id, envelope.id.clone(), self.now, trace, job);
        Deferred {
            id,
            due_at,
            parked,
            campaign_id: campaign(&job.cause),
            gateway: None,
            topic: record.topic,
            key: record.key,
            headers: record.headers,
            value: record.value,
        }
    }

    /// Writes the verdicts and what comes back later; adds the receipts to `emit`.
    async fn write(&self, held: Vec<Held<'_>>, tx: &mut Tx, emit: &mut Vec<NewRecord>) -> Result<(), StepError> {
        if held.is_empty() {
            return Ok(());
        }
        let (rest, verdicts): (Vec<_>, Vec<Verdict>) = held
            .into_iter()
            .map(|held| ((held.read, held.deferred), held.verdict))
            .unzip();
        let rows = tx.messages_decide(&verdicts).await?;
        let mut deferred = Vec::new();
        for ((read, later), row) in rest.into_iter().zip(&rows) {
            // A row that a dispatcher has claimed, or that has ended, needs nothing brought back.
            deferred.extend(later.filter(|_| row.state == State::Deferred));
            for receipt in row.to_receipts() {
                emit.push(NewRecord::wrap(
                    Topic::Receipts,
                    &row.contact_id,
                    receipt.stable_id(),
                    receipt.at,
                    read.input.envelope.traceparent.as_deref(),
                    &receipt,
                ));
            }
            let reason = row.reason.map_or("paused", Reason::as_str);
            metrics::counter!("tamtam_renderer_held_total", "state" => row.state.as_str(), "reason" => reason)
                .increment(1);
        }
        tx.deferred_put(&deferred).await?;
        Ok(())
    }
}

/// The text as it would be with long addresses: a short link's code is of the message, and would make every text another.
fn without_codes<'a>(text: &'a str, links: &[Link]) -> Cow<'a, str> {
    links.iter().fold(Cow::Borrowed(text), |text, link| {
        Cow::Owned(text.replace(&link.code, &link.url))
    })
}

/// The jobs of a batch, each message once: whoever appends them may append them twice.
fn read<'a>(batch: &[&'a Input], dead: &mut Vec<(usize, String)>) -> Vec<Read<'a>> {
    let mut seen = HashSet::new();
    let mut jobs = Vec::with_capacity(batch.len());
    for (place, &input) in batch.iter().enumerate() {
        match Job::from_bytes(&input.envelope.kind, &input.value) {
            Ok(job) if job.contact_id.is_empty() || job.contact_id.contains('\0') => {
                dead.push((place, "the job's contact id is empty or holds a NUL character".into()));
            }
            Ok(job) if job.contact_id != input.key => {
                dead.push((place, "the record's key is not the job's contact id".into()));
            }
            Ok(job) if seen.insert(job.message_id) => jobs.push(Read { input, job }),
            Ok(_) => {}
            Err(error) => dead.push((place, error.to_string())),
        }
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_the_same_whatever_codes_its_links_have() {
        let link = |code: &str, url: &str| Link {
            code: code.into(),
            url: url.into(),
        };
        let shop = "https://shop.example/offre";
        let of = |code: &str, url: &str| {
            let other: String = code.chars().rev().collect();
            let text = format!("Soldes: https://s.example/l/{code} et https://s.example/l/{other}");
            without_codes(&text, &[link(code, url), link(&other, "https://shop.example/b")]).into_owned()
        };
        // Two messages of one text.
        assert_eq!(of("0123456789a", shop), of("ABCDEFGHIJK", shop));
        // Another address is another text.
        assert_ne!(of("0123456789a", shop), of("0123456789a", "https://shop.example/autre"));
        // Without links it is what it is.
        let plain = without_codes("Soldes: 0123456789a", &[]);
        assert!(matches!(plain, Cow::Borrowed("Soldes: 0123456789a")));
    }
}
