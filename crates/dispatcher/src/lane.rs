//! Reads one of the two topics: a consumer, its partitions, and how much of them is in memory.

use std::{sync::Arc, time::Duration};

use bus::{BusError, Consumer, Delivery, Partition, ReadLimits};
use domain::Class;
use events::Topic;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    claims::pause,
    core::{Core, Work},
    dead, item,
    limiter::Share,
    room::Room,
    writer,
};

/// Both topics, whose partitions decide what part of the gateways' rates is ours.
pub(crate) const TOPICS: [Topic; 2] = [Topic::OutboundTransactional, Topic::OutboundBulk];
/// Offsets above an unfinished one that are remembered.
const MOST_KEPT: usize = 50_000;
const BATCH_BYTES: usize = 4 << 20;
/// As much as two claims, two transactions of outcomes and what is gathered for a third hold, twice: it is read on at half
/// of it, and with less a claim would wait for that.
const UNFINISHED: usize = 5_000;

pub(crate) struct Lane {
    pub core: Arc<Core>,
    pub topic: Topic,
    pub consumer: Box<dyn Consumer>,
    pub batch_records: usize,
    /// How long a partition that is taken away waits for what is under way.
    pub drain: Duration,
    held_back: bool,
    room: Room,
    /// How many partitions each of the two topics has.
    partitions: [u32; 2],
}

impl Lane {
    pub(crate) fn new(
        core: Arc<Core>,
        topic: Topic,
        consumer: Box<dyn Consumer>,
        batch_records: usize,
        drain: Duration,
    ) -> Lane {
        Lane {
            core,
            topic,
            consumer,
            batch_records: batch_records.max(1),
            drain,
            held_back: false,
            room: Room::new(),
            partitions: TOPICS.map(|topic| topic.spec().partitions),
        }
    }

    /// Reads until `stop`, then waits for `end` (everything is written) and leaves the group.
    pub(crate) async fn run(mut self, stop: CancellationToken, end: CancellationToken) -> Result<(), BusError> {
        let mut failed = 0;
        let mut commit_at = Instant::now() + writer::COMMIT_EVERY;
        while !stop.is_cancelled() {
            if let Err(error) = self.step(&stop, &mut commit_at).await {
                if !error.is_transient() {
                    return Err(error);
                }
                failed += 1;
                if failed == 1 {
                    tracing::warn!(%error, topic = %self.topic, "outbound texts cannot be read, trying again");
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(pause(failed)) => {}
                }
            } else {
                failed = 0;
            }
        }
        end.cancelled().await;
        if let Err(error) = writer::commit(&self.core, self.topic, self.consumer.as_mut()).await {
            tracing::warn!(%error, topic = %self.topic, "the last offsets are not committed, their records come again");
        }
        let owned = self.core.offsets.owned_of(self.topic);
        self.core.offsets.remove(&owned);
        self.consumer.close().await
    }

