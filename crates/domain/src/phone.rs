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
    #[error("not a valid number of its country or region: expected one that is given out there")]
    Invalid,
    #[error("unknown region: expected two capital letters such as RE or FR (ISO 3166-1)")]
    UnknownRegion,
}

impl Phone {
    /// Reads a number as people write it; `region` (ISO 3166-1, for example `RE`) says what a national number belongs to, and
    /// nothing about one with a country code.
    pub fn parse(text: &str, region: Option<&str>) -> Result<Phone, PhoneError> {
        let country = match region {
            Some(region) => Some(
                region
                    .parse::<phonenumber::country::Id>()
                    .map_err(|_| PhoneError::UnknownRegion)?,
            ),
            None => None,
        };
        if let Some(phone) = canonical(text) {
            return Ok(phone);
        }
        Phone::parse_slowly(text, country)
    }

    /// By libphonenumber's rules alone.
    fn parse_slowly(text: &str, country: Option<phonenumber::country::Id>) -> Result<Phone, PhoneError> {
        let number = match text.trim_start().starts_with('+') {
            true => international(text)?,
            false => phonenumber::parse(country, text).map_err(|_| PhoneError::Unreadable)?,
        };
        let phone = Phone(e164(&number));
        // What is kept has to be this number for whoever reads it again.
        match phonenumber::is_valid(&number) && phone.kind().is_some() {
            true => Ok(phone),
            false => Err(PhoneError::Invalid),
        }
    }

    /// What kind of number it is; `None` where it is not valid, which only one that was not parsed can be.
    pub fn kind(&self) -> Option<Kind> {
        let number = international(&self.0).ok()?;
        let valid = phonenumber::is_valid(&number) && e164(&number) == self.0;
        valid.then(|| match number.number_type(&phonenumber::metadata::DATABASE) {
            phonenumber::Type::PremiumRate => Kind::Premium,
            _ => Kind::Usual,
        })
    }

    /// Reads all numbering plans, so that no first caller of the others waits for it: a tenth of a second, and more than a
    /// second without optimisation.
    pub fn load_plans() {
        let _: &phonenumber::metadata::Database = &phonenumber::metadata::DATABASE;
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

fn e164(number: &phonenumber::PhoneNumber) -> String {
    number.format().mode(phonenumber::Mode::E164).to_string()
}

/// Reads a number with its country code. It may not be valid.
fn international(text: &str) -> Result<phonenumber::PhoneNumber, PhoneError> {
    let read = |country| phonenumber::parse(country, text).map_err(|_| PhoneError::Unreadable);
    let number = read(None)?;
    if phonenumber::is_valid(&number) {
        return Ok(number);
    }
    // The library cuts a national prefix off behind a country code, too, and so also what only looks like one: the 8 of +7 816.
    // It takes the prefix of the region that it is told; this one has none.
    let whole = read(Some(phonenumber::country::SG))?;
    Ok(if phonenumber::is_valid(&whole) { whole } else { number })
}

/// A valid mobile or fixed line number that is E.164 already, as most of what systems export: it is only looked up in
/// libphonenumber's data, and not read as what people write. Whatever is not plainly one (a national
/// prefix that could be cut off, a country code whose regions must be told apart by more) is left to the whole reading,
/// with which this agrees: a property test holds it so.
fn canonical(text: &str) -> Option<Phone> {
    use phonenumber::metadata::{DATABASE, Metadata};
    let digits = text.strip_prefix('+')?;
    // `064` is no country code, though as a number it would be one.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    if !plain || !(8..=15).contains(&digits.len()) {
        return None;
    }
    // No country code is another one's beginning (ITU-T E.164).
    let (regions, national) = (1..=3).find_map(|length| {
        let (code, national) = digits.split_at(length);
        Some((DATABASE.by_code(&code.parse().ok()?)?, national))
    })?;
    let meta: &Metadata = regions.first()?;
    let keeps = |meta: &Metadata| {
        let prefixed = meta
            .national_prefix()
            .is_some_and(|prefix| national.starts_with(prefix));
        let parsed = meta.national_prefix_for_parsing();
        !prefixed && parsed.is_none_or(|prefix| prefix.find(national).is_none_or(|found| found.start() != 0))
    };
    if national.starts_with('0') || (regions.len() > 1 && meta.leading_digits().is_some()) || !keeps(meta) {
        return None;
    }
    let kinds = meta.descriptors();
    let is = |kind: Option<&phonenumber::metadata::Descriptor>| kind.is_some_and(|kind| kind.is_match(national));
    (kinds.general().is_match(national) && (is(kinds.mobile()) || is(kinds.fixed_line())))
        .then(|| Phone(text.to_owned()))
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phone(…)")
    }
}

