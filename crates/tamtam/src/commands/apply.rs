//! `tamtam apply`: a file of resources, all or none of it.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{
    client::{Connection, read_file},
    output,
};
use crate::{cli::ClientArgs, exit::Failure};

#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// TOML of gateways, templates, audiences, triggers and the policy; `-` reads standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    file: PathBuf,
    /// Check everything and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

pub async fn run(connection: &Connection, arguments: &ApplyArgs) -> Result<(), Failure> {
    let applied = apply(connection, read_file(&arguments.file)?, arguments.dry_run)
        .await
        .map_err(|failure| {
            Failure::new(
                failure.code,
                format!("{}: {}", arguments.file.display(), failure.message),
            )
        })?;
    if connection.json {
        return output::json(&applied);
    }
    let rows = applied["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    output::table(rows, &["kind", "name", "change"])?;
    for row in rows {
        for note in row["notes"].as_array().map(Vec::as_slice).unwrap_or_default() {
            output::line(&format!("{}: {}", output::cell(&row["name"]), output::cell(note)))?;
        }
    }
    Ok(())
}

pub async fn apply(connection: &Connection, toml: Vec<u8>, dry_run: bool) -> Result<Value, Failure> {
    let query = [("dry_run", dry_run.to_string())];
    let applied = connection
        .post_as("/v1/resources", &query, "application/toml", toml)
        .await;
    // What is wrong with the file is bad settings; everything else is as ever.
    applied.map_err(|failure| match failure.status {
        Some(400) => Failure::settings(failure.message),
        _ => failure,
    })
}
