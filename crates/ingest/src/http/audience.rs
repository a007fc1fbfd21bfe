//! Audiences: how many an expression matches, who they are, and why.

use api::audience::AudienceExplanation;
use axum::{Json as Answer, extract::State};
use domain::audience::Explained;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Http, READERS,
    contacts::ContactJson,
    extract::{Call, Params},
    problem::Problem,
    route::{Routes, get},
};

const PAGE: i64 = 100;

pub(super) fn add(routes: Routes) -> Routes {
    let expression = "An expression of the audience language, for example `age < 30 and region = \"north\"`; required";
    routes
        .add(
            get("/v1/audience/count", READERS, "How many contacts match")
                .query("where", "string", expression)
                .gives::<CountJson>(),
            count,
        )
        .add(
            get(
                "/v1/audience/explain",
                READERS,
                "How many contacts each clause leaves, and why one contact is in or out",
            )
            .query("where", "string", expression)
            .query("contact", "string", "Explain this contact, too")
            .gives::<ExplanationJson>(),
            explain,
        )
        .add(
            get("/v1/audience/contacts", READERS, "The contacts that match, in id order")
                .query("where", "string", expression)
                .query(
                    "after",
                    "string",
                    "Continue after this contact (the last of an earlier page)",
                )
                .query("limit", "integer", "How many, up to 1,000; absent: 100")
                .gives::<ContactsJson>(),
            list,
        )
}

#[derive(Serialize, ToSchema)]
struct CountJson {
    count: i64,
    /// What is probably a mistake.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hints: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct ContactsJson {
    contacts: Vec<ContactJson>,
}

#[derive(Serialize, ToSchema)]
struct ExplanationJson {
    /// The expression as it is understood.
    expression: String,
    /// All contacts that there are.
    contacts: i64,
    /// Those that match.
    count: i64,
    /// The conditions that must all hold.
    clauses: Vec<ClauseJson>,
    /// What is probably a mistake.
    hints: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact: Option<ExplainedJson>,
}

#[derive(Serialize, ToSchema)]
struct ClauseJson {
    clause: String,
    /// How many contacts it matches by itself.
    alone: i64,
    /// How many it and those before it leave.
    left: i64,
}

/// A part of an expression, and whether it holds for the contact.
#[derive(Serialize, ToSchema)]
pub(super) struct ExplainedJson {
    text: String,
    holds: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    parts: Vec<ExplainedJson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CountParams {
    r#where: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainParams {
    r#where: String,
    contact: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    r#where: String,
    #[serde(default)]
    after: String,
    limit: Option<i64>,
}

async fn count(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<CountParams>,
) -> Result<Answer<CountJson>, Problem> {
    let count = http.api.audience_count(&call.caller, &params.r#where).await?;
    let hints = http.api.audience_hints(&call.caller, &params.r#where).await?;
    Ok(Answer(CountJson { count, hints }))
}

async fn explain(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<ExplainParams>,
) -> Result<Answer<ExplanationJson>, Problem> {
    let contact = params.contact.as_deref();
    let explanation = http
        .api
        .audience_explain(&call.caller, &params.r#where, contact)
        .await?;
    Ok(Answer(explanation.into()))
}

async fn list(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<ListParams>,
) -> Result<Answer<ContactsJson>, Problem> {
    let limit = params.limit.unwrap_or(PAGE);
    let contacts = http
        .api
        .audience_list(&call.caller, &params.r#where, &params.after, limit)
        .await?;
    Ok(Answer(ContactsJson {
        contacts: contacts.into_iter().map(ContactJson::from).collect(),
    }))
}

impl From<AudienceExplanation> for ExplanationJson {
    fn from(explanation: AudienceExplanation) -> Self {
        ExplanationJson {
            expression: explanation.expression,
            contacts: explanation.contacts,
            count: explanation.count,
            clauses: explanation
                .clauses
                .into_iter()
                .map(|clause| ClauseJson {
                    clause: clause.clause,
                    alone: clause.alone,
                    left: clause.left,
                })
                .collect(),
            hints: explanation.hints,
            contact: explanation.contact.map(ExplainedJson::from),
        }
    }
}

impl From<Explained> for ExplainedJson {
    fn from(explained: Explained) -> Self {
        ExplainedJson {
            text: explained.text,
            holds: explained.holds,
            parts: explained.parts.into_iter().map(ExplainedJson::from).collect(),
        }
    }
}
