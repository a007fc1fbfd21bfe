//! `tamtam report show|rebuild`: what became of messages, and whether it was worth it.
//!
//! `rebuild` makes the same report from the topics alone and compares it with the live figures.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{client, client::Connection, output};
use crate::{cli::ClientArgs, exit::Failure};

#[derive(Debug, Subcommand)]
pub enum Report {
    /// The live figures, from the ledger
    Show(ReportArgs),
    /// The same figures made from the topics alone; exit code 1 where they differ from the live ones
    Rebuild(ReportArgs),
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// What to divide by: campaign, trigger, gateway, day, with commas between
    #[arg(long, value_name = "WORDS", default_value = "campaign,trigger")]
    by: String,
    /// Of this campaign alone
    #[arg(long, value_name = "ID")]
    campaign: Option<String>,
    /// Of this trigger alone
    #[arg(long, value_name = "NAME")]
    trigger: Option<String>,
    /// Planned from this time on; a period such as 7d is that long ago
    #[arg(long, value_name = "TIME", value_parser = client::past)]
    since: Option<Timestamp>,
    /// Planned before this time
    #[arg(long, value_name = "TIME", value_parser = client::past)]
    until: Option<Timestamp>,
    /// Count who did an event of this type, against the control group
    #[arg(long, value_name = "TYPE")]
    conversions: Option<String>,
    /// Days after being planned in which it counts
    #[arg(long, value_name = "DAYS", default_value_t = 7, requires = "conversions")]
    within: u16,
    #[command(flatten)]
    pub client: ClientArgs,
}

impl Report {
    pub fn client(&self) -> &ClientArgs {
        match self {
            Report::Show(arguments) | Report::Rebuild(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &Report) -> Result<(), Failure> {
    match command {
        Report::Show(arguments) => print(connection, &report(connection, arguments, "ledger").await?),
        Report::Rebuild(arguments) => {
            let rebuilt = report(connection, arguments, "topics").await?;
            print(connection, &rebuilt)?;
            let live = report(connection, arguments, "ledger").await?;
            match live == rebuilt {
                true => Ok(()),
                false => Err(Failure::no(format!(
                    "the live figures are others (they are equal when nothing is on its way and the topics keep the period):\n{live}"
                ))),
            }
        }
    }
}

async fn report(connection: &Connection, arguments: &ReportArgs, source: &str) -> Result<Value, Failure> {
    let mut query = vec![("by", arguments.by.clone()), ("source", source.to_owned())];
    query.extend(arguments.campaign.clone().map(|id| ("campaign", id)));
    query.extend(arguments.trigger.clone().map(|name| ("trigger", name)));
    query.extend(arguments.since.map(|since| ("since", since.to_string())));
    query.extend(arguments.until.map(|until| ("until", until.to_string())));
    if let Some(kind) = &arguments.conversions {
        query.push(("conversions", kind.clone()));
        query.push(("within", arguments.within.to_string()));
    }
    // Reading whole topics takes as long as it takes.
    let answer = connection.stream("/v1/reports", &query).await?;
    let bytes = answer
        .bytes()
        .await
        .map_err(|error| Failure::unreachable(format!("the answer broke off: {error}")))?;
    serde_json::from_slice(&bytes).map_err(|_| Failure::no("the server did not answer with JSON: is it a tamtam?"))
}

fn print(connection: &Connection, report: &Value) -> Result<(), Failure> {
    if connection.json {
        return output::json(report);
    }
    let rows = list(&report["rows"]);
    let groups = ["campaign", "trigger", "gateway", "day"];
    let mut columns: Vec<&str> = groups
        .into_iter()
        .filter(|group| rows.iter().any(|row| !row[*group].is_null()))
        .collect();
    columns.extend([
        "planned",
        "suppressed",
        "accepted",
        "delivered",
        "failed",
        "expired",
        "cancelled",
        "unknown",
        "pending",
        "clicks",
        "replies",
        "stops",
        "parts",
        "cost",
    ]);
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|mut row| {
            row["cost"] = json!(row["cost_micros"].as_f64().unwrap_or_default() / 1e6);
            row
        })
        .collect();
    output::table(&rows, &columns)?;
    for (key, title) in [("suppressed_by", "suppressed"), ("failed_by", "failed")] {
        let mut reasons: std::collections::BTreeMap<&str, i64> = std::collections::BTreeMap::new();
        for (reason, count) in rows.iter().flat_map(|row| row[key].as_object().into_iter().flatten()) {
            *reasons.entry(reason).or_default() += count.as_i64().unwrap_or_default();
        }
        for (reason, count) in reasons {
            output::line(&format!("{title}: {reason}  {count}"))?;
        }
    }
    for one in list(&report["conversions"]) {
        let rate = |share: &Value| {
            format!(
                "{} of {} ({:.1} %)",
                share["converted"],
                share["of"],
                share["rate"].as_f64().unwrap_or_default() * 100.0
            )
        };
        let name = [&one["campaign"], &one["trigger"]].into_iter().find_map(Value::as_str);
        let difference = match (one["difference"].as_f64(), one["low"].as_f64(), one["high"].as_f64()) {
            (Some(difference), Some(low), Some(high)) => format!(
                ", {:+.1} points (95 %: {:+.1} to {:+.1})",
                difference * 100.0,
                low * 100.0,
                high * 100.0
            ),
            _ => ", no control group to compare with".into(),
        };
        output::line(&format!(
            "converted: {}  {}; control group {}{difference}",
            name.unwrap_or_default(),
            rate(&one["planned"]),
            rate(&one["control"])
        ))?;
    }
    Ok(())
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}
