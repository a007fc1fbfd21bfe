//! Whose law and whose clock apply to a phone: territories, their hours and their holidays.
//!
//! The table is one versioned file, `data/territories.json`, compiled in. Adding a country is adding an entry: its
//! prefixes, its zones, and where it has rules of its own its hours and holidays with their source.

mod calendar;
mod document;
mod prefixes;

use std::sync::LazyLock;

use jiff::{
    civil::{Date, Time, Weekday},
    tz::TimeZone,
};
use serde::{Deserialize, Deserializer, de::Error as _};

pub use calendar::{Day, easter};

use self::prefixes::Prefixes;
use crate::Phone;

/// The whole table.
#[derive(Debug)]
pub struct Table {
    /// Goes into the record of every decision.
    pub version: String,
    territories: Vec<Territory>,
    elsewhere: Territory,
    prefixes: Prefixes,
}

/// A place with rules of its own, or at least with a zone.
#[derive(Debug)]
pub struct Territory {
    /// ISO 3166-1.
    pub code: String,
    pub name: String,
    /// What is spoken there, as BCP 47, where one language can be assumed.
    pub language: Option<String>,
    /// The zones of a phone whose own zone is not known: the hours must be open in all of them.
    zones: Vec<TimeZone>,
    zone_names: Vec<String>,
    hours: Vec<Hours>,
    holidays: Vec<Day>,
    /// Where the rules stand written.
    pub source: String,
}

/// When sending is allowed, on some days of the week: from the first time to before the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    pub days: Vec<Weekday>,
    pub from: Time,
    pub to: Time,
}

/// Where a message goes: whose rules, by which clocks.
#[derive(Clone, Debug)]
pub struct Place {
    pub territory: &'static Territory,
    pub zones: Vec<TimeZone>,
}

impl Table {
    pub fn get() -> &'static Table {
        static TABLE: LazyLock<Table> = LazyLock::new(Table::read);
        &TABLE
    }

    #[expect(clippy::expect_used, reason = "the file is compiled in, and a test reads it")]
    fn read() -> Table {
        serde_json::from_str::<File>(include_str!("../../data/territories.json"))
            .map_err(|error| error.to_string())
            .and_then(File::into_table)
            .expect("data/territories.json is good")
    }

    pub fn territories(&self) -> impl Iterator<Item = &Territory> {
        self.territories.iter().chain([&self.elsewhere])
    }

    /// The territory that a zone lies in.
    pub fn by_zone(&self, zone: &str) -> Option<&Territory> {
        self.territories
            .iter()
            .find(|territory| territory.zone_names.iter().any(|name| name.eq_ignore_ascii_case(zone)))
    }

    /// The territory of a phone, by the longest prefix.
    pub fn by_phone(&self, phone: &Phone) -> &Territory {
        self.prefixes
            .longest(phone.e164())
            .and_then(|index| self.territories.get(index))
            .unwrap_or(&self.elsewhere)
    }
}

impl Territory {
    /// The hours of a day, none on a holiday.
    pub fn hours(&self, date: Date) -> impl Iterator<Item = &Hours> {
        let closed = self.is_holiday(date);
        self.hours
            .iter()
            .filter(move |hours| !closed && hours.days.contains(&date.weekday()))
    }

    pub fn is_holiday(&self, date: Date) -> bool {
        self.holidays.iter().any(|day| day.is(date))
    }
}

impl Place {
    /// The contact's own zone comes first, and tells the territory where it is a known one's; then the phone's prefix;
    /// then `default_zone`; then UTC.
    pub fn of(zone: Option<&str>, phone: &Phone, default_zone: Option<&str>) -> Place {
        let table = Table::get();
        let known = |name: &str| TimeZone::get(name).ok();
        if let Some(name) = zone
            && let Some(own) = known(name)
        {
            return Place {
                territory: table.by_zone(name).unwrap_or_else(|| table.by_phone(phone)),
                zones: vec![own],
            };
        }
        let territory = table.by_phone(phone);
        if !territory.zones.is_empty() {
            return Place {
                territory,
                zones: territory.zones.clone(),
            };
        }
        Place {
            territory,
            zones: vec![default_zone.and_then(known).unwrap_or(TimeZone::UTC)],
        }
    }

