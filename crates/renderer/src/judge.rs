//! What becomes of one job: a pure function of the job, the contact, the rules and the time.

use domain::{Cause, Class, Contact, Reason, State, contact::MARKETING, phone, template::Link};
use events::{Job, Outbound};
use jiff::Timestamp;
use resources::{
    Compose, Composer, Snapshot, Template,
    rules::{self, Decision, Stopped, Subject},
};
use uuid::Uuid;

use crate::kinds::Kinds;

/// A message that was put off so often goes round for ever: its hours never meet its phone's zones, or clocks differ.
pub const MAX_DEFERRALS: u32 = 50;

/// Everything that is known when a job is judged.
#[derive(Debug)]
pub struct Case<'a> {
    pub job: &'a Job,
    /// Absent: there is no such contact.
    pub contact: Option<&'a Contact>,
    pub stopped: Stopped,
    pub kinds: &'a Kinds,
    /// As [`Subject::sent`].
    pub sent: &'a [u32],
    pub now: Timestamp,
}

/// What becomes of a job.
#[derive(Debug)]
pub enum Judgement {
    /// With the links to be kept before it goes on.
    Send(Box<Outbound>, Vec<Link>),
    /// It ends here: suppressed, expired or cancelled.
    End(State, Reason),
    /// Until the hours open.
    Defer(Timestamp, Reason),
    /// Until its campaign goes on.
    Park(Uuid),
}

/// The campaign that a job belongs to.
pub(crate) fn campaign(cause: &Cause) -> Option<Uuid> {
    match cause {
        Cause::Campaign { campaign_id } => campaign_id.parse().ok(),
        Cause::Trigger { .. } | Cause::Direct { .. } => None,
    }
}

/// The class of a job's message. Where the template is gone nobody knows: a campaign's is taken for marketing.
pub(crate) fn class(job: &Job, template: Option<&Template>) -> Class {
    match (template, &job.cause) {
        (Some(template), _) => template.class,
        (None, Cause::Campaign { .. }) => Class::Marketing,
        (None, Cause::Trigger { .. } | Cause::Direct { .. }) => Class::Transactional,
    }
}

/// See the module.
pub fn judge(case: &Case<'_>, snapshot: &Snapshot, composer: &Composer) -> Judgement {
    let job = case.job;
    let suppress = |reason| Judgement::End(State::Suppressed, reason);
    if let Some(reason) = job.suppress {
        return suppress(reason);
    }
    // Decided, and put off since; what was not put off follows from the event at once, whatever became of its trigger.
    if let Cause::Trigger { trigger, .. } = &job.cause
        && job.deferrals > 0
        && snapshot.triggers.get(trigger).is_none_or(|trigger| !trigger.active)
    {
        return Judgement::End(State::Cancelled, Reason::TriggerOff);
    }
    if let Some(campaign) = campaign(&job.cause) {
        if snapshot.is_cancelled(campaign) {
            return Judgement::End(State::Cancelled, Reason::CampaignCancelled);
        }
        if snapshot.is_paused(campaign) {
            return Judgement::Park(campaign);
        }
    }
    let Some(template) = composer.template(&job.template) else {
        return suppress(Reason::UnknownTemplate);
    };
    let Some(contact) = case.contact else {
        return suppress(Reason::UnknownContact);
    };
    let Some(phone) = &contact.phone else {
        return suppress(Reason::NoPhone);
    };
    let Some(kind) = case.kinds.of(phone) else {
        return suppress(Reason::InvalidPhone);
    };
    let valid_until = template
        .validity
        .and_then(|period| job.planned_at.checked_add(period.duration()).ok());
    let purpose = template.purpose().unwrap_or(MARKETING);
    let subject = Subject {
        class: template.class,
        phone,
        zone: contact.time_zone.as_deref(),
        purpose,
        consent: contact.consent_to(purpose),
        premium: kind == phone::Kind::Premium,
        stopped: case.stopped,
        deadline: job.deadline,
        valid_until,
        sent: case.sent,
    };
    match rules::decide(&snapshot.policy, &subject, case.now) {
        Decision::Send => {}
        Decision::Suppress(reason) => return suppress(reason),
        Decision::Expire(reason) => return Judgement::End(State::Expired, reason),
        Decision::Defer { reason, .. } if job.deferrals >= MAX_DEFERRALS => {
            return Judgement::End(State::Expired, reason);
        }
        Decision::Defer { until, reason } => return Judgement::Defer(until, reason),
    }
    let deadline = [job.deadline, valid_until].into_iter().flatten().min();
    // A template's `campaign.…` and `custom.…` are both whatever the campaign, the trigger or the caller gave along.
    let composed = composer.compose(&Compose {
        template: &job.template,
        contact,
        message_id: job.message_id,
        event: &job.event,
        campaign: &job.values,
        custom: &job.values,
        default_zone: None,
        deadline: job.deadline,
    });
    let composed = match composed {
        Ok(composed) => composed,
        Err(refusal) => {
            tracing::debug!(message_id = %job.message_id, template = %job.template, detail = %refusal.detail, "no text");
            return suppress(refusal.reason);
        }
    };
    let outbound = Outbound {
        message_id: job.message_id,
        contact_id: job.contact_id.clone(),
        cause: job.cause.clone(),
        class: composed.class,
        phone: phone.clone(),
        sender: composed.sender,
        text: composed.text,
        encoding: composed.encoding.as_str().to_owned(),
        parts: composed.parts,
        template: job.template.clone(),
        variant: composed.variant,
        language: composed.language,
        time_zone: contact.time_zone.clone(),
        caused_at: job.caused_at,
        planned_at: job.planned_at,
        rendered_at: case.now,
        deadline,
        cost_micros: composed.cost_micros,
        attempt: 0,
        purpose: template.purpose.clone(),
    };
    Judgement::Send(Box::new(outbound), composed.links)
}
