//! Messages that a system asks for directly: a job on the bus, and its row in the ledger.
//!
//! The job is durable before the row is written and before the answer. A crash in between leaves a job without a row,
//! and the renderer makes it; asking again under the same key is the same message.

use bus::NewRecord;
use domain::{Cause, MessageId};
use events::{Topic, record::Job};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    Api, ApiError, Caller, Role,
    events::{check_id, direct_message_id, has_nul},
    trace::traceparent,
};

/// The values of one message as JSON.
const MAX_VALUES_BYTES: usize = 64 * 1024;

/// A message that a system asks for.
#[derive(Clone, PartialEq, Default)]
pub struct NewMessage {
    pub idempotency_key: String,
    pub contact_id: String,
    pub template: String,
    /// For `{{ custom.NAME }}`.
    pub values: Map<String, Value>,
    /// Nothing is sent after it.
    pub deadline: Option<Timestamp>,
}

impl std::fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewMessage")
            .field("template", &self.template)
            .finish_non_exhaustive()
    }
}

impl Api {
    /// Asks for a message; its id follows from the key and the contact.
    pub async fn message_send(
        &self,
        caller: &Caller,
        message: NewMessage,
        trace: Option<&str>,
    ) -> Result<MessageId, ApiError> {
        caller.require(&[Role::Events, Role::Campaigns])?;
        for (field, id) in [
            ("idempotency_key", &message.idempotency_key),
            ("contact_id", &message.contact_id),
            ("template", &message.template),
        ] {
            check_id(field, id).map_err(|error| ApiError::invalid(field, error.message))?;
        }
        let size = serde_json::to_vec(&message.values).map_or(usize::MAX, |bytes| {
            if has_nul(&bytes) { usize::MAX } else { bytes.len() }
        });
        if size > MAX_VALUES_BYTES {
            return Err(ApiError::invalid(
                "values",
                format!("expected up to {MAX_VALUES_BYTES} bytes as JSON, without a NUL character"),
            ));
        }
        let now = self.clock.now();
        if message.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(ApiError::invalid("deadline", "is in the past: expected a time to come"));
        }
        let id = direct_message_id(&message.idempotency_key, &message.contact_id);
        let job = Job {
            message_id: id.0,
            contact_id: message.contact_id,
            cause: Cause::Direct {
                idempotency_key: message.idempotency_key,
            },
            template: message.template,
            caused_at: now,
            planned_at: now,
            deadline: message.deadline,
            event: Map::new(),
            values: message.values,
            deferrals: 0,
            suppress: None,
        };
        let trace = traceparent(trace, self.sample_ratio >= 1.0);
        let record = NewRecord::wrap(Topic::Jobs, &job.contact_id, id.to_string(), now, Some(&trace), &job);
        self.log.append(vec![record]).await?;
        Ok(id)
    }
}
