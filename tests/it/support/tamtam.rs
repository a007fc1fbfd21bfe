//! An installation of the real binary: a directory, a database and a bus of its own, and the commands that talk to it.

use std::{collections::BTreeMap, path::Path, process::Output, time::Duration};

use serde_json::Value;

use super::{
    bus, database,
    process::{self, Process, eventually},
};

/// An admin's key of the tests; nobody else's.
pub const KEY: &str = "tt_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Installation {
    pub directory: tempfile::TempDir,
    /// Settings of every process, as environment variables.
    pub environment: BTreeMap<String, String>,
}

impl Installation {
    /// On a private PostgreSQL of `tamtam up`; the bus is the one that the tests run on.
    pub async fn private() -> Installation {
        let mut installation = Installation::bare();
        if bus::is_kafka() {
            installation.on_kafka(bus::kafka_config().await);
        }
        installation
    }

    /// Without a database and on the PostgreSQL bus, as far as nothing else is set.
    pub fn bare() -> Installation {
        let directory = tempfile::tempdir().unwrap();
        // The private PostgreSQL's user passes through.
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut environment = BTreeMap::from([
            ("TAMTAM__ADMIN__KEY".to_owned(), KEY.to_owned()),
            // Many processes on a machine that is busy with tests.
            ("TAMTAM__DATABASE__CONNECTIONS".to_owned(), "8".to_owned()),
        ]);
        for topic in [
            "events",
            "jobs",
            "outbound_transactional",
            "outbound_bulk",
            "callbacks",
            "receipts",
            "inbound",
            "clicks",
        ] {
            environment.insert(
                format!("TAMTAM__TOPICS__{}__PARTITIONS", topic.to_uppercase()),
                bus::PARTITIONS.to_string(),
            );
        }
        Installation { directory, environment }
    }

    pub fn on_kafka(&mut self, kafka: ::bus::KafkaConfig) {
        let settings = [
            ("KIND", "kafka".to_owned()),
            ("BROKERS", kafka.brokers),
            ("PREFIX", kafka.prefix),
        ];
        for (name, value) in settings {
            self.environment.insert(format!("TAMTAM__BUS__{name}"), value);
        }
    }

    /// On a database that several processes share.
    pub async fn shared() -> Installation {
        let mut installation = Installation::private().await;
        let url = database::empty_database().await;
        installation.environment.insert("TAMTAM__DATABASE__URL".into(), url);
        installation
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A role, or `up`, on free ports.
    pub fn start(&self, arguments: &[&str]) -> Process {
        let arguments = [arguments, &["--free-ports"]].concat();
        Process::start(self.path(), &arguments, &self.environment)
    }

    /// A file in the installation's directory; its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// Brings its schema and topics up to date, as an administrator does before any role starts.
    pub fn migrate(&self) {
        let environment: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let migrated = process::run(self.path(), &["migrate"], &environment);
        assert!(
            migrated.status.success(),
            "{}",
            String::from_utf8_lossy(&migrated.stderr)
        );
    }

    /// Runs a command against `console`, whatever comes out.
    pub fn command(&self, console: &Process, arguments: &[&str]) -> Output {
        let arguments = [arguments, &["--server", console.at("console")]].concat();
        process::run(self.path(), &arguments, &[("TAMTAM_API_KEY", KEY)])
    }

    /// Runs a command that must succeed; the JSON that it prints.
    pub fn json(&self, console: &Process, arguments: &[&str]) -> Value {
        let output = self.command(console, &[arguments, &["--json"]].concat());
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?}: {:?}\n{stdout}{}",
            output.status.code(),
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_str(stdout.trim()).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}"))
    }

    /// The records of a topic, as `topics tail` prints them.
    pub fn tail(&self, console: &Process, topic: &str) -> Vec<Value> {
        let arguments = ["topics", "tail", topic, "--from", "start", "--no-follow", "--json"];
        let output = self.command(console, &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Launches a campaign to everybody in the north; its id.
    pub fn launch(&self, console: &Process) -> String {
        let create = [
            "campaign",
            "create",
            "--name",
            "x",
            "--audience",
            "north",
            "--template",
            "sale",
            "--value",
            "article=tout",
        ];
        let id = self.json(console, &create)["id"].as_str().unwrap().to_owned();
        self.json(console, &["campaign", "launch", &id]);
        id
    }

    /// Waits until a campaign is finished and every message is settled; its status.
    pub fn settled(&self, console: &Process, campaign: &str) -> Value {
        eventually("the campaign to be settled", PATIENCE, || {
            let status = self.json(console, &["campaign", "status", campaign]);
            let over = status["state"] == "finished" && status["pending"] == 0 && status["accepted"] == 0;
            over.then_some(status)
        })
    }
}

/// The simulator's own count.
pub fn stats(simulator: &Process) -> Value {
    let address = simulator.at("simulator_http");
    // Tests of processes call it from threads that are inside a runtime already, where none may be made or dropped.
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let client = reqwest::Client::builder().no_proxy().build().unwrap();
                    let response = client.get(format!("{address}/stats")).send().await.unwrap();
                    response.json().await.unwrap()
                })
            })
            .join()
            .unwrap()
    })
}

/// Resources with one SMPP gateway at `smpp`, a campaign's template and a trigger.
pub fn resources(smpp: &str, rate: u32) -> String {
    format!(
        r#"
[[gateway]]
name = "main"
kind = "smpp"
address = "{smpp}"
system_id = "tamtam"
password = "tamtam"
rate = {rate}
window = 50

[[template]]
name = "sale"
class = "marketing"
sender = "BOUTIQUE"
text = "{{{{ contact.first_name | default('Bonjour') }}}}, -20% sur {{{{ campaign.article }}}}."

[[template]]
name = "thanks"
class = "transactional"
sender = "BOUTIQUE"
text = "Merci, {{{{ event.amount }}}} EUR."

[[template]]
name = "hello"
class = "transactional"
sender = "BOUTIQUE"
text = "Bonjour {{{{ contact.first_name }}}}."

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
"#
    )
}

/// A CSV of contacts of the north, `c0` and on, each with a phone and consent.
pub fn contacts(count: usize) -> String {
    let mut csv = String::from("id,phone,first_name,region,marketing_consent\n");
    for number in 0..count {
        csv.push_str(&format!("c{number},+262692{number:06},Ana,north,true\n"));
    }
    csv
}

/// Lines of `order.placed` events, one for each contact.
pub fn orders(count: usize) -> String {
    (0..count)
        .map(|number| {
            format!(
                "{{\"id\":\"o{number}\",\"source\":\"shop\",\"type\":\"order.placed\",\"contact_id\":\"c{number}\",\"data\":{{\"amount\":12.5}}}}\n"
            )
        })
        .collect()
}
