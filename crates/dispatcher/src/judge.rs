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
    if record.deadline.is_some_and(|deadline| deadline <= now) {
        return Judgement::Expire(Reason::DeadlinePassed);
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
