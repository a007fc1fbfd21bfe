//! From events and campaigns to jobs, on a real bus and a real database.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use ::bus::{Log, Partition, StoredRecord};
use domain::{Cause, Consent, Phone, Reason, contact::ContactChange};
use events::{DeadLetter, Envelope, Job, Record as _, Topic};
use jiff::{SignedDuration, Timestamp};
use resources::{Snapshot, parse_toml};
use segmenter::Segmenter;
use serde_json::json;
use stage::{Clock, Input, Live, Output, RunnerConfig, Step};
use store::{NewCampaign, Store};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    stage::{event, eventually, id_of, records},
    support::{bus, campaign::drafted, database::database},
};

const RESOURCES: &str = r#"
[[template]]
name = "t"
class = "marketing"
sender = "BOUTIQUE"
text = "Bonjour {{ contact.first_name | default('vous') }}"

[[audience]]
name = "north"
where = 'region = "north"'

[[trigger]]
name = "confirm"
on = "order.placed"
when = 'event.amount > 0'
template = "t"
deadline = "1h"
vars = { shop = "Saint-Denis" }

[[trigger]]
name = "second-order"
on = "order.placed"
when = 'did order.placed count = 2'
audience = "north"
once_per = "7d"
template = "t"

[[trigger]]
name = "cart"
on = "cart.updated"
wait = "2s"
unless = 'order.placed(category = event.category)'
template = "t"

[policy]
default_region = "RE"

[[policy.price]]
micros = 50000
"#;

pub(crate) async fn apply(store: &Store, toml: &str) {
    let resources: Vec<_> = parse_toml(toml)
        .unwrap()
        .iter()
        .map(|resource| {
            (
                resource.kind().to_string(),
                resource.name().to_owned(),
                resource.to_json(),
            )
        })
        .collect();
    let mut tx = store.begin().await.unwrap();
    tx.resources_apply(&resources, "test", Timestamp::now()).await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) fn contact(id: &str, phone: Option<&str>, region: &str) -> ContactChange {
    ContactChange {
        id: id.into(),
        phone: Some(phone.map(Phone::from_e164)),
        region: Some(Some(region.into())),
        marketing_consent: Some(Consent::Given(None)),
        ..ContactChange::default()
    }
}

