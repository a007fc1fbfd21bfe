//! The whole pipeline: gRPC event → trigger → render → policy → claim → accepted by the gateway → receipt stored.
//!
//! The most that it carries is found by publishing for some seconds with a bounded backlog, and dividing what was
//! published by the time until the last receipt is in the ledger. After each such run, at shares of its rate, each for as long
//! as the run and from rest, the time from event to gateway is taken: an event carries when it was published, its text
//! repeats that, and the simulator says when it took it. In the end, its roles gone, what a message costs bare is
//! measured on the same installation ([`bare`]).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use domain::State;
use serde_json::json;

use crate::{
    Common, bare,
    load::{Load, sent_ms},
    report::{self, Figures, get, percentile, put},
    stand::{Bus, Plan, Stand},
};

/// Messages between publishing and the gateway, at most: some seconds of work, so that no stage runs dry. Less in a run of
/// a few seconds, which only shows that all works.
fn backlog(period: Duration) -> u64 {
    if period < Duration::from_secs(5) { 2_000 } else { 30_000 }
}

const PATIENCE: Duration = Duration::from_secs(300);
/// Shares of the maximum at which latency is taken.
const SHARES: [u32; 3] = [10, 50, 90];

/// Events are numbered through, over all loads on an installation.
#[derive(Default)]
pub struct Numbers {
    pub published: u64,
    /// Of those, what the simulator was told to forget.
    forgotten: u64,
}

impl Numbers {
    /// What the simulator is to have of them in the end.
    fn at_gateway(&self) -> u64 {
        self.published - self.forgotten
    }
}

pub async fn run(common: &Common, up: bool) -> Result<()> {
    let name = format!("pipeline-{}{}", common.bus.name(), if up { "-up" } else { "" });
    // The short form shows as well that a run can follow another.
    let count = if common.short { 2 } else { common.runs };
    report::say(&format!("{name}: {} s, {count} runs", common.seconds));
    let period = Duration::from_secs(common.seconds);
    let (mut stand, mut numbers) = warmed(common, up).await?;
    let mut runs = Vec::new();
    for number in 1..=count {
        if common.statements {
            forget_statements(&stand).await?;
        }
        let published = numbers.published;
        let mut figures = sustained(&stand, &mut numbers, period).await?;
        let most = get(&figures, "messages_per_second").unwrap_or(0.0);
        report::say(&format!("run {number}: {} messages/s", report::shown(most)));
        if common.statements {
            statements(&stand, numbers.published - published).await?;
        }
        for share in SHARES {
            let rate = most * f64::from(share) / 100.0;
            let Share { p50, p99, used } = Share::take(common, &stand, &mut numbers, rate).await?;
            report::say(&format!("  {share} %: p50 {p50:.0} ms, p99 {p99:.0} ms"));
            put(&mut figures, format!("p50_ms_at_{share}_percent"), p50);
            put(&mut figures, format!("p99_ms_at_{share}_percent"), p99);
            put(&mut figures, format!("cpu_us_per_message_at_{share}_percent"), used);
        }
        stand.memory(&mut figures);
        runs.push(figures);
    }
    stand.end_all();
    for (round, figures) in (0..).zip(&mut runs) {
        bare::measure(&stand, numbers.published, common.scaled(100_000), round, figures).await?;
    }
    let settings = json!({ "bus": stand.plan.bus.name(), "seconds": common.seconds, "contacts": stand.plan.contacts,
        "partitions": stand.plan.partitions, "processes": if up { "one (`tamtam up`)" } else { "one a role" } });
    report::write(common, &name, settings, &runs)
}

/// An installation that has been under load.
async fn warmed(common: &Common, up: bool) -> Result<(Stand, Numbers)> {
    let plan = Plan {
        up,
        partitions: common.partitions,
        statements: common.statements,
        ..Plan::new(common.bus.clone())
    };
    let stand = Stand::warm(plan, common.short).await?;
    let mut numbers = Numbers::default();
    sustained(&stand, &mut numbers, warming(common)).await?;
    Ok((stand, numbers))
}

/// How long messages take at these rates, each from rest; with `BENCH_STATEMENTS` also where and when they
/// waited, and what PostgreSQL did meanwhile.
pub async fn at_rates(common: &Common, up: bool, rates: &[u32]) -> Result<()> {
    let (stand, mut numbers) = warmed(common, up).await?;
    for _ in 0..common.runs {
        for rate in rates {
            let share = Share::take(common, &stand, &mut numbers, f64::from(*rate)).await?;
            report::say(&format!(
                "{rate} a second: p50 {:.0} ms, p99 {:.0} ms, {:.0} us of processor time a message",
                share.p50, share.p99, share.used
            ));
        }
    }
    Ok(())
}

