//! The settings: a commented default file compiled in, a `tamtam.toml` over it, the environment over that.
//!
//! The environment is handed in as a map, so no test sets a variable.

mod layers;
mod read;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    num::NonZero,
    path::{Path, PathBuf},
    time::Duration,
};

use bus::{KafkaConfig, TopicSettings};
use events::Topic;
use ipnet::IpNet;
use stage::RunnerConfig;
use tracing_subscriber::EnvFilter;

use layers::{Layers, Origin, Problem};

/// The default file, which is the documentation of the settings.
pub const DEFAULT: &str = include_str!("default.toml");
/// Read from the current directory where --config does not name another.
const FILE: &str = "tamtam.toml";

#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: Listen,
    pub data_directory: PathBuf,
    /// Whether somebody named it, so that it must not move.
    pub data_directory_given: bool,
    pub database: Database,
    pub bus: Bus,
    pub topics: Vec<TopicSettings>,
    pub stage: RunnerConfig,
    pub dispatcher: Dispatcher,
    pub trusted_proxies: Vec<IpNet>,
    pub simulator: simulator::Script,
    /// Threads that work; `None`: as many as suit what the process does.
    pub threads: Option<NonZero<usize>>,
    pub drain: Duration,
    pub admin_key: Option<Secret>,
    pub log: Log,
    pub telemetry: Telemetry,
}

#[derive(Clone, Copy, Debug)]
pub struct Listen {
    pub console: SocketAddr,
    pub grpc: SocketAddr,
    pub callbacks: SocketAddr,
    pub metrics: SocketAddr,
    pub simulator_http: SocketAddr,
    pub simulator_smpp: SocketAddr,
}

#[derive(Clone, Debug)]
pub struct Database {
    pub url: Option<Secret>,
    pub connections: u32,
    pub wait: Duration,
    pub migrate: bool,
}

#[derive(Clone, Debug)]
pub struct Bus {
    /// Absent: the log in PostgreSQL.
    pub kafka: Option<KafkaConfig>,
    pub wait: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct Dispatcher {
    pub batch_records: usize,
    pub limits: dispatcher::Limits,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub level: String,
    pub json: bool,
}

#[derive(Clone, Debug)]
pub struct Telemetry {
    pub otlp_endpoint: Option<String>,
    pub sample: f64,
}

/// A text that is not to be seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where settings come from beside the default file.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// --config; it must exist.
    pub config: Option<&'a Path>,
    /// All of the environment; what begins with `TAMTAM__` counts.
    pub environment: BTreeMap<String, String>,
    /// (key, value, the option's name)
    pub options: Vec<(&'static str, String, &'static str)>,
    /// Port 0 for every listener.
    pub free_ports: bool,
}

/// Everything that is wrong with the settings.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct SettingsError(pub Vec<Problem>);

