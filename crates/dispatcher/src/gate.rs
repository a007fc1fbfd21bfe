//! One gateway: what waits for it, what is claimed for it, and whether it takes anything now.
//!
//! An item goes through two queues. Unclaimed, it can still go elsewhere or wait for days. Claimed, it is about to be
//! submitted: only as much is claimed as leaves while the next claims are made ([`Pace`]), so that a crash makes few
//! messages ambiguous. Each queue is one for each class, and transactional messages leave first from both.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::Class;
use gateways::Gateway;
use store::messages::MessageRow;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    breaker::{Breaker, Sign},
    item::Item,
    limiter::{Limiter, Share},
    metrics::Meters,
    pace::Pace,
    senders::Senders,
};

/// What is claimed at once at most.
const CLAIM_MOST: usize = 500;
/// How long a gateway that was up may be without a connection before that counts: one that broke is mostly back by then, and
/// moving everything that waits to another gateway for one error is what nobody wants.
const GRACE: Duration = Duration::from_millis(500);
/// A pause that claimed items sit out.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// How long marketing may stay claimed. Transactional messages go first, so it can wait for as long as they fill the rate; the
/// hours may be over by then and its contact may have said STOP. Who waited longer is let go of, and judged and claimed again.
pub(crate) const HELD: Duration = Duration::from_secs(1);

/// A claimed item.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub item: Item,
    /// As the claim left it: the attempt's number stands there.
    pub row: Arc<MessageRow>,
    pub since: Instant,
}

impl Claimed {
    fn parts(&self) -> u32 {
        u32::from(self.item.record.parts)
    }
}

#[derive(Debug)]
pub(crate) struct Gate {
    pub name: String,
    pub meters: Meters,
    inner: Mutex<Inner>,
    /// For each class: there may be something to claim.
    pub work: [Notify; 2],
    /// There may be something to submit.
    pub ready: Notify,
}

#[derive(Debug)]
struct Inner {
    resource: Arc<resources::Gateway>,
    handle: Arc<dyn Gateway>,
    limiter: Limiter,
    senders: Senders,
    pace: Pace,
    breaker: Breaker,
    /// Since when it is not in order; `None`: it is.
    down_since: Option<Instant>,
    /// Since when it has no connection, where it had one before.
    lost_at: Option<Instant>,
    was_up: bool,
    queues: [VecDeque<Item>; 2],
    queued_parts: u64,
    claimed: [VecDeque<Claimed>; 2],
    claimed_parts: [u32; 2],
    /// Taken to be claimed, claimed, or submitted and not answered.
    out: usize,
    /// How many items were ever queued here.
    arrived: u64,
    window: Arc<Semaphore>,
    closed: bool,
}

/// How a gateway stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Up,
    /// It throttles: another way is better, if there is one.
    Throttles,
    Down {
        since: Instant,
    },
}

/// How full a gateway is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Items of each class that wait to be claimed.
    pub queued: [usize; 2],
    /// The parts of both.
    pub parts: u64,
    /// Something is being claimed, claimed or under way.
    pub busy: bool,
    /// Parts a second that are ours.
    pub rate: f64,
    /// How many items were ever queued.
    pub arrived: u64,
}

/// What there is to claim.
#[derive(Debug)]
pub(crate) enum Take {
    Items(Vec<Item>),
    /// The gateway takes nothing: these go elsewhere.
    Elsewhere(Vec<Item>),
    Wait(Option<Duration>),
    Closed,
}

/// What there is to submit.
#[derive(Debug)]
pub(crate) enum Next {
    Go(Claimed, Arc<dyn Gateway>, OwnedSemaphorePermit),
    /// The gateway takes nothing, or these waited for too long: they are let go of.
    Release(Vec<Claimed>),
    Wait(Option<Duration>),
    Closed,
}

pub(crate) fn slot(class: Class) -> usize {
    match class {
        Class::Transactional => 0,
        Class::Marketing => 1,
    }
}

