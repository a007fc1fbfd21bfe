//! An installation to measure: the release binary's processes over a PostgreSQL of its own with default durability, on
//! either bus, with the gateway simulator as a process beside them.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bus::{BusConfig, KafkaConfig, Log, PostgresConfig};
use embedded::{Cluster, Options as ClusterOptions};
use events::Topic;
use store::Store;

use crate::{
    machine,
    meter::Meter,
    process::{self, Process},
    report::{Figures, put},
    simulator::Simulator,
};

/// An admin's key of the benches; nobody else's.
pub const KEY: &str = "tt_bench0123456789bench0123456789bench0123456789bench0123456789";
pub const ROLES: [&str; 5] = ["ingest", "segmenter", "renderer", "dispatcher", "receipt-collector"];

#[derive(Clone, Debug)]
pub enum Bus {
    Postgres,
    /// Its bootstrap servers.
    Kafka(String),
}

impl Bus {
    pub fn name(&self) -> &'static str {
        match self {
            Bus::Postgres => "postgres",
            Bus::Kafka(_) => "kafka",
        }
    }
}

/// What an installation is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub bus: Bus,
    /// All in one process (`tamtam up`), or the console and each of these roles as its own.
    pub up: bool,
    pub roles: Vec<&'static str>,
    /// Processes of the role `dispatcher`, where it is among them.
    pub dispatchers: u32,
    pub partitions: u32,
    pub contacts: u64,
    /// Further resources.
    pub resources: String,
    /// `smpp` or `http`.
    pub gateway: &'static str,
    /// The simulator's script.
    pub script: &'static str,
    /// Further settings, as environment variables.
    pub settings: BTreeMap<String, String>,
    /// Whether PostgreSQL counts its statements (a few per cent of its time).
    pub statements: bool,
}

impl Plan {
    pub fn new(bus: Bus) -> Plan {
        Plan {
            bus,
            up: false,
            roles: ROLES.to_vec(),
            dispatchers: 1,
            partitions: 8,
            contacts: 20_000,
            resources: String::new(),
            gateway: "smpp",
            script: SCRIPT,
            settings: BTreeMap::new(),
            statements: false,
        }
    }
}

/// Receipts come soon, so that they are part of the load that is measured.
const SCRIPT: &str = "receipt_delay_ms = 50\nreceipt_jitter_ms = 100\n";
/// The simulator's script without any.
pub const NO_RECEIPTS: &str = "receipts = false\n";

#[derive(Debug)]
pub struct Stand {
    pub plan: Plan,
    pub store: Store,
    pub log: Arc<dyn Log>,
    pub simulator: Simulator,
    pub environment: BTreeMap<String, String>,
    /// What runs, by its name: the console and the roles (`ROLE`, then `ROLE@2` and on), or `up`.
    pub processes: BTreeMap<String, Process>,
    gateway: Process,
    kafka: Option<u32>,
    postgres: u32,
    // These in this order, and last: it ends when nobody uses it any more, and before its files go. Without them it would go on
    // for a minute, and vacuum beside the next run.
    _cluster: Cluster,
    directory: tempfile::TempDir,
}

