//! A batch as it is worked on: its records read once, and the records that tell of the unreadable ones.

use std::ops::Range;

use bus::{MAX_RECORD_BYTES, NewRecord, Partition, StoredRecord};
use domain::MessageId;
use events::{DeadLetter, Envelope, Header, Topic};
use jiff::Timestamp;

use crate::{Input, trace};

/// The records of one partition that are worked on together, in offset order.
#[derive(Debug)]
pub(super) struct Batch {
    pub partition: Partition,
    /// Which ownership of the partition they were read under.
    pub epoch: i64,
    /// The readable ones.
    pub inputs: Vec<Input>,
    /// Beside each input, its headers as they came.
    headers: Vec<Vec<Header>>,
    /// The others, each with what is wrong with it.
    unreadable: Vec<(StoredRecord, String)>,
    offsets: Range<i64>,
    /// Of keys, headers and values.
    bytes: usize,
    // The spans end with the batch.
    _traces: Vec<trace::RecordTrace>,
}

impl Batch {
    /// `records` is not empty.
    pub fn new(stage: &'static str, partition: Partition, epoch: i64, records: Vec<StoredRecord>) -> Batch {
        let first = records.first().map_or(0, |record| record.offset);
        let last = records.last().map_or(first, |record| record.offset);
        let mut batch = Batch {
            partition,
            epoch,
            inputs: Vec::with_capacity(records.len()),
            headers: Vec::with_capacity(records.len()),
            unreadable: Vec::new(),
            offsets: first..last + 1,
            bytes: records.iter().map(StoredRecord::size).sum(),
            _traces: Vec::new(),
        };
        for record in records {
            match Envelope::from_headers(&record.headers) {
                Ok(mut envelope) => {
                    let own = trace::continue_from(stage, envelope.traceparent.as_deref(), &envelope.id);
                    // What the step sends on has this stage's span as its parent.
                    envelope.traceparent = Some(own.traceparent().to_owned());
                    // Read again, by whomever, it is of the same time: not of the one at which it is read.
                    envelope.time = envelope.time.or_else(|| record.appended_at());
                    if !own.span().is_none() {
                        batch._traces.push(own);
                    }
                    batch.headers.push(record.headers);
                    batch.inputs.push(Input {
                        partition,
                        offset: record.offset,
                        key: record.key,
                        envelope,
                        value: record.value,
                    });
                }
                Err(error) => batch.unreadable.push((record, error.to_string())),
            }
        }
        batch
    }

    /// Takes in what was read after it, of the same partition. It gives back what was read under another ownership.
    pub fn take_in(&mut self, mut next: Batch) -> Option<Batch> {
        if next.epoch != self.epoch {
            return Some(next);
        }
        self.inputs.append(&mut next.inputs);
        self.headers.append(&mut next.headers);
        self.unreadable.append(&mut next.unreadable);
        self._traces.append(&mut next._traces);
        self.bytes += next.bytes;
        self.offsets.end = next.offsets.end;
        None
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// From the first offset up to the one after the last. On Kafka there may be gaps.
    pub fn offsets(&self) -> Range<i64> {
        self.offsets.clone()
    }

    pub fn len(&self) -> usize {
        self.inputs.len() + self.unreadable.len()
    }

    /// How many records there are in a part of it.
    pub fn count(&self, part: &Range<i64>) -> usize {
        self.inputs_in(part).len() + self.unreadable_in(part).count()
    }

    pub fn inputs_in(&self, part: &Range<i64>) -> &[Input] {
        let from = self.inputs.partition_point(|input| input.offset < part.start);
        let to = self.inputs.partition_point(|input| input.offset < part.end);
        &self.inputs[from..to]
    }

    /// Cuts a part in two with as many records each, give or take one.
    pub fn halves(&self, part: &Range<i64>) -> (Range<i64>, Range<i64>) {
        let mut offsets: Vec<i64> = self.inputs_in(part).iter().map(|input| input.offset).collect();
        offsets.extend(self.unreadable_in(part).map(|(record, _)| record.offset));
        offsets.sort_unstable();
        let middle = offsets.get(offsets.len() / 2).copied().unwrap_or(part.end);
        (part.start..middle, middle..part.end)
    }

    /// The dead letters of a part's unreadable records.
    pub fn unreadable_letters(&self, stage: &str, part: &Range<i64>, now: Timestamp) -> Vec<NewRecord> {
        self.unreadable_in(part)
            .map(|(record, reason)| {
                letter(
                    stage,
                    self.partition,
                    now,
                    reason,
                    record.offset,
                    &record.key,
                    &record.headers,
                    &record.value,
                )
            })
            .collect()
    }

    /// The dead letter of one input.
    pub fn letter(&self, stage: &str, offset: i64, reason: &str, now: Timestamp) -> Option<NewRecord> {
        let place = self.inputs.binary_search_by_key(&offset, |input| input.offset).ok()?;
        let (input, headers) = (&self.inputs[place], &self.headers[place]);
        Some(letter(
            stage,
            self.partition,
            now,
            reason,
            offset,
            &input.key,
            headers,
            &input.value,
        ))
    }

    fn unreadable_in(&self, part: &Range<i64>) -> impl Iterator<Item = &(StoredRecord, String)> {
        self.unreadable
            .iter()
            .filter(move |(record, _)| part.contains(&record.offset))
    }
}

/// The record for `dead-letters`. Its id follows from the topic, the partition and the offset.
#[expect(
    clippy::too_many_arguments,
    reason = "a record's parts, which two callers hold in two forms"
)]
fn letter(
    stage: &str,
    partition: Partition,
    now: Timestamp,
    reason: &str,
    offset: i64,
    key: &str,
    headers: &[Header],
    value: &[u8],
) -> NewRecord {
    let place = format!("{}/{}/{offset}", partition.topic, partition.number);
    let mut letter = DeadLetter {
        // Made from SHA-256 as a message's id is; the prefix keeps the two apart.
        id: MessageId::derive(
            &domain::Cause::Direct {
                idempotency_key: "dead-letter".into(),
            },
            &place,
        )
        .0,
        stage: stage.into(),
        topic: partition.topic.name().into(),
        partition: partition.number,
        offset,
        reason: reason.into(),
        failed_at: now,
        key: key.into(),
        headers: headers.to_vec(),
        value: value.to_vec(),
    };
    let trace = headers
        .iter()
        .find(|(name, _)| name == "traceparent")
        .map(|(_, value)| value.as_ref());
    let wrap = |letter: &DeadLetter| {
        let id = letter.id.to_string();
        NewRecord::wrap(Topic::DeadLetters, key, id, now, trace, letter)
    };
    let record = wrap(&letter);
    if record.size() <= MAX_RECORD_BYTES {
        return record;
    }
    // A record near the limit does not fit with its wrapping. What is kept says where the whole one is.
    letter.reason = format!(
        "{reason} (its {} bytes do not fit into a dead letter: they are at offset {offset} of partition {} until the topic lets them go)",
        value.len(),
        partition.number
    );
    letter.value.clear();
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_RECORD_BYTES / 4 {
        letter.headers.clear();
    }
    wrap(&letter)
}

