//! Writes what became of records, in batches: the ledger, the deferred table, the receipts, the offsets.
//!
//! While a batch is written, and for some milliseconds after it began, the next one gathers: so a lone message is written at
//! once and a busy dispatcher writes many at a time. A second transaction is begun beside the first when a whole batch
//! waits: a single connection of PostgreSQL writes half of what two cores can. On Kafka the receipts of a batch are appended
//! while the next transactions are under way. On the PostgreSQL bus receipts and offsets are part of the transaction, and
//! the offsets count on all that is done with: so what the transactions write of the ledger is written side by side, and
//! from the offsets on they come one after the other. A batch that fails is written again: every part of it is idempotent.

use std::{sync::Arc, time::Duration};

use bus::{BusError, Committed, NewRecord};
use domain::{Class, State};
use events::Topic;
use jiff::Timestamp;
use stage::crash;
use store::{
    Deferred, StoreError,
    deferred::park_key,
    messages::{AttemptOutcome, MessageRow, Settled, Verdict},
};
use tokio::{
    sync::{MutexGuard, mpsc},
    task::JoinSet,
    time::Instant,
};

use crate::{
    GROUP,
    claims::pause,
    core::{Core, Ending, Later, Work},
    item::Item,
    limits, metrics,
    offsets::{Position, Token},
};

const BATCH: usize = 500;
/// Transactions at the same time.
const TRANSACTIONS: usize = 2;
/// Between the beginnings of two batches, at least, unless one is full: a transaction costs as much for few outcomes as for
/// some dozens.
const PACE: Duration = Duration::from_millis(10);

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("a crash point")]
    Crashed,
}

impl WriteError {
    fn is_transient(&self) -> bool {
        match self {
            WriteError::Store(error) => error.is_transient(),
            WriteError::Bus(error) => error.is_transient(),
            WriteError::Crashed => true,
        }
    }
}

impl From<crash::Crashed> for WriteError {
    fn from(_: crash::Crashed) -> Self {
        WriteError::Crashed
    }
}

/// A batch that the ledger has, and what is to be appended for it.
struct Kept {
    batch: Vec<Work>,
    records: Vec<NewRecord>,
}

/// Writes until the dispatcher gives up or everybody who could send is gone.
pub(crate) async fn run(core: Arc<Core>, mut work: mpsc::UnboundedReceiver<Work>) {
    let (kept, keep) = mpsc::channel(1);
    let appending = tokio::spawn(append_kept(core.clone(), keep));
    let mut running = JoinSet::new();
    let mut batch = Vec::with_capacity(BATCH);
    let mut from = Instant::now();
    let mut open = true;
    while open || !batch.is_empty() || !running.is_empty() {
        let starts = match running.len() {
            0 => batch.len() >= BATCH || (!batch.is_empty() && Instant::now() >= from),
            under_way => batch.len() >= BATCH && under_way < TRANSACTIONS,
        };
        if starts {
            from = Instant::now() + PACE;
            running.spawn(write_one(core.clone(), std::mem::take(&mut batch), kept.clone()));
        }
        let room = BATCH - batch.len();
        tokio::select! {
            () = core.abandon.cancelled() => break,
            count = work.recv_many(&mut batch, room), if open && room > 0 => open = count > 0,
            Some(ended) = running.join_next() => rethrow(ended),
            () = tokio::time::sleep_until(from), if running.is_empty() && !batch.is_empty() => {}
        }
    }
    // A transaction is not broken off half-way.
    while let Some(ended) = running.join_next().await {
        rethrow(ended);
    }
    drop(kept);
    rethrow(appending.await);
}

