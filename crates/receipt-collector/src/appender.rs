//! Callbacks onto the bus, many at a time: requests that come together share one append, and each is answered after it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bus::{Log, NewRecord};
use domain::phone::PhoneKey;
use events::{Callback, Topic};
use gateways::{
    Incoming, Undelivered,
    key::{CallbackKey, callback_key},
};
use jiff::{SignedDuration, Timestamp};
use stage::{Clock, Live, crash};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// In one append.
const BATCH: usize = 500;
/// Waiting; more wait at their own connections.
const QUEUE: usize = 2_000;
/// After this the gateway is told to bring it again: it will give up on us about then anyway.
const PATIENCE: Duration = Duration::from_secs(10);
/// More callbacks than this waiting for their answer: the machine has its hands full.
const FLOOD: usize = 200;
/// A flood is over when there were no more than that for so long.
const EBB: Duration = Duration::from_millis(250);
/// How old receipts may become, unread, while more flood in.
const PUT_OFF: SignedDuration = SignedDuration::from_secs(20);
/// The same where a reply has come with them or after them: it may want no more messages. Of replies that another replica
/// received nothing is known here; they wait as receipts do.
const PUT_OFF_BEFORE_REPLY: SignedDuration = SignedDuration::from_secs(10);
/// How often to look.
const LOOK: Duration = Duration::from_millis(50);

/// Where as many came together the last time, there are more to come: a few records cost an append as much as many.
const MANY: usize = 16;
/// How long they are waited for.
const GATHER: Duration = Duration::from_millis(10);

type Waiting = (NewRecord, oneshot::Sender<Result<(), Undelivered>>);

/// The way onto `callbacks`. Cheap to clone; it ends when the last clone is gone.
#[derive(Clone, Debug)]
pub(crate) struct Appender {
    queue: mpsc::Sender<Waiting>,
    unanswered: Arc<Unanswered>,
    ids: Arc<Ids>,
    live: Live,
    phone_key: PhoneKey,
}

/// Record ids: drawn once for the process, then counted.
#[derive(Debug)]
struct Ids {
    prefix: u64,
    next: AtomicU64,
}

impl Appender {
    pub(crate) fn start(log: Arc<dyn Log>, live: Live, phone_key: PhoneKey) -> Appender {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(append(log, waiting));
        Appender {
            queue,
            unanswered: Arc::new(Unanswered::new()),
            ids: Arc::new(Ids {
                prefix: rand::random(),
                next: AtomicU64::new(0),
            }),
            live,
            phone_key,
        }
    }

    /// For who should make way.
    pub(crate) fn edge(&self) -> Edge {
        Edge(self.unanswered.clone())
    }
}

/// Gateways wait for their answer and give up, and messages wait to be sent; what is kept can be understood a little later.
/// So in a flood the edge goes first, and the step after it.
#[derive(Clone, Debug)]
pub(crate) struct Edge(Arc<Unanswered>);

impl Edge {
    /// Waits until the flood is over, or what came at `since` has waited for long enough.
    pub(crate) async fn calm(&self, since: Timestamp, clock: &Clock) {
        while self.0.is_flooded(Instant::now()) && clock.now().duration_since(since) < self.0.put_off(since) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Callbacks that are not answered yet, and when the last reply came.
#[derive(Debug)]
struct Unanswered {
    count: AtomicUsize,
    begun: Instant,
    /// When there were last too many, in milliseconds since `begun`.
    flooded_at: AtomicU64,
    /// When the last reply was received, in milliseconds since 1970.
    reply_at: AtomicI64,
}

impl Unanswered {
    fn new() -> Unanswered {
        Unanswered {
            count: AtomicUsize::new(0),
            begun: Instant::now(),
            flooded_at: AtomicU64::new(u64::MAX),
            reply_at: AtomicI64::new(i64::MIN),
        }
    }

    fn enter(&self, now: Instant) -> Answered<'_> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= FLOOD {
            self.flooded_at.store(self.place(now), Ordering::Relaxed);
        }
        Answered(self)
    }

    fn is_flooded(&self, now: Instant) -> bool {
        match self.flooded_at.load(Ordering::Relaxed) {
            u64::MAX => false,
            at => u128::from(self.place(now).saturating_sub(at)) < EBB.as_millis(),
        }
    }

    fn heard(&self, at: Timestamp) {
        self.reply_at.fetch_max(at.as_millisecond(), Ordering::Relaxed);
    }

    /// How old may become what was received since then.
    fn put_off(&self, since: Timestamp) -> SignedDuration {
        match self.reply_at.load(Ordering::Relaxed) >= since.as_millisecond() {
            true => PUT_OFF_BEFORE_REPLY,
            false => PUT_OFF,
        }
    }