impl Settings {
    pub fn load(sources: &Sources<'_>) -> Result<Settings, SettingsError> {
        let mut layers = Layers::new(DEFAULT);
        let path = sources.config.unwrap_or(Path::new(FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => layers.file(&path.display().to_string(), &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && sources.config.is_none() => {}
            Err(error) => {
                return Err(SettingsError(vec![Problem {
                    key: "--config".into(),
                    value: Some(path.display().to_string()),
                    origin: Origin::Option { name: "--config" },
                    message: format!("the file cannot be read: {error}"),
                }]));
            }
        }
        layers.environment(&sources.environment);
        for (key, value, name) in &sources.options {
            layers.option(key, value.clone(), name);
        }
        let mut settings = read(&mut layers);
        if !layers.problems.is_empty() {
            return Err(SettingsError(layers.problems));
        }
        if sources.free_ports {
            settings.listen.free_ports();
        }
        Ok(settings)
    }

    /// The settings of a role alone: without a database it can do nothing.
    pub fn require_database(&self) -> Result<&Secret, SettingsError> {
        self.database.url.as_ref().ok_or_else(|| {
            SettingsError(vec![Problem {
                key: "database.url".into(),
                value: Some(String::new()),
                origin: Origin::Default,
                message: "a role alone needs a database: expected --database postgres://USER:PASSWORD@HOST/DATABASE, or the setting; `tamtam up` brings its own".into(),
            }])
        })
    }
}

impl Listen {
    fn free_ports(&mut self) {
        for address in [
            &mut self.console,
            &mut self.grpc,
            &mut self.callbacks,
            &mut self.metrics,
            &mut self.simulator_http,
            &mut self.simulator_smpp,
        ] {
            address.set_port(0);
        }
    }
}

/// A topic's name as a key has it.
fn topic_key(topic: Topic) -> String {
    topic.name().replace(['.', '-'], "_")
}

fn read(layers: &mut Layers) -> Settings {
    const HOUR: Duration = Duration::from_secs(3_600);
    const YEARS: Duration = Duration::from_secs(3_650 * 86_400);
    let listen = Listen {
        console: layers.address("listen.console"),
        grpc: layers.address("listen.grpc"),
        callbacks: layers.address("listen.callbacks"),
        metrics: layers.address("listen.metrics"),
        simulator_http: layers.address("listen.simulator_http"),
        simulator_smpp: layers.address("listen.simulator_smpp"),
    };
    let url = layers.text_option("database.url");
    if url
        .as_deref()
        .is_some_and(|url| !url.starts_with("postgres://") && !url.starts_with("postgresql://"))
    {
        layers.refuse(
            "database.url",
            "expected postgres://USER:PASSWORD@HOST:PORT/DATABASE (the value is not shown, it may hold a password)",
        );
    }
    let database = Database {
        url: url.map(Secret),
        connections: layers.number("database.connections", 2..=1_000),
        wait: layers.period("database.wait", HOUR),
        migrate: layers.flag("database.migrate"),
    };
    let replication = layers.number("bus.replication", 1..=100);
    let topics = Topic::ALL
        .into_iter()
        .map(|topic| {
            let key = topic_key(topic);
            TopicSettings {
                topic,
                partitions: layers.number(&format!("topics.{key}.partitions"), 1..=1_000),
                replication: replication as i32,
                retention: layers.period(&format!("topics.{key}.retention"), YEARS),
            }
        })
        .collect();
    let stage = RunnerConfig {
        batch_records: layers.number("stage.batch_records", 1..=100_000) as usize,
        batch_bytes: layers.number("stage.batch_bytes", 1_024..=1_073_741_824) as usize,
        concurrency: layers.number("stage.concurrency", 1..=1_000) as usize,
        drain: layers.period("shutdown.drain", Duration::from_secs(25)),
        retry_min: Duration::from_millis(layers.number("stage.retry_min_ms", 1..=60_000).into()),
        retry_max: Duration::from_millis(layers.number("stage.retry_max_ms", 1..=600_000).into()),
    };
    let threads = NonZero::new(layers.number("process.threads", 0..=1_024) as usize);
    let admin_key = layers.text_option("admin.key");
    if admin_key.as_deref().is_some_and(|key| !is_api_key(key)) {
        layers.refuse("admin.key", "expected `tt_` and 32 to 64 letters and digits");
    }
    let level = layers.text("log.level");
    if EnvFilter::try_new(&level).is_err() || level.is_empty() {
        layers.refuse(
            "log.level",
            "expected error, warn, info, debug or trace, or by module such as info,bus=debug",
        );
    }
    let otlp_endpoint = layers.text_option("telemetry.otlp_endpoint");
    if otlp_endpoint
        .as_deref()
        .is_some_and(|endpoint| !endpoint.starts_with("http://") && !endpoint.starts_with("https://"))
    {
        layers.refuse(
            "telemetry.otlp_endpoint",
            "expected a URL such as http://127.0.0.1:4317",
        );
    }
    Settings {
        listen,
        data_directory: PathBuf::from(layers.text("data.directory")),
        data_directory_given: layers.get("data.directory").origin != Origin::Default,
        database,
        bus: Bus {
            kafka: kafka(layers),
            wait: layers.period("bus.wait", HOUR),
        },
        topics,
        stage,
        dispatcher: Dispatcher {
            batch_records: layers.number("dispatcher.batch_records", 1..=10_000) as usize,
            limits: limits(layers),
        },
        trusted_proxies: layers.networks("callbacks.trusted_proxies"),
        simulator: script(layers),
        threads,
        drain: stage.drain,
        admin_key: admin_key.map(Secret),
        log: Log {
            level,
            json: layers.word("log.format", &["text", "json"]) == "json",
        },
        telemetry: Telemetry {
            otlp_endpoint,
            sample: layers.ratio("telemetry.sample"),
        },
    }
}

/// How long and how often the dispatcher tries.
fn limits(layers: &mut Layers) -> dispatcher::Limits {
    const WEEKS: Duration = Duration::from_secs(28 * 86_400);
    let mut wait = |key| jiff::SignedDuration::try_from(layers.period(key, WEEKS)).unwrap_or(jiff::SignedDuration::MAX);
    let (wait_transactional, wait_marketing) =
        (wait("dispatcher.wait_transactional"), wait("dispatcher.wait_marketing"));
    let mut attempts = |key| layers.number(key, 1..=1_000);
    dispatcher::Limits {
        attempts_transactional: attempts("dispatcher.attempts_transactional"),
        attempts_marketing: attempts("dispatcher.attempts_marketing"),
        wait_transactional,
        wait_marketing,
        resend_transactional: layers.flag("dispatcher.resend_transactional"),
    }
}

/// The simulator's faults.
fn script(layers: &mut Layers) -> simulator::Script {
    let Some(path) = layers.text_option("simulator.script") else {
        return simulator::Script::default();
    };
    let read = std::fs::read_to_string(&path)
        .map_err(|error| error.to_string())
        .and_then(|text| simulator::Script::parse(&text).map_err(|error| error.to_string()));
    read.unwrap_or_else(|message| {
        layers.refuse("simulator.script", format!("expected a script of faults: {message}"));
        simulator::Script::default()
    })
}

fn is_api_key(key: &str) -> bool {
    key.strip_prefix("tt_")
        .is_some_and(|rest| (32..=64).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn kafka(layers: &mut Layers) -> Option<KafkaConfig> {
    let is_broker = |broker: &str| {
        broker
            .trim()
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    let prefix = layers.text("bus.prefix");
    // Kafka's own rule for names (up to 249 characters with the topic's).
    let good = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    if !prefix.chars().all(good) || prefix.len() > 100 {
        layers.refuse(
            "bus.prefix",
            "expected up to 100 letters, digits, `.`, `_` or `-` (ASCII)",
        );
    }
    if layers.word("bus.kind", &["postgres", "kafka"]) != "kafka" {
        return None;
    }
    let brokers = layers.text("bus.brokers");
    if !brokers.split(',').all(is_broker) {
        layers.refuse("bus.brokers", "expected HOST:PORT, or several with commas between");
    }
    Some(KafkaConfig {
        brokers,
        prefix,
        settings: layers.free(),
    })
}

#[cfg(test)]
mod tests;
