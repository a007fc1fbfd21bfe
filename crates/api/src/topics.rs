//! Reading a topic, for people and scripts: from its start or its end, to its end or for ever.
//!
//! What is there is given in the order in which it was appended, over all partitions; what comes after that, as it
//! comes. A reader of this kind has no group and moves nobody's offsets. Phones and texts are hidden unless an admin
//! asks for them: the topics that hold them are the pipeline's own, and the analysts' topic has neither.

use std::{collections::VecDeque, time::Duration};

use bus::{BusError, Partition, ReadLimits, StoredRecord};
use events::{Envelope, Topic};
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{Api, ApiError, Caller, Role};

/// Records on their way to a reader that is slower than the bus.
const WAITING: usize = 256;
const READ_RECORDS: usize = 200;
const READ_BYTES: usize = 1 << 20;
const READ_WAIT: Duration = Duration::from_secs(2);
/// How often a read of what must be there may come back empty (a broker that is slow) before it counts as gone.
const EMPTY_READS: u32 = 5;
const HIDDEN: &str = "…";

/// Where to begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    #[default]
    Start,
    End,
}

impl std::str::FromStr for From {
    type Err = ApiError;

    fn from_str(word: &str) -> Result<Self, ApiError> {
        match word {
            "start" => Ok(From::Start),
            "end" => Ok(From::End),
            _ => Err(ApiError::invalid("from", "expected `start` or `end`")),
        }
    }
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct Tail {
    pub topic: Topic,
    pub from: From,
    /// Go on with what comes after the end.
    pub follow: bool,
    /// Show phones and texts; for admins only.
    pub reveal: bool,
}

/// A record as it is shown.
#[derive(Clone, PartialEq)]
pub struct TailLine {
    /// `ce_id`; empty where the record has no good envelope.
    pub id: String,
    /// `ce_type`.
    pub kind: String,
    /// `ce_time`, or when it was appended.
    pub time: Option<Timestamp>,
    pub key: String,
    pub partition: u32,
    pub offset: i64,
    /// null where the value is no JSON.
    pub data: Value,
}

impl std::fmt::Debug for TailLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TailLine")
            .field("kind", &self.kind)
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// A topic by its name, with or without the usual prefix.
pub fn topic_by_name(name: &str) -> Result<Topic, ApiError> {
    Topic::by_name(name)
        .or_else(|| Topic::by_name(name.strip_prefix("tamtam.")?))
        .ok_or_else(|| {
            let names = Topic::ALL.map(Topic::name).join(", ");
            ApiError::invalid("topic", format!("there is no such topic: expected one of {names}"))
        })
}

impl Api {
    /// Reads a topic. The stream ends at the end of the topic, or never where it follows; after an error it ends.
    pub async fn topic_tail(
        &self,
        caller: &Caller,
        tail: Tail,
    ) -> Result<impl Stream<Item = Result<TailLine, ApiError>> + Send + use<>, ApiError> {
        caller.require(&[Role::Read])?;
        if tail.reveal {
            caller.require(&[])?;
        }
        let records = self.topic_records(tail.topic, tail.from, tail.follow).await?;
        Ok(records.map(move |record| {
            let (partition, record) = record?;
            Ok(line(tail.topic, partition, record, tail.reveal))
        }))
    }

