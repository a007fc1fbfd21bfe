//! What the group coordinator decides, on its way to the consumer.
//!
//! librdkafka hands out a rebalance as an event and waits for the answer (`assign`, `unassign`), up to
//! `max.poll.interval.ms`. Assignments are answered at once. A revocation is only noted down: the consumer answers it when
//! its owner has finished and committed, so that what is under way is not thrown away. Nothing blocks in here: it is called
//! inside `poll`.

use std::{
    ops::Deref,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{
    client::ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol},
    error::KafkaError,
    topic_partition_list::TopicPartitionList,
    types::RDKafkaRespErr,
};

use super::clients::log;

pub(super) enum Decision {
    Assigned(TopicPartitionList),
    /// To be answered with [`let_go`].
    Revoked(TopicPartitionList),
    /// Answered: somebody else may have them already.
    Lost(TopicPartitionList),
}

#[derive(Default)]
pub(super) struct GroupContext {
    decisions: Mutex<Vec<Decision>>,
    /// The revocation that librdkafka waits for an answer to.
    unanswered: Mutex<Option<TopicPartitionList>>,
    /// Nobody will answer any more.
    closing: AtomicBool,
}

impl GroupContext {
    pub fn take(&self) -> Vec<Decision> {
        std::mem::take(&mut self.decisions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, decision: Decision) {
        self.decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(decision);
    }

    fn unanswered(&self) -> MutexGuard<'_, Option<TopicPartitionList>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client that answers what is open before it goes. Its last holder may be anybody: a task that is broken off, a
/// blocking call that never ran because its runtime ended. Unanswered, librdkafka's leaving of the group never ends.
pub(super) struct Member(pub BaseConsumer<GroupContext>);

impl Deref for Member {
    type Target = BaseConsumer<GroupContext>;

    fn deref(&self) -> &BaseConsumer<GroupContext> {
        &self.0
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let context = self.0.context();
        context.closing.store(true, Ordering::SeqCst);
        let unanswered = context.unanswered().take();
        if let Some(partitions) = unanswered
            && let Err(error) = let_go(&self.0, &partitions)
        {
            tracing::debug!(%error, "partitions were not let go of at the end");
        }
    }
}

/// Gives partitions up: the answer to a revocation.
pub(super) fn let_go(consumer: &BaseConsumer<GroupContext>, partitions: &TopicPartitionList) -> Result<(), KafkaError> {
    consumer.context().unanswered().take();
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
        // The eager protocol revokes everything.
        _ => consumer.unassign(),
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<GroupContext>,
        decision: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        if decision == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // Without offsets: from the committed ones.
            let done = match consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative => consumer.incremental_assign(partitions),
                _ => consumer.assign(partitions),
            };
            match done {
                Ok(()) => self.note(Decision::Assigned(partitions.clone())),
                Err(error) => tracing::warn!(%error, "assignment refused by librdkafka"),
            }
            return;
        }
        let is_lost = consumer.assignment_lost();
        if !is_lost && !self.closing.load(Ordering::SeqCst) && partitions.count() > 0 {
            *self.unanswered() = Some(partitions.clone());
            self.note(Decision::Revoked(partitions.clone()));
            return;
        }
        if let Err(error) = let_go(consumer, partitions) {
            tracing::warn!(%error, "librdkafka did not let partitions go");
        }
        self.note(Decision::Lost(partitions.clone()));
    }
}
