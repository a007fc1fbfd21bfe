//! From a sample to the whole audience.

use std::collections::BTreeMap;

use domain::{Contact, Reason};
use jiff::{SignedDuration, Timestamp};
use resources::{Snapshot, composer::Composed};

use super::{Preview, PreviewText, after};

/// What the sample adds up to.
#[derive(Default)]
pub(super) struct Sums {
    sent: usize,
    deferred: usize,
    pub suppressed: BTreeMap<Reason, usize>,
    parts: BTreeMap<u16, usize>,
    cost_micros: i64,
    /// Parts by the gateway that would take them.
    gateways: BTreeMap<String, u64>,
}

impl Sums {
    pub(super) fn add(&mut self, snapshot: &Snapshot, contact: &Contact, text: &Composed, deferred: bool) {
        self.sent += 1;
        self.deferred += usize::from(deferred);
        *self.parts.entry(text.parts).or_default() += 1;
        self.cost_micros = self.cost_micros.saturating_add(text.cost_micros);
        let Some(phone) = &contact.phone else { return };
        // The one that the dispatcher would take while all are up.
        let gateway = snapshot
            .gateways
            .values()
            .filter(|gateway| gateway.serves(phone.e164(), text.class))
            .min_by_key(|gateway| (gateway.priority, &gateway.name));
        if let Some(gateway) = gateway {
            *self.gateways.entry(gateway.name.clone()).or_default() += u64::from(text.parts);
        }
    }

    pub(super) fn scale(
        self,
        count: i64,
        sampled: usize,
        snapshot: &Snapshot,
        start: Timestamp,
        refusal: Option<String>,
        texts: Vec<PreviewText>,
    ) -> Preview {
        let factor = match sampled {
            0 => 0.0,
            sampled => count as f64 / sampled as f64,
        };
        let scaled = |part: f64| (part * factor).round() as i64;
        // The gateways work at the same time: the slowest says when all is through.
        let seconds = self
            .gateways
            .iter()
            .filter_map(|(name, parts)| {
                let rate = snapshot.gateways.get(name)?.rate.max(1);
                Some((*parts as f64 * factor / f64::from(rate)).ceil() as i64)
            })
            .max();
        let total: usize = self
            .parts
            .iter()
            .map(|(parts, texts)| usize::from(*parts) * texts)
            .sum();
        Preview {
            count,
            sampled,
            sent: scaled(self.sent as f64),
            deferred: scaled(self.deferred as f64),
            suppressed: self
                .suppressed
                .into_iter()
                .map(|(reason, contacts)| (reason, scaled(contacts as f64)))
                .collect(),
            refusal,
            texts,
            total_parts: scaled(total as f64),
            cost_micros: scaled(self.cost_micros as f64),
            parts: self.parts,
            seconds,
            ends_at: seconds.map(|seconds| after(start, SignedDuration::from_secs(seconds))),
        }
    }
}
