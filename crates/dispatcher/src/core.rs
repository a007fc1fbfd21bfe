//! What all parts of a dispatcher share, and the way of an item between them.

use std::sync::Arc;

use bus::{Log, NewRecord};
use domain::{Reason, State, phone::PhoneKey};
use jiff::Timestamp;
use stage::{Clock, Live};
use store::{
    Store,
    messages::{MessageRow, Settled},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    fleet::{Fleet, Route},
    item::{Flights, Item},
    judge::{Judgement, judge, late},
    offsets::{Offsets, Token},
    retry::{Limits, Settlement, Waiting, wait_for_gateway},
    waiting::{PATIENCE, WaitingRoom},
};

/// What is to be written about a record.
#[derive(Debug)]
pub(crate) enum Work {
    Item(Item, Ending),
    Dead(Token, NewRecord),
    /// Nothing could be written about it.
    Passed(Token),
}

#[derive(Debug)]
pub(crate) enum Ending {
    /// It is not sent, or not now.
    Verdict {
        state: State,
        reason: Option<Reason>,
        later: Later,
    },
    /// It was decided before: its receipts are made again.
    Held(Box<MessageRow>),
    /// An attempt came to its end.
    Outcome {
        /// The row as the claim left it.
        claimed: Arc<MessageRow>,
        gateway: String,
        settlement: Settlement,
        at: Timestamp,
    },
}

impl Ending {
    /// Whether the item goes on looking for its way.
    pub(crate) fn is_release(&self) -> bool {
        matches!(self, Ending::Outcome { settlement, .. } if matches!(settlement.settled, Settled::Released { .. }))
    }
}

/// What came of a judgement.
#[derive(Debug)]
pub(crate) enum Judged {
    Send(Item),
    /// It is decided on; the next record of its message, if there is one.
    Gone(Option<Item>),
}

/// When a deferred record comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Later {
    Never,
    At(Timestamp),
    /// Or before, when the gateway has nothing else to send ([`crate::recall`]).
    Behind {
        gateway: String,
        due: Timestamp,
    },
    Parked(Uuid),
}

#[derive(Debug)]
pub(crate) struct Core {
    pub log: Arc<dyn Log>,
    pub store: Store,
    pub live: Live,
    pub clock: Clock,
    pub phone_key: PhoneKey,
    pub instance: Uuid,
    pub limits: Limits,
    pub offsets: Offsets,
    pub fleet: Fleet,
    pub waiting: WaitingRoom,
    flights: Flights,
    work: mpsc::UnboundedSender<Work>,
    /// Nothing new is claimed.
    pub stopping: CancellationToken,
    /// What is not written by now is left to the next owner.
    pub abandon: CancellationToken,
}

impl Core {
    #[expect(clippy::too_many_arguments, reason = "it is made in one place")]
    pub(crate) fn new(
        log: Arc<dyn Log>,
        store: Store,
        live: Live,
        clock: Clock,
        phone_key: PhoneKey,
        instance: Uuid,
        limits: Limits,
        fleet: Fleet,
        work: mpsc::UnboundedSender<Work>,
    ) -> Core {
        Core {
            log,
            store,
            live,
            clock,
            phone_key,
            instance,
            limits,
            offsets: Offsets::default(),
            fleet,
            waiting: WaitingRoom::default(),
            flights: Flights::default(),
            work,
            stopping: CancellationToken::new(),
            abandon: CancellationToken::new(),
        }
    }

    /// Takes a record that was read.
    pub(crate) fn admit(&self, item: Item) {
        if let Some(item) = self.flights.enter(item) {
            self.place(item);
        }
    }

    /// Sends an item to where it belongs now: a gateway's queue, the waiting room, or the writer.
    pub(crate) fn place(&self, item: Item) {
        let mut next = Some(item);
        while let Some(item) = next {
            next = self.place_one(item);
        }
    }

    /// What is to be placed next, when the item was let go.
    fn place_one(&self, item: Item) -> Option<Item> {
        if self.stopping.is_cancelled() || !self.offsets.is_ours(&item.token) {
            return self.flights.leave(item.record.message_id);
        }
        let now = self.clock.now();
        let judgement = judge(&item.record, item.campaign, &self.live.current(), now);
        let mut item = match self.judged(item, judgement) {
            Judged::Gone(next) => return next,
            Judged::Send(item) => item,
        };
        let instant = Instant::now();
        match self.fleet.route(item.record.phone.e164(), item.record.class, instant) {
            Route::To(gate) => {
                item.waits_since = None;
                gate.push(item);
                None
            }
            Route::NoneServes => self.conclude(item, verdict(State::Failed, Some(Reason::NoGateway))),
            Route::Down(since) => {
                let waits_since = *item.waits_since.get_or_insert(instant);
                if instant.duration_since(waits_since.min(since)) < PATIENCE {
                    self.waiting.push(item);
                    return None;
                }
                let ending = match wait_for_gateway(&item.record, &self.limits, now, rand::random()) {
                    Waiting::Until(due) => verdict_later(State::Deferred, Later::At(due)),
                    Waiting::Enough => verdict(State::Failed, Some(Reason::RetriesExhausted)),
                    Waiting::TooLate => verdict(State::Expired, Some(late(&item.record, &self.live.current()))),
                };
                self.conclude(item, ending)
            }
        }
    }

    /// Acts on a judgement.
    pub(crate) fn judged(&self, item: Item, judgement: Judgement) -> Judged {
        let ending = match judgement {
            Judgement::Send => return Judged::Send(item),
            Judgement::Cancel => verdict(State::Cancelled, Some(Reason::CampaignCancelled)),
            Judgement::Park(campaign) => verdict_later(State::Deferred, Later::Parked(campaign)),
            Judgement::Defer(until) => Ending::Verdict {
                state: State::Deferred,
                reason: Some(Reason::QuietHours),
                later: Later::At(until),
            },
            Judgement::Expire(reason) => verdict(State::Expired, Some(reason)),
        };
        Judged::Gone(self.conclude(item, ending))
    }

    /// Hands an item that was not started to the writer.
    fn conclude(&self, item: Item, ending: Ending) -> Option<Item> {
        match self.offsets.start(&item.token) {
            true => {
                self.write(Work::Item(item, ending));
                None
            }
            false => self.flights.leave(item.record.message_id),
        }
    }

    /// Ends the way of an item that waited for a gateway.
    pub(crate) fn put_off(&self, item: Item, ending: Ending) {
        if let Some(next) = self.conclude(item, ending) {
            self.place(next);
        }
    }

    /// Hands work that was started to the writer.
    pub(crate) fn write(&self, work: Work) {
        // The writer outlives whoever can send to it.
        let _ = self.work.send(work);
    }

    /// Partitions are going: what waits in memory for them goes too.
    pub(crate) fn purge(&self) {
        for gate in self.fleet.all() {
            for item in gate.purge(|item| !self.offsets.is_ours(&item.token)) {
                self.leave(item.record.message_id);
            }
        }
    }

    /// Leaves an item that was not started to the next owner of its partition.
    pub(crate) fn leave(&self, message: Uuid) {
        if let Some(next) = self.flights.leave(message) {
            self.place(next);
        }
    }
}

pub(crate) fn verdict_later(state: State, later: Later) -> Ending {
    Ending::Verdict {
        state,
        reason: None,
        later,
    }
}

fn verdict(state: State, reason: Option<Reason>) -> Ending {
    Ending::Verdict {
        state,
        reason,
        later: Later::Never,
    }
}
