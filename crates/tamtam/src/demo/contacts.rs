//! The demo's contacts: the customers of a shop on Réunion, made up by a seeded generator.
//!
//! `tamtam demo-contacts > deploy/demo/contacts.csv` writes the file that is kept; a test holds the two equal. The
//! generator is its own (SplitMix64), so that no other crate's version changes the file.

use std::{collections::HashSet, fmt::Write};

use domain::Phone;
use jiff::civil::Date;

use crate::exit::Failure;

/// The file as it is kept.
pub const CSV: &str = include_str!("../../../../deploy/demo/contacts.csv");
const COUNT: usize = 10_000;
const SEED: u64 = 974;

/// (commune, postal code, inhabitants in thousands), by region of the island.
const COMMUNES: [(&str, &str, &str, u64); 24] = [
    ("north", "Saint-Denis", "97400", 153),
    ("north", "Sainte-Marie", "97438", 34),
    ("north", "Sainte-Suzanne", "97441", 24),
    ("east", "Saint-André", "97440", 56),
    ("east", "Saint-Benoît", "97470", 37),
    ("east", "Bras-Panon", "97412", 13),
    ("east", "Salazie", "97433", 7),
    ("east", "Sainte-Rose", "97439", 6),
    ("east", "La Plaine-des-Palmistes", "97431", 7),
    ("south", "Saint-Pierre", "97410", 84),
    ("south", "Le Tampon", "97430", 80),
    ("south", "Saint-Louis", "97450", 53),
    ("south", "Saint-Joseph", "97480", 38),
    ("south", "L'Étang-Salé", "97427", 14),
    ("south", "Petite-Île", "97429", 12),
    ("south", "Les Avirons", "97425", 11),
    ("south", "Entre-Deux", "97414", 7),
    ("south", "Cilaos", "97413", 5),
    ("south", "Saint-Philippe", "97442", 5),
    ("west", "Saint-Paul", "97460", 104),
    ("west", "Le Port", "97420", 33),
    ("west", "Saint-Leu", "97436", 35),
    ("west", "La Possession", "97419", 33),
    ("west", "Trois-Bassins", "97426", 7),
];

const FEMALE: [&str; 32] = [
    "Marie",
    "Anaïs",
    "Camille",
    "Léa",
    "Manon",
    "Emma",
    "Chloé",
    "Élodie",
    "Julie",
    "Laura",
    "Mélissa",
    "Océane",
    "Sarah",
    "Inès",
    "Jade",
    "Lola",
    "Nathalie",
    "Sandrine",
    "Valérie",
    "Isabelle",
    "Christine",
    "Françoise",
    "Sabrina",
    "Stéphanie",
    "Émilie",
    "Audrey",
    "Aurélie",
    "Priscilla",
    "Noémie",
    "Clara",
    "Zoé",
    "Maëva",
];
const MALE: [&str; 32] = [
    "Jean",
    "Lucas",
    "Hugo",
    "Mathis",
    "Enzo",
    "Louis",
    "Nathan",
    "Théo",
    "Loïc",
    "Kévin",
    "Jérôme",
    "Frédéric",
    "Thierry",
    "Patrick",
    "Olivier",
    "Sébastien",
    "Mickaël",
    "Dylan",
    "Jordan",
    "Alexandre",
    "Nicolas",
    "Julien",
    "Romain",
    "Bruno",
    "Gilles",
    "Yannick",
    "Didier",
    "Raphaël",
    "Gabriel",
    "Noah",
    "Tom",
    "Samuel",
];
const LAST: [&str; 40] = [
    "Payet",
    "Hoarau",
    "Grondin",
    "Boyer",
    "Fontaine",
    "Robert",
    "Rivière",
    "Dijoux",
    "Técher",
    "Maillot",
    "Lebon",
    "Nativel",
    "Turpin",
    "Bègue",
    "Hoareau",
    "Lauret",
    "Vitry",
    "Sautron",
    "Ramassamy",
    "Virapoullé",
    "Techer",
    "Morel",
    "Huet",
    "Lallemand",
    "Mussard",
    "Cadet",
    "Gonthier",
    "Baret",
    "Dalleau",
    "Picard",
    "Smith",
    "Chan",
    "Law-Yen",
    "Moutoussamy",
    "Vellayoudom",
    "Sinama",
    "Abrousse",
    "Ferrère",
    "Damour",
    "Folio",
];

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `n` - 1.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }

    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }
}

