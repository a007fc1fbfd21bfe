//! The policy at the claim: it may have changed since the text was made, and caps and limits are only exact here.

use domain::{Class, Reason};
use events::record::Outbound;
use jiff::Timestamp;
use resources::{Kind, Policy, Snapshot, rules};
use store::messages::{Alarm, CapRule, ClaimRules, WantRules};

/// The rules for claims of these messages, in their order.
pub(crate) fn claim_rules<'a>(
    snapshot: &Snapshot,
    records: impl Iterator<Item = &'a Outbound>,
    now: Timestamp,
) -> ClaimRules {
    let policy = &snapshot.policy;
    ClaimRules {
        version: Some(version(snapshot)),
        caps: policy
            .caps
            .iter()
            .map(|cap| CapRule {
                since: cap.since(now),
                most: cap.messages,
                purpose: cap.purpose.clone(),
            })
            .collect(),
        each: records.map(|record| of_record(policy, record)).collect(),
    }
}

/// Which rules are in force, for the record.
pub(crate) fn version(snapshot: &Snapshot) -> String {
    rules::versions(snapshot.version_of(Kind::Policy, "policy"))
}

fn of_record(policy: &Policy, record: &Outbound) -> WantRules {
    let phone = &record.phone;
    WantRules {
        refuse: rules::destination(policy, phone).err(),
        purpose: record.purpose.clone().filter(|_| record.class == Class::Marketing),
        destinations: policy
            .destination_limits
            .iter()
            .filter(|limit| phone.e164().starts_with(limit.prefix.as_str()))
            .map(|limit| (limit.prefix.clone(), limit.per_hour))
            .collect(),
    }
}

/// Tells of limits that were reached; the database has them on record (`destination_hours`).
pub(crate) fn tell(alarms: &[Alarm]) {
    for alarm in alarms {
        tracing::warn!(
            prefix = alarm.prefix,
            per_hour = alarm.per_hour,
            "a destination's limit is reached; what goes beyond it this hour is suppressed: is somebody pumping?"
        );
        metrics::counter!("tamtam_destination_limit_alarms_total", "prefix" => alarm.prefix.clone()).increment(1);
    }
}

/// Counts what was refused at the claim.
pub(crate) fn count(reason: Option<Reason>) {
    if let Some(reason) = reason {
        metrics::counter!("tamtam_claims_refused_total", "reason" => reason.as_str()).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use domain::Phone;
    use resources::policy::DestinationLimit;

    use super::*;
    use crate::item::sample::outbound;

    #[test]
    fn every_limit_that_fits_counts() {
        let limit = |prefix: &str| DestinationLimit {
            prefix: prefix.into(),
            per_hour: 5,
        };
        let policy = Policy {
            destination_limits: vec![limit("+262"), limit("+2626"), limit("+33")],
            blocked_prefixes: vec!["+26289".into()],
            ..Policy::default()
        };
        let snapshot = Snapshot {
            policy: std::sync::Arc::new(policy),
            ..Snapshot::default()
        };
        let to = |phone: &str, class, purpose: Option<&str>| Outbound {
            phone: Phone::from_e164(phone),
            purpose: purpose.map(str::to_owned),
            ..outbound(class)
        };
        let records = [
            to("+262692123456", Class::Marketing, Some("newsletter")),
            to("+262891234567", Class::Transactional, Some("newsletter")),
        ];
        let rules = claim_rules(&snapshot, records.iter(), Timestamp::UNIX_EPOCH);
        let prefixes: Vec<&str> = rules.each[0]
            .destinations
            .iter()
            .map(|(prefix, _)| prefix.as_str())
            .collect();
        assert_eq!(prefixes, ["+262", "+2626"]);
        assert_eq!(
            (rules.each[0].refuse, rules.each[1].refuse),
            (None, Some(Reason::Blocked))
        );
        // A transactional message asks for no consent.
        assert_eq!(rules.each[0].purpose.as_deref(), Some("newsletter"));
        assert_eq!(rules.each[1].purpose, None);
        assert!(rules.version.unwrap().starts_with("policy 0, territories "));
    }
}
