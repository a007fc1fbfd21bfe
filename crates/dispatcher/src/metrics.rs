//! What is measured. Labels are gateways and classes, never phones or contacts.

use std::time::Duration;

use domain::Class;
use events::record::Outbound;
use gateways::Outcome;
use jiff::Timestamp;

pub(crate) fn claimed(took: Duration, granted: usize) {
    metrics::histogram!("tamtam_claim_seconds").record(took.as_secs_f64());
    metrics::histogram!("tamtam_claim_messages").record(granted as f64);
}

pub(crate) fn submitting(gateway: &str, class: Class, waited: Duration) {
    metrics::counter!("tamtam_messages_submitted_total", "gateway" => gateway.to_owned(), "class" => class.as_str())
        .increment(1);
    metrics::histogram!("tamtam_rate_wait_seconds", "gateway" => gateway.to_owned(), "class" => class.as_str())
        .record(waited.as_secs_f64());
    metrics::gauge!("tamtam_dispatcher_in_flight", "gateway" => gateway.to_owned()).increment(1.0);
}

pub(crate) fn answered(gateway: &str, record: &Outbound, outcome: &Outcome, took: Duration, now: Timestamp) {
    let word = match outcome {
        Outcome::Accepted { .. } => "accepted",
        Outcome::Refused { .. } => "failed",
        Outcome::Retry { throttled: true, .. } => "throttled",
        Outcome::Retry { throttled: false, .. } => "retry",
        Outcome::Unreachable => "unreachable",
        Outcome::Unknown { .. } => "unknown",
    };
    let class = record.class.as_str();
    metrics::gauge!("tamtam_dispatcher_in_flight", "gateway" => gateway.to_owned()).decrement(1.0);
    metrics::counter!(
        "tamtam_messages_answered_total", "gateway" => gateway.to_owned(), "class" => class, "outcome" => word
    )
    .increment(1);
    metrics::histogram!("tamtam_gateway_answer_seconds", "gateway" => gateway.to_owned()).record(took.as_secs_f64());
    if let Outcome::Accepted { parts } = outcome {
        metrics::counter!("tamtam_parts_accepted_total", "gateway" => gateway.to_owned(), "class" => class)
            .increment(parts.len().max(usize::from(record.parts)) as u64);
        metrics::histogram!("tamtam_event_to_gateway_seconds", "class" => class)
            .record(now.duration_since(record.caused_at).as_secs_f64().max(0.0));
    }
}

pub(crate) fn verdict(class: Class, state: domain::State) {
    metrics::counter!("tamtam_dispatcher_verdicts_total", "class" => class.as_str(), "state" => state.as_str())
        .increment(1);
}

pub(crate) fn share(share: f64) {
    metrics::gauge!("tamtam_dispatcher_share").set(share);
}

pub(crate) fn standing(gateway: &str, up: bool) {
    metrics::gauge!("tamtam_gateway_up", "gateway" => gateway.to_owned()).set(f64::from(u8::from(up)));
}

/// How far a partition's reading is behind.
pub(crate) fn lag(lag: &bus::Lag) {
    metrics::gauge!(
        "tamtam_stage_lag",
        "stage" => crate::GROUP,
        "topic" => lag.partition.topic.name(),
        "partition" => lag.partition.number.to_string()
    )
    .set((lag.end - lag.committed) as f64);
}