#[cfg(test)]
mod tests {
    use events::Record as _;

    use super::*;

    fn record(offset: i64, good: bool, bytes: usize) -> StoredRecord {
        let envelope = Envelope {
            id: format!("e{offset}"),
            source: "shop".into(),
            kind: "order.placed".into(),
            time: None,
            subject: None,
            traceparent: None,
        };
        StoredRecord {
            offset,
            timestamp_ms: 0,
            key: "42".into(),
            headers: if good { envelope.into_headers() } else { Vec::new() },
            value: vec![b'x'; bytes],
        }
    }

    fn batch(records: Vec<StoredRecord>) -> Batch {
        let partition = Partition {
            topic: Topic::Events,
            number: 3,
        };
        Batch::new("segmenter", partition, 1, records)
    }

    #[test]
    fn halving_ends_at_single_records_across_gaps() {
        let batch = batch(vec![
            record(5, true, 1),
            record(9, false, 1),
            record(10, true, 1),
            record(40, true, 1),
        ]);
        let mut parts = vec![batch.offsets()];
        let mut singles = Vec::new();
        while let Some(part) = parts.pop() {
            match batch.count(&part) {
                1 => singles.push(part),
                _ => {
                    let (first, second) = batch.halves(&part);
                    parts.extend([second, first]);
                }
            }
        }
        assert_eq!(singles, [5..9, 9..10, 10..40, 40..41]);
        assert_eq!(batch.inputs_in(&(5..11)).len(), 2);
    }

    #[test]
    fn what_was_read_later_is_taken_in_under_the_same_ownership() {
        let mut first = batch(vec![record(5, true, 1), record(6, false, 1)]);
        let bytes = first.bytes();
        let second = batch(vec![record(9, true, 1), record(10, false, 1)]);
        assert!(first.take_in(second).is_none());
        assert_eq!((first.offsets(), first.len()), (5..11, 4));
        assert_eq!(first.bytes(), 2 * bytes);
        assert_eq!(first.count(&(6..10)), 2);
        assert_eq!(
            first.letter("segmenter", 9, "why", Timestamp::UNIX_EPOCH).map(|_| ()),
            Some(())
        );
        let later = Batch::new("segmenter", first.partition, 2, vec![record(11, true, 1)]);
        assert!(first.take_in(later).is_some_and(|later| later.epoch == 2));
    }

    #[test]
    fn a_record_without_a_time_has_that_of_its_append() {
        let appended = StoredRecord {
            timestamp_ms: 1_780_000_000_123,
            ..record(5, true, 1)
        };
        let batch = batch(vec![appended, record(6, true, 1)]);
        let times: Vec<Option<String>> = batch
            .inputs_in(&(5..7))
            .iter()
            .map(|input| input.envelope.time.map(|time| time.to_string()))
            .collect();
        // Of the second the bus does not say.
        assert_eq!(times, [Some("2026-05-28T20:26:40.123Z".to_owned()), None]);
    }

    #[test]
    fn a_dead_letter_is_the_same_each_time_and_always_fits() {
        let now = Timestamp::UNIX_EPOCH;
        let batch = batch(vec![record(7, true, 1_000), record(8, true, MAX_RECORD_BYTES - 200)]);
        let read = |record: &NewRecord| DeadLetter::from_bytes(DeadLetter::KIND, &record.value).unwrap();
        let small = batch.letter("segmenter", 7, "bad", now).unwrap();
        assert_eq!(Some(small.clone()), batch.letter("segmenter", 7, "bad", now));
        assert_eq!(read(&small).value.len(), 1_000);
        assert_eq!(read(&small).headers, record(7, true, 0).headers);
        let large = batch.letter("segmenter", 8, "bad", now).unwrap();
        assert!(large.size() <= MAX_RECORD_BYTES);
        assert_ne!(read(&small).id, read(&large).id);
        assert!(read(&large).reason.contains("at offset 8"), "{}", read(&large).reason);
    }
}
