//! How many callbacks a second are kept: `cargo run --release -p receipt-collector --example callbacks -- 100000 [BROKERS]`.
//!
//! A collector as it is deployed, on a private PostgreSQL (durable: fsync is on) or on the Kafka that is named, with one
//! HTTP gateway and a secret. Connections send one callback each and more behind it without waiting, as a provider's do.
//! Each answer means that the callback is on `callbacks`. The raw limit of the same run: the same requests to `/healthz`.
//!
//! Nobody knows what these receipts are about, so each is looked for and kept: the dearest that a callback can be. How many
//! of them a second are understood is told too; in a flood that comes after the answers.
//!
//! Then how long a person waits for the redirect of a short link, while some follow one after the other.

use std::{
    error::Error,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{BusConfig, KafkaConfig, PostgresConfig, TopicSettings};
use events::Topic;
use resources::{Gateway, Resource};
use stage::{Clock, Live, RunnerConfig};
use store::{Store, links::ShortLink};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 512;
/// Persons who follow a link, each time one's answer is there the next one.
const FOLLOWERS: usize = 4;
/// Requests that a connection has under way.
const BEHIND: usize = 4;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let count: usize = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let brokers = std::env::args().nth(2);
    let directory = tempfile::tempdir()?;
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let cluster = embedded::Cluster::start(&directory.path().join("postgres"), &embedded::Options::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(cluster.url("postgres"), brokers, count))?;
    drop(runtime);
    cluster.stop()?;
    Ok(())
}

