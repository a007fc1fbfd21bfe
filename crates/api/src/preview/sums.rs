//! From a sample to the whole audience.

use std::collections::BTreeMap;

use domain::{Contact, Reason};
use jiff::{SignedDuration, Timestamp};
use resources::{Snapshot, composer::Composed};

use super::{Preview, PreviewText, SmartEffect, after};

/// What the sample adds up to.
#[derive(Default)]
pub(super) struct Sums {
    sent: usize,
    deferred: usize,
    pub suppressed: BTreeMap<Reason, usize>,
    parts: BTreeMap<u16, usize>,
    cost_micros: i64,
    /// Parts without and with smart encoding.
    smart: (u64, u64),
    /// Parts by the gateway that would take them.
    gateways: BTreeMap<String, u64>,
}

impl Preview {
    /// Leaves out the control group, which is chosen from everybody, and then what a budget does not pay for.
    pub(super) fn hold_back(&mut self, control_percent: u32, budget_micros: Option<i64>, start: Timestamp) {
        if control_percent > 0 {
            let before = self.count;
            self.keep(f64::from(100 - control_percent.min(100)) / 100.0, start);
            let control = (before as f64 * f64::from(control_percent) / 100.0).round() as i64;
            self.suppressed.insert(Reason::ControlGroup, control);
        }
        if let Some(budget) = budget_micros.filter(|budget| *budget < self.cost_micros) {
            let (sent, mut others) = (self.sent, std::mem::take(&mut self.suppressed));
            self.keep(budget as f64 / self.cost_micros as f64, start);
            *others.entry(Reason::Budget).or_default() += sent - self.sent;
            self.suppressed = others;
        }
    }

    /// Takes this share of everything that is estimated.
    fn keep(&mut self, share: f64, start: Timestamp) {
        let of = |number: i64| (number as f64 * share).round() as i64;
        self.sent = of(self.sent);
        self.deferred = of(self.deferred);
        self.suppressed.values_mut().for_each(|count| *count = of(*count));
        self.total_parts = of(self.total_parts);
        self.cost_micros = of(self.cost_micros);
        self.seconds = self.seconds.map(|seconds| (seconds as f64 * share).ceil() as i64);
        self.ends_at = self
            .seconds
            .map(|seconds| after(start, SignedDuration::from_secs(seconds)));
    }
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

    /// The parts of one text without and with smart encoding.
    pub(super) fn add_smart(&mut self, (without, with): (u16, u16)) {
        self.smart.0 += u64::from(without);
        self.smart.1 += u64::from(with);
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
            smart: (self.smart.0 != self.smart.1).then(|| SmartEffect {
                parts_without: scaled(self.smart.0 as f64),
                parts_with: scaled(self.smart.1 as f64),
            }),
            cost_micros: scaled(self.cost_micros as f64),
            parts: self.parts,
            seconds,
            ends_at: seconds.map(|seconds| after(start, SignedDuration::from_secs(seconds))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_group_comes_first_and_the_budget_pays_for_a_part_of_the_rest() {
        let mut preview = Preview {
            count: 1_000,
            sent: 800,
            suppressed: BTreeMap::from([(Reason::NoPhone, 200)]),
            total_parts: 800,
            cost_micros: 800_000,
            seconds: Some(80),
            ..Preview::default()
        };
        let start: Timestamp = "2026-06-01T10:00:00Z".parse().unwrap();
        preview.hold_back(10, Some(360_000), start);
        assert_eq!(
            (preview.sent, preview.total_parts, preview.cost_micros),
            (360, 360, 360_000)
        );
        assert_eq!(
            preview.suppressed,
            BTreeMap::from([
                (Reason::NoPhone, 180),
                (Reason::ControlGroup, 100),
                (Reason::Budget, 360)
            ])
        );
        assert_eq!(
            (preview.seconds, preview.ends_at),
            (Some(36), Some(after(start, SignedDuration::from_secs(36))))
        );
    }
}
