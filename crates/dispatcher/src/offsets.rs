//! Which records are under way, and up to where each partition may be committed: below its lowest unfinished one.
//!
//! An ownership of a partition is a generation. What belongs to an earlier one (the partition was lost, or lost and came
//! back) is still finished and written, but moves no offset.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bus::{Committed, Partition};
use events::Topic;
use tokio::sync::Notify;

/// A record's place, and under which ownership it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    pub partition: Partition,
    pub generation: u64,
    pub offset: i64,
    pub epoch: i64,
}

/// Where a partition's offset stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub partition: Partition,
    pub generation: u64,
    pub epoch: i64,
    pub next_offset: i64,
}

impl Position {
    pub fn committed(&self) -> Committed {
        Committed {
            partition: self.partition,
            epoch: self.epoch,
            next_offset: self.next_offset,
        }
    }
}

#[derive(Debug, Default)]
struct Owned {
    generation: u64,
    epoch: i64,
    /// Announced to be taken away: nothing new is started.
    revoked: bool,
    /// From the lowest unfinished record on: (offset, finished).
    records: VecDeque<(i64, bool)>,
    /// The offset after the last one read, once there was one.
    end: Option<i64>,
    unfinished: usize,
    committed: i64,
}

impl Owned {
    /// The position when these offsets (sorted) are finished too.
    fn next_with(&self, finished: &[i64]) -> Option<i64> {
        let open = |(offset, done): &&(i64, bool)| !*done && finished.binary_search(offset).is_err();
        match self.records.iter().find(open) {
            Some((offset, _)) => Some(*offset),
            None => self.end,
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    owned: HashMap<Partition, Owned>,
    /// Records whose work is started and not written, by generation.
    active: HashMap<(Partition, u64), usize>,
    generations: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    inner: Mutex<Inner>,
    changed: Notify,
    turn: tokio::sync::Mutex<()>,
}

impl Offsets {
    /// Waits for the turn to ask for positions, commit them in a transaction and finish what it was about: the next one
    /// counts on that.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn assign(&self, partition: Partition, epoch: i64) {
        let mut inner = self.lock();
        inner.generations += 1;
        let generation = inner.generations;
        inner.owned.insert(
            partition,
            Owned {
                generation,
                epoch,
                ..Owned::default()
            },
        );
    }

    /// Notes a record that was read; `None`: the partition is not ours.
    pub(crate) fn issue(&self, partition: Partition, offset: i64) -> Option<Token> {
        let mut inner = self.lock();
        let owned = inner.owned.get_mut(&partition)?;
        owned.records.push_back((offset, false));
        owned.end = Some(offset + 1);
        owned.unfinished += 1;
        Some(Token {
            partition,
            generation: owned.generation,
            offset,
            epoch: owned.epoch,
        })
    }

    /// Asks to start work on a record; `false`: its partition is going or gone, leave it to the next owner.
    pub(crate) fn start(&self, token: &Token) -> bool {
        let mut inner = self.lock();
        let ours = inner.is_ours(token);
        if ours {
            *inner.active.entry((token.partition, token.generation)).or_default() += 1;
        }
        ours
    }

    /// Whether [`Offsets::start`] would allow it.
    pub(crate) fn is_ours(&self, token: &Token) -> bool {
        self.lock().is_ours(token)
    }

    /// Work that was started ended without finishing the record.
    pub(crate) fn stop(&self, token: &Token) {
        self.lock().stop(token);
        self.changed.notify_waiters();
    }

    /// Where partitions would stand if these were finished, for those that would move.
    pub(crate) fn positions_with(&self, tokens: &[Token]) -> Vec<Position> {
        let inner = self.lock();
        let mut finished: HashMap<(Partition, u64), Vec<i64>> = HashMap::new();
        for token in tokens {
            finished
                .entry((token.partition, token.generation))
                .or_default()
                .push(token.offset);
        }
        let mut positions: Vec<Position> = finished
            .into_iter()
            .filter_map(|((partition, generation), mut offsets)| {
                offsets.sort_unstable();
                let owned = inner
                    .owned
                    .get(&partition)
                    .filter(|owned| owned.generation == generation)?;
                let next_offset = owned.next_with(&offsets)?;
                (next_offset > owned.committed).then_some(Position {
                    partition,
                    generation,
                    epoch: owned.epoch,
                    next_offset,
                })
            })
            .collect();
        // Everybody locks the group's rows in one order.
        positions.sort_unstable_by_key(|position| position.partition);
        positions
    }

    /// Where the partitions of a topic stand that have moved since their last commit.
    pub(crate) fn positions(&self, topic: Topic) -> Vec<Position> {
        let inner = self.lock();
        inner
            .owned
            .iter()
            .filter(|(partition, _)| partition.topic == topic)
            .filter_map(|(partition, owned)| {
                let next_offset = owned.next_with(&[])?;
                (next_offset > owned.committed).then_some(Position {
                    partition: *partition,
                    generation: owned.generation,
                    epoch: owned.epoch,
                    next_offset,
                })
            })
            .collect()
    }

    /// These are finished: what they led to is written.
    pub(crate) fn finish(&self, tokens: &[Token]) {
        let mut inner = self.lock();
        for token in tokens {
            inner.stop(token);
            let Some(owned) = inner.owned.get_mut(&token.partition) else {
                continue;
            };
            if owned.generation != token.generation {
                continue;
            }
            if let Ok(place) = owned.records.binary_search_by_key(&token.offset, |record| record.0)
                && !std::mem::replace(&mut owned.records[place].1, true)
            {
                owned.unfinished -= 1;
            }
            while owned.records.front().is_some_and(|record| record.1) {
                owned.records.pop_front();
            }
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    pub(crate) fn committed(&self, position: &Position) {
        if let Some(owned) = self.lock().owned.get_mut(&position.partition)
            && owned.generation == position.generation
        {
            owned.committed = owned.committed.max(position.next_offset);
        }
    }

    /// Nothing new is started on these partitions.
    pub(crate) fn revoke(&self, partitions: &[Partition]) {
        let mut inner = self.lock();
        for partition in partitions {
            if let Some(owned) = inner.owned.get_mut(partition) {
                owned.revoked = true;
            }
        }
    }

    /// These partitions are not ours any more.
    pub(crate) fn remove(&self, partitions: &[Partition]) {
        let mut inner = self.lock();
        for partition in partitions {
            inner.owned.remove(partition);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Waits until nothing that was started on these partitions (all, where `None`) is under way.
    pub(crate) async fn quiet(&self, partitions: Option<&[Partition]>) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let busy = self
                .lock()
                .active
                .keys()
                .any(|(partition, _)| partitions.is_none_or(|some| some.contains(partition)));
            if !busy {
                return;
            }
            changed.await;
        }
    }

    /// Waits until at most so many records of a topic are unfinished, and so many offsets kept.
    pub(crate) async fn room(&self, topic: Topic, unfinished: usize, kept: usize) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let load = self.load(topic);
            if load.0 <= unfinished && load.1 <= kept {
                return;
            }
            changed.await;
        }
    }

    /// (records of the topic that are not finished, offsets that are kept since the lowest of them).
    pub(crate) fn load(&self, topic: Topic) -> (usize, usize) {
        let inner = self.lock();
        inner
            .owned
            .iter()
            .filter(|(partition, _)| partition.topic == topic)
            .fold((0, 0), |(unfinished, kept), (_, owned)| {
                (unfinished + owned.unfinished, kept + owned.records.len())
            })
    }

    /// The partitions that are ours to send from.
    pub(crate) fn staying_of(&self, topic: Topic) -> HashSet<Partition> {
        self.lock()
            .owned
            .iter()
            .filter(|(partition, owned)| partition.topic == topic && !owned.revoked)
            .map(|(partition, _)| *partition)
            .collect()
    }

    pub(crate) fn owned_of(&self, topic: Topic) -> Vec<Partition> {
        self.lock()
            .owned
            .keys()
            .filter(|partition| partition.topic == topic)
            .copied()
            .collect()
    }
}

impl Inner {
    fn is_ours(&self, token: &Token) -> bool {
        self.owned
            .get(&token.partition)
            .is_some_and(|owned| owned.generation == token.generation && !owned.revoked)
    }

