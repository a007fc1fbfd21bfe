//! `tamtam keys`: who may call.

use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::{client::Connection, output, progress::say};
use crate::{cli::ClientArgs, exit::Failure};

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a key; it is shown this once
    Create(CreateArgs),
    /// The keys, never themselves
    List(ListArgs),
    /// Revoke a key, for good
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// 1 to 100 letters, digits, `-`, `_` or `.`
    name: String,
    /// admin, campaigns, events or read
    #[arg(long)]
    role: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct RevokeArgs {
    id: Uuid,
    #[command(flatten)]
    client: ClientArgs,
}

impl Keys {
    pub fn client(&self) -> &ClientArgs {
        match self {
            Keys::Create(arguments) => &arguments.client,
            Keys::List(arguments) => &arguments.client,
            Keys::Revoke(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &Keys) -> Result<(), Failure> {
    match command {
        Keys::Create(arguments) => {
            let wanted = json!({"name": arguments.name, "role": arguments.role});
            let made = connection.post("/v1/keys", &wanted).await?;
            if connection.json {
                return output::json(&made);
            }
            say("keep it: it is not shown again");
            output::line(&output::cell(&made["secret"]))
        }
        Keys::List(_) => {
            let listed = connection.get("/v1/keys", &[]).await?;
            if connection.json {
                return output::json(&listed);
            }
            let rows = listed["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
            output::table(rows, &["id", "name", "role", "created_at", "revoked_at"])
        }
        Keys::Revoke(arguments) => {
            connection.delete(&format!("/v1/keys/{}", arguments.id)).await?;
            match connection.json {
                true => output::json(&json!({"revoked": arguments.id})),
                false => output::line("revoked"),
            }
        }
    }
}
