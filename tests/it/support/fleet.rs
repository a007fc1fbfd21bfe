//! Every role as a process of its own over one database and one bus, and the gateway they send to.

use std::{collections::BTreeMap, sync::Arc};

use ::bus::{BusConfig, KafkaConfig, Log, PostgresConfig};
use serde_json::Value;
use store::Store;

use super::{
    process::{Process, eventually},
    tamtam::{Installation, PATIENCE, contacts, resources, stats},
};

pub const ROLES: [&str; 6] = [
    "dispatcher",
    "segmenter",
    "renderer",
    "receipt-collector",
    "ingest",
    "console",
];

/// The simulator and the database live on, whatever becomes of the roles.
pub struct Fleet {
    pub installation: Installation,
    pub simulator: Process,
    pub roles: BTreeMap<&'static str, Process>,
    /// The database's URL.
    pub database: String,
    kafka: Option<KafkaConfig>,
}

impl Fleet {
    /// All roles, with the resources of [`resources`] at `rate` parts a second, and so many contacts.
    pub async fn start(rate: u32, people: usize) -> Fleet {
        Fleet::start_with(rate, people, &[]).await
    }

    /// The same, with settings (names and values of environment variables).
    pub async fn start_with(rate: u32, people: usize, settings: &[(&str, &str)]) -> Fleet {
        let mut installation = Installation::shared().await;
        let more = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        installation.environment.extend(more);
        installation.migrate();
        // From here on by the flags alone, as a person starts a role.
        let environment = &mut installation.environment;
        let database = environment.remove("TAMTAM__DATABASE__URL").unwrap();
        environment.remove("TAMTAM__BUS__KIND");
        let kafka = environment.remove("TAMTAM__BUS__BROKERS").map(|brokers| KafkaConfig {
            brokers,
            prefix: environment["TAMTAM__BUS__PREFIX"].clone(),
            settings: BTreeMap::new(),
        });
        let simulator = installation.start(&["simulator"]);
        let mut fleet = Fleet {
            installation,
            simulator,
            roles: BTreeMap::new(),
            database,
            kafka,
        };
        for role in ROLES {
            fleet.start_again(role);
        }
        let smpp = fleet.simulator.at("simulator_smpp").to_owned();
        let file = fleet.installation.file("resources.toml", &resources(&smpp, rate));
        fleet.json(&["apply", "-f", &file]);
        let file = fleet.installation.file("contacts.csv", &contacts(people));
        assert_eq!(fleet.json(&["contacts", "import", &file])["created"], people);
        fleet
    }

    pub fn console(&self) -> &Process {
        &self.roles["console"]
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        self.installation.json(self.console(), arguments)
    }

    /// As [`Installation::launch`].
    pub fn launch(&self) -> String {
        self.installation.launch(self.console())
    }

    /// Waits until the gateway has taken so many messages.
    pub fn until_taken(&self, due: usize) {
        eventually("the next turn", PATIENCE, || {
            (stats(&self.simulator)["distinct"].as_u64() >= Some(due as u64)).then_some(())
        });
    }

    pub fn kill(&mut self, role: &'static str) {
        self.roles.get_mut(role).unwrap().kill();
    }

    pub fn kill_and_start(&mut self, role: &'static str) {
        self.kill(role);
        self.start_again(role);
    }

    pub fn start_again(&mut self, role: &'static str) {
        let mut arguments = vec![role, "--database", self.database.as_str()];
        if let Some(kafka) = &self.kafka {
            arguments.extend(["--kafka", kafka.brokers.as_str()]);
        }
        let again = self.installation.start(&arguments);
        self.roles.insert(role, again);
    }

    /// A connection to the roles' database.
    pub async fn store(&self) -> Store {
        Store::connect(&self.database, 4, PATIENCE).await.unwrap()
    }

    /// The roles' bus.
    pub async fn log(&self, store: &Store) -> Arc<dyn Log> {
        let config = match &self.kafka {
            Some(kafka) => BusConfig::Kafka(kafka.clone()),
            None => BusConfig::Postgres(PostgresConfig {
                pool: store.pool().clone(),
            }),
        };
        ::bus::open(config).await.unwrap()
    }
}
