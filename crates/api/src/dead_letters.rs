//! Dead letters: what could not be processed, and putting it back once its cause is gone.
//!
//! A replay appends the original key, headers and bytes to the original topic, and notes the dead letter's id in the
//! same transaction. On PostgreSQL the append commits with the note: exactly once. On Kafka it comes before the commit:
//! a crash in between appends again at the next replay, under the same ids, which readers know. A record that fails
//! again becomes a new dead letter, because it has a new offset.

use std::{collections::HashSet, pin::pin};

use bus::NewRecord;
use events::{DeadLetter, Envelope, Record, Topic};
use futures::StreamExt;
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Api, ApiError, Caller, Role, topics::From};

/// The most that one list shows.
pub const MAX_LIST: usize = 10_000;
/// What is appended in one transaction.
const BATCH_RECORDS: usize = 200;
const BATCH_BYTES: usize = 4 << 20;

/// Which dead letters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// These alone; empty: all.
    pub ids: HashSet<Uuid>,
    /// Of this original topic alone.
    pub topic: Option<String>,
    /// Of this stage alone.
    pub stage: Option<String>,
}

impl Filter {
    fn takes(&self, letter: &DeadLetter) -> bool {
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && self.topic.as_ref().is_none_or(|topic| *topic == letter.topic)
            && self.stage.as_ref().is_none_or(|stage| *stage == letter.stage)
    }
}

/// A dead letter as it is listed: where and why, without what it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetterInfo {
    pub id: Uuid,
    pub stage: String,
    pub topic: String,
    pub partition: u32,
    pub offset: i64,
    pub reason: String,
    pub failed_at: Timestamp,
    pub key: String,
    /// The record's own `ce_id` and `ce_type`, where it has an envelope.
    pub record_id: Option<String>,
    pub record_type: Option<String>,
    /// Of the record's value.
    pub bytes: usize,
    pub replayed_at: Option<Timestamp>,
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Put back onto their topics now.
    pub replayed: usize,
    /// Put back before.
    pub already: usize,
    /// Not put back: their topic is none of ours.
    pub refused: usize,
    /// Asked for by id, and not (or no longer) there.
    pub missing: usize,
}

impl Api {
    /// The dead letters that the topic still holds, the oldest first, up to `limit`; `pending`: only those that were
    /// not replayed.
    pub async fn dead_letters_list(
        &self,
        caller: &Caller,
        filter: &Filter,
        pending: bool,
        limit: usize,
    ) -> Result<Vec<DeadLetterInfo>, ApiError> {
        caller.require(&[Role::Read])?;
        if !(1..=MAX_LIST).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("expected 1 to {MAX_LIST}")));
        }
        let mut letters = pin!(self.dead_letters(filter).await?.chunks(BATCH_RECORDS));
        let mut list = Vec::new();
        while let Some(chunk) = letters.next().await {
            let chunk = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
            let ids: Vec<Uuid> = chunk.iter().map(|letter| letter.id).collect();
            let replayed = self.store.dead_letters_replayed(&ids).await?;
            for letter in chunk {
                let replayed_at = replayed.get(&letter.id).copied();
                if !(pending && replayed_at.is_some()) {
                    list.push(info(letter, replayed_at));
                }
                if list.len() == limit {
                    return Ok(list);
                }
            }
        }
        Ok(list)
    }

    /// Puts dead letters back onto their topics, each once however often this is asked for.
    pub async fn dead_letters_replay(&self, caller: &Caller, filter: &Filter) -> Result<Replayed, ApiError> {
        caller.require(&[])?;
        let mut letters = pin!(self.dead_letters(filter).await?);
        let mut done = Replayed::default();
        let mut found = HashSet::new();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(letter) = letters.next().await {
            let letter = letter?;
            found.insert(letter.id);
            let Some(topic) = Topic::by_name(&letter.topic) else {
                done.refused += 1;
                continue;
            };
            bytes += letter.value.len();
            let record = NewRecord {
                topic,
                key: letter.key,
                headers: letter.headers,
                value: letter.value,
            };
            batch.push((letter.id, record));
            if batch.len() == BATCH_RECORDS || bytes >= BATCH_BYTES {
                self.replay_batch(caller, std::mem::take(&mut batch), &mut done).await?;
                bytes = 0;
            }
        }
        self.replay_batch(caller, batch, &mut done).await?;
        done.missing = filter.ids.difference(&found).count();
        tracing::info!(
            replayed = done.replayed,
            already = done.already,
            by = caller.name,
            "dead letters replayed"
        );
        Ok(done)
    }

    async fn replay_batch(
        &self,
        caller: &Caller,
        batch: Vec<(Uuid, NewRecord)>,
        done: &mut Replayed,
    ) -> Result<(), ApiError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.begin().await?;
        let ids: Vec<Uuid> = batch.iter().map(|(id, _)| *id).collect();
        let new = tx.dead_letters_claim(&ids, &caller.name, self.clock.now()).await?;
        let records: Vec<NewRecord> = batch
            .into_iter()
            .zip(&new)
            .filter_map(|((_, record), new)| new.then_some(record))
            .collect();
        let count = records.len();
        match self.log.transactional() {
            Some(log) => {
                log.append_in(tx.connection(), &records).await?;
                tx.commit().await?;
                log.announce(&records);
            }
            None => {
                self.log.append(records).await?;
                tx.commit().await?;
            }
        }
        done.replayed += count;
        done.already += ids.len() - count;
        Ok(())
    }

    /// The dead letters of the topic, each once: one may have been appended twice after a crash.
    async fn dead_letters(
        &self,
        filter: &Filter,
    ) -> Result<impl futures::Stream<Item = Result<DeadLetter, ApiError>> + Send + use<>, ApiError> {
        let filter = filter.clone();
        let mut seen = HashSet::new();
        let records = self.topic_records(Topic::DeadLetters, From::Start, false).await?;
        Ok(records.filter_map(move |record| {
            let letter = match record {
                Ok((_, record)) => read(&record.headers, &record.value)
                    .filter(|letter| filter.takes(letter) && seen.insert(letter.id))
                    .map(Ok),
                Err(error) => Some(Err(error)),
            };
            std::future::ready(letter)
        }))
    }
}

/// A record of the topic; what is none of ours (somebody else wrote it there) is passed over.
fn read(headers: &[events::Header], value: &[u8]) -> Option<DeadLetter> {
    let envelope = Envelope::from_headers(headers).ok()?;
    match DeadLetter::from_bytes(&envelope.kind, value) {
        Ok(letter) => Some(letter),
        Err(error) => {
            tracing::warn!(%error, "a record on the dead letters' topic is none");
            None
        }
    }
}

fn info(letter: DeadLetter, replayed_at: Option<Timestamp>) -> DeadLetterInfo {
    let envelope = Envelope::from_headers(&letter.headers).ok();
    let (record_id, record_type) = envelope.map(|envelope| (envelope.id, envelope.kind)).unzip();
    DeadLetterInfo {
        id: letter.id,
        stage: letter.stage,
        topic: letter.topic,
        partition: letter.partition,
        offset: letter.offset,
        reason: letter.reason,
        failed_at: letter.failed_at,
        key: letter.key,
        record_id,
        record_type,
        bytes: letter.value.len(),
        replayed_at,
    }
}
