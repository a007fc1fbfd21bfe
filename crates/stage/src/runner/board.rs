//! What is known about each partition that this member owns: what waits, what is worked on, what is to be told to the bus.
//!
//! At most one batch of a partition is worked on, so its records keep their order. What is read meanwhile waits as one
//! further batch, until that is large enough and the partition is paused. What waits of several partitions of a topic is
//! worked on together: a statement, a commit or a request costs as much for few records as for many.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bus::Partition;
use events::Topic;
use tokio_util::sync::CancellationToken;

use super::{batch::Batch, work::Finished};

#[derive(Debug, Default)]
pub(super) struct Board {
    slots: BTreeMap<Partition, Slot>,
    generation: u64,
    /// The partition that was started last: the others have their turn first.
    last: Option<Partition>,
}

/// How much of a partition may wait before it is paused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub records: usize,
    /// More than that, where a topic's partitions are so few that together they would have less than this.
    pub together: usize,
    pub bytes: usize,
}

#[derive(Debug)]
struct Slot {
    generation: u64,
    stop: CancellationToken,
    busy: bool,
    waiting: VecDeque<Batch>,
    paused: bool,
    revoked: bool,
    /// What is to be committed through the consumer.
    commit: Option<i64>,
    /// Where to read again: the bus refused what we did as somebody else's, and has not said that we lost the partition.
    reread: Option<i64>,
}

/// A batch to start, under which ownership, and what says that it is not to be tried again.
#[derive(Debug)]
pub(super) struct Start {
    pub batch: Arc<Batch>,
    pub generation: u64,
    pub stop: CancellationToken,
}

impl Start {
    pub fn finished(&self, done_to: i64, whole: bool) -> Finished {
        Finished {
            partition: self.batch.partition,
            generation: self.generation,
            done_to,
            whole,
        }
    }
}

impl Slot {
    /// `partitions`: how many of its topic are owned.
    fn is_full(&self, room: Room, partitions: usize) -> bool {
        let records: usize = self.waiting.iter().map(Batch::len).sum();
        let bytes: usize = self.waiting.iter().map(Batch::bytes).sum();
        let most = room.records.max(room.together / partitions.max(1));
        records >= most.max(1) || bytes >= room.bytes.max(1)
    }
}