    fn place(&self, now: Instant) -> u64 {
        u64::try_from((now - self.begun).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Counts an answer, also where nobody waits for it any more.
struct Answered<'a>(&'a Unanswered);

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Incoming for Appender {
    async fn deliver(&self, callback: Callback) -> Result<(), Undelivered> {
        let number = self.ids.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}-{number}", self.ids.prefix);
        let at = callback.received_at;
        let snapshot = self.live.current();
        let resource = snapshot.gateways.get(&callback.gateway);
        let CallbackKey { key, is_reply } =
            callback_key(&callback, resource.map(|resource| &**resource), &self.phone_key);
        if is_reply {
            self.unanswered.heard(at);
        }
        let record = NewRecord::wrap(Topic::Callbacks, &key, id, at, None, &callback);
        let (answer, kept) = oneshot::channel();
        let lost = |why: &str| Undelivered(why.to_owned());
        let kept = async {
            self.queue.send((record, answer)).await.map_err(|_| lost("stopped"))?;
            kept.await.map_err(|_| lost("stopped"))?
        };
        let _answered = self.unanswered.enter(Instant::now());
        tokio::time::timeout(PATIENCE, kept)
            .await
            .map_err(|_| lost("the bus does not answer"))?
    }
}

async fn append(log: Arc<dyn Log>, mut waiting: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(BATCH);
    // Refused since it went wrong: said once, and once more when it is over. There may be a thousand a second.
    let mut refused: Option<usize> = None;
    let mut last = 0;
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        if last >= MANY {
            gather(&mut waiting, &mut batch).await;
        }
        last = batch.len();
        // Whoever does not wait any more will bring it again.
        let (records, answers): (Vec<_>, Vec<_>) = batch.drain(..).filter(|(_, answer)| !answer.is_closed()).unzip();
        if records.is_empty() {
            continue;
        }
        let result = keep(&*log, records).await;
        match (&result, refused) {
            (Err(Undelivered(reason)), None) => {
                tracing::warn!(reason, "callbacks cannot be kept; their gateways will bring them again");
                refused = Some(answers.len());
            }
            (Err(_), Some(count)) => refused = Some(count + answers.len()),
            (Ok(()), Some(count)) => {
                tracing::info!(refused = count, "callbacks can be kept again");
                refused = None;
            }
            (Ok(()), None) => {}
        }
        for answer in answers {
            let _ = answer.send(result.clone());
        }
    }
}

/// Waits a little for more to append in one.
async fn gather(waiting: &mut mpsc::Receiver<Waiting>, batch: &mut Vec<Waiting>) {
    let until = Instant::now() + GATHER;
    while batch.len() < BATCH {
        match tokio::time::timeout_at(until, waiting.recv_many(batch, BATCH - batch.len())).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

async fn keep(log: &dyn Log, records: Vec<NewRecord>) -> Result<(), Undelivered> {
    let crashed = |_| Undelivered("a crash point".into());
    crash::point("callbacks-before-append").map_err(crashed)?;
    log.append(records)
        .await
        .map_err(|error| Undelivered(error.to_string()))?;
    crash::point("callbacks-after-append").map_err(crashed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_many_at_once_and_is_over_a_little_later() {
        let unanswered = Unanswered::new();
        let begun = unanswered.begun;
        let few: Vec<_> = (0..FLOOD).map(|_| unanswered.enter(begun)).collect();
        assert!(!unanswered.is_flooded(begun), "as many as that are none");
        let at = begun + Duration::from_secs(3);
        drop(unanswered.enter(at));
        drop(few);
        assert!(unanswered.is_flooded(at));
        assert!(unanswered.is_flooded(at + EBB - Duration::from_millis(1)));
        assert!(!unanswered.is_flooded(at + EBB));
        drop(unanswered.enter(at + EBB));
        assert!(!unanswered.is_flooded(at + EBB), "those before were answered");
    }

    #[tokio::test]
    async fn what_is_old_enough_is_put_off_no_longer() {
        let unanswered = Arc::new(Unanswered::new());
        // It does not end by itself.
        unanswered.flooded_at.store(u64::MAX - 1, Ordering::Relaxed);
        let edge = Edge(unanswered);
        let now = Timestamp::UNIX_EPOCH + PUT_OFF;
        edge.calm(Timestamp::UNIX_EPOCH, &Clock::fixed(now)).await;
        let late = now - SignedDuration::from_nanos(1);
        let clock = Clock::fixed(late);
        let calm = edge.calm(Timestamp::UNIX_EPOCH, &clock);
        assert!(tokio::time::timeout(LOOK, calm).await.is_err());
    }

    #[test]
    fn what_came_before_a_reply_is_put_off_for_less() {
        let unanswered = Unanswered::new();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(unanswered.put_off(at(0)), PUT_OFF);
        unanswered.heard(at(5));
        unanswered.heard(at(3));
        assert_eq!(unanswered.put_off(at(0)), PUT_OFF_BEFORE_REPLY);
        assert_eq!(unanswered.put_off(at(5)), PUT_OFF_BEFORE_REPLY, "it is among them");
        assert_eq!(unanswered.put_off(at(6)), PUT_OFF, "it came before them");
    }
}
