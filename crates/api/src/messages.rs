//! Messages that a system asks for directly: a job on the bus, and its row in the ledger.
//!
//! The job is durable before the row is written and before the answer. A crash in between leaves a job without a row,
//! and the pipeline makes it; asking again under the same key is the same message. A row that is there means a job that
//! was appended: asking again then appends nothing.

use bus::NewRecord;
use domain::{Cause, MessageId, State};
use events::{Topic, record::Job};
use jiff::Timestamp;
use resources::Kind;
use serde_json::{Map, Value};
use store::messages::{MessageRow, Verdict};
use uuid::Uuid;

use crate::{
    Api, ApiError, Caller, Role,
    events::{check_id, direct_message_id, has_nul},
    trace::of_record,
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
        let class = self.template_exists(&message.template).await?;
        let id = direct_message_id(&message.idempotency_key, &message.contact_id);
        if let Some(row) = self.store.message_get(id.0).await? {
            return match row.template == message.template {
                true => Ok(id),
                false => Err(ApiError::conflict(
                    "another message was asked for under this key: expected a new key for a new message",
                )
                .at("idempotency_key")),
            };
        }
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
            phone: None,
        };
        let trace = of_record(trace, self.sampled(), &id.to_string());
        let record = NewRecord::wrap(Topic::Jobs, &job.contact_id, id.to_string(), now, Some(&trace), &job);
        self.log.append(vec![record]).await?;
        if let Err(error) = self.message_queued(&job, class).await {
            // The job is durable, and with it the message: whoever decides on it writes the row.
            tracing::warn!(message_id = %id, %error, "a queued message could not be written down");
        }
        Ok(id)
    }

    /// The class of a template that must be there.
    pub(crate) async fn template_exists(&self, name: &str) -> Result<domain::Class, ApiError> {
        let row = self.store.resource_get(Kind::Template.as_str(), name).await?;
        let row = row.ok_or_else(|| ApiError::invalid("template", "there is no template of this name"))?;
        row.body
            .get("class")
            .and_then(Value::as_str)
            .and_then(|class| class.parse().ok())
            .ok_or_else(|| ApiError::internal("the stored template has no class"))
    }

    async fn message_queued(&self, job: &Job, class: domain::Class) -> Result<(), store::StoreError> {
        let verdict = Verdict {
            contact_id: job.contact_id.clone(),
            message_id: job.message_id,
            cause: job.cause.clone(),
            class,
            template: job.template.clone(),
            variant: None,
            state: State::Queued,
            reason: None,
            encoding: None,
            parts: 0,
            cost_micros: 0,
            phone_hash: None,
            caused_at: job.caused_at,
            planned_at: job.planned_at,
            rendered_at: None,
            decided_by: None,
            at: job.planned_at,
        };
        let mut tx = self.store.begin().await?;
        // A stage that was faster has moved it on already: then it stays where it is.
        tx.messages_decide(&[verdict]).await?;
        tx.commit().await
    }

    /// What became of a message.
    pub async fn message_get(&self, caller: &Caller, id: Uuid) -> Result<MessageRow, ApiError> {
        caller.require(&[Role::Campaigns, Role::Events, Role::Read])?;
        let row = self.store.message_get(id).await?;
        row.ok_or_else(|| ApiError::not_found("message"))
    }
}
