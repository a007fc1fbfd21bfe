//! What an event costs with few triggers and with many: the step alone, on a private PostgreSQL.
//!
//! `cargo run --release -p segmenter --example triggers`: one line a number of triggers, and the ratio to the fewest. Ten
//! of the triggers are on the event's own type each time; the others wait for events of types that do not come. The first
//! batch after a change of the resources compiles the triggers: its surplus is given apart.

use std::{
    error::Error,
    path::Path,
    time::{Duration, Instant},
};

use bus::Partition;
use events::{Envelope, Topic};
use jiff::Timestamp;
use resources::{Snapshot, parse_toml};
use segmenter::Segmenter;
use stage::{Clock, Input, Live, Step};
use store::Store;

const BATCH: usize = 500;
const BATCHES: usize = 40;

#[expect(clippy::print_stdout, reason = "what it is for")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = Path::new("/var/tmp/tamtam-bench-triggers");
    let options = embedded::Options {
        settings: vec!["jit=off".into()],
        ephemeral: true,
    };
    let cluster = embedded::Cluster::start(directory, &options)?;
    let admin = Store::connect(&cluster.url("postgres"), 1, Duration::from_secs(10)).await?;
    let mut least = None;
    for triggers in [10, 1_000, 10_000] {
        let name = format!("triggers{triggers}");
        admin.database_create(&name).await?;
        let store = Store::connect(&cluster.url(&name), 4, Duration::from_secs(10)).await?;
        store.migrate().await?;
        let (first, each) = measure(store, triggers).await?;
        let least = *least.get_or_insert(each);
        println!(
            "{triggers:>6} triggers: {each:.1} µs an event ({:.2} of the fewest's), {:.0} ms more at the first batch after a change",
            each / least,
            (first - each * BATCH as f64 / 1_000.0).max(0.0),
        );
    }
    Ok(())
}

/// Milliseconds of the first batch, and microseconds an event: the median of all others.
async fn measure(store: Store, triggers: usize) -> Result<(f64, f64), Box<dyn Error>> {
    let mut snapshot = Snapshot::default();
    for number in 0..triggers {
        let on = match number {
            0..10 => "order.placed".to_owned(),
            other => format!("other.type{other}"),
        };
        let toml = format!(
            "[[trigger]]\nname = \"t{number}\"\non = \"{on}\"\nwhen = 'event.amount > {number} and did {on} count >= 3 within 30 days'\ntemplate = \"t\"\n"
        );
        for resource in parse_toml(&toml).map_err(|errors| format!("{errors:?}"))? {
            snapshot.insert(resource, 1);
        }
    }
    let key = store.phone_key().await?;
    let step = Segmenter::new(Live::fixed(snapshot), Clock::system(), key);
    let mut times = Vec::with_capacity(BATCHES);
    for batch in 0..BATCHES {
        let inputs: Vec<Input> = (0..BATCH).map(|place| input(batch * BATCH + place)).collect();
        let inputs: Vec<&Input> = inputs.iter().collect();
        let began = Instant::now();
        let mut tx = store.begin().await?;
        step.run(Topic::Events, &inputs, &mut tx).await?;
        tx.commit().await?;
        times.push(began.elapsed().as_secs_f64());
    }
    let first = times.remove(0);
    times.sort_by(f64::total_cmp);
    Ok((first * 1e3, times[times.len() / 2] * 1e6 / BATCH as f64))
}

fn input(number: usize) -> Input {
    let contact = format!("c{}", number % 5_000);
    Input {
        partition: Partition {
            topic: Topic::Events,
            number: 0,
        },
        offset: number as i64,
        key: contact.clone(),
        envelope: Envelope {
            id: format!("e{number}"),
            source: "shop".into(),
            kind: "order.placed".into(),
            time: Some(Timestamp::now()),
            subject: Some(contact),
            traceparent: None,
        },
        value: br#"{"amount": 12.5, "category": "shoes"}"#.to_vec(),
    }
}