    async fn step(&mut self, stop: &CancellationToken, commit_at: &mut Instant) -> Result<(), BusError> {
        self.balance()?;
        let limits = ReadLimits {
            records: self.batch_records,
            bytes: BATCH_BYTES,
            wait: Duration::from_millis(500),
        };
        let timed = self.core.log.transactional().is_none() || self.held_back;
        let delivery = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep_until(*commit_at), if timed => {
                let committed = writer::commit(&self.core, self.topic, self.consumer.as_mut()).await;
                *commit_at = Instant::now() + writer::COMMIT_EVERY;
                return match committed {
                    // The next one commits these too: no reason to read nothing until then.
                    Err(error) if error.is_transient() => {
                        tracing::debug!(%error, topic = %self.topic, "offsets are committed later");
                        Ok(())
                    }
                    committed => committed,
                };
            }
            () = self.core.offsets.room(self.topic, self.most() / 2, MOST_KEPT / 2), if self.held_back => return Ok(()),
            delivery = self.consumer.next(limits) => delivery?,
        };
        match delivery {
            Delivery::Idle => {}
            Delivery::Batch { partition, records } => self.take(partition, records),
            Delivery::Assign(partitions) => {
                for partition in &partitions {
                    self.core.offsets.assign(*partition, self.consumer.epoch(*partition));
                }
                if self.held_back {
                    self.consumer.pause(&partitions)?;
                }
                tracing::info!(topic = %self.topic, partitions = partitions.len(), "partitions assigned");
                self.share().await;
            }
            Delivery::Revoke(partitions) => self.give_up(partitions).await?,
            Delivery::Lost(partitions) => {
                tracing::warn!(topic = %self.topic, partitions = partitions.len(), "partitions lost");
                self.core.offsets.remove(&partitions);
                self.core.purge();
                self.share().await;
            }
        }
        Ok(())
    }

    fn take(&self, partition: Partition, records: Vec<bus::StoredRecord>) {
        for stored in records {
            let Some(token) = self.core.offsets.issue(partition, stored.offset) else {
                return;
            };
            match item::read(token, &stored, &self.core.phone_key) {
                Ok(item) => self.core.admit(item),
                Err(reason) => {
                    if self.core.offsets.start(&token) {
                        tracing::warn!(
                            topic = %partition.topic, partition = partition.number, offset = stored.offset, reason,
                            "a record cannot be sent and becomes a dead letter"
                        );
                        metrics::counter!("tamtam_stage_dead_letters_total", "stage" => crate::GROUP).increment(1);
                        let letter = dead::letter(partition, &stored, &reason, self.core.clock.now());
                        self.core.write(Work::Dead(token, letter));
                    }
                }
            }
        }
    }

    /// How many records may be unfinished.
    fn most(&self) -> usize {
        (self.batch_records * 4).max(UNFINISHED)
    }

    /// Back-pressure: reads on only while there is room.
    fn balance(&mut self) -> Result<(), BusError> {
        let most = self.most();
        let (unfinished, kept) = self.core.offsets.load(self.topic);
        let full = unfinished >= most || kept >= MOST_KEPT;
        let room = unfinished <= most / 2 && kept <= MOST_KEPT / 2;
        let owned = self.core.offsets.owned_of(self.topic);
        if full && !self.held_back {
            self.consumer.pause(&owned)?;
            self.held_back = true;
        } else if room && self.held_back {
            self.consumer.resume(&owned)?;
            self.held_back = false;
        }
        // Also between full and room: at the slow gateway's rate it would stay there for long.
        if self.held_back {
            let class = match self.topic {
                Topic::OutboundTransactional => Class::Transactional,
                _ => Class::Marketing,
            };
            self.room.make(&self.core, class, most);
        }
        Ok(())
    }

    /// Finishes what is under way for these partitions, then lets them go.
    async fn give_up(&mut self, partitions: Vec<Partition>) -> Result<(), BusError> {
        self.core.offsets.revoke(&partitions);
        // Before somebody else can have them.
        self.share().await;
        self.core.purge();
        let quiet = self.core.offsets.quiet(Some(&partitions));
        if tokio::time::timeout(self.drain, quiet).await.is_err() {
            tracing::warn!(topic = %self.topic, "partitions are given up with messages in flight, which become unknown or are sent again");
        }
        let committed = writer::commit(&self.core, self.topic, self.consumer.as_mut()).await;
        self.core.offsets.remove(&partitions);
        self.consumer.release(&partitions).await?;
        tracing::info!(topic = %self.topic, partitions = partitions.len(), "partitions given up");
        committed
    }

    /// Our part of the gateways' rates.
    async fn share(&mut self) {
        for (topic, partitions) in TOPICS.into_iter().zip(&mut self.partitions) {
            // Where that cannot be asked now, they are as many as before.
            if let Ok(bounds) = self.core.log.bounds(topic).await {
                *partitions = u32::try_from(bounds.len()).unwrap_or(u32::MAX);
            }
        }
        let (core, partitions) = (&self.core, self.partitions);
        // Asked under the share's lock: of two lanes that do this at once the later one is right.
        core.fleet.set_share(|_| {
            let mut ours = Vec::new();
            for (topic, partitions) in TOPICS.into_iter().zip(partitions) {
                let owned = core.offsets.staying_of(topic);
                ours.extend((0..partitions).map(|number| owned.contains(&Partition { topic, number })));
            }
            let share = Share::of(ours, Instant::now(), core.clock.now());
            crate::metrics::share(share.part());
            share
        });
    }
}
