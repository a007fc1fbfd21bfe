//! The one state behind all connections: what was taken, what is to be reported, and the script that decides.
//!
//! One lock, held for about a microsecond a message; nothing is awaited under it.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use crate::{
    Script, Stats,
    dice::Dice,
    http::Profile,
    mailbox::Mailbox,
    schedule::{Due, Fate, Receipt},
    stats::Rates,
    text::{Phones, Piece, Shown},
};

/// Who sent it, and so where its receipts go.
#[derive(Clone, Debug)]
pub(crate) enum Client {
    Smpp(Arc<Mailbox>),
    Http { profile: Profile, callback: Option<String> },
}

/// What a client submitted at once: one part, or over HTTP a text that the gateway splits.
pub(crate) struct Arrival {
    pub(crate) client: Client,
    pub(crate) reference: Option<Uuid>,
    pub(crate) from: String,
    /// In E.164, with its +.
    pub(crate) to: String,
    pub(crate) text: String,
    pub(crate) concat: u16,
    pub(crate) part: u8,
    pub(crate) total: u8,
    /// How many SMS it is.
    pub(crate) counts: u32,
    /// How many ids it gets, each with receipts of its own.
    pub(crate) ids: u32,
    /// How long it is worth delivering, as SMPP's `validity_period` says it.
    pub(crate) validity: Option<String>,
    pub(crate) wants_receipt: bool,
}

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Taken {
        /// At least one.
        ids: Vec<String>,
        after: Duration,
    },
    /// Taken, and answered with an error that does not say so.
    Ambiguous,
    /// Taken and not answered.
    Silent,
    /// Taken and not answered, and the connection ends.
    Cut,
    /// Taken, and the connection ends in the middle of the answer.
    Half {
        ids: Vec<String>,
    },
    /// Taken, and answered with bytes that mean nothing.
    Garbage,
    Throttled,
    Busy,
    Refused,
}

#[derive(Debug)]
pub(crate) struct Core {
    state: Mutex<State>,
    pub(crate) scheduled: Notify,
}

#[derive(Debug)]
struct State {
    script: Arc<Script>,
    stats: Stats,
    rates: Rates,
    phones: Phones,
    next_id: u64,
    /// Which parts of each message were taken: parts 1 to 64 as bits, further ones in `beyond`.
    seen: HashMap<Uuid, u64>,
    beyond: HashSet<(Uuid, u8)>,
    /// How often a part was turned away, so that its dice fall anew.
    turned_away: HashMap<(Uuid, u8), u32>,
    submissions: u64,
    mailboxes: HashMap<String, Arc<Mailbox>>,
    due: BinaryHeap<Reverse<Due>>,
    dues: u64,
}