pub(crate) async fn contacts(store: &Store, changes: &[ContactChange]) {
    let mut tx = store.begin().await.unwrap();
    tx.contacts_upsert(changes, "test", "test", Timestamp::now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// The step alone, as a function.
struct Alone {
    store: Store,
    step: Segmenter,
    time: Arc<AtomicI64>,
    offset: i64,
}

impl Alone {
    async fn new(now: &str) -> Alone {
        let store = database().await;
        let mut snapshot = Snapshot::default();
        for resource in parse_toml(RESOURCES).unwrap() {
            snapshot.insert(resource, 1);
        }
        let time = Arc::new(AtomicI64::new(now.parse::<Timestamp>().unwrap().as_second()));
        let clock = {
            let time = time.clone();
            Clock::from_fn(move || Timestamp::from_second(time.load(Ordering::SeqCst)).unwrap())
        };
        let key = store.phone_key().await.unwrap();
        Alone {
            step: Segmenter::new(Live::fixed(snapshot), clock, key),
            store,
            time,
            offset: 0,
        }
    }

    fn event(&mut self, id: &str, contact: &str, kind: &str, seconds: i64, data: serde_json::Value) -> Input {
        self.offset += 1;
        let now = Timestamp::from_second(self.time.load(Ordering::SeqCst)).unwrap();
        Input {
            partition: Partition {
                topic: Topic::Events,
                number: 0,
            },
            offset: self.offset,
            key: contact.into(),
            envelope: Envelope {
                id: id.into(),
                source: "shop".into(),
                kind: kind.into(),
                time: Some(now + SignedDuration::from_secs(seconds)),
                subject: Some(contact.into()),
                traceparent: None,
            },
            value: data.to_string().into_bytes(),
        }
    }

    async fn run(&self, batch: &[Input]) -> Output {
        let batch: Vec<&Input> = batch.iter().collect();
        let mut tx = self.store.begin().await.unwrap();
        let output = self.step.run(Topic::Events, &batch, &mut tx).await.unwrap();
        tx.commit().await.unwrap();
        output
    }
}

fn jobs(output: &Output) -> Vec<(String, String, Job)> {
    output
        .emit
        .iter()
        .map(|record| {
            let job = Job::from_bytes(Job::KIND, &record.value).unwrap();
            let Cause::Trigger { trigger, event_id, .. } = job.cause.clone() else {
                panic!()
            };
            (trigger, event_id, job)
        })
        .collect()
}

fn names(output: &Output) -> Vec<(String, String)> {
    jobs(output)
        .into_iter()
        .map(|(trigger, event, _)| (trigger, event))
        .collect()
}

fn pair(trigger: &str, event: &str) -> (String, String) {
    (trigger.into(), event.into())
}

#[tokio::test]
async fn an_event_is_decided_once_and_emitted_again_the_same() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    let batch = [
        alone.event(
            "c1",
            "42",
            "contact.updated",
            0,
            json!({"phone": "0692123456", "region": "north"}),
        ),
        alone.event("o1", "42", "order.placed", -60, json!({"amount": 10})),
        // One batch, and yet the first order does not see the second.
        alone.event("o2", "42", "order.placed", -30, json!({"amount": 0})),
        alone.event("o1", "42", "order.placed", -60, json!({"amount": 10})),
        // Nobody knows this one: the renderer says so.
        alone.event("o3", "nobody", "order.placed", 0, json!({"amount": 5})),
        // Older than a day: history.
        alone.event("o4", "42", "order.placed", -100_000, json!({"amount": 5})),
        alone.event("bad", "42", "order.placed", 0, json!([1])),
    ];
    let first = alone.run(&batch).await;
    assert_eq!(
        names(&first),
        [pair("confirm", "o1"), pair("second-order", "o2"), pair("confirm", "o3")]
    );
    let job = &jobs(&first)[0].2;
    assert_eq!(job.deadline, Some("2026-06-01T10:59:00Z".parse().unwrap()));
    assert_eq!(
        (&job.values["shop"], &job.event["amount"]),
        (&json!("Saint-Denis"), &json!(10))
    );
    assert_eq!(first.dead.len(), 1);
    let known = alone.store.contact_get("42").await.unwrap().unwrap();
    assert_eq!(known.phone.unwrap().e164(), "+262692123456");

    // Delivered again, later: the same to the byte, whatever the time.
    alone.time.fetch_add(3_600, Ordering::SeqCst);
    let again = alone.run(&batch).await;
    let once: BTreeSet<Vec<u8>> = first.emit.iter().map(|record| record.value.clone()).collect();
    let twice: BTreeSet<Vec<u8>> = again.emit.iter().map(|record| record.value.clone()).collect();
    assert_eq!(once, twice);
    // Three are planned, and nobody has decided on them; by the clock on the wall that is long ago.
    let audit = alone.store.audit(None, None).await.unwrap();
    assert_eq!((audit.violations, audit.pending), (3, 0), "{audit:?}");
    let lost = |violation: &store::audit::Violation| violation.kind == "event-message-lost";
    assert!(audit.examples.iter().all(lost), "{audit:?}");
}

#[tokio::test]
async fn a_batch_with_an_event_that_is_known_leads_to_what_its_events_would_alone() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    let known = alone.event("o1", "42", "order.placed", -60, json!({"amount": 10}));
    assert_eq!(
        names(&alone.run(std::slice::from_ref(&known)).await),
        [pair("confirm", "o1")]
    );
    // Before the batch learns of it a contact is changed, and new events are decided on.
    for number in [2, 3] {
        let moved = json!({"region": "north", "city": format!("city {number}")});
        let batch = [
            alone.event(&format!("c{number}"), "42", "contact.updated", 0, moved),
            alone.event(&format!("o{number}"), "42", "order.placed", -30, json!({"amount": 20})),
            known.clone(),
        ];
        let fires = [pair("confirm", &format!("o{number}")), pair("confirm", "o1")];
        let seconds: &[_] = match number {
            2 => &[pair("second-order", "o2")],
            _ => &[],
        };
        let mut expected: Vec<_> = fires.iter().chain(seconds).cloned().collect();
        expected.sort_unstable();
        let mut names = names(&alone.run(&batch).await);
        names.sort_unstable();
        assert_eq!(names, expected);
        let city = alone.store.contact_get("42").await.unwrap().unwrap().city;
        assert_eq!(city, Some(format!("city {number}")));
    }
    let planned: Vec<(String, i32)> = sqlx::query_as("select event_id, planned from history order by 1")
        .fetch_all(alone.store.pool())
        .await
        .unwrap();
    assert_eq!(planned, [("o1".into(), 1), ("o2".into(), 2), ("o3".into(), 1)]);
}

