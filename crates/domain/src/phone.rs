//! Phone numbers, in E.164 only (ITU-T E.164; parsing by libphonenumber's data).

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A valid phone number in E.164, for example `+262692123456`.
///
/// Neither `Debug` nor `Display` prints it, so that it cannot reach a log; [`Phone::e164`] is the way to read it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Phone(String);

/// What writing to a number may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Usual,
    /// Premium rate, by libphonenumber's data.
    Premium,
}

/// Why a text is no phone number. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PhoneError {
    #[error("not a phone number: expected E.164 such as +262692123456, or a national number with a default region")]
    Unreadable,
    #[error("not a valid number of its country or region")]
    Invalid,
    #[error("unknown region: expected two capital letters such as RE or FR (ISO 3166-1)")]
    UnknownRegion,
}

impl Phone {
    /// Reads a number as people write it; `region` (ISO 3166-1, for example `RE`) says what a national number belongs to.
    pub fn parse(text: &str, region: Option<&str>) -> Result<Phone, PhoneError> {
        let country = match region {
            Some(region) => Some(
                region
                    .parse::<phonenumber::country::Id>()
                    .map_err(|_| PhoneError::UnknownRegion)?,
            ),
            None => None,
        };
        let number = phonenumber::parse(country, text).map_err(|_| PhoneError::Unreadable)?;
        if !phonenumber::is_valid(&number) {
            return Err(PhoneError::Invalid);
        }
        Ok(Phone(number.format().mode(phonenumber::Mode::E164).to_string()))
    }

    /// What kind of number it is; `None` where it is not valid, which only one that was not parsed can be.
    pub fn kind(&self) -> Option<Kind> {
        let number = phonenumber::parse(None, &self.0).ok()?;
        let valid =
            phonenumber::is_valid(&number) && number.format().mode(phonenumber::Mode::E164).to_string() == self.0;
        valid.then(|| match number.number_type(&phonenumber::metadata::DATABASE) {
            phonenumber::Type::PremiumRate => Kind::Premium,
            _ => Kind::Usual,
        })
    }

    /// Whether this is a region that numbers can belong to.
    pub fn knows_region(region: &str) -> bool {
        region.parse::<phonenumber::country::Id>().is_ok()
    }

    /// Takes a number that was already checked, as the store gives it back.
    pub fn from_e164(e164: impl Into<String>) -> Phone {
        Phone(e164.into())
    }

    /// `+` and digits.
    pub fn e164(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phone(…)")
    }
}

/// The key of the phone hash: what makes a phone a pseudonym that nobody without it can find by trying all numbers.
#[derive(Clone)]
pub struct PhoneKey(Hmac<Sha256>);

impl PhoneKey {
    pub fn new(secret: &[u8]) -> PhoneKey {
        // HMAC takes keys of any length (RFC 2104, section 2).
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mac = Hmac::new_from_slice(secret).expect("any length");
        PhoneKey(mac)
    }

    /// HMAC-SHA-256 of the number in E.164: 32 bytes.
    pub fn hash(&self, phone: &Phone) -> Vec<u8> {
        let mut mac = self.0.clone();
        mac.update(phone.0.as_bytes());
        mac.finalize().into_bytes().to_vec()
    }
}

impl fmt::Debug for PhoneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneKey(…)")
    }
}
