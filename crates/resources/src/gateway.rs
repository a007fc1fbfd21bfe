//! An SMS provider.

use serde::{Deserialize, Serialize};

use crate::{Problem, check_name};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    pub name: String,
    pub kind: GatewayKind,
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The environment variable that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// Parts (SMS) a second over all dispatchers.
    pub rate: u32,
    #[serde(default = "ten")]
    pub window: u32,
    /// Empty: every phone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Lower first; the next one takes over when this one is down.
    #[serde(default = "one")]
    pub priority: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayKind {
    Smpp,
    Http,
}

fn ten() -> u32 {
    10
}

fn one() -> u32 {
    1
}

impl Gateway {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        check_name("name", &self.name, problems);
        if self.rate == 0 {
            problems.push(Problem::new("rate", "expected 1 or more parts a second"));
        }
    }
}
