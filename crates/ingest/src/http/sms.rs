//! Measuring a text: its encoding and parts, as the renderer would count them.

use axum::Json as Answer;
use domain::sms;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    EVERY,
    extract::{Call, Json},
    route::{Routes, post},
};

pub(super) fn add(routes: Routes) -> Routes {
    routes.add(
        post("/v1/sms/measure", EVERY, "The encoding and the parts of a text")
            .takes::<MeasureJson>()
            .gives::<MeasuredJson>(),
        measure,
    )
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MeasureJson {
    text: String,
    /// Measure it after what has a faithful GSM-7 form was replaced.
    #[serde(default)]
    smart: bool,
}

#[derive(Serialize, ToSchema)]
struct MeasuredJson {
    /// `GSM-7` or `UCS-2`.
    encoding: &'static str,
    /// Septets, or UTF-16 code units.
    units: usize,
    parts: u16,
    /// What a part holds, as many parts as there are.
    per_part: usize,
    /// What the last part has left.
    remaining: usize,
    /// The characters that make it UCS-2, each once.
    non_gsm: Vec<char>,
    /// The text after replacement, with `smart`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

async fn measure(_: Call, Json(asked): Json<MeasureJson>) -> Answer<MeasuredJson> {
    let smart = asked.smart.then(|| sms::smart(&asked.text));
    let measured = sms::measure(smart.as_deref().unwrap_or(&asked.text));
    Answer(MeasuredJson {
        encoding: measured.encoding.as_str(),
        units: measured.units,
        parts: measured.parts,
        per_part: measured.per_part,
        remaining: measured.remaining,
        non_gsm: measured.non_gsm,
        text: smart,
    })
}