/// Further settings of all processes, to try something out: `NAME=VALUE`, separated by spaces.
fn settings() -> Result<BTreeMap<String, String>> {
    let given = std::env::var("BENCH_SETTINGS").unwrap_or_default();
    given
        .split_whitespace()
        .map(|setting| {
            let (name, value) = setting
                .split_once('=')
                .with_context(|| format!("BENCH_SETTINGS: `{setting}`; expected NAME=VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Those of `min_wal_size`, as [`embedded::settings`] has it.
const KEPT_FILES: u32 = 64;

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Stand {
    pub async fn start(plan: Plan) -> Result<Stand> {
        let directory = tempfile::tempdir()?;
        // As root PostgreSQL runs as another user, who passes through.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let cluster = cluster(&directory.path().join("postgres"), plan.statements).await?;
        let admin = Store::connect(&cluster.socket_url("postgres"), 1, WAIT).await?;
        admin.database_create("tamtam").await?;
        let url = cluster.socket_url("tamtam");
        let store = Store::connect(&url, 8, WAIT).await?;

        let mut environment = BTreeMap::from([
            ("TAMTAM__ADMIN__KEY".to_owned(), KEY.to_owned()),
            ("TAMTAM__DATABASE__URL".to_owned(), url.clone()),
            ("TAMTAM__LOG__LEVEL".to_owned(), "warn".to_owned()),
        ]);
        for topic in Topic::ALL.into_iter().filter(|topic| *topic != Topic::DeadLetters) {
            let name = topic.name().replace(['.', '-'], "_").to_uppercase();
            environment.insert(
                format!("TAMTAM__TOPICS__{name}__PARTITIONS"),
                plan.partitions.to_string(),
            );
        }
        let mut kafka = None;
        let config = match &plan.bus {
            Bus::Postgres => BusConfig::Postgres(PostgresConfig {
                pool: store.pool().clone(),
            }),
            Bus::Kafka(brokers) => {
                let config = KafkaConfig {
                    brokers: brokers.clone(),
                    prefix: format!("b{}x{}.", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)),
                    settings: BTreeMap::new(),
                };
                environment.insert("TAMTAM__BUS__KIND".into(), "kafka".into());
                environment.insert("TAMTAM__BUS__BROKERS".into(), config.brokers.clone());
                environment.insert("TAMTAM__BUS__PREFIX".into(), config.prefix.clone());
                kafka = Some(machine::listener(port(brokers)?)?);
                BusConfig::Kafka(config)
            }
        };
        environment.extend(plan.settings.clone());
        environment.extend(settings()?);
        let path = directory.path();
        process::run(path, &environment, &["migrate"])?;
        let gateway = Process::start(path, &environment, "simulator", &["simulator"])?;
        let mut stand = Stand {
            store,
            log: bus::open(config).await?,
            simulator: Simulator::new(gateway.at("simulator_http")?)?,
            environment,
            processes: BTreeMap::new(),
            gateway,
            kafka,
            postgres: machine::listener(port(url.split('/').nth(2).unwrap_or_default())?)?,
            directory,
            _cluster: cluster,
            plan: plan.clone(),
        };
        stand.simulator.script(plan.script).await?;
        if plan.up {
            stand.begin("up")?;
        } else {
            stand.begin("console")?;
        }
        stand.apply(&stand.resources()?)?;
        stand.contacts(plan.contacts).await?;
        for role in plan.roles.iter().filter(|_| !plan.up) {
            stand.begin(role)?;
            if *role == "dispatcher" {
                for number in 2..=plan.dispatchers {
                    stand.begin(&format!("{role}@{number}"))?;
                }
            }
        }
        Ok(stand)
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Starts a role, another of the same (`ROLE@2`), or `up`.
    pub fn begin(&mut self, name: &str) -> Result<()> {
        let role = role(name);
        let arguments: &[&str] = match role {
            "up" => &["up", "--data-dir", "data"],
            role => &[role],
        };
        let process = Process::start(self.directory.path(), &self.environment, name, arguments)?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    /// Stops a role in good order.
    pub fn end(&mut self, name: &str) {
        if let Some(process) = self.processes.remove(name) {
            process.stop();
        }
    }

    /// Stops all that runs but the bus, PostgreSQL and the simulator.
    pub fn end_all(&mut self) {
        for (_, process) in std::mem::take(&mut self.processes) {
            process.stop();
        }
    }

    /// A command that prints JSON.
    pub fn command(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let console = self.processes.get("up").or_else(|| self.processes.get("console"));
        let server = console.context("no console runs")?.at("console")?;
        let mut environment = self.environment.clone();
        environment.insert("TAMTAM_API_KEY".into(), KEY.into());
        let arguments = [arguments, &["--server", server, "--json"]].concat();
        Ok(serde_json::from_str(&process::run(
            self.path(),
            &environment,
            &arguments,
        )?)?)
    }

    pub fn apply(&self, toml: &str) -> Result<()> {
        let path = self.path().join("resources.toml");
        std::fs::write(&path, toml)?;
        self.command(&["apply", "-f", &path.display().to_string()])?;
        Ok(())
    }

    /// Applies the stand's resources with further ones.
    pub fn apply_with(&self, further: &str) -> Result<()> {
        self.apply(&(self.resources()? + further))
    }

    /// The address that events are published to.
    pub fn grpc(&self) -> Result<String> {
        let process = self.processes.get("up").or_else(|| self.processes.get("ingest"));
        Ok(process.context("no ingest runs")?.at("grpc")?.to_owned())
    }

    pub fn smpp(&self) -> Result<String> {
        Ok(self.gateway.at("simulator_smpp")?.to_owned())
    }

    pub fn http(&self) -> Result<String> {
        Ok(self.gateway.at("simulator_http")?.to_owned())
    }

    fn resources(&self) -> Result<String> {
        let gateway = match self.plan.gateway {
            "http" => {
                let callbacks = self.processes.get("up").map(|up| up.at("callbacks")).transpose()?;
                let callback =
                    callbacks.map_or(String::new(), |at| format!("callback_url = \"{at}/callbacks/main\"\n"));
                format!(
                    "kind = \"http\"\naddress = \"{}/vonage/sms/json\"\n{callback}{HTTP}",
                    self.http()?
                )
            }
            _ => format!(
                "kind = \"smpp\"\naddress = \"{}\"\nbinds = 2\nwindow = 500\n",
                self.smpp()?
            ),
        };
        Ok(format!(
            "[[gateway]]\nname = \"main\"\nsystem_id = \"tamtam\"\npassword = \"tamtam\"\nrate = 1000000\n{gateway}{RESOURCES}{}",
            self.plan.resources
        ))
    }

    /// Fills the table of contacts: `c0` and on, each with a phone of its own and consent.
    pub async fn contacts(&self, count: u64) -> Result<()> {
        ensure!(count <= 1_000_000, "up to a million phones");
        sqlx::query(
            "insert into contacts (id, phone, first_name, gender, birth_date, region, marketing_consent, consent_at)
             select 'c' || n, '+262692' || lpad(n::text, 6, '0'), 'Ana', case n % 2 when 0 then 'female' else 'male' end,
                 date '1960-01-01' + (n % 16000)::int, case n % 4 when 0 then 'north' else 'south' end, true, now()
             from generate_series(0, $1::bigint - 1) as n on conflict do nothing",
        )
        .bind(i64::try_from(count)?)
        .execute(self.store.pool())
        .await?;
        sqlx::query("vacuum analyze contacts")
            .execute(self.store.pool())
            .await?;
        Ok(())
    }

    /// Records of `topic` that `group` has not committed.
    pub async fn lag(&self, group: &str, topic: Topic) -> Result<u64> {
        let until = Instant::now() + Duration::from_secs(30);
        let lags = loop {
            match self.log.lag(group, &[topic]).await {
                // A broker that has only just started finds its groups' coordinator in a moment.
                Err(error) if error.is_transient() && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                lags => break lags?,
            }
        };
        Ok(lags
            .iter()
            .map(|lag| u64::try_from(lag.end - lag.committed).unwrap_or(0))
            .sum())
    }

    /// Waits until a group has committed all of a topic. Asking takes of the processors that are measured, so it is asked
    /// often only near the end.
    pub async fn drained(&self, group: &str, topic: Topic, patience: Duration) -> Result<()> {
        /// What no stage works off before it is asked again.
        const FAR: u64 = 50_000;
        let until = Instant::now() + patience;
        loop {
            let lag = self.lag(group, topic).await?;
            if lag == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{group} lags {lag} records behind on `{topic}`");
            let wait = if lag > FAR { 500 } else { 50 };
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }

    /// Waits until the gateway has taken so many different messages.
    pub async fn taken(&self, count: u64, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        loop {
            let stats = self.simulator.stats().await?;
            if stats.distinct >= count {
                return Ok(());
            }
            ensure!(
                Instant::now() < until,
                "{} of {count} messages reached the gateway",
                stats.distinct
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until so many receipts were taken and are in the ledger.
    pub async fn settled(&self, receipts: u64, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        loop {
            let stats = self.simulator.stats().await?;
            if stats.receipts >= receipts {
                return self.drained("receipt-collector", Topic::Callbacks, patience).await;
            }
            ensure!(
                Instant::now() < until,
                "{} of {receipts} receipts were taken",
                stats.receipts
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One whose PostgreSQL has been there for a while; where only a short form is run, as it starts.
    pub async fn warm(plan: Plan, short: bool) -> Result<Stand> {
        let stand = Stand::start(plan).await?;
        if !short {
            stand.warm_log().await?;
        }
        Ok(stand)
    }

    /// Has PostgreSQL write the files of its log that an installation has after its first hour, and keep them: else each of
    /// 16 MB is written while commits wait for it.
    async fn warm_log(&self) -> Result<()> {
        for _ in 0..KEPT_FILES {
            sqlx::query("select pg_logical_emit_message(true, 'bench', 'warm'), pg_switch_wal()")
                .execute(self.store.pool())
                .await?;
        }
        sqlx::query("checkpoint").execute(self.store.pool()).await?;
        Ok(())
    }

    /// Has PostgreSQL do what it owes to the load so far, in which the next one would else be measured.
    pub async fn rest(&self) -> Result<()> {
        for owed in ["vacuum analyze", "checkpoint"] {
            sqlx::query(owed).execute(self.store.pool()).await?;
        }
        Ok(())
    }

    /// Messages in the ledger by their state.
    pub async fn in_state(&self, state: domain::State) -> Result<u64> {
        let (count,): (i64,) = sqlx::query_as("select count(*) from messages where state = $1")
            .bind(state.code())
            .fetch_one(self.store.pool())
            .await?;
        Ok(u64::try_from(count)?)
    }

    /// Processor time so far.
    pub fn meter(&self) -> Meter {
        let mut parts: BTreeMap<String, f64> = BTreeMap::new();
        for (name, process) in &self.processes {
            *parts.entry(role(name).to_owned()).or_default() += machine::cpu(process.pid());
        }
        parts.insert("postgres".into(), machine::cpu_of_family(self.postgres));
        parts.insert("simulator".into(), machine::cpu(self.gateway.pid()));
        parts.insert("load".into(), machine::cpu(std::process::id()));
        if let Some(kafka) = self.kafka {
            parts.insert("kafka".into(), machine::cpu(kafka));
        }
        Meter(parts)
    }

    /// The most memory that each process has had.
    pub fn memory(&self, figures: &mut Figures) {
        for (name, process) in &self.processes {
            put(figures, format!("memory_mib_{name}"), machine::peak_mib(process.pid()));
        }
    }
}

const WAIT: Duration = Duration::from_secs(30);

/// The role of a process by its name.
fn role(name: &str) -> &str {
    name.split('@').next().unwrap_or(name)
}

fn port(address: &str) -> Result<u16> {
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    port.context("an address of the form HOST:PORT")
}

async fn cluster(directory: &Path, statements: bool) -> Result<Cluster> {
    let mut settings = embedded::settings();
    if statements {
        settings.push("shared_preload_libraries=pg_stat_statements".into());
    }
    // Further ones, to try something out: `NAME=VALUE`, separated by spaces. The last of a name counts.
    let given = std::env::var("BENCH_POSTGRES").unwrap_or_default();
    settings.extend(given.split_whitespace().map(String::from));
    let options = ClusterOptions {
        settings,
        ephemeral: true,
    };
    let directory = directory.to_owned();
    Ok(tokio::task::spawn_blocking(move || Cluster::start(&directory, &options)).await??)
}

const HTTP: &str = "window = 64\n[gateway.http]\nprofile = \"vonage\"\n";

const RESOURCES: &str = r#"
[[template]]
name = "order"
class = "transactional"
sender = "BOUTIQUE"
text = "Commande {{ event.number }} du {{ event.sent }}: en route, elle arrive demain avant midi."

[[template]]
name = "sale"
class = "marketing"
sender = "BOUTIQUE"
text = "{{ contact.first_name | default('Bonjour') }}, -20% sur {{ campaign.article }} dans votre boutique."

[[trigger]]
name = "order"
on = "order.placed"
when = 'event.amount > 0'
template = "order"

[policy]
quiet_hours = "off"
default_region = "RE"
"#;