#[tokio::test]
async fn conditions_see_history_and_once_per_holds_within_a_batch_and_after_it() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    contacts(
        &alone.store,
        &[contact("42", None, "north"), contact("43", None, "south")],
    )
    .await;
    // The late one makes three: only the second of its time is a second order.
    let batch: Vec<Input> = ["42", "43"]
        .iter()
        .flat_map(|id| {
            (0..3)
                .map(|number| alone.event(&format!("{id}-{number}"), id, "order.placed", number - 10, json!({})))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(names(&alone.run(&batch).await), [pair("second-order", "42-1")]);
}

#[tokio::test]
async fn once_per_counts_what_the_same_batch_decided() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    let mut snapshot = Snapshot::default();
    let toml = "[[trigger]]\nname = \"x\"\non = \"x\"\ntemplate = \"t\"\nonce_per = \"1h\"";
    snapshot.insert(parse_toml(toml).unwrap().remove(0), 1);
    let time = alone.time.clone();
    let clock = Clock::from_fn(move || Timestamp::from_second(time.load(Ordering::SeqCst)).unwrap());
    alone.step = Segmenter::new(Live::fixed(snapshot), clock, alone.store.phone_key().await.unwrap());
    let two = [
        alone.event("a", "42", "x", 0, json!({})),
        alone.event("b", "42", "x", 0, json!({})),
        alone.event("c", "43", "x", 0, json!({})),
    ];
    assert_eq!(names(&alone.run(&two).await), [pair("x", "a"), pair("x", "c")]);
    let soon = [alone.event("d", "42", "x", 0, json!({}))];
    assert!(alone.run(&soon).await.emit.is_empty());
    alone.time.fetch_add(3_601, Ordering::SeqCst);
    let later = [alone.event("e", "42", "x", 0, json!({}))];
    assert_eq!(names(&alone.run(&later).await), [pair("x", "e")]);
}

#[tokio::test]
async fn events_outside_a_triggers_dates_start_nothing() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    let mut snapshot = Snapshot::default();
    let toml = "[[trigger]]\nname = \"x\"\non = \"x\"\ntemplate = \"t\"\nfrom = \"2026-06-01T09:00:00Z\"\n\
                until = \"2026-06-01T09:30:00Z\"";
    snapshot.insert(parse_toml(toml).unwrap().remove(0), 1);
    let time = alone.time.clone();
    let clock = Clock::from_fn(move || Timestamp::from_second(time.load(Ordering::SeqCst)).unwrap());
    alone.step = Segmenter::new(Live::fixed(snapshot), clock, alone.store.phone_key().await.unwrap());
    let batch = [
        alone.event("before", "42", "x", -3_601, json!({})),
        alone.event("first", "42", "x", -3_600, json!({})),
        alone.event("last", "42", "x", -1_801, json!({})),
        alone.event("after", "42", "x", -1_800, json!({})),
    ];
    assert_eq!(names(&alone.run(&batch).await), [pair("x", "first"), pair("x", "last")]);
}

