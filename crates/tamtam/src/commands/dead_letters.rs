//! `tamtam dead-letters`: what could not be processed, and putting it back.

use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::{client::Connection, output};
use crate::{cli::ClientArgs, exit::Failure};

#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// What could not be processed, the oldest first: where and why
    List(ListArgs),
    /// Put dead letters back onto their topics, each once
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Of this original topic alone
    #[arg(long)]
    topic: Option<String>,
    /// Of this stage alone
    #[arg(long)]
    stage: Option<String>,
    /// Only those that were not replayed
    #[arg(long)]
    pending: bool,
    /// How many, up to 10,000
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// These
    ids: Vec<Uuid>,
    /// All of them, or all that --topic and --stage leave
    #[arg(long, required_unless_present_any = ["ids", "topic", "stage"], conflicts_with = "ids")]
    all: bool,
    /// Of this original topic alone
    #[arg(long)]
    topic: Option<String>,
    /// Of this stage alone
    #[arg(long)]
    stage: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

impl DeadLetters {
    pub fn client(&self) -> &ClientArgs {
        match self {
            DeadLetters::List(arguments) => &arguments.client,
            DeadLetters::Replay(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &DeadLetters) -> Result<(), Failure> {
    match command {
        DeadLetters::List(arguments) => {
            let mut query = vec![
                ("pending", arguments.pending.to_string()),
                ("limit", arguments.limit.to_string()),
            ];
            query.extend(arguments.topic.clone().map(|topic| ("topic", topic)));
            query.extend(arguments.stage.clone().map(|stage| ("stage", stage)));
            let listed = connection.get("/v1/dead-letters", &query).await?;
            if connection.json {
                return output::json(&listed);
            }
            let rows = listed["dead_letters"].as_array().map(Vec::as_slice).unwrap_or_default();
            let columns = [
                "id",
                "stage",
                "topic",
                "partition",
                "offset",
                "failed_at",
                "replayed_at",
                "reason",
            ];
            output::table(rows, &columns)
        }
        DeadLetters::Replay(arguments) => {
            let mut wanted = json!({"ids": arguments.ids});
            if let Some(topic) = &arguments.topic {
                wanted["topic"] = json!(topic);
            }
            if let Some(stage) = &arguments.stage {
                wanted["stage"] = json!(stage);
            }
            let done = connection.post("/v1/dead-letters/replay", &wanted).await?;
            match connection.json {
                true => output::json(&done)?,
                false => output::fields(&done)?,
            }
            // Asked for by id and not there, or of a topic that is none of ours.
            match done["missing"] != 0 || done["refused"] != 0 {
                true => Err(Failure::no("some dead letters were not replayed")),
                false => Ok(()),
            }
        }
    }
}
