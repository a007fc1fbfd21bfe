//! Each stage alone: its topic is filled while it does not run, then it is started and timed until its group has no lag.
//! The stage before it is what fills the topic, so the records are real ones. Beside each, its raw limit.

use std::time::{Duration, Instant};

use anyhow::Result;
use events::Topic;
use serde_json::json;

use crate::{
    Common,
    load::Load,
    raw::{self, Records},
    report::{self, Figures, put},
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
            raw_log(common, events * 2, rate, &mut figures).await?;
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
    let before = raw::ledger(&stand.store, 0..events / 2).await?;
    let rate = drain(&mut stand, "dispatcher", Topic::OutboundTransactional, published).await?;
    let after = raw::ledger(&stand.store, events / 2..events).await?;
    put(&mut figures, "dispatcher_messages_per_second", rate);
    beside(
        &mut figures,
        "raw_ledger_messages_per_second",
        [before, after],
        "dispatcher_percent_of_raw_ledger",
        rate,
    );
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
    let submitted = raw::smpp(&stand.smpp()?, events * 2).await?;
    put(&mut figures, "raw_smpp_submits_per_second", submitted);
    drop(stand);

    over_http(common, &mut figures).await?;
    Ok(figures)
}

/// The dispatcher over HTTP alone: what [`run`] measures last, and the processor time of it.
pub async fn http(common: &Common) -> Result<()> {
    let mut runs = Vec::new();
    for number in 1..=common.runs {
        let mut figures = Figures::new();
        let mut used = over_http(common, &mut figures).await?;
        figures.append(&mut used);
        runs.push(figures);
        report::say(&format!("run {number} is done"));
    }
    let settings = json!({ "bus": common.bus.name(), "messages": filling(common) });
    report::write(common, &format!("stages-{}-http", common.bus.name()), settings, &runs)
}

/// What it took of the processors is given back.
async fn over_http(common: &Common, figures: &mut Figures) -> Result<Figures> {
    let messages = filling(common);
    let mut stand = filled(common, "http").await?;
    let http = stand.http()?;
    // For some seconds each: within one the machine's speed changes by a third.
    let before = raw::http(&http, messages / 2).await?;
    let (meter, mut used) = (stand.meter(), Figures::new());
    let rate = drain(&mut stand, "dispatcher", Topic::OutboundTransactional, messages).await?;
    stand.meter().since(&meter, messages, &mut used);
    let after = raw::http(&http, messages / 2).await?;
    put(figures, "dispatcher_http_messages_per_second", rate);
    beside(
        figures,
        "raw_reqwest_requests_per_second",
        [before, after],
        "dispatcher_http_percent_of_raw_reqwest",
        rate,
    );
    Ok(used)
}

/// A raw limit, measured right before and after what it is the limit of, on a machine whose speed changes meanwhile; and
/// how much of it that is.
fn beside(figures: &mut Figures, name: &str, raw: [f64; 2], share: &str, rate: f64) {
    let raw = raw.into_iter().sum::<f64>() / 2.0;
    put(figures, name, raw);
    put(figures, share, rate / raw * 100.0);
}

/// The dispatcher alone on a filled topic, over `smpp` or `http`: messages a second. No receipts come: nobody is there who
/// would take a callback.
pub async fn dispatcher(common: &Common, gateway: &'static str) -> Result<f64> {
    let mut stand = filled(common, gateway).await?;
    drain(&mut stand, "dispatcher", Topic::OutboundTransactional, filling(common)).await
}

fn filling(common: &Common) -> u64 {
    common.scaled(300_000)
}

/// A stand on which nothing runs and texts wait for a dispatcher.
async fn filled(common: &Common, gateway: &'static str) -> Result<Stand> {
    let plan = Plan {
        roles: vec!["ingest", "segmenter", "renderer"],
        gateway,
        script: NO_RECEIPTS,
        ..Plan::new(common.bus.clone())
    };
    let mut stand = Stand::warm(plan, common.short).await?;
    publish(&stand, filling(common), 0).await?;
    stand.drained("segmenter", Topic::Events, PATIENCE).await?;
    stand.drained("renderer", Topic::Jobs, PATIENCE).await?;
    for role in ["ingest", "segmenter", "renderer"] {
        stand.end(role);
    }
    Ok(stand)
}

/// What librdkafka alone carries, measured after ingest.
async fn raw_log(common: &Common, count: u64, ingest: f64, figures: &mut Figures) -> Result<()> {
    let Bus::Kafka(brokers) = &common.bus else {
        return Ok(());
    };
    let records = Records::create(brokers, count).await?;
    let produced = records.produce().await?;
    put(figures, "raw_librdkafka_produced_per_second", produced);
    put(figures, "raw_librdkafka_consumed_per_second", records.consume().await?);
    put(figures, "ingest_percent_of_raw_produce", ingest / produced * 100.0);
    Ok(())
}
