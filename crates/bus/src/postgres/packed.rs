//! Records of a partition in one row: what an append gives a partition is one body, as long as that stays small.
//!
//! A body is a byte that says how the rest is kept (0: as it is; 1: LZ4, the block format, after its unpacked length as four
//! bytes, the least first), and then the records in their order. A record is its key, its headers
//! (`["name", "value", "name", "value", …]`, JSON) and its value, each after its length in bytes as four bytes, the most
//! first. Records of a batch are much alike, so they shrink to a quarter.

use std::{borrow::Cow, cell::RefCell};

use events::Header;
use lz4_flex::block;

use crate::{NewRecord, StoredRecord};

/// A body is closed when its records take so much: whoever reads one of them unpacks all.
const BODY_BYTES: usize = 128 << 10;
/// Less is not worth compressing.
const LEAST: usize = 512;

const PLAIN: u8 = 0;
const LZ4: u8 = 1;

thread_local! {
    /// Where bodies are packed and unpacked: room of a megabyte that is asked for each time comes as fresh pages from the
    /// kernel, which costs more than the packing.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends room for so many bytes, which hold anything.
fn with_room<T>(bytes: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    ROOM.with_borrow_mut(|room| {
        if room.len() < bytes {
            room.resize(bytes, 0);
        }
        work(&mut room[..bytes])
    })
}

/// Records that go into one row.
#[derive(Debug)]
pub(super) struct Body {
    pub records: usize,
    records_bytes: Vec<u8>,
}

impl Body {
    /// For records that take so much, if it is to hold as many.
    pub fn new(bytes: usize) -> Body {
        Body {
            records: 0,
            records_bytes: Vec::with_capacity(bytes.min(BODY_BYTES)),
        }
    }

    /// What a record takes in a body, to a few bytes.
    pub fn room_for(record: &NewRecord) -> usize {
        // Three lengths; of each header four quotes and two commas.
        12 + record.size() + 6 * record.headers.len()
    }

    pub fn is_full(&self) -> bool {
        self.records_bytes.len() >= BODY_BYTES
    }

    /// What the records take unpacked.
    pub fn bytes(&self) -> usize {
        self.records_bytes.len()
    }

    pub fn push(&mut self, record: &NewRecord) {
        self.records += 1;
        put(&mut self.records_bytes, |to| {
            to.extend_from_slice(record.key.as_bytes())
        });
        put(&mut self.records_bytes, |to| headers_to_json(&record.headers, to));
        put(&mut self.records_bytes, |to| to.extend_from_slice(&record.value));
    }

    pub fn pack(self) -> Vec<u8> {
        let plain = self.records_bytes;
        let length = u32::try_from(plain.len()).ok().filter(|_| plain.len() >= LEAST);
        let packed = length.and_then(|length| {
            with_room(block::get_maximum_output_size(plain.len()), |room| {
                let packed = block::compress_into(&plain, room).ok()?;
                let packed = room.get(..packed).filter(|packed| 4 + packed.len() < plain.len())?;
                Some([&[LZ4], &length.to_le_bytes()[..], packed].concat())
            })
        });
        packed.unwrap_or_else(|| [&[PLAIN], &plain[..]].concat())
    }
}

/// What `write` appends, after its length.
fn put(to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = to.len();
    to.extend_from_slice(&[0; 4]);
    write(to);
    // A record is far below 4 GiB.
    let length = u32::try_from(to.len() - at - 4).unwrap_or(u32::MAX);
    to[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// A row's records from offset `from` on. `None`: the body is none of ours.
pub(super) fn unpack(row: &Row<'_>, from: i64) -> Option<Vec<StoredRecord>> {
    let (kind, rest) = row.body.split_first()?;
    match *kind {
        PLAIN => unpack_plain(row, rest, from),
        LZ4 => {
            let (length, packed) = block::uncompressed_size(rest).ok()?;
            // LZ4 makes of a byte 255 at most: one that says more is none of ours, and gets no room.
            if length / 255 > packed.len() {
                return None;
            }
            with_room(length, |room| {
                let length = block::decompress_into(packed, room).ok()?;
                unpack_plain(row, room.get(..length)?, from)
            })
        }
        _ => None,
    }
}

fn unpack_plain(row: &Row<'_>, mut rest: &[u8], from: i64) -> Option<Vec<StoredRecord>> {
    let first = row.last_offset - i64::from(row.records) + 1;
    let mut records = Vec::with_capacity(usize::try_from(row.last_offset - from.max(first) + 1).ok()?);
    for offset in first..=row.last_offset {
        let (key, headers, value) = (take(&mut rest)?, take(&mut rest)?, take(&mut rest)?);
        if offset >= from {
            records.push(StoredRecord {
                offset,
                timestamp_ms: row.appended_ms,
                key: String::from_utf8_lossy(key).into_owned(),
                headers: headers_from_json(headers),
                value: value.to_vec(),
            });
        }
    }
    rest.is_empty().then_some(records)
}

/// A row as it is read.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub last_offset: i64,
    pub records: i32,
    pub appended_ms: i64,
    pub body: &'a [u8],
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (taken, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = after;
    Some(taken)
}

/// `["name","value",…]`: order and repeated names are kept.
fn headers_to_json(headers: &[Header], json: &mut Vec<u8>) {
    json.push(b'[');
    for (place, text) in headers.iter().flat_map(|(name, value)| [name, value]).enumerate() {
        if place > 0 {
            json.push(b',');
        }
        // Writing a text to memory cannot fail.
        let _ = serde_json::to_writer(&mut *json, text);
    }
    json.push(b']');
}

/// A text that borrows from the JSON where it is written without escapes.
#[derive(serde::Deserialize)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

fn headers_from_json(json: &[u8]) -> Vec<Header> {
    let mut texts = serde_json::from_slice::<Vec<Borrowed<'_>>>(json)
        .unwrap_or_default()
        .into_iter()
        .map(|text| events::text(&text.0));
    let mut headers = Vec::with_capacity(texts.len() / 2);
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        headers.push((name, value));
    }
    headers
}

#[cfg(test)]
mod tests {
    use events::Topic;

    use super::*;

    fn record(key: &str, headers: &[(&'static str, &'static str)], value: Vec<u8>) -> NewRecord {
        NewRecord {
            topic: Topic::Events,
            key: key.into(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            value,
        }
    }

    fn packed(records: &[NewRecord]) -> Vec<u8> {
        let mut body = Body::new(0);
        records.iter().for_each(|record| body.push(record));
        assert_eq!(body.records, records.len());
        body.pack()
    }

    fn row(body: &[u8], records: i32) -> Row<'_> {
        Row {
            last_offset: 99 + i64::from(records),
            records,
            appended_ms: 7,
            body,
        }
    }

    #[test]
    fn records_come_back_in_order_and_with_every_character() {
        let records = [
            record(
                "a",
                &[("x", "1"), ("x", "\u{0} \"quoted\" é"), ("", "")],
                vec![0, 255, 10],
            ),
            record("", &[], Vec::new()),
            record("\u{0}é", &[("n", "v")], vec![9; 3]),
        ];
        let body = packed(&records);
        let stored = unpack(&row(&body, 3), 0).unwrap();
        assert_eq!(
            stored.iter().map(|stored| stored.offset).collect::<Vec<_>>(),
            [100, 101, 102]
        );
        for (stored, record) in stored.iter().zip(&records) {
            assert_eq!(
                (&stored.key, &stored.headers, &stored.value),
                (&record.key, &record.headers, &record.value)
            );
            assert_eq!(stored.timestamp_ms, 7);
        }
        let later = unpack(&row(&body, 3), 102).unwrap();
        assert_eq!(later, stored[2..]);
    }

    #[test]
    fn what_is_alike_shrinks_and_what_is_not_stays_as_it_is() {
        let alike: Vec<NewRecord> = (0..100)
            .map(|n| {
                record(
                    "customer",
                    &[("ce_type", "order.placed")],
                    format!("{{\"n\":{n}}}").into_bytes(),
                )
            })
            .collect();
        let body = packed(&alike);
        assert_eq!(body[0], LZ4);
        assert!(body.len() < 100 * 20, "{}", body.len());
        assert_eq!(unpack(&row(&body, 100), 0).unwrap().len(), 100);
        // A multiplicative generator: no two stretches are the same.
        let noise: Vec<u8> = std::iter::successors(Some(1_u32), |last| {
            Some(last.wrapping_mul(2_654_435_761).wrapping_add(12_345))
        })
        .take(2_000)
        .map(|number| (number >> 24) as u8)
        .collect();
        let body = packed(&[record("k", &[], noise)]);
        assert_eq!(body[0], PLAIN);
        assert_eq!(unpack(&row(&body, 1), 0).unwrap().len(), 1);
    }

    #[test]
    fn a_body_that_is_cut_is_none_of_ours() {
        let body = packed(&[record("key", &[("a", "b")], vec![1; 10])]);
        for length in 0..body.len() {
            assert!(unpack(&row(&body[..length], 1), 0).is_none(), "{length}");
        }
        assert!(unpack(&row(&body, 2), 0).is_none(), "it holds one");
        assert!(unpack(&row(&[2, 0], 1), 0).is_none(), "kept in another way");
        let huge = [&[LZ4], &u32::MAX.to_le_bytes()[..], &[0; 100]].concat();
        assert!(unpack(&row(&huge, 1), 0).is_none(), "no hundred bytes unpack to 4 GiB");
    }
}
