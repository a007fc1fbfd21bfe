//! Reading: first which partitions have news, then the records of one of them from its segment's table.

use sqlx::{AssertSqlSafe, PgConnection};

use super::append::headers_from_json;
use crate::{ReadLimits, StoredRecord};

/// A place in a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub topic: i16,
    pub partition: i32,
    pub position: i64,
}

/// A partition that has records at or after the place that was asked about.
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
        order by b.segment desc limit 1) s
    where h.next_offset > p.position";

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

/// Offset, time, key, headers, value.
type Row = (i64, i64, Vec<u8>, String, Vec<u8>);

/// Records from `from` on, as many as fit the limits, and at least one if there is any. Empty at the segment's end, and
/// when retention has dropped the segment: ask for news again.
///
/// A plan is not `kept` on connections that others use as well: one made for a small table must not outlive its growth.
pub(super) async fn fetch(
    connection: &mut PgConnection,
    segment: i32,
    partition: i32,
    from: i64,
    limits: ReadLimits,
    kept: bool,
) -> Result<Vec<StoredRecord>, sqlx::Error> {
    // The sizes are known without reading large values, so a batch that will not fit is not read for nothing.
    let sql = format!(
        r#"select "offset", appended_ms, key, headers, value from (
            select "offset", appended_ms, key, headers, value,
                sum(size) over (order by "offset" rows unbounded preceding) - size as before
            from (
                select "offset", appended_ms, key, headers::text as headers, value,
                    octet_length(key) + octet_length(headers::text) + octet_length(value) as size
                from log.records_{segment}
                where partition = $1 and "offset" >= $2
                order by "offset" limit $3) r) s
        where before < $4 order by "offset""#
    );
    let rows: Result<Vec<Row>, sqlx::Error> = sqlx::query_as(AssertSqlSafe(sql))
        .persistent(kept)
        .bind(partition)
        .bind(from)
        .bind(i64::try_from(limits.records.max(1)).unwrap_or(i64::MAX))
        .bind(i64::try_from(limits.bytes.max(1)).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await;
    match rows {
        Ok(rows) => Ok(rows
            .into_iter()
            .map(|(offset, timestamp_ms, key, headers, value)| StoredRecord {
                offset,
                timestamp_ms,
                key: match String::from_utf8(key) {
                    Ok(key) => key,
                    Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                },
                headers: headers_from_json(&headers),
                value,
            })
            .collect()),
        // undefined_table
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
