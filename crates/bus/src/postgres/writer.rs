//! Few writers a process: appends that wait while others are being written go together in the next statement, so that a
//! thousand callers with a record each share a commit instead of queueing for the head rows with one each. Two writers, so
//! that one prepares its statement while the other's is committed.
//!
//! A statement begins some milliseconds after the one before at the earliest: callers that come one after the other would
//! else have a commit each. A caller alone waits for nobody.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};

use super::{
    append::{self, STATEMENT_BYTES, STATEMENT_RECORDS, topics_of},
    catalog::Catalog,
    own::Own,
    wake::Wake,
};
use crate::{BusError, NewRecord};

const WRITERS: usize = 2;
/// Callers beyond this many wait for room.
const WAITING: usize = 1_024;
/// Between the beginnings of two statements, at least.
const PACE: Duration = Duration::from_millis(4);

#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Request>,
}

struct Request {
    records: Vec<NewRecord>,
    done: oneshot::Sender<Result<(), BusError>>,
}

impl Writer {
    /// They end, after what is under way, when the log is dropped.
    pub fn start(pool: PgPool, catalog: Arc<Catalog>, wake: Arc<Wake>) -> Writer {
        let (queue, requests) = mpsc::channel(WAITING);
        let requests = Arc::new(Mutex::new(Waiting {
            requests,
            from: Instant::now(),
        }));
        let connections = Connections::default();
        for _ in 0..WRITERS {
            tokio::spawn(write(
                pool.clone(),
                catalog.clone(),
                wake.clone(),
                requests.clone(),
                connections.clone(),
            ));
        }
        Writer { queue }
    }

    pub async fn append(&self, records: Vec<NewRecord>) -> Result<(), BusError> {
        let (done, answer) = oneshot::channel();
        let gone = || BusError::Postgres(sqlx::Error::WorkerCrashed);
        self.queue.send(Request { records, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

type Requests = Arc<Mutex<Waiting>>;

struct Waiting {
    requests: mpsc::Receiver<Request>,
    /// When the next statement may begin.
    from: Instant,
}

/// Connections that no writer uses, the one that was used last on top: as long as the writers do not work at the same time
/// they use the same one, whose process is quicker for having just run.
type Connections = Arc<std::sync::Mutex<Vec<Own>>>;

async fn write(pool: PgPool, catalog: Arc<Catalog>, wake: Arc<Wake>, requests: Requests, connections: Connections) {
    let idle = || connections.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let Some(waiting) = gather(&requests).await else {
            return;
        };
        let last = idle().pop();
        let mut own = last.unwrap_or_else(|| Own::new(pool.clone()));
        write_all(&mut own, &catalog, &wake, waiting).await;
        idle().push(own);
    }
}

async fn write_all(own: &mut Own, catalog: &Catalog, wake: &Wake, waiting: Vec<Request>) {
    let mut records = Vec::new();
    let mut callers = Vec::new();
    for request in waiting {
        // One caller's mistake is its own.
        match known(catalog, &request.records).await {
            Ok(()) => {
                callers.push((request.records.len(), request.done));
                records.extend(request.records);
            }
            Err(error) => {
                let _ = request.done.send(Err(error));
            }
        }
    }
    if records.is_empty() {
        return;
    }
    let done = append_on(own, catalog, &records).await;
    // After an error too: the first statements of several may have been committed.
    wake.appended(&catalog.partitions_of(&records));
    if let Err(error) = done {
        if callers.len() == 1 {
            if let Some((_, caller)) = callers.pop() {
                let _ = caller.send(Err(error));
            }
            return;
        }
        // Each gets an answer of its own.
        let mut rest = &records[..];
        for (count, caller) in callers {
            let (first, after) = rest.split_at(count);
            rest = after;
            let _ = caller.send(append_on(own, catalog, first).await);
        }
        wake.appended(&catalog.partitions_of(&records));
        return;
    }
    for (_, caller) in callers {
        let _ = caller.send(Ok(()));
    }
}

/// The next request and those that wait behind it, as many as go in one statement.
async fn gather(requests: &Requests) -> Option<Vec<Request>> {
    let mut guard = requests.lock().await;
    let Waiting { requests, from } = &mut *guard;
    let mut waiting = vec![requests.recv().await?];
    tokio::time::sleep_until(*from).await;
    *from = Instant::now() + PACE;
    let (mut records, mut bytes) = (0, 0);
    loop {
        let last = waiting.last()?;
        records += last.records.len();
        bytes += last.records.iter().map(NewRecord::size).sum::<usize>();
        if records >= STATEMENT_RECORDS || bytes >= STATEMENT_BYTES {
            return Some(waiting);
        }
        match requests.try_recv() {
            Ok(request) => waiting.push(request),
            Err(_) => return Some(waiting),
        }
    }
}

async fn known(catalog: &Catalog, records: &[NewRecord]) -> Result<(), BusError> {
    for topic in topics_of(records) {
        catalog.known(topic).await?;
    }
    Ok(())
}

async fn append_on(own: &mut Own, catalog: &Catalog, records: &[NewRecord]) -> Result<(), BusError> {
    let connection = own.get().await.map_err(BusError::Postgres)?;
    let done = append::append(catalog, connection, records).await;
    if done.is_err() {
        own.leave();
    }
    done
}