/// What messages took at a rate.
struct Share {
    /// In ms from event to gateway.
    p50: f64,
    p99: f64,
    /// Processor time of a message, in µs.
    used: f64,
}

impl Share {
    /// For as long as a run, from rest.
    async fn take(common: &Common, stand: &Stand, numbers: &mut Numbers, rate: f64) -> Result<Share> {
        stand.rest().await?;
        if common.statements {
            forget_statements(stand).await?;
        }
        let (before, meter, published) = (batches(stand).await, stand.meter(), numbers.published);
        let ways = at_rate(stand, numbers, rate, Duration::from_secs(common.seconds)).await?;
        let mut used = Figures::new();
        (stand.meter()).since(&meter, numbers.published - published, &mut used);
        if common.statements {
            report::say(&format!("at {rate:.0} a second: {}", way(stand).await?));
            report::say(&format!("  99th percentile of each second, in ms: {}", seconds(&ways)));
            for (name, value) in &used {
                report::say(&format!("  {name} {}", report::shown(*value)));
            }
            for (stage, (seconds, count, records)) in batches(stand).await {
                let (s, c, r) = before.get(&stage).copied().unwrap_or_default();
                let (seconds, count, records) = (seconds - s, (count - c).max(1.0), records - r);
                let (each, size) = (seconds / count * 1e3, records / count);
                report::say(&format!("  {stage}: {count:.0} batches of {size:.1} in {each:.1} ms"));
            }
            statements(stand, numbers.published - published).await?;
        }
        let used = get(&used, "cpu_us_per_message").unwrap_or(0.0);
        let mut times: Vec<f64> = ways.into_iter().map(|(_, took)| took).collect();
        let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
        Ok(Share { p50, p99, used })
    }
}

/// How long an installation is warmed: its code, caches, connections, and the batch sizes that adapt. A node of Kafka that
/// has just been started compiles its code under load: in its first minute it takes twice what it takes afterwards.
pub fn warming(common: &Common) -> Duration {
    match (&common.bus, common.short) {
        (_, true) => Duration::from_secs(common.seconds),
        (Bus::Kafka(_), false) => Duration::from_secs(60),
        (Bus::Postgres, false) => Duration::from_secs((common.seconds / 4).max(2)),
    }
}