fn rethrow(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

async fn write_one(core: Arc<Core>, batch: Vec<Work>, kept: mpsc::Sender<Kept>) {
    match keep_outcomes(&core, &batch).await {
        Ok(Left::Nothing(turn)) => {
            settle(&core, batch);
            drop(turn);
        }
        // Where nobody takes it any more the dispatcher gives up.
        Ok(Left::Records(records)) => drop(kept.send(Kept { batch, records }).await),
        // Whatever it is, it shows again there.
        Err(_) => write_all(&core, batch).await,
    }
}

/// Appends what follows from batches that the ledger has, one after the other. Where that fails a batch is written again.
async fn append_kept(core: Arc<Core>, mut kept: mpsc::Receiver<Kept>) {
    while let Some(Kept { batch, records }) = kept.recv().await {
        let appended = tokio::select! {
            () = core.abandon.cancelled() => return,
            appended = append(&core, records) => appended,
        };
        match appended {
            Ok(()) => settle(&core, batch),
            Err(_) => write_all(&core, batch).await,
        }
    }
}

/// Writes a batch however long it takes; a part of it that the database refuses is found by writing one by one.
async fn write_all(core: &Core, batch: Vec<Work>) {
    let mut failed = 0;
    loop {
        match write(core, &batch).await {
            Ok(turn) => {
                settle(core, batch);
                return drop(turn);
            }
            Err(WriteError::Bus(BusError::NotOwner { topic, number })) => {
                // Its next owner reads the records again; what we know of them is still written.
                core.offsets.remove(&[bus::Partition { topic, number }]);
            }
            Err(error) if error.is_transient() => {
                failed += 1;
                if failed == 1 {
                    tracing::warn!(%error, records = batch.len(), "outcomes cannot be written, trying again");
                }
                tokio::select! {
                    () = core.abandon.cancelled() => return,
                    () = tokio::time::sleep(pause(failed)) => {}
                }
            }
            Err(error) if batch.len() == 1 => {
                tracing::error!(%error, "an outcome is refused and cannot be written, the record is a dead letter");
                let dead = batch.into_iter().map(|work| to_dead(core, work, &error)).collect();
                return Box::pin(write_all(core, dead)).await;
            }
            Err(_) => {
                for work in batch {
                    Box::pin(write_all(core, vec![work])).await;
                }
                return;
            }
        }
    }
}

fn to_dead(core: &Core, work: Work, error: &WriteError) -> Work {
    match work {
        Work::Item(item, _) => {
            let letter = item.dead_letter(
                &format!("what became of it cannot be written: {error}"),
                core.clock.now(),
            );
            Work::Dead(item.token, letter)
        }
        // A dead letter of a dead letter: what remains is to pass it over.
        Work::Dead(token, _) | Work::Passed(token) => Work::Passed(token),
    }
}

/// After the commit: the records are done with, and whoever waited for them goes on.
fn settle(core: &Core, batch: Vec<Work>) {
    let mut done = Vec::with_capacity(batch.len());
    let mut over = Vec::with_capacity(batch.len());
    for work in batch {
        match work {
            Work::Dead(token, _) | Work::Passed(token) => done.push(token),
            Work::Item(item, ending) if ending.is_release() => {
                core.offsets.stop(&item.token);
                core.place(item);
            }
            Work::Item(item, ending) => {
                if let Ending::Verdict { state, .. } = ending {
                    metrics::verdict(item.record.class, state);
                }
                done.push(item.token);
                over.push(item.record.message_id);
            }
        }
    }
    core.offsets.finish(&done);
    for message in over {
        core.leave(message);
    }
}

/// To move offsets, which ends when the batch is settled.
type Turn<'c> = MutexGuard<'c, ()>;

/// What a committed transaction leaves to be done.
enum Left<'c> {
    /// Everything was part of it. The next transaction's offsets count on what this one is done with, so the turn ends when
    /// that is settled.
    Nothing(Turn<'c>),
    Records(Vec<NewRecord>),
}

async fn write<'c>(core: &'c Core, batch: &[Work]) -> Result<Option<Turn<'c>>, WriteError> {
    match keep_outcomes(core, batch).await? {
        Left::Nothing(turn) => Ok(Some(turn)),
        Left::Records(records) => append(core, records).await.map(|()| None),
    }
}

