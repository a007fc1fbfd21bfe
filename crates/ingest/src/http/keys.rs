//! API keys.

use api::{Role, keys::KeyInfo};
use axum::{Json as Answer, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    ADMIN, Http,
    extract::{Call, Json, Segments, When, id},
    problem::Problem,
    route::{Routes, delete, get, post},
};

pub(super) fn add(routes: Routes) -> Routes {
    routes
        .add(
            post("/v1/keys", ADMIN, "Make an API key; it is shown this once")
                .takes::<NewKeyJson>()
                .gives::<MadeKeyJson>(),
            create,
        )
        .add(
            get("/v1/keys", ADMIN, "The API keys, never themselves").gives::<KeysJson>(),
            list,
        )
        .add(
            delete(
                "/v1/keys/{id}",
                ADMIN,
                "Revoke a key; within two seconds it is refused everywhere",
            ),
            revoke,
        )
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewKeyJson {
    /// 1 to 100 letters, digits, `-`, `_` or `.`
    name: String,
    /// `admin`, `campaigns`, `events` or `read`.
    role: String,
}

#[derive(Serialize, ToSchema)]
struct MadeKeyJson {
    /// The key itself.
    secret: String,
    #[serde(flatten)]
    info: KeyJson,
}

#[derive(Serialize, ToSchema)]
struct KeysJson {
    keys: Vec<KeyJson>,
}

#[derive(Serialize, ToSchema)]
struct KeyJson {
    id: Uuid,
    name: String,
    role: &'static str,
    created_at: When,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<When>,
}

async fn create(
    call: Call,
    State(http): State<Http>,
    Json(new): Json<NewKeyJson>,
) -> Result<Answer<MadeKeyJson>, Problem> {
    let role: Role = new.role.parse()?;
    let (secret, info) = http.api.key_create(&call.caller, &new.name, role).await?;
    Ok(Answer(MadeKeyJson {
        secret,
        info: info.into(),
    }))
}

async fn list(call: Call, State(http): State<Http>) -> Result<Answer<KeysJson>, Problem> {
    let keys = http.api.keys_list(&call.caller).await?;
    Ok(Answer(KeysJson {
        keys: keys.into_iter().map(KeyJson::from).collect(),
    }))
}

async fn revoke(call: Call, State(http): State<Http>, Segments(text): Segments<String>) -> Result<StatusCode, Problem> {
    http.api.key_revoke(&call.caller, id(&text)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<KeyInfo> for KeyJson {
    fn from(info: KeyInfo) -> Self {
        KeyJson {
            id: info.id,
            name: info.name,
            role: info.role.as_str(),
            created_at: When(info.created_at),
            revoked_at: info.revoked_at.map(When),
        }
    }
}
