//! `tamtam audience`: whom an expression matches.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{client::Connection, output, progress::say};
use crate::{cli::ClientArgs, exit::Failure};

#[derive(Debug, Subcommand)]
pub enum Audience {
    /// How many contacts match
    Count(CountArgs),
    /// How many contacts each of its conditions leaves, and why one contact is in or out
    Explain(ExplainArgs),
    /// The contacts that match
    List(ListArgs),
}

#[derive(Debug, Args)]
pub struct CountArgs {
    /// For example 'gender = "female" and age < 30 and did order.placed within 30 days'
    expression: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// An expression of the audience language
    expression: String,
    /// Explain this contact, too
    #[arg(long, value_name = "ID")]
    contact: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// An expression of the audience language
    expression: String,
    /// How many
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Continue after this contact (the last of an earlier page)
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

impl Audience {
    pub fn client(&self) -> &ClientArgs {
        match self {
            Audience::Count(arguments) => &arguments.client,
            Audience::Explain(arguments) => &arguments.client,
            Audience::List(arguments) => &arguments.client,
        }
    }
}

pub async fn run(connection: &Connection, command: &Audience) -> Result<(), Failure> {
    match command {
        Audience::Count(arguments) => {
            let query = [("where", arguments.expression.clone())];
            let counted = connection.get("/v1/audience/count", &query).await?;
            say_hints(&counted);
            match connection.json {
                true => output::json(&counted),
                false => output::line(&output::cell(&counted["count"])),
            }
        }
        Audience::Explain(arguments) => {
            let mut query = vec![("where", arguments.expression.clone())];
            query.extend(arguments.contact.clone().map(|contact| ("contact", contact)));
            let explained = connection.get("/v1/audience/explain", &query).await?;
            match connection.json {
                true => output::json(&explained),
                false => tell(&explained),
            }
        }
        Audience::List(arguments) => {
            let mut query = vec![
                ("where", arguments.expression.clone()),
                ("limit", arguments.limit.to_string()),
            ];
            query.extend(arguments.after.clone().map(|after| ("after", after)));
            let listed = connection.get("/v1/audience/contacts", &query).await?;
            if connection.json {
                return output::json(&listed);
            }
            let rows: &[Value] = listed["contacts"].as_array().map(Vec::as_slice).unwrap_or_default();
            output::table(
                rows,
                &[
                    "id",
                    "first_name",
                    "last_name",
                    "gender",
                    "birth_date",
                    "city",
                    "region",
                ],
            )
        }
    }
}

/// What the server thinks is a mistake, on standard error.
pub fn say_hints(answer: &Value) {
    for hint in answer["hints"].as_array().into_iter().flatten() {
        say(&format!("hint: {}", output::cell(hint)));
    }
}

fn tell(explained: &Value) -> Result<(), Failure> {
    output::line(&output::cell(&explained["expression"]))?;
    let clauses = explained["clauses"].as_array().map(Vec::as_slice).unwrap_or_default();
    output::table(clauses, &["alone", "left", "clause"])?;
    output::line(&format!(
        "{} of {} contacts match",
        explained["count"], explained["contacts"]
    ))?;
    for hint in explained["hints"].as_array().into_iter().flatten() {
        output::line(&format!("hint: {}", output::cell(hint)))?;
    }
    match &explained["contact"] {
        Value::Null => Ok(()),
        contact => tree(contact, 0),
    }
}

/// A condition and its parts, each with whether it holds for the contact.
pub fn tree(part: &Value, depth: usize) -> Result<(), Failure> {
    let word = if part["holds"] == true { "yes" } else { "no " };
    output::line(&format!("{}{word} {}", "  ".repeat(depth), output::cell(&part["text"])))?;
    part["parts"]
        .as_array()
        .into_iter()
        .flatten()
        .try_for_each(|inner| tree(inner, depth + 1))
}
