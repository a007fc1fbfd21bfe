//! Who calls, and what they may do.

use std::{fmt, str::FromStr};

use crate::{ApiError, ErrorKind};

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Everything, keys and resources included.
    Admin,
    /// Contacts, audiences, campaigns and messages, and reading all of it.
    Campaigns,
    /// Publishing: events, contacts and direct messages, and asking after a message. For internal systems.
    Events,
    /// Reading.
    Read,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Admin, Role::Campaigns, Role::Events, Role::Read];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Campaigns => "campaigns",
            Role::Events => "events",
            Role::Read => "read",
        }
    }
}

impl FromStr for Role {
    type Err = ApiError;

    fn from_str(word: &str) -> Result<Self, ApiError> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| ApiError::invalid("role", "expected admin, campaigns, events or read"))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who calls: the name of their key (or of the person who signed in) and its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub name: String,
    pub role: Role,
}

impl Caller {
    /// Refuses a caller whose role is not among `roles`; an admin may do everything.
    pub fn require(&self, roles: &[Role]) -> Result<(), ApiError> {
        if self.role == Role::Admin || roles.contains(&self.role) {
            return Ok(());
        }
        let mut needed = vec!["admin"];
        needed.extend(roles.iter().map(|role| role.as_str()));
        Err(ApiError::new(
            ErrorKind::Forbidden,
            format!(
                "a key of role `{}` may not do this: expected one of {}",
                self.role,
                needed.join(", ")
            ),
        ))
    }
}
