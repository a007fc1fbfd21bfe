//! Whether a message may go, and when: the policy applied to one message and one contact.
//!
//! It is decided when the text is made and again when a deferred message is due, always from the arguments alone. The
//! dispatcher asks once more for the hours, just before it sends.

use domain::{
    Class, Consent, Phone, Reason,
    policy::Rule,
    territory::{Place, Table},
};
use jiff::{SignedDuration, Timestamp};

use crate::{Policy, policy::QuietHours};

/// Everything the rules look at.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    pub class: Class,
    pub phone: &'a Phone,
    /// The contact's own zone (IANA).
    pub zone: Option<&'a str>,
    /// What the message is for: the template's ([`crate::Template::purpose`]); of no account where it is transactional.
    pub purpose: &'a str,
    /// The contact's consent to that purpose.
    pub consent: Consent,
    /// Whether calls to it cost more than usual (libphonenumber's premium rate).
    pub premium: bool,
    /// What the suppression list says of the phone.
    pub stopped: Stopped,
    /// Nothing is sent after it (the caller's own).
    pub deadline: Option<Timestamp>,
    /// Nothing is sent after it (the template's validity).
    pub valid_until: Option<Timestamp>,
    /// For each of the policy's caps, how many marketing messages that it counts the contact got in its period; empty: not
    /// counted.
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

/// The rules in their order: what forbids the phone or the message for good comes first, what only concerns the hour last,
/// so that nobody waits for a morning on which they may not be written to either.
///
/// A transactional message is exempt from consent, STOP, caps and hours; never from a phone being blocked.
pub fn decide(policy: &Policy, subject: &Subject<'_>, now: Timestamp) -> Decision {
    let marketing = subject.class == Class::Marketing;
    let destination = destination(policy, subject.phone);
    if subject.stopped == Stopped::All || destination == Err(Reason::Blocked) {
        return Decision::Suppress(Reason::Blocked);
    }
    if marketing && !subject.consent.is_given() {
        return Decision::Suppress(Reason::NoConsent);
    }
    if marketing && subject.stopped == Stopped::Marketing {
        return Decision::Suppress(Reason::Stopped);
    }
    if let Err(reason) = destination {
        return Decision::Suppress(reason);
    }
    if subject.premium && !policy.allow_premium {
        return Decision::Suppress(Reason::DestinationNotAllowed);
    }
    if marketing
        && policy
            .caps
            .iter()
            .zip(subject.sent)
            .any(|(cap, sent)| cap.counts(subject.purpose) && *sent >= cap.messages)
    {
        return Decision::Suppress(Reason::CapReached);
    }
    let limits = [
        (subject.deadline, Reason::DeadlinePassed),
        (subject.valid_until, Reason::ValidityPassed),
    ];
    for (limit, reason) in limits {
        if limit.is_some_and(|limit| now >= limit) {
            return Decision::Expire(reason);
        }
    }
    match hours_open(policy, subject.class, subject.zone, subject.phone, now) {
        Ok(()) => Decision::Send,
        // Waiting would be in vain: it is told now, not the next morning.
        Err(opens)
            if limits
                .iter()
                .any(|(limit, _)| limit.is_some_and(|limit| opens >= limit)) =>
        {
            Decision::Expire(Reason::QuietHours)
        }
        Err(until) => Decision::Defer {
            until,
            reason: Reason::QuietHours,
        },
    }
}

/// Whether anything may be sent to where the phone is; otherwise why not.
pub fn destination(policy: &Policy, phone: &Phone) -> Result<(), Reason> {
    let begins = |prefix: &String| phone.e164().starts_with(prefix.as_str());
    if policy.blocked_prefixes.iter().any(begins) {
        return Err(Reason::Blocked);
    }
    match policy.allowed_prefixes.is_empty() || policy.allowed_prefixes.iter().any(begins) {
        true => Ok(()),
        false => Err(Reason::DestinationNotAllowed),
    }
}

