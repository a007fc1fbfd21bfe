//! What no callback starts: receipts whose part came after all, and messages of which nothing is heard.
//!
//! Neither writes and emits in two steps that a crash could part. Receipts that found their part go back onto `callbacks`
//! and then leave their table; a message without a receipt is emitted and moved in one transaction where the bus allows
//! it, and otherwise emitted first: its receipt says the same however often it is made.

use std::{sync::Arc, time::Duration};

use bus::{BusError, Log, NewRecord};
use domain::{Reason, State, phone::PhoneKey};
use events::Topic;
use gateways::key::{reply_key, sender};
use jiff::{SignedDuration, Timestamp};
use resources::Gateway;
use stage::{Clock, Live, crash, trace};
use store::{Store, StoreError, Tx, messages::Settle, unmatched::Unmatched};
use tokio_util::sync::CancellationToken;

use crate::{given_up::GivenUp, joined::Joined, replies::together};

/// How soon a receipt is joined that slipped between two transactions.
const RIPE: Duration = Duration::from_millis(500);
/// Two transactions that missed each other had both begun by then; what was kept earlier is looked at once an hour.
const MISSED: SignedDuration = SignedDuration::from_mins(10);
/// By then a message's outcome is usually written, and its parts have found their receipts.
const OUTCOME: SignedDuration = SignedDuration::from_secs(2);
/// How soon a receipt settles a message that has become unknown.
const REFERRED: Duration = Duration::from_secs(2);
const RIPE_BATCH: i64 = 500;
const UNHEARD_BATCH: i64 = 1_000;
/// A reply in parts of which nothing came for so long is given up as it is; and how often that is looked for.
const QUIET: SignedDuration = SignedDuration::from_mins(5);
const GIVE_UP: Duration = Duration::from_secs(30);
const GIVE_UP_BATCH: i64 = 200;
/// Parts are kept so long, for one that comes after all.
const PARTS_KEPT: SignedDuration = SignedDuration::from_hours(24);
/// Receipts that match nothing are shown this long.
const KEPT: SignedDuration = SignedDuration::from_hours(31 * 24);
const HOUR: Duration = Duration::from_secs(3_600);

/// No gateway brings a callback again for so long.
fn callbacks_kept() -> SignedDuration {
    SignedDuration::from_hours(Topic::Callbacks.spec().retention_hours.into())
}

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("a crash point")]
    Crashed,
}

impl From<crash::Crashed> for SweepError {
    fn from(_: crash::Crashed) -> Self {
        SweepError::Crashed
    }
}

/// Until `shutdown`. Errors are waited out.
pub(crate) async fn run(
    log: Arc<dyn Log>,
    store: Store,
    live: Live,
    clock: Clock,
    phone_key: PhoneKey,
    shutdown: CancellationToken,
) {
    tokio::join!(
        every(RIPE, "joining early receipts", &shutdown, || {
            let (log, store) = (log.clone(), store.clone());
            async move { Ok(ripe(&*log, &store, MISSED).await? == RIPE_BATCH) }
        }),
        every(REFERRED, "placing receipts by reference", &shutdown, || {
            let (log, store) = (log.clone(), store.clone());
            async move { Ok(referred(&*log, &store).await? == RIPE_BATCH) }
        }),
        every(HOUR, "joining what is left of early receipts", &shutdown, || {
            let (log, store) = (log.clone(), store.clone());
            async move { Ok(ripe(&*log, &store, KEPT).await? == RIPE_BATCH) }
        }),
        every(HOUR, "forgetting old receipts and replies", &shutdown, || {
            let (store, now) = (store.clone(), clock.now());
            async move {
                let mut tx = store.begin_by_key().await?;
                tx.callbacks_unmatched_drop(now - KEPT).await?;
                tx.heard_replies_drop(now - callbacks_kept()).await?;
                tx.commit().await?;
                Ok(false)
            }
        }),
        every(GIVE_UP, "giving up replies in parts", &shutdown, || {
            let (log, store, live, key, now) =
                (log.clone(), store.clone(), live.clone(), phone_key.clone(), clock.now());
            async move { Ok(give_up(&*log, &store, &live, &key, now).await? == GIVE_UP_BATCH) }
        }),
        unheard(
            log.clone(),
            store.clone(),
            live.clone(),
            clock.clone(),
            shutdown.clone()
        ),
    );
}

