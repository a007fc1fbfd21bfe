//! The step on `callbacks`: understand, correlate, settle, emit.
//!
//! A batch costs a constant number of statements: one to find the parts, then locks, reads and writes over all of them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bus::Partition;
use domain::{phone::PhoneKey, sms::Fragment};
use events::{Callback, Record as _, Topic};
use gateways::{Heard, key::sender};
use jiff::Timestamp;
use resources::{Gateway, Snapshot};
use stage::{Clock, Input, Live, Output, Step, StepError};
use store::{
    Tx,
    reply_parts::{ReplyKey, ReplyPart},
};
use uuid::Uuid;

use crate::{
    flood::Flood,
    forms::forms,
    given_up::{self, GivenUp},
    joined::{Joined, TRANSPORT},
    receipts::{self, Told},
    replies::{self, Piece, Reply},
};

/// Nobody waits for a receipt as for a message, and what became of the message should be written before its receipt is read.
const PACE: Duration = Duration::from_millis(100);

pub(crate) struct Callbacks {
    live: Live,
    clock: Clock,
    phone_key: PhoneKey,
    flood: Arc<Flood>,
}

impl Callbacks {
    pub(crate) fn new(live: Live, clock: Clock, phone_key: PhoneKey, flood: Arc<Flood>) -> Callbacks {
        Callbacks {
            live,
            clock,
            phone_key,
            flood,
        }
    }
}

/// What a batch holds, once it is read.
#[derive(Default)]
struct Read {
    told: Vec<Told>,
    replies: Vec<Reply>,
    pieces: Vec<Piece>,
    dead: Vec<(usize, String)>,
}

impl Read {
    fn input(&mut self, index: usize, input: &Input, snapshot: &Snapshot, phones: &PhoneKey) {
        if let Err(reason) = self.callback(index, input, snapshot, phones) {
            self.dead.push((index, reason));
        }
    }

