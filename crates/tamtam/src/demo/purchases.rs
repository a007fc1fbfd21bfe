//! The demo's events: the real purchases of CDNOW's customers, as orders of the island's shop.
//!
//! The dates are shifted so that the newest purchase is today's. The sample holds every tenth customer of the shop, so
//! each of them stands for four of the contacts; the customers who bought last are given to young women of the north
//! first (two of four), so that the demo's campaign has somebody to write to. All else is as it was.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp, civil::Date};

use super::contacts::Known;
use crate::exit::Failure;

/// Customer, date, number of CDs, amount: see deploy/demo/README.md.
pub const CSV: &str = include_str!("../../../../deploy/demo/cdnow_sample.csv");
/// Contacts that a customer of the sample stands for.
const EACH: usize = 4;
/// Of these, from the campaign's own audience as long as there are any.
const EACH_TARGET: usize = 2;

/// An `order.placed`.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub id: String,
    pub contact_id: String,
    pub time: Timestamp,
    pub category: &'static str,
    pub cds: u32,
    pub amount: f64,
    /// Placed today: its time is the moment of publishing.
    pub today: bool,
}

#[derive(Clone, Debug)]
struct Purchase {
    line: usize,
    customer: String,
    date: Date,
    cds: u32,
    amount: f64,
}

/// What the shop sells by what CDNOW sold: the number of CDs, and nothing for a gift.
fn category(cds: u32, amount: f64) -> &'static str {
    match cds {
        _ if amount == 0.0 => "gift",
        1..=2 => "shoes",
        3..=4 => "clothes",
        _ => "home",
    }
}

/// All orders, oldest first, as of `now`.
pub fn orders(csv: &str, contacts: &[Known], now: Timestamp) -> Result<Vec<Order>, Failure> {
    let purchases = read(csv)?;
    let newest = purchases
        .iter()
        .map(|purchase| purchase.date)
        .max()
        .ok_or_else(|| Failure::no("cdnow_sample.csv holds no purchases"))?;
    let owners = owners(&purchases, contacts, now);
    let mut orders = Vec::with_capacity(purchases.len() * EACH);
    for purchase in &purchases {
        let days = newest.since(purchase.date).map_or(0, |span| i64::from(span.get_days()));
        let today = days == 0;
        // Some time of that day, and at least whole days ago: what was not today is older than a day.
        let jitter = 60 + (purchase.line as i64).wrapping_mul(7_919) % 21_600;
        let ago = match today {
            true => SignedDuration::ZERO,
            false => SignedDuration::from_secs(days * 86_400 + jitter),
        };
        for (number, contact) in owners.get(&purchase.customer).into_iter().flatten().enumerate() {
            orders.push(Order {
                id: format!("cdnow-{}-{}", purchase.line, number + 1),
                contact_id: contact.clone(),
                time: now - ago,
                category: category(purchase.cds, purchase.amount),
                cds: purchase.cds,
                amount: purchase.amount,
                today,
            });
        }
    }
    orders.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
    Ok(orders)
}

/// Which contacts each customer stands for.
fn owners(purchases: &[Purchase], contacts: &[Known], now: Timestamp) -> HashMap<String, Vec<String>> {
    let today = jiff::tz::Offset::UTC.to_datetime(now).date();
    let young = |contact: &Known| {
        contact.birth_date.is_some_and(|birth| {
            birth
                .checked_add(jiff::Span::new().years(30))
                .is_ok_and(|thirty| thirty > today)
        })
    };
    let (target, rest): (Vec<&Known>, Vec<&Known>) = contacts
        .iter()
        .partition(|contact| contact.gender == "female" && contact.region == "north" && young(contact));
    let (mut target, mut rest) = (target.into_iter(), rest.into_iter());
    let mut last: BTreeMap<&str, Date> = BTreeMap::new();
    for purchase in purchases {
        let date = last.entry(&purchase.customer).or_insert(purchase.date);
        *date = (*date).max(purchase.date);
    }
    let mut customers: Vec<(&str, Date)> = last.into_iter().collect();
    customers.sort_by(|a, b| (b.1, a.0).cmp(&(a.1, b.0)));
    customers
        .into_iter()
        .map(|(customer, _)| {
            let mut theirs: Vec<&Known> = target.by_ref().take(EACH_TARGET).collect();
            let missing = EACH - theirs.len();
            theirs.extend(rest.by_ref().take(missing));
            let ids = theirs.into_iter().map(|contact| contact.id.clone()).collect();
            (customer.to_owned(), ids)
        })
        .collect()
}

fn read(csv: &str) -> Result<Vec<Purchase>, Failure> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let bad = |line: usize, what: &str| Failure::no(format!("cdnow_sample.csv, line {line}: {what}"));
    reader
        .records()
        .enumerate()
        .map(|(index, record)| {
            let line = index + 2;
            let record = record.map_err(|error| bad(line, &error.to_string()))?;
            let cell = |index: usize| record.get(index).unwrap_or_default();
            Ok(Purchase {
                line,
                customer: cell(0).to_owned(),
                date: cell(1).parse().map_err(|_| bad(line, "expected a date"))?,
                cds: cell(2).parse().map_err(|_| bad(line, "expected a number of CDs"))?,
                amount: cell(3).parse().map_err(|_| bad(line, "expected an amount"))?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::demo::contacts;

    #[test]
    fn every_purchase_is_replayed_for_four_contacts_and_the_newest_is_todays() {
        let now: Timestamp = "2026-11-24T09:00:00Z".parse().unwrap();
        let known = contacts::read(contacts::CSV).unwrap();
        let orders = orders(CSV, &known, now).unwrap();
        assert_eq!(orders.len(), 6_919 * EACH);
        let ids: HashSet<&str> = orders.iter().map(|order| order.id.as_str()).collect();
        assert_eq!(ids.len(), orders.len());
        let today = orders.iter().filter(|order| order.today).count();
        assert_eq!(today, 2 * EACH);
        assert!(orders.iter().all(|order| order.today == (order.time == now)));
        assert!(
            orders
                .iter()
                .all(|order| order.today || now.duration_since(order.time).as_secs() > 86_400)
        );
        // A contact is given to one customer only.
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for order in &orders {
            let customer = order.id.split('-').nth(1).unwrap();
            let _ = seen.insert(order.contact_id.as_str(), customer);
        }
        assert_eq!(seen.len(), 2_357 * EACH);
    }
}
