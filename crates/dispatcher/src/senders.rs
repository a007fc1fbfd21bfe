//! A rate for each sender of a gateway (`sender_rate`), beside the gateway's own.
//!
//! Each sender has a limiter of its own. A sender that waits holds up nobody else: claims are made for those that have
//! little claimed, and the first claimed item whose sender may send now goes next. Without `sender_rate` nothing is kept
//! here. Senders come from templates and are few; those that have been silent are forgotten when there are many.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::limiter::{Limiter, Share};

/// When more senders than this are known, the silent ones are forgotten.
const KNOWN: usize = 1_000;
/// For as long a sender counts as not silent: as long as its limiter remembers.
const SILENT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Senders {
    /// Over all dispatchers.
    rate: Option<f64>,
    share: Share,
    /// The gateway's own rate is one of slots, which are rare: a sender's slot then waits for one of these.
    patient: bool,
    each: HashMap<String, Sender>,
}

#[derive(Debug)]
struct Sender {
    limiter: Limiter,
    /// Parts that are claimed and not submitted.
    claimed: u32,
    last: Instant,
}

impl Senders {
    pub(crate) fn new(rate: Option<f64>, share: &Share, patient: bool) -> Senders {
        Senders {
            rate,
            share: share.clone(),
            patient,
            each: HashMap::new(),
        }
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    pub(crate) fn set_rate(&mut self, rate: Option<f64>, share: &Share, patient: bool, now: Instant) {
        // What is claimed is not known where there was no rate: it is taken as none, and makes up within a moment.
        (self.rate, self.share, self.patient) = (rate, share.clone(), patient);
        match rate {
            Some(rate) => self.each.values_mut().for_each(|sender| {
                sender.limiter.set_rate(rate, share, now);
                sender.limiter.set_patient(patient);
            }),
            None => self.each.clear(),
        }
    }

    /// Begins to pick what is to be claimed.
    pub(crate) fn picking(&self, ahead_seconds: f64) -> Picking {
        Picking {
            claimed: self
                .each
                .iter()
                .map(|(sender, one)| (sender.clone(), one.claimed))
                .collect(),
            most: self.rate.map_or(u32::MAX, |rate| {
                ((rate * self.share.part() * ahead_seconds) as u32).max(1)
            }),
        }
    }

    pub(crate) fn claimed(&mut self, sender: &str, parts: u32) {
        if let Some(one) = self.one(sender, Instant::now()) {
            one.claimed += parts;
        }
    }

    /// Nothing is claimed any more.
    pub(crate) fn release_all(&mut self) {
        self.each.values_mut().for_each(|sender| sender.claimed = 0);
    }

    /// Parts that were claimed are let go of.
    pub(crate) fn released(&mut self, sender: &str, parts: u32) {
        if let Some(one) = self.each.get_mut(sender) {
            one.claimed = one.claimed.saturating_sub(parts);
        }
    }

    /// How long a message of `parts` has to wait for its sender's rate; `None`: it may go now.
    pub(crate) fn wait(&mut self, sender: &str, parts: u32, now: Instant) -> Option<Duration> {
        self.one(sender, now)?.limiter.wait(parts, now)
    }

    pub(crate) fn spend(&mut self, sender: &str, parts: u32, now: Instant) {
        if let Some(one) = self.one(sender, now) {
            one.limiter.spend(parts, now);
            one.claimed = one.claimed.saturating_sub(parts);
            one.last = now;
        }
    }

    fn one(&mut self, sender: &str, now: Instant) -> Option<&mut Sender> {
        let rate = self.rate?;
        if !self.each.contains_key(sender) {
            if self.each.len() >= KNOWN {
                self.each.retain(|_, one| one.claimed > 0 || one.last + SILENT > now);
            }
            let mut limiter = Limiter::new(rate, &self.share, now);
            limiter.set_patient(self.patient);
            let one = Sender {
                limiter,
                claimed: 0,
                last: now,
            };
            self.each.insert(sender.to_owned(), one);
        }
        self.each.get_mut(sender)
    }
}

/// How much each sender has claimed while more is picked.
#[derive(Debug)]
pub(crate) struct Picking {
    claimed: HashMap<String, u32>,
    most: u32,
}

impl Picking {
    /// Whether a message of a sender may be claimed; if so it counts.
    pub(crate) fn takes(&mut self, sender: &str, parts: u32) -> bool {
        match self.claimed.get_mut(sender) {
            Some(claimed) if *claimed > 0 && *claimed + parts > self.most => false,
            Some(claimed) => {
                *claimed += parts;
                true
            }
            None => {
                self.claimed.insert(sender.to_owned(), parts);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_at_its_rate_does_not_hold_up_another() {
        let start = Instant::now();
        let mut senders = Senders::new(Some(2.0), &Share::whole(), false);
        let later = start + Duration::from_secs(10);
        assert_eq!(senders.wait("A", 1, later), None);
        senders.spend("A", 1, later);
        assert!(senders.wait("A", 1, later).is_some());
        assert_eq!(senders.wait("B", 1, later), None);
        // Two parts in any second, and not more.
        let mut sent = 0;
        for ms in 1..=3_000 {
            let now = later + Duration::from_millis(ms);
            if senders.wait("A", 1, now).is_none() {
                senders.spend("A", 1, now);
                sent += 1;
            }
        }
        assert!((5..=6).contains(&sent), "{sent}");
    }

    #[test]
    fn little_is_claimed_for_each() {
        let mut senders = Senders::new(Some(100.0), &Share::whole(), false);
        senders.claimed("A", 3);
        let mut picking = senders.picking(0.04);
        assert!(picking.takes("A", 1), "four parts are 40 ms of the rate");
        assert!(!picking.takes("A", 1));
        assert!(picking.takes("B", 9), "a long message goes alone");
        assert!(!picking.takes("B", 1));
        assert!(!Senders::new(None, &Share::whole(), false).is_limited());
    }

    #[test]
    fn silent_senders_are_forgotten_when_there_are_many() {
        let mut senders = Senders::new(Some(100.0), &Share::whole(), false);
        let now = Instant::now();
        for number in 0..KNOWN {
            senders.wait(&number.to_string(), 1, now);
        }
        senders.wait("one more", 1, now + SILENT + SILENT);
        assert_eq!(senders.each.len(), 1);
    }
}
