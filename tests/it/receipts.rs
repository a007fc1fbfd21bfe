//! From a gateway's word to the ledger and the topics: dispatcher, simulator and receipt-collector together.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use ::bus::{BusConfig, PostgresConfig, ReadLimits};
use domain::{Cause, Class, Consent, MessageId, Phone, Reason, State, phone::PhoneKey, sms};
use events::{Callback, Inbound, Outbound, Receipt, Record, Topic};
use jiff::Timestamp;
use resources::{Resource, gateway::ReceiptIds, policy::QuietHours};
use serde_json::Value;
use simulator::{Ids, Script};
use stage::{Clock, Live, RunnerConfig};
use store::{Store, contacts::ContactChange, messages::MessageRow};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{
    bus, database,
    simulator::{Simulator, eventually},
};

/// A database, a bus and a dispatcher; collectors come and go.
pub struct Stand {
    url: String,
    pub store: Store,
    pub bus: bus::TestBus,
    key: PhoneKey,
    stop: CancellationToken,
}

/// A collector that runs, in a runtime of its own so that it can be killed.
pub struct Collector {
    runtime: Option<tokio::runtime::Runtime>,
    stop: CancellationToken,
    done: tokio::task::JoinHandle<Result<(), receipt_collector::Error>>,
}

impl Collector {
    /// As SIGTERM does.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let done = std::mem::replace(&mut self.done, tokio::spawn(async { Ok(()) }));
        done.await.unwrap().unwrap();
    }

    /// As SIGKILL does.
    fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Stand {
    pub async fn new(gateways: Vec<resources::Gateway>) -> Stand {
        let url = database::empty_database().await;
        let store = Store::connect(&url, 20, Duration::from_secs(10)).await.unwrap();
        store.migrate().await.unwrap();
        let stand = Stand {
            bus: bus::start(&store).await,
            key: store.phone_key().await.unwrap(),
            stop: CancellationToken::new(),
            url,
            store,
        };
        let policy = resources::Policy {
            quiet_hours: QuietHours::Off,
            ..resources::Policy::default()
        };
        let mut all: Vec<Resource> = gateways.into_iter().map(Resource::Gateway).collect();
        all.push(Resource::Policy(policy));
        stand.apply(all).await;
        let live = Live::start(stand.store.clone(), stand.stop.clone()).await.unwrap();
        let config = dispatcher::Config {
            log: stand.bus.log.clone(),
            store: stand.store.clone(),
            live,
            clock: Clock::system(),
            phone_key: stand.key.clone(),
            instance: Uuid::from_u128(1),
            secrets: Arc::new(|_| None),
            limits: dispatcher::Limits::default(),
            batch_records: 500,
            drain: Duration::from_secs(5),
        };
        tokio::spawn(dispatcher::run(config, stand.stop.clone()));
        let (log, store) = (stand.bus.log.clone(), stand.store.clone());
        tokio::spawn(stage::deferred::pump(log, store, Clock::system(), stand.stop.clone()));
        stand
    }

    async fn apply(&self, resources: Vec<Resource>) {
        let rows: Vec<(String, String, Value)> = resources
            .iter()
            .map(|one| {
                assert_eq!(one.check(), [], "{}", one.name());
                (one.kind().to_string(), one.name().to_owned(), one.to_json())
            })
            .collect();
        let mut tx = self.store.begin().await.unwrap();
        tx.resources_apply(&rows, "test", Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn collector(&self) -> Collector {
        self.collector_on(std::net::TcpListener::bind("127.0.0.1:0").unwrap())
            .await
    }

    pub async fn collector_on(&self, listener: std::net::TcpListener) -> Collector {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        listener.set_nonblocking(true).unwrap();
        let (url, kafka, key, shutdown) = (self.url.clone(), self.bus.kafka.clone(), self.key.clone(), stop.clone());
        let done = runtime.spawn(async move {
            let store = Store::connect(&url, 10, Duration::from_secs(10)).await.unwrap();
            let config = match kafka {
                Some(kafka) => BusConfig::Kafka(kafka),
                None => BusConfig::Postgres(PostgresConfig {
                    pool: store.pool().clone(),
                }),
            };
            let config = receipt_collector::Config {
                log: ::bus::open(config).await.unwrap(),
                live: Live::start(store.clone(), shutdown.clone()).await.unwrap(),
                store,
                clock: Clock::system(),
                phone_key: key,
                runner: RunnerConfig::default(),
                listener: TcpListener::from_std(listener).unwrap(),
                secrets: Arc::new(|_| None),
                trusted_proxies: Vec::new(),
            };
            receipt_collector::run(config, shutdown).await
        });
        Collector {
            runtime: Some(runtime),
            stop,
            done,
        }
    }

    pub async fn send(&self, messages: &[Outbound]) {
        let records = messages
            .iter()
            .map(|message| {
                let topic = match message.class {
                    Class::Transactional => Topic::OutboundTransactional,
                    Class::Marketing => Topic::OutboundBulk,
                };
                let id = message.message_id.to_string();
                ::bus::NewRecord::wrap(topic, &message.contact_id, id, Timestamp::now(), None, message)
            })
            .collect();
        self.bus.log.append(records).await.unwrap();
    }

    pub async fn row(&self, id: Uuid) -> Option<MessageRow> {
        self.store.message_get(id).await.unwrap()
    }

    /// Waits until a message is where `there` wants it.
    pub async fn until(&self, id: Uuid, there: impl Fn(&MessageRow) -> bool) -> MessageRow {
        let begun = Instant::now();
        loop {
            let row = self.row(id).await;
            if let Some(row) = row.clone().filter(&there) {
                return row;
            }
            let stands = row.map(|row| (row.state, row.reason, row.attempt, row.gateway, row.gateway_code));
            assert!(begun.elapsed() < Duration::from_secs(90), "{id} stays {stands:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn reaches(&self, id: Uuid, state: State) -> MessageRow {
        self.until(id, |row| row.state == state).await
    }

    pub async fn all<R: Record>(&self, topic: Topic) -> Vec<R> {
        let mut all = Vec::new();
        for bounds in self.bus.log.bounds(topic).await.unwrap() {
            let mut from = bounds.first;
            while from < bounds.end {
                let limits = ReadLimits {
                    records: 1_000,
                    bytes: 8 << 20,
                    wait: Duration::from_secs(1),
                };
                let records = self.bus.log.read(bounds.partition, from, limits).await.unwrap();
                let Some(last) = records.last() else { break };
                from = last.offset + 1;
                all.extend(
                    records
                        .iter()
                        .map(|record| R::from_bytes(R::KIND, &record.value).unwrap()),
                );
            }
        }
        all
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn smpp(simulator: &Simulator) -> resources::Gateway {
    resources::Gateway {
        rate: 20_000,
        window: 100,
        ..resources::Gateway::smpp("main", &simulator.smpp, "tamtam")
    }
}

pub fn message(number: usize, class: Class, text: &str) -> Outbound {
    let now = Timestamp::now();
    let contact_id = format!("contact-{number}");
    let cause = Cause::Direct {
        idempotency_key: format!("key-{number}"),
    };
    let measured = sms::measure(text);
    Outbound {
        message_id: MessageId::derive(&cause, &contact_id).0,
        contact_id,
        cause,
        class,
        phone: Phone::from_e164(format!("+262692{number:06}")),
        sender: "BOUTIQUE".into(),
        text: text.into(),
        encoding: measured.encoding.to_string(),
        parts: measured.parts,
        template: "t".into(),
        variant: None,
        language: None,
        time_zone: Some("Indian/Reunion".into()),
        caused_at: now,
        planned_at: now,
        rendered_at: now,
        deadline: None,
        cost_micros: 40_000,
        attempt: 0,
        purpose: None,
    }
}

/// A number from the environment: the size of a run, or its seed.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text}: expected a number"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_ends_as_its_receipts_say_however_they_come() {
    let count = setting("TAMTAM_RECEIPTS_MESSAGES", 2_000);
    let seed = setting("TAMTAM_RECEIPTS_SEED", 7);
    println!("TAMTAM_RECEIPTS_MESSAGES={count} TAMTAM_RECEIPTS_SEED={seed}");
    // The more messages, the longer a busy machine takes over the receipts of those that have one in time.
    let receipt_timeout = 6 + count / 2_000;
    let simulator = Simulator::start(Script {
        seed,
        ids: Ids::Decimal,
        receipt_ids: Ids::UpperHex,
        receipt_id_width: 20,
        receipt_delay_ms: 0,
        receipt_jitter_ms: 700,
        early_percent: 30.0,
        early_ms: 100,
        duplicate_percent: 20.0,
        enroute_percent: 25.0,
        // After the time-out: until then they are unknown.
        late_percent: 10.0,
        late_ms: (receipt_timeout + 3) * 1_000,
        failed_percent: 8.0,
        expired_percent: 5.0,
        unknown_percent: 3.0,
        lost_percent: 3.0,
        ..Script::default()
    })
    .await;
    let stand = Stand::new(vec![resources::Gateway {
        receipt_timeout: Some(format!("{receipt_timeout}s").parse().unwrap()),
        ..smpp(&simulator)
    }])
    .await;
    let collector = stand.collector().await;
    let long = "Réduction {50 €} sur tout jusqu'à dimanche. ".repeat(8);
    let messages: Vec<Outbound> = (0..count as usize)
        .map(|number| {
            let text = if number % 5 == 0 { long.as_str() } else { "Bonjour" };
            let class = if number % 2 == 0 {
                Class::Marketing
            } else {
                Class::Transactional
            };
            message(number, class, text)
        })
        .collect();
    stand.send(&messages).await;
    // One collector dies in the middle of it; the gateway brings again what it had not answered.
    eventually("some receipts", || async {
        (simulator.stats().await.receipts > 100).then_some(())
    })
    .await;
    collector.kill();
    let collector = stand.collector().await;

    // As long as more of them come: how long all of them take depends on how many were asked for.
    let mut before = 0;
    while before < count {
        before = eventually("more texts", || async {
            let texts = simulator.stats().await.texts;
            (texts > before).then_some(texts)
        })
        .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let shown = simulator.messages().await;
    assert_eq!(shown.len(), messages.len());
    // A phone shows a text once its parts are there; what the script says of it is the outcome of all of its parts.
    let outcomes: HashMap<Uuid, String> = shown
        .iter()
        .map(|shown| {
            let reference = shown["reference"].as_str().unwrap().parse().unwrap();
            (reference, shown["outcome"].as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(outcomes.len(), messages.len());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for message in &messages {
        let outcome = outcomes[&message.message_id].as_str();
        let state = match outcome {
            "delivered" => State::Delivered,
            "failed" => State::Failed,
            "expired" => State::Expired,
            // Lost, or a word that nobody knows: neither delivered nor failed.
            _ => State::Unknown,
        };
        let row = stand.reaches(message.message_id, state).await;
        match state {
            State::Unknown => assert_eq!(row.reason, Some(Reason::NoReceipt)),
            State::Failed => assert_eq!(row.gateway_code.as_deref(), Some("UNDELIV:011")),
            State::Expired => assert_eq!(row.reason, Some(Reason::ValidityPassed)),
            _ => {}
        }
        *counts.entry(outcome).or_default() += 1;
    }
    assert_eq!(counts.len(), 4, "{counts:?}");
    eventually("all receipts to be answered", || async {
        (simulator.stats().await.waiting == 0).then_some(())
    })
    .await;
    collector.stop().await;

    // On the topic: each state that a message ended in, under one id, saying the same however often.
    let mut told: BTreeMap<String, Receipt> = BTreeMap::new();
    for receipt in stand.all::<Receipt>(Topic::Receipts).await {
        let id = receipt.stable_id();
        let first = told.entry(id).or_insert_with(|| receipt.clone());
        assert_eq!(*first, receipt);
    }
    // Late ones were called unknown first, and settled then.
    let unknown = told.values().filter(|receipt| receipt.state == State::Unknown).count();
    assert!(
        unknown > counts["none"],
        "{unknown} were unknown, {counts:?} in the end"
    );
    let mut ends: HashMap<Uuid, usize> = HashMap::new();
    for receipt in told.values().filter(|receipt| receipt.state.is_terminal()) {
        *ends.entry(receipt.message_id).or_default() += 1;
    }
    for message in &messages {
        let row = stand.row(message.message_id).await.unwrap();
        let receipt = &told[&row.to_receipt().stable_id()];
        assert_eq!(*receipt, row.to_receipt());
        let ends = ends.get(&message.message_id).copied().unwrap_or(0);
        assert_eq!(ends, usize::from(row.state.is_terminal()));
    }
    // Nothing was sent twice on the way.
    let stats = simulator.stats().await;
    assert_eq!((stats.distinct, stats.duplicates), (count, 0));
    println!("{counts:?}");
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_callbacks_are_kept_proven_and_settle_even_an_unknown_outcome() {
    let simulator = Simulator::start(Script {
        receipt_delay_ms: 300,
        receipt_jitter_ms: 100,
        ambiguous_percent: 10.0,
        failed_percent: 20.0,
        ..Script::default()
    })
    .await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let gateways = ["twilio", "kannel"].map(|profile| resources::Gateway {
        rate: 5_000,
        window: 20,
        system_id: Some("account".into()),
        callback_url: Some(format!("{address}/callbacks/{profile}?secret=s3cret")),
        callback_secret: Some("s3cret".into()),
        prefixes: vec![match profile {
            "twilio" => "+2626920000".to_owned(),
            _ => "+2626920001".into(),
        }],
        ..resources::Gateway::http(profile, &format!("{}/{profile}/send", simulator.http), profile)
    });
    let stand = Stand::new(gateways.to_vec()).await;
    let collector = stand.collector_on(listener).await;
    // These gateways take a long text whole, and one receipt speaks for all of it.
    let long = "Réduction sur tout jusqu'à dimanche. ".repeat(8);
    let messages: Vec<Outbound> = (50..150)
        .map(|number| {
            message(
                number,
                Class::Marketing,
                if number % 2 == 0 { &long } else { "Bonjour" },
            )
        })
        .collect();
    stand.send(&messages).await;
    let (mut settled, mut long) = (0, 0);
    for message in &messages {
        let row = stand.until(message.message_id, |row| row.state.is_terminal()).await;
        let shown = simulator.messages().await;
        let id = message.message_id.to_string();
        let shown = shown.iter().find(|shown| shown["reference"] == id.as_str()).unwrap();
        assert_eq!(row.state.as_str(), shown["outcome"]);
        // Its outcome had been unknown.
        settled += usize::from(row.accepted_at.is_none());
        long += usize::from(row.accepted_at.is_none() && row.parts > 1);
    }
    assert!((1..40).contains(&settled) && long > 0, "{settled}, {long} of them long");
    let stats = simulator.stats().await;
    assert_eq!((stats.distinct, stats.duplicates), (100, 0));

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |path: &str, body: Vec<u8>| client.post(format!("{address}{path}")).body(body).send();
    for (path, body, status) in [
        ("/callbacks/twilio?secret=wrong", vec![], 401),
        ("/callbacks/twilio", vec![], 401),
        ("/callbacks/nobody?secret=s3cret", vec![], 404),
        ("/callbacks/twilio?secret=s3cret", vec![b'x'; 70_000], 413),
        ("/callbacks/twilio?secret=s3cret", b"rubbish".to_vec(), 200),
    ] {
        assert_eq!(post(path, body).await.unwrap().status(), status, "{path}");
    }
    // Rubbish is kept and becomes a dead letter; the rest goes on.
    eventually("a dead letter", || async {
        let dead: Vec<events::DeadLetter> = stand.all(Topic::DeadLetters).await;
        (dead.len() == 1 && dead[0].reason.contains("without `status`")).then_some(())
    })
    .await;
    // The secret is not on the topic.
    for callback in stand.all::<Callback>(Topic::Callbacks).await {
        let query = callback.meta.get("query").and_then(Value::as_str).unwrap_or_default();
        assert!(!query.contains("s3cret"));
    }
    collector.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_and_start_take_effect_and_are_told() {
    let simulator = Simulator::start(Script::default()).await;
    let stand = Stand::new(vec![smpp(&simulator)]).await;
    let phone = Phone::from_e164("+262692123456");
    let contact = ContactChange {
        id: "42".into(),
        phone: Some(Some(phone.clone())),
        marketing_consent: Some(Consent::Given(None)),
        ..ContactChange::default()
    };
    let mut tx = stand.store.begin().await.unwrap();
    tx.contacts_upsert(&[contact], "test", "test", Timestamp::now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let collector = stand.collector().await;
    let hash = stand.key.hash(&phone);
    let shut_off = || async {
        let mut tx = stand.store.begin().await.unwrap();
        let found = tx.suppressions_get(std::slice::from_ref(&hash)).await.unwrap();
        tx.commit().await.unwrap();
        found.contains_key(&hash)
    };
    let consent = || async { stand.store.contact_get("42").await.unwrap().unwrap().marketing_consent };

    for text in ["je ne veux plus, arrêtez svp", "Arrêt !"] {
        simulator.reply("tamtam", phone.e164(), "36105", text).await;
    }
    eventually("STOP", || async { shut_off().await.then_some(()) }).await;
    assert_eq!(consent().await, Consent::No);
    simulator.reply("tamtam", phone.e164(), "36105", "start").await;
    eventually("START", || async { (!shut_off().await).then_some(()) }).await;
    assert!(consent().await.is_given());
    // Somebody we do not know.
    simulator.reply("tamtam", "+262692999999", "36105", "STOP").await;
    let inbound = eventually("four replies", || async {
        let inbound: Vec<Inbound> = stand.all(Topic::Inbound).await;
        (inbound.len() == 4).then_some(inbound)
    })
    .await;
    let mut seen: Vec<_> = inbound
        .iter()
        .map(|one| (one.contact_id.as_deref(), one.keyword.as_deref(), one.needs_review))
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            (None, Some("stop"), false),
            (Some("42"), None, true),
            (Some("42"), Some("start"), false),
            (Some("42"), Some("stop"), false),
        ]
    );
    collector.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_which_nothing_is_heard_is_unknown_until_something_is() {
    let simulator = Simulator::start(Script {
        late_percent: 100.0,
        late_ms: 6_000,
        ..Script::default()
    })
    .await;
    let stand = Stand::new(vec![resources::Gateway {
        receipt_timeout: Some("2s".parse().unwrap()),
        receipt_ids: ReceiptIds::Same,
        ..smpp(&simulator)
    }])
    .await;
    let collector = stand.collector().await;
    let message = message(1, Class::Transactional, "Bonjour");
    stand.send(std::slice::from_ref(&message)).await;
    let row = stand.reaches(message.message_id, State::Unknown).await;
    assert_eq!(row.reason, Some(Reason::NoReceipt));
    stand.reaches(message.message_id, State::Delivered).await;
    let states: Vec<State> = eventually("three receipts", || async {
        let receipts: Vec<Receipt> = stand.all(Topic::Receipts).await;
        (receipts.len() >= 3).then(|| receipts.iter().map(|receipt| receipt.state).collect())
    })
    .await;
    assert_eq!(states, [State::Accepted, State::Unknown, State::Delivered]);
    assert_eq!(simulator.stats().await.duplicates, 0);
    collector.stop().await;
    simulator.stop().await;
}

/// What counts is when the gateway took each.
#[tokio::test(flavor = "multi_thread")]
async fn stop_holds_what_is_in_the_pipeline_within_a_second() {
    let simulator = Simulator::start(Script::default()).await;
    let stand = Stand::new(vec![resources::Gateway {
        rate: 4,
        ..smpp(&simulator)
    }])
    .await;
    let collector = stand.collector().await;
    // Twenty seconds of messages to one phone, at this rate.
    let messages: Vec<Outbound> = (0..80)
        .map(|number| Outbound {
            phone: Phone::from_e164("+262692123456"),
            ..message(number, Class::Marketing, "Bonjour")
        })
        .collect();
    stand.send(&messages).await;
    // From here on the collector works.
    stand
        .until(messages[0].message_id, |row| row.state == State::Delivered)
        .await;
    simulator.reply("tamtam", "+262692123456", "36105", "STOP").await;
    let stop = eventually("STOP", || async { stand.all::<Inbound>(Topic::Inbound).await.pop() }).await;
    let limit = stop.received_at + jiff::SignedDuration::from_secs(1);
    let mut held = 0;
    for message in &messages {
        let row = stand
            .until(message.message_id, |row| {
                row.state.is_terminal() || row.accepted_at.is_some()
            })
            .await;
        match row.accepted_at {
            Some(at) => assert!(at <= limit, "taken {} after STOP", at - stop.received_at),
            None => {
                assert_eq!((row.state, row.reason), (State::Suppressed, Some(Reason::Stopped)));
                held += 1;
            }
        }
    }
    assert!(held > 0);
    collector.stop().await;
    simulator.stop().await;
}
