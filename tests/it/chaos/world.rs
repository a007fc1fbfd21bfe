//! Everything that can go wrong, and the hands that make it so: each role a process, the gateway, and proxies in front of
//! the database, the gateways and the callbacks. Runs follow each other in one world, so that its start is paid once.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ::bus::{BusConfig, KafkaConfig, Log, PostgresConfig};
use embedded::{Cluster, Options};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use simulator::Script;
use store::Store;

use super::plan::{Fault, Gateways, ROLES, Scale, most_unknown};
use crate::support::{
    bus,
    process::Process,
    proxy::Proxy,
    simulator::{Simulator, eventually},
    tamtam::Installation,
};

const DATABASE: &str = "chaos";

pub struct World {
    // Processes end before what they stand on.
    roles: BTreeMap<&'static str, Process>,
    /// Dispatchers beyond the first, and how many there were.
    more: Vec<Process>,
    pub installation: Installation,
    pub simulator: Simulator,
    script: Script,
    /// What the run has, and what happened in it so far.
    run: (Gateways, u64, Vec<Fault>),
    started: usize,
    database: Proxy,
    smpp: Proxy,
    http: Proxy,
    callbacks: Proxy,
    broker: Option<(Broker, KafkaConfig)>,
    cluster: Cluster,
    _directory: tempfile::TempDir,
}

fn options() -> Options {
    Options {
        // The machine lives on, so what PostgreSQL wrote is there after its own death.
        settings: ["fsync=off", "max_connections=200"].map(String::from).to_vec(),
        ephemeral: true,
    }
}

impl World {
    pub async fn start() -> World {
        let directory = tempfile::tempdir().unwrap();
        // PostgreSQL runs as another user when the tests run as root: it must be able to enter.
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let cluster = Cluster::start(&directory.path().join("postgres"), &options()).unwrap();
        let store = Store::connect(&cluster.url("postgres"), 1, Duration::from_secs(10))
            .await
            .unwrap();
        store.database_create(DATABASE).await.unwrap();
        let database = Proxy::start(&port_of(&cluster)).await;

        let mut installation = Installation::bare();
        installation
            .environment
            .insert("TAMTAM__DATABASE__URL".into(), through(&cluster, &database));
        let broker = bus::is_kafka().then(|| {
            let broker = Broker::start();
            let kafka = KafkaConfig {
                brokers: format!("127.0.0.1:{}", broker.port),
                prefix: "chaos.".into(),
                settings: BTreeMap::new(),
            };
            (broker, kafka)
        });
        if let Some((_, kafka)) = &broker {
            installation.on_kafka(kafka.clone());
        }
        installation.migrate();
        let simulator = Simulator::start(quick()).await;
        let roles: BTreeMap<&'static str, Process> =
            ROLES.iter().map(|role| (*role, installation.start(&[role]))).collect();
        World {
            smpp: Proxy::start(&simulator.smpp).await,
            http: Proxy::start(simulator.http.trim_start_matches("http://")).await,
            callbacks: Proxy::start(callbacks_of(&roles["receipt-collector"])).await,
            simulator,
            script: quick(),
            run: (Gateways::Both, 0, Vec::new()),
            more: Vec::new(),
            started: 1,
            roles,
            database,
            broker,
            installation,
            cluster,
            _directory: directory,
        }
    }

    pub async fn store(&self) -> Store {
        Store::connect(&self.cluster.url(DATABASE), 8, Duration::from_secs(30))
            .await
            .unwrap()
    }

    pub async fn log(&self, store: &Store) -> std::sync::Arc<dyn Log> {
        let config = match &self.broker {
            Some((_, kafka)) => BusConfig::Kafka(kafka.clone()),
            None => BusConfig::Postgres(PostgresConfig {
                pool: store.pool().clone(),
            }),
        };
        ::bus::open(config).await.unwrap()
    }

    /// The answer of a command, as soon as the console can give one.
    pub async fn ask(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        eventually(&format!("an answer to {arguments:?}"), || async {
            let output = self.installation.command(&self.roles["console"], &arguments);
            // An audit that finds something answers and fails.
            serde_json::from_slice(&output.stdout).ok()
        })
        .await
    }

