//! `tamtam contacts`: import a file, look at one, erase one.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    client::{Connection, read_file, segment},
    output,
    progress::{Progress, say},
};
use crate::{cli::ClientArgs, exit::Failure};

#[derive(Debug, Subcommand)]
pub enum Contacts {
    /// Import a CSV whose header names the fields
    Import(ImportArgs),
    /// A contact's fields
    Get(IdArgs),
    /// Erase a person's data; an opt-out is kept as a keyed hash of the phone
    Erase(IdArgs),
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file; `-` reads standard input
    file: PathBuf,
    /// What national phone numbers belong to, for example RE (default: the policy's)
    #[arg(long, value_name = "COUNTRY")]
    region: Option<String>,
    /// A JSON object from header names to fields; to "": not imported
    #[arg(long, value_name = "JSON")]
    mapping: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct IdArgs {
    /// The internal system's id of the contact
    id: String,
    #[command(flatten)]
    client: ClientArgs,
}

impl Contacts {
    pub fn client(&self) -> &ClientArgs {
        match self {
            Contacts::Import(arguments) => &arguments.client,
            Contacts::Get(arguments) | Contacts::Erase(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &Contacts) -> Result<(), Failure> {
    match command {
        Contacts::Import(arguments) => {
            let body = read_file(&arguments.file)?;
            let mut query = Vec::new();
            query.extend(arguments.region.clone().map(|region| ("region", region)));
            query.extend(arguments.mapping.clone().map(|mapping| ("mapping", mapping)));
            let progress = Progress::new("contacts imported (bytes)", body.len() as u64);
            let imported = import(connection, body, &query, progress).await?;
            for error in imported["errors"].as_array().into_iter().flatten() {
                let field = error["field"]
                    .as_str()
                    .map(|field| format!("{field}: "))
                    .unwrap_or_default();
                say(&format!(
                    "line {}: {field}{}",
                    error["line"],
                    output::cell(&error["message"])
                ));
            }
            if let Some(more) = imported["errors_left_out"].as_u64().filter(|more| *more > 0) {
                say(&format!("and {more} more"));
            }
            match connection.json {
                true => output::json(&imported),
                false => {
                    let counts = ["created", "updated", "unchanged", "rejected"];
                    let counted: serde_json::Map<String, Value> = counts
                        .iter()
                        .map(|name| ((*name).to_owned(), imported[*name].clone()))
                        .collect();
                    output::fields(&Value::Object(counted))
                }
            }
        }
        Contacts::Get(arguments) => {
            let contact = connection
                .get(&format!("/v1/contacts/{}", segment(&arguments.id)), &[])
                .await?;
            match connection.json {
                true => output::json(&contact),
                false => output::fields(&contact),
            }
        }
        Contacts::Erase(arguments) => {
            connection
                .delete(&format!("/v1/contacts/{}", segment(&arguments.id)))
                .await?;
            match connection.json {
                true => output::json(&json!({"erased": arguments.id})),
                false => output::line("erased"),
            }
        }
    }
}

pub async fn import(
    connection: &Connection,
    csv: Vec<u8>,
    query: &[(&str, String)],
    progress: Progress,
) -> Result<Value, Failure> {
    connection
        .upload("/v1/contacts/import", query, "text/csv", csv, progress)
        .await
}
