//! `tamtam replies`: what people answered and only a person can decide.

use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::{client::Connection, output};
use crate::{cli::ClientArgs, exit::Failure};

#[derive(Debug, Subcommand)]
pub enum Replies {
    /// Replies that may mean STOP and are no keyword, the oldest first
    List(ListArgs),
    /// Decide: no marketing to this phone any more
    Stop(DecideArgs),
    /// Decide: it means nothing
    Dismiss(DecideArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// How many, up to 1,000
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct DecideArgs {
    /// As `tamtam replies list` shows it
    id: Uuid,
    #[command(flatten)]
    client: ClientArgs,
}

impl Replies {
    pub fn client(&self) -> &ClientArgs {
        match self {
            Replies::List(arguments) => &arguments.client,
            Replies::Stop(arguments) | Replies::Dismiss(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &Replies) -> Result<(), Failure> {
    let (id, meaning) = match command {
        Replies::List(arguments) => {
            let query = [("limit", arguments.limit.to_string())];
            let listed = connection.get("/v1/replies/to-review", &query).await?;
            if connection.json {
                return output::json(&listed);
            }
            let rows = listed["replies"].as_array().map(Vec::as_slice).unwrap_or_default();
            return output::table(rows, &["id", "contact_id", "gateway", "received_at", "text"]);
        }
        Replies::Stop(arguments) => (arguments.id, "stop"),
        Replies::Dismiss(arguments) => (arguments.id, "nothing"),
    };
    let wanted = json!({"meaning": meaning});
    connection.post(&format!("/v1/replies/{id}/decide"), &wanted).await?;
    match connection.json {
        true => output::json(&json!({"id": id, "meaning": meaning})),
        false => output::line("decided"),
    }
}
