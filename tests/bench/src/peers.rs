//! What people use today, in the same run: Kannel, Jasmin, senders written by hand, and, for campaigns, listmonk, all to
//! the same simulator.
//!
//! The scripts of `tests/bench/peers` start each one; what it sends is counted at the simulator, from the first request
//! until the last message is there. Durable or not is in the name: `kannel_file` and `kannel_spool` keep what they took on
//! disk (without ever calling fsync), `kannel_batch` and `sender` keep nothing, `listmonk_campaign` keeps no record of whom
//! it has written to.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{
    Common,
    campaign::{self, Through},
    machine,
    pipeline::{self, Numbers},
    raw::{self, Records},
    report::{self, Figures, get, put},
    stand::{Bus, Plan, Stand},
};

const PATIENCE: Duration = Duration::from_secs(300);
/// The HTTP connections that Kannel and Jasmin are given.
const CONNECTIONS: u64 = 32;
const SCRIPTS: &str = "tests/bench/peers";
const PYTHON: &str = ".cache/peers/bin/python";
const CAMPAIGN: u64 = 200_000;

/// `listmonk`: where its source lies, if it is to take part.
pub async fn run(common: &Common, listmonk: Option<&Path>) -> Result<()> {
    let Bus::Kafka(_) = &common.bus else {
        bail!("peers are measured beside tamtam on Kafka: give --kafka (deploy/kafka/with-node.sh)");
    };
    let mut runs = Vec::new();
    for number in 1..=common.runs {
        report::say(&format!("run {number} of {}", common.runs));
        let mut figures = others(common).await?;
        tamtam(common, &mut figures).await?;
        campaigns_beside_each_other(common, listmonk, number, &mut figures).await?;
        say(&figures);
        runs.push(figures);
    }
    let mut flat = Map::new();
    for (name, value) in report::medians(&runs) {
        flat.insert(name, json!(value));
    }
    flat.insert("short".into(), json!(common.short));
    flat.insert("conditions".into(), machine::conditions());
    flat.insert(
        "runs".into(),
        json!(runs.iter().map(report::object).collect::<Vec<_>>()),
    );
    say_who_is_left_out(listmonk);
    report::file("peers.json", serde_json::to_string_pretty(&Value::Object(flat))?)?;
    let settings = json!({ "seconds": common.seconds, "recipients of a campaign": common.scaled(CAMPAIGN) });
    report::write(common, "peers-table", settings, &runs)
}

/// Campaigns alone, listmonk's and tamtam's.
pub async fn campaigns(common: &Common, listmonk: Option<&Path>) -> Result<()> {
    let mut runs = Vec::new();
    for number in 1..=common.runs {
        report::say(&format!("run {number} of {}", common.runs));
        let mut figures = Figures::new();
        campaigns_beside_each_other(common, listmonk, number, &mut figures).await?;
        say(&figures);
        runs.push(figures);
    }
    say_who_is_left_out(listmonk);
    let settings = json!({ "recipients": common.scaled(CAMPAIGN) });
    report::write(common, "peers-campaigns", settings, &runs)
}

fn say(figures: &Figures) {
    for (name, value) in figures {
        report::say(&format!("  {name:<40} {}", report::shown(*value)));
    }
}

fn say_who_is_left_out(listmonk: Option<&Path>) {
    if listmonk.is_none() {
        report::say(
            "listmonk_campaign is left out: no registry serves listmonk; name a checkout of it in LISTMONK_SRC",
        );
    }
}

/// A stand that runs nothing but a simulator and a PostgreSQL.
async fn beside(common: &Common) -> Result<Stand> {
    let plan = Plan {
        roles: Vec::new(),
        contacts: 1,
        ..Plan::new(Bus::Postgres)
    };
    Stand::warm(plan, common.short).await
}

fn database(stand: &Stand) -> Result<&str> {
    let url = stand.environment.get("TAMTAM__DATABASE__URL");
    Ok(url.context("the database")?)
}

