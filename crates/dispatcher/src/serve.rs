//! The three tasks of a gateway: one claims for each class, one submits.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use domain::Class;
use futures::FutureExt;
use gateways::{Gateway, Outcome, Submission};
use stage::crash;
use store::messages::{MessageRow, Settled};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::{
    claims,
    core::{Core, Ending, Work},
    gate::{Claimed, Gate, HELD, Next},
    item::Item,
    judge::late,
    retry::{self, Settlement},
};

const CLASSES: [Class; 2] = [Class::Transactional, Class::Marketing];

/// Starts a gateway's tasks; they end when it is closed, or the dispatcher stops.
pub(crate) fn start(core: &Arc<Core>, gate: Arc<Gate>) {
    for class in CLASSES {
        tokio::spawn(claims::run(core.clone(), gate.clone(), class));
    }
    tokio::spawn(submit(core.clone(), gate));
}

async fn submit(core: Arc<Core>, gate: Arc<Gate>) {
    while !core.abandon.is_cancelled() {
        let wait = match gate.next(Instant::now()) {
            Next::Closed => return,
            Next::Go(claimed, handle, permit) => {
                // It begins here and now, not when a new task gets its turn: the rate is what the gateway sees.
                let mut carried = Box::pin(carry(core.clone(), gate.clone(), claimed, handle, permit));
                if futures::poll!(&mut carried).is_pending() {
                    tokio::spawn(carried);
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

/// One attempt after the other, as long as each answer leaves room for the next: a task for each would be one more to make,
/// and [`submit`] to be woken for it.
async fn carry(
    core: Arc<Core>,
    gate: Arc<Gate>,
    mut claimed: Claimed,
    mut handle: Arc<dyn Gateway>,
    mut permit: OwnedSemaphorePermit,
) {
    loop {
        gate.meters
            .submitting(claimed.item.record.class, claimed.since.elapsed());
        attempt(&core, &gate, claimed, handle, permit).await;
        if core.abandon.is_cancelled() {
            return;
        }
        match gate.next(Instant::now()) {
            Next::Go(claimed_next, handle_next, permit_next) => {
                if permit_next.semaphore().available_permits() > 0 {
                    // There is room for more than this one.
                    gate.ready.notify_one();
                }
                (claimed, handle, permit) = (claimed_next, handle_next, permit_next);
            }
            Next::Release(claimed) => {
                release(&core, &gate, claimed);
                break;
            }
            Next::Wait(_) | Next::Closed => break,
        }
    }
    // What is to be waited for is asked there.
    gate.ready.notify_one();
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
        item,
        Ending::Outcome {
            claimed,
            gateway: gate.name.clone(),
            settlement,
            at: core.clock.now(),
        },
    ));
}

async fn attempt(core: &Core, gate: &Gate, claimed: Claimed, handle: Arc<dyn Gateway>, permit: OwnedSemaphorePermit) {
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
    conclude(core, gate, item, row, settlement);
}
