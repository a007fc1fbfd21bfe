//! `tamtam demo`: the main job once, on real input, from events over gRPC to receipts from a gateway, and the check that
//! every planned message is accounted for.
//!
//! Everything runs in this process as with `tamtam up --simulator`, in a directory of its own that goes when it ends.
//! What a system outside would do is done as such a system does it: over HTTP and gRPC, with a key.

pub mod contacts;
mod publish;
mod purchases;
mod receipts;
mod report;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bus::Log;
use events::Topic;
use jiff::{SignedDuration, Timestamp};
use resources::gateway::Secrets;
use serde_json::{Value, json};

use crate::{
    cli::{Process, runtime},
    commands::{
        self,
        client::Connection,
        output,
        progress::{Progress, say},
        sms::money,
    },
    exit::{Failure, chain},
    run::{Signals, up::Up},
    settings::{Settings, Sources},
    telemetry,
};
use receipts::Receipts;
use report::Report;

const RESOURCES: &str = include_str!("../../../../deploy/demo/demo.toml");
const AUDIENCE: &str = "young-north";
const TEMPLATE: &str = "flash-sale";
/// How long each step may take; far more than it needs, so that what hangs ends.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(100);

/// Runs it to its end, or to a signal.
pub fn run(kafka: Option<String>, database: Option<String>, secrets: Secrets) -> Result<(), Failure> {
    let directory = tempfile::Builder::new()
        .prefix("tamtam-demo-")
        .tempdir()
        .map_err(|error| Failure::no(format!("temporary directory: {error}")))?;
    let settings = settings(directory.path(), kafka, database)?;
    let outcome = runtime(&settings, Process::Up)?.block_on(async {
        let telemetry = telemetry::start(&settings, "demo")?;
        let mut signals = Signals::new()?;
        let outcome = tokio::select! {
            outcome = start_and_run(&settings, secrets) => outcome,
            () = signals.next() => Err(Failure::no("stopped by a signal")),
        };
        telemetry.stop().await;
        outcome
    });
    // The watcher of the private PostgreSQL may have removed parts of it already.
    let _ = directory.close();
    outcome
}

/// Nothing of the environment or of a file: a demo is the same everywhere.
fn settings(directory: &std::path::Path, kafka: Option<String>, database: Option<String>) -> Result<Settings, Failure> {
    let mut options = vec![
        ("data.directory", directory.join("data").display().to_string(), "demo"),
        ("log.level", "warn,sqlx::pool=error".to_owned(), "demo"),
    ];
    // The private PostgreSQL's user passes through.
    std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .map_err(|error| Failure::no(format!("temporary directory: {error}")))?;
    if let Some(brokers) = kafka {
        options.push(("bus.kind", "kafka".into(), "--kafka"));
        options.push(("bus.brokers", brokers, "--kafka"));
        // A cluster keeps its topics: each demo has its own.
        let prefix = format!("tamtam.demo-{:08x}.", rand::random::<u32>());
        options.push(("bus.prefix", prefix, "demo"));
    }
    if let Some(url) = database {
        options.push(("database.url", url, "--database"));
    }
    let empty = directory.join("demo-settings.toml");
    std::fs::write(&empty, "").map_err(Failure::no)?;
    let mut settings = Settings::load(&Sources {
        config: Some(&empty),
        environment: BTreeMap::new(),
        options,
        free_ports: true,
    })?;
    // As networks are: some phones are off for good.
    settings.simulator.failed_percent = 2.0;
    Ok(settings)
}

async fn start_and_run(settings: &Settings, secrets: Secrets) -> Result<(), Failure> {
    say("starting everything in this process, with a gateway simulator");
    let mut up = Up::start(settings, true, true, secrets).await?;
    say(&up.ready);
    let demo = Demo::new(&up)?;
    let outcome = tokio::select! {
        outcome = demo.run() => outcome,
        failure = up.supervisor.failed() => Err(failure),
    };
    up.stop().await;
    let report = outcome?;
    output::text(&report.table())?;
    output::text(&report.verdict()?)
}

struct Demo {
    http: Connection,
    simulator: Connection,
    grpc: String,
    key: String,
    log: Arc<dyn Log>,
}

impl Demo {
    /// Everything but waiting is done from outside, by these addresses and this key.
    fn new(up: &Up) -> Result<Demo, Failure> {
        let url = |address: Option<SocketAddr>| {
            address
                .map(|address| format!("http://{address}"))
                .ok_or_else(|| Failure::no("a listener of the demo is missing"))
        };
        Ok(Demo {
            http: Connection::new(&url(up.addresses.console)?, Some(up.key.clone()), true)?,
            simulator: Connection::new(&url(up.addresses.simulator_http)?, None, true)?,
            grpc: url(up.addresses.grpc)?,
            key: up.key.clone(),
            log: up.parts.log.clone(),
        })
    }