    fn stop(&mut self, token: &Token) {
        let key = (token.partition, token.generation);
        if let Some(active) = self.active.get_mut(&key) {
            *active -= 1;
            if *active == 0 {
                self.active.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: Partition = Partition {
        topic: Topic::OutboundBulk,
        number: 3,
    };

    fn issued(offsets: &Offsets, numbers: &[i64]) -> Vec<Token> {
        let tokens: Vec<Token> = numbers
            .iter()
            .map(|number| offsets.issue(PARTITION, *number).unwrap())
            .collect();
        assert!(tokens.iter().all(|token| offsets.start(token)));
        tokens
    }

    #[test]
    fn the_position_is_the_lowest_unfinished_record() {
        let offsets = Offsets::default();
        offsets.assign(PARTITION, 7);
        let tokens = issued(&offsets, &[10, 11, 15, 16]);
        assert!(
            offsets
                .positions_with(&tokens[1..])
                .iter()
                .all(|at| at.next_offset == 10)
        );
        assert_eq!(offsets.positions_with(&tokens)[0].next_offset, 17);
        assert_eq!(offsets.positions_with(&tokens[..2])[0].next_offset, 15);
        offsets.finish(&tokens[1..]);
        assert_eq!(offsets.load(Topic::OutboundBulk), (1, 4));
        offsets.finish(&tokens[..1]);
        let position = offsets.positions(Topic::OutboundBulk)[0];
        assert_eq!((position.next_offset, position.epoch), (17, 7));
        offsets.committed(&position);
        assert!(offsets.positions(Topic::OutboundBulk).is_empty());
    }

    #[tokio::test]
    async fn what_belongs_to_an_earlier_ownership_moves_nothing() {
        let offsets = Offsets::default();
        offsets.assign(PARTITION, 1);
        let old = issued(&offsets, &[5, 6]);
        offsets.remove(&[PARTITION]);
        offsets.assign(PARTITION, 2);
        let new = issued(&offsets, &[5]);
        assert!(!offsets.start(&old[0]));
        offsets.finish(&old);
        assert!(
            offsets
                .positions(Topic::OutboundBulk)
                .iter()
                .all(|at| at.next_offset == 5)
        );
        offsets.revoke(&[PARTITION]);
        assert!(!offsets.start(&new[0]));
        assert!(offsets.staying_of(Topic::OutboundBulk).is_empty());
        offsets.finish(&new);
        offsets.quiet(None).await;
        assert_eq!(offsets.positions(Topic::OutboundBulk)[0].next_offset, 6);
    }
}