    /// How many of the run's `messages` its faults can have left `unknown`.
    pub fn most_unknown(&self, messages: u64) -> u64 {
        let (gateways, rate, faults) = &self.run;
        let scale = Scale {
            messages,
            rate: *rate,
            window: WINDOW,
        };
        most_unknown(faults, *gateways, scale)
    }

    /// A new run: resources with these gateways; those that are not among them serve nobody.
    pub async fn apply(&mut self, gateways: Gateways, rate: u32) {
        self.run = (gateways, u64::from(rate), Vec::new());
        let prefixes = |serves: bool| if serves { "+262" } else { "+999" };
        let text = RESOURCES
            .replace("SMPP_ADDRESS", &self.smpp.address)
            .replace("HTTP_ADDRESS", &self.http.address)
            .replace("CALLBACKS_ADDRESS", &self.callbacks.address)
            .replace("RATE", &rate.to_string())
            .replace("WINDOW", &WINDOW.to_string())
            .replace("SMPP_PREFIX", prefixes(gateways != Gateways::Http))
            .replace("HTTP_PREFIX", prefixes(gateways != Gateways::Smpp));
        let file = self.installation.file("chaos.toml", &text);
        self.ask(&["apply", "-f", &file]).await;
    }

    /// How many messages the gateway took in all runs.
    pub async fn taken(&self) -> u64 {
        self.simulator.stats().await.distinct
    }

    pub fn gateways_close(&self) {
        self.smpp.close();
        self.http.close();
    }

    pub fn gateways_open(&self) {
        self.smpp.open();
        self.http.open();
    }

