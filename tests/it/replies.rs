//! What comes of texts that people send, by way of HTTP gateways: each is one reply however often it is brought and in however
//! many parts, and is answered once.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use domain::{Consent, Phone, id::reply_id};
use events::{Inbound, Job, Record, Topic};
use jiff::{SignedDuration, Timestamp};
use reqwest::Client;
use serde_json::json;
use stage::{Clock, Live, RunnerConfig};
use store::{contacts::ContactChange, suppressions::Scope};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{dispatcher_stand::Stand, support::simulator::eventually};

/// Nothing is sent by these gateways.
const RESOURCES: &str = r#"
[[gateway]]
name = "tw"
kind = "http"
address = "http://127.0.0.1:9/send"
rate = 100
http = { profile = "twilio" }

[[gateway]]
name = "vo"
kind = "http"
address = "http://127.0.0.1:9/send"
rate = 100
http = { profile = "vonage" }

[[template]]
name = "answer"
class = "transactional"
sender = "36105"
text = "Bien."

[policy]
quiet_hours = "off"

[[policy.keyword]]
does = "stop"
answer = "answer"

[[policy.keyword]]
does = "start"
answer = "answer"

[[policy.keyword]]
does = "help"
answer = "answer"

[[policy.keyword]]
does = "points"
words = ["mes points"]
answer = "answer"
"#;

const KNOWN: &str = "+262692123456";
const STRANGER: &str = "+262692999999";

/// A collector and one contact, `42`, whose phone is [`KNOWN`].
struct Phones {
    stand: Stand,
    address: String,
    client: Client,
    minutes: Arc<AtomicI64>,
    sent: AtomicUsize,
    _collector: DropGuard,
}