/// Publishes for `period` with a bounded backlog, and waits until all is settled.
pub async fn sustained(stand: &Stand, numbers: &mut Numbers, period: Duration) -> Result<Figures> {
    const REQUEST: u64 = 500;
    let mut load = Load::connect(&stand.grpc()?, stand.plan.contacts, numbers.published).await?;
    let (before, meter, begun) = (numbers.published, stand.meter(), Instant::now());
    let mut asked = Instant::now();
    let mut taken = stand.simulator.stats().await?.distinct;
    while begun.elapsed() < period {
        if numbers.at_gateway() - taken < backlog(period) {
            load.send(REQUEST).await?;
            numbers.published += REQUEST;
        } else {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if asked.elapsed() > Duration::from_millis(50) {
            taken = stand.simulator.stats().await?.distinct;
            asked = Instant::now();
        }
    }
    load.finish().await?;
    delivered(stand, numbers, PATIENCE).await?;
    let (took, used) = (begun.elapsed().as_secs_f64(), stand.meter());
    nothing_twice(stand).await?;
    let messages = numbers.published - before;
    let mut figures = Figures::new();
    put(&mut figures, "messages_per_second", messages as f64 / took);
    used.since(&meter, messages, &mut figures);
    Ok(figures)
}

/// Waits until all messages have reached the gateway and are delivered in the ledger.
pub async fn delivered(stand: &Stand, numbers: &Numbers, patience: Duration) -> Result<()> {
    let messages = numbers.published;
    stand.taken(numbers.at_gateway(), patience).await?;
    stand.settled(numbers.at_gateway(), patience).await?;
    // A receipt that came before its message's outcome was written waits for it and is applied with it.
    let until = Instant::now() + patience;
    loop {
        let delivered = stand.in_state(State::Delivered).await?;
        if delivered == messages {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{delivered} of {messages} messages are delivered in the ledger"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Publishes at a rate: when each message's event was published, in ms since 1970, and how many ms later the gateway had it.
async fn at_rate(stand: &Stand, numbers: &mut Numbers, rate: f64, period: Duration) -> Result<Vec<(i64, f64)>> {
    stand.simulator.reset().await?;
    let first = numbers.published;
    numbers.forgotten = first;
    let mut load = Load::connect(&stand.grpc()?, stand.plan.contacts, first).await?;
    let published = load.at_rate(rate, period).await?;
    load.finish().await?;
    numbers.published += published;
    stand.taken(published, PATIENCE).await?;
    stand.settled(published, PATIENCE).await?;
    nothing_twice(stand).await?;
    let texts = stand.simulator.texts().await?;
    let ways = texts.into_iter().filter_map(|shown| {
        let sent = sent_ms(&shown.text)?;
        Some((sent, (shown.at.as_millisecond() - sent) as f64))
    });
    let ways: Vec<(i64, f64)> = ways.collect();
    ensure!(!ways.is_empty(), "no text says when its event was published");
    Ok(ways)
}

/// Since the simulator was last reset.
async fn nothing_twice(stand: &Stand) -> Result<()> {
    let twice = stand.simulator.stats().await?.duplicates;
    ensure!(twice == 0, "{twice} messages reached the gateway twice");
    Ok(())
}

/// The 99th percentile of what was published in each second.
fn seconds(ways: &[(i64, f64)]) -> String {
    let mut by_second: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for (sent, took) in ways {
        by_second.entry(sent / 1_000).or_default().push(*took);
    }
    let told = by_second
        .values_mut()
        .map(|times| format!("{:.0}", percentile(times, 0.99)));
    told.collect::<Vec<_>>().join(" ")
}

/// What a message's way took from stage to stage, by its own times in the ledger: of those planned within the last seconds.
async fn way(stand: &Stand) -> Result<String> {
    let steps = [
        ("event to planned", "planned_at - caused_at"),
        ("to rendered", "rendered_at - planned_at"),
        ("to claimed", "claimed_at - rendered_at"),
        ("to accepted", "accepted_at - claimed_at"),
    ];
    let mut told = Vec::with_capacity(steps.len());
    for (name, time) in steps {
        let (p50, p99): (f64, f64) = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "select coalesce(percentile_cont(0.5) within group (order by ms), 0),
                 coalesce(percentile_cont(0.99) within group (order by ms), 0)
             from (select extract(epoch from {time})::float8 * 1000 as ms from messages
                   where planned_at > (select max(planned_at) from messages) - interval '3 s') m"
        )))
        .fetch_one(stand.store.pool())
        .await?;
        told.push(format!("{name} {p50:.0} ms (99th {p99:.0})"));
    }
    Ok(told.join(", "))
}

/// For each role that works in batches what its metrics say of them so far: seconds, batches, records.
async fn batches(stand: &Stand) -> BTreeMap<String, (f64, f64, f64)> {
    let mut all = BTreeMap::new();
    for (name, process) in &stand.processes {
        let Ok(address) = process.at("metrics") else { continue };
        let Ok(answer) = reqwest::get(format!("{address}/metrics")).await else {
            continue;
        };
        let text = answer.text().await.unwrap_or_default();
        let sum = |metric: &str| -> f64 {
            let values = text.lines().filter(|line| line.starts_with(metric));
            values
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        for (work, seconds, records) in [
            ("batches", "tamtam_stage_batch_seconds", "tamtam_stage_batch_records"),
            ("claims", "tamtam_claim_seconds", "tamtam_claim_messages"),
        ] {
            let count = sum(&format!("{seconds}_count"));
            if count > 0.0 {
                let figures = (sum(&format!("{seconds}_sum")), count, sum(&format!("{records}_sum")));
                all.insert(format!("{name}, {work}"), figures);
            }
        }
    }
    all
}

/// Makes what PostgreSQL has counted readable.
async fn count_statements(stand: &Stand) -> Result<()> {
    sqlx::query("create extension if not exists pg_stat_statements")
        .execute(stand.store.pool())
        .await?;
    Ok(())
}

async fn forget_statements(stand: &Stand) -> Result<()> {
    count_statements(stand).await?;
    sqlx::query("select pg_stat_statements_reset()")
        .execute(stand.store.pool())
        .await?;
    Ok(())
}

/// Where PostgreSQL's time went, by statement.
pub async fn statements(stand: &Stand, messages: u64) -> Result<()> {
    count_statements(stand).await?;
    let rows: Vec<(f64, i64, i64, String)> = sqlx::query_as(
        "select total_exec_time, calls, rows, left(regexp_replace(query, '\\s+', ' ', 'g'), 150)
         from pg_stat_statements order by 1 desc limit 25",
    )
    .fetch_all(stand.store.pool())
    .await?;
    report::say("PostgreSQL's statements: µs a message, calls, rows");
    for (ms, calls, rows, query) in rows {
        report::say(&format!(
            "  {:>8.2} {calls:>9} {rows:>9}  {query}",
            ms * 1e3 / messages.max(1) as f64
        ));
    }
    Ok(())
}
