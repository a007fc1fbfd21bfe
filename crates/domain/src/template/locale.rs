//! Dates, times and numbers in the reader's language and zone.

use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time},
    tz::TimeZone,
};

/// The languages that dates, amounts and yes and no are written in, and by which letters change their case. Another language
/// gets English ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Language {
    French,
    #[default]
    English,
    /// With the month before the day and a clock of twelve hours.
    AmericanEnglish,
    German,
    Portuguese,
    Spanish,
    Turkish,
}

impl Language {
    /// By a BCP 47 tag.
    pub fn of(tag: &str) -> Language {
        let mut subtags = tag.split(['-', '_']);
        match subtags.next() {
            Some(primary) if primary.eq_ignore_ascii_case("fr") => Language::French,
            Some(primary) if primary.eq_ignore_ascii_case("de") => Language::German,
            Some(primary) if primary.eq_ignore_ascii_case("pt") => Language::Portuguese,
            Some(primary) if primary.eq_ignore_ascii_case("es") => Language::Spanish,
            Some(primary) if primary.eq_ignore_ascii_case("tr") => Language::Turkish,
            Some(primary)
                if primary.eq_ignore_ascii_case("en") && subtags.any(|region| region.eq_ignore_ascii_case("us")) =>
            {
                Language::AmericanEnglish
            }
            _ => Language::English,
        }
    }

    fn is_english(self) -> bool {
        matches!(self, Language::English | Language::AmericanEnglish)
    }

    /// `12,5` instead of `12.5`.
    pub(crate) fn has_decimal_comma(self) -> bool {
        !self.is_english()
    }

