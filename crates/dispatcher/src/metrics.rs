//! What is measured. Labels are gateways and classes, never phones or contacts.

use std::time::Duration;

use domain::Class;
use events::record::Outbound;
use gateways::Outcome;
use jiff::Timestamp;
use metrics::{Counter, Gauge, Histogram};

pub(crate) fn claimed(took: Duration, granted: usize) {
    metrics::histogram!("tamtam_claim_seconds").record(took.as_secs_f64());
    metrics::histogram!("tamtam_claim_messages").record(granted as f64);
}

/// What is counted for each message of a gateway: looked up by name once, not for each.
pub(crate) struct Meters {
    gateway: String,
    in_flight: Gauge,
    answer_seconds: Histogram,
    /// As [`crate::gate::slot`] counts them.
    classes: [ClassMeters; 2],
}

struct ClassMeters {
    submitted: Counter,
    rate_wait: Histogram,
    accepted: Counter,
    parts: Counter,
    event_to_gateway: Histogram,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}

impl Meters {
    pub(crate) fn new(gateway: &str) -> Meters {
        let class = |class: Class| ClassMeters::new(gateway, class.as_str());
        Meters {
            in_flight: metrics::gauge!("tamtam_dispatcher_in_flight", "gateway" => gateway.to_owned()),
            answer_seconds: metrics::histogram!("tamtam_gateway_answer_seconds", "gateway" => gateway.to_owned()),
            classes: [class(Class::Transactional), class(Class::Marketing)],
            gateway: gateway.to_owned(),
        }
    }

    fn of(&self, class: Class) -> &ClassMeters {
        let [transactional, marketing] = &self.classes;
        match class {
            Class::Transactional => transactional,
            Class::Marketing => marketing,
        }
    }

    pub(crate) fn submitting(&self, class: Class, waited: Duration) {
        let meters = self.of(class);
        meters.submitted.increment(1);
        meters.rate_wait.record(waited.as_secs_f64());
        self.in_flight.increment(1.0);
    }

    pub(crate) fn answered(&self, record: &Outbound, outcome: &Outcome, took: Duration, now: Timestamp) {
        let meters = self.of(record.class);
        self.in_flight.decrement(1.0);
        self.answer_seconds.record(took.as_secs_f64());
        let word = match outcome {
            Outcome::Accepted { parts } => {
                let parts = parts.len().max(usize::from(record.parts));
                let way = now.duration_since(record.caused_at).as_secs_f64();
                meters.accepted.increment(1);
                meters.parts.increment(parts as u64);
                return meters.event_to_gateway.record(way.max(0.0));
            }
            Outcome::Refused { .. } => "failed",
            Outcome::Retry { throttled: true, .. } => "throttled",
            Outcome::Retry { throttled: false, .. } => "retry",
            Outcome::Unreachable => "unreachable",
            Outcome::Unknown { .. } => "unknown",
        };
        answers(&self.gateway, record.class.as_str(), word).increment(1);
    }
}

impl ClassMeters {
    fn new(gateway: &str, class: &'static str) -> ClassMeters {
        let gateway = || gateway.to_owned();
        ClassMeters {
            submitted: metrics::counter!("tamtam_messages_submitted_total", "gateway" => gateway(), "class" => class),
            rate_wait: metrics::histogram!("tamtam_rate_wait_seconds", "gateway" => gateway(), "class" => class),
            accepted: answers(&gateway(), class, "accepted"),
            parts: metrics::counter!("tamtam_parts_accepted_total", "gateway" => gateway(), "class" => class),
            event_to_gateway: metrics::histogram!("tamtam_event_to_gateway_seconds", "class" => class),
        }
    }
}

fn answers(gateway: &str, class: &'static str, outcome: &'static str) -> Counter {
    metrics::counter!(
        "tamtam_messages_answered_total", "gateway" => gateway.to_owned(), "class" => class, "outcome" => outcome
    )
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