async fn keep_outcomes<'c>(core: &'c Core, batch: &[Work]) -> Result<Left<'c>, WriteError> {
    let done: Vec<Token> = batch
        .iter()
        .filter_map(|work| match work {
            Work::Dead(token, _) | Work::Passed(token) => Some(*token),
            Work::Item(item, ending) => (!ending.is_release()).then_some(item.token),
        })
        .collect();
    let mut tx = core.store.begin_by_key().await?;
    crash::point("dispatcher-before-outcome")?;
    let written = in_ledger(core, batch, &mut tx).await?;
    tx.deferred_put(&written.deferred).await?;
    let Some(log) = core.log.transactional() else {
        crash::point("dispatcher-before-commit")?;
        tx.commit().await?;
        return Ok(Left::Records(written.records));
    };
    let turn = core.offsets.turn().await;
    let positions = core.offsets.positions_with(&done);
    let offsets: Vec<Committed> = positions.iter().map(Position::committed).collect();
    log.finish_in(tx.connection(), GROUP, &offsets, &written.records)
        .await?;
    crash::point("dispatcher-before-commit")?;
    tx.commit().await?;
    crash::point("dispatcher-after-commit")?;
    for position in &positions {
        core.offsets.committed(position);
    }
    log.announce(&written.records);
    Ok(Left::Nothing(turn))
}

/// The ledger has it, so from here on a repeat makes the same receipts from its rows.
async fn append(core: &Core, records: Vec<NewRecord>) -> Result<(), WriteError> {
    crash::point("dispatcher-after-outcome")?;
    if !records.is_empty() {
        core.log.append(records).await?;
    }
    crash::point("dispatcher-after-commit")?;
    Ok(())
}

#[derive(Default)]
struct Written {
    records: Vec<NewRecord>,
    deferred: Vec<Deferred>,
}

async fn in_ledger(core: &Core, batch: &[Work], tx: &mut store::Tx) -> Result<Written, StoreError> {
    let now = core.clock.now();
    let mut written = Written::default();
    let mut verdicts = Vec::new();
    let mut outcomes = Vec::with_capacity(batch.len());
    for work in batch {
        match work {
            Work::Item(item, Ending::Verdict { state, reason, .. }) => {
                let rules = limits::version(&core.live.current());
                verdicts.push(verdict(item, *state, *reason, rules, now));
            }
            Work::Item(
                item,
                Ending::Outcome {
                    claimed,
                    gateway,
                    settlement,
                    at,
                },
            ) => outcomes.push(AttemptOutcome {
                contact_id: item.record.contact_id.clone(),
                message_id: item.record.message_id,
                owner: core.instance,
                attempt: claimed.attempt,
                settled: settlement.settled,
                gateway: gateway.clone(),
                gateway_code: settlement.code.clone(),
                remote_ids: settlement.remote_ids.clone(),
                total: settlement.total,
                at: *at,
                claimed: Some(claimed.clone()),
            }),
            Work::Item(item, Ending::Held(row)) => receipts(item, row, &mut written.records),
            Work::Dead(_, letter) => written.records.push(letter.clone()),
            Work::Passed(_) => {}
        }
    }
    // A batch holds no message twice: there is one flight for each.
    let mut decided = match verdicts.is_empty() {
        true => Vec::new(),
        false => tx.messages_decide_owned(&verdicts, core.limits.take_over()).await?,
    }
    .into_iter();
    let outcomes = match outcomes.is_empty() {
        true => Default::default(),
        false => tx.messages_outcome(&outcomes).await?,
    };
    let mut moved = outcomes.rows.into_iter();
    for work in batch {
        match work {
            Work::Item(item, Ending::Verdict { later, .. }) => {
                let Some((row, moved)) = decided.next() else { continue };
                receipts(item, &row, &mut written.records);
                // Where it did not change and is at a later attempt, that one waits already.
                let waits = row.state == State::Deferred && (moved || row.attempt == item.record.attempt);
                if waits && *later != Later::Never {
                    written.deferred.push(deferred(item, row.attempt, later.clone(), now));
                }
            }
            Work::Item(item, ending @ Ending::Outcome { settlement, .. }) => {
                let Some(Some((row, moved))) = moved.next() else {
                    continue;
                };
                if ending.is_release() {
                    continue;
                }
                receipts(item, &row, &mut written.records);
                if let (Settled::Deferred, true, Some(due)) = (settlement.settled, moved, settlement.due) {
                    written.deferred.push(deferred(item, row.attempt, Later::At(due), now));
                }
            }
            _ => {}
        }
    }
    for row in &outcomes.early {
        let receipt = row.to_receipt();
        let (id, key) = (receipt.stable_id(), &row.contact_id);
        written.records.push(NewRecord::wrap(
            Topic::Receipts,
            key,
            id,
            row.changed_at,
            None,
            &receipt,
        ));
    }
    Ok(written)
}

