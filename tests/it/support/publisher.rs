//! An internal system that publishes orders over a gRPC stream and gives none of them up: what was not answered when the
//! stream broke is published again, under the same ids.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use domain::{Cause, MessageId};
use ingest::{
    convert::to_struct,
    proto::{Event, PublishRequest, event_service_client::EventServiceClient},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Request, transport::Channel};

use super::tamtam::KEY;

/// What the events say where they come from.
pub const SOURCE: &str = "stream";
/// Requests without an answer: at any moment at least one of them is under way.
const WINDOW: usize = 4;
/// Events a request, and the pause after an answer, while there is no burst.
const QUIET: (usize, Duration) = (10, Duration::from_millis(100));
const BURST: usize = 100;

pub struct Publisher {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    address: Mutex<String>,
    /// Contacts `c0` and on.
    people: u64,
    /// Events that are to go out without a pause.
    burst: AtomicUsize,
    acknowledged: AtomicU64,
    /// Events whose stream broke before their answer came.
    again: AtomicUsize,
    stop: CancellationToken,
}

impl Publisher {
    /// Publishes to `address` (`http://HOST:PORT`) until it is stopped.
    pub fn start(address: &str, people: usize) -> Publisher {
        let shared = Arc::new(Shared {
            address: Mutex::new(address.to_owned()),
            people: people as u64,
            burst: AtomicUsize::new(0),
            acknowledged: AtomicU64::new(0),
            again: AtomicUsize::new(0),
            stop: CancellationToken::new(),
        });
        let task = tokio::spawn(shared.clone().run());
        Publisher { shared, task }
    }

    /// Where to publish from now on.
    pub fn lead_to(&self, address: &str) {
        address.clone_into(&mut self.shared.address.lock().unwrap());
    }

    /// So many more events as fast as they are taken.
    pub fn burst(&self, events: usize) {
        self.shared.burst.fetch_add(events, Ordering::SeqCst);
    }

    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// How often an event was under way when its stream broke.
    pub fn again(&self) -> usize {
        self.shared.again.load(Ordering::SeqCst)
    }

    /// Ends it once everything is answered; how many events there were, each of them acknowledged.
    pub async fn stop(self) -> u64 {
        self.shared.stop.cancel();
        self.task.await.unwrap();
        self.shared.acknowledged.load(Ordering::SeqCst)
    }
}

/// The message that the trigger `thanks` sends for the event of this number.
pub fn message_id(number: u64, people: usize) -> MessageId {
    let cause = Cause::Trigger {
        trigger: "thanks".into(),
        event_source: SOURCE.into(),
        event_id: format!("s{number}"),
    };
    MessageId::derive(&cause, &format!("c{}", number % people as u64))
}

impl Shared {
    async fn run(self: Arc<Self>) {
        // Requests without an answer, the oldest first.
        let mut waiting: VecDeque<Range<u64>> = VecDeque::new();
        while !self.publish(&mut waiting).await {
            // The stream broke, or there is nobody at the moment.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One stream; whether it ended because all is done.
    async fn publish(&self, waiting: &mut VecDeque<Range<u64>>) -> bool {
        let address = self.address.lock().unwrap().clone();
        let Ok(channel) = Channel::from_shared(address).unwrap().connect().await else {
            return false;
        };
        let (requests, stream) = futures::channel::mpsc::unbounded();
        let mut call = Request::new(stream);
        call.metadata_mut()
            .insert("authorization", format!("Bearer {KEY}").parse().unwrap());
        for numbers in waiting.iter() {
            requests.unbounded_send(self.request(numbers)).unwrap();
        }
        let Ok(answers) = EventServiceClient::new(channel).publish_stream(call).await else {
            return false;
        };
        let mut answers = answers.into_inner();
        loop {
            let (size, pause) = match self.burst.load(Ordering::SeqCst) {
                0 => QUIET,
                _ => (BURST, Duration::ZERO),
            };
            while waiting.len() < WINDOW && !self.stop.is_cancelled() {
                let from = waiting
                    .back()
                    .map_or(self.acknowledged.load(Ordering::SeqCst), |last| last.end);
                let numbers = from..from + size as u64;
                // A stream that broke tells so at the next answer.
                let _ = requests.unbounded_send(self.request(&numbers));
                waiting.push_back(numbers);
                let less = |owed: usize| Some(owed.saturating_sub(size));
                let _ = self.burst.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
            }
            let Some(numbers) = waiting.front() else { return true };
            let Ok(Some(answer)) = answers.message().await else {
                let events: u64 = waiting.iter().map(|numbers| numbers.end - numbers.start).sum();
                self.again.fetch_add(usize::try_from(events).unwrap(), Ordering::SeqCst);
                return false;
            };
            assert_eq!(u64::from(answer.accepted), numbers.end - numbers.start, "{answer:?}");
            self.acknowledged.store(numbers.end, Ordering::SeqCst);
            waiting.pop_front();
            tokio::time::sleep(pause).await;
        }
    }

    fn request(&self, numbers: &Range<u64>) -> PublishRequest {
        let events = numbers.clone().map(|number| Event {
            id: format!("s{number}"),
            source: SOURCE.into(),
            r#type: "order.placed".into(),
            contact_id: format!("c{}", number % self.people),
            time: None,
            // No two texts to a phone are the same.
            data: Some(to_struct(serde_json::Map::from_iter([(
                "amount".to_owned(),
                serde_json::json!(number + 1),
            )]))),
        });
        PublishRequest {
            events: events.collect(),
        }
    }
}
