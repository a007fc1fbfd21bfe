//! A length of time as people write it in settings: `30m`, `7d`, `1h30m`.

use std::{fmt, str::FromStr};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A period of whole seconds, from `1s` to ten years. A day is 24 hours and a week is 7 days: a period is a length and
/// knows no calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(SignedDuration);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no period: expected a number with a unit, such as `45s`, `30m`, `12h`, `7d`, `2w` or `1h30m`, up to ten years"
)]
pub struct PeriodError(String);

const UNITS: [(&str, i64); 5] = [("w", 7 * 86_400), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
const LONGEST: i64 = 3_650 * 86_400;

impl Period {
    pub fn from_secs(seconds: i64) -> Period {
        Period(SignedDuration::from_secs(seconds.clamp(1, LONGEST)))
    }

    pub fn duration(self) -> SignedDuration {
        self.0
    }

    pub fn as_secs(self) -> i64 {
        self.0.as_secs()
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let wrong = || PeriodError(text.chars().take(40).collect());
        let mut seconds: i64 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: i64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let unit = rest.get(..1).ok_or_else(wrong)?;
            let factor = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
            rest = &rest[1..];
            seconds = number
                .checked_mul(factor)
                .and_then(|part| seconds.checked_add(part))
                .ok_or_else(wrong)?;
        }
        if (1..=LONGEST).contains(&seconds) {
            Ok(Period(SignedDuration::from_secs(seconds)))
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_secs();
        for (name, factor) in UNITS {
            if rest >= factor {
                write!(f, "{}{name}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_and_printed() {
        for (text, seconds) in [
            ("45s", 45),
            ("30m", 1_800),
            ("1h30m", 5_400),
            ("7d", 604_800),
            ("2w", 1_209_600),
        ] {
            assert_eq!(text.parse::<Period>().unwrap().as_secs(), seconds, "{text}");
        }
        assert_eq!("90m".parse::<Period>().unwrap().to_string(), "1h30m");
        assert_eq!("7d".parse::<Period>().unwrap().to_string(), "1w");
    }

    #[test]
    fn what_is_no_period_is_refused() {
        for text in [
            "",
            "0s",
            "30",
            "m",
            "1x",
            "-5m",
            "1.5h",
            "99999999999999999999d",
            "11000d",
            "5 m",
            "é",
        ] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}
