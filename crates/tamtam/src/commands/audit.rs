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
    /// How many violations of each kind to tell, up to 10,000; all are counted
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    pub client: ClientArgs,
}

pub async fn run(connection: &Connection, arguments: &AuditArgs) -> Result<(), Failure> {
    let mut query = vec![("limit", arguments.limit.to_string())];
    query.extend(arguments.since.map(|since| ("since", since.to_string())));
    query.extend(arguments.until.map(|until| ("until", until.to_string())));
    let found = audit(connection, &query).await?;
    match connection.json {
        true => output::json(&found)?,
        false => tell(found.clone())?,
    }
    match found["violations"].as_u64() {
        Some(0) => Ok(()),
        _ => Err(Failure::no(
            "the audit found violations: planned messages are not all accounted for",
        )),
    }
}

/// The figures, and a line a violation with the ids that belong to it.
fn tell(mut found: Value) -> Result<(), Failure> {
    let examples = found["examples"].take();
    output::fields(&found)?;
    let rows = examples.as_array().map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        return Ok(());
    }
    output::table(rows, &["kind", "id", "detail"])?;
    for row in rows {
        for what in ["messages", "contacts"] {
            for id in row[what].as_array().into_iter().flatten() {
                let (what, of) = (what.trim_end_matches('s'), output::cell(&row["id"]));
                output::line(&format!("{what} {}  of {of}", output::cell(id)))?;
            }
        }
    }
    Ok(())
}

pub async fn audit(connection: &Connection, query: &[(&str, String)]) -> Result<Value, Failure> {
    connection.get("/v1/audit", query).await
}
