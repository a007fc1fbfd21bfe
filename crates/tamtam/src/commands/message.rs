//! `tamtam message`: ask for one, and why somebody got one or not.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    audience::tree,
    client::{self, Connection, segment},
    output,
};
use crate::{cli::ClientArgs, exit::Failure};

#[derive(Debug, Subcommand)]
pub enum Message {
    /// Ask for one message
    Send(SendArgs),
    /// What became of a message, and why
    Show(ShowArgs),
    /// A contact's messages, the newest first
    List(ListArgs),
}

#[derive(Debug, Args)]
pub struct SendArgs {
    /// The contact's id
    #[arg(long, value_name = "ID")]
    contact: String,
    /// The name of a template
    #[arg(long, value_name = "NAME")]
    template: String,
    /// For the template: {{ custom.NAME }}
    #[arg(long = "value", value_name = "NAME=VALUE", value_parser = client::pair)]
    values: Vec<(String, Value)>,
    /// The same key for the same contact is the same message (default: a new one)
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Nothing is sent after it
    #[arg(long, value_name = "TIME", value_parser = client::time)]
    deadline: Option<Timestamp>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The message's id; absent: what is planned for the contact and not in the ledger yet
    #[arg(required_unless_present = "contact")]
    id: Option<String>,
    /// Whose it is: finds it also where it is planned and not in the ledger yet
    #[arg(long, value_name = "ID")]
    contact: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// The contact's id
    contact: String,
    /// How many, up to 1,000
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    client: ClientArgs,
}

impl Message {
    pub fn client(&self) -> &ClientArgs {
        match self {
            Message::Send(arguments) => &arguments.client,
            Message::Show(arguments) => &arguments.client,
            Message::List(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &Message) -> Result<(), Failure> {
    match command {
        Message::Send(arguments) => {
            let key = arguments.idempotency_key.clone();
            let mut body = json!({
                "idempotency_key": key.unwrap_or_else(|| Uuid::from_bytes(rand::random()).to_string()),
                "contact_id": arguments.contact,
                "template": arguments.template,
                "values": arguments.values.iter().cloned().collect::<Map<String, Value>>(),
            });
            if let Some(deadline) = arguments.deadline {
                body["deadline"] = json!(deadline.to_string());
            }
            let sent = connection.post("/v1/messages", &body).await?;
            match connection.json {
                true => output::json(&sent),
                false => output::line(&output::cell(&sent["message_id"])),
            }
        }
        Message::Show(arguments) => {
            let contact = arguments.contact.clone().map(|contact| ("contact_id", contact));
            let query: Vec<_> = contact.into_iter().collect();
            let Some(id) = &arguments.id else {
                return planned(connection, &query).await;
            };
            let path = format!("/v1/messages/{}/show", segment(id));
            let story = connection.get(&path, &query).await?;
            match connection.json {
                true => output::json(&story),
                false => tell(&story),
            }
        }
        Message::List(arguments) => {
            let query = [
                ("contact_id", arguments.contact.clone()),
                ("limit", arguments.limit.to_string()),
            ];
            let listed = connection.get("/v1/messages", &query).await?;
            match connection.json {
                true => output::json(&listed),
                false => {
                    let rows = listed["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
                    let on_their_way = listed["planned"].as_array().into_iter().flatten().cloned();
                    let on_their_way = on_their_way.map(|mut message| {
                        message["state"] = json!("planned");
                        message
                    });
                    let rows: Vec<Value> = on_their_way.chain(rows.iter().cloned()).collect();
                    output::table(&rows, &["id", "state", "reason", "class", "template", "planned_at"])
                }
            }
        }
    }
}

/// What is planned for a contact and not in the ledger yet.
async fn planned(connection: &Connection, query: &[(&str, String)]) -> Result<(), Failure> {
    let listed = connection.get("/v1/messages", query).await?;
    let planned = json!({"planned": listed["planned"]});
    if connection.json {
        return output::json(&planned);
    }
    for message in planned["planned"].as_array().into_iter().flatten() {
        let told = ["id", "explanation"].map(|name| output::cell(&message[name]));
        output::line(&told.join("  "))?;
    }
    Ok(())
}

fn said(code: &str) -> String {
    format!(" (the gateway said {code})")
}

fn tell(story: &Value) -> Result<(), Failure> {
    output::line(&output::cell(&story["explanation"]))?;
    for name in ["message", "planned"] {
        output::fields(&story[name])?;
    }
    if story["why"].is_object() {
        tree(&story["why"], 0)?;
    }
    for part in story["parts"].as_array().into_iter().flatten() {
        let told = ["part", "gateway", "remote_id", "state"].map(|name| output::cell(&part[name]));
        let code = part["code"].as_str().map(said).unwrap_or_default();
        output::line(&format!("part {}{code}", told.join(" ")))?;
    }
    for line in story["log"].as_array().into_iter().flatten() {
        output::line(&format!(
            "{}  {}",
            output::cell(&line["at"]),
            output::cell(&line["what"])
        ))?;
    }
    Ok(())
}
