//! Room for other gateways' records behind those of a slow one.
//!
//! A partition holds the records of all gateways in one order, and only so many are in memory. Where a gateway has more to
//! send than its rate allows, its records would fill that memory, and others' behind them would wait for its rate. So when
//! a lane is full, one gateway's queue fills most of it, and another gateway that is up has nothing to do, the latest half
//! of that queue goes to the `deferred` table, unclaimed, each at the time when the gateway's rate will have come to it. It
//! comes back before that when the gateway has little left to send ([`crate::recall`]): rates change, and others help.
//!
//! Whether there is anything for others behind is only known by reading on: where nothing came, the next look is put off
//! for twice as long, up to a minute. With one gateway nothing is ever put off.

use std::time::Duration;

use domain::{Class, State};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::{
    core::{Core, Later, verdict_later},
    gate::{Gate, Standing, slot},
    retry::due_by,
};

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(60);
/// A queue that is over sooner is no reason.
const SLOW: f64 = 2.0;

/// When a lane looks again.
#[derive(Debug)]
pub(crate) struct Room {
    next: Option<Instant>,
    pause: Duration,
    /// What had arrived at the other gateways when room was made last.
    others: u64,
    /// Until when the slow gateway's rate is spoken for.
    until: Timestamp,
}

impl Room {
    pub(crate) fn new() -> Room {
        Room {
            next: None,
            pause: FIRST,
            others: 0,
            until: Timestamp::MIN,
        }
    }

    /// Makes room in a lane that reads no further because of `most` records of a class.
    pub(crate) fn make(&mut self, core: &Core, class: Class, most: usize) {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            return;
        }
        let gates = core.fleet.all();
        let crowds = |gate: &Gate| {
            let load = gate.load();
            load.queued[slot(class)] >= most / 2 && load.parts as f64 > load.rate * SLOW
        };
        let Some(slow) = gates.iter().find(|gate| crowds(gate)) else {
            return;
        };
        let others = || gates.iter().filter(|gate| gate.name != slow.name);
        let arrived = others().map(|gate| gate.load().arrived).sum();
        let idle = others().any(|gate| {
            let load = gate.load();
            gate.standing(now) == Standing::Up && !load.busy && load.queued == [0, 0]
        });
        if !idle {
            return;
        }
        self.pause = match self.next.is_some() && arrived == self.others {
            true => (self.pause * 2).min(LONGEST),
            false => FIRST,
        };
        self.others = arrived;
        self.next = Some(now + self.pause);
        self.put_off(core, slow, class, most / 2);
    }

    fn put_off(&mut self, core: &Core, gate: &Gate, class: Class, count: usize) {
        let now = core.clock.now();
        let items = gate.take_latest(slot(class), count);
        let load = gate.load();
        let seconds = |parts: f64| SignedDuration::from_secs_f64((parts / load.rate.max(0.01)).min(1e6));
        // Behind what stays, and behind what was put off before.
        let mut due = self.until.max(now + seconds(load.parts as f64));
        for item in items {
            due += seconds(f64::from(item.record.parts));
            match due_by(due, item.record.deadline, now) {
                Some(due) => {
                    let gateway = gate.name.clone();
                    core.put_off(item, verdict_later(State::Deferred, Later::Behind { gateway, due }));
                }
                None => gate.push(item),
            }
        }
        self.until = due;
    }
}
