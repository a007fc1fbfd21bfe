//! What a campaign would be, before it is launched.

use std::collections::BTreeMap;

use api::{
    ApiError,
    preview::{Preview, PreviewRequest},
};
use axum::{Json as Answer, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    Http, READERS,
    extract::{Call, Json, When},
    problem::Problem,
    route::{Routes, post},
};

pub(super) fn add(routes: Routes) -> Routes {
    routes.add(
        post(
            "/v1/preview",
            READERS,
            "What a campaign would be: how many people, three texts, parts, cost, who is left out, when it is through",
        )
        .takes::<PreviewRequestJson>()
        .gives::<PreviewJson>(),
        preview,
    )
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PreviewRequestJson {
    /// The name of an audience, or
    #[serde(default)]
    audience: Option<String>,
    /// an expression.
    #[serde(default)]
    r#where: Option<String>,
    /// The name of a template, or
    #[serde(default)]
    template: Option<String>,
    /// a text, with the three below.
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    sender: Option<String>,
    /// `marketing` or `transactional`; absent: marketing.
    #[serde(default)]
    class: Option<String>,
    #[serde(default)]
    smart: bool,
    /// What the campaign would be called: `{{ campaign.name }}`.
    #[serde(default)]
    name: Option<String>,
    /// For the template: `{{ campaign.NAME }}`.
    #[serde(default)]
    #[schema(value_type = Object)]
    values: Map<String, Value>,
    /// When it would start; absent: now.
    #[serde(default)]
    at: Option<When>,
    #[serde(default)]
    deadline: Option<When>,
    /// How many contacts to look at, up to 1,000; absent: 1,000.
    #[serde(default)]
    sample: Option<usize>,
    /// The share of the audience that gets nothing, to compare with: 0 to 100.
    #[serde(default)]
    control_percent: u32,
    /// The most it may cost, in millionths of the account's currency.
    #[serde(default)]
    budget_micros: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct PreviewJson {
    /// Everybody in the audience.
    count: i64,
    /// How many of them were looked at; what follows is scaled up from them.
    sampled: usize,
    /// Those who would get it, at once or after quiet hours.
    sent: i64,
    /// Those of `sent` who would get it only after quiet hours.
    deferred: i64,
    /// Those who would not, by reason.
    suppressed: BTreeMap<&'static str, i64>,
    /// Why no text came out for a contact, where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    /// Up to three.
    texts: Vec<PreviewTextJson>,
    /// How many texts of the sample have so many parts.
    parts: BTreeMap<u16, usize>,
    total_parts: i64,
    /// The parts without and with smart encoding, whichever the template has; absent where they are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    smart: Option<SmartJson>,
    /// Millionths of the account's currency.
    cost_micros: i64,
    /// How long the gateways need at their rates.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<When>,
    /// What is probably a mistake in `where`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hints: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct SmartJson {
    parts_without: i64,
    parts_with: i64,
}

#[derive(Serialize, ToSchema)]
struct PreviewTextJson {
    contact_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_name: Option<String>,
    text: String,
    encoding: String,
    parts: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

async fn preview(
    call: Call,
    State(http): State<Http>,
    Json(asked): Json<PreviewRequestJson>,
) -> Result<Answer<PreviewJson>, Problem> {
    let class = match asked.class.as_deref().map(str::parse).transpose() {
        Ok(class) => class,
        Err(_) => return Err(ApiError::invalid("class", "expected `marketing` or `transactional`").into()),
    };
    let request = PreviewRequest {
        audience: asked.audience,
        condition: asked.r#where,
        template: asked.template,
        text: asked.text,
        sender: asked.sender,
        class,
        smart: asked.smart,
        name: asked.name,
        values: asked.values,
        at: asked.at.map(|at| at.0),
        deadline: asked.deadline.map(|deadline| deadline.0),
        sample: asked.sample,
        control_percent: asked.control_percent,
        budget_micros: asked.budget_micros,
    };
    let mut preview = PreviewJson::from(http.api.preview(&call.caller, &request).await?);
    if let Some(condition) = &request.condition {
        preview.hints = http.api.audience_hints(&call.caller, condition).await?;
    }
    Ok(Answer(preview))
}

impl From<Preview> for PreviewJson {
    fn from(preview: Preview) -> Self {
        PreviewJson {
            count: preview.count,
            sampled: preview.sampled,
            sent: preview.sent,
            deferred: preview.deferred,
            suppressed: preview
                .suppressed
                .into_iter()
                .map(|(reason, contacts)| (reason.as_str(), contacts))
                .collect(),
            refusal: preview.refusal,
            texts: preview
                .texts
                .into_iter()
                .map(|text| PreviewTextJson {
                    contact_id: text.contact_id,
                    first_name: text.first_name,
                    text: text.text,
                    encoding: text.encoding.to_string(),
                    parts: text.parts,
                    language: text.language,
                    variant: text.variant,
                })
                .collect(),
            parts: preview.parts,
            total_parts: preview.total_parts,
            smart: preview.smart.map(|smart| SmartJson {
                parts_without: smart.parts_without,
                parts_with: smart.parts_with,
            }),
            cost_micros: preview.cost_micros,
            seconds: preview.seconds,
            ends_at: preview.ends_at.map(When),
            hints: Vec::new(),
        }
    }
}