    fn callback(&mut self, index: usize, input: &Input, snapshot: &Snapshot, phones: &PhoneKey) -> Result<(), String> {
        let callback = Callback::from_bytes(&input.envelope.kind, &input.value).map_err(|error| error.to_string())?;
        let id = |number: usize| stable_id(input.partition, input.offset, number);
        let reply_id = |number: usize, remote_id: Option<String>, from: &str| match remote_id {
            Some(remote_id) => domain::id::reply_id(&callback.gateway, &remote_id, &phones.hash(&sender(from))),
            None => id(number),
        };
        if callback.transport == TRANSPORT {
            let joined = Joined::from_callback(&callback).ok_or("a joined receipt that cannot be read")?;
            let state = joined.state().ok_or("a joined receipt without a state of ours")?;
            self.told.push(Told {
                input: index,
                id: id(0),
                gateway: callback.gateway,
                remote_id: joined.remote_id.unwrap_or_default(),
                forms: joined.forms,
                state: Some(state),
                code: joined.code,
                at: joined.at,
                received_at: callback.received_at,
                reference: joined.reference,
            });
            return Ok(());
        }
        if callback.transport == given_up::TRANSPORT {
            let reply = GivenUp::read(&callback, index).ok_or("a reply in parts that cannot be read")?;
            self.replies.push(reply);
            return Ok(());
        }
        let gateway: &Gateway = snapshot
            .gateways
            .get(&callback.gateway)
            .ok_or("its gateway is not configured any more")?;
        let heard = gateways::understand(&callback, gateway).map_err(|error| error.to_string())?;
        for (number, heard) in heard.into_iter().enumerate() {
            match heard {
                Heard::Receipt {
                    remote_id,
                    state,
                    code,
                    at,
                    reference,
                } => self.told.push(Told {
                    input: index,
                    id: id(number),
                    gateway: callback.gateway.clone(),
                    forms: forms(&remote_id, gateway.receipt_ids),
                    remote_id,
                    state,
                    code,
                    at,
                    received_at: callback.received_at,
                    reference,
                }),
                Heard::Inbound {
                    id: remote_id,
                    from,
                    to,
                    part: Some(fragment),
                    ..
                } => {
                    let ids = (reply_id(number, remote_id, &from), id(number));
                    let piece = piece(index, ids, &callback, &from, to, &fragment, phones);
                    self.pieces.extend(piece);
                }
                Heard::Inbound {
                    id: remote_id,
                    from,
                    to,
                    text,
                    ..
                } => self.replies.push(Reply {
                    input: index,
                    id: reply_id(number, remote_id, &from),
                    origin: id(number),
                    gateway: callback.gateway.clone(),
                    received_at: callback.received_at,
                    from,
                    to,
                    text,
                    parts: 1,
                    incomplete: false,
                }),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Step for Callbacks {
    fn name(&self) -> &'static str {
        crate::STAGE
    }

    fn topics(&self) -> &'static [Topic] {
        &[Topic::Callbacks]
    }

    async fn make_way(&self, batch: &[&Input]) {
        let oldest = batch.iter().filter_map(|input| input.envelope.time).min();
        self.flood.calm(oldest.unwrap_or(Timestamp::MIN), &self.clock).await;
    }

    fn pace(&self) -> Option<Duration> {
        Some(PACE)
    }

    async fn run(&self, _: Topic, batch: &[&Input], tx: &mut Tx) -> Result<Output, StepError> {
        let snapshot = self.live.current();
        let mut read = Read::default();
        for (index, input) in batch.iter().enumerate() {
            read.input(index, input, &snapshot, &self.phone_key);
        }
        let Read {
            told,
            mut replies,
            mut pieces,
            dead,
        } = read;
        let trace = |input: usize| batch.get(input).and_then(|input| input.envelope.traceparent.as_deref());
        let mut emit = receipts::take(told, &snapshot, tx, trace).await?;
        replies::drop_repeats(&mut replies, &mut pieces, tx).await?;
        replies.extend(replies::whole(pieces, &snapshot, &self.phone_key, tx).await?);
        // In the order in which they came, also between whole ones and those in parts.
        replies.sort_by_key(|reply| reply.input);
        let now = self.clock.now();
        emit.extend(replies::take(replies, &snapshot, &self.phone_key, now, tx, trace).await?);
        Ok(Output { emit, dead })
    }
}

/// A part of a reply, to be kept until the others are there.
fn piece(
    input: usize,
    (id, origin): (Uuid, Uuid),
    callback: &Callback,
    from: &str,
    to: String,
    fragment: &Fragment,
    phones: &PhoneKey,
) -> Option<Piece> {
    let part = fragment.part?;
    Some(Piece {
        input,
        origin,
        part: ReplyPart {
            key: ReplyKey {
                phone_hash: phones.hash(&sender(from)),
                recipient: to.chars().filter(|character| *character != '\0').take(30).collect(),
                gateway: callback.gateway.clone(),
                reference: part.reference,
                wide: part.wide,
                total: part.total,
            },
            sequence: part.sequence,
            id,
            callback: callback.to_bytes(),
            received_at: callback.received_at,
        },
    })
}

/// An id that the record decides, for what it leads to.
fn stable_id(partition: Partition, offset: i64, number: usize) -> Uuid {
    let mut bytes = [0_u8; 16];
    bytes[..3].copy_from_slice(b"cb:");
    bytes[4..6].copy_from_slice(&(partition.number as u16).to_be_bytes());
    bytes[9] = u8::try_from(number).unwrap_or(u8::MAX);
    // 48 bits of offset, clear of the version and the variant.
    bytes[10..].copy_from_slice(&offset.to_be_bytes()[2..]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_of_what_a_record_leads_to_differ() {
        let partition = |number| Partition {
            topic: Topic::Callbacks,
            number,
        };
        let mut ids = HashSet::new();
        for number in 0..3 {
            for offset in [0, 1, 255, 256, 1 << 40] {
                for index in 0..3 {
                    ids.insert(stable_id(partition(number), offset, index));
                }
            }
        }
        assert_eq!(ids.len(), 45);
    }
}
