//! The record for `dead-letters` of a text that cannot be sent as it is.

use bus::{MAX_RECORD_BYTES, NewRecord, Partition, StoredRecord};
use domain::{Cause, MessageId};
use events::{DeadLetter, Topic};
use jiff::Timestamp;

/// Its id follows from the topic, the partition and the offset, in the way of all stages.
pub(crate) fn letter(partition: Partition, stored: &StoredRecord, reason: &str, now: Timestamp) -> NewRecord {
    let place = format!("{}/{}/{}", partition.topic, partition.number, stored.offset);
    let mut letter = DeadLetter {
        id: MessageId::derive(
            &Cause::Direct {
                idempotency_key: "dead-letter".into(),
            },
            &place,
        )
        .0,
        stage: crate::GROUP.into(),
        topic: partition.topic.name().into(),
        partition: partition.number,
        offset: stored.offset,
        reason: reason.into(),
        failed_at: now,
        key: stored.key.clone(),
        headers: stored.headers.clone(),
        value: stored.value.clone(),
    };
    let bytes = |letter: &DeadLetter| {
        let headers: usize = letter
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + 8)
            .sum();
        letter.key.len() + headers + letter.value.len() / 3 * 4 + 4_096
    };
    if bytes(&letter) > MAX_RECORD_BYTES {
        // What is kept says where the whole record is.
        letter.reason = format!(
            "{reason} (its {} bytes do not fit into a dead letter: they are at offset {} of partition {} until the topic lets them go)",
            stored.value.len(),
            stored.offset,
            partition.number
        );
        letter.value.clear();
        if bytes(&letter) > MAX_RECORD_BYTES / 2 {
            letter.headers.clear();
        }
    }
    let id = letter.id.to_string();
    NewRecord::wrap(Topic::DeadLetters, &stored.key, id, now, None, &letter)
}
