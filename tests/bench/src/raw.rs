//! The raw limits that tamtam's stages are held against, measured beside them on the same machine: librdkafka with the
//! same bytes, the ledger's statements alone, and bare clients against the same simulator.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use domain::{Cause, Class, MessageId, Phone, sms::Encoding};
use gateways::{Outcome, Submission};
use jiff::Timestamp;
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use store::{
    Store,
    messages::{AttemptOutcome, ClaimWant, Claimant, Settled},
};
use uuid::Uuid;

const PARTITIONS: i32 = 8;
const PATIENCE: Duration = Duration::from_secs(120);

/// Counts acknowledged records.
#[derive(Debug, Default)]
struct Acknowledged(AtomicU64);

#[derive(Clone, Debug, Default)]
struct Counting(Arc<Acknowledged>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if result.is_ok() {
            self.0.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A topic of librdkafka's alone, of the records that ingest makes of the events of the load: acks=all, idempotent.
pub struct Records {
    config: ClientConfig,
    topic: String,
    count: u64,
}

impl Records {
    pub async fn create(brokers: &str, count: u64) -> Result<Records> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let topic = format!("raw{}x{number}", std::process::id());
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1));
        admin.create_topics(&[new], &AdminOptions::new()).await?;
        Ok(Records { config, topic, count })
    }

    /// Records acknowledged a second.
    pub async fn produce(&self) -> Result<f64> {
        let (config, topic, count) = (self.config.clone(), self.topic.clone(), self.count);
        tokio::task::spawn_blocking(move || produce(config, &topic, count)).await?
    }

    /// Records read a second, of those that were produced.
    pub async fn consume(&self) -> Result<f64> {
        let (mut config, topic, count) = (self.config.clone(), self.topic.clone(), self.count);
        config.set("group.id", "raw").set("enable.auto.commit", "false");
        tokio::task::spawn_blocking(move || consume(&config, &topic, count)).await?
    }
}

fn produce(mut config: ClientConfig, topic: &str, records: u64) -> Result<f64> {
    let counting = Counting::default();
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "200000");
    let producer: ThreadedProducer<Counting> = config.create_with_context(counting.clone())?;
    let body = br#"{"amount":12.5,"number":123456,"sent":1790000000000}"#;
    let begun = Instant::now();
    for number in 0..records {
        let (key, id) = (contact(number), format!("o{number}"));
        let mut headers = OwnedHeaders::new_with_capacity(7);
        for (name, value) in [
            ("ce_specversion", "1.0"),
            ("ce_id", id.as_str()),
            ("ce_source", "bench"),
            ("ce_type", "order.placed"),
            ("ce_time", "2026-11-25T00:00:00.000000Z"),
            ("ce_subject", key.as_str()),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
        ] {
            let value = Some(value);
            headers = headers.insert(Header { key: name, value });
        }
        let mut record = BaseRecord::to(topic).key(&key).payload(&body[..]).headers(headers);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    producer.flush(PATIENCE)?;
    let acknowledged = counting.0.0.load(Ordering::Relaxed);
    ensure!(
        acknowledged == records,
        "{acknowledged} of {records} records were acknowledged"
    );
    Ok(records as f64 / begun.elapsed().as_secs_f64())
}

fn consume(config: &ClientConfig, topic: &str, records: u64) -> Result<f64> {
    let consumer: BaseConsumer = config.create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    let begun = Instant::now();
    consumer.assign(&all)?;
    let (mut read, mut bytes) = (0_u64, 0);
    while read < records {
        let message = consumer
            .poll(Duration::from_secs(10))
            .context("no record within 10 s")??;
        bytes += message.payload_len();
        read += 1;
    }
    ensure!(bytes > 0, "the records are empty");
    Ok(records as f64 / begun.elapsed().as_secs_f64())
}

/// Rows of a statement, as under load.
const BATCH: u64 = 500;

