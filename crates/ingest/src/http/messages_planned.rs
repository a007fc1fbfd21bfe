//! Messages that are planned and not in the ledger yet, as JSON.

use api::messages_planned::PlannedMessage;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    extract::When,
    messages::{CauseJson, MessageStoryJson, log_lines},
};

/// A message that is on its way to whoever writes its row in the ledger.
#[derive(Serialize, ToSchema)]
pub(super) struct PlannedJson {
    id: Uuid,
    contact_id: String,
    cause: CauseJson,
    /// The campaign's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    campaign: Option<String>,
    template: String,
    caused_at: When,
    planned_at: When,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<When>,
    /// Why it will not be sent, where that is known already.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// In a sentence, where it is.
    explanation: String,
}

impl From<PlannedMessage> for PlannedJson {
    fn from(message: PlannedMessage) -> Self {
        let planned = message.planned;
        PlannedJson {
            id: message.id,
            contact_id: planned.contact_id,
            cause: planned.cause.into(),
            campaign: planned.campaign.map(|campaign| campaign.name),
            template: planned.template,
            caused_at: When(planned.caused_at),
            planned_at: When(planned.planned_at),
            deadline: planned.deadline.map(When),
            reason: planned.suppress.map(|reason| reason.as_str()),
            explanation: message.explanation,
        }
    }
}

impl From<PlannedMessage> for MessageStoryJson {
    fn from(mut message: PlannedMessage) -> Self {
        let log = log_lines(std::mem::take(&mut message.log));
        let planned = PlannedJson::from(message);
        MessageStoryJson {
            message: None,
            explanation: planned.explanation.clone(),
            campaign: planned.campaign.clone(),
            planned: Some(planned),
            why: None,
            waiting: None,
            parts: Vec::new(),
            log,
        }
    }
}