#[tokio::test]
async fn an_erased_contact_is_gone_and_comes_back_as_new() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    let batch = [
        alone.event(
            "u1",
            "42",
            "contact.updated",
            0,
            json!({"first_name": "Marie", "city": "Saint-Pierre"}),
        ),
        alone.event("b1", "42", "basket.seen", 0, json!({"a": 1})),
        alone.event("e1", "42", "contact.erased", 0, json!({})),
        alone.event("u2", "42", "contact.updated", 0, json!({"first_name": "Anne"})),
        alone.event("u3", "43", "contact.updated", 0, json!({"birth_date": "yesterday"})),
    ];
    let output = alone.run(&batch).await;
    let known = alone.store.contact_get("42").await.unwrap().unwrap();
    assert_eq!((known.first_name.as_deref(), known.city), (Some("Anne"), None));
    assert!(output.dead[0].1.contains("birth_date"), "{output:?}");
}

#[tokio::test]
async fn a_changed_contact_stays_opted_out() {
    let mut alone = Alone::new("2026-06-01T10:00:00Z").await;
    let fields = |consent: bool| json!({"phone": "0692000042", "marketing_consent": consent});
    let batch = [
        alone.event("u1", "42", "contact.updated", 0, fields(false)),
        alone.event("e1", "42", "contact.erased", 0, json!({})),
        // The next export of the shop's system brings it back, and with a consent of its own making.
        alone.event("u2", "42", "contact.updated", 0, fields(true)),
        alone.event(
            "u3",
            "43",
            "contact.updated",
            0,
            json!({"phone": "0692000043", "marketing_consent": true}),
        ),
    ];
    assert!(alone.run(&batch).await.dead.is_empty());
    let consent = async |id: &str| alone.store.contact_get(id).await.unwrap().unwrap().marketing_consent;
    assert_eq!(
        (consent("42").await, consent("43").await),
        (Consent::No, Consent::Given(None))
    );
}

/// A segmenter in a runtime of its own: dropped, everything in it stops where it stands, as when a process is killed.
pub(crate) struct Process {
    runtime: Option<tokio::runtime::Runtime>,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Process {
    fn start(url: &str, kafka: Option<::bus::KafkaConfig>) -> Process {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let (url, token) = (url.to_owned(), stop.clone());
        let task = runtime.spawn(async move {
            let store = Store::connect(&url, 10, Duration::from_secs(10)).await.unwrap();
            let config = match kafka {
                Some(kafka) => ::bus::BusConfig::Kafka(kafka),
                None => ::bus::BusConfig::Postgres(::bus::PostgresConfig {
                    pool: store.pool().clone(),
                }),
            };
            let config = segmenter::Config {
                log: ::bus::open(config).await.unwrap(),
                live: Live::start(store.clone(), token.clone()).await.unwrap(),
                clock: Clock::system(),
                phone_key: store.phone_key().await.unwrap(),
                trace_sample: 0.0,
                runner: RunnerConfig::default(),
                store,
            };
            segmenter::run(config, token).await.unwrap();
        });
        Process {
            runtime: Some(runtime),
            stop,
            task: Some(task),
        }
    }

    pub(crate) fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that fails drops us within its own runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) struct Stand {
    pub store: Store,
    pub url: String,
    pub log: Arc<dyn Log>,
    pub kafka: Option<::bus::KafkaConfig>,
}

impl Stand {
    pub async fn new() -> Stand {
        let url = crate::support::database::empty_database().await;
        let store = Store::connect(&url, 10, Duration::from_secs(10)).await.unwrap();
        store.migrate().await.unwrap();
        let bus = bus::start(&store).await;
        apply(&store, RESOURCES).await;
        Stand {
            store,
            url,
            log: bus.log,
            kafka: bus.kafka,
        }
    }

    pub fn start(&self) -> Process {
        Process::start(&self.url, self.kafka.clone())
    }

    pub async fn jobs(&self) -> Vec<StoredRecord> {
        records(&*self.log, Topic::Jobs).await
    }

    /// Waits until the campaign is expanded and all its jobs are there.
    pub async fn on_the_bus(&self, id: Uuid) {
        eventually("all is on the bus", || async {
            let now = self.store.campaign_get(id).await.unwrap().unwrap();
            now.expanded_at.is_some() && self.store.campaign_chunks_open(id).await.unwrap() == 0
        })
        .await;
    }

    pub async fn waiting(&self) -> i64 {
        self.store.deferred_count().await.unwrap().0
    }

