//! Appending: one statement a batch, whatever topics and partitions it is for, and for the offsets of what it was made from.
//!
//! `log.append` takes the partitions' head rows in one order, gives out offsets, writes. The rows are held until the
//! commit, so a record becomes visible only together with, or after, all that have lower offsets: a reader that goes by
//! offset skips nothing. If the transaction rolls back, so do the offsets: there are no gaps either.

use std::collections::BTreeMap;

use events::Topic;
use sqlx::{PgConnection, Postgres, Row as _, postgres::PgArguments, query::Query};

use super::{catalog::Catalog, packed::Body};
use crate::{BusError, Committed, NewRecord, check_size, partition_for};

/// So that a statement stays far below PostgreSQL's limit of 1 GB a message.
pub(super) const STATEMENT_BYTES: usize = 32 << 20;
pub(super) const STATEMENT_RECORDS: usize = 10_000;

/// A batch as `log.append` takes it.
#[derive(Default)]
struct Columns {
    topics: Vec<i16>,
    partitions: Vec<i32>,
    counts: Vec<i64>,
    slots: Vec<i32>,
    places: Vec<i32>,
    records: Vec<i32>,
    sizes: Vec<i32>,
    bodies: Vec<Vec<u8>>,
}

/// Appends in statements of bounded size. Outside a transaction each is its own.
pub(super) async fn append(
    catalog: &Catalog,
    connection: &mut PgConnection,
    records: &[NewRecord],
) -> Result<(), BusError> {
    checked(records)?;
    for chunk in chunks(records) {
        append_chunk(catalog, connection, chunk).await?;
    }
    Ok(())
}

/// Commits offsets and appends, the last statement's worth of records together with the offsets.
pub(super) async fn finish(
    catalog: &Catalog,
    connection: &mut PgConnection,
    group: &str,
    offsets: &[Committed],
    records: &[NewRecord],
) -> Result<(), BusError> {
    if offsets.is_empty() {
        return append(catalog, connection, records).await;
    }
    checked(records)?;
    let mut chunks: Vec<&[NewRecord]> = chunks(records).collect();
    let last = chunks.pop();
    for chunk in chunks {
        append_chunk(catalog, connection, chunk).await?;
    }
    let mut topics = Vec::with_capacity(offsets.len());
    for offset in offsets {
        topics.push(catalog.known(offset.partition.topic).await?.id);
    }
    let numbers: Vec<i32> = (offsets.iter())
        .map(|offset| offset.partition.number.cast_signed())
        .collect();
    let epochs: Vec<i64> = offsets.iter().map(|offset| offset.epoch).collect();
    let next: Vec<i64> = offsets.iter().map(|offset| offset.next_offset).collect();
    // Without records it appends nothing.
    let columns = columns(catalog, last.unwrap_or_default()).await?;
    let rows = bound(COMMIT_AND_APPEND, &columns)
        .bind(group)
        .bind(&topics)
        .bind(numbers)
        .bind(epochs)
        .bind(next)
        .fetch_all(connection)
        .await
        .map_err(BusError::Postgres)?;
    let done: Result<Vec<(i16, i32)>, sqlx::Error> = (rows.iter())
        .map(|row| Ok((row.try_get("topic")?, row.try_get("partition")?)))
        .collect();
    let done = done.map_err(BusError::Postgres)?;
    let refused = (topics.iter().zip(offsets))
        .find(|(topic, offset)| !done.contains(&(**topic, offset.partition.number.cast_signed())));
    match refused {
        None => Ok(()),
        Some((_, offset)) => Err(BusError::NotOwner {
            topic: offset.partition.topic,
            number: offset.partition.number,
        }),
    }
}

const APPEND: &str = "select log.append($1, $2, $3, $4, $5, $6, $7, $8)";
/// Offsets in one order, so that two commits cannot wait for each other. Nothing is appended for who owns none of the
/// partitions.
const COMMIT_AND_APPEND: &str = "
    with moved as (
        update log.groups g set next_offset = o.next_offset, committed_at = now()
        from (select * from unnest($10::smallint[], $11::integer[], $12::bigint[], $13::bigint[])
                  as o (topic, partition, epoch, next_offset) order by topic, partition) o
        where g.name = $9 and g.topic = o.topic and g.partition = o.partition and g.epoch = o.epoch
        returning g.topic, g.partition
    ), appended as materialized (select from log.append($1, $2, $3, $4, $5, $6, $7, $8))
    select moved.* from moved cross join appended";

