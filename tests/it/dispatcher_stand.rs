//! A dispatcher in a runtime of its own, which can be killed, before gateways that the test plays.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ::bus::{Log, NewRecord, Partition, ReadLimits, StoredRecord};
use dispatcher::Opener;
use domain::{Cause, Class, MessageId, Phone, phone::PhoneKey};
use events::{Outbound, Receipt, Record, Topic};
use gateways::{Gateway, GatewayError, Outcome, Submission};
use jiff::{SignedDuration, Timestamp};
use resources::Gateway as Resource;
use stage::{Clock, Live};
use store::{Store, messages::MessageRow};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{bus, database, resources::apply, tamtam::Installation};

type Behave = Box<dyn Fn(&Submission, usize) -> Outcome + Send + Sync>;

/// A gateway that does what the test says.
pub struct Fake {
    pub up: AtomicBool,
    /// While set, submissions are kept waiting.
    pub hangs: AtomicBool,
    pub delay: Mutex<Duration>,
    /// Until then it keeps to itself what it gets, as an adapter that was throttled does.
    pub pauses_until: Mutex<Option<Instant>>,
    behave: Mutex<Behave>,
    pub submitted: Mutex<Vec<Sent>>,
    pub in_flight: AtomicUsize,
    pub most_in_flight: AtomicUsize,
    next_id: AtomicUsize,
    pub closed: AtomicUsize,
}

#[derive(Clone, Debug)]
pub struct Sent {
    pub reference: Uuid,
    pub parts: u32,
    pub at: Instant,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        Arc::new(Fake {
            up: AtomicBool::new(true),
            hangs: AtomicBool::new(false),
            delay: Mutex::new(Duration::ZERO),
            pauses_until: Mutex::default(),
            behave: Mutex::new(Box::new(accept)),
            submitted: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            next_id: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
        })
    }

    pub fn behaves(&self, behave: impl Fn(&Submission, usize) -> Outcome + Send + Sync + 'static) {
        *self.behave.lock().unwrap() = Box::new(behave);
    }

    pub fn sent(&self) -> Vec<Sent> {
        self.submitted.lock().unwrap().clone()
    }

    /// How often each message was submitted.
    pub fn times(&self) -> HashMap<Uuid, usize> {
        let mut times = HashMap::new();
        for sent in self.submitted.lock().unwrap().iter() {
            *times.entry(sent.reference).or_default() += 1;
        }
        times
    }
}

/// What a gateway in order says: an id for each part.
pub fn accept(submission: &Submission, number: usize) -> Outcome {
    Outcome::Accepted {
        parts: (0..submission.parts).map(|part| format!("{number:x}-{part}")).collect(),
    }
}

#[async_trait::async_trait]
impl Gateway for Fake {
    async fn submit(&self, message: Submission) -> Outcome {
        let number = self.next_id.fetch_add(1, Ordering::SeqCst) + 1;
        self.submitted.lock().unwrap().push(Sent {
            reference: message.reference,
            parts: u32::from(message.parts),
            at: Instant::now(),
        });
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(now, Ordering::SeqCst);
        let delay = *self.delay.lock().unwrap();
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        while self.hangs.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        (self.behave.lock().unwrap())(&message, number)
    }

    fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    fn pause(&self) -> Option<Duration> {
        let until = (*self.pauses_until.lock().unwrap())?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    async fn close(&self) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

struct Fakes(HashMap<String, Arc<Fake>>);

impl Opener for Fakes {
    fn open(&self, resource: &Resource) -> Result<Arc<dyn Gateway>, GatewayError> {
        Ok(self.0[&resource.name].clone())
    }
}

/// A database, a bus, gateways and the time.
pub struct Stand {
    pub store: Store,
    pub log: Arc<dyn Log>,
    pub key: PhoneKey,
    pub fakes: HashMap<String, Arc<Fake>>,
    url: String,
    bus: bus::TestBus,
    ahead: Arc<AtomicI64>,
}

impl Stand {
    /// With these gateways in the resources.
    pub async fn new(resources: &str) -> Stand {
        let url = database::empty_database().await;
        let store = Store::connect(&url, 10, Duration::from_secs(10)).await.unwrap();
        store.migrate().await.unwrap();
        let bus = bus::start(&store).await;
        let mut stand = Stand {
            key: store.phone_key().await.unwrap(),
            log: bus.log.clone(),
            bus,
            store,
            url,
            fakes: HashMap::new(),
            ahead: Arc::default(),
        };
        for resource in stand.apply(resources).await {
            stand.fakes.insert(resource, Fake::new());
        }
        stand
    }

    /// Applies resources; the names of the gateways among them.
    pub async fn apply(&self, resources: &str) -> Vec<String> {
        let rows = apply(&self.store, resources).await;
        rows.into_iter()
            .filter(|row| row.0 == "gateway")
            .map(|row| row.1)
            .collect()
    }

    pub fn fake(&self, name: &str) -> Arc<Fake> {
        self.fakes[name].clone()
    }

    pub fn clock(&self) -> Clock {
        let ahead = self.ahead.clone();
        Clock::from_fn(move || Timestamp::now() + SignedDuration::from_secs(ahead.load(Ordering::SeqCst)))
    }

    /// Lets time pass.
    pub fn pass(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
    }

    /// What a process of its own needs to work on this database and bus.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut installation = Installation::bare();
        installation
            .environment
            .insert("TAMTAM__DATABASE__URL".into(), self.url.clone());
        if let Some(kafka) = &self.bus.kafka {
            installation.on_kafka(kafka.clone());
        }
        installation.environment.into_iter().collect()
    }

    /// A dispatcher as its own process would be: own runtime, own connections, own instance.
    pub fn start(&self) -> Dispatcher {
        self.start_before(Some(Arc::new(Fakes(self.fakes.clone()))))
    }

    /// The same before the gateways that its resources name.
    pub fn start_real(&self) -> Dispatcher {
        self.start_before(None)
    }

    fn start_before(&self, opener: Option<Arc<dyn Opener>>) -> Dispatcher {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let shutdown = CancellationToken::new();
        let (url, kafka) = (self.url.clone(), self.bus.kafka.clone());
        let (clock, key) = (self.clock(), self.key.clone());
        let stop = shutdown.clone();
        let done = runtime.spawn(async move {
            let store = Store::connect(&url, 10, Duration::from_secs(10)).await.unwrap();
            let config = match kafka {
                Some(kafka) => ::bus::BusConfig::Kafka(kafka),
                None => ::bus::BusConfig::Postgres(::bus::PostgresConfig {
                    pool: store.pool().clone(),
                }),
            };
            let log = ::bus::open(config).await.unwrap();
            let live = Live::start(store.clone(), stop.clone()).await.unwrap();
            let config = dispatcher::Config {
                log: log.clone(),
                store: store.clone(),
                live,
                clock: clock.clone(),
                phone_key: key,
                instance: instance(),
                secrets: Arc::new(|_| None),
                limits: dispatcher::Limits::default(),
                batch_records: 500,
                drain: Duration::from_secs(20),
            };
            tokio::spawn(stage::deferred::pump(log, store, clock, stop.clone()));
            match opener {
                Some(opener) => dispatcher::run_with(config, opener, stop).await,
                None => dispatcher::run(config, stop).await,
            }
        });
        Dispatcher {
            runtime: Some(runtime),
            shutdown,
            done: Some(done),
        }
    }

    pub async fn append(&self, records: &[Outbound]) {
        let now = Timestamp::now();
        let records = records
            .iter()
            .map(|record| {
                let id = record.message_id.to_string();
                NewRecord::wrap(topic(record.class), &record.contact_id, id, now, None, record)
            })
            .collect();
        self.log.append(records).await.unwrap();
    }

    pub async fn row(&self, record: &Outbound) -> Option<MessageRow> {
        self.store.message_get(record.message_id).await.unwrap()
    }

    /// Waits until each of these messages is where `there` wants it.
    pub async fn until(&self, records: &[Outbound], there: impl Fn(&MessageRow) -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        for record in records {
            loop {
                let row = self.row(record).await;
                if row.as_ref().is_some_and(&there) {
                    break;
                }
                assert!(
                    Instant::now() < until,
                    "{:?}",
                    row.map(|row| (row.state, row.reason, row.attempt, row.gateway))
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Waits until the group has committed everything on both topics.
    pub async fn until_committed(&self) {
        let topics = [Topic::OutboundTransactional, Topic::OutboundBulk];
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            // A group that has just been made is not found at once.
            let behind = match self.log.lag(dispatcher::GROUP, &topics).await {
                Ok(lags) => lags.iter().map(|lag| lag.end - lag.committed).sum(),
                Err(error) if error.is_transient() => i64::MAX,
                Err(error) => panic!("{error}"),
            };
            if behind == 0 {
                return;
            }
            assert!(Instant::now() < until, "{behind} records are not committed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything on a topic.
    pub async fn all(&self, topic: Topic) -> Vec<StoredRecord> {
        let mut all = Vec::new();
        for bounds in self.log.bounds(topic).await.unwrap() {
            let mut from = bounds.first;
            while from < bounds.end {
                let limits = ReadLimits {
                    records: 1_000,
                    bytes: 8 << 20,
                    wait: Duration::from_secs(1),
                };
                let records = self.log.read(bounds.partition, from, limits).await.unwrap();
                let Some(last) = records.last() else { break };
                from = last.offset + 1;
                all.extend(records);
            }
        }
        all
    }

    /// Where a message's record is on a topic.
    pub async fn place(&self, topic: Topic, message: Uuid) -> (Partition, i64) {
        for bounds in self.log.bounds(topic).await.unwrap() {
            let limits = ReadLimits {
                records: 10_000,
                bytes: 64 << 20,
                wait: Duration::ZERO,
            };
            let records = self.log.read(bounds.partition, bounds.first, limits).await.unwrap();
            let is_it = |record: &&StoredRecord| {
                Outbound::from_bytes(Outbound::KIND, &record.value).is_ok_and(|text| text.message_id == message)
            };
            if let Some(record) = records.iter().find(is_it) {
                return (bounds.partition, record.offset);
            }
        }
        panic!("{message} is nowhere on {topic}");
    }

    pub async fn receipts(&self) -> Vec<Receipt> {
        self.all(Topic::Receipts)
            .await
            .iter()
            .map(|record| Receipt::from_bytes(Receipt::KIND, &record.value).unwrap())
            .collect()
    }
}

/// A new one with each start.
fn instance() -> Uuid {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    Uuid::from_u128(0x7A37_0000 + NEXT.fetch_add(1, Ordering::SeqCst) as u128)
}

pub fn topic(class: Class) -> Topic {
    match class {
        Class::Transactional => Topic::OutboundTransactional,
        Class::Marketing => Topic::OutboundBulk,
    }
}

/// A dispatcher that runs.
pub struct Dispatcher {
    runtime: Option<tokio::runtime::Runtime>,
    shutdown: CancellationToken,
    done: Option<tokio::task::JoinHandle<Result<(), dispatcher::Error>>>,
}

impl Dispatcher {
    /// As SIGTERM does.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        self.done.take().unwrap().await.unwrap().unwrap();
    }

    /// As SIGKILL does: nothing more is awaited, connections are cut.
    pub fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub fn outbound(number: usize, class: Class) -> Outbound {
    let contact_id = format!("contact-{number}");
    let cause = Cause::Direct {
        idempotency_key: format!("{class}-{number}"),
    };
    made(contact_id, cause, class, number)
}

pub fn of_campaign(number: usize, campaign: Uuid) -> Outbound {
    let cause = Cause::Campaign {
        campaign_id: campaign.to_string(),
    };
    made(format!("contact-{number}"), cause, Class::Marketing, number)
}

fn made(contact_id: String, cause: Cause, class: Class, number: usize) -> Outbound {
    let now = Timestamp::now();
    Outbound {
        message_id: MessageId::derive(&cause, &contact_id).0,
        contact_id,
        cause,
        class,
        phone: Phone::from_e164(format!("+262692{number:06}")),
        sender: "BOUTIQUE".into(),
        text: "Bonjour".into(),
        encoding: "GSM-7".into(),
        parts: 1,
        template: "t".into(),
        variant: None,
        language: None,
        time_zone: None,
        caused_at: now,
        planned_at: now,
        rendered_at: now,
        deadline: None,
        cost_micros: 40_000,
        attempt: 0,
        purpose: None,
    }
}

/// Waits for something that comes.
pub async fn eventually(what: &str, mut there: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !there() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The most parts within any such window.
pub fn most_within(window: Duration, sent: &[Sent]) -> u32 {
    let mut sent: Vec<&Sent> = sent.iter().collect();
    sent.sort_by_key(|sent| sent.at);
    (0..sent.len())
        .map(|first| {
            sent[first..]
                .iter()
                .take_while(|one| one.at < sent[first].at + window)
                .map(|one| one.parts)
                .sum()
        })
        .max()
        .unwrap_or(0)
}
