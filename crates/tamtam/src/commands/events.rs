//! `tamtam events publish`: business events from a file of one JSON object a line.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    client::{Connection, Upload},
    output,
    progress::{Progress, say},
};
use crate::{cli::ClientArgs, exit::Failure};

#[derive(Debug, Subcommand)]
pub enum Events {
    /// Publish a file of events, one JSON object a line
    Publish(PublishArgs),
}

#[derive(Debug, Args)]
pub struct PublishArgs {
    /// Lines {"id":…,"source":…,"type":…,"contact_id":…,"time":…,"data":{…}}; `-` reads standard input
    file: PathBuf,
    #[command(flatten)]
    client: ClientArgs,
}

impl Events {
    pub fn client(&self) -> &ClientArgs {
        match self {
            Events::Publish(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &Events) -> Result<(), Failure> {
    let Events::Publish(arguments) = command;
    let body = Upload::open(&arguments.file).await?;
    let progress = Progress::new("events published (bytes)", body.length);
    let mut published = Value::Null;
    connection
        .upload("/v1/events", &[], "application/x-ndjson", body, progress, |answer| {
            published = answer;
            Ok(())
        })
        .await?;
    for error in published["errors"].as_array().into_iter().flatten() {
        let field = error["field"]
            .as_str()
            .map(|field| format!("{field}: "))
            .unwrap_or_default();
        say(&format!(
            "line {}: {field}{}",
            error["item"],
            output::cell(&error["message"])
        ));
    }
    if let Some(more) = published["errors_left_out"].as_u64().filter(|more| *more > 0) {
        say(&format!("and {more} more"));
    }
    match connection.json {
        true => output::json(&published),
        false => output::fields(&json!({
            "accepted": published["accepted"],
            "rejected": published["rejected"],
        })),
    }
}