/// Whether a message of `class` may go out at `now`; otherwise when the hours open next.
pub fn hours_open(
    policy: &Policy,
    class: Class,
    zone: Option<&str>,
    phone: &Phone,
    now: Timestamp,
) -> Result<(), Timestamp> {
    let rule = match (class, policy.quiet_hours) {
        (Class::Transactional, _) | (_, QuietHours::Off) => return Ok(()),
        (Class::Marketing, QuietHours::ByTerritory) => Rule::Territory,
        (Class::Marketing, QuietHours::Allowed(from, to)) => Rule::Daily(from, to),
    };
    let place = Place::of(zone, phone, policy.default_zone.as_deref());
    match rule.next_open(&place, now) {
        Some(opens) if opens == now => Ok(()),
        Some(opens) => Err(opens),
        // Hours that never meet: it is not sent, and looked at again in a day.
        None => Err(now
            .saturating_add(SignedDuration::from_hours(24))
            .unwrap_or(Timestamp::MAX)),
    }
}

/// Which rules decide, for the record: the version of the policy and that of the territories' table.
pub fn versions(policy: i64) -> String {
    format!("policy {policy}, territories {}", Table::get().version)
}

/// What a part to `phone` costs, in millionths of the account's currency: the longest prefix wins, and among prices for
/// one prefix the gateway's own. As long as the gateway is not known (`None`) the dearest of that prefix is taken, unless
/// there is a price for every gateway.
pub fn price(policy: &Policy, phone: &Phone, gateway: Option<&str>) -> i64 {
    policy
        .prices
        .iter()
        .filter(|price| phone.e164().starts_with(price.prefix.as_str()))
        .filter(|price| gateway.is_none() || price.gateway.is_none() || price.gateway.as_deref() == gateway)
        .max_by_key(|price| {
            let fits = match gateway {
                Some(_) => price.gateway.is_some(),
                None => price.gateway.is_none(),
            };
            (price.prefix.len(), fits, price.micros)
        })
        .map_or(0, |price| price.micros)
}

#[cfg(test)]
mod tests {
    use domain::contact::MARKETING;

    use super::*;
    use crate::policy::{Cap, Price};

    const NOON: &str = "2026-11-24T08:00:00Z";
    const NIGHT: &str = "2026-11-24T18:00:00Z";