/// The peers, each to a simulator of a stand that runs nothing else.
async fn others(common: &Common) -> Result<Figures> {
    let stand = beside(common).await?;
    let mut figures = Figures::new();
    for (name, store, messages, batch) in [
        ("kannel_file", "file", 60_000, 1),
        ("kannel_spool", "spool", 20_000, 1),
        ("kannel_batch", "none", 100_000, 100),
    ] {
        let (host, port) = stand
            .smpp()?
            .rsplit_once(':')
            .map(|(host, port)| (host.to_owned(), port.to_owned()))
            .context("HOST:PORT")?;
        let peer = Peer::start(&script("kannel.sh"), &[store, &host, &port]).await?;
        let url = peer.line.strip_prefix("ready ").context("kannel.sh is not ready")?;
        put(
            &mut figures,
            name,
            posted(&stand, url, "to", "text", common.scaled(messages), batch).await?,
        );
        peer.stop().await;
    }
    let (host, port) = stand
        .smpp()?
        .rsplit_once(':')
        .map(|(host, port)| (host.to_owned(), port.to_owned()))
        .context("HOST:PORT")?;
    let peer = Peer::start(&script("jasmin.sh"), &[&host, &port]).await?;
    let url = peer.line.strip_prefix("ready ").context("jasmin.sh is not ready")?;
    put(
        &mut figures,
        "jasmin",
        posted(&stand, url, "to", "content", common.scaled(5_000), 1).await?,
    );
    peer.stop().await;

    let gateway = format!("{}/vonage/sms/json", stand.http()?);
    let worker = script("worker.py");
    let count = common.scaled(8_000);
    let number = count.to_string();
    put(
        &mut figures,
        "worker",
        driven(&stand, &worker, &[database(&stand)?, &gateway, &number], count).await?,
    );
    let count = common.scaled(40_000);
    let number = count.to_string();
    put(
        &mut figures,
        "sender",
        driven(&stand, &script("sender.py"), &[&gateway, &number], count).await?,
    );

    put(
        &mut figures,
        "raw_ledger",
        raw::ledger(&stand.store, 0..common.scaled(100_000)).await?,
    );
    put(
        &mut figures,
        "raw_smpp",
        raw::smpp(&stand.smpp()?, common.scaled(300_000)).await?,
    );
    put(
        &mut figures,
        "raw_http",
        raw::http(&stand.http()?, common.scaled(50_000)).await?,
    );
    if let Bus::Kafka(brokers) = &common.bus {
        let records = Records::create(brokers, common.scaled(300_000)).await?;
        put(&mut figures, "raw_kafka_produce", records.produce().await?);
        put(&mut figures, "raw_kafka_consume", records.consume().await?);
    }
    Ok(figures)
}

async fn tamtam(common: &Common, figures: &mut Figures) -> Result<()> {
    let period = Duration::from_secs(common.seconds);
    for (name, bus) in [("tamtam_kafka", common.bus.clone()), ("tamtam_postgres", Bus::Postgres)] {
        let plan = Plan {
            partitions: common.partitions,
            ..Plan::new(bus)
        };
        let stand = Stand::warm(plan, common.short).await?;
        let mut numbers = Numbers::default();
        pipeline::sustained(&stand, &mut numbers, pipeline::warming(common)).await?;
        let run = pipeline::sustained(&stand, &mut numbers, period).await?;
        put(figures, name, get(&run, "messages_per_second").unwrap_or(0.0));
    }
    let run = crate::stages::dispatcher(common, "smpp").await?;
    put(figures, "tamtam_dispatcher", run);
    Ok(())
}

/// Listmonk's campaign and tamtam's, in every second run the other way round: a machine that becomes slower or quicker within
/// a run is then no one's gain.
async fn campaigns_beside_each_other(
    common: &Common,
    listmonk: Option<&Path>,
    number: u32,
    figures: &mut Figures,
) -> Result<()> {
    let Some(source) = listmonk else {
        return campaigns_of_tamtam(common, figures).await;
    };
    if number.is_multiple_of(2) {
        campaigns_of_tamtam(common, figures).await?;
        return campaign_of_listmonk(common, source, figures).await;
    }
    campaign_of_listmonk(common, source, figures).await?;
    campaigns_of_tamtam(common, figures).await
}

async fn campaigns_of_tamtam(common: &Common, figures: &mut Figures) -> Result<()> {
    // As listmonk runs: one process and a PostgreSQL.
    let recipients = common.scaled(CAMPAIGN);
    let embedded = Common {
        bus: Bus::Postgres,
        ..common.clone()
    };
    // Listmonk's messenger gets no receipts: with them, as tamtam's users have it, and like for like.
    for (name, gateway, receipts) in [
        ("tamtam_campaign", "smpp", true),
        ("tamtam_campaign_http", "http", true),
        ("tamtam_campaign_no_receipts", "smpp", false),
        ("tamtam_campaign_http_no_receipts", "http", false),
    ] {
        let through = Through { gateway, receipts };
        let run = campaign::once(&embedded, recipients, through, recipients).await?;
        put(figures, name, get(&run, "messages_per_second").unwrap_or(0.0));
        let memory = get(&run, "memory_mib_up").unwrap_or(0.0);
        put(figures, format!("{name}_memory_mib"), memory);
    }
    Ok(())
}

