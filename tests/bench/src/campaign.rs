//! A campaign: from launch to the last message accepted, and to the first, also with a million contacts; the same killed
//! in the middle.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    Common, pipeline,
    report::{self, Figures, put},
    stand::{NO_RECEIPTS, Plan, Stand},
};

const PATIENCE: Duration = Duration::from_secs(600);
const SMPP: Through = Through {
    gateway: "smpp",
    receipts: true,
};

/// The gateway that a campaign is sent through.
#[derive(Clone, Copy, Debug)]
pub struct Through {
    /// `smpp` or `http`.
    pub gateway: &'static str,
    /// Whether it sends receipts. A program that asks for none, as listmonk's messenger, is spared them.
    pub receipts: bool,
}

pub async fn run(common: &Common, recipients: u64, through: Through, contacts: u64) -> Result<()> {
    let gateway = if through.gateway == "http" { "-http" } else { "" };
    let receipts = if through.receipts { "" } else { "-no-receipts" };
    let name = format!("campaign-{}{gateway}{receipts}", common.bus.name());
    report::say(&format!(
        "{name}: {recipients} recipients of {contacts} contacts, {} runs",
        common.runs
    ));
    let mut runs = Vec::new();
    for number in 1..=common.runs {
        let figures = once(common, recipients, through, contacts).await?;
        report::say(&format!(
            "run {number}: {} messages/s from launch to last",
            report::shown(report::get(&figures, "messages_per_second").unwrap_or(0.0))
        ));
        runs.push(figures);
    }
    let settings = json!({ "bus": common.bus.name(), "recipients": recipients, "contacts": contacts, "gateway": through.gateway,
        "receipts": through.receipts, "processes": "one (`tamtam up`)" });
    report::write(common, &name, settings, &runs)
}

async fn stand(common: &Common, through: Through, contacts: u64) -> Result<Stand> {
    let mut plan = Plan {
        up: true,
        contacts,
        gateway: through.gateway,
        statements: common.statements,
        ..Plan::new(common.bus.clone())
    };
    if !through.receipts {
        plan.script = NO_RECEIPTS;
    }
    Stand::warm(plan, common.short).await
}

/// The contacts with the lowest ids: `c0` to `c<recipients - 1>` by the number of their phone.
fn audience(recipients: u64, contacts: u64) -> String {
    match recipients == contacts {
        true => "first_name is set".into(),
        false => format!("phone < \"+262692{recipients:06}\""),
    }
}

/// A campaign that is not launched yet: its id.
fn create(stand: &Stand, recipients: u64, contacts: u64) -> Result<String> {
    let expression = audience(recipients, contacts);
    let created = stand.command(&[
        "campaign",
        "create",
        "--name",
        "bench",
        "--where",
        &expression,
        "--template",
        "sale",
        "--value",
        "article=tout",
    ])?;
    Ok(created["id"].as_str().context("the campaign's id")?.to_owned())
}

/// Launches it: the time just before.
fn launch(stand: &Stand, id: &str) -> Result<Timestamp> {
    let before = Timestamp::now();
    stand.command(&["campaign", "launch", id])?;
    Ok(before)
}

