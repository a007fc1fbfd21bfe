//! `tamtam suppressions`: the phones that must not be written to.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{
    client::{Connection, read_file},
    output,
    progress::{Progress, say},
};
use crate::{cli::ClientArgs, exit::Failure};

const PATH: &str = "/v1/suppressions";
/// Phones in one request.
const BATCH: usize = 10_000;

#[derive(Debug, Subcommand)]
pub enum Suppressions {
    /// Shut phones off
    Add(AddArgs),
    /// Let phones be written to again
    Remove(PhonesArgs),
    /// Who is shut off, the newest first: keyed hashes, never phones
    List(ListArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scope {
    /// No marketing, as after STOP
    Marketing,
    /// Nothing at all, transactional messages neither
    All,
}

#[derive(Debug, Args)]
pub struct PhonesArgs {
    /// A phone, in E.164 or national
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    phone: Option<String>,
    /// A file with a phone on each line; `-` reads standard input
    #[arg(long)]
    file: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "marketing")]
    scope: Scope,
    /// What national numbers belong to, for example RE (default: the policy's)
    #[arg(long, value_name = "COUNTRY")]
    region: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// Where they are from, such as the name of a list
    #[arg(long, default_value = "command line")]
    source: String,
    #[command(flatten)]
    phones: PhonesArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// How many, up to 1,000
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Where the page begins: `next` of the one before
    #[arg(long)]
    after: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

impl Suppressions {
    pub fn client(&self) -> &ClientArgs {
        match self {
            Suppressions::Add(arguments) => &arguments.phones.client,
            Suppressions::Remove(arguments) => &arguments.client,
            Suppressions::List(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &Suppressions) -> Result<(), Failure> {
    match command {
        Suppressions::Add(arguments) => change(connection, &arguments.phones, Some(&arguments.source)).await,
        Suppressions::Remove(arguments) => change(connection, arguments, None).await,
        Suppressions::List(arguments) => {
            let mut query = vec![("limit", arguments.limit.to_string())];
            query.extend(arguments.after.clone().map(|after| ("after", after)));
            let listed = connection.get(PATH, &query).await?;
            if connection.json {
                return output::json(&listed);
            }
            let rows = listed["suppressions"].as_array().map(Vec::as_slice).unwrap_or_default();
            output::table(rows, &["phone_hash", "scope", "source", "since", "recorded_by"])?;
            if let Some(next) = listed["next"].as_str() {
                say(&format!("more: --after {next}"));
            }
            Ok(())
        }
    }
}

/// Enters the phones (with where they are from), or lifts them.
async fn change(connection: &Connection, arguments: &PhonesArgs, source: Option<&str>) -> Result<(), Failure> {
    let lines = match (&arguments.phone, &arguments.file) {
        (_, Some(file)) => lines(&read_file(file)?)?,
        (Some(phone), None) => vec![(1, phone.clone())],
        (None, None) => Vec::new(),
    };
    if lines.is_empty() {
        return Err(Failure::usage(
            "no phone: expected one, or a file with one on each line",
        ));
    }
    let (mut changed, mut unchanged, mut rejected) = (0, 0, 0);
    let mut progress = Progress::new("phones", lines.len() as u64);
    for batch in lines.chunks(BATCH) {
        let phones: Vec<&str> = batch.iter().map(|(_, phone)| phone.as_str()).collect();
        let scope = match arguments.scope {
            Scope::Marketing => "marketing",
            Scope::All => "all",
        };
        let mut wanted = json!({"phones": phones, "scope": scope});
        if let Some(region) = &arguments.region {
            wanted["region"] = region.as_str().into();
        }
        let done = match source {
            Some(source) => {
                wanted["source"] = source.into();
                connection.post(PATH, &wanted).await?
            }
            None => connection.delete_with(PATH, &wanted).await?,
        };
        let count = |name: &str| done[name].as_u64().unwrap_or_default();
        changed += count("changed");
        unchanged += count("unchanged");
        rejected += count("rejected");
        for error in done["errors"].as_array().into_iter().flatten() {
            let item = error["item"].as_u64().and_then(|item| usize::try_from(item).ok());
            let line = item
                .and_then(|item| batch.get(item.checked_sub(1)?))
                .map(|(line, _)| *line);
            say(&format!(
                "line {}: {}",
                line.unwrap_or_default(),
                output::cell(&error["message"])
            ));
        }
        progress.add(batch.len() as u64);
    }
    progress.finish();
    let told: Value = json!({"changed": changed, "unchanged": unchanged, "rejected": rejected});
    match connection.json {
        true => output::json(&told)?,
        false => output::fields(&told)?,
    }
    match rejected {
        0 => Ok(()),
        rejected => Err(Failure::no(format!("{rejected} of them are no phones"))),
    }
}

/// The lines that are not empty, with their numbers from 1.
fn lines(bytes: &[u8]) -> Result<Vec<(usize, String)>, Failure> {
    let text = std::str::from_utf8(bytes).map_err(|_| Failure::usage("the file is no text: expected UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = (1..).zip(text.lines().map(str::trim));
    Ok(lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| (number, line.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_phone_on_each_line() {
        let read = lines("\u{feff}+262692000001\r\n\n 0692 00 00 02 \n".as_bytes()).unwrap();
        assert_eq!(read, [(1, "+262692000001".to_owned()), (3, "0692 00 00 02".to_owned())]);
        assert!(lines(b"\xff").is_err());
    }
}
