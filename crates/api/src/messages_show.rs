//! "Why did 42 get this, or not?": a message's row, its cause, its reason, and everything that happened to it in order.

use domain::{
    Cause, Reason, State,
    audience::{Explained, Expression},
};
use jiff::Timestamp;
use resources::Trigger;
use store::{
    audience::Named,
    explain::{PartLine, Waiting},
    messages::MessageRow,
};
use uuid::Uuid;

use crate::{
    Api, ApiError, Caller, ErrorKind, Role,
    audience::{EventKey, Moment},
    events::check_id,
    resources::named,
};

/// The most that one list shows.
pub const MAX_LIST: i64 = 1_000;

/// Everything that is known about one message.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageStory {
    pub message: MessageRow,
    /// In a sentence, why it was sent or not.
    pub explanation: String,
    /// The campaign's name, where a campaign caused it.
    pub campaign: Option<String>,
    /// Clause by clause why the contact is in the campaign's audience or the trigger's conditions, or is not: by what it had
    /// done when the message was planned, and by its fields as they are today; absent where nothing is asked of it, or it is
    /// gone.
    pub why: Option<Explained>,
    /// What it waits for, if it waits.
    pub waiting: Option<Waiting>,
    /// Each SMS that a gateway took.
    pub parts: Vec<PartLine>,
    /// Oldest first.
    pub log: Vec<LogLine>,
}

/// What is asked of a contact, and of which moment.
struct Conditions {
    expression: Expression,
    named: Named,
    /// The triggering event's type, source and id.
    event: Option<(String, String, String)>,
    moment: Moment,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub at: Timestamp,
    pub what: String,
}

impl Api {
    /// A message with its cause, its reason and its log.
    pub async fn message_show(&self, caller: &Caller, id: Uuid) -> Result<MessageStory, ApiError> {
        let message = self.message_get(caller, id).await?;
        let waiting = self.store.message_waiting(&message.contact_id, id).await?;
        let parts = self.store.message_parts_of(id).await?;
        let why = match self.message_conditions(&message).await? {
            Some(Conditions {
                expression,
                named,
                event,
                moment,
            }) => {
                let event = event.as_ref().map(|(kind, source, id)| EventKey { kind, source, id });
                let why = self
                    .explain_contact(&expression, &named, &message.contact_id, event, moment)
                    .await;
                match why {
                    Ok(why) => Some(why),
                    // Somebody who was erased.
                    Err(error) if error.kind == ErrorKind::NotFound => None,
                    Err(error) => return Err(error),
                }
            }
            None => None,
        };
        let mut log = times(&message);
        let mut campaign = None;
        if let Cause::Trigger { trigger, .. } = &message.cause
            && let Some(trigger) = self.snapshot().await?.triggers.get(trigger)
        {
            log.extend(besides(trigger).into_iter().map(|what| LogLine {
                at: message.planned_at,
                what,
            }));
        }
        if let Cause::Campaign { campaign_id } = &message.cause
            && let Ok(campaign_id) = campaign_id.parse()
        {
            campaign = self
                .store
                .campaign_get(campaign_id)
                .await?
                .map(|campaign| campaign.name);
            log.extend(
                self.store
                    .campaign_log(campaign_id)
                    .await?
                    .into_iter()
                    .map(|line| LogLine {
                        at: line.at,
                        what: format!("the campaign was {} by {}", line.action, line.by),
                    }),
            );
        }
        log.extend(parts.iter().map(|part| LogLine {
            at: part.at,
            what: format!("part {} at gateway {}: {}", part.part, part.gateway, part.state),
        }));
        log.sort_by_key(|line| line.at);
        Ok(MessageStory {
            explanation: explain(&message, campaign.as_deref(), waiting.as_ref()),
            message,
            campaign,
            why,
            waiting,
            parts,
            log,
        })
    }

    /// What was asked of the contact before this message was planned.
    async fn message_conditions(&self, message: &MessageRow) -> Result<Option<Conditions>, ApiError> {
        let snapshot = self.snapshot().await?;
        let (expression, event, moment) = match &message.cause {
            Cause::Campaign { campaign_id } => {
                let Ok(id) = campaign_id.parse() else { return Ok(None) };
                let Some(campaign) = self.store.campaign_get(id).await? else {
                    return Ok(None);
                };
                let moment = Moment {
                    now: campaign.launched_at.unwrap_or(message.planned_at),
                    until: Some(message.planned_at),
                };
                (domain::audience::parse(&campaign.expression).ok(), None, moment)
            }
            Cause::Trigger {
                trigger,
                event_source,
                event_id,
            } => {
                let Some(trigger) = snapshot.triggers.get(trigger) else {
                    return Ok(None);
                };
                let when = trigger.when.as_deref();
                let when = when.and_then(|when| domain::audience::parse_for_trigger(when).ok());
                let audience = trigger.audience.as_deref().map(Expression::member);
                let clauses: Vec<Expression> = when.into_iter().chain(audience).collect();
                let event = (trigger.on.clone(), event_source.clone(), event_id.clone());
                // As the segmenter decides: at once by what was up to the event, after a wait by what is known then.
                let until = match trigger.wait {
                    Some(_) => message.planned_at,
                    None => message.caused_at,
                };
                let moment = Moment {
                    now: message.planned_at,
                    until: Some(until),
                };
                (Expression::all(&clauses), Some(event), moment)
            }
            Cause::Direct { .. } => return Ok(None),
        };
        Ok(expression.map(|expression| Conditions {
            expression,
            named: named(&snapshot),
            event,
            moment,
        }))
    }

