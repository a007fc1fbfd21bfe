//! Where a message is that the ledger does not know yet: planned, perhaps written, and read by nobody who decides on it.
//!
//! A message's id is a hash of its cause and its contact: it leads to neither. So whoever asks names the contact, and of what
//! is planned for that contact the one with this id is told.

use domain::{CampaignState, Cause, MessageId};
use jiff::{SignedDuration, Timestamp};
use store::planned::Planned;
use uuid::Uuid;

use crate::{
    Api, ApiError, Caller, Role,
    events::check_id,
    messages_show::{LogLine, MAX_LIST, meaning},
};

/// A message that is on its way for so long is worth a look at what may hold it up.
const LONG: SignedDuration = SignedDuration::from_mins(10);

/// A message that is planned and not in the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedMessage {
    pub id: Uuid,
    pub planned: Planned,
    /// Where it is, in a sentence.
    pub explanation: String,
    /// Oldest first.
    pub log: Vec<LogLine>,
}

impl Api {
    /// A contact's messages that are planned and not in the ledger, the newest first.
    pub async fn messages_planned(
        &self,
        caller: &Caller,
        contact_id: &str,
        limit: i64,
    ) -> Result<Vec<PlannedMessage>, ApiError> {
        caller.require(&[Role::Campaigns, Role::Events, Role::Read])?;
        check_id("contact_id", contact_id).map_err(|error| ApiError::invalid("contact_id", error.message))?;
        if !(1..=MAX_LIST).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("expected 1 to {MAX_LIST}")));
        }
        let now = self.clock.now();
        let planned = self.store.messages_planned(contact_id, now, limit).await?;
        Ok(planned.into_iter().map(|planned| tell(planned, now)).collect())
    }

    /// The message of this id among those.
    pub async fn message_planned(
        &self,
        caller: &Caller,
        contact_id: &str,
        id: Uuid,
    ) -> Result<PlannedMessage, ApiError> {
        let planned = self.messages_planned(caller, contact_id, MAX_LIST).await?;
        let found = planned.into_iter().find(|message| message.id == id);
        found.ok_or_else(|| ApiError::not_found("message, neither in the ledger nor planned for this contact"))
    }
}

fn tell(planned: Planned, now: Timestamp) -> PlannedMessage {
    let cause = match (&planned.cause, &planned.campaign) {
        (Cause::Trigger { trigger, event_id, .. }, _) => format!("trigger {trigger} on event {event_id}"),
        (Cause::Campaign { .. }, Some(campaign)) => format!("campaign {}", campaign.name),
        (Cause::Campaign { campaign_id }, None) => format!("campaign {campaign_id}"),
        (Cause::Direct { .. }, _) => "a system".to_owned(),
    };
    let on_bus_at = match &planned.campaign {
        Some(campaign) => campaign.on_bus_at,
        None => Some(planned.planned_at),
    };
    let campaign_state = planned.campaign.as_ref().map(|campaign| campaign.state);
    let mut explanation = format!("planned by {cause} at {}", planned.planned_at);
    explanation.push_str(match (campaign_state, planned.suppress, on_bus_at) {
        (Some(CampaignState::Cancelled), ..) => "; the campaign was cancelled, and with it the message will be",
        (_, Some(_), _) => "; it will not be sent",
        (Some(CampaignState::Paused), None, None) => "; it waits for its paused campaign",
        (Some(CampaignState::Paused), None, Some(_)) => {
            "; it is on its way, and will wait for its paused campaign before a gateway gets it"
        }
        (_, None, None) => "; its record is about to be put on the bus",
        (_, None, Some(_)) => {
            "; it is on its way to a gateway (to be written, or written and waiting for its turn), and none was given it yet"
        }
    });
    if let Some(reason) = planned.suppress {
        explanation.push_str(&format!(": {}", meaning(reason)));
    }
    let waited = now.duration_since(planned.planned_at);
    if waited > LONG && campaign_state != Some(CampaignState::Paused) {
        explanation.push_str(&format!(
            ". That is {} minutes ago: a queue before it, a stage that does not run, or a dead letter \
             (`tamtam dead-letters list`, `tamtam audit`)",
            waited.as_mins()
        ));
    }
    let mut log = vec![LogLine {
        at: planned.caused_at,
        what: match &planned.cause {
            Cause::Trigger {
                event_source, event_id, ..
            } => format!("event {event_id} of {event_source} happened"),
            _ => format!("{cause} was launched"),
        },
    }];
    log.push(LogLine {
        at: planned.planned_at,
        what: format!("planned with template {}", planned.template),
    });
    if let (Some(at), true) = (on_bus_at, planned.campaign.is_some()) {
        log.push(LogLine {
            at,
            what: "put on the bus".to_owned(),
        });
    }
    log.sort_by_key(|line| line.at);
    PlannedMessage {
        id: MessageId::derive(&planned.cause, &planned.contact_id).0,
        planned,
        explanation,
        log,
    }
}

#[cfg(test)]
mod tests {
    use domain::Reason;
    use store::planned::PlannedBy;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    fn planned(state: CampaignState, on_bus: bool, suppress: Option<Reason>) -> Planned {
        Planned {
            contact_id: "42".into(),
            cause: Cause::Campaign {
                campaign_id: Uuid::from_u128(7).to_string(),
            },
            template: "sale".into(),
            caused_at: at(0),
            planned_at: at(1),
            deadline: None,
            suppress,
            campaign: Some(PlannedBy {
                name: "Soldes".into(),
                state,
                on_bus_at: on_bus.then(|| at(2)),
            }),
        }
    }

    #[test]
    fn it_is_told_where_a_message_is() {
        let told = |state, on_bus, suppress, now| tell(planned(state, on_bus, suppress), at(now)).explanation;
        let running = told(CampaignState::Running, true, None, 3);
        assert!(running.starts_with("planned by campaign Soldes at 2026-"), "{running}");
        assert!(
            running.contains("on its way to a gateway") && !running.contains("dead-letters"),
            "{running}"
        );
        assert!(told(CampaignState::Running, false, None, 3).contains("about to be put on the bus"));
        assert!(told(CampaignState::Paused, false, None, 9_999).ends_with("it waits for its paused campaign"));
        assert!(told(CampaignState::Cancelled, true, None, 3).contains("was cancelled"));
        let control = told(CampaignState::Running, false, Some(Reason::ControlGroup), 3);
        assert!(
            control.ends_with("it will not be sent: the contact is in the campaign's control group"),
            "{control}"
        );
        let stuck = told(CampaignState::Finished, true, None, 1 + 30 * 60);
        assert!(
            stuck.contains("30 minutes ago") && stuck.contains("dead-letters"),
            "{stuck}"
        );
    }
}
