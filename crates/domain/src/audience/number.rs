//! Decimal numbers, compared and added exactly, as PostgreSQL's `numeric` does.

use std::{cmp::Ordering, fmt};

/// A decimal number of any size that JSON can hold: `0.DIGITS × 10^exponent`, with neither leading nor trailing zeros
/// among the digits, so that equal numbers are equal values. Zero has no digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    negative: bool,
    /// Each 0 to 9.
    digits: Vec<u8>,
    exponent: i32,
}

/// How many digits a number that people write (in an expression, or in a text) may have before and after the point.
pub const MAX_WHOLE_DIGITS: usize = 18;
pub const MAX_FRACTION_DIGITS: usize = 9;

impl Decimal {
    /// Reads a JSON number.
    pub fn from_json(number: &serde_json::Number) -> Decimal {
        Decimal::read(&number.to_string())
    }

    /// Reads a text that is a plain decimal number: an optional `-`, 1 to 18 digits, and perhaps a point and 1 to 9
    /// digits. Anything else (`+5`, ` 5`, `1e3`, `1,5`) is a text and no number.
    pub fn from_text(text: &str) -> Option<Decimal> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (unsigned, None),
        };
        let good = |digits: &str, limit: usize| {
            (1..=limit).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
        };
        (good(whole, MAX_WHOLE_DIGITS) && fraction.is_none_or(|fraction| good(fraction, MAX_FRACTION_DIGITS)))
            .then(|| Decimal::read(text))
    }

    /// Reads what is known to be a number as JSON writes it.
    fn read(text: &str) -> Decimal {
        let (mantissa, power) = match text.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, power.parse::<i32>().unwrap_or(0)),
            None => (text, 0),
        };
        let unsigned = mantissa.trim_start_matches('-');
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let mut digits: Vec<u8> = whole
            .bytes()
            .chain(fraction.bytes())
            .map(|byte| byte.wrapping_sub(b'0').min(9))
            .collect();
        let mut exponent = i32::try_from(whole.len()).unwrap_or(i32::MAX).saturating_add(power);
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..leading);
        exponent = exponent.saturating_sub(i32::try_from(leading).unwrap_or(i32::MAX));
        while digits.last() == Some(&0) {
            digits.pop();
        }
        if digits.is_empty() {
            return Decimal::zero();
        }
        Decimal {
            negative: mantissa.starts_with('-'),
            digits,
            exponent,
        }
    }

    pub fn zero() -> Decimal {
        Decimal {
            negative: false,
            digits: Vec::new(),
            exponent: 0,
        }
    }

    /// The number in units of 10^-9, rounded half away from zero; `None` from 10^18 on.
    pub(crate) fn to_nano(&self) -> Option<i128> {
        if self.exponent > 18 {
            return None;
        }
        let kept = self.exponent + 9;
        if kept < 0 {
            return Some(0);
        }
        let kept = usize::try_from(kept).ok()?;
        let mut nano: i128 = 0;
        for place in 0..kept {
            nano = nano * 10 + i128::from(self.digits.get(place).copied().unwrap_or(0));
        }
        if self.digits.get(kept).is_some_and(|digit| *digit >= 5) {
            nano += 1;
        }
        Some(if self.negative { -nano } else { nano })
    }

    /// The number as a whole one, where it is one between 0 and `u32::MAX`.
    pub fn to_whole(&self) -> Option<u32> {
        let whole = self.digits.is_empty() || usize::try_from(self.exponent).is_ok_and(|e| e >= self.digits.len());
        let nano = self.to_nano()?;
        whole.then(|| u32::try_from(nano / 1_000_000_000).ok()).flatten()
    }
}

impl From<u32> for Decimal {
    fn from(number: u32) -> Self {
        Decimal::read(&number.to_string())
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Decimal| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let (one, two) = (sign(self), sign(other));
        if one != two || one == 0 {
            return one.cmp(&two);
        }
        // Neither has trailing zeros: of two that agree as far as the shorter goes, the longer is the larger.
        let size = (self.exponent, &self.digits).cmp(&(other.exponent, &other.digits));
        if one < 0 { size.reverse() } else { size }
    }
}

/// Plain: no exponent, no trailing zeros, `0` before the point.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits.is_empty() {
            return f.write_str("0");
        }
        let mut text = String::new();
        if self.negative {
            text.push('-');
        }
        let digit = |place: usize| char::from(b'0' + self.digits.get(place).copied().unwrap_or(0));
        match usize::try_from(self.exponent) {
            Ok(whole) if whole > 0 => {
                (0..whole).for_each(|place| text.push(digit(place)));
                if self.digits.len() > whole {
                    text.push('.');
                    (whole..self.digits.len()).for_each(|place| text.push(digit(place)));
                }
            }
            _ => {
                text.push_str("0.");
                (self.exponent..0).for_each(|_| text.push('0'));
                (0..self.digits.len()).for_each(|place| text.push(digit(place)));
            }
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &str) -> Decimal {
        Decimal::from_json(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn plain_forms() {
        for (text, plain) in [
            ("0", "0"),
            ("-0.0", "0"),
            ("1.0", "1"),
            ("-12.50", "-12.5"),
            ("1e3", "1000"),
            ("1.5e-7", "0.00000015"),
            ("0.1", "0.1"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            assert_eq!(json(text).to_string(), plain);
        }
        assert_eq!(json("1e300").to_string().len(), 301);
        for text in [
            "",
            "-",
            "+5",
            " 5",
            "5.",
            ".5",
            "1e3",
            "1,5",
            "٣",
            "1234567890123456789",
            "0.1234567890",
        ] {
            assert_eq!(Decimal::from_text(text), None, "{text}");
        }
        assert_eq!(Decimal::from_text("007.50"), Some(json("7.5")));
    }

    #[test]
    fn nano_rounds_half_away_from_zero() {
        assert_eq!(json("0.0000000005").to_nano(), Some(1));
        assert_eq!(json("-0.0000000005").to_nano(), Some(-1));
        assert_eq!(json("0.00000000049").to_nano(), Some(0));
        assert_eq!(json("12.5").to_nano(), Some(12_500_000_000));
        assert_eq!(
            json("999999999999999999").to_nano(),
            Some(999_999_999_999_999_999_000_000_000)
        );
        assert_eq!(json("1000000000000000000").to_nano(), None);
        assert_eq!(json("1e-300").to_nano(), Some(0));
        assert_eq!(json("30").to_whole(), Some(30));
        assert_eq!(json("30.5").to_whole(), None);
        assert_eq!(json("-1").to_whole(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn ordered_as_floats_are(one in -1e12_f64..1e12, two in -1e12_f64..1e12) {
            let decimal = |number: f64| Decimal::from_json(&serde_json::Number::from_f64(number).unwrap());
            prop_assert_eq!(decimal(one).cmp(&decimal(two)), one.partial_cmp(&two).unwrap());
            prop_assert_eq!(Decimal::read(&decimal(one).to_string()), decimal(one));
        }
    }
}
