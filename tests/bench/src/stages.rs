//! Each stage alone: its topic is filled while it does not run, then it is started and timed until its group has no lag.
//! The stage before it is what fills the topic, so the records are real ones. Beside each, its raw limit.

use std::time::{Duration, Instant};

use anyhow::Result;
use events::Topic;
use serde_json::json;

use crate::{
    Common,
    load::Load,
    raw,
    report::{self, Figures, get, put},
    stand::{Bus, NO_RECEIPTS, Plan, Stand},
};

const PATIENCE: Duration = Duration::from_secs(600);
/// With these many triggers the segmenter is measured. They are spread over event types, ten a type, as those of a shop
/// with many kinds of events; one of them is on the type that is published.
const TRIGGERS: [u64; 3] = [10, 1_000, 10_000];

pub async fn run(common: &Common) -> Result<()> {
    let events = common.scaled(100_000);
    let name = format!("stages-{}", common.bus.name());
    report::say(&format!("{name}: {events} events, {} runs", common.runs));
    let mut runs = Vec::new();
    for number in 1..=common.runs {
        runs.push(once(common, events).await?);
        report::say(&format!("run {number} is done"));
    }
    let settings = json!({ "bus": common.bus.name(), "events": events });
    report::write(common, &name, settings, &runs)
}

/// Further triggers than the one of the stand, as TOML.
pub fn triggers(count: u64) -> String {
    let one = |number: u64| {
        format!(
            "\n[[trigger]]\nname = \"t{number}\"\non = \"bench.type-{}\"\nwhen = 'event.amount > {number}'\ntemplate = \"order\"\n",
            number / 10
        )
    };
    (1..count).map(one).collect()
}

/// Publishes as fast as it is acknowledged: events a second.
pub async fn publish(stand: &Stand, events: u64, first: u64) -> Result<f64> {
    const REQUEST: u64 = 500;
    let mut load = Load::connect(&stand.grpc()?, stand.plan.contacts, first).await?;
    let begun = Instant::now();
    let mut left = events;
    while left > 0 {
        load.send(left.min(REQUEST)).await?;
        left -= left.min(REQUEST);
    }
    let acknowledged = load.finish().await?;
    Ok(acknowledged as f64 / begun.elapsed().as_secs_f64())
}

/// Starts a role on its filled topic; records a second until its group has committed all of it.
async fn drain(stand: &mut Stand, role: &'static str, topic: Topic, records: u64) -> Result<f64> {
    let begun = Instant::now();
    stand.begin(role)?;
    stand.drained(role, topic, PATIENCE).await?;
    Ok(records as f64 / begun.elapsed().as_secs_f64())
}

async fn once(common: &Common, events: u64) -> Result<Figures> {
    let plan = Plan {
        roles: vec!["ingest"],
        ..Plan::new(common.bus.clone())
    };
    let mut stand = Stand::warm(plan, common.short).await?;
    let mut figures = Figures::new();
    let mut published = 0;
    for count in TRIGGERS {
        stand.apply_with(&triggers(count))?;
        let rate = publish(&stand, events, published).await?;
        published += events;
        if count == TRIGGERS[0] {
            put(&mut figures, "ingest_events_per_second", rate);
        }
        let rate = drain(&mut stand, "segmenter", Topic::Events, events).await?;
        put(
            &mut figures,
            format!("segmenter_events_per_second_{count}_triggers"),
            rate,
        );
        stand.end("segmenter");
    }
    stand.end("ingest");
    let rate = drain(&mut stand, "renderer", Topic::Jobs, published).await?;
    put(&mut figures, "renderer_jobs_per_second", rate);
    stand.memory(&mut figures);
    stand.end("renderer");
    let rate = drain(&mut stand, "dispatcher", Topic::OutboundTransactional, published).await?;
    put(&mut figures, "dispatcher_messages_per_second", rate);
    stand.memory(&mut figures);
    stand.end("dispatcher");
    let begun = Instant::now();
    stand.begin("receipt-collector")?;
    stand.settled(published, PATIENCE).await?;
    put(
        &mut figures,
        "receipt_collector_receipts_per_second",
        published as f64 / begun.elapsed().as_secs_f64(),
    );
    stand.end("receipt-collector");
    raw_limits(&stand, events, &mut figures).await?;
    drop(stand);
    let rate = dispatcher(common, "http").await?;
    put(&mut figures, "dispatcher_http_messages_per_second", rate);
    let raw = get(&figures, "raw_reqwest_requests_per_second").unwrap_or(0.0);
    share(
        &mut figures,
        "dispatcher_http_messages_per_second",
        raw,
        "dispatcher_http_percent_of_raw_reqwest",
    );
    Ok(figures)
}

/// The dispatcher alone on a filled topic, over `smpp` or `http`: messages a second. No receipts come: nobody is there who
/// would take a callback.
pub async fn dispatcher(common: &Common, gateway: &'static str) -> Result<f64> {
    let events = common.scaled(300_000);
    let plan = Plan {
        roles: vec!["ingest", "segmenter", "renderer"],
        gateway,
        script: NO_RECEIPTS,
        ..Plan::new(common.bus.clone())
    };
    let mut stand = Stand::warm(plan, common.short).await?;
    publish(&stand, events, 0).await?;
    stand.drained("segmenter", Topic::Events, PATIENCE).await?;
    stand.drained("renderer", Topic::Jobs, PATIENCE).await?;
    for role in ["ingest", "segmenter", "renderer"] {
        stand.end(role);
    }
    drain(&mut stand, "dispatcher", Topic::OutboundTransactional, events).await
}

async fn raw_limits(stand: &Stand, count: u64, figures: &mut Figures) -> Result<()> {
    if let Bus::Kafka(brokers) = &stand.plan.bus {
        let (produced, consumed) = raw::kafka(brokers, count * 2).await?;
        put(figures, "raw_librdkafka_produced_per_second", produced);
        put(figures, "raw_librdkafka_consumed_per_second", consumed);
        share(
            figures,
            "ingest_events_per_second",
            produced,
            "ingest_percent_of_raw_produce",
        );
    }
    let ledger = raw::ledger(&stand.store, count).await?;
    put(figures, "raw_ledger_messages_per_second", ledger);
    share(
        figures,
        "dispatcher_messages_per_second",
        ledger,
        "dispatcher_percent_of_raw_ledger",
    );
    put(
        figures,
        "raw_smpp_submits_per_second",
        raw::smpp(&stand.smpp()?, count * 2).await?,
    );
    put(
        figures,
        "raw_reqwest_requests_per_second",
        raw::http(&stand.http()?, count / 2).await?,
    );
    Ok(())
}

fn share(figures: &mut Figures, of: &str, raw: f64, name: &str) {
    let value = get(figures, of).unwrap_or(0.0) / raw * 100.0;
    put(figures, name, value);
}