    fn decided(policy: &Policy, at: &str, change: impl FnOnce(&mut Subject<'_>)) -> Decision {
        let phone = Phone::from_e164("+262692123456");
        let mut subject = Subject {
            class: Class::Marketing,
            phone: &phone,
            zone: None,
            purpose: MARKETING,
            consent: Consent::Given(None),
            premium: false,
            stopped: Stopped::No,
            deadline: None,
            valid_until: None,
            sent: &[],
        };
        change(&mut subject);
        decide(policy, &subject, at.parse().unwrap())
    }

    #[test]
    fn the_rules_have_an_order() {
        let policy = Policy {
            blocked_prefixes: vec!["+26289".into()],
            caps: vec![Cap {
                messages: 2,
                per: "7d".parse().unwrap(),
                purpose: None,
            }],
            ..Policy::default()
        };
        let morning: Timestamp = "2026-11-25T04:00:00Z".parse().unwrap();
        let deferred = Decision::Defer {
            until: morning,
            reason: Reason::QuietHours,
        };
        assert_eq!(decided(&policy, NOON, |_| {}), Decision::Send);
        assert_eq!(decided(&policy, NIGHT, |_| {}), deferred);
        assert_eq!(
            decided(&policy, NIGHT, |subject| subject.deadline = Some(morning)),
            Decision::Expire(Reason::QuietHours)
        );
        assert_eq!(
            decided(&policy, NOON, |subject| subject.deadline = Some(NOON.parse().unwrap())),
            Decision::Expire(Reason::DeadlinePassed)
        );
        assert_eq!(
            decided(&policy, NOON, |subject| subject.valid_until =
                Some("2026-11-24T07:59:59Z".parse().unwrap())),
            Decision::Expire(Reason::ValidityPassed)
        );
        assert_eq!(
            decided(&policy, NOON, |subject| subject.sent = &[2]),
            Decision::Suppress(Reason::CapReached)
        );
        assert_eq!(decided(&policy, NOON, |subject| subject.sent = &[1]), Decision::Send);
        // At night, too, a stop is a stop.
        assert_eq!(
            decided(&policy, NIGHT, |subject| subject.stopped = Stopped::Marketing),
            Decision::Suppress(Reason::Stopped)
        );
        for consent in [Consent::No, Consent::Unset] {
            assert_eq!(
                decided(&policy, NOON, |subject| {
                    subject.consent = consent;
                    subject.stopped = Stopped::Marketing;
                }),
                Decision::Suppress(Reason::NoConsent)
            );
        }
        assert_eq!(
            decided(&policy, NOON, |subject| subject.premium = true),
            Decision::Suppress(Reason::DestinationNotAllowed)
        );
        let generous = Policy {
            allow_premium: true,
            ..Policy::default()
        };
        assert_eq!(
            decided(&generous, NOON, |subject| subject.premium = true),
            Decision::Send
        );
        let foreign = Policy {
            allowed_prefixes: vec!["+33".into()],
            ..Policy::default()
        };
        assert_eq!(
            decided(&foreign, NIGHT, |_| {}),
            Decision::Suppress(Reason::DestinationNotAllowed)
        );
    }

    #[test]
    fn a_cap_of_a_purpose_stops_that_purpose_alone() {
        let cap = |messages, purpose: Option<&str>| Cap {
            messages,
            per: "7d".parse().unwrap(),
            purpose: purpose.map(str::to_owned),
        };
        let policy = Policy {
            caps: vec![cap(1, Some("newsletter")), cap(3, None)],
            ..Policy::default()
        };
        let of = |purpose, sent| {
            decided(&policy, NOON, |subject| {
                subject.purpose = purpose;
                subject.sent = sent;
            })
        };
        assert_eq!(of("newsletter", &[1, 1]), Decision::Suppress(Reason::CapReached));
        assert_eq!(of(MARKETING, &[1, 1]), Decision::Send);
        assert_eq!(of(MARKETING, &[0, 3]), Decision::Suppress(Reason::CapReached));
        assert_eq!(of("newsletter", &[0, 2]), Decision::Send);
    }

    #[test]
    fn transactional_messages_are_exempt_from_all_but_a_block() {
        let policy = Policy {
            caps: vec![Cap {
                messages: 1,
                per: "1d".parse().unwrap(),
                purpose: None,
            }],
            ..Policy::default()
        };
        let transactional = |subject: &mut Subject<'_>| {
            subject.class = Class::Transactional;
            subject.consent = Consent::No;
            subject.stopped = Stopped::Marketing;
            subject.sent = &[9];
        };
        assert_eq!(decided(&policy, NIGHT, transactional), Decision::Send);
        let blocked = Policy {
            blocked_prefixes: vec!["+262".into()],
            ..Policy::default()
        };
        assert_eq!(
            decided(&blocked, NIGHT, transactional),
            Decision::Suppress(Reason::Blocked)
        );
        assert_eq!(
            decided(&policy, NOON, |subject| {
                transactional(subject);
                subject.stopped = Stopped::All;
            }),
            Decision::Suppress(Reason::Blocked)
        );
    }

    #[test]
    fn the_longest_prefix_has_the_price() {
        let at = |prefix: &str, gateway: Option<&str>, micros| Price {
            prefix: prefix.into(),
            gateway: gateway.map(Into::into),
            micros,
        };
        let policy = Policy {
            prices: vec![
                at("", None, 90_000),
                at("+262", None, 40_000),
                at("+262", Some("main"), 35_000),
                at("+33", Some("main"), 50_000),
                at("+33", Some("other"), 60_000),
            ],
            ..Policy::default()
        };
        let price = |phone: &str, gateway| price(&policy, &Phone::from_e164(phone), gateway);
        assert_eq!(price("+262692123456", None), 40_000);
        assert_eq!(price("+262692123456", Some("main")), 35_000);
        assert_eq!(price("+262692123456", Some("other")), 40_000);
        assert_eq!(price("+33612345678", None), 60_000);
        assert_eq!(price("+33612345678", Some("main")), 50_000);
        assert_eq!(price("+33612345678", Some("third")), 90_000);
        assert_eq!(price("+4915112345678", None), 90_000);
        assert_eq!(super::price(&Policy::default(), &Phone::from_e164("+1"), None), 0);
    }
}