    pub async fn commit(&mut self, fault: Fault) {
        self.run.2.push(fault);
        match fault {
            Fault::Kill(role) => {
                self.role(role).kill();
                self.begin(role);
            }
            Fault::Stop(role) => {
                let status = self.role(role).terminate();
                assert!(status.success(), "{role} stopped with {status}");
                self.begin(role);
            }
            Fault::RestartDatabase => {
                self.cluster.restart(&options()).unwrap();
                self.database.lead_to(&port_of(&self.cluster));
            }
            Fault::CutDatabase { ms } => {
                self.database.close();
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.database.open();
            }
            Fault::RestartBroker => {
                if let Some((broker, _)) = &mut self.broker {
                    broker.restart();
                }
            }
            Fault::GatewayDown { ms } | Fault::GatewayDownAtLaunch { ms } => {
                self.gateways_close();
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.gateways_open();
            }
            Fault::Storm { ms } => {
                self.script(|script| script.throttled_percent = 100.0).await;
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.script(|script| script.throttled_percent = 0.0).await;
            }
            Fault::Refuses { percent } => {
                self.script(|script| script.throttled_percent = f64::from(percent))
                    .await;
            }
            Fault::CutMidResponse { every } => self.script(|script| script.cut_every = every).await,
            Fault::Garbage { every } => self.script(|script| script.garbage_every = every).await,
            Fault::Slow { ms } => {
                self.script(|script| {
                    script.response_delay_ms = ms;
                    script.response_jitter_ms = ms;
                })
                .await;
            }
            Fault::EarlyReceipts { percent } => {
                self.script(|script| script.early_percent = f64::from(percent)).await;
            }
            Fault::Rebalance => {
                self.more_dispatchers(3);
                let before = self.taken().await;
                // Until all of them are at work; near the end of a run there may be nothing left for them.
                for _ in 0..40 {
                    if self.taken().await > before + 20 {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                if let Some(mut killed) = self.more.pop() {
                    killed.kill();
                }
                if let Some(mut stopped) = self.more.pop() {
                    assert!(stopped.terminate().success());
                }
            }
        }
    }

    /// All is as it was before the first fault.
    pub async fn mend(&mut self) {
        self.script = quick();
        self.script(|_| ()).await;
        for mut more in std::mem::take(&mut self.more) {
            assert!(more.terminate().success());
        }
    }

    fn role(&mut self, role: &'static str) -> &mut Process {
        self.roles.get_mut(role).unwrap()
    }

    fn begin(&mut self, role: &'static str) {
        let again = self.installation.start(&[role]);
        if role == "receipt-collector" {
            self.callbacks.lead_to(callbacks_of(&again));
        }
        self.roles.insert(role, again);
    }

    fn more_dispatchers(&mut self, count: usize) {
        for _ in 0..count {
            self.started += 1;
            let name = format!("dispatcher-{}", self.started);
            let arguments = ["dispatcher", "--free-ports"];
            self.more.push(Process::start_named(
                self.installation.path(),
                &name,
                &arguments,
                &self.installation.environment,
            ));
        }
    }

    async fn script(&mut self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script);
        self.simulator.script(self.script.clone()).await;
    }
}

fn quick() -> Script {
    Script {
        receipt_delay_ms: 50,
        receipt_jitter_ms: 200,
        ..Script::default()
    }
}

fn callbacks_of(collector: &Process) -> &str {
    collector.at("callbacks").trim_start_matches("http://")
}

fn port_of(cluster: &Cluster) -> String {
    let url = cluster.url("");
    url.rsplit_once('@').unwrap().1.trim_end_matches('/').to_owned()
}

fn through(cluster: &Cluster, proxy: &Proxy) -> String {
    cluster.url(DATABASE).replace(&port_of(cluster), &proxy.address)
}

/// Submissions that each gateway may have in flight.
const WINDOW: u64 = 50;

const RESOURCES: &str = r#"
[[gateway]]
name = "one"
kind = "smpp"
address = "SMPP_ADDRESS"
system_id = "tamtam"
password = "tamtam"
rate = RATE
window = WINDOW
response_timeout = "5s"
prefixes = ["SMPP_PREFIX"]
priority = 1

[[gateway]]
name = "two"
kind = "http"
address = "http://HTTP_ADDRESS/twilio/Messages.json"
system_id = "account"
password = "secret"
rate = RATE
window = WINDOW
response_timeout = "5s"
prefixes = ["HTTP_PREFIX"]
priority = 2
callback_url = "http://CALLBACKS_ADDRESS/callbacks/two?secret=s3cret"
callback_secret = "s3cret"
http = { profile = "twilio" }

[[template]]
name = "sale"
class = "marketing"
sender = "BOUTIQUE"
text = "{{ contact.first_name | default('Bonjour') }}, -20% sur {{ campaign.article }}."

[[template]]
name = "thanks"
class = "transactional"
sender = "BOUTIQUE"
text = "Merci, {{ event.amount }} EUR."

[[audience]]
name = "north"
where = 'region = "north"'

[[trigger]]
name = "thanks"
on = "order.placed"
when = 'event.amount > 0'
template = "thanks"

[policy]
quiet_hours = "off"
default_region = "RE"
"#;

/// A Kafka node of this world's own, because it is killed.
struct Broker {
    port: u16,
    directory: tempfile::TempDir,
    keeper: Child,
}

/// Runs a node until it is told to end, or the test's process has ended: then the node dies without a word.
const KEEPER: &str = r#"
"$1" "$2" "$3" & node=$!
trap 'kill -9 $node 2>/dev/null; wait $node; exit 0' TERM
while kill -0 "$4" 2>/dev/null && kill -0 $node 2>/dev/null; do sleep 0.2; done
kill -9 $node 2>/dev/null
"#;

impl Broker {
    fn start() -> Broker {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let directory = tempfile::tempdir().unwrap();
        let keeper = keep(port, directory.path());
        let broker = Broker {
            port,
            directory,
            keeper,
        };
        broker.wait();
        broker
    }

    fn restart(&mut self) {
        self.kill();
        self.keeper = keep(self.port, self.directory.path());
        self.wait();
    }

    fn kill(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.keeper.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.keeper.wait().unwrap();
    }

    fn wait(&self) {
        crate::support::process::eventually("Kafka to listen", Duration::from_secs(120), || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn keep(port: u16, directory: &Path) -> Child {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(directory.join("node.log"))
        .unwrap();
    Command::new("bash")
        .args(["-c", KEEPER, "bash"])
        .arg(root.join("deploy/kafka/node.sh"))
        .arg(port.to_string())
        .arg(directory.join("node"))
        .arg(std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
