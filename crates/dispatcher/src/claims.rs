//! The task that claims, for a class of a gateway.
//!
//! While a claim's commit is on its way to the disk the next one is made, where a whole further one waits: one after the
//! other they would be what a dispatcher waits for while processors are idle. They are handed over in the order in which
//! they were taken, so that a contact's messages keep theirs. What the first could not claim goes after the second.

use std::{sync::Arc, time::Duration};

use domain::Class;
use futures::{StreamExt, stream::FuturesOrdered};
use resources::{Policy, rules};
use stage::crash;
use store::{
    StoreError,
    messages::{ClaimResult, ClaimRules, ClaimWant, Claimant},
};
use tokio::time::Instant;

use crate::{
    core::{Core, Ending, Judged, Work},
    fleet::Route,
    gate::{Claimed, Gate, Standing, Take, slot},
    item::Item,
    judge::judge,
    limits, metrics,
};

/// Claims at the same time.
const AT_ONCE: usize = 2;

#[derive(Debug, thiserror::Error)]
enum ClaimError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a crash point")]
    Crashed,
}

impl ClaimError {
    fn is_transient(&self) -> bool {
        match self {
            ClaimError::Store(error) => error.is_transient(),
            ClaimError::Crashed => true,
        }
    }
}

impl From<crash::Crashed> for ClaimError {
    fn from(_: crash::Crashed) -> Self {
        ClaimError::Crashed
    }
}

/// What the ledger said to a claim.
struct Answer {
    items: Vec<Item>,
    results: Result<Vec<ClaimResult>, ClaimError>,
    took: Duration,
}

/// Claims until the gateway is closed, or the dispatcher stops. What was begun is brought to its end.
pub(crate) async fn run(core: Arc<Core>, gate: Arc<Gate>, class: Class) {
    let slot = slot(class);
    let mut failed = 0;
    let mut resumes = None;
    let mut throttles = false;
    let mut under_way = FuturesOrdered::new();
    // Parts that are at their claims.
    let mut asked = 0;
    loop {
        let now = Instant::now();
        let stopping = core.stopping.is_cancelled();
        if stopping && under_way.is_empty() {
            return;
        }
        let paused = resumes.map(|at: Instant| at.saturating_duration_since(now));
        let mut wait = paused;
        if !stopping && paused.is_none_or(|left| left.is_zero()) && under_way.len() < AT_ONCE {
            let throttled_before = std::mem::replace(&mut throttles, gate.standing(now) == Standing::Throttles);
            if throttles && !throttled_before {
                move_elsewhere(&core, &gate, slot, now);
            }
            match gate.take(slot, now, asked) {
                Take::Closed if under_way.is_empty() => return,
                Take::Closed => {}
                Take::Elsewhere(items) => {
                    for item in items {
                        core.place(item);
                    }
                    continue;
                }
                Take::Items(items) => {
                    let items = still_to_send(&core, &gate, items);
                    if !items.is_empty() {
                        asked += parts(&items);
                        under_way.push_back(ask(&core, &gate, class, items));
                    }
                    continue;
                }
                Take::Wait(until) => wait = until,
            }
        }
        tokio::select! {
            Some(answer) = under_way.next(), if !under_way.is_empty() => {
                asked -= parts(&answer.items);
                match hand_over(&core, &gate, slot, class, answer).await {
                    Ok(()) => (failed, resumes) = (0, None),
                    Err(error) => {
                        failed += 1;
                        if failed == 1 {
                            tracing::warn!(%error, gateway = gate.name, "nothing can be claimed, so nothing is sent");
                        }
                        resumes = Some(Instant::now() + pause(failed));
                    }
                }
            }
            () = core.stopping.cancelled(), if !stopping => {}
            // What comes beside a claim is looked at when that has ended.
            () = gate.work[slot].notified(), if under_way.is_empty() && resumes.is_none() => {}
            // A gateway can go down without a word to us.
            () = tokio::time::sleep(wait.unwrap_or(Duration::from_millis(250))), if under_way.is_empty() => {}
        }
    }
}

/// What waits for a gateway that throttles goes to another one that serves it and does not; the rest stays.
fn move_elsewhere(core: &Core, gate: &Arc<Gate>, slot: usize, now: Instant) {
    let mut stays = Vec::new();
    for item in gate.take_all(slot) {
        match core.fleet.route(item.record.phone.e164(), item.record.class, now) {
            Route::To(other) if !Arc::ptr_eq(&other, gate) => core.place(item),
            _ => stays.push(item),
        }
    }
    gate.keep(slot, stays);
}

/// The wait after so many failures in a row.
pub(crate) fn pause(failed: u32) -> Duration {
    Duration::from_millis(50 << failed.min(7)).min(Duration::from_secs(5))
}