impl Phones {
    async fn new() -> Phones {
        let stand = Stand::new(RESOURCES).await;
        let contact = ContactChange {
            id: "42".into(),
            phone: Some(Some(Phone::from_e164(KNOWN))),
            marketing_consent: Some(Consent::Given(None)),
            ..ContactChange::default()
        };
        let mut tx = stand.store.begin().await.unwrap();
        tx.contacts_upsert(&[contact], "test", "test", Timestamp::now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (stop, minutes, begun) = (CancellationToken::new(), Arc::new(AtomicI64::new(0)), Timestamp::now());
        let clock = {
            let minutes = minutes.clone();
            Clock::from_fn(move || begun + SignedDuration::from_mins(minutes.load(Ordering::SeqCst)))
        };
        let config = receipt_collector::Config {
            log: stand.log.clone(),
            store: stand.store.clone(),
            live: Live::start(stand.store.clone(), stop.clone()).await.unwrap(),
            clock,
            phone_key: stand.key.clone(),
            runner: RunnerConfig::default(),
            listener,
            secrets: Arc::new(|_| None),
            trusted_proxies: Vec::new(),
        };
        tokio::spawn(receipt_collector::run(config, stop.clone()));
        Phones {
            stand,
            address,
            client: Client::builder().no_proxy().build().unwrap(),
            minutes,
            sent: AtomicUsize::new(0),
            _collector: stop.drop_guard(),
        }
    }

    fn pass(&self, minutes: i64) {
        self.minutes.fetch_add(minutes, Ordering::SeqCst);
    }

    /// As Twilio brings a text.
    async fn brings(&self, id: &str, from: &str, text: &str) {
        let url = format!("{}/callbacks/tw", self.address);
        let form = [("MessageSid", id), ("From", from), ("To", "36105"), ("Body", text)];
        let answer = self.client.post(url).form(&form).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// A text that was never brought before.
    async fn writes(&self, from: &str, text: &str) {
        let number = self.sent.fetch_add(1, Ordering::SeqCst);
        self.brings(&format!("SM-new-{number}"), from, text).await;
    }

    /// As Vonage brings a part of a text.
    async fn brings_part(&self, id: &str, reference: u8, (number, total): (u8, u8), text: &str) {
        let url = format!("{}/callbacks/vo", self.address);
        let body = json!({
            "msisdn": KNOWN.trim_start_matches('+'), "to": "36105", "messageId": id, "text": text, "type": "text",
            "concat": "true", "concat-ref": reference.to_string(), "concat-total": total.to_string(),
            "concat-part": number.to_string(),
        });
        let answer = self.client.post(url).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    async fn all<R: Record>(&self, topic: Topic) -> Vec<R> {
        let records = self.stand.all(topic).await;
        let read = |value: &[u8]| R::from_bytes(R::KIND, value).unwrap();
        records.iter().map(|record| read(&record.value)).collect()
    }

    /// The replies, once there are so many, and no more.
    async fn replies(&self, count: usize) -> Vec<Inbound> {
        let replies = eventually("the replies", || async {
            let replies: Vec<Inbound> = self.all(Topic::Inbound).await;
            (replies.len() >= count).then_some(replies)
        })
        .await;
        assert_eq!(replies.len(), count);
        replies
    }

    /// The same for the answers to them.
    async fn answers(&self, count: usize) -> Vec<Job> {
        let jobs = eventually("the answers", || async {
            let jobs: Vec<Job> = self.all(Topic::Jobs).await;
            (jobs.len() >= count).then_some(jobs)
        })
        .await;
        assert_eq!(jobs.len(), count);
        jobs
    }

    async fn is_shut_off(&self, phone: &str) -> bool {
        let hash = self.stand.key.hash(&Phone::from_e164(phone));
        let mut tx = self.stand.store.begin().await.unwrap();
        let found = tx.suppressions_get(std::slice::from_ref(&hash)).await.unwrap();
        tx.commit().await.unwrap();
        found.contains_key(&hash)
    }

    async fn consent(&self) -> Consent {
        let contact = self.stand.store.contact_get("42").await.unwrap();
        contact.unwrap().marketing_consent
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_brought_again_is_the_same_one() {
    let phones = Phones::new().await;
    phones.brings("SM1", KNOWN, "start").await;
    phones.brings("SM2", KNOWN, "STOP").await;
    phones.replies(2).await;
    // Our answer to the first was lost, and half an hour later the gateway brings it again; another person's is another.
    phones.pass(30);
    phones.brings("SM1", KNOWN, "start").await;
    phones.brings("SM2", KNOWN, "STOP").await;
    phones.brings("SM1", KNOWN, "start").await;
    phones.brings("SM1", STRANGER, "start").await;
    // One phone's texts come to one reader in their order: what follows them says that they were read.
    phones.writes(KNOWN, "merci").await;
    let replies = phones.replies(4).await;
    let ids: HashSet<_> = replies.iter().map(|reply| reply.id).collect();
    assert_eq!(ids.len(), 4);
    let hash = phones.stand.key.hash(&Phone::from_e164(KNOWN));
    for id in ["SM1", "SM2"] {
        assert!(ids.contains(&reply_id("tw", id, &hash)), "{id}");
    }
    assert!(
        phones.is_shut_off(KNOWN).await,
        "a START of before STOP does not lift it"
    );
    assert_eq!(phones.consent().await, Consent::No);
    phones.answers(3).await;
    // The same words once more are a new reply.
    phones.brings("SM3", KNOWN, "start").await;
    phones.replies(5).await;
    assert!(!phones.is_shut_off(KNOWN).await);
    assert!(phones.consent().await.is_given());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_keyword_is_answered_once_in_its_time_whoever_writes_it() {
    let phones = Phones::new().await;
    // Shut off before, by somebody else: whoever writes STOP wants to know that it was heard.
    let hash = phones.stand.key.hash(&Phone::from_e164(KNOWN));
    let mut tx = phones.stand.store.begin().await.unwrap();
    tx.suppression_put(&hash, Scope::Marketing, "import", Timestamp::now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let words = ["STOP", "aide", "mes points", "start"];
    for from in [KNOWN, STRANGER] {
        for word in words {
            for _ in 0..3 {
                phones.writes(from, word).await;
            }
        }
    }
    phones.replies(24).await;
    phones.answers(8).await;
    phones.pass(11);
    for from in [KNOWN, STRANGER] {
        for word in words {
            phones.writes(from, word).await;
        }
    }
    phones.replies(32).await;
    let answers = phones.answers(16).await;
    let ids: HashSet<_> = answers.iter().map(|job| job.message_id).collect();
    assert_eq!(ids.len(), 16);

    // Who is no contact is answered where the text came from, and nothing is kept of the phone but its hash.
    let hash: String = phones
        .stand
        .key
        .hash(&Phone::from_e164(STRANGER))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (strangers, known): (Vec<&Job>, Vec<&Job>) = answers.iter().partition(|job| job.phone.is_some());
    assert_eq!((strangers.len(), known.len()), (8, 8));
    assert!(known.iter().all(|job| job.contact_id == "42"));
    for job in strangers {
        assert_eq!(job.contact_id, hash);
        assert_eq!(job.phone.as_ref().map(Phone::e164), Some(STRANGER));
    }
    assert!(phones.stand.store.contact_get(&hash).await.unwrap().is_none());

    // A short code cannot be answered, and would go on for ever if it could.
    phones.writes("38080", "STOP").await;
    phones.replies(33).await;
    phones.answers(16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_in_parts_is_one_and_a_part_is_no_keyword() {
    let phones = Phones::new().await;
    // They come in any order.
    phones.brings_part("A2", 7, (2, 2), "stop").await;
    phones
        .brings_part("A1", 7, (1, 2), "Je vous le dis pour la dernière fois : ")
        .await;
    let replies = phones.replies(1).await;
    let hash = phones.stand.key.hash(&Phone::from_e164(KNOWN));
    let first = &replies[0];
    assert_eq!((first.id, first.parts), (reply_id("vo", "A1", &hash), Some(2)));
    assert_eq!((first.keyword.as_deref(), first.needs_review), (None, true));
    assert_eq!(first.contact_id.as_deref(), Some("42"));
    assert!(!phones.is_shut_off(KNOWN).await);
    let waiting = phones.stand.store.reply_reviews(10).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].text, "Je vous le dis pour la dernière fois : stop");

    // Brought again, within the time of a reference or after it, they are no second one.
    for minutes in [1, 30] {
        phones.pass(minutes);
        phones
            .brings_part("A1", 7, (1, 2), "Je vous le dis pour la dernière fois : ")
            .await;
        phones.brings_part("A2", 7, (2, 2), "stop").await;
    }
    // The reference comes round again, and what two parts say together is what was meant.
    phones.brings_part("B1", 7, (1, 2), "ST").await;
    phones.brings_part("B2", 7, (2, 2), "OP").await;
    let replies = phones.replies(2).await;
    let keywords: Vec<_> = replies.iter().map(|reply| reply.keyword.as_deref()).collect();
    assert_eq!(keywords, [None, Some("stop")]);
    assert!(phones.is_shut_off(KNOWN).await);
    let answers = phones.answers(1).await;
    assert_eq!(answers[0].template, "answer");
}
