//! Dates, times and numbers in the reader's language and zone.

use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time, Weekday},
    tz::TimeZone,
};

/// The languages that dates and amounts are written in. Another language gets English ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Language {
    French,
    #[default]
    English,
    /// With the month before the day and a clock of twelve hours.
    AmericanEnglish,
}

impl Language {
    /// By a BCP 47 tag.
    pub fn of(tag: &str) -> Language {
        let mut subtags = tag.split(['-', '_']);
        match subtags.next() {
            Some(primary) if primary.eq_ignore_ascii_case("fr") => Language::French,
            Some(primary)
                if primary.eq_ignore_ascii_case("en") && subtags.any(|region| region.eq_ignore_ascii_case("us")) =>
            {
                Language::AmericanEnglish
            }
            _ => Language::English,
        }
    }
}

/// How a text is to be written: whose language, whose clock, which money.
#[derive(Clone, Debug, PartialEq)]
pub struct Locale {
    pub language: Language,
    pub zone: TimeZone,
    /// ISO 4217; empty: EUR.
    pub currency: String,
    /// The country that numbers are written nationally for (ISO 3166-1), where it is known.
    pub country: Option<String>,
}

impl Default for Locale {
    fn default() -> Locale {
        Locale {
            language: Language::default(),
            zone: TimeZone::UTC,
            currency: String::new(),
            country: None,
        }
    }
}

/// How long a date is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `24/11/2026`
    Short,
    /// `24 novembre 2026`
    Long,
    /// `mardi 24 novembre`
    Day,
}

impl Style {
    pub fn of(word: &str) -> Option<Style> {
        match word {
            "short" => Some(Style::Short),
            "long" => Some(Style::Long),
            "day" => Some(Style::Day),
            _ => None,
        }
    }
}

/// A time as data has it, brought to the reader's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) date: Date,
    /// Absent: the data is a date alone.
    pub(crate) time: Option<Time>,
}

impl Moment {
    /// Reads an instant in RFC 3339 (moved into `zone`), a civil time, or a date.
    pub(crate) fn read(text: &str, zone: &TimeZone) -> Option<Moment> {
        let bytes = text.as_bytes();
        if bytes.len() < 10 || !bytes[0].is_ascii_digit() || bytes[4] != b'-' || bytes[7] != b'-' {
            return None;
        }
        if bytes.len() == 10 {
            let date = text.parse().ok()?;
            return Some(Moment { date, time: None });
        }
        let local: DateTime = match text.parse::<Timestamp>() {
            Ok(at) => zone.to_datetime(at),
            Err(_) => text.parse().ok()?,
        };
        Some(Moment {
            date: local.date(),
            time: Some(local.time()),
        })
    }
}

const FRENCH_MONTHS: [&str; 12] = [
    // `aout` without its circumflex is right since 1990, and stays within GSM-7.
    "janvier",
    "février",
    "mars",
    "avril",
    "mai",
    "juin",
    "juillet",
    "aout",
    "septembre",
    "octobre",
    "novembre",
    "décembre",
];
const ENGLISH_MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Locale {
    pub(crate) fn date(&self, date: Date, style: Style) -> String {
        let (year, day) = (date.year(), date.day());
        let index = usize::from(date.month().unsigned_abs().saturating_sub(1)).min(11);
        let english = ENGLISH_MONTHS[index];
        match (self.language, style) {
            (Language::French, Style::Short) => format!("{day:02}/{:02}/{year}", date.month()),
            (Language::French, Style::Long) => format!("{} {} {year}", first(day), FRENCH_MONTHS[index]),
            (Language::French, Style::Day) => {
                format!("{} {} {}", french_day(date.weekday()), first(day), FRENCH_MONTHS[index])
            }
            (Language::English, Style::Short) => format!("{day} {} {year}", &english[..3]),
            (Language::English, Style::Long) => format!("{day} {english} {year}"),
            (Language::English, Style::Day) => format!("{} {day} {english}", english_day(date.weekday())),
            (Language::AmericanEnglish, Style::Short) => format!("{} {day}, {year}", &english[..3]),
            (Language::AmericanEnglish, Style::Long) => format!("{english} {day}, {year}"),
            (Language::AmericanEnglish, Style::Day) => format!("{}, {english} {day}", english_day(date.weekday())),
        }
    }

    pub(crate) fn time(&self, time: Time) -> String {
        let (hour, minute) = (time.hour(), time.minute());
        match self.language {
            Language::French if minute == 0 => format!("{hour}h"),
            Language::French => format!("{hour}h{minute:02}"),
            Language::English => format!("{hour:02}:{minute:02}"),
            Language::AmericanEnglish => {
                let half = if hour < 12 { "am" } else { "pm" };
                let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
                match minute {
                    0 => format!("{twelve} {half}"),
                    _ => format!("{twelve}:{minute:02} {half}"),
                }
            }
        }
    }

    /// What is written where no filter says how: `24/11/2026 à 18h`.
    pub(crate) fn moment(&self, moment: Moment) -> String {
        let date = self.date(moment.date, Style::Short);
        match (moment.time, self.language) {
            (None, _) => date,
            (Some(time), Language::French) => format!("{date} à {}", self.time(time)),
            (Some(time), _) => format!("{date}, {}", self.time(time)),
        }
    }
}

fn first(day: i8) -> String {
    match day {
        1 => "1er".into(),
        _ => day.to_string(),
    }
}

fn french_day(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "lundi",
        Weekday::Tuesday => "mardi",
        Weekday::Wednesday => "mercredi",
        Weekday::Thursday => "jeudi",
        Weekday::Friday => "vendredi",
        Weekday::Saturday => "samedi",
        Weekday::Sunday => "dimanche",
    }
}

fn english_day(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}
