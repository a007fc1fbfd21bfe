//! Callbacks onto the bus, many at a time: requests that come together share one append, and each is answered after it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
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
use stage::{Live, crash};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::flood::Flood;

/// In one append.
const BATCH: usize = 500;
/// Waiting; more wait at their own connections.
const QUEUE: usize = 2_000;
/// After this the gateway is told to bring it again: it will give up on us about then anyway.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where as many came together the last time, there are more to come: a few records cost an append as much as many.
const MANY: usize = 16;
/// How long they are waited for.
const GATHER: Duration = Duration::from_millis(10);

type Waiting = (NewRecord, oneshot::Sender<Result<(), Undelivered>>);

/// The way onto `callbacks`. Cheap to clone; it ends when the last clone is gone.
#[derive(Clone, Debug)]
pub(crate) struct Appender {
    queue: mpsc::Sender<Waiting>,
    flood: Arc<Flood>,
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
            flood: Arc::default(),
            ids: Arc::new(Ids {
                prefix: rand::random(),
                next: AtomicU64::new(0),
            }),
            live,
            phone_key,
        }
    }

    /// For who should make way.
    pub(crate) fn flood(&self) -> Arc<Flood> {
        self.flood.clone()
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
            self.flood.note_reply(at);
        }
        let record = NewRecord::wrap(Topic::Callbacks, &key, id, at, None, &callback);
        let (answer, kept) = oneshot::channel();
        let lost = |why: &str| Undelivered(why.to_owned());
        let kept = async {
            self.queue.send((record, answer)).await.map_err(|_| lost("stopped"))?;
            kept.await.map_err(|_| lost("stopped"))?
        };
        let _answered = self.flood.enter(Instant::now());
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
