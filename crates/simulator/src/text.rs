//! What phones show: parts put together again.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

/// A text as a phone shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Shown {
    /// From 1 on, for `GET /messages?after=`.
    pub(crate) number: u64,
    pub(crate) at: Timestamp,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) text: String,
    pub(crate) parts: u8,
    pub(crate) reference: Option<Uuid>,
    /// SMPP's `validity_period`, of its last part.
    pub(crate) validity: Option<String>,
    /// What its receipts say in the end: `delivered`, `failed`, `expired`, or `none`.
    pub(crate) outcome: &'static str,
}

/// One part that was taken.
pub(crate) struct Piece {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) text: String,
    pub(crate) reference: Option<Uuid>,
    /// The number that the parts of one text share.
    pub(crate) concat: u16,
    pub(crate) part: u8,
    pub(crate) total: u8,
    pub(crate) validity: Option<String>,
    pub(crate) outcome: &'static str,
}

/// Texts that are kept; older ones are forgotten.
const KEPT: usize = 200_000;
/// Texts of which some parts are missing.
const OPEN: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Phones {
    shown: VecDeque<Shown>,
    count: u64,
    open: HashMap<Key, Vec<Option<(String, &'static str)>>>,
    order: VecDeque<Key>,
}

type Key = (String, String, u16, u8);

impl Phones {
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn take(&mut self, piece: Piece, at: Timestamp) {
        let Piece {
            from,
            to,
            text,
            reference,
            concat,
            part,
            total,
            validity,
            outcome,
        } = piece;
        if total <= 1 {
            self.show(from, to, text, 1, reference, validity, outcome, at);
            return;
        }
        let key = (from, to, concat, total);
        if !self.open.contains_key(&key) {
            if self.order.len() >= OPEN
                && let Some(oldest) = self.order.pop_front()
            {
                self.open.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        let parts = self
            .open
            .entry(key.clone())
            .or_insert_with(|| vec![None; usize::from(total)]);
        if let Some(place) = parts.get_mut(usize::from(part).wrapping_sub(1)) {
            *place = Some((text, outcome));
        }
        if parts.iter().all(Option::is_some) {
            let parts: Vec<_> = self
                .open
                .remove(&key)
                .unwrap_or_default()
                .into_iter()
                .flatten()
                .collect();
            self.order.retain(|open| *open != key);
            let text = parts.iter().map(|(text, _)| text.as_str()).collect();
            let outcome = whole(parts.iter().map(|(_, outcome)| *outcome));
            let (from, to, _, total) = key;
            self.show(from, to, text, total, reference, validity, outcome, at);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the row it makes")]
    fn show(
        &mut self,
        from: String,
        to: String,
        text: String,
        parts: u8,
        reference: Option<Uuid>,
        validity: Option<String>,
        outcome: &'static str,
        at: Timestamp,
    ) {
        self.count += 1;
        self.shown.push_back(Shown {
            number: self.count,
            at,
            from,
            to,
            text,
            parts,
            reference,
            validity,
            outcome,
        });
        if self.shown.len() > KEPT {
            self.shown.pop_front();
        }
    }

    pub(crate) fn after(&self, number: u64, limit: usize) -> Vec<Shown> {
        let from = self.shown.partition_point(|shown| shown.number <= number);
        self.shown.iter().skip(from).take(limit).cloned().collect()
    }

    pub(crate) fn latest(&self, limit: usize) -> Vec<Shown> {
        self.shown.iter().rev().take(limit).cloned().collect()
    }
}

/// What becomes of a text of which these are the parts' fates: all must be delivered; one that failed decides.
fn whole<'a>(outcomes: impl Iterator<Item = &'a str>) -> &'static str {
    let outcomes: Vec<&str> = outcomes.collect();
    for decisive in ["failed", "expired", "none"] {
        if outcomes.contains(&decisive) {
            return decisive;
        }
    }
    "delivered"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_together_in_any_order() {
        let mut phones = Phones::default();
        let piece = |part: u8, text: &str, concat: u16| Piece {
            from: "A".into(),
            to: "+1".into(),
            text: text.into(),
            reference: None,
            concat,
            part,
            total: 2,
            validity: None,
            outcome: if part == 2 { "failed" } else { "delivered" },
        };
        let at = Timestamp::UNIX_EPOCH;
        phones.take(piece(2, "two", 7), at);
        phones.take(piece(1, "other", 8), at);
        assert_eq!(phones.count(), 0);
        phones.take(piece(1, "one ", 7), at);
        let shown = phones.after(0, 10);
        assert_eq!(
            (shown.len(), shown[0].text.as_str(), shown[0].outcome),
            (1, "one two", "failed")
        );
        assert!(phones.after(1, 10).is_empty());
    }
}