    /// The clock that dates in a text are written by.
    pub fn zone(&self) -> TimeZone {
        self.zones.first().cloned().unwrap_or(TimeZone::UTC)
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    holidays: std::collections::BTreeMap<String, HolidaysEntry>,
    elsewhere: Entry,
    territories: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HolidaysEntry {
    #[serde(rename = "source")]
    _source: String,
    days: Vec<Day>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    code: String,
    name: String,
    #[serde(default)]
    language: Option<String>,
    prefixes: Vec<String>,
    zones: Vec<String>,
    /// Further zones that lie in it.
    #[serde(default)]
    also: Vec<String>,
    /// Absent: those of `elsewhere`.
    #[serde(default)]
    hours: Vec<HoursEntry>,
    /// Names of lists.
    #[serde(default)]
    holidays: Vec<String>,
    #[serde(default)]
    local_holidays: Vec<Day>,
    #[serde(default)]
    source: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoursEntry {
    days: Vec<DayOfWeek>,
    #[serde(deserialize_with = "time")]
    from: Time,
    #[serde(deserialize_with = "time")]
    to: Time,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DayOfWeek {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl From<DayOfWeek> for Weekday {
    fn from(day: DayOfWeek) -> Weekday {
        match day {
            DayOfWeek::Mon => Weekday::Monday,
            DayOfWeek::Tue => Weekday::Tuesday,
            DayOfWeek::Wed => Weekday::Wednesday,
            DayOfWeek::Thu => Weekday::Thursday,
            DayOfWeek::Fri => Weekday::Friday,
            DayOfWeek::Sat => Weekday::Saturday,
            DayOfWeek::Sun => Weekday::Sunday,
        }
    }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    Time::strptime("%H:%M", String::deserialize(deserializer)?).map_err(D::Error::custom)
}

impl File {
    fn into_table(self) -> Result<Table, String> {
        let default_hours = self.elsewhere.hours.clone();
        let lists = self.holidays;
        let build = |entry: Entry| -> Result<Territory, String> {
            let zones = entry
                .zones
                .iter()
                .map(|name| TimeZone::get(name).map_err(|error| error.to_string()))
                .collect::<Result<_, _>>()?;
            let mut holidays = entry.local_holidays;
            for name in &entry.holidays {
                let list = lists.get(name).ok_or_else(|| format!("no list of holidays `{name}`"))?;
                holidays.extend(&list.days);
            }
            let hours = match entry.hours.is_empty() {
                true => default_hours.clone(),
                false => entry.hours,
            };
            Ok(Territory {
                code: entry.code,
                name: entry.name,
                language: entry.language,
                zones,
                zone_names: entry.zones.into_iter().chain(entry.also).collect(),
                hours: hours
                    .into_iter()
                    .map(|hours| Hours {
                        days: hours.days.into_iter().map(Weekday::from).collect(),
                        from: hours.from,
                        to: hours.to,
                    })
                    .collect(),
                holidays,
                source: entry.source.unwrap_or_else(|| "the default".into()),
            })
        };
        let mut prefixes = Prefixes::default();
        for (index, entry) in self.territories.iter().enumerate() {
            for prefix in &entry.prefixes {
                prefixes.insert(prefix, index)?;
            }
        }
        Ok(Table {
            version: self.version,
            elsewhere: build(self.elsewhere)?,
            territories: self.territories.into_iter().map(build).collect::<Result<_, _>>()?,
            prefixes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn code(zone: Option<&str>, phone: &str) -> String {
        Place::of(zone, &Phone::from_e164(phone), None).territory.code.clone()
    }

    #[test]
    fn the_zone_tells_the_territory_and_else_the_prefix() {
        assert_eq!(code(None, "+262692123456"), "RE");
        assert_eq!(code(None, "+262639123456"), "YT");
        assert_eq!(code(None, "+262269601234"), "YT");
        assert_eq!(code(Some("Indian/Mayotte"), "+262692123456"), "YT");
        assert_eq!(code(Some("Asia/Tokyo"), "+33612345678"), "JP");
        assert_eq!(code(Some("Asia/Novosibirsk"), "+33612345678"), "FR");
        assert_eq!(code(Some("Nowhere/At_All"), "+33612345678"), "FR");
        assert_eq!(code(Some("America/St_Barthelemy"), "+590690123456"), "BL");
        assert_eq!(code(None, "+12125550123"), "US");
        assert_eq!(code(None, "+8881234567"), "ZZ");
        let tokyo = Place::of(None, &Phone::from_e164("+8881234567"), Some("Asia/Tokyo"));
        assert_eq!(tokyo.zone().iana_name(), Some("Asia/Tokyo"));
    }

    #[test]
    fn territorial_days() {
        let table = Table::get();
        for (code, month, day) in [
            ("RE", 12, 20),
            ("YT", 4, 27),
            ("MQ", 5, 22),
            ("GP", 5, 27),
            ("MF", 5, 27),
            ("GF", 6, 10),
            ("BL", 10, 9),
        ] {
            for territory in table.territories() {
                let own = territory.code == code
                    || (code == "MF" && territory.code == "GP")
                    || (code == "GP" && territory.code == "MF")
                    || (code == "BL" && territory.code == "GP");
                assert_eq!(
                    territory.is_holiday(date(2027, month, day)),
                    own,
                    "{} {code}",
                    territory.code
                );
            }
        }
    }

    #[test]
    fn every_zone_of_the_table_exists() {
        for territory in Table::get().territories() {
            for name in &territory.zone_names {
                assert!(TimeZone::get(name).is_ok(), "{name}");
            }
            assert!(!territory.hours.is_empty());
        }
    }
}
