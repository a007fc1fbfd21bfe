//! What comes to the callbacks' edge from outside: who is let in, what is counted, what is kept when the bus fails and when
//! the collector dies.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use ::bus::StoredRecord;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::{Class, State};
use events::{Envelope, Outbound, Receipt, Topic};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use reqwest::Client;
use serde_json::json;
use sha1::Sha1;
use sha2::Sha256;
use stage::{Clock, Live, RunnerConfig};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::{
    dispatcher_stand::{Dispatcher, Stand, outbound},
    support::{process::Process, simulator::eventually},
};

const MAX_BODY: usize = 64 * 1024;
pub const FORM: &str = "application/x-www-form-urlencoded";
pub const JSON: &str = "application/json";
/// Two secrets that hold at once, as while one replaces the other.
const OLD: &str = "whsec_b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQ=";
const NEW: &str = "whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXc=";
const OTHER: &str = "whsec_b3RoZXItb3RoZXItb3RoZXItb3RoZXI=";
const TWILIO_URL: &str = "https://sms.example.org/callbacks/calls";

/// Gateways that prove themselves each in its way. Nothing is sent by them.
fn gateways() -> String {
    format!(
        r#"
[[gateway]]
name = "hooks"
kind = "http"
address = "http://127.0.0.1:9/send"
rate = 100
callback_secret = "{OLD} {NEW}"
http = {{ profile = "vonage", callback = {{ auth = "standard-webhooks" }} }}

[[gateway]]
name = "calls"
kind = "http"
address = "http://127.0.0.1:9/send"
rate = 100
system_id = "account"
callback_url = "{TWILIO_URL}?reference=x"
callback_secret = "token"
http = {{ profile = "twilio", callback = {{ auth = "twilio" }} }}

[[gateway]]
name = "shared"
kind = "http"
address = "http://127.0.0.1:9/send"
rate = 100
callback_secret = "s3cret"
http = {{ profile = "vonage" }}

[[gateway]]
name = "lost"
kind = "http"
address = "http://127.0.0.1:9/send"
rate = 100
callback_secret_env = "NOWHERE_TO_BE_FOUND"
http = {{ profile = "vonage" }}

[[gateway]]
name = "near"
kind = "http"
address = "http://127.0.0.1:9/send"
rate = 100
callback_addresses = ["127.0.0.1"]
http = {{ profile = "vonage" }}

[[gateway]]
name = "far"
kind = "http"
address = "http://127.0.0.1:9/send"
rate = 100
callback_addresses = ["203.0.113.0/24", "2001:db8::/32"]
http = {{ profile = "vonage" }}
"#
    )
}

/// A receipt as Vonage posts it.
fn receipt(id: &str) -> String {
    json!({ "messageId": id, "status": "delivered", "err-code": "0" }).to_string()
}

pub fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

