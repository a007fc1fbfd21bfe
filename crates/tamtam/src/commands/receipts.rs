//! `tamtam receipts export`: the receipts topic as a Parquet file, for whoever has no Kafka client at hand. `tamtam receipts
//! unmatched`: what gateways reported and no message was found for.
//!
//! In the file, a row a message and state: what is on the topic twice under one `ce_id` is written once. The columns are the record's
//! fields (docs/topics/), with the cause laid flat.

use std::{
    collections::HashSet,
    fs::File,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use events::{Receipt, Record as _};
use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{client, client::Connection, output, parquet_file::ReceiptWriter};
use crate::{cli::ClientArgs, exit::Failure};

#[derive(Debug, Subcommand)]
pub enum Receipts {
    /// Write the receipts as a Parquet file
    Export(ExportArgs),
    /// What gateways reported and no message was found for, the newest first
    Unmatched(UnmatchedArgs),
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// States reached from this time on; a period such as 7d is that long ago (default: all that the topic keeps)
    #[arg(long, value_name = "TIME", value_parser = client::past)]
    since: Option<Timestamp>,
    /// States reached before this time
    #[arg(long, value_name = "TIME", value_parser = client::past)]
    until: Option<Timestamp>,
    /// The file to write; it appears when it is whole
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct UnmatchedArgs {
    /// Received from this time on; a period such as 7d is that long ago (default: all that are kept, 31 days)
    #[arg(long, value_name = "TIME", value_parser = client::past)]
    since: Option<Timestamp>,
    /// Of this gateway alone
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
    /// How many, up to 1,000
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    #[command(flatten)]
    client: ClientArgs,
}

impl Receipts {
    pub fn client(&self) -> &ClientArgs {
        match self {
            Receipts::Export(arguments) => &arguments.client,
            Receipts::Unmatched(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &Receipts) -> Result<(), Failure> {
    match command {
        Receipts::Export(arguments) => export_to_file(connection, arguments).await,
        Receipts::Unmatched(arguments) => unmatched(connection, arguments).await,
    }
}

async fn unmatched(connection: &Connection, arguments: &UnmatchedArgs) -> Result<(), Failure> {
    let mut query = vec![("limit", arguments.limit.to_string())];
    query.extend(arguments.since.map(|since| ("since", since.to_string())));
    query.extend(arguments.gateway.clone().map(|gateway| ("gateway", gateway)));
    let listed = connection.get("/v1/receipts/unmatched", &query).await?;
    if connection.json {
        return output::json(&listed);
    }
    let rows = listed["receipts"].as_array().map(Vec::as_slice).unwrap_or_default();
    output::table(
        rows,
        &["gateway", "remote_id", "state", "code", "received_at", "message_id"],
    )
}

async fn export_to_file(connection: &Connection, arguments: &ExportArgs) -> Result<(), Failure> {
    // Written beside it and renamed: nobody reads half of a file.
    let mut partial = arguments.out.clone().into_os_string();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    let written = export(connection, arguments, &partial).await;
    match written {
        Ok(rows) => {
            std::fs::rename(&partial, &arguments.out).map_err(|error| unwritable(&arguments.out, &error))?;
            match connection.json {
                true => output::json(&json!({ "rows": rows, "file": arguments.out.display().to_string() })),
                false => output::line(&format!("{rows} receipts in {}", arguments.out.display())),
            }
        }
        Err(failure) => {
            let _ = std::fs::remove_file(&partial);
            Err(failure)
        }
    }
}

fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::no(format!("{}: {error}", path.display()))
}

async fn export(connection: &Connection, arguments: &ExportArgs, path: &Path) -> Result<u64, Failure> {
    let file = File::create(path).map_err(|error| unwritable(path, &error))?;
    let mut writer = ReceiptWriter::new(file).map_err(|error| unwritable(path, &error))?;
    let query = [("from", "start".to_owned()), ("follow", "false".to_owned())];
    let mut lines = connection
        .stream("/v1/topics/receipts/records", &query)
        .await?
        .bytes_stream();
    let mut seen: HashSet<String> = HashSet::new();
    let mut rest: Vec<u8> = Vec::new();
    while let Some(piece) = lines.next().await {
        let piece = piece.map_err(|error| Failure::unreachable(format!("the answer broke off: {error}")))?;
        rest.extend_from_slice(&piece);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if let Some((id, receipt)) = receipt(&line)?
                && arguments.since.is_none_or(|since| receipt.at >= since)
                && arguments.until.is_none_or(|until| receipt.at < until)
                && seen.insert(id)
            {
                writer.put(receipt).map_err(|error| unwritable(path, &error))?;
            }
        }
    }
    let rows = writer.rows();
    writer.finish().map_err(|error| unwritable(path, &error))?;
    Ok(rows)
}

/// A line of the topic; `None`: a record that is no receipt of this version.
fn receipt(line: &[u8]) -> Result<Option<(String, Receipt)>, Failure> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|_| Failure::no("the server did not answer with a line of JSON a record: is it a tamtam?"))?;
    if let Some(error) = value["error"].as_str() {
        return Err(Failure::no(format!("the topic cannot be read to its end: {error}")));
    }
    let kind = value["type"].as_str().unwrap_or_default();
    if kind != Receipt::KIND {
        return Ok(None);
    }
    let id = value["id"].as_str().unwrap_or_default().to_owned();
    let receipt = serde_json::from_value(value["data"].clone())
        .map_err(|error| Failure::no(format!("receipt {id} cannot be read: {error}")))?;
    Ok(Some((id, receipt)))
}