impl Board {
    pub fn assign(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.drop_partition(*partition);
            self.generation += 1;
            self.slots.insert(
                *partition,
                Slot {
                    generation: self.generation,
                    stop: CancellationToken::new(),
                    busy: false,
                    waiting: VecDeque::new(),
                    paused: false,
                    revoked: false,
                    commit: None,
                    reread: None,
                },
            );
        }
    }

    /// What waits is let go: whoever owns the partition next reads it. What is worked on comes to an end, but is not tried
    /// again.
    pub fn revoke(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            if let Some(slot) = self.slots.get_mut(partition) {
                slot.waiting.clear();
                slot.revoked = true;
                slot.stop.cancel();
            }
        }
    }

    /// The partition is somebody else's.
    pub fn drop_partition(&mut self, partition: Partition) {
        if let Some(slot) = self.slots.remove(&partition) {
            slot.stop.cancel();
        }
    }

    /// As for a revoked one, for all.
    pub fn stop(&mut self) {
        for slot in self.slots.values_mut() {
            slot.waiting.clear();
            slot.stop.cancel();
        }
    }

    pub fn offer(&mut self, batch: Batch) {
        match self.slots.get_mut(&batch.partition) {
            Some(slot) if !slot.revoked && slot.reread.is_none() => {
                let left = match slot.waiting.back_mut() {
                    Some(last) => last.take_in(batch),
                    None => Some(batch),
                };
                slot.waiting.extend(left);
            }
            Some(_) => {}
            None => tracing::warn!(
                topic = %batch.partition.topic,
                partition = batch.partition.number,
                "records of a partition that is not assigned are passed over"
            ),
        }
    }

    /// The next batch in turn whose partition is free, and those of the same topic that come after it, until they are
    /// `records` together. In the partitions' order; none: nothing can be started.
    pub fn start(&mut self, records: usize) -> Vec<Start> {
        let free = |(partition, slot): (&Partition, &Slot)| {
            (!slot.busy && !slot.revoked && !slot.waiting.is_empty()).then_some(*partition)
        };
        let mut turns: Vec<Partition> = self.slots.iter().filter_map(free).collect();
        let later = turns.partition_point(|partition| Some(*partition) <= self.last);
        turns.rotate_left(later);
        let mut starts: Vec<Start> = Vec::new();
        let mut taken = 0;
        for partition in turns {
            let other = starts
                .first()
                .is_some_and(|first| first.batch.partition.topic != partition.topic);
            if other || taken >= records {
                continue;
            }
            let Some(slot) = self.slots.get_mut(&partition) else {
                continue;
            };
            let Some(batch) = slot.waiting.pop_front() else {
                continue;
            };
            slot.busy = true;
            self.last = Some(partition);
            taken += batch.len();
            starts.push(Start {
                batch: Arc::new(batch),
                generation: slot.generation,
                stop: slot.stop.clone(),
            });
        }
        starts.sort_unstable_by_key(|start| start.batch.partition);
        starts
    }

    /// How many records could be started.
    pub fn waiting(&self) -> usize {
        let free = self.slots.values().filter(|slot| !slot.busy && !slot.revoked);
        free.flat_map(|slot| &slot.waiting).map(Batch::len).sum()
    }

    /// `commits`: what is done is yet to be committed through the consumer. A batch of an earlier ownership changes nothing.
    pub fn finished(&mut self, done: &Finished, commits: bool) {
        let Some(slot) = self.slots.get_mut(&done.partition) else {
            return;
        };
        if slot.generation != done.generation {
            return;
        }
        slot.busy = false;
        if commits {
            slot.commit = slot.commit.max(Some(done.done_to));
        }
        if !done.whole {
            // What is left must be read again before anything after it, by us or by the next owner.
            slot.waiting.clear();
            if !slot.stop.is_cancelled() {
                slot.reread = Some(done.done_to);
            }
        }
    }

    /// The partitions to read again, and where.
    pub fn rereads(&self) -> Vec<(Partition, i64)> {
        let due = |(partition, slot): (&Partition, &Slot)| Some((*partition, slot.reread?));
        self.slots.iter().filter_map(due).collect()
    }

    pub fn reread(&mut self, partition: Partition) {
        if let Some(slot) = self.slots.get_mut(&partition) {
            slot.reread = None;
        }
    }

    pub fn commits(&self) -> Vec<(Partition, i64)> {
        let due = |(partition, slot): (&Partition, &Slot)| Some((*partition, slot.commit?));
        self.slots.iter().filter_map(due).collect()
    }

    pub fn committed(&mut self, partition: Partition) {
        if let Some(slot) = self.slots.get_mut(&partition) {
            slot.commit = None;
        }
    }

    /// Of the partitions that were asked back, those with nothing under way.
    pub fn releasable(&self, asked: &[Partition]) -> Vec<Partition> {
        let idle = |partition: &&Partition| {
            self.slots
                .get(partition)
                .is_none_or(|slot| !slot.busy && slot.commit.is_none())
        };
        asked.iter().filter(idle).copied().collect()
    }

    /// Partitions that are not to be read (`true`), or to be read again.
    pub fn pauses(&mut self, pause: bool, room: Room) -> Vec<Partition> {
        let mut changed = Vec::new();
        let owned = self.owned_by_topic();
        for (partition, slot) in &mut self.slots {
            let full = slot.is_full(room, owned[&partition.topic]);
            if !slot.revoked && full == pause && slot.paused != pause {
                slot.paused = pause;
                changed.push(*partition);
            }
        }
        changed
    }

    /// Whether a partition could be read again.
    pub fn wants_reading(&self, room: Room) -> bool {
        let owned = self.owned_by_topic();
        let mut slots = self.slots.iter();
        slots.any(|(partition, slot)| slot.paused && !slot.revoked && !slot.is_full(room, owned[&partition.topic]))
    }

    fn owned_by_topic(&self) -> BTreeMap<Topic, usize> {
        let mut owned = BTreeMap::new();
        for partition in self.slots.keys() {
            *owned.entry(partition.topic).or_default() += 1;
        }
        owned
    }

    /// Whether nothing is read: a read that is under way can bring nothing but changes of ownership.
    pub fn is_paused(&self) -> bool {
        self.slots.values().all(|slot| slot.paused || slot.revoked)
    }

    pub fn owned(&self) -> Vec<Partition> {
        self.slots.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use bus::StoredRecord;

    use super::*;

    fn partition(number: u32) -> Partition {
        Partition {
            topic: Topic::Events,
            number,
        }
    }

    fn batch(number: u32, offset: i64) -> Batch {
        let record = StoredRecord {
            offset,
            timestamp_ms: 0,
            key: String::new(),
            headers: Vec::new(),
            value: Vec::new(),
        };
        Batch::new("test", partition(number), 1, vec![record])
    }

    fn finished(start: &Start, whole: bool) -> Finished {
        start.finished(start.batch.offsets().end, whole)
    }

    fn one(board: &mut Board) -> Start {
        let mut starts = board.start(1);
        assert_eq!(starts.len(), 1);
        starts.remove(0)
    }

    #[test]
    fn one_batch_of_a_partition_at_a_time_and_partitions_take_turns() {
        let room = |records| Room {
            records,
            together: 1,
            bytes: 1_000,
        };
        let mut board = Board::default();
        board.assign(&[partition(0), partition(1)]);
        board.offer(batch(0, 0));
        board.offer(batch(1, 0));
        let first = one(&mut board);
        let second = one(&mut board);
        assert_eq!(
            (first.batch.partition, second.batch.partition),
            (partition(0), partition(1))
        );
        // What is read meanwhile waits together.
        for offset in 1..4 {
            board.offer(batch(0, offset));
        }
        assert!(board.start(1).is_empty(), "partition 0 is busy");
        assert!(board.pauses(true, room(4)).is_empty(), "there is room for one more");
        assert_eq!(board.pauses(true, room(3)), [partition(0)]);
        assert!(!board.wants_reading(room(3)));
        assert!(!board.is_paused(), "partition 1 is still read");
        board.revoke(&[partition(1)]);
        assert!(board.is_paused(), "nothing is read any more");
        board.finished(&finished(&first, true), true);
        assert_eq!(board.commits(), [(partition(0), 1)]);
        assert_eq!(one(&mut board).batch.offsets(), 1..4);
        assert!(board.wants_reading(room(3)));
        assert_eq!(board.pauses(false, room(3)), [partition(0)]);
    }

    #[test]
    fn of_few_partitions_more_may_wait() {
        let room = Room {
            records: 2,
            together: 8,
            bytes: 1_000,
        };
        let mut board = Board::default();
        let clicks = Partition {
            topic: Topic::Clicks,
            number: 0,
        };
        board.assign(&[partition(0), partition(1), clicks]);
        let mut offer = |offsets: std::ops::Range<i64>| {
            for offset in offsets {
                board.offer(batch(0, offset));
            }
            board.pauses(true, room)
        };
        assert!(offer(0..3).is_empty(), "half of eight of each of two");
        assert_eq!(offer(3..4), [partition(0)]);
        board.assign(&[2, 3, 4, 5, 6].map(partition));
        board.offer(batch(6, 0));
        assert!(board.pauses(true, room).is_empty());
        board.offer(batch(6, 1));
        assert_eq!(board.pauses(true, room), [partition(6)], "of many as much as of any");
    }

    #[test]
    fn what_waits_of_a_topic_starts_together_up_to_a_size() {
        let mut board = Board::default();
        let clicks = Partition {
            topic: Topic::Clicks,
            number: 0,
        };
        board.assign(&[partition(0), partition(1), partition(2), clicks]);
        let mut other = batch(0, 0);
        other.partition = clicks;
        board.offer(other);
        for number in 0..3 {
            board.offer(batch(number, 0));
        }
        let mut numbers = |records| -> Vec<Partition> {
            let starts = board.start(records);
            starts.iter().map(|start| start.batch.partition).collect()
        };
        assert_eq!(numbers(2), [partition(0), partition(1)]);
        assert_eq!(numbers(100), [partition(2)], "the other topic by itself");
        assert_eq!(numbers(100), [clicks]);
        assert!(numbers(100).is_empty());
    }

    #[test]
    fn a_revoked_partition_is_released_when_its_work_is_committed() {
        let mut board = Board::default();
        board.assign(&[partition(0)]);
        board.offer(batch(0, 0));
        let start = one(&mut board);
        board.offer(batch(0, 1));
        board.revoke(&[partition(0)]);
        assert!(start.stop.is_cancelled() && board.releasable(&[partition(0)]).is_empty());
        board.finished(&finished(&start, true), true);
        assert!(board.releasable(&[partition(0)]).is_empty(), "not committed");
        board.committed(partition(0));
        assert_eq!(board.releasable(&[partition(0)]), [partition(0)]);
        assert!(board.start(1).is_empty(), "what waited is the next owner's");
    }

    #[test]
    fn work_of_an_earlier_ownership_changes_nothing() {
        let mut board = Board::default();
        board.assign(&[partition(0)]);
        board.offer(batch(0, 0));
        let old = one(&mut board);
        board.drop_partition(partition(0));
        board.assign(&[partition(0)]);
        board.offer(batch(0, 0));
        let new = one(&mut board);
        board.finished(&finished(&old, true), true);
        assert!(board.commits().is_empty() && board.start(1).is_empty());
        board.finished(&finished(&new, true), true);
        assert_eq!(board.commits(), [(partition(0), 1)]);
    }
}