impl Core {
    pub(crate) fn new(script: Script) -> Core {
        // Ids go on where no earlier run of the simulator was: a client remembers those.
        let first = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(1) * 1_000;
        Core {
            state: Mutex::new(State {
                script: Arc::new(script),
                stats: Stats::default(),
                rates: Rates::default(),
                phones: Phones::default(),
                next_id: first,
                seen: HashMap::new(),
                beyond: HashSet::new(),
                turned_away: HashMap::new(),
                submissions: 0,
                mailboxes: HashMap::new(),
                due: BinaryHeap::new(),
                dues: 0,
            }),
            scheduled: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock would be a bug of ours; counting on is then better than a simulator that is dead.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn script(&self) -> Arc<Script> {
        self.lock().script.clone()
    }

    pub(crate) fn script_set(&self, script: Script) {
        self.lock().script = Arc::new(script);
    }

    pub(crate) fn mailbox(&self, system_id: &str) -> Arc<Mailbox> {
        self.lock().mailboxes.entry(system_id.to_owned()).or_default().clone()
    }

    /// All mailboxes, or the one of a system id.
    pub(crate) fn mailboxes(&self, system_id: Option<&str>) -> Vec<Arc<Mailbox>> {
        match system_id {
            Some(system_id) => vec![self.mailbox(system_id)],
            None => self.lock().mailboxes.values().cloned().collect(),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.lock();
        let mut stats = state.stats.clone();
        stats.texts = state.phones.count();
        state.rates.tell(&mut stats);
        stats
    }

    pub(crate) fn messages(&self, after: u64, limit: usize) -> Vec<Shown> {
        self.lock().phones.after(after, limit)
    }

    pub(crate) fn latest(&self, limit: usize) -> Vec<Shown> {
        self.lock().phones.latest(limit)
    }

    /// Forgets everything but the script and the connections.
    pub(crate) fn reset(&self) {
        let mut state = self.lock();
        state.stats = Stats {
            binds: state.stats.binds,
            ..Stats::default()
        };
        state.rates = Rates::default();
        state.phones = Phones::default();
        state.seen.clear();
        state.beyond.clear();
        state.turned_away.clear();
        state.submissions = 0;
        state.due.clear();
        for mailbox in state.mailboxes.values() {
            mailbox.clear();
        }
    }

    /// A session was bound, or ended.
    pub(crate) fn bound(&self, up: bool) {
        let mut state = self.lock();
        state.stats.binds = if up {
            state.stats.binds + 1
        } else {
            state.stats.binds.saturating_sub(1)
        };
    }

    /// These many deliveries were acknowledged.
    pub(crate) fn acknowledged(&self, receipts: u64, inbound: u64) {
        let mut state = self.lock();
        state.stats.receipts += receipts;
        state.stats.inbound += inbound;
        state.stats.waiting = state.stats.waiting.saturating_sub(receipts + inbound);
    }

    pub(crate) fn waiting(&self, more: u64) {
        self.lock().stats.waiting += more;
    }

    pub(crate) fn schedule(&self, receipt: Receipt, after: Duration) {
        self.lock().schedule(receipt, Instant::now() + after);
        self.scheduled.notify_one();
    }

    /// What is due at `now`, at most `most`; and when the next is.
    pub(crate) fn take_due(&self, now: Instant, most: usize) -> (Vec<Receipt>, Option<Instant>) {
        let mut state = self.lock();
        let mut receipts = Vec::new();
        while receipts.len() < most
            && let Some(Reverse(next)) = state.due.peek()
            && next.at <= now
        {
            if let Some(Reverse(due)) = state.due.pop() {
                receipts.push(due.receipt);
            }
        }
        (receipts, state.due.peek().map(|Reverse(next)| next.at))
    }

    /// Decides on a part; when it is taken, phones show it and its receipts are planned.
    pub(crate) fn take(&self, arrival: Arrival) -> Verdict {
        let now = Timestamp::now();
        let verdict = self.lock().take(arrival, now);
        if !matches!(verdict, Verdict::Throttled | Verdict::Busy | Verdict::Refused) {
            self.scheduled.notify_one();
        }
        verdict
    }
}

impl State {
    fn take(&mut self, arrival: Arrival, now: Timestamp) -> Verdict {
        let script = self.script.clone();
        let ms = now.as_millisecond();
        let reference = arrival
            .reference
            .unwrap_or_else(|| Uuid::from_u128(u128::from(self.next_id)));
        let key = (reference, arrival.part);
        let dice = Dice::new(script.seed, reference, arrival.part);
        let again = self.turned_away.get(&key).copied().unwrap_or(0);
        let now_dice = Dice::new(
            script.seed.wrapping_add(u64::from(again) << 32),
            reference,
            arrival.part,
        );
        if (script.rate > 0 && self.rates.in_last_second(ms) >= script.rate)
            || now_dice.happens("throttled", script.throttled_percent)
        {
            self.stats.throttled += 1;
            *self.turned_away.entry(key).or_default() += 1;
            return Verdict::Throttled;
        }
        if now_dice.happens("busy", script.busy_percent) {
            self.stats.busy += 1;
            *self.turned_away.entry(key).or_default() += 1;
            return Verdict::Busy;
        }
        if dice.happens("refused", script.refused_percent) {
            self.stats.refused += 1;
            return Verdict::Refused;
        }

        let first = self.next_id;
        let ids = u64::from(arrival.ids.max(1));
        self.next_id += ids;
        self.submissions += 1;
        self.stats.accepted += u64::from(arrival.counts);
        for _ in 0..arrival.counts {
            self.rates.count(ms);
        }
        self.remember(reference, arrival.part);
        // The phone is reached or not: all parts of a message share that.
        let fate = Fate::decide(Dice::new(script.seed, reference, 0), &script);
        let lost = !script.receipts || dice.happens("lost", script.lost_percent);
        let outcome = if lost { "none" } else { fate.as_str() };
        let early = dice.happens("early", script.early_percent);
        if arrival.wants_receipt {
            let receipt = Receipt {
                client: arrival.client,
                id: first,
                reference: arrival.reference,
                from: arrival.from.clone(),
                to: arrival.to.clone(),
                fate,
                tries: 0,
            };
            for (id, part) in (first + 1..first + ids).zip(arrival.part.saturating_add(1)..) {
                let dice = Dice::new(script.seed, reference, part);
                let lost = !script.receipts || dice.happens("lost", script.lost_percent);
                let receipt = Receipt { id, ..receipt.clone() };
                self.plan(receipt, dice, &script, early, lost);
            }
            self.plan(receipt, dice, &script, early, lost);
        }
        self.phones.take(
            Piece {
                from: arrival.from,
                to: arrival.to,
                text: arrival.text,
                reference: arrival.reference,
                concat: arrival.concat,
                part: arrival.part,
                total: arrival.total,
                validity: arrival.validity,
                outcome,
            },
            now,
        );
        let written = || {
            (first..first + ids)
                .map(|id| script.ids.write(id, script.id_width))
                .collect()
        };
        let every = |number: u64| number > 0 && self.submissions.is_multiple_of(number);
        let verdict = if every(script.cut_every) {
            Verdict::Cut
        } else if every(script.half_every) {
            Verdict::Half { ids: written() }
        } else if every(script.garbage_every) {
            Verdict::Garbage
        } else if dice.happens("silent", script.silent_percent) {
            Verdict::Silent
        } else if dice.happens("ambiguous", script.ambiguous_percent) {
            Verdict::Ambiguous
        } else {
            let wait = if early {
                script.early_ms
            } else {
                script.response_delay_ms
            };
            return Verdict::Taken {
                ids: written(),
                after: Duration::from_millis(
                    wait + dice.up_to("response", script.response_jitter_ms)
                        + dice.around("response-tail", script.response_tail_ms),
                ),
            };
        };
        self.stats.ambiguous += 1;
        if matches!(verdict, Verdict::Cut | Verdict::Half { .. }) {
            self.stats.cuts += 1;
        }
        verdict
    }

    fn remember(&mut self, reference: Uuid, part: u8) {
        let bit = match part {
            1..=64 => 1_u64 << (part - 1),
            _ => 0,
        };
        let parts = self.seen.entry(reference).or_insert_with(|| {
            self.stats.distinct += 1;
            0
        });
        let new = match bit {
            0 => self.beyond.insert((reference, part)),
            bit => *parts & bit == 0,
        };
        *parts |= bit;
        if !new {
            self.stats.duplicates += 1;
        }
    }

    fn plan(&mut self, receipt: Receipt, dice: Dice, script: &Script, early: bool, lost: bool) {
        let mut wait = script.receipt_delay_ms
            + dice.up_to("receipt", script.receipt_jitter_ms)
            + dice.around("receipt-tail", script.receipt_tail_ms);
        if dice.happens("late", script.late_percent) {
            wait += script.late_ms;
        }
        if early {
            wait = 0;
        }
        let now = Instant::now();
        let at = now + Duration::from_millis(wait);
        if script.receipts && dice.happens("enroute", script.enroute_percent) {
            let when = match dice.happens("enroute-after", 50.0) {
                true => wait + 1 + dice.up_to("enroute-when", script.receipt_jitter_ms.max(100)),
                false => dice.up_to("enroute-when", wait),
            };
            let enroute = Receipt {
                fate: Fate::Enroute,
                ..receipt.clone()
            };
            self.stats.waiting += 1;
            self.schedule(enroute, now + Duration::from_millis(when));
        }
        if lost {
            self.stats.receipts_lost += 1;
            return;
        }
        if dice.happens("duplicate", script.duplicate_percent) {
            let again = dice.up_to("again", script.receipt_jitter_ms.max(100));
            self.stats.waiting += 1;
            self.schedule(receipt.clone(), at + Duration::from_millis(again));
        }
        self.stats.waiting += 1;
        self.schedule(receipt, at);
    }

    fn schedule(&mut self, receipt: Receipt, at: Instant) {
        let order = self.dues;
        self.dues += 1;
        self.due.push(Reverse(Due { at, order, receipt }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(core: &Core, reference: u128, part: u8, total: u8) -> Arrival {
        Arrival {
            client: Client::Smpp(core.mailbox("tamtam")),
            reference: (reference > 0).then_some(Uuid::from_u128(reference)),
            from: "BOUTIQUE".into(),
            to: "+262692123456".into(),
            text: "x".into(),
            concat: 1,
            part,
            total,
            counts: 1,
            ids: 1,
            validity: None,
            wants_receipt: true,
        }
    }

    #[test]
    fn messages_are_counted_by_reference_and_part() {
        let core = Core::new(Script::default());
        for (reference, part, total) in [
            (1, 1, 2),
            (1, 2, 2),
            (2, 1, 1),
            (2, 1, 1),
            (0, 1, 1),
            (0, 1, 1),
            (3, 200, 201),
        ] {
            core.take(arrival(&core, reference, part, total));
        }
        let stats = core.stats();
        assert_eq!((stats.accepted, stats.distinct, stats.duplicates), (7, 5, 1));
        assert_eq!(stats.waiting, 7);
        core.reset();
        assert_eq!(core.stats().accepted, 0);
    }

    #[test]
    fn the_rate_is_kept_and_a_turned_away_part_has_another_chance() {
        let core = Core::new(Script {
            rate: 5,
            ..Script::default()
        });
        let verdicts: Vec<Verdict> = (1..=8).map(|n| core.take(arrival(&core, n, 1, 1))).collect();
        assert_eq!(
            verdicts
                .iter()
                .filter(|verdict| **verdict == Verdict::Throttled)
                .count(),
            3
        );
        let core = Core::new(Script {
            busy_percent: 50.0,
            ..Script::default()
        });
        for n in 1..=100 {
            let tries = (0..60).find(|_| core.take(arrival(&core, n, 1, 1)) != Verdict::Busy);
            assert!(tries.is_some(), "{n} was never taken");
        }
    }

    #[test]
    fn a_receipt_from_on_the_way_comes_before_or_after_the_last_one() {
        let core = Core::new(Script {
            enroute_percent: 100.0,
            lost_percent: 10.0,
            ..Script::default()
        });
        for n in 1..=200 {
            core.take(arrival(&core, n, 1, 1));
        }
        let (receipts, _) = core.take_due(Instant::now() + Duration::from_secs(60), 1_000);
        let stats = core.stats();
        assert_eq!(receipts.len() as u64, 400 - stats.receipts_lost);
        assert_eq!(stats.waiting, receipts.len() as u64);
        let (mut before, mut after, mut alone) = (0, 0, 0);
        for n in 1..=200 {
            let mut fates = receipts
                .iter()
                .filter(|receipt| receipt.reference == Some(Uuid::from_u128(n)))
                .map(|receipt| receipt.fate);
            match (fates.next(), fates.next()) {
                (Some(Fate::Enroute), Some(Fate::Delivered)) => before += 1,
                (Some(Fate::Delivered), Some(Fate::Enroute)) => after += 1,
                (Some(Fate::Enroute), None) => alone += 1,
                other => panic!("{n}: {other:?}"),
            }
        }
        assert!(before > 50 && after > 50, "{before} before, {after} after");
        assert_eq!(alone, stats.receipts_lost);
    }

    #[test]
    fn the_script_decides_by_message_and_not_by_order() {
        let fates = |order: Vec<u128>| {
            let core = Core::new(Script {
                failed_percent: 30.0,
                refused_percent: 20.0,
                ..Script::default()
            });
            for n in order {
                core.take(arrival(&core, n, 1, 1));
            }
            let mut shown: Vec<_> = core
                .messages(0, 1_000)
                .into_iter()
                .map(|shown| (shown.reference, shown.outcome))
                .collect();
            shown.sort();
            shown
        };
        let forward = fates((1..=200).collect());
        assert_eq!(forward, fates((1..=200).rev().collect()));
        assert!(forward.len() < 200 && forward.iter().any(|(_, outcome)| *outcome == "failed"));
    }
}
