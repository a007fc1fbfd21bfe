//! Holidays: on a fixed day, or so many days from Easter.

use jiff::civil::Date;
use serde::{Deserialize, Deserializer, de::Error as _};

/// A day of every year, written `12-20` or `easter+39`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Day {
    Fixed {
        month: i8,
        day: i8,
    },
    /// Days after Easter Sunday.
    Easter(i32),
}

impl Day {
    pub fn is(self, date: Date) -> bool {
        match self {
            Day::Fixed { month, day } => date.month() == month && date.day() == day,
            Day::Easter(offset) => easter(date.year()).is_some_and(|sunday| (date - sunday).get_days() == offset),
        }
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = || match text.strip_prefix("easter") {
            Some(offset) => offset.parse().ok().map(Day::Easter),
            None => {
                let (month, day) = text.split_once('-')?;
                let (month, day) = (month.parse().ok()?, day.parse().ok()?);
                // In a leap year every day of the calendar exists.
                Date::new(2024, month, day).ok().map(|_| Day::Fixed { month, day })
            }
        };
        read().ok_or_else(|| D::Error::custom(format!("`{text}` is no holiday: expected `12-20` or `easter+39`")))
    }
}

/// Easter Sunday of the Gregorian calendar (the anonymous algorithm, Meeus, Astronomical Algorithms, chapter 8).
pub fn easter(year: i16) -> Option<Date> {
    let y = i32::from(year);
    let a = y.rem_euclid(19);
    let (b, c) = (y.div_euclid(100), y.rem_euclid(100));
    let (d, e) = (b / 4, b % 4);
    let f = (b + 8) / 25;
    let g = (b - f + 1) / 3;
    let h = (19 * a + b - d - g + 15).rem_euclid(30);
    let (i, k) = (c / 4, c % 4);
    let l = (32 + 2 * e + 2 * i - h - k).rem_euclid(7);
    let m = (a + 11 * h + 22 * l) / 451;
    let month = (h + l - 7 * m + 114) / 31;
    let day = (h + l - 7 * m + 114) % 31 + 1;
    Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::{Weekday, date};

    #[test]
    fn easter_is_where_almanacs_have_it() {
        for (year, month, day) in [
            (1961, 4, 2),
            (2000, 4, 23),
            (2008, 3, 23),
            (2011, 4, 24),
            (2024, 3, 31),
            (2025, 4, 20),
            (2026, 4, 5),
            (2027, 3, 28),
            (2038, 4, 25),
        ] {
            assert_eq!(easter(year), Some(date(year, month, day)));
        }
        assert!((1900..=2200).all(|year| easter(year).is_some_and(|day| day.weekday() == Weekday::Sunday)));
    }

    #[test]
    fn days_from_easter() {
        assert!(Day::Easter(1).is(date(2026, 4, 6)));
        assert!(Day::Easter(39).is(date(2026, 5, 14)));
        assert!(Day::Easter(50).is(date(2026, 5, 25)));
        assert!(!Day::Easter(50).is(date(2026, 5, 24)));
    }
}
