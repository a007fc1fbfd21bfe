//! Resources: applying a TOML file, reading them, removing one.

use api::{ApiError, resources::ResourceInfo};
use axum::{Json as Answer, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    ADMIN, Http, READERS,
    extract::{Call, Params, Segments, Text, When},
    problem::Problem,
    route::{Routes, delete, get, post},
};

pub(super) fn add(routes: Routes) -> Routes {
    routes
        .add(
            post(
                "/v1/resources",
                ADMIN,
                "Apply a TOML file of gateways, templates, audiences, triggers and the policy: all or none of it",
            )
            .query("dry_run", "boolean", "Check everything and change nothing")
            .takes_media("application/toml", None)
            .gives::<AppliedJson>(),
            apply,
        )
        .add(
            get("/v1/resources", READERS, "The resources, without their secrets")
                .query(
                    "kind",
                    "string",
                    "gateway, template, audience, trigger or policy; absent: all",
                )
                .gives::<ResourcesJson>(),
            list,
        )
        .add(
            get(
                "/v1/resources/{kind}/{name}",
                READERS,
                "A resource, without its secrets",
            )
            .gives::<ResourceJson>(),
            one,
        )
        .add(
            delete(
                "/v1/resources/{kind}/{name}",
                ADMIN,
                "Remove a resource that nothing refers to",
            ),
            remove,
        )
}

#[derive(Serialize, ToSchema)]
struct AppliedJson {
    created: usize,
    updated: usize,
    unchanged: usize,
    /// In the file's order.
    resources: Vec<AppliedResourceJson>,
}

#[derive(Serialize, ToSchema)]
struct AppliedResourceJson {
    kind: &'static str,
    name: String,
    /// `created`, `updated` or `unchanged`.
    change: &'static str,
    /// Of a template: how many contacts lack a field that it writes without a default, and how many parts it takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct ResourcesJson {
    resources: Vec<ResourceJson>,
}

#[derive(Serialize, ToSchema)]
struct ResourceJson {
    kind: String,
    name: String,
    /// Grows with each change.
    version: i64,
    #[schema(value_type = Object)]
    body: Value,
    updated_at: When,
    updated_by: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplyParams {
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    kind: Option<String>,
}

async fn apply(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<ApplyParams>,
    Text(toml): Text,
) -> Result<Answer<AppliedJson>, Problem> {
    let applied = http.api.resources_apply(&call.caller, &toml, params.dry_run).await?;
    let resources: Vec<AppliedResourceJson> = applied
        .into_iter()
        .map(|one| AppliedResourceJson {
            kind: one.kind.as_str(),
            name: one.name,
            change: one.change.as_str(),
            notes: one.notes,
        })
        .collect();
    let count = |change: &str| resources.iter().filter(|one| one.change == change).count();
    Ok(Answer(AppliedJson {
        created: count("created"),
        updated: count("updated"),
        unchanged: count("unchanged"),
        resources,
    }))
}

async fn list(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<ListParams>,
) -> Result<Answer<ResourcesJson>, Problem> {
    let kind = params.kind.as_deref().map(kind).transpose()?;
    let rows = http.api.resources_list(&call.caller, kind).await?;
    Ok(Answer(ResourcesJson {
        resources: rows.into_iter().map(ResourceJson::from).collect(),
    }))
}

async fn one(
    call: Call,
    State(http): State<Http>,
    Segments((of, name)): Segments<(String, String)>,
) -> Result<Answer<ResourceJson>, Problem> {
    Ok(Answer(
        http.api.resource_get(&call.caller, kind(&of)?, &name).await?.into(),
    ))
}

async fn remove(
    call: Call,
    State(http): State<Http>,
    Segments((of, name)): Segments<(String, String)>,
) -> Result<StatusCode, Problem> {
    http.api.resource_delete(&call.caller, kind(&of)?, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn kind(word: &str) -> Result<::resources::Kind, ApiError> {
    word.parse()
        .map_err(|message: String| ApiError::invalid("kind", message))
}

impl From<ResourceInfo> for ResourceJson {
    fn from(info: ResourceInfo) -> Self {
        ResourceJson {
            kind: info.kind,
            name: info.name,
            version: info.version,
            body: info.body,
            updated_at: When(info.updated_at),
            updated_by: info.updated_by,
        }
    }
}
