//! Every role as a process of its own over one database and one bus, and the gateway they send to.

use std::collections::BTreeMap;

use serde_json::Value;

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
}

impl Fleet {
    /// All roles, with the resources of [`resources`] at `rate` parts a second, and so many contacts.
    pub async fn start(rate: u32, people: usize) -> Fleet {
        let installation = Installation::shared().await;
        installation.migrate();
        let simulator = installation.start(&["simulator"]);
        let roles = ROLES.iter().map(|role| (*role, installation.start(&[role]))).collect();
        let fleet = Fleet {
            installation,
            simulator,
            roles,
        };
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

    pub fn kill_and_start(&mut self, role: &'static str) {
        self.roles.get_mut(role).unwrap().kill();
        self.start_again(role);
    }

    pub fn start_again(&mut self, role: &'static str) {
        let again = self.installation.start(&[role]);
        self.roles.insert(role, again);
    }
}
