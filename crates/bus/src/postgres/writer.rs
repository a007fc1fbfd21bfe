//! One writer a process: appends that wait while another is being written go together in the next statement, so that a
//! thousand callers with a record each share a commit instead of queueing for the head rows with one each. A caller alone
//! waits for nobody.

use std::sync::Arc;

use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};

use super::{
    append::{self, STATEMENT_BYTES, STATEMENT_RECORDS, topics_of},
    catalog::Catalog,
    wake::Wake,
};
use crate::{BusError, NewRecord};

/// Callers beyond this many wait for room.
const WAITING: usize = 1_024;

#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Request>,
}

struct Request {
    records: Vec<NewRecord>,
    done: oneshot::Sender<Result<(), BusError>>,
}

impl Writer {
    /// It ends, after what is under way, when the log is dropped.
    pub fn start(pool: PgPool, catalog: Arc<Catalog>, wake: Arc<Wake>) -> Writer {
        let (queue, requests) = mpsc::channel(WAITING);
        tokio::spawn(write(pool, catalog, wake, requests));
        Writer { queue }
    }

    pub async fn append(&self, records: Vec<NewRecord>) -> Result<(), BusError> {
        let (done, answer) = oneshot::channel();
        let gone = || BusError::Postgres(sqlx::Error::WorkerCrashed);
        self.queue.send(Request { records, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn write(pool: PgPool, catalog: Arc<Catalog>, wake: Arc<Wake>, mut requests: mpsc::Receiver<Request>) {
    while let Some(first) = requests.recv().await {
        let mut records = Vec::new();
        let mut callers = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(request) = next {
            // One caller's mistake is its own.
            match known(&catalog, &request.records).await {
                Ok(()) => {
                    bytes += request.records.iter().map(NewRecord::size).sum::<usize>();
                    callers.push((request.records.len(), request.done));
                    records.extend(request.records);
                }
                Err(error) => {
                    let _ = request.done.send(Err(error));
                }
            }
            let room = records.len() < STATEMENT_RECORDS && bytes < STATEMENT_BYTES;
            next = if room { requests.try_recv().ok() } else { None };
        }
        if records.is_empty() {
            continue;
        }
        let done = append_on(&pool, &catalog, &records).await;
        // After an error too: the first statements of several may have been committed.
        wake.appended(&topics_of(&records));
        if let Err(error) = done {
            if callers.len() == 1 {
                if let Some((_, caller)) = callers.pop() {
                    let _ = caller.send(Err(error));
                }
                continue;
            }
            // Each gets an answer of its own.
            let mut rest = &records[..];
            for (count, caller) in callers {
                let (own, after) = rest.split_at(count);
                rest = after;
                let _ = caller.send(append_on(&pool, &catalog, own).await);
            }
            wake.appended(&topics_of(&records));
            continue;
        }
        for (_, caller) in callers {
            let _ = caller.send(Ok(()));
        }
    }
}

async fn known(catalog: &Catalog, records: &[NewRecord]) -> Result<(), BusError> {
    for topic in topics_of(records) {
        catalog.known(topic).await?;
    }
    Ok(())
}

async fn append_on(pool: &PgPool, catalog: &Catalog, records: &[NewRecord]) -> Result<(), BusError> {
    let mut connection = pool.acquire().await.map_err(BusError::Postgres)?;
    append::append(catalog, &mut connection, records).await
}
