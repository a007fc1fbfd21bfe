//! `tamtam audit`: is every planned message accounted for?

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::{client, client::Connection, output};
use crate::{cli::ClientArgs, exit::Failure};

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// From this time on
    #[arg(long, value_name = "TIME", value_parser = client::past)]
    since: Option<Timestamp>,
    /// Until this time
    #[arg(long, value_name = "TIME", value_parser = client::past)]
    until: Option<Timestamp>,
    #[command(flatten)]
    pub client: ClientArgs,
}

pub async fn run(connection: &Connection, arguments: &AuditArgs) -> Result<(), Failure> {
    let mut query = Vec::new();
    query.extend(arguments.since.map(|since| ("since", since.to_string())));
    query.extend(arguments.until.map(|until| ("until", until.to_string())));
    let found = audit(connection, &query).await?;
    match connection.json {
        true => output::json(&found)?,
        false => output::fields(&found)?,
    }
    match found["violations"].as_u64() {
        Some(0) => Ok(()),
        _ => Err(Failure::no(
            "the audit found violations: planned messages are not all accounted for",
        )),
    }
}

pub async fn audit(connection: &Connection, query: &[(&str, String)]) -> Result<Value, Failure> {
    connection.get("/v1/audit", query).await
}
