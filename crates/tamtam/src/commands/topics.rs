//! `tamtam topics`: which there are, and reading one.

use clap::{Args, Subcommand, ValueEnum};
use futures::StreamExt;
use serde_json::Value;

use super::{
    client::{Connection, segment},
    output,
};
use crate::{
    cli::ClientArgs,
    exit::{Failure, chain},
};

#[derive(Debug, Subcommand)]
pub enum Topics {
    /// The topics: what each holds, from whom and for whom
    List(ListArgs),
    /// Read a topic, a line a record
    Tail(TailArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct TailArgs {
    /// For example receipts
    name: String,
    /// Where to begin
    #[arg(long, value_enum, default_value_t = Begin::Start)]
    from: Begin,
    /// Stop at the end instead of waiting for more
    #[arg(long)]
    no_follow: bool,
    /// Show phones and texts (for admins)
    #[arg(long)]
    reveal: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Begin {
    Start,
    End,
}

impl Topics {
    pub fn client(&self) -> &ClientArgs {
        match self {
            Topics::List(arguments) => &arguments.client,
            Topics::Tail(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &Topics) -> Result<(), Failure> {
    match command {
        Topics::List(_) => {
            let listed = connection.get("/v1/topics", &[]).await?;
            if connection.json {
                return output::json(&listed);
            }
            let rows = listed["topics"].as_array().map(Vec::as_slice).unwrap_or_default();
            output::table(rows, &["name", "holds", "key", "from", "to"])
        }
        Topics::Tail(arguments) => tail(connection, arguments).await,
    }
}

async fn tail(connection: &Connection, arguments: &TailArgs) -> Result<(), Failure> {
    let from = match arguments.from {
        Begin::Start => "start",
        Begin::End => "end",
    };
    let query = [
        ("from", from.to_owned()),
        ("follow", (!arguments.no_follow).to_string()),
        ("reveal", arguments.reveal.to_string()),
    ];
    let path = format!("/v1/topics/{}/records", segment(&arguments.name));
    let mut pieces = connection.stream(&path, &query).await?.bytes_stream();
    let mut open = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Failure::unreachable(format!("the stream broke off: {}", chain(&error))))?;
        open.extend_from_slice(&piece);
        while let Some(end) = open.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = open.drain(..=end).collect();
            print(connection.json, &line)?;
        }
    }
    match open.is_empty() {
        true => Ok(()),
        false => Err(Failure::unreachable("the stream broke off within a record")),
    }
}

fn print(json: bool, line: &[u8]) -> Result<(), Failure> {
    let record: Value =
        serde_json::from_slice(line).map_err(|_| Failure::no("the server sent a line that is no JSON"))?;
    if let Some(detail) = record["error"]["detail"].as_str() {
        return Err(Failure::no(detail));
    }
    if json {
        return output::json(&record);
    }
    let cells = ["time", "type", "key", "id"].map(|name| output::cell(&record[name]));
    output::line(&format!("{}  {}", cells.join("  "), record["data"]))
}