    /// A contact's messages, the newest first.
    pub async fn messages_of(
        &self,
        caller: &Caller,
        contact_id: &str,
        limit: i64,
    ) -> Result<Vec<MessageRow>, ApiError> {
        caller.require(&[Role::Campaigns, Role::Events, Role::Read])?;
        check_id("contact_id", contact_id).map_err(|error| ApiError::invalid("contact_id", error.message))?;
        if !(1..=MAX_LIST).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("expected 1 to {MAX_LIST}")));
        }
        Ok(self.store.messages_of(contact_id, limit).await?)
    }
}

/// The times of the row, each as a line.
fn times(message: &MessageRow) -> Vec<LogLine> {
    let cause = match &message.cause {
        Cause::Trigger {
            trigger,
            event_source,
            event_id,
        } => format!("event {event_id} of {event_source} happened and started trigger {trigger}"),
        Cause::Campaign { .. } => "the campaign reached this contact".to_owned(),
        Cause::Direct { .. } => "a system asked for it".to_owned(),
    };
    let mut lines = vec![
        LogLine {
            at: message.caused_at,
            what: cause,
        },
        LogLine {
            at: message.planned_at,
            what: format!("planned with template {}", message.template),
        },
    ];
    let mut add = |at: Option<Timestamp>, what: String| {
        if let Some(at) = at {
            lines.push(LogLine { at, what });
        }
    };
    let gateway = message.gateway.as_deref().unwrap_or("unknown");
    add(message.rendered_at, format!("written, {} part(s)", message.parts));
    add(
        message.claimed_at,
        format!("claimed for gateway {gateway}, attempt {}", message.attempt),
    );
    add(message.accepted_at, format!("accepted by gateway {gateway}"));
    let reason = message.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let code = message
        .gateway_code
        .as_deref()
        .map(|code| format!(" (the gateway said {code})"))
        .unwrap_or_default();
    add(message.settled_at, format!("{}{reason}{code}", message.state));
    lines
}

/// What a trigger asks beside its conditions, and what held when it planned a message.
fn besides(trigger: &Trigger) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(wait) = trigger.wait {
        lines.push(match &trigger.unless {
            Some(unless) => format!("waited {wait} after the event, and {unless} did not happen (`unless`)"),
            None => format!("waited {wait} after the event"),
        });
    }
    if let Some(period) = trigger.once_per {
        lines.push(format!("no other message of this trigger in {period} (`once_per`)"));
    }
    lines
}

/// Why it was sent or not, in a sentence.
fn explain(message: &MessageRow, campaign: Option<&str>, waiting: Option<&Waiting>) -> String {
    let cause = match &message.cause {
        Cause::Trigger { trigger, event_id, .. } => {
            format!("trigger {trigger} fired on event {event_id}")
        }
        Cause::Campaign { campaign_id } => {
            format!("campaign {} reached this contact", campaign.unwrap_or(campaign_id))
        }
        Cause::Direct { .. } => "a system asked for this message".to_owned(),
    };
    let became = match message.state {
        State::Queued => "it is on its way".to_owned(),
        State::Deferred => match waiting {
            Some(Waiting { due_at: Some(due), .. }) => format!("it waits until {due}"),
            Some(Waiting { parked: Some(_), .. }) => "it waits for its paused campaign".to_owned(),
            _ => "it waits".to_owned(),
        },
        State::Sending => "it is being handed to a gateway".to_owned(),
        State::Unknown => "it is not known whether the gateway took it".to_owned(),
        State::Accepted => "a gateway took it and no delivery was reported yet".to_owned(),
        State::Delivered => "it was delivered".to_owned(),
        State::Failed => "it failed".to_owned(),
        State::Expired => "it was not sent in time".to_owned(),
        State::Suppressed => "it was not sent".to_owned(),
        State::Cancelled => "it was cancelled before it was sent".to_owned(),
    };
    match message.reason {
        Some(reason) => format!("{cause}; {became}: {}", meaning(reason)),
        None => format!("{cause}; {became}"),
    }
}

/// A reason in words.
pub fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::UnknownContact => "there is no such contact",
        Reason::NoPhone => "the contact has no phone",
        Reason::NoConsent => "the contact has not consented to marketing messages",
        Reason::Stopped => "the phone has opted out (STOP)",
        Reason::Blocked => "the phone is blocked",
        Reason::QuietHours => "the hours when marketing may be sent come only after its deadline",
        Reason::CapReached => "the contact had got as many marketing messages as the policy allows",
        Reason::DuplicatePhone => "another contact of this campaign has the same phone",
        Reason::DuplicateText => "the same text went to the same phone a short while before",
        Reason::InvalidPhone => "the contact's phone is no valid number",
        Reason::DestinationNotAllowed => "the policy does not allow this destination",
        Reason::DestinationLimit => "this destination's limit for an hour was reached",
        Reason::MissingValue => "the text needs a value that is not set",
        Reason::UnknownTemplate => "there is no such template",
        Reason::TemplateFailed => "the template could not be filled in within its limits",
        Reason::Budget => "the campaign's budget was spent",
        Reason::ControlGroup => "the contact is in the campaign's control group",
        Reason::DeadlinePassed => "its deadline had passed",
        Reason::ValidityPassed => "it was no longer worth sending (the template's validity)",
        Reason::NoGateway => "no gateway serves this phone",
        Reason::GatewayRefused => "the gateway refused it",
        Reason::RetriesExhausted => "the gateway kept failing",
        Reason::Undeliverable => "the gateway could not deliver it",
        Reason::OutcomeUnknown => "the connection ended before the gateway's answer",
        Reason::NoReceipt => "no receipt came in time",
        Reason::CampaignCancelled => "the campaign was cancelled",
        Reason::TriggerOff => "the trigger was switched off while the message waited",
    }
}