async fn measure(url: String, brokers: Option<String>, count: usize) -> Result<(), Failure> {
    let store = Store::connect(&url, 20, Duration::from_secs(10)).await?;
    store.migrate().await?;
    let config = match brokers {
        Some(brokers) => BusConfig::Kafka(KafkaConfig {
            brokers,
            prefix: format!("load{}.", std::process::id()),
            settings: Vec::new().into_iter().collect(),
        }),
        None => BusConfig::Postgres(PostgresConfig {
            pool: store.pool().clone(),
        }),
    };
    let log = bus::open(config).await?;
    let topics: Vec<TopicSettings> = Topic::ALL
        .into_iter()
        .map(|topic| TopicSettings {
            topic,
            partitions: topic.spec().partitions,
            replication: 1,
            retention: Duration::from_secs(3_600),
        })
        .collect();
    log.topics_ensure(&topics).await?;
    let gateway = Resource::Gateway(Gateway {
        callback_secret: Some("s3cret".into()),
        ..Gateway::http("main", "http://127.0.0.1:1/", "vonage")
    });
    let mut tx = store.begin().await?;
    let row = (gateway.kind().to_string(), gateway.name().to_owned(), gateway.to_json());
    tx.resources_apply(&[row], "load", jiff::Timestamp::now()).await?;
    tx.commit().await?;

    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let config = receipt_collector::Config {
        log: log.clone(),
        live: Live::start(store.clone(), stop.clone()).await?,
        phone_key: store.phone_key().await?,
        store: store.clone(),
        clock: Clock::system(),
        runner: RunnerConfig::default(),
        listener,
        secrets: Arc::new(|_| None),
        trusted_proxies: Vec::new(),
    };
    let collector = tokio::spawn(receipt_collector::run(config, stop.clone()));

    let raw = send(&address, count, |_| "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".into()).await?;
    let begun = Instant::now();
    let kept = send(&address, count, |number| {
        let body = format!(r#"{{"messageId":"{number:016X}","status":"delivered","err-code":"0","msisdn":"262692000000"}}"#);
        format!(
            "POST /callbacks/main?secret=s3cret HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    })
    .await?;
    let on_topic: i64 = (log.bounds(Topic::Callbacks).await?.iter())
        .map(|bounds| bounds.end - bounds.first)
        .sum();
    let spread = log
        .bounds(Topic::Callbacks)
        .await?
        .iter()
        .filter(|bounds| bounds.end > bounds.first)
        .count();
    writeln!(
        std::io::stdout(),
        "{count} callbacks: {kept:.0} a second kept and answered; raw limit {raw:.0} a second ({:.2} of it); {on_topic} on the topic, in {spread} partitions",
        kept / raw
    )?;
    loop {
        let lags = log.lag("receipt-collector", &[Topic::Callbacks]).await?;
        if lags.iter().all(|lag| lag.committed >= lag.end) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    writeln!(
        std::io::stdout(),
        "{:.0} a second until the last of them is understood as well",
        count as f64 / begun.elapsed().as_secs_f64()
    )?;
    let mut waits = follow(&address, &links(&store).await?, count / 10).await?;
    waits.sort_unstable();
    let of = |share: f64| {
        waits
            .get((waits.len() as f64 * share) as usize)
            .copied()
            .unwrap_or_default()
    };
    writeln!(
        std::io::stdout(),
        "{} redirects over {FOLLOWERS} connections: p50 {} µs, p99 {} µs, p99.9 {} µs",
        waits.len(),
        of(0.5).as_micros(),
        of(0.99).as_micros(),
        of(0.999).as_micros()
    )?;
    stop.cancel();
    collector.await??;
    Ok(())
}

/// Keeps short links; their codes.
async fn links(store: &Store) -> Result<Vec<String>, Failure> {
    let links: Vec<ShortLink> = (0..10_000_u128)
        .map(|number| ShortLink {
            code: format!("{number:0>11}"),
            message_id: uuid::Uuid::from_u128(number),
            contact_id: format!("c{number}"),
            url: format!("https://shop.example/offer?number={number}"),
        })
        .collect();
    let mut tx = store.begin().await?;
    tx.links_put(&links, jiff::Timestamp::now()).await?;
    tx.commit().await?;
    Ok(links.into_iter().map(|link| link.code).collect())
}

/// Follows `count` links, on each connection one after the other; how long each answer took.
async fn follow(address: &str, codes: &[String], count: usize) -> Result<Vec<Duration>, Failure> {
    let mut tasks = tokio::task::JoinSet::new();
    for connection in 0..FOLLOWERS {
        let address = address.to_owned();
        let mine: Vec<String> = (connection..count)
            .step_by(FOLLOWERS)
            .map(|number| codes[number % codes.len()].clone())
            .collect();
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut buffer = vec![0_u8; 4 * 1024];
            let mut waits = Vec::with_capacity(mine.len());
            for code in mine {
                let begun = Instant::now();
                let request =
                    format!("GET /l/{code} HTTP/1.1\r\nhost: x\r\nuser-agent: Mozilla/5.0 (Android 14)\r\n\r\n");
                stream.write_all(request.as_bytes()).await?;
                let read = stream.read(&mut buffer).await?;
                let head = String::from_utf8_lossy(&buffer[..read]).to_ascii_lowercase();
                if !head.starts_with("http/1.1 302") || !head.ends_with("\r\n\r\n") {
                    return Err::<_, Failure>(head.into());
                }
                waits.push(begun.elapsed());
            }
            Ok(waits)
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(waits) = tasks.join_next().await {
        all.extend(waits??);
    }
    Ok(all)
}

/// Sends requests over [`CONNECTIONS`] and waits for all answers, which must be 200; how many a second.
async fn send(address: &str, count: usize, request: fn(usize) -> String) -> Result<f64, Failure> {
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for connection in 0..CONNECTIONS {
        let address = address.to_owned();
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mine: Vec<usize> = (connection..count).step_by(CONNECTIONS).collect();
            let mut buffer = vec![0_u8; 64 * 1024];
            for numbers in mine.chunks(BEHIND) {
                let requests: String = numbers.iter().map(|number| request(*number)).collect();
                stream.write_all(requests.as_bytes()).await?;
                let (mut answers, mut carried) = (0, Vec::new());
                while answers < numbers.len() {
                    let read = stream.read(&mut buffer).await?;
                    if read == 0 {
                        return Err::<(), Failure>("the connection was closed".into());
                    }
                    carried.extend_from_slice(&buffer[..read]);
                    while let Some(end) = carried.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                        let head = String::from_utf8_lossy(&carried[..end]).to_ascii_lowercase();
                        if !head.starts_with("http/1.1 200") {
                            return Err(head.into());
                        }
                        let length: usize = head
                            .lines()
                            .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())
                            .unwrap_or(0);
                        if carried.len() < end + 4 + length {
                            break;
                        }
                        carried.drain(..end + 4 + length);
                        answers += 1;
                    }
                }
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