fn rate(resource: &resources::Gateway) -> f64 {
    f64::from(resource.rate)
}

fn sender_rate(resource: &resources::Gateway) -> Option<f64> {
    resource.sender_rate.map(f64::from)
}

fn window(resource: &resources::Gateway) -> Arc<Semaphore> {
    let binds = match resource.kind {
        resources::gateway::GatewayKind::Smpp => resource.binds.max(1),
        resources::gateway::GatewayKind::Http => 1,
    };
    Arc::new(Semaphore::new(resource.window.max(1).saturating_mul(binds) as usize))
}

impl Gate {
    pub(crate) fn new(
        resource: Arc<resources::Gateway>,
        handle: Arc<dyn Gateway>,
        share: &Share,
        now: Instant,
    ) -> Gate {
        let limiter = Limiter::new(rate(&resource), share, now);
        Gate {
            meters: Meters::new(&resource.name),
            name: resource.name.clone(),
            inner: Mutex::new(Inner {
                senders: Senders::new(sender_rate(&resource), share, limiter.is_slotted()),
                limiter,
                pace: Pace::new(),
                breaker: Breaker::new(),
                // It is connecting.
                down_since: Some(now),
                lost_at: None,
                was_up: false,
                queues: Default::default(),
                queued_parts: 0,
                claimed: Default::default(),
                claimed_parts: [0, 0],
                out: 0,
                arrived: 0,
                window: window(&resource),
                closed: false,
                resource,
                handle,
            }),
            work: Default::default(),
            ready: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn resource(&self) -> Arc<resources::Gateway> {
        self.lock().resource.clone()
    }

    /// Takes a changed resource; with a handle where it had to be opened anew. The old handle is given back.
    pub(crate) fn change(
        &self,
        resource: Arc<resources::Gateway>,
        handle: Option<Arc<dyn Gateway>>,
        share: &Share,
        now: Instant,
    ) -> Option<Arc<dyn Gateway>> {
        let mut inner = self.lock();
        inner.limit(&resource, share, now);
        let old = handle.map(|handle| {
            inner.window = window(&resource);
            inner.breaker = Breaker::new();
            inner.down_since = Some(now);
            (inner.lost_at, inner.was_up) = (None, false);
            std::mem::replace(&mut inner.handle, handle)
        });
        inner.resource = resource;
        drop(inner);
        self.wake();
        old
    }

    pub(crate) fn set_share(&self, share: &Share, now: Instant) {
        let mut inner = self.lock();
        let resource = inner.resource.clone();
        inner.limit(&resource, share, now);
        drop(inner);
        self.wake();
    }

    /// Nothing goes through it any more. Its handle, to be closed.
    pub(crate) fn close(&self) -> Arc<dyn Gateway> {
        let mut inner = self.lock();
        inner.closed = true;
        let handle = inner.handle.clone();
        drop(inner);
        self.wake();
        handle
    }

    pub(crate) fn wake(&self) {
        for work in &self.work {
            work.notify_one();
        }
        self.ready.notify_one();
    }

    pub(crate) fn standing(&self, now: Instant) -> Standing {
        self.lock().standing(now)
    }

    /// (lower goes first, seconds of work that wait).
    pub(crate) fn rank(&self) -> (u32, f64) {
        let inner = self.lock();
        let waits = inner.queued_parts as f64 / inner.limiter.rate().max(0.001);
        (inner.resource.priority, waits)
    }

    pub(crate) fn push(&self, item: Item) {
        let class = slot(item.record.class);
        let mut inner = self.lock();
        inner.queued_parts += u64::from(item.record.parts);
        inner.arrived += 1;
        inner.queues[class].push_back(item);
        drop(inner);
        self.work[class].notify_one();
    }

    /// Takes out what waits and is `gone`.
    pub(crate) fn purge(&self, gone: impl Fn(&Item) -> bool) -> Vec<Item> {
        let mut inner = self.lock();
        let mut purged = Vec::new();
        for class in 0..2 {
            let (out, stay): (VecDeque<Item>, VecDeque<Item>) =
                std::mem::take(&mut inner.queues[class]).into_iter().partition(&gone);
            inner.queues[class] = stay;
            purged.extend(out);
        }
        inner.queued_parts -= purged.iter().map(|item| u64::from(item.record.parts)).sum::<u64>();
        purged
    }

    /// Takes everything of a class out that waits to be claimed.
    pub(crate) fn take_all(&self, class: usize) -> Vec<Item> {
        self.lock().drain(class)
    }

    /// Puts back what was taken out, before what came meanwhile.
    pub(crate) fn keep(&self, class: usize, items: Vec<Item>) {
        let mut inner = self.lock();
        for item in items.into_iter().rev() {
            inner.queued_parts += u64::from(item.record.parts);
            inner.queues[class].push_front(item);
        }
    }

    /// How full it is.
    pub(crate) fn load(&self) -> Load {
        let inner = self.lock();
        Load {
            queued: inner.queues.each_ref().map(VecDeque::len),
            parts: inner.queued_parts,
            busy: inner.out > 0,
            rate: inner.limiter.rate(),
            arrived: inner.arrived,
        }
    }

    /// Takes the latest `count` items out that wait to be claimed.
    pub(crate) fn take_latest(&self, class: usize, count: usize) -> Vec<Item> {
        let mut inner = self.lock();
        let first = inner.queues[class].len().saturating_sub(count);
        let items: Vec<Item> = inner.queues[class].drain(first..).collect();
        inner.queued_parts -= items.iter().map(|item| u64::from(item.record.parts)).sum::<u64>();
        items
    }

    /// Puts items that could not be claimed back to the front.
    pub(crate) fn push_back(&self, class: usize, items: Vec<Item>) {
        let mut inner = self.lock();
        inner.out -= items.len();
        for item in items.into_iter().rev() {
            inner.queued_parts += u64::from(item.record.parts);
            inner.queues[class].push_front(item);
        }
    }

    /// Takes what may be claimed now, while `asked` parts are at their claims: beside those, only a whole further claim.
    pub(crate) fn take(&self, class: usize, now: Instant, asked: u32) -> Take {
        let mut inner = self.lock();
        if inner.closed {
            return match inner.queues[class].is_empty() {
                true => Take::Closed,
                false => Take::Elsewhere(inner.drain(class)),
            };
        }
        let waits = inner.queues[class].len();
        if waits == 0 || (asked > 0 && (waits < CLAIM_MOST || inner.senders.is_limited())) {
            return Take::Wait(None);
        }
        if let Standing::Down { .. } = inner.standing(now) {
            return Take::Elsewhere(inner.drain(class));
        }
        if let Some(pause) = inner.pause(now) {
            return Take::Wait(Some(pause));
        }
        if !inner.handle.is_up() {
            // It broke a moment ago.
            return Take::Wait(Some(Duration::from_millis(20)));
        }
        let ahead = inner.ahead();
        let taken = inner.claimed_parts[class] + asked;
        if taken > ahead / 2 {
            return Take::Wait(None);
        }
        let room = ahead - taken;
        let out = inner.out;
        let most = inner.breaker.allowance(out, now).min(CLAIM_MOST);
        let items = inner.pick(class, room, most);
        if items.is_empty() {
            // Whoever is submitted, or a probe that is answered, wakes us.
            return Take::Wait(None);
        }
        inner.out += items.len();
        Take::Items(items)
    }

    /// `dropped` of the items that were taken are not claimed.
    pub(crate) fn not_claimed(&self, dropped: usize) {
        self.lock().out -= dropped;
    }

    /// `claimed` are ours to submit; claiming took so long.
    pub(crate) fn claimed(&self, class: usize, claimed: Vec<Claimed>, took: Duration) {
        let mut inner = self.lock();
        inner.pace.note(took);
        for one in claimed {
            inner.senders.claimed(&one.item.record.sender, one.parts());
            inner.claimed_parts[class] += one.parts();
            inner.claimed[class].push_back(one);
        }
        drop(inner);
        self.ready.notify_one();
    }

    /// Takes what may be submitted now, transactional first; its parts are spent.
    pub(crate) fn next(&self, now: Instant) -> Next {
        let mut inner = self.lock();
        if inner.claimed.iter().all(VecDeque::is_empty) {
            // Something may still be at its claim.
            return match inner.closed && inner.out == 0 {
                true => Next::Closed,
                false => Next::Wait(None),
            };
        }
        let pause = inner.pause(now);
        if inner.closed
            || !inner.handle.is_up()
            || inner.breaker.refuses(now)
            || pause.is_some_and(|pause| pause > SHORT_PAUSE)
        {
            return Next::Release(inner.release_all());
        }
        let held = inner.release_held(now);
        if !held.is_empty() {
            return Next::Release(held);
        }
        if let Some(pause) = pause {
            return Next::Wait(Some(pause));
        }
        let (class, index) = match inner.first_allowed(now) {
            Ok(first) => first,
            Err(wait) => return Next::Wait(Some(wait)),
        };
        let parts = inner.claimed[class].get(index).map_or(1, Claimed::parts);
        if let Some(wait) = inner.limiter.wait(parts, now) {
            return Next::Wait(Some(wait));
        }
        let Ok(permit) = inner.window.clone().try_acquire_owned() else {
            // Whoever is answered wakes us.
            return Next::Wait(None);
        };
        let Some(claimed) = inner.claimed[class].remove(index) else {
            return Next::Wait(None);
        };
        inner.senders.spend(&claimed.item.record.sender, parts, now);
        inner.limiter.spend(parts, now);
        inner.pace.leaves(parts, now);
        inner.claimed_parts[class] -= parts;
        let low = inner.claimed_parts[class] <= inner.ahead() / 2 || inner.senders.is_limited();
        let handle = inner.handle.clone();
        drop(inner);
        if low {
            self.work[class].notify_one();
        }
        Next::Go(claimed, handle, permit)
    }

    /// Takes back everything that is claimed and not submitted.
    pub(crate) fn release(&self) -> Vec<Claimed> {
        self.lock().release_all()
    }

    /// An attempt that began at `begun` was answered. Whoever says so asks what is [`Gate::next`], or wakes who does.
    pub(crate) fn answered(&self, sign: Sign, begun: Instant, now: Instant) {
        let mut inner = self.lock();
        inner.out -= 1;
        inner.breaker.note(sign, begun, now);
        let waits = inner.queues.each_ref().map(|queue| !queue.is_empty());
        drop(inner);
        // More may be claimed now, if there is more.
        for (work, _) in self.work.iter().zip(waits).filter(|(_, waits)| *waits) {
            work.notify_one();
        }
    }
}

impl Inner {
    fn limit(&mut self, resource: &resources::Gateway, share: &Share, now: Instant) {
        self.limiter.set_rate(rate(resource), share, now);
        let slotted = self.limiter.is_slotted();
        self.senders.set_rate(sender_rate(resource), share, slotted, now);
    }

    /// How long nothing goes: it throttled, or what is handed over would only wait in the adapter, and leave it faster than
    /// the rate when the pause is over.
    fn pause(&self, now: Instant) -> Option<Duration> {
        self.breaker.pause(now).max(self.handle.pause())
    }

    fn ahead(&self) -> u32 {
        let by_rate = (self.limiter.rate() * self.pace.ahead_seconds()) as u32;
        // What a window cannot take soon is not claimed either; of a gateway that answers quickly, that is more than some
        // windows.
        let by_window = self.resource.window.saturating_mul(self.resource.binds.max(1) * 4);
        by_rate.min(by_window.max(self.pace.leaving())).max(1)
    }

    /// Takes at most `most` items of about `room` parts out of a queue: the first ones, or where each sender has a rate
    /// the first ones of senders for which little is claimed yet.
    fn pick(&mut self, class: usize, room: u32, most: usize) -> Vec<Item> {
        let mut room = i64::from(room);
        let mut items = Vec::new();
        if self.senders.is_limited() {
            let ahead = self.pace.ahead_seconds();
            let mut picked = self.senders.picking(ahead);
            let mut stay = VecDeque::with_capacity(self.queues[class].len());
            for item in self.queues[class].drain(..) {
                let parts = u32::from(item.record.parts);
                if room > 0 && items.len() < most && picked.takes(&item.record.sender, parts) {
                    room -= i64::from(parts);
                    items.push(item);
                } else {
                    stay.push_back(item);
                }
            }
            self.queues[class] = stay;
        } else {
            while room > 0
                && items.len() < most
                && let Some(item) = self.queues[class].pop_front()
            {
                room -= i64::from(item.record.parts);
                items.push(item);
            }
        }
        self.queued_parts -= items.iter().map(|item| u64::from(item.record.parts)).sum::<u64>();
        items
    }

    /// The first claimed item whose sender may send now, transactional first; else how long until one may.
    fn first_allowed(&mut self, now: Instant) -> Result<(usize, usize), Duration> {
        let mut soonest = Duration::from_secs(1);
        for class in 0..2 {
            for (index, claimed) in self.claimed[class].iter().enumerate() {
                match self.senders.wait(&claimed.item.record.sender, claimed.parts(), now) {
                    None => return Ok((class, index)),
                    Some(wait) => soonest = soonest.min(wait),
                }
            }
        }
        Err(soonest)
    }

    fn standing(&mut self, now: Instant) -> Standing {
        let connected = self.handle.is_up();
        if connected {
            (self.lost_at, self.was_up) = (None, true);
        } else {
            let lost_at = *self.lost_at.get_or_insert(now);
            self.was_up &= now.saturating_duration_since(lost_at) < GRACE;
        }
        let up = !self.closed && (connected || self.was_up);
        if up && self.breaker.is_closed() {
            self.down_since = None;
        }
        if !up || self.breaker.is_open(self.out, now) {
            return Standing::Down {
                since: *self.down_since.get_or_insert(now),
            };
        }
        match self.breaker.throttles() && self.pause(now).is_some() {
            true => Standing::Throttles,
            false => Standing::Up,
        }
    }

    fn drain(&mut self, class: usize) -> Vec<Item> {
        let items: Vec<Item> = self.queues[class].drain(..).collect();
        self.queued_parts -= items.iter().map(|item| u64::from(item.record.parts)).sum::<u64>();
        items
    }

    /// Takes back what was claimed more than [`HELD`] ago.
    fn release_held(&mut self, now: Instant) -> Vec<Claimed> {
        let bulk = slot(Class::Marketing);
        let is_held = |claimed: &Claimed| now.saturating_duration_since(claimed.since) >= HELD;
        // They stand in the order in which they were claimed.
        if !self.claimed[bulk].front().is_some_and(is_held) {
            return Vec::new();
        }
        let (held, stay): (VecDeque<Claimed>, VecDeque<Claimed>) =
            std::mem::take(&mut self.claimed[bulk]).into_iter().partition(is_held);
        self.claimed[bulk] = stay;
        for claimed in &held {
            self.claimed_parts[bulk] -= claimed.parts();
            self.senders.released(&claimed.item.record.sender, claimed.parts());
        }
        self.out -= held.len();
        held.into()
    }

    fn release_all(&mut self) -> Vec<Claimed> {
        self.claimed_parts = [0, 0];
        self.senders.release_all();
        let released: Vec<Claimed> = self.claimed.iter_mut().flat_map(|queue| queue.drain(..)).collect();
        self.out -= released.len();
        released
    }
}

#[cfg(test)]
mod tests;
