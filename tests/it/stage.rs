//! The runner of steps, on a real bus and a real database.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ::bus::{
    Bounds, BusError, Consumer, Lag, Log, NewRecord, Partition, ReadLimits, StoredRecord, TopicSettings,
    TransactionalLog,
};
use async_trait::async_trait;
use events::{DeadLetter, Envelope, Record as _, Topic};
use stage::{Clock, Input, Output, Runner, RunnerConfig, Step, StepError};
use store::{Store, StoreError, Tx};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{bus, database::database};

/// Waits until `done` says so.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let until = Instant::now() + Duration::from_secs(60);
    while !done().await {
        assert!(Instant::now() < until, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// All records of a topic, by partition.
pub async fn records(log: &dyn Log, topic: Topic) -> Vec<StoredRecord> {
    let mut all = Vec::new();
    for bounds in log.bounds(topic).await.unwrap() {
        let mut from = bounds.first;
        while from < bounds.end {
            let limits = ReadLimits {
                records: 10_000,
                bytes: 64 << 20,
                wait: Duration::from_secs(5),
            };
            let read = log.read(bounds.partition, from, limits).await.unwrap();
            assert!(!read.is_empty(), "a record that is there cannot be read");
            from = read.last().unwrap().offset + 1;
            all.extend(read);
        }
    }
    all
}

pub fn id_of(record: &StoredRecord) -> String {
    Envelope::from_headers(&record.headers).unwrap().id
}

pub fn event(id: &str, contact: &str, kind: &str, value: &[u8]) -> NewRecord {
    let envelope = Envelope {
        id: id.into(),
        source: "shop".into(),
        kind: kind.into(),
        time: Some(jiff::Timestamp::now()),
        subject: Some(contact.into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
    };
    NewRecord {
        topic: Topic::Events,
        key: contact.into(),
        headers: envelope.into_headers(),
        value: value.to_vec(),
    }
}

fn ten_events() -> Vec<NewRecord> {
    (0..10)
        .map(|number| event(&format!("e{number}"), "42", "t", b"{}"))
        .collect()
}

fn config() -> RunnerConfig {
    RunnerConfig {
        retry_min: Duration::from_millis(10),
        retry_max: Duration::from_millis(100),
        ..RunnerConfig::default()
    }
}

/// Emits one job for each event, and does what an event's data says.
#[derive(Clone, Default)]
struct Echo {
    seen: Arc<Mutex<Vec<String>>>,
    transient: Arc<AtomicUsize>,
    /// A batch with an event that says `stuck` is not possible now.
    stuck: Arc<AtomicBool>,
    /// Where there is one, a batch needs a permit to go on.
    gate: Option<Arc<Semaphore>>,
    entered: Arc<AtomicUsize>,
    /// Where there is one, a batch makes way until it has a permit.
    way: Option<Arc<Semaphore>>,
    made_way: Arc<AtomicUsize>,
}

#[async_trait]
impl Step for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn topics(&self) -> &'static [Topic] {
        &[Topic::Events]
    }

    async fn make_way(&self, _: &[&Input]) {
        self.made_way.fetch_add(1, Ordering::SeqCst);
        if let Some(way) = &self.way {
            way.acquire().await.unwrap().forget();
        }
    }

    async fn run(&self, _topic: Topic, batch: &[&Input], tx: &mut Tx) -> Result<Output, StepError> {
        self.entered.fetch_add(1, Ordering::SeqCst);
        // A statement, so that the transaction is a real one.
        tx.deferred_take_due(jiff::Timestamp::UNIX_EPOCH, 1).await?;
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        if self.transient.load(Ordering::SeqCst) > 0 {
            self.transient.fetch_sub(1, Ordering::SeqCst);
            return Err(StepError::Transient("try again".into()));
        }
        if self.stuck.load(Ordering::SeqCst) && batch.iter().any(|input| input.value == b"stuck") {
            return Err(StepError::Transient("stuck".into()));
        }
        let mut output = Output::default();
        for (place, input) in batch.iter().copied().enumerate() {
            match input.value.as_slice() {
                b"refused" => return Err(StoreError::Corrupt("as the test asked".into()).into()),
                b"panic" => panic!("as the test asked"),
                b"dead" => output.dead.push((place, "the step said so".into())),
                b"large" => output.emit.push(NewRecord {
                    value: vec![b'x'; 2 << 20],
                    ..job(input)
                }),
                _ => output.emit.push(job(input)),
            }
        }
        self.seen
            .lock()
            .unwrap()
            .extend(batch.iter().map(|input| input.envelope.id.clone()));
        Ok(output)
    }
}

fn job(input: &Input) -> NewRecord {
    let envelope = Envelope {
        kind: "tamtam.job.v1".into(),
        id: format!("job-{}", input.envelope.id),
        ..input.envelope.clone()
    };
    NewRecord {
        topic: Topic::Jobs,
        key: input.key.clone(),
        headers: envelope.into_headers(),
        value: input.value.clone(),
    }
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(step: Echo, log: Arc<dyn Log>, store: &Store, config: RunnerConfig) -> Running {
        let stop = CancellationToken::new();
        let runner = Runner::new(step, log, store.clone(), Clock::system(), config);
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { runner.run(stop).await.unwrap() }
        });
        Running { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn caught_up(log: &dyn Log) -> bool {
    let lags = log.lag("echo", &[Topic::Events]).await.unwrap();
    lags.iter().all(|lag| lag.committed >= lag.end)
}

async fn job_ids(log: &dyn Log) -> Vec<String> {
    records(log, Topic::Jobs).await.iter().map(id_of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_records_at_fault_become_dead_letters() {
    let store = database().await;
    let log = bus::log(&store).await;
    let mut events: Vec<NewRecord> = (0..40)
        .map(|number| {
            let value: &[u8] = match number {
                7 => b"refused",
                8 => b"panic",
                20 => b"dead",
                31 => b"large",
                _ => b"{}",
            };
            event(&format!("e{number:02}"), "42", "order.placed", value)
        })
        .collect();
    // Without an envelope.
    events[25].headers.clear();
    log.append(events).await.unwrap();

    let running = Running::start(Echo::default(), log.clone(), &store, config());
    eventually("all are done", || caught_up(&*log)).await;
    running.stop().await;

    let good: Vec<String> = (0..40)
        .filter(|number| ![7, 8, 20, 25, 31].contains(number))
        .map(|number| format!("job-e{number:02}"))
        .collect();
    let jobs = job_ids(&*log).await;
    let distinct: BTreeSet<String> = jobs.iter().cloned().collect();
    assert_eq!(distinct, good.iter().cloned().collect::<BTreeSet<_>>());
    if !bus::is_kafka() {
        assert_eq!(jobs, good, "each once and in order");
    }
    let letters: BTreeMap<i64, DeadLetter> = records(&*log, Topic::DeadLetters)
        .await
        .iter()
        .map(|record| DeadLetter::from_bytes(DeadLetter::KIND, &record.value).unwrap())
        .map(|letter| (letter.offset, letter))
        .collect();
    let reasons: Vec<&str> = letters.values().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(letters.len(), 5, "{reasons:?}");
    for (reason, expected) in reasons.iter().zip([
        "as the test asked",
        "mistake of ours",
        "step said so",
        "ce_specversion",
        "over the limit",
    ]) {
        assert!(reason.contains(expected), "{reason}");
    }
    let letter = letters.values().next().unwrap();
    assert_eq!(
        (letter.stage.as_str(), letter.topic.as_str(), letter.key.as_str()),
        ("echo", "events", "42")
    );
    assert_eq!(letter.value, b"refused");
    let trace = |record: &StoredRecord| Envelope::from_headers(&record.headers).unwrap().traceparent.unwrap();
    let job = &records(&*log, Topic::Jobs).await[0];
    assert!(
        trace(job).starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"),
        "the trace goes on"
    );
    assert!(!trace(job).contains("00f067aa0ba902b7"), "under a span of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_waited_for_and_loses_nothing() {
    let store = database().await;
    let log = bus::log(&store).await;
    let step = Echo::default();
    step.transient.store(6, Ordering::SeqCst);
    let running = Running::start(step.clone(), log.clone(), &store, config());
    let events = (0..300).map(|number| event(&format!("e{number}"), &format!("c{}", number % 7), "t", b"{}"));
    log.append(events.collect()).await.unwrap();
    eventually("all are done", || caught_up(&*log)).await;
    running.stop().await;
    assert_eq!(step.transient.load(Ordering::SeqCst), 0);
    let distinct: BTreeSet<String> = job_ids(&*log).await.into_iter().collect();
    assert_eq!(distinct.len(), 300);
    assert!(records(&*log, Topic::DeadLetters).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_waits_keeps_no_other_waiting() {
    let store = database().await;
    let log = bus::log(&store).await;
    let step = Echo::default();
    step.stuck.store(true, Ordering::SeqCst);
    let running = Running::start(step.clone(), log.clone(), &store, config());
    // (partitions with events, those of them that are done)
    let progress = || async {
        let lags = log.lag("echo", &[Topic::Events]).await.unwrap();
        let filled = lags.iter().filter(|lag| lag.end > 0);
        (
            filled.clone().count(),
            filled.filter(|lag| lag.committed >= lag.end).count(),
        )
    };
    // What comes later goes on beside the one that waits as well.
    for round in 0..3 {
        let events = (0..60).map(|number| {
            let value: &[u8] = if number == 5 { b"stuck" } else { b"{}" };
            event(&format!("e{round}-{number}"), &format!("c{}", number % 20), "t", value)
        });
        log.append(events.collect()).await.unwrap();
        eventually("all but one partition are done", || async {
            let (filled, done) = progress().await;
            filled > 1 && done == filled - 1
        })
        .await;
    }
    step.stuck.store(false, Ordering::SeqCst);
    eventually("all are done", || caught_up(&*log)).await;
    running.stop().await;
    let distinct: BTreeSet<String> = job_ids(&*log).await.into_iter().collect();
    assert_eq!(distinct.len(), 180);
    assert!(records(&*log, Topic::DeadLetters).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_drains_what_is_under_way_and_commits_it() {
    let store = database().await;
    let log = bus::log(&store).await;
    let gate = Arc::new(Semaphore::new(0));
    let step = Echo {
        gate: Some(gate.clone()),
        ..Echo::default()
    };
    log.append(ten_events()).await.unwrap();
    let running = Running::start(step.clone(), log.clone(), &store, config());
    eventually("a batch is under way", || async {
        step.entered.load(Ordering::SeqCst) > 0
    })
    .await;
    running.stop.cancel();
    gate.add_permits(100);
    running.task.await.unwrap();
    let first = step.seen.lock().unwrap().len();
    assert!(first > 0);

    // Another one goes on behind it: nothing that was drained comes again.
    let step = Echo::default();
    let running = Running::start(step.clone(), log.clone(), &store, config());
    eventually("all are done", || caught_up(&*log)).await;
    running.stop().await;
    assert_eq!(first + step.seen.lock().unwrap().len(), 10);
    assert_eq!(job_ids(&*log).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_makes_way_begins_later_and_is_given_back_at_a_stop() {
    let store = database().await;
    let log = bus::log(&store).await;
    let way = Arc::new(Semaphore::new(0));
    let step = Echo {
        way: Some(way.clone()),
        ..Echo::default()
    };
    log.append(ten_events()).await.unwrap();
    let running = Running::start(step.clone(), log.clone(), &store, config());
    eventually("a batch makes way", || async {
        step.made_way.load(Ordering::SeqCst) > 0
    })
    .await;
    // It is not waited for, and nothing of it was done.
    running.stop().await;
    assert_eq!(step.entered.load(Ordering::SeqCst), 0);
    assert!(!caught_up(&*log).await);

    let running = Running::start(step.clone(), log.clone(), &store, config());
    eventually("it makes way again", || async {
        step.made_way.load(Ordering::SeqCst) > 1
    })
    .await;
    assert_eq!(step.entered.load(Ordering::SeqCst), 0);
    way.add_permits(100);
    eventually("all are done", || caught_up(&*log)).await;
    running.stop().await;
    assert_eq!(step.seen.lock().unwrap().len(), 10);
    assert_eq!(job_ids(&*log).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_and_take_over_and_keep_each_contacts_order() {
    let store = database().await;
    let log = bus::log(&store).await;
    let (one, two) = (Echo::default(), Echo::default());
    let first = Running::start(one.clone(), log.clone(), &store, config());
    let second = Running::start(two.clone(), log.clone(), &store, config());
    let publish = |from: usize, to: usize| {
        let log = log.clone();
        async move {
            let events =
                (from..to).map(|number| event(&format!("{number:05}"), &format!("c{}", number % 40), "t", b"{}"));
            log.append(events.collect()).await.unwrap();
        }
    };
    publish(0, 100).await;
    let mut published = 100;
    eventually("both have some", || {
        let more = publish(published, published + 50);
        published += 50;
        let (one, two) = (&one, &two);
        async move {
            more.await;
            !one.seen.lock().unwrap().is_empty() && !two.seen.lock().unwrap().is_empty()
        }
    })
    .await;
    second.stop().await;
    publish(published, published + 500).await;
    eventually("all are done", || caught_up(&*log)).await;
    first.stop().await;
    let jobs = records(&*log, Topic::Jobs).await;
    let distinct: BTreeSet<String> = jobs.iter().map(id_of).collect();
    assert_eq!(distinct.len(), published + 500);
    if !bus::is_kafka() {
        assert_eq!(jobs.len(), published + 500, "handed over without doing anything twice");
    }
    let mut last: HashMap<String, String> = HashMap::new();
    let mut again = BTreeSet::new();
    for job in &jobs {
        let id = id_of(job);
        if !again.insert(id.clone()) {
            continue;
        }
        if let Some(before) = last.insert(job.key.clone(), id.clone()) {
            assert!(before < id, "{before} came before {id}");
        }
    }
}

/// A log that is not the database, whatever it is, and fails appends after they were done.
#[derive(Debug)]
struct Apart {
    log: Arc<dyn Log>,
    failures: AtomicUsize,
    hidden: AtomicBool,
}

#[async_trait]
impl Log for Apart {
    async fn topics_ensure(&self, topics: &[TopicSettings]) -> Result<(), BusError> {
        self.log.topics_ensure(topics).await
    }
    async fn append(&self, records: Vec<NewRecord>) -> Result<(), BusError> {
        self.log.append(records).await?;
        let fails = self
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match fails {
            // "Perhaps written."
            Ok(_) => Err(BusError::NotOwner {
                topic: Topic::Jobs,
                number: 0,
            }),
            Err(_) => Ok(()),
        }
    }
    async fn subscribe(&self, group: &str, topics: &[Topic]) -> Result<Box<dyn Consumer>, BusError> {
        self.log.subscribe(group, topics).await
    }
    async fn read(&self, partition: Partition, from: i64, limits: ReadLimits) -> Result<Vec<StoredRecord>, BusError> {
        self.log.read(partition, from, limits).await
    }
    async fn bounds(&self, topic: Topic) -> Result<Vec<Bounds>, BusError> {
        self.log.bounds(topic).await
    }
    async fn lag(&self, group: &str, topics: &[Topic]) -> Result<Vec<Lag>, BusError> {
        self.log.lag(group, topics).await
    }
    async fn ping(&self) -> Result<(), BusError> {
        self.log.ping().await
    }
    fn transactional(&self) -> Option<&dyn TransactionalLog> {
        match self.hidden.load(Ordering::SeqCst) {
            true => None,
            false => self.log.transactional(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_off_between_append_and_offset_the_same_records_come_again() {
    let store = database().await;
    let log = bus::log(&store).await;
    let apart = Arc::new(Apart {
        log: log.clone(),
        failures: AtomicUsize::new(3),
        hidden: AtomicBool::new(true),
    });
    log.append(
        (0..50)
            .map(|number| event(&format!("e{number}"), "42", "t", b"{}"))
            .collect(),
    )
    .await
    .unwrap();
    // The refusal as somebody else's, which the bus never tells of: the runner reads again by itself.
    let running = Running::start(Echo::default(), apart.clone(), &store, config());
    eventually("all are done", || caught_up(&*log)).await;
    running.stop().await;
    assert_eq!(apart.failures.load(Ordering::SeqCst), 0);
    let jobs = records(&*log, Topic::Jobs).await;
    let mut distinct: BTreeMap<String, StoredRecord> = BTreeMap::new();
    for job in &jobs {
        let before = distinct.insert(id_of(job), job.clone());
        assert!(before.is_none_or(|before| (before.headers, before.value) == (job.headers.clone(), job.value.clone())));
    }
    assert_eq!(distinct.len(), 50);
    assert!(jobs.len() > 50, "some came twice, the same to the byte");
}