    async fn run(&self) -> Result<Report, Failure> {
        let known = contacts::read(contacts::CSV)?;
        let orders = purchases::orders(purchases::CSV, &known, Timestamp::now())?;
        let (today, history): (Vec<_>, Vec<_>) = orders.into_iter().partition(|order| order.today);

        commands::apply::apply(&self.http, RESOURCES.as_bytes().to_vec(), false).await?;
        say("applied deploy/demo/demo.toml; quiet hours are off in it, so that the demo runs at any hour");
        let progress = Progress::new("contacts imported (bytes)", 0);
        let imported = commands::contacts::import(&self.http, contacts::CSV.as_bytes().to_vec(), progress).await?;
        let imported_contacts = imported["created"].as_u64().unwrap_or(0);
        say(&format!(
            "contacts: {imported_contacts} created, {} rejected",
            imported["rejected"]
        ));

        let mut progress = Progress::new("orders published over gRPC", history.len() as u64);
        publish::publish(&self.grpc, &self.key, &history, Timestamp::now(), &mut progress).await?;
        progress.finish();
        self.wait_for_segmenter(history.len() as u64).await?;

        // Only now, so that the time from an order to its confirmation is that of a shop at work.
        let mut progress = Progress::new("orders of today", today.len() as u64);
        publish::publish(&self.grpc, &self.key, &today, Timestamp::now(), &mut progress).await?;
        progress.finish();
        self.wait_for_segmenter(today.len() as u64).await?;

        let matched = self.count_and_preview().await?;
        let launched = Timestamp::now();
        let id = self.launch(launched).await?;
        let to_confirm = today.iter().filter(|order| order.amount > 0.0).count() as u64;
        let (status, receipts) = self.wait_for_receipts(&id, to_confirm).await?;

        let campaign = receipts.sum(Some(&id));
        let seconds = campaign
            .last_taken
            .map_or(0.0, |last| last.duration_since(launched).as_secs_f64());
        Ok(Report {
            contacts: imported_contacts,
            events: (history.len() + today.len()) as u64,
            matched,
            to_confirm,
            status,
            campaign,
            confirmations: receipts.sum(None),
            seconds,
            audit: commands::audit::audit(&self.http, &[]).await?,
            simulator: self.simulator.get("/stats", &[]).await?,
        })
    }

    /// Until every event is in the history.
    async fn wait_for_segmenter(&self, total: u64) -> Result<(), Failure> {
        let mut progress = Progress::new("orders in the history", total);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lag = self.log.lag("segmenter", &[Topic::Events]).await;
            let lag = lag.map_err(|error| Failure::unreachable(chain(&error)))?;
            let behind: i64 = lag.iter().map(|one| (one.end - one.committed.max(0)).max(0)).sum();
            progress.set(total.saturating_sub(behind.unsigned_abs()));
            if behind == 0 {
                progress.finish();
                return Ok(());
            }
            in_time(deadline, "the segmenter")?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Says what the campaign would be, and gives the count.
    async fn count_and_preview(&self) -> Result<u64, Failure> {
        let draft = json!({"audience": AUDIENCE, "template": TEMPLATE, "values": values()});
        let preview = commands::campaign::preview(&self.http, &draft).await?;
        let matched = preview["count"].as_u64().unwrap_or(0);
        say(&format!("audience {AUDIENCE}: {matched} contacts"));
        for text in preview["texts"].as_array().into_iter().flatten().take(3) {
            say(&format!(
                "  {} ({}, {} part{})",
                text["text"].as_str().unwrap_or_default(),
                text["encoding"].as_str().unwrap_or_default(),
                text["parts"],
                if text["parts"] == 1 { "" } else { "s" },
            ));
        }
        let cost = preview["cost_micros"].as_i64().unwrap_or(0);
        say(&format!(
            "  estimated: {} messages, {} parts, cost {}",
            preview["sent"],
            preview["total_parts"],
            money(cost)
        ));
        Ok(matched)
    }

    /// The campaign's id.
    async fn launch(&self, now: Timestamp) -> Result<String, Failure> {
        let deadline = now + SignedDuration::from_hours(2);
        let draft = json!({
            "name": "Vente flash du nord",
            "audience": AUDIENCE,
            "template": TEMPLATE,
            "values": values(),
            "deadline": deadline.to_string(),
        });
        let created = commands::campaign::create(&self.http, &draft).await?;
        let id = created["id"].as_str().unwrap_or_default().to_owned();
        commands::campaign::act(&self.http, &id, "launch").await?;
        say(&format!("campaign launched, with a deadline at {deadline:.0}"));
        Ok(id)
    }

    /// Until nothing more is expected to happen to any message.
    async fn wait_for_receipts(&self, id: &str, confirmations: u64) -> Result<(Value, Receipts), Failure> {
        let mut receipts = Receipts::new(self.log.clone());
        let mut progress = Progress::new("messages settled", confirmations);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = commands::campaign::status(&self.http, id).await?;
            receipts.read().await?;
            let (campaign, triggered) = (receipts.sum(Some(id)), receipts.sum(None));
            let planned = status["planned"].as_u64().unwrap_or(0);
            progress.set_total(planned.max(campaign.messages) + confirmations);
            progress.set(settled(&campaign) + settled(&triggered));
            let waiting = ["pending", "accepted"].iter().any(|name| status[*name] != 0);
            if status["state"] == "finished"
                && !waiting
                && campaign.messages == planned
                && campaign.is_settled()
                && triggered.messages == confirmations
                && triggered.is_settled()
            {
                progress.finish();
                return Ok((status, receipts));
            }
            in_time(deadline, "the receipts")?;
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn settled(sum: &receipts::Sum) -> u64 {
    sum.states
        .iter()
        .filter(|(state, _)| state.is_terminal())
        .map(|(_, count)| count)
        .sum()
}

fn values() -> Value {
    json!({"article": "les chaussures", "until": "samedi"})
}

fn in_time(deadline: Instant, what: &str) -> Result<(), Failure> {
    match Instant::now() < deadline {
        true => Ok(()),
        false => Err(Failure::no(format!(
            "the demo gave up: it waited {} s for {what}",
            PATIENCE.as_secs()
        ))),
    }
}
