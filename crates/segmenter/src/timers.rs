//! A trigger's wait was edited: the timers that wait already go by the new one.
//!
//! The same statement at each change, and at the start for what changed while nobody ran. Doing it twice, or by several
//! replicas, moves nothing more. A timer that fired in between looks at its trigger anyway, and waits again where the wait
//! became longer.

use std::{collections::BTreeMap, time::Duration};

use events::Timer;
use stage::Live;
use store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

const RETRY: Duration = Duration::from_secs(1);

pub(crate) async fn align(store: Store, mut live: Live, stop: CancellationToken) {
    let mut aligned: BTreeMap<String, i64> = BTreeMap::new();
    loop {
        let waits = waits(&live);
        let changed: Vec<(String, i64)> = waits
            .iter()
            .filter(|(name, seconds)| aligned.get(*name) != Some(seconds))
            .map(|(name, seconds)| (Timer::id_prefix(name), *seconds))
            .collect();
        let done = match changed.is_empty() {
            true => Ok(0),
            false => tokio::spawn(move_timers(store.clone(), changed)).await.unwrap_or(Ok(0)),
        };
        match done {
            Ok(moved) => {
                aligned = waits;
                if moved > 0 {
                    tracing::info!(moved, "waiting timers follow their triggers' new waits");
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = live.changed() => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "waiting timers cannot be moved, trying again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }
}

/// A trigger that does not wait (any more) is among them: its timers, if there are any, are due at their events' times.
fn waits(live: &Live) -> BTreeMap<String, i64> {
    let snapshot = live.current();
    let seconds = |trigger: &resources::Trigger| trigger.wait.map_or(0, resources::Period::as_secs);
    snapshot
        .triggers
        .iter()
        .map(|(name, trigger)| (name.clone(), seconds(trigger)))
        .collect()
}

async fn move_timers(store: Store, waits: Vec<(String, i64)>) -> Result<u64, StoreError> {
    // Not by key: of many triggers and many timers a hash join is what is fast.
    let mut tx = store.begin().await?;
    let moved = tx.deferred_align_timers(&waits).await?;
    tx.commit().await?;
    Ok(moved)
}