/// A statement whose first parameters are those of `log.append`.
fn bound<'q>(statement: &'static str, columns: &'q Columns) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(statement)
        .bind(&columns.topics)
        .bind(&columns.partitions)
        .bind(&columns.counts)
        .bind(&columns.slots)
        .bind(&columns.places)
        .bind(&columns.records)
        .bind(&columns.sizes)
        .bind(&columns.bodies)
}

/// All are checked before any is written.
fn checked(records: &[NewRecord]) -> Result<(), BusError> {
    records.iter().try_for_each(check_size)
}

async fn append_chunk(catalog: &Catalog, connection: &mut PgConnection, chunk: &[NewRecord]) -> Result<(), BusError> {
    let columns = columns(catalog, chunk).await?;
    bound(APPEND, &columns)
        .execute(connection)
        .await
        .map_err(BusError::Postgres)?;
    Ok(())
}

/// The topics of a batch, each once.
pub(super) fn topics_of(records: &[NewRecord]) -> Vec<Topic> {
    let mut topics: Vec<Topic> = records.iter().map(|record| record.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

fn chunks(records: &[NewRecord]) -> impl Iterator<Item = &[NewRecord]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let mut count = 0;
        for record in rest.iter().take(STATEMENT_RECORDS) {
            bytes += record.size();
            if count > 0 && bytes > STATEMENT_BYTES {
                break;
            }
            count += 1;
        }
        let (chunk, after) = rest.split_at(count);
        rest = after;
        Some(chunk)
    })
}

async fn columns(catalog: &Catalog, records: &[NewRecord]) -> Result<Columns, BusError> {
    let mut known = BTreeMap::new();
    let mut slots: BTreeMap<(i16, u32), usize> = BTreeMap::new();
    let mut columns = Columns::default();
    // Of each record its slot, and what the records of a slot take.
    let mut places = Vec::with_capacity(records.len());
    let mut rooms: Vec<usize> = Vec::new();
    for record in records {
        let topic = match known.get(&record.topic) {
            Some(topic) => *topic,
            None => {
                let topic = catalog.known(record.topic).await?;
                known.insert(record.topic, topic);
                topic
            }
        };
        let partition = partition_for(record.key.as_bytes(), topic.partitions);
        let slot = *slots.entry((topic.id, partition)).or_insert_with(|| {
            columns.topics.push(topic.id);
            columns.partitions.push(partition.cast_signed());
            columns.counts.push(0);
            rooms.push(0);
            rooms.len() - 1
        });
        rooms[slot] += Body::room_for(record);
        places.push(slot);
    }
    let mut open: Vec<Body> = rooms.iter().copied().map(Body::new).collect();
    for (record, slot) in records.iter().zip(places) {
        columns.counts[slot] += 1;
        open[slot].push(record);
        if open[slot].is_full() {
            let full = std::mem::replace(&mut open[slot], Body::new(0));
            columns.close(slot, full);
        }
    }
    for (slot, body) in open.into_iter().enumerate().filter(|(_, body)| body.records > 0) {
        columns.close(slot, body);
    }
    Ok(columns)
}

impl Columns {
    /// The slot's next row.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "at most STATEMENT_RECORDS records and little more than STATEMENT_BYTES"
    )]
    fn close(&mut self, slot: usize, body: Body) {
        self.slots.push(slot as i32 + 1);
        self.places.push(self.counts[slot] as i32 - 1);
        self.records.push(body.records as i32);
        self.sizes.push(body.bytes() as i32);
        self.bodies.push(body.pack());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_batch_is_cut_by_bytes_and_by_count() {
        let record = |bytes: usize| NewRecord {
            topic: Topic::Events,
            key: "k".into(),
            headers: Vec::new(),
            value: vec![0; bytes],
        };
        let small = vec![record(1); STATEMENT_RECORDS + 1];
        assert_eq!(
            chunks(&small).map(<[_]>::len).collect::<Vec<_>>(),
            [STATEMENT_RECORDS, 1]
        );
        let large = vec![record(1 << 20); 33];
        assert_eq!(chunks(&large).map(<[_]>::len).collect::<Vec<_>>(), [31, 2]);
        assert_eq!(chunks(&[]).count(), 0);
    }
}