/// The file's text.
pub fn generate() -> String {
    let mut random = Random(SEED);
    let mut phones = HashSet::new();
    let inhabitants: u64 = COMMUNES.iter().map(|(.., inhabitants)| inhabitants).sum();
    let mut text = String::from(
        "id,phone,first_name,last_name,gender,birth_date,city,region,postal_code,language,time_zone,marketing_consent\n",
    );
    for number in 1..=COUNT {
        let phone = loop {
            let prefix = if random.percent(70) { "692" } else { "693" };
            let phone = format!("+262{prefix}{:06}", random.below(1_000_000));
            // Not every number of 0693 is given out: libphonenumber knows.
            if Phone::parse(&phone, None).is_ok() && phones.insert(phone.clone()) {
                break phone;
            }
        };
        let (gender, first) = match random.below(100) {
            0..54 => ("female", random.of(&FEMALE)),
            54..98 => ("male", random.of(&MALE)),
            _ => ("", random.of(&FEMALE)),
        };
        let mut at = random.below(inhabitants);
        let (region, city, postal_code) = COMMUNES
            .iter()
            .find_map(|(region, city, code, inhabitants)| {
                if at < *inhabitants {
                    return Some((*region, *city, *code));
                }
                at -= inhabitants;
                None
            })
            .unwrap_or(("north", "Saint-Denis", "97400"));
        // The smaller of two: a shop with a young public.
        let age = 16 + random.below(65).min(random.below(65));
        let birth = Date::new(
            2026 - age as i16,
            1 + random.below(12) as i8,
            1 + random.below(28) as i8,
        );
        let birth = match birth {
            Ok(date) if !random.percent(3) => date.to_string(),
            _ => String::new(),
        };
        let consent = match random.below(100) {
            0..60 => format!(
                "{}-{:02}-{:02}T{:02}:{:02}:00Z",
                2022 + random.below(4),
                1 + random.below(12),
                1 + random.below(28),
                5 + random.below(12),
                random.below(60)
            ),
            60..80 => "true".into(),
            80..93 => "false".into(),
            _ => String::new(),
        };
        let phone = if random.percent(1) { String::new() } else { phone };
        let _ = writeln!(
            text,
            "c{number:05},{phone},{first},{},{gender},{birth},{city},{region},{postal_code},fr,Indian/Reunion,{consent}",
            random.of(&LAST)
        );
    }
    text
}

/// The hidden command: the file on standard output.
pub fn write() -> Result<(), Failure> {
    crate::commands::output::text(&generate())
}

/// A contact as far as the demo must know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub id: String,
    pub gender: String,
    pub birth_date: Option<Date>,
    pub region: String,
}

/// The contacts of the kept file.
pub fn read(text: &str) -> Result<Vec<Known>, Failure> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let bad = |error: csv::Error| Failure::no(format!("contacts.csv: {error}"));
    let headers = reader.headers().map_err(bad)?.clone();
    let column = |name: &str| {
        headers
            .iter()
            .position(|header| header == name)
            .ok_or_else(|| Failure::no(format!("contacts.csv: no column `{name}`")))
    };
    let (id, gender, birth, region) = (
        column("id")?,
        column("gender")?,
        column("birth_date")?,
        column("region")?,
    );
    reader
        .records()
        .map(|record| {
            let record = record.map_err(bad)?;
            let cell = |index: usize| record.get(index).unwrap_or_default().to_owned();
            Ok(Known {
                id: cell(id),
                gender: cell(gender),
                birth_date: cell(birth).parse().ok(),
                region: cell(region),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_file_is_what_the_generator_makes() {
        assert!(
            generate() == CSV,
            "run `tamtam demo-contacts > deploy/demo/contacts.csv`"
        );
        assert_eq!(read(CSV).unwrap().len(), COUNT);
    }
}