/// A phone where many are held at once: the beginning of its hash. That any two of ten million have it in common is as likely
/// as 1 in 10^15.
pub type PhoneMark = [u8; 12];

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
        self.bytes(phone).to_vec()
    }

    pub fn mark(&self, phone: &Phone) -> PhoneMark {
        let hash = self.bytes(phone);
        std::array::from_fn(|place| hash[place])
    }

    fn bytes(&self, phone: &Phone) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(phone.0.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for PhoneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers of every country as its plan gives them for example, with digits changed, added and taken away.
    fn texts() -> impl Strategy<Value = String> {
        let examples: Vec<String> = phonenumber::metadata::DATABASE
            .iter()
            .flat_map(|meta| {
                let kinds = meta.descriptors();
                let examples = [
                    Some(kinds.general()),
                    kinds.mobile(),
                    kinds.fixed_line(),
                    kinds.toll_free(),
                ];
                let code = meta.country_code();
                examples
                    .into_iter()
                    .flatten()
                    .filter_map(|kind| kind.example())
                    .map(move |example| format!("+{code}{example}"))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert!(examples.len() > 500);
        let changed = (
            proptest::sample::select(examples),
            any::<prop::sample::Index>(),
            0..10_u8,
            0..6_u8,
        );
        let changed = changed.prop_map(|(mut text, place, digit, what)| {
            let place = 1 + place.index(text.len() - 1);
            let digit = char::from(b'0' + digit);
            match what {
                0 | 1 => {}
                2 => text.insert(place, digit),
                3 => drop(text.remove(place)),
                _ => text.replace_range(place..=place, &digit.to_string()),
            }
            text
        });
        prop_oneof![8 => changed, 1 => "[+][0-9]{7,15}", 1 => "[+][1-9][0-9]{6,15}", 1 => "[+]?[0-9 ]{5,16}"]
    }

    #[test]
    fn a_zero_begins_no_country_code() {
        assert_eq!(Phone::parse("+06492311234", None), Err(PhoneError::Unreadable));
    }

    #[test]
    fn a_number_with_its_country_code_is_the_same_wherever_it_is_read() {
        for region in [None, Some("RE"), Some("FR"), Some("US")] {
            for (text, kept) in [
                // An area code that looks like the national prefix, with and without letters for digits.
                ("+78162123456", Ok("+78162123456")),
                ("+78-1op292st0 ", Ok("+78167292780")),
                ("+7 800 555 35 35", Ok("+78005553535")),
                // A zero that is part of the number, and one that is not.
                ("+39 06 6981 2345", Ok("+390669812345")),
                ("+44 (0)7911 123456", Ok("+447911123456")),
                // Its 1 is the prefix of another country.
                ("+5215512345678", Err(PhoneError::Invalid)),
            ] {
                let phone = Phone::parse(text, region);
                assert_eq!(
                    phone.as_ref().map(Phone::e164),
                    kept.as_ref().copied(),
                    "{text}, {region:?}"
                );
                assert!(
                    phone.is_err() || phone.is_ok_and(|phone| phone.kind().is_some()),
                    "{text}"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 800, ..ProptestConfig::default() })]

        #[test]
        fn the_short_way_agrees_with_the_whole_reading(
            text in texts(),
            region in proptest::sample::select(vec![None, Some("RE"), Some("FR"), Some("US"), Some("IT"), Some("AR"), Some("MX")]),
        ) {
            let country = region.map(|region| region.parse().unwrap());
            let whole = Phone::parse_slowly(&text, country);
            if let Some(phone) = canonical(&text) {
                prop_assert_eq!(Ok(phone.e164()), whole.as_ref().map(|whole| whole.e164()), "{}", text);
            }
            if let Ok(whole) = whole {
                let again = Phone::parse(whole.e164(), None);
                prop_assert_eq!(Ok(whole.e164()), again.as_ref().map(|again| again.e164()), "{}", text);
            }
        }
    }

    #[test]
    fn what_systems_export_takes_the_short_way() {
        for text in [
            "+262692123456",
            "+33612345678",
            "+33142685300",
            "+4915123456789",
            "+12015550123",
        ] {
            assert!(canonical(text).is_some(), "{text}");
        }
    }
}
