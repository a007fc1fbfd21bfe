//! `tamtam contacts`: import a file, look at one and at what it consented to, erase one.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    client::{Connection, Upload, segment},
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
    /// What a contact said of each purpose, when, where and in which words
    Consents(IdArgs),
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
    /// Where to write every rejected row: a CSV of line, field and reason
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
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
            Contacts::Get(arguments) | Contacts::Consents(arguments) | Contacts::Erase(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &Contacts) -> Result<(), Failure> {
    match command {
        Contacts::Import(arguments) => {
            let body = Upload::open(&arguments.file).await?;
            let mut query = Vec::new();
            query.extend(arguments.region.clone().map(|region| ("region", region)));
            query.extend(arguments.mapping.clone().map(|mapping| ("mapping", mapping)));
            let progress = Progress::new("contacts imported (bytes)", body.length);
            let imported = match &arguments.rejected {
                // It is read while it is written: nothing would be left of it.
                Some(path) if is_same(path, &arguments.file) => {
                    let path = path.display();
                    return Err(Failure::usage(format!(
                        "--rejected {path}: expected another file than the one that is imported"
                    )));
                }
                Some(path) => import_with_rejected(connection, body, query, progress, path).await?,
                None => upload(connection, body, &query, progress).await?,
            };
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
        Contacts::Consents(arguments) => {
            let said = connection
                .get(&format!("/v1/contacts/{}/consents", segment(&arguments.id)), &[])
                .await?;
            if connection.json {
                return output::json(&said);
            }
            let rows = said["consents"].as_array().map(Vec::as_slice).unwrap_or_default();
            let columns = [
                "purpose",
                "given",
                "at",
                "source",
                "wording",
                "recorded_at",
                "recorded_by",
            ];
            output::table(rows, &columns)
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

fn is_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| std::fs::canonicalize(path).ok();
    whole(one).is_some_and(|one| Some(one) == whole(other))
}

pub async fn import(connection: &Connection, csv: Vec<u8>, progress: Progress) -> Result<Value, Failure> {
    upload(connection, Upload::bytes(csv), &[], progress).await
}

async fn upload(
    connection: &Connection,
    body: Upload,
    query: &[(&str, String)],
    progress: Progress,
) -> Result<Value, Failure> {
    let mut imported = Value::Null;
    connection
        .upload("/v1/contacts/import", query, "text/csv", body, progress, |answer| {
            imported = answer;
            Ok(())
        })
        .await?;
    Ok(imported)
}

/// Writes each rejected row down as the server tells it, while the file is still being sent.
async fn import_with_rejected(
    connection: &Connection,
    body: Upload,
    mut query: Vec<(&str, String)>,
    progress: Progress,
    path: &Path,
) -> Result<Value, Failure> {
    query.push(("rejected", "all".into()));
    let failed = |error: &dyn std::fmt::Display| Failure::no(format!("{}: {error}", path.display()));
    let mut rows = csv::Writer::from_path(path)
        .map_err(|error| Failure::usage(format!("--rejected {}: {error}", path.display())))?;
    rows.write_record(["line", "field", "reason"])
        .map_err(|error| failed(&error))?;
    let mut imported = None;
    let line = |answer: Value| {
        if let Some(detail) = answer["error"]["detail"].as_str() {
            return Err(Failure::no(detail));
        }
        match answer.get("imported") {
            Some(report) => imported = Some(report.clone()),
            None => rows
                .write_record(["line", "field", "message"].map(|name| match &answer[name] {
                    Value::Null => String::new(),
                    value => output::cell(value),
                }))
                .map_err(|error| failed(&error))?,
        }
        Ok(())
    };
    let uploaded = connection
        .upload("/v1/contacts/import", &query, "text/csv", body, progress, line)
        .await;
    // What was told before it went wrong stands in the file.
    rows.flush().map_err(|error| failed(&error))?;
    uploaded?;
    imported.ok_or_else(|| Failure::unreachable("the answer broke off before its end: expected how many were imported"))
}
