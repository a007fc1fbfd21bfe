//! The rules of the installation: when marketing may go out, how often, to where, and what is added to the text.

use std::{collections::BTreeMap, fmt, str::FromStr};

use domain::contact::is_purpose;
use jiff::{Timestamp, civil::Time};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Period, Problem,
    keyword::KeywordRule,
    template::{BRAND, PURPOSE, brand_is_good},
};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// When marketing messages may be sent: `by-territory` (the law of the recipient's territory), `off`, or one window
    /// in the recipient's zone such as `08:00-20:00`.
    #[serde(default)]
    pub quiet_hours: QuietHours,
    /// At most so many marketing messages to a contact in a period, of one purpose or of all.
    #[serde(default, rename = "cap", skip_serializing_if = "Vec::is_empty")]
    pub caps: Vec<Cap>,
    /// The same text to the same phone within this period is suppressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_text_within: Option<Period>,
    /// The opt-out mention that marketing texts end with, by language; absent: the built-in ones. `""` adds none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opt_out: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub opt_outs: BTreeMap<String, String>,
    /// Whose name marketing texts begin with where their sender is a number and they do not name themselves; absent: none is
    /// added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brand: Option<String>,
    /// What the short addresses of `link(…)` begin with, such as `https://s.example.com`: a name that leads to the
    /// callbacks' listener, where `/l/CODE` is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_links: Option<String>,
    /// The most parts of a text whose template does not say it; absent: 10. A longer text is refused, never cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parts: Option<u16>,
    /// The currency of amounts that name none, and of all costs (ISO 4217); absent: EUR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// What national numbers belong to where nothing else says so (ISO 3166-1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_region: Option<String>,
    /// The same for what a source says on the topic: by the `ce_source` of its events.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub regions: BTreeMap<String, String>,
    /// For contacts whose zone is unknown and whose phone's prefix says nothing (IANA).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_zone: Option<String>,
    /// Prefixes that may be written to; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_prefixes: Vec<String>,
    /// Prefixes that are never written to (premium numbers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_prefixes: Vec<String>,
    /// Whether premium rate numbers (by libphonenumber's data) may be written to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_premium: bool,
    /// At most so many messages an hour to a prefix, of both classes (against SMS pumping). Where several prefixes fit a
    /// phone all of them count. What goes beyond is suppressed, with an alarm.
    #[serde(default, rename = "destination_limit", skip_serializing_if = "Vec::is_empty")]
    pub destination_limits: Vec<DestinationLimit>,
    /// What a part costs, by prefix: the longest prefix wins. Money is in millionths of the account's currency.
    #[serde(default, rename = "price", skip_serializing_if = "Vec::is_empty")]
    pub prices: Vec<Price>,
    /// What replies mean beside the built-in words, and what is answered.
    #[serde(default, rename = "keyword", skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<KeywordRule>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cap {
    pub messages: u32,
    pub per: Period,
    /// Counts and stops messages of this purpose alone; absent: all marketing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