    /// The records themselves, in the order of [`Api::topic_tail`].
    pub(crate) async fn topic_records(
        &self,
        topic: Topic,
        from: From,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<(u32, StoredRecord), ApiError>> + Send + use<>, ApiError> {
        let bounds = self.log.bounds(topic).await?;
        let cursors = bounds
            .iter()
            .map(|bounds| Cursor {
                partition: bounds.partition,
                next: match from {
                    From::Start => bounds.first,
                    From::End => bounds.end,
                },
                end: bounds.end,
                read: VecDeque::new(),
            })
            .collect();
        let (sender, mut receiver) = mpsc::channel(WAITING);
        tokio::spawn(read_all(self.log.clone(), cursors, follow, sender));
        Ok(stream::poll_fn(move |context| receiver.poll_recv(context)).map(|record| record.map_err(ApiError::from)))
    }
}

/// A partition's reader, up to what was its end.
struct Cursor {
    partition: Partition,
    next: i64,
    end: i64,
    read: VecDeque<StoredRecord>,
}

type Sent = Result<(u32, StoredRecord), BusError>;

async fn read_all(
    log: std::sync::Arc<dyn bus::Log>,
    mut cursors: Vec<Cursor>,
    follow: bool,
    sender: mpsc::Sender<Sent>,
) {
    // What is there, the oldest head of all partitions first.
    loop {
        for cursor in &mut cursors {
            if let Err(error) = fill(&*log, cursor).await {
                let _ = sender.send(Err(error)).await;
                return;
            }
        }
        let oldest = cursors
            .iter_mut()
            .filter(|cursor| !cursor.read.is_empty())
            .min_by_key(|cursor| cursor.read.front().map(|record| record.timestamp_ms));
        let Some((number, record)) =
            oldest.and_then(|cursor| Some((cursor.partition.number, cursor.read.pop_front()?)))
        else {
            break;
        };
        if sender.send(Ok((number, record))).await.is_err() {
            return;
        }
    }
    if !follow {
        return;
    }
    // What comes: each partition by itself, until the reader has gone.
    let readers = cursors
        .into_iter()
        .map(|cursor| follow_one(&*log, cursor, sender.clone()));
    futures::future::join_all(readers).await;
}

/// Reads on where everything read was given out and there is more.
async fn fill(log: &dyn bus::Log, cursor: &mut Cursor) -> Result<(), BusError> {
    let mut empty = 0;
    while cursor.read.is_empty() && cursor.next < cursor.end {
        let records = log.read(cursor.partition, cursor.next, limits()).await?;
        match records.last() {
            Some(last) => {
                cursor.next = last.offset + 1;
                let end = cursor.end;
                cursor
                    .read
                    .extend(records.into_iter().filter(|record| record.offset < end));
            }
            None => {
                empty += 1;
                if empty == EMPTY_READS {
                    // Retention removed it in between.
                    cursor.next = cursor.end;
                }
            }
        }
    }
    // What lies behind the end of then is read again when it is followed.
    cursor.next = cursor.next.min(cursor.end);
    Ok(())
}

async fn follow_one(log: &dyn bus::Log, cursor: Cursor, sender: mpsc::Sender<Sent>) {
    let mut next = cursor.end;
    loop {
        let read = tokio::select! {
            read = log.read(cursor.partition, next, limits()) => read,
            () = sender.closed() => return,
        };
        match read {
            Ok(records) => {
                for record in records {
                    next = record.offset + 1;
                    if sender.send(Ok((cursor.partition.number, record))).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                let _ = sender.send(Err(error)).await;
                return;
            }
        }
    }
}

fn limits() -> ReadLimits {
    ReadLimits {
        records: READ_RECORDS,
        bytes: READ_BYTES,
        wait: READ_WAIT,
    }
}

fn line(topic: Topic, partition: u32, record: StoredRecord, reveal: bool) -> TailLine {
    let envelope = Envelope::from_headers(&record.headers).ok();
    let (id, kind, time) = match envelope {
        Some(envelope) => (envelope.id, envelope.kind, envelope.time),
        None => Default::default(),
    };
    let mut data = serde_json::from_slice(&record.value).unwrap_or(Value::Null);
    if !reveal {
        hide(topic, &mut data);
    }
    TailLine {
        id,
        kind,
        time: time.or_else(|| record.appended_at()),
        key: record.key,
        partition,
        offset: record.offset,
        data,
    }
}

/// Hides what names a phone or is a text: by the field where the schema is ours, by the field's name where a system
/// outside wrote the data.
fn hide(topic: Topic, data: &mut Value) {
    let fields: &[&str] = match topic {
        // What a gateway said holds the phone and, of replies, the text; a dead letter is any record.
        Topic::Callbacks => &["body", "meta"],
        Topic::DeadLetters => &["value"],
        _ => &["phone", "text"],
    };
    hide_fields(fields, data);
}

fn hide_fields(fields: &[&str], data: &mut Value) {
    match data {
        Value::Object(map) => {
            for (name, value) in map {
                if fields.contains(&name.as_str()) && !value.is_null() {
                    *value = HIDDEN.into();
                } else {
                    hide_fields(fields, value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| hide_fields(fields, value)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn phones_and_texts_are_hidden_wherever_they_stand() {
        let mut outbound = json!({"message_id": "m", "phone": "+262692000001", "text": "Bonjour", "parts": 1});
        hide(Topic::OutboundBulk, &mut outbound);
        assert_eq!(
            outbound,
            json!({"message_id": "m", "phone": "…", "text": "…", "parts": 1})
        );
        let mut event = json!({"changes": [{"phone": "+262692000001", "city": "x"}], "phone": null});
        hide(Topic::Events, &mut event);
        assert_eq!(event, json!({"changes": [{"phone": "…", "city": "x"}], "phone": null}));
        let mut callback = json!({"gateway": "main", "body": "AAAA", "meta": {"path": "/?to=262692000001"}});
        hide(Topic::Callbacks, &mut callback);
        assert_eq!(callback, json!({"gateway": "main", "body": "…", "meta": "…"}));
    }

    #[test]
    fn a_topic_is_found_with_and_without_the_prefix() {
        assert_eq!(topic_by_name("receipts").unwrap(), Topic::Receipts);
        assert_eq!(topic_by_name("tamtam.outbound.bulk").unwrap(), Topic::OutboundBulk);
        let error = topic_by_name("sms").unwrap_err();
        assert!(error.message.contains("dead-letters"));
    }
}
