//! What a message costs with nothing around it: its statements, its records and its submission, each alone, in processor
//! time of all who take part. Whatever writes the same to PostgreSQL by the same statements and hands the same on by Kafka
//! carries about as much as the processors' time divided by that, and not more.
//!
//! Statements are those that the roles make of a message, in batches as under load. Records are librdkafka's ([`Records`]),
//! as many as the log has of a message. Not in it: reading, writing and compressing of bodies, texts, the policy, gRPC, and
//! on the PostgreSQL bus its log.

use std::{ops::Range, thread::available_parallelism};

use anyhow::{Result, ensure};
use domain::State;
use events::{BusinessEvent, Topic};
use jiff::Timestamp;
use serde_json::{Map, json};
use store::{Store, messages::Said, trigger_log::Firing};

use crate::{
    raw::{self, Records},
    report::{Figures, put},
    stand::{Bus, NO_RECEIPTS, Stand},
};

/// Measures on a stand that runs no role and has carried `carried` messages; `round` tells apart what is written each time.
pub async fn measure(stand: &Stand, carried: u64, messages: u64, round: u64, figures: &mut Figures) -> Result<()> {
    stand.simulator.script(NO_RECEIPTS).await?;
    let used = |before: f64, count: u64| (stand.meter().all() - before) * 1e6 / count as f64;

    let before = stand.meter().all();
    let store = stand.store.clone();
    let numbers = round * messages..(round + 1) * messages;
    raw::in_batches(numbers, move |numbers| statements(store.clone(), numbers)).await?;
    let mut parts = vec![("statements", used(before, messages))];

    if let Bus::Kafka(brokers) = &stand.plan.bus {
        let (written, read) = records_of_a_message(stand, carried).await?;
        put(figures, "records_written_per_message", written);
        put(figures, "records_read_per_message", read);
        let records = Records::create(brokers, messages * 2).await?;
        let before = stand.meter().all();
        records.produce().await?;
        let writing = written * used(before, messages * 2);
        let before = stand.meter().all();
        records.consume().await?;
        parts.push(("records", writing + read * used(before, messages * 2)));
    }

    let before = stand.meter().all();
    raw::smpp(&stand.smpp()?, messages).await?;
    parts.push(("submission", used(before, messages)));

    let sum: f64 = parts.iter().map(|(_, cost)| cost).sum();
    for (part, cost) in parts {
        put(figures, format!("bare_us_per_message_{part}"), cost);
    }
    put(figures, "bare_us_per_message", sum);
    let cores = available_parallelism()?.get() as f64;
    put(figures, "bare_messages_per_second", cores * 1e6 / sum);
    Ok(())
}

/// How many records are written of a message, by what the log has, and how many of them our stages read: all but receipts and
/// dead letters.
async fn records_of_a_message(stand: &Stand, carried: u64) -> Result<(f64, f64)> {
    let (mut written, mut read) = (0, 0);
    for topic in Topic::ALL {
        let records: i64 = stand.log.bounds(topic).await?.iter().map(|bounds| bounds.end).sum();
        written += records;
        if !matches!(topic, Topic::Receipts | Topic::DeadLetters) {
            read += records;
        }
    }
    Ok((written as f64 / carried as f64, read as f64 / carried as f64))
}

/// What the segmenter, the renderer, the dispatcher and the receipt collector ask of PostgreSQL for these messages.
async fn statements(store: Store, numbers: Range<u64>) -> Result<()> {
    let now = Timestamp::now();
    let events: Vec<BusinessEvent> = numbers.clone().map(|number| event(number, now)).collect();
    let firings: Vec<Firing> = events.iter().map(firing).collect();
    let planned: Vec<(&BusinessEvent, i32)> = events.iter().map(|event| (event, 1)).collect();
    let mut tx = store.begin_by_key().await?;
    ensure!(tx.history_put_planned(&planned).await?, "an event was there before");
    tx.trigger_log_put(&firings).await?;
    tx.commit().await?;

    let contacts: Vec<&str> = events.iter().map(|event| event.contact_id.as_str()).collect();
    let mut tx = store.begin_by_key().await?;
    tx.contacts_get(&contacts).await?;
    tx.commit().await?;

    let ids = raw::claim_and_settle(&store, numbers).await?;

    let said: Vec<Said<'_>> = ids
        .iter()
        .map(|id| Said {
            gateway: "raw",
            remote_id: id,
            state: State::Delivered,
            code: Some("000"),
            at: now,
            message_id: None,
        })
        .collect();
    let mut tx = store.begin_by_key().await?;
    let settled = tx.receipts_settle(&said).await?.len();
    tx.commit().await?;
    ensure!(
        settled == said.len(),
        "{settled} of {} messages were settled",
        said.len()
    );
    Ok(())
}

fn event(number: u64, now: Timestamp) -> BusinessEvent {
    let mut data = Map::new();
    data.insert("amount".into(), json!(12.5));
    data.insert("number".into(), json!(number));
    data.insert("sent".into(), json!(now.as_millisecond()));
    BusinessEvent {
        id: format!("o{number}"),
        source: "raw".into(),
        kind: "order.placed".into(),
        contact_id: raw::contact(number),
        time: now,
        data,
    }
}

fn firing(event: &BusinessEvent) -> Firing {
    Firing {
        contact_id: event.contact_id.clone(),
        trigger: "order".into(),
        event_source: event.source.clone(),
        event_id: event.id.clone(),
        template: "order".into(),
        caused_at: event.time,
        planned_at: event.time,
        deadline: None,
        vars: Map::new(),
        suppress: None,
    }
}