/// Messages a second through the ledger alone: a claim and an outcome each, in batches, on two connections at once. Numbers
/// are of messages that are not there yet.
pub async fn ledger(store: &Store, numbers: Range<u64>) -> Result<f64> {
    let (count, begun) = (numbers.end - numbers.start, Instant::now());
    let store = store.clone();
    in_batches(numbers, move |batch| {
        let store = store.clone();
        async move { claim_and_settle(&store, batch).await.map(drop) }
    })
    .await?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// Works batches off, those of one half beside those of the other.
pub async fn in_batches<F>(numbers: Range<u64>, work: impl Fn(Range<u64>) -> F + Clone + Send + 'static) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let middle = numbers.start + (numbers.end - numbers.start) / 2;
    let halves = [numbers.start..middle, middle..numbers.end].map(|half| {
        let work = work.clone();
        tokio::spawn(async move {
            let mut first = half.start;
            while first < half.end {
                let until = (first + BATCH).min(half.end);
                work(first..until).await?;
                first = until;
            }
            Ok::<_, anyhow::Error>(())
        })
    });
    for half in halves {
        half.await??;
    }
    Ok(())
}

/// The contact that a message goes to.
pub fn contact(number: u64) -> String {
    format!("c{}", number % 20_000)
}

/// The ids that the gateway is to have given them.
pub async fn claim_and_settle(store: &Store, numbers: Range<u64>) -> Result<Vec<String>> {
    let now = Timestamp::now();
    let owner = Uuid::from_u128(1);
    let wants: Vec<ClaimWant> = numbers
        .map(|number| {
            let contact_id = contact(number);
            let cause = Cause::Direct {
                idempotency_key: format!("raw-{number}"),
            };
            ClaimWant {
                message_id: MessageId::derive(&cause, &contact_id).0,
                contact_id,
                cause,
                class: Class::Transactional,
                template: "order".into(),
                variant: None,
                encoding: "GSM-7".into(),
                parts: 1,
                cost_micros: 45_000,
                phone_hash: number.to_be_bytes().repeat(4),
                caused_at: now,
                planned_at: now,
                rendered_at: now,
                attempt: 0,
                gateway: "raw".into(),
                epoch: 0,
                traceparent: None,
                again: false,
            }
        })
        .collect();
    let claimant = Claimant {
        owner,
        now,
        resend_transactional: true,
        max_attempts: 3,
    };
    let mut tx = store.begin_by_key().await?;
    let claimed = tx.messages_claim(&wants, &claimant).await?;
    tx.commit().await?;
    ensure!(claimed.iter().all(|claim| claim.granted), "a claim was not granted");
    let outcomes: Vec<AttemptOutcome> = wants
        .into_iter()
        .zip(claimed)
        .map(|(want, claim)| AttemptOutcome {
            remote_ids: vec![want.message_id.simple().to_string()],
            contact_id: want.contact_id,
            message_id: want.message_id,
            owner,
            attempt: 1,
            settled: Settled::Accepted,
            gateway: "raw".into(),
            gateway_code: None,
            total: 1,
            at: now,
            claimed: Some(Arc::new(claim.row)),
        })
        .collect();
    let mut tx = store.begin_by_key().await?;
    tx.messages_outcome(&outcomes).await?;
    tx.commit().await?;
    Ok(outcomes.into_iter().flat_map(|outcome| outcome.remote_ids).collect())
}

/// Submissions a second of tamtam's own SMPP client without anything around it.
pub async fn smpp(address: &str, messages: u64) -> Result<f64> {
    const CALLERS: u64 = 1_000;
    let resource = resources::Gateway {
        window: 500,
        binds: 2,
        ..resources::Gateway::smpp("raw", address, "raw")
    };
    let gateway = gateways::open(&resource, None, Arc::new(Timestamp::now), None)?;
    let until = Instant::now() + Duration::from_secs(10);
    while !gateway.is_up() {
        ensure!(Instant::now() < until, "the simulator does not bind");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let begun = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let gateway = gateway.clone();
            tokio::spawn(async move {
                let mut taken = 0_u64;
                for number in (caller..messages).step_by(CALLERS as usize) {
                    let submission = Submission {
                        reference: Uuid::from_u128(u128::from(number) + 1),
                        phone: Phone::from_e164(format!("+262692{:06}", number % 1_000_000)),
                        sender: "BOUTIQUE".into(),
                        text: "Votre commande est en route, elle arrive demain avant midi.".into(),
                        encoding: Encoding::Gsm7,
                        parts: 1,
                        expires_at: None,
                    };
                    taken += u64::from(matches!(gateway.submit(submission).await, Outcome::Accepted { .. }));
                }
                taken
            })
        })
        .collect();
    let mut taken = 0;
    for caller in callers {
        taken += caller.await?;
    }
    let took = begun.elapsed().as_secs_f64();
    gateway.close().await;
    ensure!(taken == messages, "{taken} of {messages} were accepted");
    Ok(messages as f64 / took)
}

/// Requests a second of a bare reqwest client to the simulator's HTTP gateway.
pub async fn http(simulator: &str, messages: u64) -> Result<f64> {
    const CALLERS: u64 = 64;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{simulator}/vonage/sms/json");
    let begun = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (client, url) = (client.clone(), url.clone());
            tokio::spawn(async move {
                for number in (caller..messages).step_by(CALLERS as usize) {
                    let body = serde_json::json!({ "api_key": "raw", "api_secret": "raw", "from": "BOUTIQUE",
                        "to": format!("262692{:06}", number % 1_000_000), "type": "text",
                        "text": "Votre commande est en route, elle arrive demain avant midi.",
                        "client-ref": Uuid::from_u128(u128::from(number) + 1).to_string() });
                    client
                        .post(&url)
                        .json(&body)
                        .send()
                        .await?
                        .error_for_status()?
                        .bytes()
                        .await?;
                }
                Ok::<_, reqwest::Error>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    Ok(messages as f64 / begun.elapsed().as_secs_f64())
}
