//! What is looked at again, right before a message is claimed: it was rendered some time ago.

use domain::{Class, Reason};
use events::record::Outbound;
use jiff::Timestamp;
use resources::{Snapshot, rules};
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Send,
    Cancel,
    /// Until the campaign goes on.
    Park(Uuid),
    Defer(Timestamp),
    Expire(Reason),
}

pub(crate) fn judge(record: &Outbound, campaign: Option<Uuid>, snapshot: &Snapshot, now: Timestamp) -> Judgement {
    if let Some(campaign) = campaign {
        if snapshot.is_cancelled(campaign) {
            return Judgement::Cancel;
        }
        if snapshot.is_paused(campaign) {
            return Judgement::Park(campaign);
        }
    }
    if let Some(deadline) = record.deadline
        && deadline <= now
    {
        return Judgement::Expire(late(record, snapshot));
    }
    if record.class == Class::Marketing
        && let Err(opens) = rules::hours_open(
            &snapshot.policy,
            record.class,
            record.time_zone.as_deref(),
            &record.phone,
            now,
        )
    {
        return match record.deadline.is_some_and(|deadline| deadline <= opens) {
            true => Judgement::Expire(Reason::QuietHours),
            false => Judgement::Defer(opens),
        };
    }
    Judgement::Send
}

/// What a record is too late for, by its `deadline`: that is the earlier of the sender's own and of the template's validity.
pub(crate) fn late(record: &Outbound, snapshot: &Snapshot) -> Reason {
    let validity = snapshot
        .templates
        .get(&record.template)
        .and_then(|template| template.validity);
    let valid_until = validity.and_then(|validity| record.planned_at.checked_add(validity.duration()).ok());
    match valid_until.is_some() && valid_until == record.deadline {
        true => Reason::ValidityPassed,
        false => Reason::DeadlinePassed,
    }
}

#[cfg(test)]
mod tests {
    use domain::{Cause, Phone};
    use resources::parse_toml;

    use super::*;

    #[test]
    fn what_passed_is_told() {
        let mut snapshot = Snapshot::default();
        let toml = "[[template]]\nname = \"sale\"\nclass = \"marketing\"\nsender = \"36111\"\ntext = \"x\"\nvalidity = \"2h\"\n";
        for resource in parse_toml(toml).unwrap() {
            snapshot.insert(resource, 1);
        }
        let planned: Timestamp = "2026-11-24T08:00:00Z".parse().unwrap();
        let mut record = Outbound {
            message_id: Uuid::nil(),
            contact_id: "1".into(),
            cause: Cause::Direct {
                idempotency_key: "1".into(),
            },
            class: Class::Marketing,
            phone: Phone::from_e164("+262692123456"),
            sender: "36111".into(),
            text: "x".into(),
            encoding: "GSM-7".into(),
            parts: 1,
            template: "sale".into(),
            variant: None,
            language: None,
            time_zone: None,
            caused_at: planned,
            planned_at: planned,
            rendered_at: planned,
            deadline: Some("2026-11-24T10:00:00Z".parse().unwrap()),
            cost_micros: 0,
            attempt: 0,
            purpose: None,
        };
        let late: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let judged = |record: &Outbound, snapshot: &Snapshot, at: Timestamp| judge(record, None, snapshot, at);
        assert_eq!(judged(&record, &snapshot, planned), Judgement::Send);
        assert_eq!(
            judged(&record, &snapshot, late),
            Judgement::Expire(Reason::ValidityPassed)
        );
        // The sender's own deadline was earlier.
        record.deadline = Some("2026-11-24T09:00:00Z".parse().unwrap());
        assert_eq!(
            judged(&record, &snapshot, late),
            Judgement::Expire(Reason::DeadlinePassed)
        );
        // The template is gone, or has no validity any more.
        snapshot.templates.clear();
        assert_eq!(
            judged(&record, &snapshot, late),
            Judgement::Expire(Reason::DeadlinePassed)
        );
    }
}
