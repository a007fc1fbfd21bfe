//! What kind of number a phone is, remembered.
//!
//! Import reads every phone by libphonenumber's patterns; contacts can come into the database past it, so it is looked at
//! again here. The patterns take longer than all the rest of a text, and they say nothing of a number's last three digits:
//! what they said of one number holds for the 999 beside it, of the same length.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use domain::{Phone, phone::Kind};

/// Thousands of numbers that are remembered.
const MOST: usize = 200_000;

/// By thousands of numbers; `None` is not valid.
#[derive(Debug, Default)]
pub struct Kinds(Mutex<HashMap<u64, Option<Kind>>>);

impl Kinds {
    /// `None`: it is no valid number.
    pub fn of(&self, phone: &Phone) -> Option<Kind> {
        let key = key(phone.e164())?;
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kind) = kinds.get(&key) {
            return *kind;
        }
        let kind = phone.kind();
        if kinds.len() >= MOST {
            kinds.clear();
        }
        kinds.insert(key, kind);
        kind
    }
}

/// The number without its last three digits, with its length; `None` where it is not even E.164.
fn key(e164: &str) -> Option<u64> {
    let digits = e164.strip_prefix('+')?;
    if !(5..=15).contains(&digits.len()) {
        return None;
    }
    let mut number = 0;
    for (index, byte) in digits.bytes().enumerate() {
        if !byte.is_ascii_digit() {
            return None;
        }
        if index < digits.len() - 3 {
            number = number * 10 + u64::from(byte - b'0');
        }
    }
    Some(number * 16 + digits.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_what_is_so() {
        let kinds = Kinds::default();
        for prefix in [
            "+262692", "+262639", "+33612", "+33899", "+12125", "+447911", "+2626921", "+590690", "+85291",
        ] {
            for rest in ["", "123456", "5550123", "654321", "12345", "000000", "999999"] {
                let phone = Phone::from_e164(format!("{prefix}{rest}"));
                assert_eq!(kinds.of(&phone), phone.kind(), "{prefix}{rest}");
                assert_eq!(kinds.of(&phone), phone.kind(), "{prefix}{rest}");
            }
        }
        assert_eq!(kinds.of(&Phone::from_e164("+33899123456")), Some(Kind::Premium));
        assert_eq!(kinds.of(&Phone::from_e164("0692123456")), None);
        assert_eq!(kinds.of(&Phone::from_e164("+26269212345x")), None);
    }
}
