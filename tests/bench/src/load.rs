//! Events over gRPC, as an internal system publishes them: as fast as allowed, or at a rate.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ingest::proto::{Event, PublishRequest, event_service_client::EventServiceClient};
use prost_types::{Struct, Value, value::Kind};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, transport::Channel};

use crate::stand::KEY;

/// Requests that may wait for their answers.
const WINDOW: usize = 16;

/// One stream of events to one address.
#[derive(Debug)]
pub struct Load {
    requests: mpsc::Sender<PublishRequest>,
    answered: Arc<AtomicU64>,
    reader: tokio::task::JoinHandle<Result<()>>,
    next: u64,
    contacts: u64,
}

impl Load {
    /// `first`: the number of the first event, so that no two loads on an installation publish the same.
    pub async fn connect(grpc: &str, contacts: u64, first: u64) -> Result<Load> {
        let channel = Channel::from_shared(grpc.to_owned())?.connect().await?;
        let (requests, waiting) = mpsc::channel(WINDOW);
        let mut request = Request::new(ReceiverStream::new(waiting));
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {KEY}").parse()?);
        let answered = Arc::new(AtomicU64::new(0));
        let count = answered.clone();
        let reader = tokio::spawn(async move {
            let mut client = EventServiceClient::new(channel);
            let mut answers = client.publish_stream(request).await?.into_inner();
            while let Some(answer) = answers.next().await {
                let answer = answer?;
                ensure!(answer.rejected == 0, "{} events were rejected", answer.rejected);
                count.fetch_add(u64::from(answer.accepted), Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Load {
            requests,
            answered,
            reader,
            next: first,
            contacts,
        })
    }

    /// Sends so many events in one request; waits while too many requests are unanswered.
    pub async fn send(&mut self, count: u64) -> Result<()> {
        let sent = jiff::Timestamp::now().as_millisecond();
        let events = (self.next..self.next + count)
            .map(|number| event(number, self.contacts, sent))
            .collect();
        self.next += count;
        let sent = self.requests.send(PublishRequest { events }).await;
        sent.ok().context("the stream of events ended")
    }

    /// So many events a second for so long, in steps of 5 ms.
    pub async fn at_rate(&mut self, rate: f64, period: Duration) -> Result<u64> {
        let begun = Instant::now();
        let mut step = tokio::time::interval(Duration::from_millis(5));
        let mut published = 0;
        while begun.elapsed() < period {
            step.tick().await;
            let due = (begun.elapsed().as_secs_f64() * rate) as u64;
            if due > published {
                self.send(due - published).await?;
                published = due;
            }
        }
        Ok(published)
    }

    /// Waits for the last answer.
    pub async fn finish(self) -> Result<u64> {
        drop(self.requests);
        self.reader.await??;
        Ok(self.answered.load(Ordering::Relaxed))
    }
}

/// An order of one of `contacts` contacts. About 250 bytes with its envelope on the bus.
pub fn event(number: u64, contacts: u64, sent: i64) -> Event {
    let fields = [("amount", 12.5), ("number", number as f64), ("sent", sent as f64)];
    let data: BTreeMap<String, Value> = fields
        .into_iter()
        .map(|(name, value)| {
            let kind = Some(Kind::NumberValue(value));
            (name.to_owned(), Value { kind })
        })
        .collect();
    Event {
        id: format!("o{number}"),
        source: "bench".into(),
        r#type: "order.placed".into(),
        contact_id: format!("c{}", number % contacts),
        time: None,
        data: Some(Struct { fields: data }),
    }
}

/// When the order that a text is about was published, in ms since 1970.
pub fn sent_ms(text: &str) -> Option<i64> {
    text.split(" du ").nth(1)?.split(':').next()?.parse().ok()
}