fn receipts(item: &Item, row: &MessageRow, records: &mut Vec<NewRecord>) {
    records.extend(row.to_receipts().iter().map(|receipt| {
        let (id, key) = (receipt.stable_id(), &row.contact_id);
        NewRecord::wrap(
            Topic::Receipts,
            key,
            id,
            receipt.at,
            Some(item.trace.traceparent()),
            receipt,
        )
    }));
}

fn verdict(item: &Item, state: State, reason: Option<domain::Reason>, rules: String, at: Timestamp) -> Verdict {
    let record = &item.record;
    Verdict {
        contact_id: record.contact_id.clone(),
        message_id: record.message_id,
        cause: record.cause.clone(),
        class: record.class,
        template: record.template.clone(),
        variant: record.variant.clone(),
        state,
        reason,
        encoding: Some(record.encoding.clone()),
        parts: record.parts,
        cost_micros: record.cost_micros,
        phone_hash: Some(item.phone_hash.clone()),
        caused_at: record.caused_at,
        planned_at: record.planned_at,
        rendered_at: Some(record.rendered_at),
        decided_by: Some(rules),
        at,
    }
}

/// The record that comes back later, as attempts made by then.
fn deferred(item: &Item, attempt: u32, later: Later, now: Timestamp) -> Deferred {
    let mut record = item.record.clone();
    record.attempt = attempt;
    let topic = match record.class {
        Class::Transactional => Topic::OutboundTransactional,
        Class::Marketing => Topic::OutboundBulk,
    };
    let id = format!("{}:outbound:{attempt}", record.message_id.hyphenated());
    let new = NewRecord::wrap(
        topic,
        &record.contact_id,
        record.message_id.hyphenated().to_string(),
        now,
        Some(item.trace.traceparent()),
        &record,
    );
    let (due_at, parked, gateway) = match later {
        Later::Never => (None, None, None),
        Later::At(due) => (Some(due), None, None),
        Later::Behind { gateway, due } => (Some(due), None, Some(gateway)),
        Later::Parked(campaign) => (None, Some(park_key(campaign)), None),
    };
    Deferred {
        id,
        due_at,
        parked,
        campaign_id: item.campaign,
        gateway,
        topic: new.topic,
        key: new.key,
        headers: new.headers,
        value: new.value,
    }
}

/// Commits what can be committed on a bus whose offsets are no part of the transaction.
pub(crate) async fn commit(core: &Core, topic: Topic, consumer: &mut dyn bus::Consumer) -> Result<(), BusError> {
    if core.log.transactional().is_some() {
        return Ok(());
    }
    let positions: Vec<Position> = core.offsets.positions(topic);
    if positions.is_empty() {
        return Ok(());
    }
    let offsets: Vec<_> = positions.iter().map(|at| (at.partition, at.next_offset)).collect();
    let mut failed = None;
    for (position, result) in positions.iter().zip(consumer.commit_all(&offsets).await) {
        match result {
            Ok(()) => core.offsets.committed(position),
            Err(BusError::NotOwner { .. }) => core.offsets.remove(&[position.partition]),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// How often that is done.
pub(crate) const COMMIT_EVERY: Duration = Duration::from_millis(100);
