//! `tamtam gateway list`: how well each gateway does.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{client, client::Connection, output};
use crate::{cli::ClientArgs, exit::Failure};

#[derive(Debug, Subcommand)]
pub enum Gateway {
    /// What each gateway made of what it was handed, and how fast it was
    List(ListArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Handed over from this time on; a period such as 7d is that long ago
    #[arg(long, value_name = "TIME", value_parser = client::past, default_value = "1h")]
    since: Timestamp,
    /// Handed over before this time (default: now)
    #[arg(long, value_name = "TIME", value_parser = client::past)]
    until: Option<Timestamp>,
    #[command(flatten)]
    client: ClientArgs,
}

impl Gateway {
    pub fn client(&self) -> &ClientArgs {
        match self {
            Gateway::List(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &Gateway) -> Result<(), Failure> {
    let Gateway::List(arguments) = command;
    let mut query = vec![("since", arguments.since.to_string())];
    query.extend(arguments.until.map(|until| ("until", until.to_string())));
    let report = connection.get("/v1/gateways", &query).await?;
    if connection.json {
        return output::json(&report);
    }
    let rows: Vec<Value> = report["gateways"].as_array().into_iter().flatten().map(row).collect();
    output::table(
        &rows,
        &[
            "gateway",
            "handed over",
            "accepted",
            "refused",
            "retrying",
            "unknown",
            "sending",
            "% accepted",
            "delivered",
            "% delivered",
            "answer p50/p99 ms",
            "event to accepted p50/p99 ms",
            "to delivery p50/p99 ms",
        ],
    )
}

/// A gateway as the table shows it.
fn row(gateway: &Value) -> Value {
    let percent = |name: &str| match gateway[name].as_f64() {
        Some(rate) => json!(format!("{:.1}", rate * 100.0)),
        None => json!("-"),
    };
    let both = |name: &str| match gateway[name].as_object() {
        Some(of) => json!(format!("{}/{}", of["p50"], of["p99"])),
        None => json!("-"),
    };
    let name = output::cell(&gateway["name"]);
    json!({
        "gateway": match gateway["configured"].as_bool() {
            Some(false) => format!("{name} (removed)"),
            _ => name,
        },
        "handed over": gateway["handed_over"],
        "accepted": gateway["accepted"],
        "refused": gateway["refused"],
        "retrying": gateway["retrying"],
        "unknown": gateway["unknown"],
        "sending": gateway["sending"],
        "% accepted": percent("accepted_rate"),
        "delivered": gateway["delivered"],
        "% delivered": percent("delivered_rate"),
        "answer p50/p99 ms": both("answer_ms"),
        "event to accepted p50/p99 ms": both("event_to_accepted_ms"),
        "to delivery p50/p99 ms": both("accepted_to_delivered_ms"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let idle = row(&json!({"name": "spare", "configured": true, "handed_over": 0,
            "accepted_rate": null, "answer_ms": null}));
        assert_eq!(
            (&idle["% accepted"], &idle["answer p50/p99 ms"]),
            (&json!("-"), &json!("-"))
        );
        let busy = row(&json!({"name": "old", "configured": false, "handed_over": 3,
            "accepted_rate": 0.6667, "answer_ms": {"p50": 12, "p99": 40}}));
        assert_eq!(busy["gateway"], "old (removed)");
        assert_eq!(
            (&busy["% accepted"], &busy["answer p50/p99 ms"]),
            (&json!("66.7"), &json!("12/40"))
        );
    }
}
