//! What the analysts' topic says: each message in the furthest state that a receipt told.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bus::{Log, Partition, ReadLimits};
use domain::{Cause, Reason, State};
use events::{Receipt, Record, Topic};
use jiff::Timestamp;
use uuid::Uuid;

use crate::exit::{Failure, chain};

const LIMITS: ReadLimits = ReadLimits {
    records: 5_000,
    bytes: 4 << 20,
    wait: Duration::from_millis(50),
};

/// Reads the topic from its start on, bit by bit.
#[derive(Debug)]
pub struct Receipts {
    log: Arc<dyn Log>,
    next: BTreeMap<Partition, i64>,
    pub messages: HashMap<Uuid, Receipt>,
}

/// What a set of messages adds up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sum {
    pub messages: u64,
    pub states: BTreeMap<State, u64>,
    pub suppressed: BTreeMap<Reason, u64>,
    /// Those that a gateway took.
    pub taken: u64,
    pub parts: u64,
    pub cost_micros: i64,
    /// From the cause to the gateway, in milliseconds, of those that were taken; sorted.
    pub latencies: Vec<i64>,
    pub last_taken: Option<Timestamp>,
    pub contacts: u64,
}

impl Receipts {
    pub fn new(log: Arc<dyn Log>) -> Receipts {
        Receipts {
            log,
            next: BTreeMap::new(),
            messages: HashMap::new(),
        }
    }

    /// Reads what has come since the last time.
    pub async fn read(&mut self) -> Result<(), Failure> {
        let failure = |error: bus::BusError| Failure::unreachable(format!("receipts: {}", chain(&error)));
        for bounds in self.log.bounds(Topic::Receipts).await.map_err(failure)? {
            let mut at = *self.next.get(&bounds.partition).unwrap_or(&bounds.first);
            while at < bounds.end {
                let records = self.log.read(bounds.partition, at, LIMITS).await.map_err(failure)?;
                let Some(last) = records.last() else { break };
                at = last.offset + 1;
                for record in &records {
                    let receipt = Receipt::from_bytes(Receipt::KIND, &record.value)
                        .map_err(|error| Failure::no(format!("a receipt cannot be read: {}", chain(&error))))?;
                    self.take(receipt);
                }
            }
            self.next.insert(bounds.partition, at);
        }
        Ok(())
    }

    /// Keeps the furthest state; an earlier one that comes late (a repeat) changes nothing.
    fn take(&mut self, receipt: Receipt) {
        match self.messages.entry(receipt.message_id) {
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(receipt);
            }
            std::collections::hash_map::Entry::Occupied(mut place) => {
                if place.get().state.may_become(receipt.state) {
                    place.insert(receipt);
                }
            }
        }
    }

    /// Of the campaign's messages, or of the triggers'.
    pub fn sum(&self, campaign: Option<&str>) -> Sum {
        let mut sum = Sum::default();
        let mut contacts = std::collections::HashSet::new();
        for receipt in self.messages.values() {
            let wanted = match (&receipt.cause, campaign) {
                (Cause::Campaign { campaign_id }, Some(id)) => campaign_id == id,
                (Cause::Trigger { .. }, None) => true,
                _ => false,
            };
            if !wanted {
                continue;
            }
            sum.messages += 1;
            contacts.insert(receipt.contact_id.as_str());
            *sum.states.entry(receipt.state).or_default() += 1;
            if let (State::Suppressed, Some(reason)) = (receipt.state, receipt.reason) {
                *sum.suppressed.entry(reason).or_default() += 1;
            }
            if let Some(taken) = receipt.accepted_at {
                sum.taken += 1;
                sum.parts += u64::from(receipt.parts);
                sum.cost_micros += receipt.cost_micros;
                sum.latencies
                    .push(taken.duration_since(receipt.caused_at).as_millis() as i64);
                sum.last_taken = sum.last_taken.max(Some(taken));
            }
        }
        sum.contacts = contacts.len() as u64;
        sum.latencies.sort_unstable();
        sum
    }
}

impl Sum {
    pub fn state(&self, state: State) -> u64 {
        self.states.get(&state).copied().unwrap_or(0)
    }

    /// Whether nothing more is expected to be told about any of them.
    pub fn is_settled(&self) -> bool {
        self.states
            .iter()
            .all(|(state, count)| state.is_terminal() || *count == 0)
    }

    /// The latency that so many hundredths of them do not exceed (nearest rank).
    pub fn percentile(&self, hundredths: usize) -> Option<i64> {
        let rank = (self.latencies.len() * hundredths).div_ceil(100);
        self.latencies.get(rank.saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let sum = Sum {
            latencies: (1..=200).collect(),
            ..Sum::default()
        };
        assert_eq!((sum.percentile(50), sum.percentile(99)), (Some(100), Some(198)));
        assert_eq!(Sum::default().percentile(50), None);
    }
}
