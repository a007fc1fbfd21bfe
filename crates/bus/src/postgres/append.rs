//! Appending: one statement a batch, whatever topics and partitions it is for.
//!
//! `log.append` takes the partitions' head rows in one order, gives out offsets, writes. The rows are held until the
//! commit, so a record becomes visible only together with, or after, all that have lower offsets: a reader that goes by
//! offset skips nothing. If the transaction rolls back, so do the offsets: there are no gaps either.

use std::{borrow::Cow, collections::BTreeMap};

use events::{Header, Topic};
use sqlx::PgConnection;

use super::catalog::Catalog;
use crate::{BusError, NewRecord, check_size, partition_for};

/// So that a statement stays far below PostgreSQL's limit of 1 GB a message.
pub(super) const STATEMENT_BYTES: usize = 32 << 20;
pub(super) const STATEMENT_RECORDS: usize = 10_000;

/// A batch as `log.append` takes it, borrowed from the records.
#[derive(Default)]
struct Columns<'a> {
    topics: Vec<i16>,
    partitions: Vec<i32>,
    counts: Vec<i64>,
    slots: Vec<i32>,
    places: Vec<i32>,
    keys: Vec<&'a [u8]>,
    headers: Vec<String>,
    bodies: Vec<&'a [u8]>,
}

/// Appends in statements of bounded size. Outside a transaction each is its own.
pub(super) async fn append(
    catalog: &Catalog,
    connection: &mut PgConnection,
    records: &[NewRecord],
) -> Result<(), BusError> {
    // All are checked before any is written.
    for record in records {
        check_size(record)?;
    }
    for chunk in chunks(records) {
        let columns = columns(catalog, chunk).await?;
        sqlx::query("select log.append($1, $2, $3, $4, $5, $6, $7, $8)")
            .bind(&columns.topics)
            .bind(&columns.partitions)
            .bind(&columns.counts)
            .bind(&columns.slots)
            .bind(&columns.places)
            .bind(&columns.keys)
            .bind(&columns.headers)
            .bind(&columns.bodies)
            .execute(&mut *connection)
            .await
            .map_err(BusError::Postgres)?;
    }
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

async fn columns<'a>(catalog: &Catalog, records: &'a [NewRecord]) -> Result<Columns<'a>, BusError> {
    let mut known = BTreeMap::new();
    let mut slots: BTreeMap<(i16, u32), usize> = BTreeMap::new();
    let mut columns = Columns::default();
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
            columns.counts.len() - 1
        });
        // Both fit: a chunk has at most STATEMENT_RECORDS records.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_possible_wrap,
            reason = "at most STATEMENT_RECORDS"
        )]
        {
            columns.slots.push(slot as i32 + 1);
            columns.places.push(columns.counts[slot] as i32);
        }
        columns.counts[slot] += 1;
        columns.keys.push(record.key.as_bytes());
        columns.headers.push(headers_to_json(&record.headers));
        columns.bodies.push(&record.value);
    }
    Ok(columns)
}

/// `["name","value",…]`: order and repeated names are kept.
fn headers_to_json(headers: &[Header]) -> String {
    let mut json = Vec::with_capacity(2 + headers.iter().map(|(k, v)| k.len() + v.len() + 6).sum::<usize>());
    json.push(b'[');
    for (place, text) in headers.iter().flat_map(|(name, value)| [name, value]).enumerate() {
        if place > 0 {
            json.push(b',');
        }
        // Writing a text to memory cannot fail.
        let _ = serde_json::to_writer(&mut json, text);
    }
    json.push(b']');
    String::from_utf8(json).unwrap_or_default()
}

/// A text that borrows from the JSON where it is written without escapes.
#[derive(serde::Deserialize)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

pub(super) fn headers_from_json(json: &str) -> Vec<Header> {
    let mut texts = serde_json::from_str::<Vec<Borrowed<'_>>>(json)
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
    use super::*;

    #[test]
    fn headers_come_back_in_order_and_with_every_character() {
        let headers: Vec<Header> = [("a", "1"), ("a", "\u{0} \"quoted\" é"), ("", "")]
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        assert_eq!(headers_from_json(&headers_to_json(&headers)), headers);
        assert_eq!(headers_to_json(&[]), "[]");
    }

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
