//! How well each gateway does.

use api::gateways::GatewayLine;
use axum::{Json as Answer, extract::State};
use serde::{Deserialize, Serialize};
use store::gateway_traffic::Percentiles;
use utoipa::ToSchema;

use super::{
    Http, READERS,
    extract::{Call, Params, When},
    problem::Problem,
    route::{Routes, get},
};

pub(super) fn add(routes: Routes) -> Routes {
    routes.add(
        get(
            "/v1/gateways",
            READERS,
            "What each gateway made of the messages that were handed to it in a period, and how fast it was",
        )
        .query(
            "since",
            "date-time",
            "Handed over from then on; absent: an hour before `until`",
        )
        .query("until", "date-time", "Handed over before; absent: now")
        .gives::<GatewaysJson>(),
        gateways,
    )
}

#[derive(Serialize, ToSchema)]
struct GatewaysJson {
    since: When,
    until: When,
    gateways: Vec<GatewayJson>,
}

/// A message counts at the gateway and the time of its last hand-over. `handed_over` is the sum of `accepted`, `refused`,
/// `retrying`, `unknown` and `sending`. One that was planned more than a day before `since` is left out.
#[derive(Serialize, ToSchema)]
struct GatewayJson {
    name: String,
    /// It is among the resources.
    configured: bool,
    handed_over: i64,
    /// Whatever became of it then.
    accepted: i64,
    /// Not taken, and not tried again.
    refused: i64,
    /// Not taken, and put off to be tried again.
    retrying: i64,
    /// The connection ended before the answer.
    unknown: i64,
    /// The answer is awaited.
    sending: i64,
    delivered: i64,
    /// Accepted, and said to have failed or expired.
    undelivered: i64,
    /// Accepted, and nothing was heard in time.
    no_receipt: i64,
    /// `accepted` of those that are not `sending`, 0 to 1; null where there is none.
    accepted_rate: Option<f64>,
    /// `delivered` of those that are delivered, undelivered or without a receipt, 0 to 1; null where there is none.
    delivered_rate: Option<f64>,
    /// From the claim to the gateway's answer.
    answer_ms: Option<PercentilesJson>,
    /// From the event (or the launch of the campaign) to the gateway's answer.
    event_to_accepted_ms: Option<PercentilesJson>,
    accepted_to_delivered_ms: Option<PercentilesJson>,
}

/// Milliseconds.
#[derive(Serialize, ToSchema)]
struct PercentilesJson {
    p50: i64,
    p99: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewaysParams {
    since: Option<When>,
    until: Option<When>,
}

async fn gateways(
    call: Call,
    State(http): State<Http>,
    Params(params): Params<GatewaysParams>,
) -> Result<Answer<GatewaysJson>, Problem> {
    let (since, until) = (params.since.map(|time| time.0), params.until.map(|time| time.0));
    let report = http.api.gateways(&call.caller, since, until).await?;
    Ok(Answer(GatewaysJson {
        since: When(report.since),
        until: When(report.until),
        gateways: report.gateways.into_iter().map(GatewayJson::from).collect(),
    }))
}

impl From<GatewayLine> for GatewayJson {
    fn from(line: GatewayLine) -> Self {
        let traffic = line.traffic;
        GatewayJson {
            configured: line.configured,
            handed_over: traffic.handed_over,
            accepted: traffic.accepted,
            refused: traffic.refused,
            retrying: traffic.retrying,
            unknown: traffic.unknown,
            sending: traffic.sending,
            delivered: traffic.delivered,
            undelivered: traffic.undelivered,
            no_receipt: traffic.no_receipt,
            accepted_rate: traffic.accepted_rate(),
            delivered_rate: traffic.delivered_rate(),
            answer_ms: traffic.answer.map(PercentilesJson::from),
            event_to_accepted_ms: traffic.event_to_accepted.map(PercentilesJson::from),
            accepted_to_delivered_ms: traffic.accepted_to_delivered.map(PercentilesJson::from),
            name: traffic.gateway,
        }
    }
}

impl From<Percentiles> for PercentilesJson {
    fn from(percentiles: Percentiles) -> Self {
        PercentilesJson {
            p50: percentiles.p50,
            p99: percentiles.p99,
        }
    }
}
