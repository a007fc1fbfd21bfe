//! Reading: which partitions have news and in which segment, then the records of those whose news are in the same one, from
//! its table. Who knows the segment reads from it straight away: each partition's head is told along with its records.

use sqlx::{AssertSqlSafe, PgConnection};

use super::packed::{self, unpack};
use crate::{ReadLimits, StoredRecord};

/// Rows that are looked at in a partition. When little comes at a time a row has few records; more are there next time.
const ROWS: i64 = 64;

/// How much is read of all partitions together, in batches: while one is worked on the next is at hand, of other partitions.
const BATCHES: usize = 2;

/// A place in a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub topic: i16,
    pub partition: i32,
    pub position: i64,
}

/// Where a partition's records at or after the place that was asked about are, or will be.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub(super) struct News {
    pub topic: i16,
    pub partition: i32,
    /// The place that was asked about.
    pub asked: i64,
    /// Where to read: the place asked about, or later if retention has passed it.
    pub position: i64,
    pub end: i64,
    /// Whose table holds `position`.
    pub segment: i32,
}

/// Of segments that begin at or before the position the last one holds it: those that begin at the same offset before it
/// are empty in this partition.
const NEWS: &str = "
    select p.topic, p.partition, p.position as asked, greatest(p.position, h.first_offset) as position,
        h.next_offset as end, s.segment
    from unnest($1::smallint[], $2::integer[], $3::bigint[]) as p (topic, partition, position)
    join log.heads h on h.topic = p.topic and h.partition = p.partition
    cross join lateral (
        select b.segment from log.starts b
        where b.topic = p.topic and b.partition = p.partition and b.first_offset <= greatest(p.position, h.first_offset)
        order by b.segment desc limit 1) s";

pub(super) async fn news(connection: &mut PgConnection, places: &[Place]) -> Result<Vec<News>, sqlx::Error> {
    let topics: Vec<i16> = places.iter().map(|place| place.topic).collect();
    let partitions: Vec<i32> = places.iter().map(|place| place.partition).collect();
    let positions: Vec<i64> = places.iter().map(|place| place.position).collect();
    sqlx::query_as(NEWS)
        .bind(topics)
        .bind(partitions)
        .bind(positions)
        .fetch_all(connection)
        .await
}

/// Partition, its end, the segment that takes appends; last offset, how many, time, body.
type Row = (i32, i64, i32, Option<i64>, Option<i32>, Option<i64>, Option<Vec<u8>>);

/// What was read of a partition.
#[derive(Debug)]
pub(super) struct Read {
    pub records: Vec<StoredRecord>,
    /// Its end, and the segment that takes what comes; absent when retention has dropped the segment that was asked for.
    pub head: Option<(i64, i32)>,
}

/// Records of these partitions of a topic, each from an offset on: as many as fit the limits of [`BATCHES`], which are shared
/// between them, and those that share a row with the last; at least one if there is any in this segment. Each in the place
/// where it was asked for.
///
/// A plan is not `kept` on connections that others use as well: one made for a small table must not outlive its growth.
pub(super) async fn fetch(
    connection: &mut PgConnection,
    topic: i16,
    segment: i32,
    wanted: &[(i32, i64)],
    limits: ReadLimits,
    kept: bool,
) -> Result<Vec<Read>, sqlx::Error> {
    // The sizes are known without reading large bodies, so what will not fit is not read for nothing.
    let sql = format!(
        r#"select p.partition, h.next_offset, h.segment, b.last_offset, b.records, b.appended_ms, b.body
        from unnest($1::integer[], $2::bigint[]) as p (partition, position)
        join log.heads h on h.topic = $5 and h.partition = p.partition
        left join lateral (
            select last_offset, records, appended_ms, body from (
                select last_offset, records, appended_ms, body,
                    sum(records) over w - records as records_before, sum(bytes) over w - bytes as bytes_before
                from (
                    select * from log.batches_{segment} t
                    where t.partition = p.partition and t.last_offset >= p.position
                    order by t.last_offset limit {ROWS}) r
                window w as (order by last_offset rows unbounded preceding)) s
            where records_before < $3 and bytes_before < $4) b on true
        order by p.partition, b.last_offset"#
    );
    let share = |limit: usize| (limit.saturating_mul(BATCHES).div_ceil(wanted.len().max(1))).clamp(1, limit.max(1));
    let shared = |limit: usize| i64::try_from(share(limit)).unwrap_or(i64::MAX);
    let rows: Result<Vec<Row>, sqlx::Error> = sqlx::query_as(AssertSqlSafe(sql))
        .persistent(kept)
        .bind(wanted.iter().map(|(partition, _)| *partition).collect::<Vec<_>>())
        .bind(wanted.iter().map(|(_, from)| *from).collect::<Vec<_>>())
        .bind(shared(limits.records))
        .bind(shared(limits.bytes))
        .bind(topic)
        .fetch_all(connection)
        .await;
    let rows = match rows {
        Ok(rows) => rows,
        // undefined_table
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Vec::new(),
        Err(error) => return Err(error),
    };
    let nothing = || Read {
        records: Vec::new(),
        head: None,
    };
    let mut read: Vec<Read> = wanted.iter().map(|_| nothing()).collect();
    for (partition, end, open, last_offset, records, appended_ms, body) in rows {
        let place = wanted.iter().position(|(wanted, _)| *wanted == partition);
        let Some(place) = place else { continue };
        read[place].head = Some((end, open));
        let (Some(last_offset), Some(records), Some(appended_ms), Some(body)) =
            (last_offset, records, appended_ms, body)
        else {
            continue;
        };
        let row = packed::Row {
            last_offset,
            records,
            appended_ms,
            body: &body,
        };
        let unpacked = unpack(&row, wanted[place].1).ok_or_else(|| {
            sqlx::Error::Decode(format!("a batch of log segment {segment} cannot be unpacked").into())
        })?;
        read[place].records.extend(unpacked);
    }
    Ok(read)
}

/// How many of these go into a batch: the first always, and the last may go over the bytes.
pub(super) fn fitting<'a>(records: impl IntoIterator<Item = &'a StoredRecord>, limits: ReadLimits) -> usize {
    let mut bytes = 0;
    let fits = |record: &&StoredRecord| {
        let fits = bytes < limits.bytes.max(1);
        bytes += record.size();
        fits
    };
    (records.into_iter().take(limits.records.max(1)))
        .take_while(fits)
        .count()
}