/// Does it again and again, at once where there is more to do.
async fn every<F>(period: Duration, what: &'static str, shutdown: &CancellationToken, mut once: impl FnMut() -> F)
where
    F: Future<Output = Result<bool, SweepError>> + Send + 'static,
{
    let mut failing = false;
    while !shutdown.is_cancelled() {
        // A task of its own is not cancelled with us (sqlx #4393).
        let wait = match tokio::spawn(once()).await {
            Ok(Ok(true)) => Duration::ZERO,
            Ok(Ok(false)) => {
                failing = false;
                period
            }
            Ok(Err(error)) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, what, "not possible now, trying again");
                }
                Duration::from_secs(1)
            }
            Err(error) => {
                tracing::error!(%error, what, "failed by a mistake of ours, trying again");
                period.max(Duration::from_secs(1))
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Puts receipts whose part has come back onto `callbacks`; how many.
async fn ripe(log: &dyn Log, store: &Store, within: SignedDuration) -> Result<i64, SweepError> {
    let mut tx = store.begin_by_key().await?;
    let found = tx.callbacks_unmatched_ripe(within, RIPE_BATCH).await?;
    put_back(log, tx, &found).await
}

/// The same for receipts whose message has no part that could find them.
async fn referred(log: &dyn Log, store: &Store) -> Result<i64, SweepError> {
    let mut tx = store.begin_by_key().await?;
    let found = tx.callbacks_unmatched_referred(OUTCOME, RIPE_BATCH).await?;
    put_back(log, tx, &found).await
}

fn record(receipt: &Unmatched) -> Option<NewRecord> {
    let joined = Joined::of(receipt)?;
    let gateway = &receipt.gateway;
    let first = joined.forms.first().map(String::as_str).unwrap_or_default();
    let id = format!("{gateway}:{first}:{}:{}", joined.state, joined.at.as_microsecond());
    let callback = joined.to_callback(gateway, receipt.received_at);
    let key = joined.key(gateway);
    Some(NewRecord::wrap(
        Topic::Callbacks,
        &key,
        id,
        receipt.received_at,
        None,
        &callback,
    ))
}

/// They leave their table when they are on the topic; words that we do not know, when their parts have them.
async fn put_back(log: &dyn Log, mut tx: Tx, found: &[Unmatched]) -> Result<i64, SweepError> {
    if found.is_empty() {
        return Ok(0);
    }
    let notes: Vec<_> = found.iter().filter_map(Unmatched::note).collect();
    tx.parts_note(&notes).await?;
    let records: Vec<NewRecord> = found.iter().filter_map(record).collect();
    crash::point("callbacks-sweep-before-append")?;
    if !records.is_empty() {
        log.append(records).await?;
    }
    crash::point("callbacks-sweep-after-append")?;
    tx.commit().await?;
    Ok(found.len() as i64)
}

/// Puts what there is of replies whose other parts do not come back onto `callbacks`; how many.
async fn give_up(log: &dyn Log, store: &Store, live: &Live, key: &PhoneKey, now: Timestamp) -> Result<i64, SweepError> {
    let mut tx = store.begin_by_key().await?;
    let parts = tx
        .reply_parts_give_up(now - QUIET, now - PARTS_KEPT, GIVE_UP_BATCH)
        .await?;
    let snapshot = live.current();
    let replies: Vec<_> = parts
        .chunk_by(|one, next| one.key == next.key)
        .filter_map(|parts| together(parts, &snapshot, key, 0, true))
        .collect();
    let records: Vec<NewRecord> = replies
        .iter()
        .map(|reply| {
            let callback = GivenUp::of(reply).to_callback(&reply.gateway, reply.received_at);
            let key = reply_key(&sender(&reply.from), key);
            let id = format!("{}:incomplete", reply.id.hyphenated());
            NewRecord::wrap(Topic::Callbacks, &key, id, reply.received_at, None, &callback)
        })
        .collect();
    if !records.is_empty() {
        log.append(records).await?;
    }
    tx.commit().await?;
    Ok(replies.len() as i64)
}

/// Calls messages unknown of which nothing was heard in their gateway's time.
async fn unheard(log: Arc<dyn Log>, store: Store, live: Live, clock: Clock, shutdown: CancellationToken) {
    let mut live = live;
    while !shutdown.is_cancelled() {
        let gateways: Vec<Arc<Gateway>> = live.current().gateways.values().cloned().collect();
        let mut period = HOUR;
        for gateway in gateways {
            let timeout = gateway.receipt_timeout().duration();
            // A time-out of days is looked at once an hour, one of minutes more often.
            period = period.min((timeout.unsigned_abs() / 10).max(Duration::from_secs(1)));
            let once = settle_unheard(log.clone(), store.clone(), gateway.name.clone(), timeout, clock.now());
            match tokio::spawn(once).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "messages without a receipt cannot be looked for now"),
                Err(error) => {
                    tracing::error!(%error, "looking for messages without a receipt failed by a mistake of ours")
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = live.changed() => {}
            () = tokio::time::sleep(period) => {}
        }
    }
}

async fn settle_unheard(
    log: Arc<dyn Log>,
    store: Store,
    gateway: String,
    timeout: SignedDuration,
    now: Timestamp,
) -> Result<(), SweepError> {
    loop {
        let found = store.messages_unheard(&gateway, now - timeout, UNHEARD_BATCH).await?;
        if found.is_empty() {
            return Ok(());
        }
        let settles: Vec<Settle> = found
            .into_iter()
            .map(|message| Settle {
                contact_id: message.contact_id,
                message_id: message.message_id,
                state: State::Unknown,
                reason: Some(Reason::NoReceipt),
                gateway_code: None,
                // The same at every try, so the receipt is too.
                at: message.accepted_at + timeout,
            })
            .collect();
        let mut tx = store.begin_by_key().await?;
        let records: Vec<NewRecord> = tx
            .messages_settle(&settles)
            .await?
            .into_iter()
            .filter(|(_, moved)| *moved)
            .map(|(row, _)| {
                let receipt = row.to_receipt();
                let (id, at) = (receipt.stable_id(), receipt.at);
                let own = row
                    .traceparent
                    .as_deref()
                    .map(|parent| trace::continue_from(crate::STAGE, Some(parent), &id));
                let trace = own.as_ref().map(trace::RecordTrace::traceparent);
                NewRecord::wrap(Topic::Receipts, &row.contact_id, id, at, trace, &receipt)
            })
            .collect();
        let count = records.len();
        match log.transactional() {
            Some(bus) => {
                bus.append_in(tx.connection(), &records).await?;
                tx.commit().await?;
                bus.announce(&records);
            }
            None => {
                log.append(records).await?;
                tx.commit().await?;
            }
        }
        metrics::counter!("tamtam_receipts_total", "result" => "none").increment(count as u64);
        if count == 0 {
            return Ok(());
        }
    }
}