/// The seconds from a launch until the first message is at the gateway.
async fn launch_to_first(stand: &Stand, recipients: u64, contacts: u64) -> Result<f64> {
    let launched = launch(stand, &create(stand, recipients, contacts)?)?;
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(first) = stand.simulator.first().await? {
            return Ok((first.at.as_millisecond() - launched.as_millisecond()) as f64 / 1e3);
        }
        ensure!(Instant::now() < until, "no message of the campaign reached the gateway");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How soon a campaign's first message is at the gateway, of so many contacts: for a thousandth of them, and, on the same
/// installation after that, for all.
pub async fn first(common: &Common, contacts: u64) -> Result<()> {
    let name = format!("campaign-first-{}", common.bus.name());
    report::say(&format!("{name}: {contacts} contacts, {} runs", common.runs));
    let few = (contacts / 1_000).max(1);
    let mut runs = Vec::new();
    for _ in 0..common.runs {
        let stand = stand(common, SMPP, contacts).await?;
        let mut figures = Figures::new();
        let took = launch_to_first(&stand, few, contacts).await?;
        put(&mut figures, "launch_to_first_s_for_a_thousandth", took);
        stand.taken(few, PATIENCE).await?;
        stand.settled(few, PATIENCE).await?;
        stand.simulator.reset().await?;
        let took = launch_to_first(&stand, contacts, contacts).await?;
        put(&mut figures, "launch_to_first_s_for_all", took);
        runs.push(figures);
    }
    let settings = json!({ "bus": common.bus.name(), "contacts": contacts, "processes": "one (`tamtam up`)" });
    report::write(common, &name, settings, &runs)
}

/// One campaign on an installation of its own.
pub async fn once(common: &Common, recipients: u64, through: Through, contacts: u64) -> Result<Figures> {
    let stand = stand(common, through, contacts).await?;
    let id = create(&stand, recipients, contacts)?;
    let meter = stand.meter();
    let launched = launch(&stand, &id)?;
    stand.taken(recipients, PATIENCE).await?;
    let used = stand.meter();
    if common.statements {
        pipeline::statements(&stand, recipients).await?;
    }
    let texts = stand.simulator.texts().await?;
    let since = |at: Timestamp| (at.as_millisecond() - launched.as_millisecond()) as f64 / 1e3;
    let first = texts.iter().map(|text| since(text.at)).fold(f64::INFINITY, f64::min);
    let last = texts.iter().map(|text| since(text.at)).fold(0.0, f64::max);
    // A receipt that came before its message's outcome was written waits for it.
    let recorded = if through.receipts { "delivered" } else { "accepted" };
    let until = Instant::now() + PATIENCE;
    let status = loop {
        let status = stand.command(&["campaign", "status", &id])?;
        if status[recorded] == recipients || Instant::now() >= until {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    ensure!(
        status["planned"] == recipients && status[recorded] == recipients,
        "not everybody is {recorded}: {status}"
    );
    let stats = stand.simulator.stats().await?;
    ensure!(stats.duplicates == 0, "{} messages came twice", stats.duplicates);
    let mut figures = Figures::new();
    put(&mut figures, "messages_per_second", recipients as f64 / last);
    put(&mut figures, "launch_to_last_s", last);
    // The simulator lets the oldest texts go.
    if texts.len() as u64 == recipients {
        put(&mut figures, "launch_to_first_s", first);
    }
    used.since(&meter, recipients, &mut figures);
    stand.memory(&mut figures);
    Ok(figures)
}

/// SIGKILL to `tamtam up` when half of the messages have reached the gateway, and a new start.
pub async fn killed(common: &Common, recipients: u64) -> Result<()> {
    let name = format!("campaign-killed-{}", common.bus.name());
    report::say(&format!("{name}: {recipients} recipients, {} runs", common.runs));
    let mut runs = Vec::new();
    for _ in 0..common.runs {
        let mut stand = stand(common, SMPP, recipients).await?;
        let id = create(&stand, recipients, recipients)?;
        launch(&stand, &id)?;
        stand.taken(recipients / 2, PATIENCE).await?;
        if let Some(up) = stand.processes.get_mut("up") {
            up.kill();
        }
        stand.begin("up")?;
        let until = Instant::now() + PATIENCE;
        let status = loop {
            let status = stand.command(&["campaign", "status", &id])?;
            if status["state"] == "finished" && status["pending"] == 0 && status["accepted"] == 0 {
                break status;
            }
            ensure!(Instant::now() < until, "the campaign does not end: {status}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        };
        let count = |name: &str| status[name].as_u64().unwrap_or(0);
        let stats = stand.simulator.stats().await?;
        let mut figures = Figures::new();
        put(&mut figures, "planned", count("planned") as f64);
        put(&mut figures, "reached_the_gateway", stats.distinct as f64);
        put(&mut figures, "came_twice", stats.duplicates as f64);
        put(&mut figures, "unknown", count("unknown") as f64);
        // Neither delivered nor named as unknown: nobody would ever look after it.
        let named = count("delivered") + count("unknown") + count("failed") + count("suppressed");
        put(&mut figures, "lost", recipients as f64 - named as f64);
        runs.push(figures);
    }
    report::write(
        common,
        &name,
        json!({ "bus": common.bus.name(), "recipients": recipients }),
        &runs,
    )
}