/// A callback to be posted.
pub struct Call {
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Call {
    pub fn new(path: impl Into<String>, kind: &str, body: impl Into<Vec<u8>>) -> Call {
        Call {
            path: path.into(),
            headers: vec![("content-type", kind.to_owned())],
            body: body.into(),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Call {
        self.headers.push((name, value.into()));
        self
    }

    /// Signed as the Standard Webhooks 1.0.0 have it.
    fn signed(self, secret: &str, sent: i64) -> Call {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("msg_1.{sent}.").as_bytes());
        mac.update(&self.body);
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        self.with("webhook-id", "msg_1")
            .with("webhook-timestamp", sent.to_string())
            .with("webhook-signature", format!("v1,bm90IGl0 v1,{signature}"))
    }

    async fn send(self, client: &Client, address: &str) -> reqwest::Result<u16> {
        let mut request = client.post(format!("{address}{}", self.path)).body(self.body);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        Ok(request.send().await?.status().as_u16())
    }

    pub async fn status(self, client: &Client, address: &str) -> u16 {
        self.send(client, address).await.unwrap()
    }
}

/// What Twilio puts into its header: over the address and the sorted fields.
fn twilio_signature(token: &str, query: &str, fields: &[(&str, &str)]) -> String {
    let mut fields = fields.to_vec();
    fields.sort_unstable();
    let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).unwrap();
    mac.update(format!("{TWILIO_URL}?{query}").as_bytes());
    for (name, value) in fields {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    STANDARD.encode(mac.finalize().into_bytes())
}

/// A collector as a process of its own, with these settings beside the stand's.
async fn process(stand: &Stand, directory: &Path, name: &'static str, settings: &[(&str, &str)]) -> Process {
    let mut environment: BTreeMap<String, String> = stand.environment().into_iter().collect();
    environment.extend(
        settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    let path = directory.to_owned();
    let arguments = ["receipt-collector", "--free-ports"];
    tokio::task::spawn_blocking(move || Process::start_named(&path, name, &arguments, &environment))
        .await
        .unwrap()
}

/// How many callbacks the process says ended so.
async fn counted(client: &Client, process: &Process, result: &str) -> u64 {
    let metrics = format!("{}/metrics", process.at("metrics"));
    let text = client.get(metrics).send().await.unwrap().text().await.unwrap();
    let name = format!("tamtam_callbacks_total{{result=\"{result}\"}} ");
    text.lines()
        .find_map(|line| line.strip_prefix(&name))
        .map_or(0, |number| number.trim().parse().unwrap())
}

/// A collector in this process that goes by the test's clock. It ends with its guard.
pub async fn collector(stand: &Stand, clock: Clock, listener: TcpListener) -> DropGuard {
    let stop = CancellationToken::new();
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
    stop.drop_guard()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_prove_its_origin_or_is_too_large_is_refused_counted_and_not_kept() {
    let stand = Stand::new(&gateways()).await;
    let directory = tempfile::tempdir().unwrap();
    let process = process(&stand, directory.path(), "collector", &[]).await;
    let (client, address) = (client(), process.at("callbacks").to_owned());
    let now = Timestamp::now().as_second();
    let fields = [("MessageStatus", "delivered"), ("MessageSid", "SM1"), ("To", "+1 & 2")];
    let form = "MessageStatus=delivered&MessageSid=SM1&To=%2B1+%26+2";
    let hook = || Call::new("/callbacks/hooks", JSON, receipt("A1"));
    let call = || Call::new("/callbacks/calls?reference=x", FORM, form);
    let shared = |query: &str| Call::new(format!("/callbacks/shared{query}"), JSON, receipt("A1"));
    let twilio = |token: &str, query: &str| twilio_signature(token, query, &fields);

    let good = [
        ("the secret that goes", hook().signed(OLD, now)),
        ("the secret that comes", hook().signed(NEW, now)),
        (
            "Twilio's",
            call().with("x-twilio-signature", twilio("token", "reference=x")),
        ),
        ("a secret in the query", shared("?secret=s3cret")),
        ("in a header", shared("").with("x-callback-secret", "s3cret")),
        ("as a token", shared("").with("authorization", "Bearer s3cret")),
        (
            "64 KiB",
            Call::new("/callbacks/shared?secret=s3cret", FORM, vec![b'x'; MAX_BODY]),
        ),
    ];
    let kept = good.len();
    for (what, call) in good {
        assert_eq!(call.status(&client, &address).await, 200, "{what}");
    }
    let other_body = Call {
        body: receipt("A2").into(),
        ..hook().signed(OLD, now)
    };
    let mut other_id = hook().signed(OLD, now);
    other_id.headers.retain(|(name, _)| *name != "webhook-id");
    let mut other_time = hook().signed(OLD, now);
    other_time.headers.retain(|(name, _)| *name != "webhook-timestamp");
    let wrong = [
        ("no signature", hook()),
        ("another secret", hook().signed(OTHER, now)),
        ("another body", other_body),
        ("another id", other_id.with("webhook-id", "msg_2")),
        (
            "another time",
            other_time.with("webhook-timestamp", (now - 1).to_string()),
        ),
        ("an hour old", hook().signed(OLD, now - 3_600)),
        (
            "the secret itself, for a signature",
            hook().with("x-callback-secret", OLD),
        ),
        ("no signature of Twilio's", call()),
        (
            "another token",
            call().with("x-twilio-signature", twilio("nekot", "reference=x")),
        ),
        (
            "another address",
            call().with("x-twilio-signature", twilio("token", "reference=y")),
        ),
        ("no Base64", call().with("x-twilio-signature", "%%%")),
        ("no secret", shared("")),
        ("a wrong one", shared("?secret=s3cres")),
        ("a part of it", shared("?secret=s3cre")),
        ("none in the token", shared("").with("authorization", "Bearer ")),
        (
            "a secret that cannot be found",
            Call::new("/callbacks/lost?secret=", JSON, receipt("A1")),
        ),
    ];
    let unproven = wrong.len() as u64;
    for (what, call) in wrong {
        assert_eq!(call.status(&client, &address).await, 401, "{what}");
    }
    // Whoever is refused before all of its body is read loses its connection: none of them is used again.
    let once = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let long = format!("/callbacks/shared?secret=s3cret&x={}", "x".repeat(16 * 1024));
    for (status, call) in [
        (
            413,
            Call::new("/callbacks/shared?secret=s3cret", FORM, vec![b'x'; MAX_BODY + 1]),
        ),
        // Nobody has to prove anything before that.
        (413, Call::new("/callbacks/hooks", JSON, vec![b'x'; 2 * MAX_BODY])),
        (414, Call::new(long, JSON, receipt("A1"))),
        (404, Call::new("/callbacks/nobody", JSON, receipt("A1"))),
    ] {
        assert_eq!(call.status(&once, &address).await, status);
    }
    for (result, count) in [
        ("kept", kept as u64),
        ("unproven", unproven),
        ("too-large", 3),
        ("no-gateway", 1),
        ("address", 0),
        ("not-kept", 0),
    ] {
        assert_eq!(counted(&client, &process, result).await, count, "{result}");
    }
    let records = stand.all(Topic::Callbacks).await;
    assert_eq!(records.len(), kept);
    for record in &records {
        assert!(!holds(record, "s3cret"), "a secret is on the topic");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_holds_for_300_seconds_either_way_under_both_secrets() {
    let stand = Stand::new(&gateways()).await;
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let _collector = collector(&stand, Clock::fixed(now), listener).await;
    let client = client();
    let mut kept = 0;
    for secret in [OLD, NEW] {
        for (age, status) in [
            (0, 200),
            (299, 200),
            (300, 200),
            (301, 401),
            (-299, 200),
            (-300, 200),
            (-301, 401),
        ] {
            let call = Call::new("/callbacks/hooks", JSON, receipt("A1")).signed(secret, now.as_second() - age);
            assert_eq!(call.status(&client, &address).await, status, "{age} s old");
            kept += usize::from(status == 200);
        }
    }
    assert_eq!(stand.all(Topic::Callbacks).await.len(), kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_gateways_addresses_may_call_and_only_a_trusted_proxy_speaks_for_them() {
    let stand = Stand::new(&gateways()).await;
    let directory = tempfile::tempdir().unwrap();
    let trusting = [("TAMTAM__CALLBACKS__TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.0/8")];
    let (alone, behind) = tokio::join!(
        process(&stand, directory.path(), "alone", &[]),
        process(&stand, directory.path(), "behind", &trusting),
    );
    let client = client();
    let mut all_kept = 0;
    for (collector, calls) in [
        (
            &alone,
            [
                ("near", None, 200),
                // Whoever writes a header is not somebody else by that.
                ("near", Some("203.0.113.5"), 200),
                ("far", None, 401),
                ("far", Some("203.0.113.5"), 401),
                ("far", Some("203.0.113.5, 127.0.0.1"), 401),
                ("far", Some("rubbish"), 401),
            ],
        ),
        (
            &behind,
            [
                ("near", Some("203.0.113.5"), 401),
                ("far", None, 401),
                ("far", Some("203.0.113.5"), 200),
                ("far", Some("2001:db8::7"), 200),
                // A proxy behind a proxy; what the client itself wrote before it is not believed.
                ("far", Some("198.51.100.1, 203.0.113.5, 10.0.0.7"), 200),
                ("far", Some("203.0.113.5, 198.51.100.1"), 401),
            ],
        ),
    ] {
        let (mut kept, mut refused) = (0, 0);
        for (gateway, forwarded, status) in calls {
            let mut call = Call::new(format!("/callbacks/{gateway}"), JSON, receipt("A1"));
            if let Some(forwarded) = forwarded {
                call = call.with("x-forwarded-for", forwarded);
            }
            let answered = call.status(&client, collector.at("callbacks")).await;
            assert_eq!(answered, status, "{gateway}, {forwarded:?}");
            match status {
                200 => kept += 1,
                _ => refused += 1,
            }
        }
        assert_eq!(counted(&client, collector, "address").await, refused);
        assert_eq!(counted(&client, collector, "kept").await, kept);
        all_kept += kept;
    }
    assert_eq!(stand.all(Topic::Callbacks).await.len() as u64, all_kept);
}

/// A message that its gateway has taken, as `1-0`.
struct Taken {
    stand: Stand,
    message: Outbound,
    _dispatcher: Dispatcher,
}

impl Taken {
    async fn new() -> Taken {
        let stand = Stand::new(
            r#"
[[gateway]]
name = "main"
kind = "http"
address = "http://127.0.0.1:9/send"
rate = 100
http = { profile = "vonage" }

[policy]
quiet_hours = "off"
"#,
        )
        .await;
        let dispatcher = stand.start();
        let message = outbound(1, Class::Marketing);
        stand.append(std::slice::from_ref(&message)).await;
        let taken = Taken {
            stand,
            message,
            _dispatcher: dispatcher,
        };
        taken.reaches(State::Accepted).await;
        taken
    }

    async fn reaches(&self, state: State) {
        let messages = std::slice::from_ref(&self.message);
        self.stand.until(messages, |row| row.state == state).await;
    }

    /// Once every callback is understood: it is delivered, and nobody is told anything else.
    async fn is_delivered_and_told_once(&self) {
        self.reaches(State::Delivered).await;
        eventually("the callbacks to be understood", || async {
            let lags = self.stand.log.lag("receipt-collector", &[Topic::Callbacks]).await;
            let done = lags.is_ok_and(|lags| lags.iter().all(|lag| lag.end == lag.committed));
            done.then_some(())
        })
        .await;
        let mut told: BTreeMap<String, Receipt> = BTreeMap::new();
        for receipt in self.stand.receipts().await {
            let first = told.entry(receipt.stable_id()).or_insert_with(|| receipt.clone());
            assert_eq!(*first, receipt, "one id says one thing");
        }
        let states: BTreeSet<State> = told.values().map(|receipt| receipt.state).collect();
        assert_eq!(states, BTreeSet::from([State::Accepted, State::Delivered]));
        assert_eq!(told.len(), 2);
        assert_eq!(self.stand.store.audit(None, None).await.unwrap().violations, 0);
    }

    async fn callbacks(&self) -> Vec<StoredRecord> {
        self.stand.all(Topic::Callbacks).await
    }

    fn receipt() -> Call {
        Call::new("/callbacks/main", JSON, receipt("1-0"))
    }

    /// A receipt that slipped between two transactions: its part is there and it waits for it all the same.
    async fn slip(&self) {
        sqlx::query(
            "insert into callbacks_unmatched (id, gateway, match_id, state, code, at, received_at)
             values ($1, 'main', '1-0', $2, 'delivered', now(), now())",
        )
        .bind(Uuid::from_u128(1))
        .bind(State::Delivered.code())
        .execute(self.stand.store.pool())
        .await
        .unwrap();
    }

    async fn waiting(&self) -> i64 {
        sqlx::query_scalar("select count(*) from callbacks_unmatched")
            .fetch_one(self.stand.store.pool())
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_is_not_kept_for_certain_is_answered_503_and_taken_again() {
    // How many of the two that come are on the topic.
    for (point, after_one, after_two) in [("callbacks-before-append", 0, 1), ("callbacks-after-append", 1, 2)] {
        let taken = Taken::new().await;
        let directory = tempfile::tempdir().unwrap();
        let once = format!("{point}=1*return");
        let process = process(&taken.stand, directory.path(), "collector", &[("FAILPOINTS", &once)]).await;
        let (client, address) = (client(), process.at("callbacks").to_owned());
        assert_eq!(Taken::receipt().status(&client, &address).await, 503, "{point}");
        assert_eq!(taken.callbacks().await.len(), after_one, "{point}");
        assert_eq!(counted(&client, &process, "not-kept").await, 1, "{point}");
        assert_eq!(Taken::receipt().status(&client, &address).await, 200, "{point}");
        assert_eq!(taken.callbacks().await.len(), after_two, "{point}");
        assert_eq!(counted(&client, &process, "kept").await, 1, "{point}");
        taken.is_delivered_and_told_once().await;
    }
}

/// Starts a collector that dies at `point` once `cause` is there, and another one after it.
async fn dies<F: Future<Output = ()>>(taken: &Taken, point: &str, cause: impl FnOnce(String) -> F) -> Process {
    let directory = tempfile::tempdir().unwrap();
    let abort = format!("{point}=return(abort)");
    let mut dying = process(&taken.stand, directory.path(), "dying", &[("FAILPOINTS", &abort)]).await;
    cause(dying.at("callbacks").to_owned()).await;
    let status = tokio::task::spawn_blocking(move || dying.wait()).await.unwrap();
    assert!(!status.success(), "{point}: it was to die and ended with {status}");
    let on_topic = taken.callbacks().await.len();
    assert_eq!(on_topic, usize::from(point.ends_with("after-append")), "{point}");
    process(&taken.stand, directory.path(), "next", &[]).await
}

async fn the_edge_dies(point: &str) {
    let taken = Taken::new().await;
    let client = client();
    let next = dies(&taken, point, |address| {
        let client = client.clone();
        async move {
            let answer = Taken::receipt().send(&client, &address).await;
            assert!(answer.is_err(), "it was answered and may be lost: {answer:?}");
        }
    })
    .await;
    // The gateway, which has no answer, brings it again.
    assert_eq!(
        Taken::receipt().status(&client, next.at("callbacks")).await,
        200,
        "{point}"
    );
    taken.is_delivered_and_told_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_before_append() {
    the_edge_dies("callbacks-before-append").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_after_append() {
    the_edge_dies("callbacks-after-append").await;
}

async fn the_sweep_dies(point: &str) {
    let taken = Taken::new().await;
    let next = dies(&taken, point, |_| taken.slip()).await;
    eventually("the receipt to leave its table", || async {
        (taken.waiting().await == 0).then_some(())
    })
    .await;
    taken.is_delivered_and_told_once().await;
    // Appended again, under the same id.
    let records = taken.callbacks().await;
    assert_eq!(
        records.len(),
        1 + usize::from(point.ends_with("after-append")),
        "{point}"
    );
    let ids: BTreeSet<String> = records
        .iter()
        .map(|record| Envelope::from_headers(&record.headers).unwrap().id)
        .collect();
    assert_eq!(ids.len(), 1, "{point}");
    drop(next);
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_sweep_before_append() {
    the_sweep_dies("callbacks-sweep-before-append").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_sweep_after_append() {
    the_sweep_dies("callbacks-sweep-after-append").await;
}

/// Whether it stands anywhere in a record.
pub fn holds(record: &StoredRecord, needle: &str) -> bool {
    let within = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
    let in_headers = |(name, value): &events::Header| within(name.as_bytes()) || within(value.as_bytes());
    within(record.key.as_bytes()) || within(&record.value) || record.headers.iter().any(in_headers)
}
