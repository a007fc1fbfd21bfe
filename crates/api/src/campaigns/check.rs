//! What can be said about a campaign without looking anything up: its id, whether it is the same one, what is wrong.

use domain::{CampaignState, schedule::Schedule};
use jiff::{Timestamp, tz::TimeZone};
use sha2::{Digest, Sha256};
use store::{Campaign, NewCampaign};
use uuid::Uuid;

use super::CampaignDraft;
use crate::{
    ApiError,
    events::{check_id, has_nul},
};

/// A campaign's values as JSON.
const MAX_VALUES_BYTES: usize = 64 * 1024;

/// The id that an idempotency key stands for: a UUID of version 8 (RFC 9562, section 5.8) from SHA-256.
pub(super) fn campaign_id(key: &str) -> Uuid {
    let digest = Sha256::new()
        .chain_update(b"tamtam.campaign\0")
        .chain_update(key.as_bytes())
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The campaign that is there, if it is the one asked for.
pub(super) fn same(existing: Campaign, new: &NewCampaign) -> Result<Campaign, ApiError> {
    // PostgreSQL keeps microseconds.
    let micros = |time: Option<Timestamp>| time.map(Timestamp::as_microsecond);
    // A named audience may have been defined anew since then, and a launch sets the start.
    let equal = existing.name == new.name
        && existing.audience == new.audience
        && (new.audience.is_some() || existing.expression == new.expression)
        && existing.template == new.template
        && existing.vars == new.vars
        && (existing.state != CampaignState::Draft || micros(existing.at) == micros(new.at))
        && existing.zone == new.zone
        && existing.recurring == new.recurring
        && micros(existing.deadline) == micros(new.deadline)
        && existing.budget_micros == new.budget_micros
        && existing.control_percent == new.control_percent;
    match equal {
        true => Ok(existing),
        false => Err(ApiError::conflict(
            "another campaign was made under this key: expected a new key for a new campaign",
        )
        .at("idempotency_key")),
    }
}

/// What can be said without the database.
pub(super) fn check(draft: &CampaignDraft, now: Timestamp) -> Result<(), ApiError> {
    let of = |field: &'static str, text: &str| {
        check_id(field, text).map_err(|error| ApiError::invalid(field, error.message))
    };
    of("name", &draft.name)?;
    of("template", &draft.template)?;
    if let Some(key) = &draft.idempotency_key {
        of("idempotency_key", key)?;
    }
    let bytes = serde_json::to_vec(&draft.values).unwrap_or_default();
    if bytes.len() > MAX_VALUES_BYTES || has_nul(&bytes) {
        return Err(ApiError::invalid(
            "values",
            format!("expected up to {MAX_VALUES_BYTES} bytes as JSON, without a NUL character"),
        ));
    }
    if draft.at.is_some_and(|at| at <= now) {
        return Err(ApiError::invalid("at", "is in the past: expected a time to come"));
    }
    if draft
        .deadline
        .is_some_and(|deadline| deadline <= draft.at.unwrap_or(now))
    {
        return Err(ApiError::invalid(
            "deadline",
            "expected a time to come, after the start",
        ));
    }
    let zone =
        match &draft.zone {
            Some(zone) => Some(TimeZone::get(zone).map_err(|_| {
                ApiError::invalid("zone", "unknown zone: expected an IANA name such as `Indian/Reunion`")
            })?),
            None => None,
        };
    if let Some(pattern) = &draft.recurring {
        let schedule = Schedule::parse(pattern).map_err(|error| ApiError::invalid("recurring", error.to_string()))?;
        if schedule.next(now, &zone.unwrap_or(TimeZone::UTC)).is_none() {
            return Err(ApiError::invalid(
                "recurring",
                "this pattern never comes: expected one such as `0 9 * * MON`",
            ));
        }
    }
    if draft.budget_micros.is_some_and(|budget| budget <= 0) {
        return Err(ApiError::invalid("budget_micros", "expected 1 or more, in millionths"));
    }
    if draft.control_percent > 100 {
        return Err(ApiError::invalid("control_percent", "expected 0 to 100"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_key_never_changes() {
        assert_eq!(campaign_id("k").to_string(), campaign_id("k").to_string());
        assert_ne!(campaign_id("k"), campaign_id("l"));
        assert_eq!(campaign_id("k").get_version_num(), 8);
    }

    #[test]
    fn each_bad_field_is_named() {
        let now: Timestamp = "2026-06-01T10:00:00Z".parse().unwrap();
        let field = |change: fn(&mut CampaignDraft)| {
            let mut draft = CampaignDraft {
                name: "Soldes".into(),
                condition: Some("age < 30".into()),
                template: "flash-sale".into(),
                ..CampaignDraft::default()
            };
            change(&mut draft);
            check(&draft, now).err().and_then(|error| error.field)
        };
        assert_eq!(field(|_| {}), None);
        assert_eq!(field(|draft| draft.name.clear()).as_deref(), Some("name"));
        let past = |draft: &mut CampaignDraft| draft.at = Some("2026-06-01T10:00:00Z".parse().unwrap());
        assert_eq!(field(past).as_deref(), Some("at"));
        let late = |draft: &mut CampaignDraft| {
            draft.at = Some("2026-06-02T10:00:00Z".parse().unwrap());
            draft.deadline = Some("2026-06-02T09:00:00Z".parse().unwrap());
        };
        assert_eq!(field(late).as_deref(), Some("deadline"));
        assert_eq!(
            field(|draft| draft.zone = Some("Mars/Olympus".into())).as_deref(),
            Some("zone")
        );
        assert_eq!(
            field(|draft| draft.recurring = Some("0 0 31 2 *".into())).as_deref(),
            Some("recurring")
        );
        assert_eq!(
            field(|draft| draft.control_percent = 101).as_deref(),
            Some("control_percent")
        );
        assert_eq!(
            field(|draft| draft.budget_micros = Some(0)).as_deref(),
            Some("budget_micros")
        );
    }
}
