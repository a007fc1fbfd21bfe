//! Jobs to texts and verdicts, on a real bus and a real database.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use ::bus::{Log, NewRecord, ReadLimits, StoredRecord};
use domain::{Cause, Class, Consent, Phone, Reason, State};
use events::{Envelope, Job, Outbound, Receipt, Record, Topic};
use jiff::Timestamp;
use serde_json::{Value, json};
use stage::{Clock, Live, RunnerConfig};
use store::{
    Store,
    contacts::ContactChange,
    messages::{ClaimWant, Claimant},
    suppressions::Scope,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{bus, campaign::drafted, database::database, resources::apply};

const RESOURCES: &str = r#"
[[template]]
name = "order"
class = "transactional"
sender = "36111"
text = "{{ contact.first_name | default('Bonjour') }}: 5 < 6 & \"{{ event.article }}\" { } {{ event.amount | money }}"

[[template]]
name = "sale"
class = "marketing"
sender = "BOUTIQUE"
language = "fr"
text = "{{ contact.first_name | default('Bonjour') }}, -20% sur {{ campaign.article }}"
validity = "3d"

[policy]
opt_out = "STOP au 36111"
"#;

/// A Tuesday, noon and eight in the evening on Réunion.
const NOON: &str = "2026-11-24T08:00:00Z";
const EVENING: &str = "2026-11-24T16:00:00Z";
const MORNING: &str = "2026-11-25T04:00:00Z";

struct Stand {
    store: Store,
    log: Arc<dyn Log>,
    time: Arc<AtomicI64>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Stand {
    async fn start(now: &str, policy: &str) -> Stand {
        let store = database().await;
        let log = bus::log(&store).await;
        let time = Arc::new(AtomicI64::new(0));
        let clock = {
            let time = time.clone();
            Clock::from_fn(move || Timestamp::from_second(time.load(Ordering::SeqCst)).unwrap())
        };
        apply(&store, &format!("{RESOURCES}{policy}")).await;
        let mut tx = store.begin().await.unwrap();
        let contact = |id: &str, phone: &str, name: &str, consent| ContactChange {
            id: id.into(),
            phone: Some((!phone.is_empty()).then(|| Phone::from_e164(phone))),
            first_name: Some((!name.is_empty()).then(|| name.to_owned())),
            marketing_consent: Some(consent),
            ..ContactChange::default()
        };
        let yes = Consent::Given(None);
        let changes = [
            contact("good", "+262692123401", "O'Brien & Söhne", yes),
            contact("nameless", "+262692123402", "", yes),
            contact("no-consent", "+262692123403", "Anna", Consent::No),
            contact("stopped", "+262692123404", "Anna", yes),
            contact("blocked", "+262692123405", "Anna", yes),
            contact("no-phone", "", "Anna", yes),
            contact("bad-phone", "+2626921", "Anna", yes),
        ];
        tx.contacts_upsert(&changes, "test", "test", Timestamp::now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let key = store.phone_key().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        for (phone, scope) in [("+262692123404", Scope::Marketing), ("+262692123405", Scope::All)] {
            tx.suppression_put(&key.hash(&Phone::from_e164(phone)), scope, "test", Timestamp::now())
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();

        let shutdown = CancellationToken::new();
        let live = Live::start(store.clone(), shutdown.clone()).await.unwrap();
        let config = renderer::Config {
            log: log.clone(),
            store: store.clone(),
            live,
            clock: clock.clone(),
            phone_key: key,
            runner: RunnerConfig::default(),
        };
        let renderer = renderer::run(config, shutdown.clone());
        let pump = stage::deferred::pump(log.clone(), store.clone(), clock, shutdown.clone());
        let stand = Stand {
            store,
            log,
            time,
            shutdown: shutdown.clone(),
            tasks: vec![tokio::spawn(async move { renderer.await.unwrap() }), tokio::spawn(pump)],
        };
        stand.set(now);
        stand
    }

    fn set(&self, now: &str) {
        self.time.store(at(now).as_second(), Ordering::SeqCst);
    }

    async fn append(&self, jobs: &[Job]) {
        let records = jobs
            .iter()
            .map(|job| {
                let id = job.message_id.to_string();
                NewRecord::wrap(Topic::Jobs, &job.contact_id, id, job.planned_at, Some(TRACE), job)
            })
            .collect();
        self.log.append(records).await.unwrap();
    }

    async fn read<R: Record>(&self, topic: Topic) -> Vec<(Envelope, R)> {
        let limits = ReadLimits {
            records: 1_000,
            bytes: 4 << 20,
            wait: Duration::from_secs(5),
        };
        let mut records: Vec<StoredRecord> = Vec::new();
        for bounds in self.log.bounds(topic).await.unwrap() {
            if bounds.first < bounds.end {
                records.extend(self.log.read(bounds.partition, bounds.first, limits).await.unwrap());
            }
        }
        records
            .iter()
            .map(|record| {
                let envelope = Envelope::from_headers(&record.headers).unwrap();
                let value = R::from_bytes(&envelope.kind, &record.value).unwrap();
                (envelope, value)
            })
            .collect()
    }

    /// Waits until a topic holds `count` records.
    async fn until<R: Record>(&self, topic: Topic, count: usize) -> Vec<(Envelope, R)> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let records = self.read(topic).await;
            if records.len() >= count {
                assert_eq!(records.len(), count, "{topic}");
                return records;
            }
            assert!(Instant::now() < end, "{} of {count} records on {topic}", records.len());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn until_state(&self, message: Uuid, state: State) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let row = self.store.message_get(message).await.unwrap();
            if row.as_ref().is_some_and(|row| row.state == state) {
                return;
            }
            assert!(Instant::now() < end, "{:?}, expected {state}", row.map(|row| row.state));
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Waits until a marketing message is passed on.
    async fn until_passed(&self, message: Uuid) {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.is_passed(message).await {
            assert!(Instant::now() < end, "not passed on");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn is_passed(&self, message: Uuid) -> bool {
        let passed = self.read::<Outbound>(Topic::OutboundBulk).await;
        passed.iter().any(|(_, outbound)| outbound.message_id == message)
    }

    /// Appends jobs of a campaign that was just paused, from `first` on, until one of them is held; that one. The renderer
    /// lets those through that it sees before its snapshot follows: holding them is the dispatcher's part.
    async fn held(&self, campaign: Uuid, first: u128) -> Uuid {
        for number in first.. {
            let cause = Cause::Campaign {
                campaign_id: campaign.to_string(),
            };
            let id = Uuid::from_u128(number);
            let next = Job {
                cause,
                ..job(number, "good", "sale", json!({"article": "x"}))
            };
            self.append(&[next]).await;
            let end = Instant::now() + Duration::from_secs(60);
            loop {
                if let Some(row) = self.store.message_get(id).await.unwrap() {
                    assert_eq!(row.state, State::Deferred);
                    return id;
                }
                if self.is_passed(id).await {
                    break;
                }
                assert!(Instant::now() < end);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        unreachable!()
    }

    async fn campaign(&self) -> Uuid {
        let id = Uuid::from_u128(0xCA);
        let new = drafted(id, "c", "age < 30", "sale");
        let mut tx = self.store.begin().await.unwrap();
        tx.campaign_create(&new, "test", at(NOON)).await.unwrap();
        tx.campaign_launch(id, None, "age < 30", "test", at(NOON))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn job(number: u128, contact: &str, template: &str, values: Value) -> Job {
    let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
    Job {
        message_id: Uuid::from_u128(number),
        contact_id: contact.into(),
        cause: Cause::Direct {
            idempotency_key: number.to_string(),
        },
        template: template.into(),
        caused_at: at(NOON),
        planned_at: at(NOON),
        deadline: None,
        event: map(&values),
        values: map(&values),
        deferrals: 0,
        suppress: None,
        phone: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_arrives_as_it_was_typed_and_what_does_not_go_says_why() {
    let stand = Stand::start(NOON, "").await;
    let article = || json!({"article": "<b>l'été</b>", "amount": 12.5});
    let cases = [
        ("good", "sale", json!({}), Some(Reason::MissingValue)),
        ("good", "none", article(), Some(Reason::UnknownTemplate)),
        ("nobody", "order", article(), Some(Reason::UnknownContact)),
        ("no-consent", "sale", article(), Some(Reason::NoConsent)),
        ("stopped", "sale", article(), Some(Reason::Stopped)),
        ("blocked", "order", article(), Some(Reason::Blocked)),
        ("no-phone", "order", article(), Some(Reason::NoPhone)),
        ("bad-phone", "order", article(), Some(Reason::InvalidPhone)),
        (
            "good",
            "order",
            json!({"article": "x", "amount": "much"}),
            Some(Reason::TemplateFailed),
        ),
        ("good", "order", article(), None),
        ("no-consent", "order", article(), None),
        ("stopped", "order", article(), None),
        ("nameless", "sale", article(), None),
    ];
    let mut jobs: Vec<Job> = Vec::new();
    let mut expected = BTreeMap::new();
    for (number, (contact, template, values, reason)) in (1..).zip(cases) {
        jobs.push(job(number, contact, template, values));
        expected.extend(reason.map(|reason| (Uuid::from_u128(number), reason)));
    }
    // Decided when it was planned.
    jobs.push(Job {
        suppress: Some(Reason::ControlGroup),
        ..job(100, "good", "sale", article())
    });
    expected.insert(Uuid::from_u128(100), Reason::ControlGroup);
    // Delivered twice: once is enough.
    jobs.push(jobs[9].clone());
    stand.append(&jobs).await;

    let receipts = stand.until::<Receipt>(Topic::Receipts, expected.len()).await;
    let reasons: BTreeMap<Uuid, Reason> = receipts
        .iter()
        .map(|(envelope, receipt)| {
            assert_eq!(envelope.id, format!("{}:suppressed", receipt.message_id));
            assert_eq!(
                envelope.traceparent.as_deref().map(|trace| &trace[..35]),
                Some(&TRACE[..35])
            );
            assert_eq!(receipt.state, State::Suppressed);
            (receipt.message_id, receipt.reason.unwrap())
        })
        .collect();
    assert_eq!(reasons, expected);

    let bulk = stand.until::<Outbound>(Topic::OutboundBulk, 1).await;
    assert_eq!(bulk[0].1.text, "Bonjour, -20% sur <b>l'été</b> STOP au 36111");
    assert_eq!(bulk[0].1.class, Class::Marketing);
    // Three days after it was planned it is not worth sending.
    assert_eq!(bulk[0].1.deadline, Some(at("2026-11-27T08:00:00Z")));
    let ends = Instant::now() + Duration::from_secs(60);
    let texts = loop {
        let texts = stand.read::<Outbound>(Topic::OutboundTransactional).await;
        let ids: HashSet<Uuid> = texts.iter().map(|(_, outbound)| outbound.message_id).collect();
        if ids.len() == 3 {
            break texts;
        }
        assert!(Instant::now() < ends, "{} texts", ids.len());
        tokio::time::sleep(Duration::from_millis(30)).await;
    };
    let (envelope, first) = texts
        .iter()
        .find(|(_, outbound)| outbound.contact_id == "good")
        .unwrap();
    assert_eq!(first.text, "O'Brien & Söhne: 5 < 6 & \"<b>l'été</b>\" { } 12,50 €");
    assert_eq!((first.parts, first.encoding.as_str(), first.attempt), (1, "GSM-7", 0));
    assert_eq!(envelope.id, first.message_id.to_string());
    assert_eq!(envelope.subject.as_deref(), Some("good"));
    stand.stop().await;
}

/// Somebody who is no contact wrote to us, and is answered.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_stranger_goes_to_the_phone_that_it_names() {
    let stand = Stand::start(NOON, "").await;
    let answer = |number, contact: &str, phone: &str| Job {
        phone: Some(Phone::from_e164(phone)),
        ..job(number, contact, "order", json!({"article": "x", "amount": 1}))
    };
    let jobs = [
        answer(1, "00aa", "+262692123477"),
        // Blocked, whoever's it is.
        answer(2, "00bb", "+262692123405"),
        // Somebody who became a contact meanwhile is one.
        answer(3, "good", "+262692123477"),
        // No consent can be told from a phone alone.
        Job {
            template: "sale".into(),
            ..answer(4, "00cc", "+262692123477")
        },
    ];
    stand.append(&jobs).await;
    let receipts = stand.until::<Receipt>(Topic::Receipts, 2).await;
    let reasons: BTreeMap<Uuid, Option<Reason>> = receipts
        .iter()
        .map(|(_, receipt)| (receipt.message_id, receipt.reason))
        .collect();
    let expected = BTreeMap::from([
        (Uuid::from_u128(2), Some(Reason::Blocked)),
        (Uuid::from_u128(4), Some(Reason::NoConsent)),
    ]);
    assert_eq!(reasons, expected);
    let texts = stand.until::<Outbound>(Topic::OutboundTransactional, 2).await;
    let phones: BTreeMap<&str, &str> = texts
        .iter()
        .map(|(_, outbound)| (outbound.contact_id.as_str(), outbound.phone.e164()))
        .collect();
    assert_eq!(
        phones,
        BTreeMap::from([("00aa", "+262692123477"), ("good", "+262692123401")])
    );
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_hours_put_off_and_a_deadline_before_they_end_expires() {
    let stand = Stand::start(EVENING, "").await;
    let article = json!({"article": "x"});
    stand
        .append(&[
            job(1, "good", "sale", article.clone()),
            Job {
                deadline: Some(at(MORNING)),
                ..job(2, "nameless", "sale", article.clone())
            },
            Job {
                deadline: Some(at(EVENING)),
                ..job(3, "nameless", "order", json!({"article": "x", "amount": 1}))
            },
        ])
        .await;
    let receipts = stand.until::<Receipt>(Topic::Receipts, 3).await;
    // Rule, version and clock of each decision stay on its own receipt, whatever is decided later.
    for (_, receipt) in &receipts {
        let rules = receipt.decided_by.as_deref().unwrap_or_default();
        assert!(rules.starts_with("policy 1, territories "), "{rules}");
        assert_eq!(receipt.at, at(EVENING));
    }
    let told: BTreeMap<Uuid, (State, Option<Reason>)> = receipts
        .into_iter()
        .map(|(_, receipt)| (receipt.message_id, (receipt.state, receipt.reason)))
        .collect();
    assert_eq!(
        told.into_values().collect::<Vec<_>>(),
        [
            (State::Deferred, Some(Reason::QuietHours)),
            (State::Expired, Some(Reason::QuietHours)),
            (State::Expired, Some(Reason::DeadlinePassed)),
        ]
    );
    assert_eq!(stand.store.deferred_next_due().await.unwrap(), Some(at(MORNING)));
    // A STOP in the night is heard in the morning; who did not send one gets the text.
    stand.append(&[job(4, "no-consent", "sale", article.clone())]).await;
    let key = stand.store.phone_key().await.unwrap();
    let later = job(5, "nameless", "sale", article);
    stand.append(&[later]).await;
    stand.until_state(Uuid::from_u128(5), State::Deferred).await;
    let mut tx = stand.store.begin().await.unwrap();
    let phone = key.hash(&Phone::from_e164("+262692123402"));
    tx.suppression_put(&phone, Scope::Marketing, "reply", at(EVENING))
        .await
        .unwrap();
    tx.commit().await.unwrap();

    stand.set(MORNING);
    stand.until_state(Uuid::from_u128(5), State::Suppressed).await;
    let bulk = stand.until::<Outbound>(Topic::OutboundBulk, 1).await;
    assert_eq!(bulk[0].1.message_id, Uuid::from_u128(1));
    assert_eq!(bulk[0].1.rendered_at, at(MORNING));
    assert_eq!(stand.store.deferred_count().await.unwrap(), (0, 0));
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_campaign_waits_and_a_cancelled_one_ends() {
    let stand = Stand::start(NOON, "").await;
    let campaign = stand.campaign().await;
    let mut tx = stand.store.begin().await.unwrap();
    tx.campaign_pause(campaign, "test", at(NOON)).await.unwrap();
    tx.commit().await.unwrap();
    let held = stand.held(campaign, 1).await;
    assert_eq!(stand.store.deferred_count().await.unwrap(), (1, 1));

    let mut tx = stand.store.begin().await.unwrap();
    tx.campaign_resume(campaign, "test", at(NOON)).await.unwrap();
    tx.commit().await.unwrap();
    stand.until_passed(held).await;

    let mut tx = stand.store.begin().await.unwrap();
    tx.campaign_pause(campaign, "test", at(NOON)).await.unwrap();
    tx.commit().await.unwrap();
    let held = stand.held(campaign, 1_000).await;
    let mut tx = stand.store.begin().await.unwrap();
    tx.campaign_cancel(campaign, "test", at(NOON)).await.unwrap();
    tx.commit().await.unwrap();
    stand.until_state(held, State::Cancelled).await;
    let row = stand.store.message_get(held).await.unwrap().unwrap();
    assert_eq!(row.reason, Some(Reason::CampaignCancelled));
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trigger_put_off_ends_when_the_trigger_is_switched_off() {
    let stand = Stand::start(EVENING, "").await;
    let trigger = |name: &str, active: bool| {
        format!("[[trigger]]\nname = \"{name}\"\non = \"cart.left\"\nactive = {active}\ntemplate = \"sale\"\n")
    };
    apply(&stand.store, &(trigger("off", true) + &trigger("on", true))).await;
    let caused = |number: u128, trigger: &str, contact: &str| Job {
        cause: Cause::Trigger {
            trigger: trigger.into(),
            event_source: "shop".into(),
            event_id: number.to_string(),
        },
        ..job(number, contact, "sale", json!({"article": "x"}))
    };
    stand
        .append(&[caused(1, "off", "good"), caused(2, "on", "nameless")])
        .await;
    for number in [1, 2] {
        stand.until_state(Uuid::from_u128(number), State::Deferred).await;
    }
    apply(&stand.store, &trigger("off", false)).await;
    stand.set(MORNING);
    stand.until_state(Uuid::from_u128(1), State::Cancelled).await;
    stand.until_passed(Uuid::from_u128(2)).await;
    let row = stand.store.message_get(Uuid::from_u128(1)).await.unwrap().unwrap();
    assert_eq!(row.reason, Some(Reason::TriggerOff));
    assert!(!stand.is_passed(Uuid::from_u128(1)).await);
    let receipts = stand.read::<Receipt>(Topic::Receipts).await;
    let told = receipts
        .iter()
        .filter(|(_, receipt)| receipt.reason == Some(Reason::TriggerOff));
    let told: Vec<(Uuid, State)> = told.map(|(_, receipt)| (receipt.message_id, receipt.state)).collect();
    assert_eq!(told, [(Uuid::from_u128(1), State::Cancelled)]);
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_no_job_stops_nobody() {
    let stand = Stand::start(NOON, "").await;
    let mut bad = NewRecord::wrap(
        Topic::Jobs,
        "good",
        "1".into(),
        at(NOON),
        None,
        &job(1, "good", "order", json!({})),
    );
    bad.value = b"{\"message_id\": ".to_vec();
    let mut future = bad.clone();
    future.headers.iter_mut().for_each(|(name, value)| {
        if name == "ce_type" {
            *value = "tamtam.job.v2".into();
        }
    });
    stand.log.append(vec![bad, future]).await.unwrap();
    let good = job(2, "good", "order", json!({"article": "x", "amount": 1}));
    stand.append(&[good]).await;
    stand.until::<Outbound>(Topic::OutboundTransactional, 1).await;
    let dead = stand.until::<events::DeadLetter>(Topic::DeadLetters, 2).await;
    let mut reasons: Vec<&str> = dead.iter().map(|(_, letter)| letter.reason.as_str()).collect();
    reasons.sort_unstable();
    assert!(reasons[0].starts_with("malformed tamtam.job.v1"), "{reasons:?}");
    assert!(reasons[1].contains("tamtam.job.v2"), "{reasons:?}");
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_text_goes_once() {
    let stand = Stand::start(NOON, "same_text_within = \"7d\"\n").await;
    let sale = |number, article: &str| job(number, "good", "sale", json!({"article": article}));
    stand.append(&[sale(1, "x"), sale(2, "x"), sale(3, "y")]).await;
    stand.until_state(Uuid::from_u128(2), State::Suppressed).await;
    let row = stand.store.message_get(Uuid::from_u128(2)).await.unwrap().unwrap();
    assert_eq!((row.reason, row.parts), (Some(Reason::DuplicateText), 1));
    stand.until_passed(Uuid::from_u128(3)).await;
    // The same message again is not its own repetition; another one is, and eight days later it is not.
    stand.append(&[sale(1, "x"), sale(4, "y")]).await;
    stand.until_state(Uuid::from_u128(4), State::Suppressed).await;
    assert_eq!(stand.store.message_get(Uuid::from_u128(1)).await.unwrap(), None);
    stand.set("2026-12-02T08:00:00Z");
    let late = Job {
        planned_at: at("2026-12-02T08:00:00Z"),
        ..sale(5, "y")
    };
    stand.append(&[late]).await;
    stand.until_passed(Uuid::from_u128(5)).await;
    assert_eq!(
        stand.store.texts_prune(at("2026-12-02T00:00:00Z"), 10).await.unwrap(),
        1
    );
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_counts_what_was_sent() {
    let stand = Stand::start(
        NOON,
        "[[policy.cap]]\nmessages = 1\nper = \"1h\"\n[[policy.cap]]\nmessages = 2\nper = \"7d\"\n",
    )
    .await;
    let sent = async |number: u128, when: &str| {
        let claimant = Claimant {
            owner: Uuid::nil(),
            now: at(when),
            resend_transactional: true,
            max_attempts: 3,
        };
        let want = ClaimWant {
            contact_id: "good".into(),
            message_id: Uuid::from_u128(number),
            cause: Cause::Direct {
                idempotency_key: number.to_string(),
            },
            class: Class::Marketing,
            template: "sale".into(),
            variant: None,
            encoding: "GSM-7".into(),
            parts: 1,
            cost_micros: 0,
            phone_hash: vec![0; 32],
            caused_at: at(when),
            planned_at: at(when),
            rendered_at: at(when),
            attempt: 0,
            gateway: "g".into(),
            epoch: 0,
            traceparent: None,
            again: false,
        };
        let mut tx = stand.store.begin().await.unwrap();
        assert!(tx.messages_claim(&[want], &claimant).await.unwrap()[0].granted);
        tx.commit().await.unwrap();
    };
    let sale = |number, contact| job(number, contact, "sale", json!({"article": "x"}));
    sent(100, "2026-11-23T08:00:00Z").await;
    stand.append(&[sale(1, "good")]).await;
    stand.until_passed(Uuid::from_u128(1)).await;
    // Two within the week, none within the hour.
    sent(101, "2026-11-24T06:00:00Z").await;
    stand
        .append(&[sale(2, "good"), sale(3, "nameless"), sale(4, "nameless")])
        .await;
    stand.until_state(Uuid::from_u128(2), State::Suppressed).await;
    let row = stand.store.message_get(Uuid::from_u128(2)).await.unwrap().unwrap();
    assert_eq!(row.reason, Some(Reason::CapReached));
    stand.until_passed(Uuid::from_u128(3)).await;
    // Transactional messages have no caps.
    stand
        .append(&[job(9, "good", "order", json!({"article": "x", "amount": 1}))])
        .await;
    stand.until::<Outbound>(Topic::OutboundTransactional, 1).await;
    stand.stop().await;
}
