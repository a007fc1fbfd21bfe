//! `EventService`. A stream is pipelined: while one append is under way the next requests are read and checked, and what
//! has gathered by then goes into the next append together, so a stream of small batches costs as few appends as the bus
//! needs. Requests stay in their order, and with them each contact's events.

use std::pin::Pin;

use api::{
    Api,
    events::{Checked, ItemError, NewEvent},
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    convert::{Json, from_timestamp},
    guard::{caller, trace},
    proto::{self, EventResult, PublishRequest, PublishResponse, event_service_server::EventService},
    status::status,
};

/// Requests that wait, checked, for the append under way: what bounds a stream's memory (with 16 MiB each at worst).
const WAITING: usize = 16;

#[derive(Debug)]
pub(crate) struct Events {
    pub api: Api,
    pub shutdown: CancellationToken,
}

#[tonic::async_trait]
impl EventService for Events {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let (caller, trace) = (caller(&request)?, trace(&request));
        let items = request.into_inner().events.into_iter().map(read).collect();
        let results = self
            .api
            .events_publish(&caller, items, trace.as_deref())
            .await
            .map_err(status)?;
        Ok(Response::new(answer(results)))
    }

    type PublishStreamStream = Pin<Box<dyn Stream<Item = Result<PublishResponse, Status>> + Send>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let (caller, trace) = (caller(&request)?, trace(&request));
        // Refused at once, not at the first batch.
        self.api.events_check(&caller, Vec::new(), None).map_err(status)?;
        let mut requests = request.into_inner();
        let (checked, waiting) = mpsc::channel::<Result<Checked, Status>>(WAITING);
        let (answers, answered) = mpsc::channel(WAITING);
        let (api, shutdown) = (self.api.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = requests.next() => next,
                    () = shutdown.cancelled() => {
                        let stopping = "the server is stopping: publish what was not answered again";
                        let _ = checked.send(Err(Status::unavailable(stopping))).await;
                        return;
                    }
                };
                let batch = match next {
                    None => return,
                    Some(Err(broken)) => Err(broken),
                    Some(Ok(request)) => {
                        let items = request.events.into_iter().map(read).collect();
                        api.events_check(&caller, items, trace.as_deref()).map_err(status)
                    }
                };
                let last = batch.is_err();
                // The other half has ended when the caller went away.
                if checked.send(batch).await.is_err() || last {
                    return;
                }
            }
        });
        tokio::spawn(append(self.api.clone(), waiting, answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(answered))))
    }
}

/// The second half of a stream: appends what has gathered, answers each request in order, ends at the first error.
async fn append(
    api: Api,
    mut waiting: mpsc::Receiver<Result<Checked, Status>>,
    answers: mpsc::Sender<Result<PublishResponse, Status>>,
) {
    let mut gathered = Vec::with_capacity(WAITING);
    while waiting.recv_many(&mut gathered, WAITING).await > 0 {
        let mut records = Vec::new();
        let mut results = Vec::with_capacity(gathered.len());
        let mut end = None;
        for batch in gathered.drain(..) {
            match batch {
                Ok(mut batch) => {
                    records.append(&mut batch.records);
                    results.push(batch.results);
                }
                Err(error) => end = Some(error),
            }
        }
        if let Err(error) = api.events_append(records).await {
            let _ = answers.send(Err(status(error))).await;
            return;
        }
        for results in results {
            if answers.send(Ok(answer(results))).await.is_err() {
                return;
            }
        }
        if let Some(error) = end {
            let _ = answers.send(Err(error)).await;
            return;
        }
    }
}

fn read(event: proto::Event) -> Result<NewEvent, ItemError> {
    let time = match event.time {
        None => None,
        Some(time) => Some(from_timestamp(time).ok_or_else(|| {
            ItemError::new(
                "out_of_range",
                "time",
                "no instant: expected a time from 1970-01-01 up to a day from now",
            )
        })?),
    };
    let data = match &event.data {
        None => Vec::new(),
        Some(data) => serde_json::to_vec(&Json(data)).map_err(|_| {
            ItemError::new(
                "bad_value",
                "data",
                "a number that is not finite: expected finite numbers",
            )
        })?,
    };
    Ok(NewEvent {
        id: event.id,
        source: event.source,
        kind: event.r#type,
        contact_id: event.contact_id,
        time,
        data,
    })
}

fn answer(results: Vec<Result<(), ItemError>>) -> PublishResponse {
    let rejected = results.iter().filter(|result| result.is_err()).count();
    PublishResponse {
        accepted: (results.len() - rejected) as u32,
        rejected: rejected as u32,
        results: results
            .into_iter()
            .map(|result| EventResult {
                error: result.err().map(item_error),
            })
            .collect(),
    }
}

pub(crate) fn item_error(error: ItemError) -> proto::ItemError {
    proto::ItemError {
        code: error.code.into(),
        field: error.field.into(),
        message: error.message,
    }
}