impl Cap {
    /// From when on it counts.
    pub fn since(&self, now: Timestamp) -> Timestamp {
        now.checked_sub(self.per.duration()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Whether it counts and stops messages of this purpose.
    pub fn counts(&self, purpose: &str) -> bool {
        self.purpose.as_deref().is_none_or(|own| own == purpose)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationLimit {
    pub prefix: String,
    pub per_hour: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// `+262`; empty: every phone.
    #[serde(default)]
    pub prefix: String,
    /// Absent: every gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Millionths of the account's currency for one part.
    pub micros: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuietHours {
    #[default]
    ByTerritory,
    Off,
    /// Sending is allowed from the first to the second, every day, in the recipient's zone.
    Allowed(Time, Time),
}

impl FromStr for QuietHours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{}` is no rule for quiet hours: expected `by-territory`, `off`, or the hours when sending is allowed such as `08:00-20:00`",
                text.chars().take(40).collect::<String>()
            )
        };
        match text {
            "by-territory" => Ok(QuietHours::ByTerritory),
            "off" => Ok(QuietHours::Off),
            _ => {
                let (from, to) = text.split_once('-').ok_or_else(wrong)?;
                let time = |text: &str| match text {
                    // The end of the day; jiff's last time is one nanosecond before it.
                    "24:00" => Ok(Time::MAX),
                    _ => Time::strptime("%H:%M", text).map_err(|_| wrong()),
                };
                let (from, to) = (time(from.trim())?, time(to.trim())?);
                if from < to {
                    Ok(QuietHours::Allowed(from, to))
                } else {
                    Err(wrong())
                }
            }
        }
    }
}

impl fmt::Display for QuietHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuietHours::ByTerritory => f.write_str("by-territory"),
            QuietHours::Off => f.write_str("off"),
            QuietHours::Allowed(from, to) => {
                write!(f, "{:02}:{:02}-", from.hour(), from.minute())?;
                match *to == Time::MAX {
                    true => f.write_str("24:00"),
                    false => write!(f, "{:02}:{:02}", to.hour(), to.minute()),
                }
            }
        }
    }
}

impl Serialize for QuietHours {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for QuietHours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

fn short_links_are_good(address: &str) -> bool {
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| address.strip_prefix(scheme));
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'/' | b'_');
    address.len() <= 100
        && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(good))
}

/// Whether an address ends in the path that its links add: they would lead nowhere.
fn has_own_path(address: &str) -> bool {
    let host_and_path = address.split_once("://").map_or(address, |(_, rest)| rest);
    host_and_path.trim_end_matches('/').ends_with("/l")
}

impl Policy {
    /// What the short address of a code begins with.
    pub fn link_base(&self) -> Option<String> {
        let address = self.short_links.as_deref()?;
        Some(format!("{}/l/", address.trim_end_matches('/')))
    }

    /// What national numbers belong to that a source sends.
    pub fn region_of(&self, source: &str) -> Option<&str> {
        self.regions
            .get(source)
            .or(self.default_region.as_ref())
            .map(String::as_str)
    }

    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        let prefix_is_good = |prefix: &str| {
            prefix.strip_prefix('+').is_some_and(|digits| {
                (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
            })
        };
        let expected = "expected prefixes such as `+262`";
        for (key, prefixes) in [
            ("allowed_prefixes", &self.allowed_prefixes),
            ("blocked_prefixes", &self.blocked_prefixes),
        ] {
            if !prefixes.iter().all(|prefix| prefix_is_good(prefix)) {
                problems.push(Problem::new(key, expected));
            }
        }
        if !self
            .destination_limits
            .iter()
            .all(|limit| prefix_is_good(&limit.prefix))
        {
            problems.push(Problem::new("destination_limit", expected));
        }
        for price in &self.prices {
            if !price.prefix.is_empty() && !prefix_is_good(&price.prefix) {
                problems.push(Problem::new("price", expected));
            }
            if !(0..=1_000_000_000).contains(&price.micros) {
                problems.push(Problem::new("price", "`micros` expected from 0 to 1,000,000,000"));
            }
        }
        for rule in &self.keywords {
            rule.check(problems);
        }
        if let Some(address) = &self.short_links {
            if !short_links_are_good(address) {
                problems.push(Problem::new(
                    "short_links",
                    "expected an address of up to 100 characters such as `https://s.example.com`",
                ));
            } else if has_own_path(address) {
                problems.push(Problem::new(
                    "short_links",
                    "expected the address without `/l`, which stands in each link behind it",
                ));
            }
        }
        if self.caps.iter().any(|cap| cap.messages == 0) {
            problems.push(Problem::new("cap", "`messages` expected to be 1 or more"));
        }
        if !self
            .caps
            .iter()
            .filter_map(|cap| cap.purpose.as_deref())
            .all(is_purpose)
        {
            problems.push(Problem::new("cap", PURPOSE));
        }
        if self.brand.as_deref().is_some_and(|brand| !brand_is_good(brand)) {
            problems.push(Problem::new("brand", BRAND));
        }
        if self.max_parts.is_some_and(|parts| !(1..=255).contains(&parts)) {
            problems.push(Problem::new("max_parts", "expected 1 to 255"));
        }
        if let Some(currency) = &self.currency
            && !(currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase()))
        {
            problems.push(Problem::new(
                "currency",
                "expected three capital letters such as `EUR` (ISO 4217)",
            ));
        }
        for (key, mention) in self
            .opt_out
            .iter()
            .map(|mention| ("opt_out", mention))
            .chain(self.opt_outs.values().map(|mention| ("opt_outs", mention)))
        {
            if mention.chars().count() > 100 || mention.contains(char::is_control) {
                problems.push(Problem::new(key, "expected one line of up to 100 characters"));
            }
        }
        // Of a region that no numbering plan knows every national number would be refused.
        let is_region = |region: &str| {
            region.len() == 2
                && region.bytes().all(|byte| byte.is_ascii_uppercase())
                && domain::Phone::knows_region(region)
        };
        for (key, bad) in [
            (
                "default_region",
                self.default_region.iter().any(|region| !is_region(region)),
            ),
            ("regions", self.regions.values().any(|region| !is_region(region))),
        ] {
            if bad {
                problems.push(Problem::new(
                    key,
                    "expected two capital letters such as `RE` (ISO 3166-1)",
                ));
            }
        }
        if let Some(zone) = &self.default_zone
            && jiff::tz::TimeZone::get(zone).is_err()
        {
            problems.push(Problem::new(
                "default_zone",
                "expected an IANA zone such as `Indian/Reunion`",
            ));
        }
    }
}