/// A campaign of the same size: from its launch over listmonk's API to the last message, and the most memory it had.
async fn campaign_of_listmonk(common: &Common, source: &Path, figures: &mut Figures) -> Result<()> {
    let stand = beside(common).await?;
    let recipients = common.scaled(CAMPAIGN);
    let gateway = format!("{}/listmonk/messages", stand.http()?);
    let (source, number) = (source.display().to_string(), recipients.to_string());
    let peer = Peer::start(&script("listmonk.py"), &[&source, database(&stand)?, &gateway, &number]).await?;
    let begun = Instant::now();
    let pid = peer.line.strip_prefix("go ").and_then(|pid| pid.parse().ok());
    let pid = pid.with_context(|| format!("listmonk.py said `{}`", peer.line))?;
    put(figures, "listmonk_campaign", arrived(&stand, recipients, begun).await?);
    put(figures, "listmonk_campaign_memory_mib", machine::peak_mib(pid));
    peer.stop().await;
    let text = stand.simulator.first().await?.map(|first| first.text);
    ensure!(
        text.as_deref() == Some("Ana, -20% sur tout dans votre boutique."),
        "listmonk wrote {text:?}"
    );
    let stats = stand.simulator.stats().await?;
    ensure!(
        stats.distinct == recipients,
        "listmonk reached {} of {recipients}",
        stats.distinct
    );
    Ok(())
}

fn script(name: &str) -> PathBuf {
    Path::new(SCRIPTS).join(name)
}

/// A script that said its first line.
struct Peer {
    child: Child,
    line: String,
}

impl Peer {
    async fn start(script: &Path, arguments: &[&str]) -> Result<Peer> {
        let mut command = match script.extension().is_some_and(|extension| extension == "py") {
            true => {
                let mut command = Command::new(PYTHON);
                command.arg(script);
                command
            }
            false => Command::new(script),
        };
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| script.display().to_string())?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await??;
        let line = line.with_context(|| format!("{} ended before it was ready", script.display()))?;
        Ok(Peer { child, line })
    }

    /// Its standard input closes, and its end is waited for.
    async fn stop(mut self) {
        drop(self.child.stdin.take());
        let _ = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
    }
}

/// Messages a second of a script that sends by itself once it has said `go`.
async fn driven(stand: &Stand, script: &Path, arguments: &[&str], count: u64) -> Result<f64> {
    stand.simulator.reset().await?;
    let peer = Peer::start(script, arguments).await?;
    ensure!(peer.line == "go", "{} said `{}`", script.display(), peer.line);
    let rate = arrived(stand, count, Instant::now()).await;
    peer.stop().await;
    rate
}

/// Messages a second of a server that takes them by HTTP, `batch` recipients in a request.
async fn posted(stand: &Stand, url: &str, to: &str, text: &str, count: u64, batch: u64) -> Result<f64> {
    stand.simulator.reset().await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let begun = Instant::now();
    let callers: Vec<_> = (0..CONNECTIONS)
        .map(|caller| {
            let (client, url, to, text) = (client.clone(), url.to_owned(), to.to_owned(), text.to_owned());
            tokio::spawn(async move {
                for first in (caller * batch..count).step_by((CONNECTIONS * batch) as usize) {
                    let phones: Vec<String> = (first..(first + batch).min(count))
                        .map(|number| format!("%2B262692{:06}", number % 1_000_000))
                        .collect();
                    let content = format!("Commande+{first}+en+route+elle+arrive+demain+avant+midi.");
                    let request = format!("{url}&{to}={}&{text}={content}", phones.join("+"));
                    client.get(request).send().await?.error_for_status()?.bytes().await?;
                }
                Ok::<_, reqwest::Error>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    arrived(stand, count, begun).await
}

async fn arrived(stand: &Stand, count: u64, begun: Instant) -> Result<f64> {
    loop {
        let stats = stand.simulator.stats().await?;
        if stats.accepted >= count {
            return Ok(count as f64 / begun.elapsed().as_secs_f64());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "{} of {count} messages arrived",
            stats.accepted
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
