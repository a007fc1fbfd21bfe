//! When marketing may go out: the hours at the recipient's place, and when they open next.

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, Time},
    tz::TimeZone,
};

use crate::territory::{Place, Territory};

/// Which hours apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// At any time.
    Always,
    /// Those of the recipient's territory, with its Sundays and holidays.
    Territory,
    /// Every day from the first to before the second, by the recipient's clock. [`Time::MAX`] is the end of the day.
    Daily(Time, Time),
}

/// How far ahead an opening is looked for. No territory is closed for longer than a few days.
const DAYS_AHEAD: usize = 40;

impl Rule {
    /// Whether `at` lies within the hours.
    pub fn is_open(self, place: &Place, at: Timestamp) -> bool {
        place
            .zones
            .iter()
            .all(|zone| self.is_open_in(place.territory, zone, at))
    }

    /// `at` itself where it lies within the hours, otherwise the next instant that does. `None` where there is none in
    /// the coming weeks (zones so far apart that their hours never meet).
    pub fn next_open(self, place: &Place, at: Timestamp) -> Option<Timestamp> {
        let mut next = at;
        // Each round moves on to an instant that is open in the zone that was closed; with several zones it may then be
        // closed in another.
        for _ in 0..DAYS_AHEAD * place.zones.len().max(1) {
            match place
                .zones
                .iter()
                .find(|zone| !self.is_open_in(place.territory, zone, next))
            {
                None => return Some(next),
                Some(zone) => next = self.opens_in(place.territory, zone, next)?,
            }
        }
        None
    }

    fn is_open_in(self, territory: &Territory, zone: &TimeZone, at: Timestamp) -> bool {
        let local = zone.to_datetime(at);
        self.windows(territory, local.date())
            .any(|(from, to)| from <= local.time() && (local.time() < to || to == Time::MAX))
    }

