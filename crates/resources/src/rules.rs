//! Whether a message may go, and when: the policy applied to one message and one contact.

use domain::{Class, Consent, Phone, Reason};
use jiff::Timestamp;

use crate::Policy;

/// Everything the rules look at.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    pub class: Class,
    pub phone: &'a Phone,
    /// The contact's own zone (IANA).
    pub zone: Option<&'a str>,
    pub consent: Consent,
    /// What the suppression list says of the phone.
    pub stopped: Stopped,
    /// Nothing is sent after it (the caller's own).
    pub deadline: Option<Timestamp>,
    /// Nothing is sent after it (the template's validity).
    pub valid_until: Option<Timestamp>,
    /// For each of the policy's caps, how many marketing messages the contact got in its period; empty: not counted.
    pub sent: &'a [u32],
}

/// What the suppression list says of a phone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stopped {
    #[default]
    No,
    /// STOP: no marketing.
    Marketing,
    /// Nothing at all.
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Send,
    Defer { until: Timestamp, reason: Reason },
    Suppress(Reason),
    Expire(Reason),
}

pub fn decide(policy: &Policy, subject: &Subject<'_>, now: Timestamp) -> Decision {
    let _ = (policy, subject, now);
    Decision::Send
}

/// Whether a message of `class` may go out at `now`; otherwise when the hours open next.
pub fn hours_open(
    policy: &Policy,
    class: Class,
    zone: Option<&str>,
    phone: &Phone,
    now: Timestamp,
) -> Result<(), Timestamp> {
    let _ = (policy, class, zone, phone, now);
    Ok(())
}
