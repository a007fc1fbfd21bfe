//! Seeded randomness, and what is made of it: contacts, what they did, and expressions about both.

use domain::{Consent, Phone, contact::ContactChange};
use events::BusinessEvent;
use jiff::{SignedDuration, Timestamp, ToSpan, civil::date, tz::TimeZone};
use serde_json::{Map, Value, json};

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Dice(pub u64);

pub const TYPES: [&str; 4] = ["order.placed", "cart.updated", "visit", "2fa-sent"];
const TEXTS: [&str; 18] = [
    "north",
    "south",
    "North",
    "",
    " ",
    "é",
    "z",
    "Zoë",
    "007",
    "7",
    "7.0",
    "-7.5",
    "1e3",
    "true",
    "false",
    "2024-02-29",
    "2024-02-29T23:30:00+04:00",
    "2024-13-01",
];
const NUMBERS: [&str; 12] = [
    "0",
    "7",
    "-7.5",
    "0.1",
    "0.3",
    "100",
    "99.999999999",
    "2024",
    "123456789012345678",
    "-0.000000001",
    "30",
    "1",
];

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Instants at which ages and windows turn: around midnights, leap days among them.
    pub fn now(&mut self) -> Timestamp {
        let base: Timestamp = self
            .pick(&[
                "2024-02-29T00:00:00Z",
                "2024-02-28T23:59:59.999999Z",
                "2025-02-28T12:00:00Z",
                "2025-03-01T00:00:00Z",
                "2026-11-24T20:00:00.123456789Z",
                "2027-01-01T00:00:00Z",
            ])
            .parse()
            .unwrap();
        base + SignedDuration::from_micros(self.pick(&[0, 0, 1, -1, 43_200_000_000]))
    }

    fn text(&mut self) -> String {
        self.pick(&TEXTS).to_owned()
    }

    fn scalar(&mut self) -> Value {
        match self.below(12) {
            0 => Value::Bool(self.one_in(2)),
            1..4 => self.text().into(),
            4 => json!(["north"]),
            5 => json!({"north": 7}),
            6 => self.pick(&[
                json!(1e300),
                json!(1e-7),
                json!(-0.0),
                json!(u64::MAX),
                json!(0.30000000000000004),
                json!(1e18),
                json!(9_007_199_254_740_993_i64),
                json!(-1.5e-10),
                json!(100.0),
                json!(0.000_000_000_5),
            ]),
            _ => serde_json::from_str(self.pick(&NUMBERS)).unwrap(),
        }
    }

    fn maybe_text(&mut self) -> Option<Option<String>> {
        Some((!self.one_in(4)).then(|| self.text()))
    }

    pub fn contact(&mut self, id: &str) -> ContactChange {
        let born = match self.below(5) {
            0 => None,
            1 => Some(date(self.pick(&[1960, 1996, 2000, 2004]), 2, 29)),
            2 => Some(date(
                self.pick(&[1994, 1995, 1996, 2023, 2024, 2027]),
                self.pick(&[2, 3]),
                self.pick(&[1, 28]),
            )),
            3 => Some(date(1996, 11, 24) + i64::try_from(self.below(5)).unwrap().days() - 2.days()),
            _ => Some(date(1950, 1, 1) + i64::try_from(self.below(29_000)).unwrap().days()),
        };
        let mut change = ContactChange {
            id: id.to_owned(),
            phone: Some((!self.one_in(3)).then(|| Phone::from_e164(format!("+26269200{:04}", self.below(10_000))))),
            first_name: self.maybe_text(),
            gender: Some(self.pick(&[None, Some("female".into()), Some("male".into())])),
            birth_date: Some(born),
            city: self.maybe_text(),
            region: self.maybe_text(),
            postal_code: self.maybe_text(),
            language: self.maybe_text(),
            marketing_consent: Some(self.pick(&[Consent::Unset, Consent::No, Consent::Given(None)])),
            ..ContactChange::default()
        };
        for name in ["points", "été", "and", "last visit", "a.b"] {
            if !self.one_in(3) {
                change.attributes.insert(name.into(), self.scalar());
            }
        }
        change
    }

    pub fn event(&mut self, contact: &str, number: usize, now: Timestamp) -> BusinessEvent {
        let mut data = Map::new();
        for name in ["amount", "category", "in"] {
            if !self.one_in(4) {
                data.insert(name.into(), self.scalar());
            }
        }
        if self.one_in(2) {
            let city = self.scalar();
            data.insert("ship".into(), json!({"city": city, "to.do": [1]}));
        }
        // At the edges of windows, and often at the same instant as another event.
        let ago = SignedDuration::from_hours(24 * self.pick(&[0, 1, 7, 30, 90, 400]));
        let micros = SignedDuration::from_micros(self.pick(&[0, 0, 0, 1, -1]));
        let midnight = TimeZone::UTC.to_timestamp(date(2024, 2, 29).at(0, 0, 0, 0)).unwrap();
        BusinessEvent {
            id: format!("e{number}"),
            source: self.pick(&["shop", "Web", "é"]).to_owned(),
            kind: self.pick(&TYPES).to_owned(),
            contact_id: contact.to_owned(),
            time: if self.one_in(4) {
                midnight + micros
            } else {
                now - ago + micros
            },
            data,
        }
    }

    fn literal(&mut self) -> String {
        match self.below(8) {
            0 => self.pick(&["true", "false"]).to_owned(),
            1 => self.pick(&["2024-02-29", "2024-03-01", "0001-01-01"]).to_owned(),
            2..5 => self.pick(&NUMBERS).to_owned(),
            _ => format!("{:?}", self.text()),
        }
    }

    fn order(&mut self) -> &'static str {
        self.pick(&["=", "!=", "<", "<=", ">", ">="])
    }

    fn list(&mut self, one: fn(&mut Dice) -> String) -> String {
        let count = 1 + self.below(4);
        (0..count).map(|_| one(self)).collect::<Vec<_>>().join(", ")
    }

    /// A test of a value of any type.
    fn test(&mut self) -> String {
        match self.below(9) {
            0 => self.pick(&["is set", "is not set"]).to_owned(),
            1 => format!("{}in ({})", self.pick(&["", "not "]), self.list(Dice::literal)),
            2 => format!("{}contains {:?}", self.pick(&["", "not "]), self.text()),
            3 => format!("{}starts with {:?}", self.pick(&["", "not "]), self.text()),
            4 => format!(
                "within {} {}",
                self.pick(&[1, 3, 400, 36_525]),
                self.pick(&["days", "day"])
            ),
            _ => match self.literal() {
                flag if flag == "true" || flag == "false" => format!("{} {flag}", self.pick(&["=", "!="])),
                literal => format!("{} {literal}", self.order()),
            },
        }
    }

    fn age(&mut self) -> String {
        self.pick(&[0, 1, 24, 28, 29, 30, 31, 150]).to_string()
    }

    fn day(&mut self) -> String {
        self.pick(&["1996-02-29", "1996-11-24", "1996-11-25", "2000-02-29", "2024-02-29"])
            .to_owned()
    }

    fn did(&mut self) -> String {
        let mut text = format!("did {}", self.pick(&["", "not "]));
        let which = self.pick(&["", "", "", "", "first ", "last "]);
        text += which;
        text += self.pick(&[
            "order.placed",
            "cart.updated",
            "visit",
            "\"2fa-sent\"",
            "never.happened",
        ]);
        if self.one_in(2) {
            let filters: Vec<String> = (0..1 + self.below(2))
                .map(|_| {
                    let property = self.pick(&["amount", "category", "in", "ship.city", "ship.`to.do`", "ship"]);
                    // A property has no age: any test does.
                    format!("{property} {}", self.test())
                })
                .collect();
            text += &format!("({})", filters.join(", "));
        }
        if which.is_empty() {
            match self.below(4) {
                0 => text += &format!(" count {} {}", self.order(), self.below(4)),
                1 => {
                    text += &format!(
                        " sum({}) {} {}",
                        self.pick(&["amount", "ship.city"]),
                        self.order(),
                        self.pick(&NUMBERS)
                    )
                }
                _ => {}
            }
        }
        match self.below(4) {
            0 => {
                text += &format!(
                    " within {}",
                    self.pick(&["1 day", "7 days", "30 days", "24 hours", "4 weeks", "1 minute"])
                )
            }
            1 => text += " since 2024-02-29",
            _ => {}
        }
        if self.one_in(3) {
            text += " before 2024-02-29";
        }
        text
    }

    pub fn expression(&mut self, depth: usize) -> String {
        if depth > 0 && !self.one_in(4) {
            let (one, two) = (self.expression(depth - 1), self.expression(depth - 1));
            return match self.below(5) {
                0 | 1 => format!("({one}) and ({two})"),
                2 | 3 => format!("({one}) or {two}"),
                _ => format!("not ({one})"),
            };
        }
        match self.below(11) {
            10 => format!(
                "received campaign {:?}",
                self.pick(&[
                    "Soldes",
                    "Soldes 2024-02-29",
                    "Rentrée",
                    "00000000-0000-0000-0000-000000000000",
                    "none"
                ])
            ),
            0 => format!("age {} {}", self.order(), self.age()),
            1 => self
                .pick(&[
                    "age is set",
                    "age is not set",
                    "birth_date is set",
                    "age not in (29, 30, 0)",
                ])
                .to_owned(),
            2 => match self.below(3) {
                0 => format!("birth_date {} {}", self.order(), self.day()),
                1 => format!("birth_date in ({})", self.list(Dice::day)),
                _ => format!("birth_date within {} days", self.pick(&[1, 366, 11_000])),
            },
            3 => format!(
                "marketing_consent {}",
                self.pick(&["= true", "!= true", "= false", "is set", "is not set"])
            ),
            4 => format!(
                "in audience \"{}\"",
                self.pick(&["buyers", "young", "circle", "nobody"])
            ),
            5 | 6 => self.did(),
            7 => {
                let field = self.pick(&[
                    "first_name",
                    "gender",
                    "city",
                    "region",
                    "postal_code",
                    "language",
                    "phone",
                ]);
                // A text of the built-in fields is no date.
                let test = loop {
                    let test = self.test();
                    if !test.starts_with("within") {
                        break test;
                    }
                };
                format!("{field} {test}")
            }
            _ => format!(
                "{} {}",
                self.pick(&["points", "été", "`and`", "`last visit`", "a.b", "unheard_of"]),
                self.test()
            ),
        }
    }
}
