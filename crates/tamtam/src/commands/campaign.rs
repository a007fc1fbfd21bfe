//! `tamtam campaign`: make, start, halt, and see where the messages stand.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    audience::say_hints,
    client::{self, Connection, When, segment},
    output,
};
use crate::{cli::ClientArgs, exit::Failure};

#[derive(Debug, Subcommand)]
pub enum Campaign {
    /// Make a draft
    Create(Box<CreateArgs>),
    /// Start it, now or at its time
    Launch(LaunchArgs),
    /// Send nothing more until it is resumed
    Pause(IdArgs),
    /// Go on with each remaining contact exactly once
    Resume(IdArgs),
    /// End it; what waits is cancelled
    Cancel(IdArgs),
    /// Where its messages stand
    Status(IdArgs),
    /// Who did what with it, oldest first
    Log(IdArgs),
    /// The campaigns, the newest first
    List(ListArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    #[arg(long)]
    name: String,
    /// The name of an audience
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "condition",
        conflicts_with = "condition"
    )]
    audience: Option<String>,
    /// An expression of the audience language
    #[arg(long = "where", value_name = "EXPRESSION")]
    condition: Option<String>,
    /// The name of a template
    #[arg(long, value_name = "NAME")]
    template: String,
    /// For the template: {{ campaign.NAME }}
    #[arg(long = "value", value_name = "NAME=VALUE", value_parser = client::pair)]
    values: Vec<(String, Value)>,
    /// When to start (default: when it is launched); a time without an offset, such as 2026-12-24T09:00, is in --zone
    #[arg(long, value_name = "TIME", value_parser = client::local_time)]
    at: Option<When>,
    /// Nothing is sent after it
    #[arg(long, value_name = "TIME", value_parser = client::time)]
    deadline: Option<Timestamp>,
    /// A cron pattern such as '0 9 * * MON', in --zone
    #[arg(long, value_name = "PATTERN")]
    recurring: Option<String>,
    /// An IANA zone such as Indian/Reunion
    #[arg(long, value_name = "ZONE", value_parser = client::zone)]
    zone: Option<String>,
    /// The most it may cost, in millionths of the currency
    #[arg(long, value_name = "MICROS")]
    budget_micros: Option<i64>,
    /// The share of the audience, in percent, that gets nothing, to compare with
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    control_percent: u32,
    /// The same key is the same campaign
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct LaunchArgs {
    id: String,
    /// When to start, over the campaign's own time; a time without an offset, such as 2026-12-24T09:00, is in --zone
    #[arg(long, value_name = "TIME", value_parser = client::local_time)]
    at: Option<When>,
    /// An IANA zone such as Indian/Reunion (default: the campaign's own)
    #[arg(long, value_name = "ZONE", value_parser = client::zone, requires = "at")]
    zone: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct IdArgs {
    id: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// How many, up to 500
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    client: ClientArgs,
}

impl Campaign {
    pub fn client(&self) -> &ClientArgs {
        match self {
            Campaign::Create(arguments) => &arguments.client,
            Campaign::Launch(arguments) => &arguments.client,
            Campaign::List(arguments) => &arguments.client,
            Campaign::Pause(arguments)
            | Campaign::Resume(arguments)
            | Campaign::Cancel(arguments)
            | Campaign::Log(arguments)
            | Campaign::Status(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &Campaign) -> Result<(), Failure> {
    match command {
        Campaign::Create(arguments) => {
            let created = create(connection, &draft(arguments)).await?;
            say_hints(&created);
            match connection.json {
                true => output::json(&created),
                // What a script pipes on: the id alone.
                false => output::line(&output::cell(&created["id"])),
            }
        }
        Campaign::Launch(arguments) => {
            let mut query: Vec<(&str, String)> = Vec::new();
            query.extend(arguments.at.map(|at| ("at", at.to_string())));
            query.extend(arguments.zone.clone().map(|zone| ("zone", zone)));
            let path = format!("/v1/campaigns/{}/launch", segment(&arguments.id));
            told(connection, &connection.post_query(&path, &query).await?)
        }
        Campaign::Pause(arguments) => told(connection, &act(connection, &arguments.id, "pause").await?),
        Campaign::Resume(arguments) => told(connection, &act(connection, &arguments.id, "resume").await?),
        Campaign::Cancel(arguments) => told(connection, &act(connection, &arguments.id, "cancel").await?),
        Campaign::Status(arguments) => {
            let status = status(connection, &arguments.id).await?;
            match connection.json {
                true => output::json(&status),
                false => output::fields(&status),
            }
        }
        Campaign::Log(arguments) => {
            let path = format!("/v1/campaigns/{}/log", segment(&arguments.id));
            let log = connection.get(&path, &[]).await?;
            match connection.json {
                true => output::json(&log),
                false => {
                    let lines = log["log"].as_array().map(Vec::as_slice).unwrap_or_default();
                    output::table(lines, &["at", "by", "action", "detail"])
                }
            }
        }
        Campaign::List(arguments) => {
            let listed = connection
                .get("/v1/campaigns", &[("limit", arguments.limit.to_string())])
                .await?;
            match connection.json {
                true => output::json(&listed),
                false => {
                    let rows = listed["campaigns"].as_array().map(Vec::as_slice).unwrap_or_default();
                    output::table(rows, &["id", "state", "planned", "created_at", "name"])
                }
            }
        }
    }
}

fn draft(arguments: &CreateArgs) -> Value {
    let mut draft = json!({
        "name": arguments.name,
        "template": arguments.template,
        "values": arguments.values.iter().cloned().collect::<Map<String, Value>>(),
        "control_percent": arguments.control_percent,
    });
    let optional = [
        ("audience", arguments.audience.as_ref().map(|name| json!(name))),
        (
            "where",
            arguments.condition.as_ref().map(|expression| json!(expression)),
        ),
        ("at", arguments.at.map(|at| json!(at.to_string()))),
        ("deadline", arguments.deadline.map(|at| json!(at.to_string()))),
        ("recurring", arguments.recurring.as_ref().map(|pattern| json!(pattern))),
        ("zone", arguments.zone.as_ref().map(|zone| json!(zone))),
        ("budget_micros", arguments.budget_micros.map(|micros| json!(micros))),
        (
            "idempotency_key",
            arguments.idempotency_key.as_ref().map(|key| json!(key)),
        ),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            draft[name] = value;
        }
    }
    draft
}

/// A campaign after a step: its state in a word.
fn told(connection: &Connection, campaign: &Value) -> Result<(), Failure> {
    match connection.json {
        true => output::json(campaign),
        false => output::line(&output::cell(&campaign["state"])),
    }
}

pub async fn create(connection: &Connection, draft: &Value) -> Result<Value, Failure> {
    connection.post("/v1/campaigns", draft).await
}

/// launch, pause, resume or cancel.
pub async fn act(connection: &Connection, id: &str, step: &str) -> Result<Value, Failure> {
    connection
        .post_query(&format!("/v1/campaigns/{}/{step}", segment(id)), &[])
        .await
}

pub async fn status(connection: &Connection, id: &str) -> Result<Value, Failure> {
    connection.get(&format!("/v1/campaigns/{}", segment(id)), &[]).await
}

pub async fn preview(connection: &Connection, request: &Value) -> Result<Value, Failure> {
    connection.post("/v1/preview", request).await
}
