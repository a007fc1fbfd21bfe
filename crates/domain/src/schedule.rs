//! When a recurring campaign comes next: a cron pattern in a zone.

use chrono::{Datelike as _, NaiveDate, Timelike as _};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// A cron pattern of five fields (minute, hour, day of the month, month, day of the week), as in `0 9 * * MON`.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: croner::Cron,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no cron pattern ({0}): expected five fields, minute, hour, day of the month, month and day of the week, such as `0 9 * * MON`"
)]
pub struct ScheduleError(String);

impl Schedule {
    pub fn parse(pattern: &str) -> Result<Schedule, ScheduleError> {
        if pattern.len() > 200 || pattern.split_whitespace().count() != 5 {
            return Err(ScheduleError("it has not five fields".into()));
        }
        let cron = pattern
            .parse::<croner::Cron>()
            .map_err(|error| ScheduleError(error.to_string()))?;
        Ok(Schedule { cron })
    }

    /// The first time after `after`, by the wall clock of `zone`. A time that a change to summer time leaves out is
    /// taken an hour later; one that a change back gives twice is taken once, the first time.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut civil = zone.to_datetime(after);
        // In the repeated hour the wall clock can lie before `after`: look on until the instant itself is later.
        for _ in 0..200 {
            civil = from_chrono(&self.cron.find_next_occurrence(&to_chrono(civil)?, false).ok()?)?;
            let at = zone.to_timestamp(civil).ok()?;
            if at > after {
                return Some(at);
            }
        }
        None
    }
}

fn to_chrono(civil: DateTime) -> Option<chrono::NaiveDateTime> {
    let part = |number: i8| u32::try_from(number).ok();
    NaiveDate::from_ymd_opt(civil.year().into(), part(civil.month())?, part(civil.day())?)?.and_hms_opt(
        part(civil.hour())?,
        part(civil.minute())?,
        part(civil.second())?,
    )
}

fn from_chrono(time: &chrono::NaiveDateTime) -> Option<DateTime> {
    let part = |number: u32| i8::try_from(number).ok();
    DateTime::new(
        i16::try_from(time.year()).ok()?,
        part(time.month())?,
        part(time.day())?,
        part(time.hour())?,
        part(time.minute())?,
        part(time.second())?,
        0,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(pattern: &str, after: &str, zone: &str) -> String {
        let zone = TimeZone::get(zone).unwrap();
        let at = Schedule::parse(pattern).unwrap().next(after.parse().unwrap(), &zone);
        at.unwrap().to_string()
    }

    #[test]
    fn the_next_time_is_by_the_zones_wall_clock() {
        assert_eq!(
            next("0 9 * * MON", "2026-11-24T05:00:00Z", "Indian/Reunion"),
            "2026-11-30T05:00:00Z"
        );
        assert_eq!(
            next("0 9 * * *", "2026-11-24T04:59:59Z", "Indian/Reunion"),
            "2026-11-24T05:00:00Z"
        );
        assert_eq!(
            next("0 9 * * *", "2026-11-24T05:00:00Z", "Indian/Reunion"),
            "2026-11-25T05:00:00Z"
        );
    }

    #[test]
    fn summer_time_skips_nothing_and_repeats_nothing() {
        // 02:30 does not exist on 29 March 2026 in Paris: an hour later.
        assert_eq!(
            next("30 2 * * *", "2026-03-28T12:00:00Z", "Europe/Paris"),
            "2026-03-29T01:30:00Z"
        );
        // 02:30 comes twice on 25 October 2026: the first, and then the next day's.
        assert_eq!(
            next("30 2 * * *", "2026-10-24T12:00:00Z", "Europe/Paris"),
            "2026-10-25T00:30:00Z"
        );
        assert_eq!(
            next("30 2 * * *", "2026-10-25T00:30:00Z", "Europe/Paris"),
            "2026-10-26T01:30:00Z"
        );
        assert_eq!(
            next("30 2 * * *", "2026-10-25T01:10:00Z", "Europe/Paris"),
            "2026-10-26T01:30:00Z"
        );
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["", "* * * *", "* * * * * *", "61 * * * *", "0 9 * * NEVER"] {
            assert!(Schedule::parse(pattern).is_err(), "{pattern}");
        }
        assert!(Schedule::parse("0 0 31 2 *").is_ok_and(|never| {
            never
                .next("2026-01-01T00:00:00Z".parse().unwrap(), &TimeZone::UTC)
                .is_none()
        }));
    }
}