    pub(crate) fn yes_or_no(self, yes: bool) -> &'static str {
        match (self, yes) {
            (Language::French, true) => "oui",
            (Language::French, false) => "non",
            (Language::English | Language::AmericanEnglish, true) => "yes",
            (Language::English | Language::AmericanEnglish | Language::Spanish, false) => "no",
            (Language::German, true) => "ja",
            (Language::German, false) => "nein",
            (Language::Portuguese, true) => "sim",
            (Language::Portuguese, false) => "não",
            (Language::Spanish, true) => "sí",
            (Language::Turkish, true) => "evet",
            (Language::Turkish, false) => "hayır",
        }
    }

    /// Turkish has an i with a dot and one without, small and large alike.
    pub(crate) fn push_upper(self, character: char, to: &mut String) {
        match (self, character) {
            (Language::Turkish, 'i') => to.push('İ'),
            _ => to.extend(character.to_uppercase()),
        }
    }

    pub(crate) fn push_lower(self, character: char, to: &mut String) {
        match (self, character) {
            (Language::Turkish, 'I') => to.push('ı'),
            (Language::Turkish, 'İ') => to.push('i'),
            _ => to.extend(character.to_lowercase()),
        }
    }

    pub(crate) fn upper(self, text: &str) -> String {
        match self {
            Language::Turkish => text.replace('i', "İ").to_uppercase(),
            _ => text.to_uppercase(),
        }
    }

    pub(crate) fn lower(self, text: &str) -> String {
        match self {
            Language::Turkish => text.replace('I', "ı").replace('İ', "i").to_lowercase(),
            _ => text.to_lowercase(),
        }
    }

    fn months(self) -> &'static [&'static str; 12] {
        match self {
            Language::French => &FRENCH_MONTHS,
            Language::English | Language::AmericanEnglish => &ENGLISH_MONTHS,
            Language::German => &GERMAN_MONTHS,
            Language::Portuguese => &PORTUGUESE_MONTHS,
            Language::Spanish => &SPANISH_MONTHS,
            Language::Turkish => &TURKISH_MONTHS,
        }
    }

    /// From Monday on.
    fn days(self) -> &'static [&'static str; 7] {
        match self {
            Language::French => &FRENCH_DAYS,
            Language::English | Language::AmericanEnglish => &ENGLISH_DAYS,
            Language::German => &GERMAN_DAYS,
            Language::Portuguese => &PORTUGUESE_DAYS,
            Language::Spanish => &SPANISH_DAYS,
            Language::Turkish => &TURKISH_DAYS,
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

const GERMAN_MONTHS: [&str; 12] = [
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
];
const PORTUGUESE_MONTHS: [&str; 12] = [
    "janeiro",
    "fevereiro",
    "março",
    "abril",
    "maio",
    "junho",
    "julho",
    "agosto",
    "setembro",
    "outubro",
    "novembro",
    "dezembro",
];
const SPANISH_MONTHS: [&str; 12] = [
    "enero",
    "febrero",
    "marzo",
    "abril",
    "mayo",
    "junio",
    "julio",
    "agosto",
    "septiembre",
    "octubre",
    "noviembre",
    "diciembre",
];
const TURKISH_MONTHS: [&str; 12] = [
    "Ocak", "Şubat", "Mart", "Nisan", "Mayıs", "Haziran", "Temmuz", "Ağustos", "Eylül", "Ekim", "Kasım", "Aralık",
];

const FRENCH_DAYS: [&str; 7] = ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"];
const ENGLISH_DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const GERMAN_DAYS: [&str; 7] = [
    "Montag",
    "Dienstag",
    "Mittwoch",
    "Donnerstag",
    "Freitag",
    "Samstag",
    "Sonntag",
];
const PORTUGUESE_DAYS: [&str; 7] = [
    "segunda-feira",
    "terça-feira",
    "quarta-feira",
    "quinta-feira",
    "sexta-feira",
    "sábado",
    "domingo",
];
const SPANISH_DAYS: [&str; 7] = ["lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"];
const TURKISH_DAYS: [&str; 7] = [
    "Pazartesi",
    "Salı",
    "Çarşamba",
    "Perşembe",
    "Cuma",
    "Cumartesi",
    "Pazar",
];

/// The forms are those of the Unicode CLDR where they can be written in GSM-7 at no loss.
impl Locale {
    pub(crate) fn date(&self, date: Date, style: Style) -> String {
        let (year, day) = (date.year(), date.day());
        let index = usize::from(date.month().unsigned_abs().saturating_sub(1)).min(11);
        let month = self.language.months()[index];
        let weekday = self.language.days()[usize::from(date.weekday().to_monday_zero_offset().unsigned_abs()).min(6)];
        match (self.language, style) {
            (Language::French | Language::Portuguese | Language::Spanish, Style::Short) => {
                format!("{day:02}/{:02}/{year}", date.month())
            }
            (Language::German | Language::Turkish, Style::Short) => format!("{day:02}.{:02}.{year}", date.month()),
            (Language::French, Style::Long) => format!("{} {month} {year}", first(day)),
            (Language::French, Style::Day) => format!("{weekday} {} {month}", first(day)),
            (Language::English, Style::Short) => format!("{day} {} {year}", &month[..3]),
            (Language::English | Language::Turkish, Style::Long) => format!("{day} {month} {year}"),
            (Language::English, Style::Day) => format!("{weekday} {day} {month}"),
            (Language::AmericanEnglish, Style::Short) => format!("{} {day}, {year}", &month[..3]),
            (Language::AmericanEnglish, Style::Long) => format!("{month} {day}, {year}"),
            (Language::AmericanEnglish, Style::Day) => format!("{weekday}, {month} {day}"),
            (Language::German, Style::Long) => format!("{day}. {month} {year}"),
            (Language::German, Style::Day) => format!("{weekday}, {day}. {month}"),
            (Language::Portuguese | Language::Spanish, Style::Long) => format!("{day} de {month} de {year}"),
            (Language::Portuguese | Language::Spanish, Style::Day) => format!("{weekday}, {day} de {month}"),
            (Language::Turkish, Style::Day) => format!("{day} {month} {weekday}"),
        }
    }

    pub(crate) fn time(&self, time: Time) -> String {
        let (hour, minute) = (time.hour(), time.minute());
        match self.language {
            Language::French if minute == 0 => format!("{hour}h"),
            Language::French => format!("{hour}h{minute:02}"),
            Language::AmericanEnglish => {
                let half = if hour < 12 { "am" } else { "pm" };
                let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
                match minute {
                    0 => format!("{twelve} {half}"),
                    _ => format!("{twelve}:{minute:02} {half}"),
                }
            }
            _ => format!("{hour:02}:{minute:02}"),
        }
    }

    /// What is written where no filter says how: `24/11/2026 à 18h`.
    pub(crate) fn moment(&self, moment: Moment) -> String {
        let date = self.date(moment.date, Style::Short);
        match (moment.time, self.language) {
            (None, _) => date,
            (Some(time), Language::French) => format!("{date} à {}", self.time(time)),
            (Some(time), Language::Turkish) => format!("{date} {}", self.time(time)),
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
