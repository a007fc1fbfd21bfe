//! The three tasks of a gateway: one claims for each class, one submits.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use domain::Class;
use futures::FutureExt;
use gateways::{Gateway, Outcome, Submission};
use resources::{Policy, rules};
use stage::crash;
use store::{
    StoreError,
    messages::{ClaimResult, ClaimRules, ClaimWant, Claimant, MessageRow, Settled},
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::{
    core::{Core, Ending, Judged, Work},
    fleet::Route,
    gate::{Claimed, Gate, HELD, Next, Standing, Take},
    item::Item,
    judge::{judge, late},
    limits, metrics,
    retry::{self, Settlement},
};

const CLASSES: [Class; 2] = [Class::Transactional, Class::Marketing];

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

/// Starts a gateway's tasks; they end when it is closed, or the dispatcher stops.
pub(crate) fn start(core: &Arc<Core>, gate: Arc<Gate>) {
    for class in CLASSES {
        tokio::spawn(claim(core.clone(), gate.clone(), class));
    }
    tokio::spawn(submit(core.clone(), gate));
}

async fn claim(core: Arc<Core>, gate: Arc<Gate>, class: Class) {
    let slot = crate::gate::slot(class);
    let mut failed = 0;
    let mut throttles = false;
    while !core.stopping.is_cancelled() {
        let now = Instant::now();
        let throttled_before = std::mem::replace(&mut throttles, gate.standing(now) == Standing::Throttles);
        if throttles && !throttled_before {
            move_elsewhere(&core, &gate, slot, now);
        }
        let wait = match gate.take(slot, now) {
            Take::Closed => return,
            Take::Elsewhere(items) => {
                for item in items {
                    core.place(item);
                }
                continue;
            }
            Take::Items(items) => match claim_items(&core, &gate, slot, class, items).await {
                Ok(()) => {
                    failed = 0;
                    continue;
                }
                Err(error) => {
                    failed += 1;
                    if failed == 1 {
                        tracing::warn!(%error, gateway = gate.name, "nothing can be claimed, so nothing is sent");
                    }
                    Some(pause(failed))
                }
            },
            Take::Wait(wait) => wait,
        };
        tokio::select! {
            () = core.stopping.cancelled() => return,
            () = gate.work[slot].notified(), if failed == 0 => {}
            // A gateway can go down without a word to us.
            () = tokio::time::sleep(wait.unwrap_or(Duration::from_millis(250))) => {}
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

/// Claims and hands over what is ours to send. On an error the items are back in the queue.
async fn claim_items(core: &Core, gate: &Gate, slot: usize, class: Class, taken: Vec<Item>) -> Result<(), ClaimError> {
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
    if items.is_empty() {
        return Ok(());
    }
    let wants: Vec<ClaimWant> = items.iter().map(|item| want(item, gate, &snapshot.policy)).collect();
    let rules = limits::claim_rules(&snapshot, items.iter().map(|item| &item.record), now);
    let claimant = Claimant {
        owner: core.instance,
        now,
        resend_transactional: core.limits.resend_transactional,
        max_attempts: core.limits.attempts(class),
    };
    let started = Instant::now();
    let results = match claim_in_ledger(core, &wants, &claimant, &rules).await {
        Ok(results) => results,
        Err(error) if !error.is_transient() && items.len() == 1 => {
            // Whatever is wrong with this one, the others go on.
            tracing::error!(%error, "a message cannot be claimed and becomes a dead letter");
            gate.not_claimed(1);
            for item in items {
                let letter = item.dead_letter(&format!("it cannot be claimed: {error}"), now);
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
                result = Box::pin(claim_items(core, gate, slot, class, vec![item]))
                    .await
                    .and(result);
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
    metrics::claimed(
        started.elapsed(),
        results.iter().filter(|result| result.granted).count(),
    );
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
                core.write(Work::Item(Box::new(item), Ending::Held(Box::new(result.row))));
            }
        }
    }
    gate.not_claimed(held);
    gate.claimed(slot, claimed, started.elapsed());
    Ok(())
}

async fn claim_in_ledger(
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

async fn submit(core: Arc<Core>, gate: Arc<Gate>) {
    while !core.abandon.is_cancelled() {
        let wait = match gate.next(Instant::now()) {
            Next::Closed => return,
            Next::Go(claimed, handle, permit) => {
                gate.meters
                    .submitting(claimed.item.record.class, claimed.since.elapsed());
                // It begins here and now, not when a new task gets its turn: the rate is what the gateway sees.
                let mut attempt = Box::pin(attempt(core.clone(), gate.clone(), *claimed, handle, permit));
                if futures::poll!(&mut attempt).is_pending() {
                    tokio::spawn(attempt);
                }
                continue;
            }
            Next::Release(claimed) => {
                release(&core, &gate, claimed);
                continue;
            }
            Next::Wait(wait) => wait,
        };
        tokio::select! {
            () = core.abandon.cancelled() => return,
            () = gate.ready.notified() => {}
            // No longer than what is claimed may wait.
            () = tokio::time::sleep(wait.unwrap_or(Duration::from_millis(250)).min(HELD)) => {}
        }
    }
}

/// Lets go of claims whose messages were not handed over.
pub(crate) fn release(core: &Core, gate: &Gate, claimed: Vec<Claimed>) {
    for Claimed { item, row, .. } in claimed {
        let settlement = retry::settle(
            Outcome::Unreachable,
            &item.record,
            row.attempt,
            &core.limits,
            core.clock.now(),
            0.0,
        );
        conclude(core, gate, item, row, settlement);
    }
}

fn conclude(core: &Core, gate: &Gate, item: Item, claimed: Arc<MessageRow>, settlement: Settlement) {
    core.write(Work::Item(
        Box::new(item),
        Ending::Outcome {
            claimed,
            gateway: gate.name.clone(),
            settlement,
            at: core.clock.now(),
        },
    ));
}

async fn attempt(
    core: Arc<Core>,
    gate: Arc<Gate>,
    claimed: Claimed,
    handle: Arc<dyn Gateway>,
    permit: OwnedSemaphorePermit,
) {
    let Claimed { item, row, .. } = claimed;
    let record = &item.record;
    let submission = Submission {
        reference: record.message_id,
        phone: record.phone.clone(),
        sender: record.sender.clone(),
        text: record.text.clone(),
        encoding: item.encoding,
        parts: record.parts,
        expires_at: record.deadline,
    };
    let started = Instant::now();
    let unknown = || Outcome::Unknown {
        code: None,
        parts: Vec::new(),
    };
    let mut outcome = match crash::point("dispatcher-before-submit") {
        Err(_) => Outcome::Unreachable,
        // A panic in an adapter is an attempt of unknown outcome, not a message that is never heard of again.
        Ok(()) => match AssertUnwindSafe(handle.submit(submission)).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::error!(gateway = gate.name, "gateway adapter panicked");
                unknown()
            }
        },
    };
    if crash::point("dispatcher-after-submit").is_err() {
        outcome = unknown();
    }
    let now = core.clock.now();
    gate.meters.answered(record, &outcome, started.elapsed(), now);
    drop(permit);
    gate.answered(retry::sign(&outcome), started, Instant::now());
    let mut settlement = retry::settle(outcome, record, row.attempt, &core.limits, now, rand::random());
    if let Settled::Expired(reason) = &mut settlement.settled {
        *reason = late(record, &core.live.current());
    }
    conclude(&core, &gate, item, row, settlement);
}