/// Begins what is still to be sent; what became of the rest is on its way.
fn still_to_send(core: &Core, gate: &Gate, taken: Vec<Item>) -> Vec<Item> {
    let (snapshot, now) = (core.live.current(), core.clock.now());
    let mut items = Vec::with_capacity(taken.len());
    let mut gone = 0;
    for item in taken {
        // It may have waited in the queue for long.
        let judgement = judge(&item.record, item.campaign, &snapshot, now);
        match core.judged(item, judgement) {
            Judged::Gone(next) => {
                gone += 1;
                if let Some(next) = next {
                    core.place(next);
                }
            }
            Judged::Send(item) if core.offsets.start(&item.token) => items.push(item),
            Judged::Send(item) => {
                gone += 1;
                core.leave(item.record.message_id);
            }
        }
    }
    gate.not_claimed(gone);
    items
}

fn parts(items: &[Item]) -> u32 {
    items.iter().map(|item| u32::from(item.record.parts)).sum()
}

/// Asks the ledger for these.
async fn ask(core: &Core, gate: &Gate, class: Class, items: Vec<Item>) -> Answer {
    let (snapshot, now) = (core.live.current(), core.clock.now());
    let wants: Vec<ClaimWant> = items.iter().map(|item| want(item, gate, &snapshot.policy)).collect();
    let rules = limits::claim_rules(&snapshot, items.iter().map(|item| &item.record), now);
    let claimant = Claimant {
        owner: core.instance,
        now,
        resend_transactional: core.limits.resend_transactional,
        max_attempts: core.limits.attempts(class),
    };
    let started = Instant::now();
    let results = in_ledger(core, &wants, &claimant, &rules).await;
    Answer {
        items,
        results,
        took: started.elapsed(),
    }
}

/// Hands over what is ours to send. On an error the items are back in the queue.
async fn hand_over(core: &Core, gate: &Gate, slot: usize, class: Class, answer: Answer) -> Result<(), ClaimError> {
    let Answer {
        mut items,
        results,
        took,
    } = answer;
    let results = match results {
        Ok(results) => results,
        Err(error) if !error.is_transient() && items.len() == 1 => {
            // Whatever is wrong with this one, the others go on.
            tracing::error!(%error, "a message cannot be claimed and becomes a dead letter");
            gate.not_claimed(1);
            for item in items {
                let letter = item.dead_letter(&format!("it cannot be claimed: {error}"), core.clock.now());
                core.write(Work::Dead(item.token, letter));
                core.leave(item.record.message_id);
            }
            return Ok(());
        }
        Err(error) if !error.is_transient() => {
            // One by one, to find the one that is refused. Each that cannot be claimed now is back in the queue.
            let mut result = Ok(());
            for item in items {
                core.offsets.stop(&item.token);
                let one = still_to_send(core, gate, vec![item]);
                if !one.is_empty() {
                    let answer = ask(core, gate, class, one).await;
                    result = Box::pin(hand_over(core, gate, slot, class, answer)).await.and(result);
                }
            }
            return result;
        }
        Err(error) => {
            for item in &mut items {
                core.offsets.stop(&item.token);
                item.claimed_perhaps = true;
            }
            gate.push_back(slot, items);
            return Err(error);
        }
    };
    metrics::claimed(took, results.iter().filter(|result| result.granted).count());
    let since = Instant::now();
    let mut claimed = Vec::with_capacity(items.len());
    let mut held = 0;
    for (mut item, result) in items.into_iter().zip(results) {
        item.claimed_perhaps = false;
        match result.granted {
            true => claimed.push(Claimed {
                item,
                row: Arc::new(result.row),
                since,
            }),
            false => {
                held += 1;
                limits::count(result.row.reason);
                core.write(Work::Item(item, Ending::Held(Box::new(result.row))));
            }
        }
    }
    gate.not_claimed(held);
    gate.claimed(slot, claimed, took);
    Ok(())
}

async fn in_ledger(
    core: &Core,
    wants: &[ClaimWant],
    claimant: &Claimant,
    rules: &ClaimRules,
) -> Result<Vec<ClaimResult>, ClaimError> {
    crash::point("dispatcher-before-claim")?;
    let mut tx = core.store.begin_by_key().await?;
    let (results, alarms) = tx.messages_claim_within(wants, claimant, rules).await?;
    if results.len() != wants.len() {
        return Err(StoreError::Corrupt("a claim was not answered".into()).into());
    }
    tx.commit().await?;
    limits::tell(&alarms);
    // Failing here is a commit whose answer was lost.
    crash::point("dispatcher-after-claim")?;
    Ok(results)
}

/// Its cost is by now the price of the gateway that it goes to.
fn want(item: &Item, gate: &Gate, policy: &Policy) -> ClaimWant {
    let record = &item.record;
    let price = rules::price(policy, &record.phone, Some(&gate.name));
    ClaimWant {
        contact_id: record.contact_id.clone(),
        message_id: record.message_id,
        cause: record.cause.clone(),
        class: record.class,
        template: record.template.clone(),
        variant: record.variant.clone(),
        encoding: record.encoding.clone(),
        parts: record.parts,
        cost_micros: price.saturating_mul(i64::from(record.parts)),
        phone_hash: item.phone_hash.clone(),
        caused_at: record.caused_at,
        planned_at: record.planned_at,
        rendered_at: record.rendered_at,
        attempt: record.attempt,
        gateway: gate.name.clone(),
        epoch: item.token.epoch,
        traceparent: item.trace.sampled().map(str::to_owned),
        again: item.claimed_perhaps,
    }
}