    /// The first opening in one zone after `at`.
    fn opens_in(self, territory: &Territory, zone: &TimeZone, at: Timestamp) -> Option<Timestamp> {
        let mut date = zone.to_datetime(at).date();
        for _ in 0..DAYS_AHEAD {
            let opening = self
                .windows(territory, date)
                // An hour that summer time leaves out opens when the clock goes on; whether that is still within the
                // window is looked at again.
                .filter_map(|(from, _)| zone.to_timestamp(date.to_datetime(from)).ok())
                .filter(|opening| *opening > at && self.is_open_in(territory, zone, *opening))
                .min();
            if opening.is_some() {
                return opening;
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    fn windows(self, territory: &Territory, date: Date) -> impl Iterator<Item = (Time, Time)> {
        let daily = match self {
            Rule::Always => Some((Time::MIN, Time::MAX)),
            Rule::Daily(from, to) => Some((from, to)),
            Rule::Territory => None,
        };
        let by_territory = (self == Rule::Territory).then(|| territory.hours(date));
        daily
            .into_iter()
            .chain(by_territory.into_iter().flatten().map(|hours| (hours.from, hours.to)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Phone, territory::Table};
    use jiff::civil::Weekday;
    use proptest::prelude::*;

    fn next(zone: Option<&str>, phone: &str, at: &str) -> String {
        let place = Place::of(zone, &Phone::from_e164(phone), None);
        Rule::Territory
            .next_open(&place, at.parse().unwrap())
            .unwrap()
            .to_string()
    }

    #[test]
    fn reunion() {
        let next = |at| next(None, "+262692123456", at);
        // A Tuesday, 07:59:59, 08:00, 19:59:59 and 20:00 by the island's clock (UTC+4).
        assert_eq!(next("2026-11-24T03:59:59Z"), "2026-11-24T04:00:00Z");
        assert_eq!(next("2026-11-24T04:00:00Z"), "2026-11-24T04:00:00Z");
        assert_eq!(next("2026-11-24T15:59:59Z"), "2026-11-24T15:59:59Z");
        assert_eq!(next("2026-11-24T16:00:00Z"), "2026-11-25T04:00:00Z");
        // Saturday evening to Monday morning.
        assert_eq!(next("2026-11-28T16:00:00Z"), "2026-11-30T04:00:00Z");
        // 20 December 2027 is a Monday, and the island's own holiday; the 19th is a Sunday.
        assert_eq!(next("2027-12-18T17:00:00Z"), "2027-12-21T04:00:00Z");
        // Christmas 2026 is a Friday.
        assert_eq!(next("2026-12-25T08:00:00Z"), "2026-12-26T04:00:00Z");
        // Mayotte's clock is an hour behind.
        assert_eq!(
            super::tests::next(None, "+262639123456", "2026-11-24T04:30:00Z"),
            "2026-11-24T05:00:00Z"
        );
    }

    #[test]
    fn paris_over_the_change_of_clocks() {
        let next = |at| next(None, "+33612345678", at);
        // From Saturday evening in winter time to Monday morning in summer time, and back.
        assert_eq!(next("2026-03-28T20:00:00Z"), "2026-03-30T06:00:00Z");
        assert_eq!(next("2026-10-24T19:00:00Z"), "2026-10-26T07:00:00Z");
        // Easter Monday, Ascension and Whit Monday 2026.
        assert_eq!(next("2026-04-06T09:00:00Z"), "2026-04-07T06:00:00Z");
        assert_eq!(next("2026-05-14T09:00:00Z"), "2026-05-15T06:00:00Z");
        assert_eq!(next("2026-05-25T09:00:00Z"), "2026-05-26T06:00:00Z");
    }

    #[test]
    fn united_states() {
        // By its own zone: also on Sundays, until 21:00.
        let own = |at| next(Some("America/New_York"), "+12125550123", at);
        assert_eq!(own("2026-11-22T13:00:00Z"), "2026-11-22T13:00:00Z");
        assert_eq!(own("2026-11-23T02:00:00Z"), "2026-11-23T13:00:00Z");
        // Not known where: 08:00 in Hawaii is 18:00Z, 21:00 in New York is 02:00Z.
        let anywhere = |at| next(None, "+12125550123", at);
        assert_eq!(anywhere("2026-11-24T13:00:00Z"), "2026-11-24T18:00:00Z");
        assert_eq!(anywhere("2026-11-25T01:59:59Z"), "2026-11-25T01:59:59Z");
        assert_eq!(anywhere("2026-11-25T02:00:00Z"), "2026-11-25T18:00:00Z");
    }

    #[test]
    fn an_opening_that_summer_time_leaves_out() {
        let place = Place::of(Some("Europe/Paris"), &Phone::from_e164("+33612345678"), None);
        let time = |hour, minute| Time::constant(hour, minute, 0, 0);
        let opens = |rule: Rule, at: &str| rule.next_open(&place, at.parse().unwrap()).unwrap().to_string();
        // 02:30 is left out on 29 March 2026: the clock goes on at 03:30 by jiff's reading, within the window.
        let rule = Rule::Daily(time(2, 30), time(6, 0));
        assert_eq!(opens(rule, "2026-03-29T00:00:00Z"), "2026-03-29T01:30:00Z");
        // A window that lies in what is left out opens a day later.
        let rule = Rule::Daily(time(2, 10), time(2, 50));
        assert_eq!(opens(rule, "2026-03-29T00:00:00Z"), "2026-03-30T00:10:00Z");
        assert_eq!(opens(Rule::Always, "2026-03-29T00:00:00Z"), "2026-03-29T00:00:00Z");
    }

    fn zones() -> impl Strategy<Value = Option<String>> {
        let mut names: Vec<Option<String>> = jiff::tz::db()
            .available()
            .map(|name| Some(name.to_string()))
            .filter(|name| name.as_deref().is_some_and(|name| TimeZone::get(name).is_ok()))
            .collect();
        names.push(None);
        proptest::sample::select(names)
    }

    /// A phone of every territory, or where islands share a prefix one of its zones; and one of no territory at all.
    fn own_places() -> Vec<(Option<String>, String)> {
        let file: serde_json::Value = serde_json::from_str(include_str!("../data/territories.json")).unwrap();
        let mut places = vec![(None, "+8881234567".to_owned())];
        for territory in file["territories"].as_array().unwrap() {
            let prefixes = territory["prefixes"].as_array().unwrap();
            for prefix in prefixes {
                places.push((None, format!("{}123456", prefix.as_str().unwrap())));
            }
            for zone in territory["zones"].as_array().unwrap() {
                places.push((zone.as_str().map(str::to_owned), "+8881234567".to_owned()));
            }
        }
        places
    }

    #[test]
    fn no_territory_is_left_out() {
        let drawn: BTreeSet<String> = own_places()
            .into_iter()
            .map(|(zone, phone)| {
                let place = Place::of(zone.as_deref(), &Phone::from_e164(phone), None);
                place.territory.code.clone()
            })
            .collect();
        let all: BTreeSet<String> = Table::get().territories().map(|one| one.code.clone()).collect();
        assert_eq!(drawn, all);
    }

    /// By its own place, or by any zone of the world.
    fn places() -> impl Strategy<Value = (Option<String>, String)> {
        let own = own_places();
        let phones: Vec<String> = own.iter().map(|(_, phone)| phone.clone()).collect();
        prop_oneof![
            proptest::sample::select(own),
            (zones(), proptest::sample::select(phones))
        ]
    }

    /// Any instant of the century, or one within a day and a half of a zone's change of clocks, or of a holiday's noon.
    #[derive(Clone, Debug)]
    enum When {
        Any(i64),
        Change(i64, i64),
        Easter(i16, i32, i64),
    }

    fn instants() -> impl Strategy<Value = When> {
        let second = 946_684_800_i64..4_102_444_800;
        let near = -130_000_i64..130_000;
        prop_oneof![
            second.clone().prop_map(When::Any),
            (second, near.clone()).prop_map(|(second, near)| When::Change(second, near)),
            (2000_i16..2100, proptest::sample::select(vec![0, 1, 39, 50]), near)
                .prop_map(|(year, offset, near)| When::Easter(year, offset, near)),
        ]
    }

    impl When {
        fn at(&self, zone: &TimeZone) -> Timestamp {
            let second = |second: i64| Timestamp::from_second(second).unwrap();
            match *self {
                When::Any(at) => second(at),
                When::Change(from, near) => {
                    let change = zone.following(second(from)).next().map(|change| change.timestamp());
                    second(change.map_or(from, Timestamp::as_second) + near)
                }
                When::Easter(year, offset, near) => {
                    let noon = carter(year).checked_add(offset.days()).unwrap().at(12, 0, 0, 0);
                    second(zone.to_timestamp(noon).unwrap().as_second() + near)
                }
            }
        }
    }

    /// Easter Sunday of 1900 to 2099 by Carter's rule, which shares nothing with the one that is used.
    fn carter(year: i16) -> Date {
        let year = i32::from(year);
        let d = (225 - 11 * (year % 19) - 21).rem_euclid(30) + 21;
        let d = if d > 48 { d - 1 } else { d };
        let e = (year + year / 4 + d + 1) % 7;
        let day = i8::try_from(d + 7 - e).unwrap();
        let (month, day) = if day > 31 { (4, day - 31) } else { (3, day) };
        Date::constant(i16::try_from(year).unwrap(), month, day)
    }

    /// What `docs/rules.md` says of a day, from the wall calendar alone.
    fn is_holiday(code: &str, date: Date) -> bool {
        let own: &[(i8, i8)] = match code {
            "RE" => &[(12, 20)],
            "YT" => &[(4, 27)],
            "MQ" => &[(5, 22)],
            "GP" => &[(5, 27), (10, 9)],
            "MF" => &[(5, 27)],
            "BL" => &[(10, 9)],
            "GF" => &[(6, 10)],
            "FR" | "PM" => &[],
            _ => return false,
        };
        let fixed = [(1, 1), (5, 1), (5, 8), (7, 14), (8, 15), (11, 1), (11, 11), (12, 25)];
        let day = (date.month(), date.day());
        let easter = carter(date.year());
        fixed.contains(&day)
            || own.contains(&day)
            || [1, 39, 50]
                .iter()
                .any(|offset| easter.checked_add(offset.days()).is_ok_and(|day| day == date))
    }

    /// The same of an instant.
    fn is_allowed(place: &Place, at: Timestamp) -> bool {
        place.zones.iter().all(|zone| {
            let local = zone.to_datetime(at);
            match place.territory.code.as_str() {
                "US" => (8..21).contains(&local.hour()),
                code => {
                    (8..20).contains(&local.hour())
                        && local.date().weekday() != Weekday::Sunday
                        && !is_holiday(code, local.date())
                }
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]
        /// Written against the wall clock and the calendar alone, without the code above.
        #[test]
        fn marketing_never_leaves_outside_the_hours((zone, phone) in places(), when in instants()) {
            let place = Place::of(zone.as_deref(), &Phone::from_e164(phone), None);
            let at = when.at(&place.zone());
            let next = Rule::Territory.next_open(&place, at).unwrap();
            prop_assert!(next >= at);
            prop_assert!(is_allowed(&place, next), "{} {:?}", place.territory.code, next);
            // Nor is it held back when it may go.
            prop_assert_eq!(next == at, is_allowed(&place, at));
            prop_assert_eq!(next == at, Rule::Territory.is_open(&place, at));
            let step = (next.as_second() - at.as_second()) / 50;
            for sample in 0..50 {
                let between = Timestamp::from_second(at.as_second() + sample * step).unwrap();
                prop_assert!(between >= next || !is_allowed(&place, between));
            }
        }

        #[test]
        fn a_daily_window_holds_in_every_zone(
            zone in zones(),
            second in 946_684_800_i64..4_102_444_800,
            from in 0_i8..23,
            length in 1_i8..24,
        ) {
            let (from, to) = (Time::constant(from, 0, 0, 0), if from + length >= 24 { Time::MAX } else { Time::constant(from + length, 0, 0, 0) });
            let place = Place::of(zone.as_deref(), &Phone::from_e164("+33612345678"), None);
            let next = Rule::Daily(from, to).next_open(&place, Timestamp::from_second(second).unwrap()).unwrap();
            let local = place.zone().to_datetime(next).time();
            prop_assert!(from <= local && (local < to || to == Time::MAX));
        }
    }
}