    pub async fn launch(&self, new: NewCampaign) -> Uuid {
        let mut tx = self.store.begin().await.unwrap();
        let campaign = tx.campaign_create(&new, "test", Timestamp::now()).await.unwrap();
        tx.campaign_launch(new.id, None, &new.expression, "test", Timestamp::now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        campaign.id
    }
}

pub(crate) fn campaign(expression: &str) -> NewCampaign {
    drafted(
        Uuid::from_u128(u128::from(std::process::id()) << 64 | 77),
        "Soldes",
        expression,
        "t",
    )
}

pub(crate) fn distinct(jobs: &[StoredRecord]) -> BTreeSet<String> {
    jobs.iter().map(id_of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_outlive_a_kill_and_fire_once_unless_something_happened() {
    let stand = Stand::new().await;
    let process = stand.start();
    let cart = |id: &str, contact: &str| event(id, contact, "cart.updated", br#"{"category": "shoes"}"#);
    let published = vec![
        cart("k1", "42"),
        cart("k2", "43"),
        cart("k3", "44"),
        // Of another category: the reminder goes out.
        event("o2", "43", "order.placed", br#"{"category": "hats", "amount": 0}"#),
        event("o3", "44", "order.placed", br#"{"category": "shoes", "amount": 0}"#),
    ];
    stand.log.append(published).await.unwrap();
    eventually("three timers wait", || async { stand.waiting().await == 3 }).await;
    process.kill();
    let started = Instant::now();
    let (one, two) = (stand.start(), stand.start());
    eventually("no timer waits", || async { stand.waiting().await == 0 }).await;
    eventually("both reminders are there", || async {
        distinct(&stand.jobs().await).len() == 2
    })
    .await;
    assert!(started.elapsed() < Duration::from_secs(30));
    // A sign that all has been worked on: what comes after is there.
    stand
        .log
        .append(vec![event("last", "44", "order.placed", br#"{"amount": 1}"#)])
        .await
        .unwrap();
    eventually("the last one is there", || async {
        distinct(&stand.jobs().await).len() == 3
    })
    .await;
    one.stop().await;
    two.stop().await;
    let causes: HashSet<String> = stand
        .jobs()
        .await
        .iter()
        .map(|record| Job::from_bytes(Job::KIND, &record.value).unwrap())
        .map(|job| job.contact_id)
        .collect();
    assert_eq!(causes, HashSet::from(["42".into(), "43".into(), "44".into()]));
    if !bus::is_kafka() {
        assert_eq!(stand.jobs().await.len(), 3, "none twice");
    }
    assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_timer_follows_its_trigger() {
    let stand = Stand::new().await;
    let toml = |wait: &str, more: &str| {
        format!("[[trigger]]\nname = \"slow\"\non = \"slow\"\nwait = \"{wait}\"\ntemplate = \"t\"\n{more}")
    };
    apply(&stand.store, &toml("1h", "")).await;
    let process = stand.start();
    stand.log.append(vec![event("s1", "42", "slow", b"{}")]).await.unwrap();
    eventually("a timer waits", || async { stand.waiting().await == 1 }).await;
    // The wait becomes shorter: it fires soon.
    apply(&stand.store, &toml("1s", "")).await;
    eventually("it fired", || async { stand.jobs().await.len() == 1 }).await;

    // Switched off, a timer fires into nothing.
    apply(&stand.store, &toml("3s", "")).await;
    eventually("the new wait is known", || async {
        let id = format!("s{}", Timestamp::now().as_nanosecond());
        stand.log.append(vec![event(&id, "43", "slow", b"{}")]).await.unwrap();
        stand.waiting().await > 0
    })
    .await;
    apply(&stand.store, &toml("3s", "active = false")).await;
    eventually("no timer waits", || async { stand.waiting().await == 0 }).await;
    stand
        .log
        .append(vec![event("last", "43", "order.placed", br#"{"amount": 1}"#)])
        .await
        .unwrap();
    eventually("what comes after is there", || async {
        let jobs = stand.jobs().await;
        jobs.iter()
            .any(|job| Job::from_bytes(Job::KIND, &job.value).unwrap().template == "t" && job.key == "43")
    })
    .await;
    process.stop().await;
    let triggers: Vec<Cause> = stand
        .jobs()
        .await
        .iter()
        .filter(|job| job.key == "43")
        .map(|job| Job::from_bytes(Job::KIND, &job.value).unwrap().cause)
        .collect();
    let all_confirm = triggers
        .iter()
        .all(|cause| matches!(cause, Cause::Trigger { trigger, .. } if trigger == "confirm"));
    assert!(all_confirm, "{triggers:?}");
}

pub(crate) async fn many(store: &Store, count: u32) {
    for from in (0..count).step_by(5_000) {
        let changes: Vec<ContactChange> = (from..(from + 5_000).min(count))
            .map(|number| contact(&format!("c{number:06}"), Some(&format!("+262692{number:06}")), "north"))
            .collect();
        contacts(store, &changes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expansion_that_is_killed_again_and_again_reaches_each_contact_exactly_once() {
    const CONTACTS: u32 = 30_000;
    let stand = Stand::new().await;
    many(&stand.store, CONTACTS).await;
    let id = stand.launch(campaign("region = \"north\"")).await;
    let state = || async { stand.store.campaign_get(id).await.unwrap().unwrap() };
    let mut chunks = 0;
    for _ in 0..3 {
        let process = stand.start();
        let before = chunks;
        eventually("it goes on", || async {
            state().await.chunks > before || state().await.expanded_at.is_some()
        })
        .await;
        chunks = state().await.chunks;
        process.kill();
    }
    // Two replicas finish it.
    let (one, two) = (stand.start(), stand.start());
    stand.on_the_bus(id).await;
    one.stop().await;
    two.stop().await;
    let jobs = stand.jobs().await;
    assert_eq!(distinct(&jobs).len() as u32, CONTACTS);
    assert_eq!(state().await.planned, i64::from(CONTACTS));
    if !bus::is_kafka() {
        assert_eq!(jobs.len() as u32, CONTACTS, "none twice");
    }
    let written: HashSet<&str> = jobs.iter().map(|job| job.key.as_str()).collect();
    assert_eq!(written.len() as u32, CONTACTS);
    assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_stops_the_expansion_and_resuming_goes_on_where_it_was() {
    const CONTACTS: u32 = 20_000;
    let stand = Stand::new().await;
    many(&stand.store, CONTACTS).await;
    let id = stand.launch(campaign("region = \"north\"")).await;
    let state = || async { stand.store.campaign_get(id).await.unwrap().unwrap() };
    let process = stand.start();
    eventually("it began", || async { state().await.chunks > 0 }).await;
    for _ in 0..5 {
        let mut tx = stand.store.begin().await.unwrap();
        let paused = tx.campaign_pause(id, "test", Timestamp::now()).await;
        tx.commit().await.unwrap();
        if paused.is_err() {
            break;
        }
        let position = state().await.chunks;
        let mut tx = stand.store.begin().await.unwrap();
        tx.campaign_resume(id, "test", Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
        eventually("it goes on", || async {
            let now = state().await;
            now.chunks > position || now.expanded_at.is_some()
        })
        .await;
    }
    stand.on_the_bus(id).await;
    process.stop().await;
    assert_eq!(distinct(&stand.jobs().await).len() as u32, CONTACTS);
    assert_eq!(state().await.planned, i64::from(CONTACTS));
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_phones_the_control_group_and_the_budget_are_suppressed_with_their_reasons() {
    let stand = Stand::new().await;
    let changes: Vec<ContactChange> = (0..400)
        .map(|number: u32| {
            // Two contacts a phone, far apart; the last ones have none.
            let phone = format!("+262692{:06}", number % 180);
            contact(
                &format!("c{number:03}"),
                (number < 360).then_some(phone.as_str()),
                "north",
            )
        })
        .collect();
    contacts(&stand.store, &changes).await;
    let mut new = campaign("region = \"north\"");
    new.control_percent = 20;
    new.budget_micros = Some(100 * 50_000);
    let id = stand.launch(new).await;
    let process = stand.start();
    stand.on_the_bus(id).await;
    process.stop().await;
    let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
    for record in stand.jobs().await {
        let job = Job::from_bytes(Job::KIND, &record.value).unwrap();
        jobs.insert(job.contact_id.clone(), job);
    }
    assert_eq!(jobs.len(), 400);
    let count = |reason| jobs.values().filter(|job| job.suppress == reason).count();
    let (control, duplicate, budget) = (
        count(Some(Reason::ControlGroup)),
        count(Some(Reason::DuplicatePhone)),
        count(Some(Reason::Budget)),
    );
    assert!((40..130).contains(&control), "{control}");
    // Whom the control group takes follows from the campaign's id; of the others that share a phone one is not a duplicate.
    let mut sharing: BTreeMap<u32, usize> = BTreeMap::new();
    for (contact, job) in &jobs {
        if contact.as_str() < "c360" && job.suppress != Some(Reason::ControlGroup) {
            *sharing.entry(contact[1..].parse::<u32>().unwrap() % 180).or_default() += 1;
        }
    }
    assert_eq!(duplicate, sharing.values().map(|sharing| sharing - 1).sum::<usize>());
    assert!(duplicate > 0);
    // A hundred messages are paid for; those without a phone cost nothing and are the renderer's.
    let paid = jobs
        .iter()
        .filter(|(contact, job)| job.suppress.is_none() && contact.as_str() < "c360")
        .count();
    assert_eq!((paid, control + duplicate + budget + count(None)), (100, 400));
    let phone = |contact: &str| contact[1..].parse::<u32>().unwrap() % 180;
    let mut phones = HashSet::new();
    for contact in jobs
        .iter()
        .filter(|(contact, job)| job.suppress.is_none() && contact.as_str() < "c360")
        .map(|(id, _)| id)
    {
        assert!(phones.insert(phone(contact)), "two messages to one phone");
    }
    assert_eq!(jobs["c000"].values["name"], "Soldes");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_consent_keeps_nobody_else_from_a_shared_phone() {
    let stand = Stand::new().await;
    let mut changes: Vec<ContactChange> = (0..4)
        .map(|number| contact(&format!("c{number}"), Some("+262692000001"), "north"))
        .collect();
    changes[0].marketing_consent = Some(Consent::No);
    changes[1].marketing_consent = None;
    contacts(&stand.store, &changes).await;
    let id = stand.launch(campaign("region = \"north\"")).await;
    let process = stand.start();
    stand.on_the_bus(id).await;
    process.stop().await;
    let jobs: BTreeMap<String, Option<Reason>> = stand
        .jobs()
        .await
        .iter()
        .map(|job| {
            (
                job.key.clone(),
                Job::from_bytes(Job::KIND, &job.value).unwrap().suppress,
            )
        })
        .collect();
    let expected = [
        ("c0", Some(Reason::NoConsent)),
        ("c1", Some(Reason::NoConsent)),
        ("c2", None),
        ("c3", Some(Reason::DuplicatePhone)),
    ];
    assert_eq!(jobs, expected.map(|(id, reason)| (id.to_owned(), reason)).into());
}

/// A campaign is paused, its segmenter killed, resumed, ten times: `TAMTAM_TEST_CAMPAIGN` contacts (100,000 is the whole).
#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_paused_killed_and_resumed_ten_times_writes_to_each_contact_once() {
    let size = std::env::var("TAMTAM_TEST_CAMPAIGN").map_or(10_000, |size| size.parse::<u32>().unwrap());
    let stand = Stand::new().await;
    many(&stand.store, size).await;
    let id = stand.launch(campaign("region = \"north\"")).await;
    let state = || async { stand.store.campaign_get(id).await.unwrap().unwrap() };
    let mut process = stand.start();
    for round in 1..=10 {
        // So far into the campaign, or at its end already.
        let due = i64::from(size) * round / 12;
        eventually("it goes on", || async {
            let now = state().await;
            now.planned >= due || now.expanded_at.is_some()
        })
        .await;
        let mut tx = stand.store.begin().await.unwrap();
        tx.campaign_pause(id, "test", Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
        process.kill();
        let position = state().await;
        process = stand.start();
        let mut tx = stand.store.begin().await.unwrap();
        tx.campaign_resume(id, "test", Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
        eventually("somebody takes it over", || async {
            let now = state().await;
            now.chunks > position.chunks || now.expanded_at.is_some()
        })
        .await;
    }
    stand.on_the_bus(id).await;
    process.stop().await;
    let jobs = stand.jobs().await;
    let contacts: HashSet<&str> = jobs.iter().map(|job| job.key.as_str()).collect();
    assert_eq!((contacts.len() as u32, distinct(&jobs).len() as u32), (size, size));
    assert_eq!(state().await.planned, i64::from(size));
    if !bus::is_kafka() {
        assert_eq!(jobs.len() as u32, size, "none twice");
    }
    assert_eq!(stand.store.audit(None, None).await.unwrap().violations, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_start_at_their_time_recur_and_finish() {
    let stand = Stand::new().await;
    let process = stand.start();
    // Nobody matches: started at its time, it is over at once.
    let mut new = campaign("region = \"nowhere\"");
    new.at = Some(Timestamp::now() + SignedDuration::from_millis(1_500));
    let id = stand.launch(new).await;
    let state = |id| {
        let store = stand.store.clone();
        async move { store.campaign_get(id).await.unwrap().unwrap().state }
    };
    assert_eq!(state(id).await, domain::CampaignState::Scheduled);
    eventually("it is finished", || async {
        state(id).await == domain::CampaignState::Finished
    })
    .await;

    let mut recurring = campaign("region = \"nowhere\"");
    recurring.id = Uuid::from_u128(recurring.id.as_u128() + 1);
    recurring.recurring = Some("* * * * *".into());
    let parent = stand.launch(recurring).await;
    eventually("it has a next time", || async {
        stand.store.campaign_get(parent).await.unwrap().unwrap().at.is_some()
    })
    .await;
    // Rather than wait for the minute, move the time to the last one.
    let minute = Timestamp::from_second(Timestamp::now().as_second() / 60 * 60).unwrap();
    let mut tx = stand.store.begin().await.unwrap();
    tx.campaign_reschedule(parent, minute, Timestamp::now()).await.unwrap();
    tx.commit().await.unwrap();
    eventually("an occurrence was made and is over", || async {
        let all = stand.store.campaign_list(None, 100).await.unwrap();
        all.iter()
            .any(|campaign| campaign.parent_id == Some(parent) && campaign.state == domain::CampaignState::Finished)
    })
    .await;
    let parent = stand.store.campaign_get(parent).await.unwrap().unwrap();
    assert_eq!(parent.state, domain::CampaignState::Scheduled);
    assert!(parent.at.is_some_and(|at| at > minute));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_are_dead_letters_and_the_rest_goes_on() {
    let stand = Stand::new().await;
    let process = stand.start();
    let mut published = vec![
        event("b1", "42", "order.placed", b"{\"amount\":"),
        event("b2", "42", "order.placed", b"\"text\""),
        event("b3", "42", "tamtam.job.v9", b"{}"),
        event("b4", "42", "order.placed", br#"{"a": "\u0000"}"#),
        event("b5", "42", "contact.updated", br#"{"phone": "12"}"#),
        event("b6", "42", "order.placed", b"{}"),
        event("good", "42", "order.placed", br#"{"amount": 1}"#),
    ];
    for header in &mut published[5].headers {
        if header.0 == "ce_time" {
            header.1 = "9999-12-01T00:00:00Z".into();
        }
    }
    stand.log.append(published).await.unwrap();
    eventually("the good one is there", || async {
        distinct(&stand.jobs().await).len() == 1
    })
    .await;
    eventually("the others are dead letters", || async {
        records(&*stand.log, Topic::DeadLetters).await.len() >= 6
    })
    .await;
    process.stop().await;
    let letters: BTreeMap<Uuid, DeadLetter> = records(&*stand.log, Topic::DeadLetters)
        .await
        .iter()
        .map(|record| DeadLetter::from_bytes(DeadLetter::KIND, &record.value).unwrap())
        .map(|letter| (letter.id, letter))
        .collect();
    assert_eq!(letters.len(), 6);
    assert!(
        letters
            .values()
            .all(|letter| letter.stage == "segmenter" && !letter.reason.is_empty())
    );
}
