//! How many texts a second one core makes: `cargo run --release -p renderer --example renders [SECONDS]`.
//!
//! Each is a whole judgement of a job ([`renderer::judge`]): the phone's kind, consent, STOP, prefixes, caps, the deadline,
//! the hours at the recipient's place with Sundays and holidays, then the text with its opt-out mention, its parts and its
//! price. Contacts, phones, zones and names vary. Time is the thread's own on the CPU, so that what else runs on the
//! machine does not count; the clock on the wall is shown beside it. The peer is the template engine alone, with the same
//! template and the same values.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark stops where something is wrong, and prints"
)]

use std::time::Instant;

use domain::{Cause, Consent, Contact, Phone};
use events::Job;
use jiff::Timestamp;
use renderer::{
    judge::{Case, Judgement, judge},
    kinds::Kinds,
};
use resources::{Composer, Snapshot, parse_toml, rules::Stopped};
use serde_json::json;
use uuid::Uuid;

const TEXT: &str = "{{ contact.first_name | default('Bonjour') }}, -20% sur {{ campaign.article }} chez {{ contact.city }} jusqu'à samedi.";
const CONTACTS: usize = 100_000;

fn main() {
    let seconds: f64 = std::env::args().nth(1).map_or(5.0, |text| text.parse().unwrap());
    let snapshot = snapshot();
    let composer = Composer::new(&snapshot);
    let kinds = Kinds::default();
    let contacts: Vec<Contact> = (0..CONTACTS).map(contact).collect();
    let jobs: Vec<Job> = contacts
        .iter()
        .enumerate()
        .map(|(number, contact)| job(number, contact))
        .collect();
    // A Tuesday noon on Réunion, nine in Paris.
    let now: Timestamp = "2026-11-24T08:00:00Z".parse().unwrap();

    let mut sent = 0_usize;
    let judged = measured("renders with policy", seconds, CONTACTS, |index| {
        let case = Case {
            job: &jobs[index],
            contact: Some(&contacts[index]),
            stopped: Stopped::No,
            kinds: &kinds,
            sent: &[0, 1],
            now,
        };
        let judgement = judge(&case, &snapshot, &composer);
        sent += usize::from(matches!(judgement, Judgement::Send(..)));
    });
    assert!(sent > 0);

    let mut engine = minijinja::Environment::new();
    engine.add_template("text", TEXT).unwrap();
    let template = engine.get_template("text").unwrap();
    let alone = measured("the engine alone", seconds, CONTACTS, |index| {
        let contact = &contacts[index];
        let values = minijinja::context! {
            contact => minijinja::context! { first_name => contact.first_name.as_deref(), city => contact.city.as_deref() },
            campaign => minijinja::context! { article => "les chaussures" },
        };
        sent += template.render(values).unwrap().len() & 1;
    });
    println!("ratio to the engine alone: {:.2}", judged / alone);
}

/// Calls `act` with every index in turn, again and again; how often a second of CPU.
fn measured(what: &str, seconds: f64, count: usize, mut act: impl FnMut(usize)) -> f64 {
    for index in 0..count / 10 {
        act(index);
    }
    let (wall, cpu) = (Instant::now(), on_cpu());
    let mut done = 0_usize;
    while wall.elapsed().as_secs_f64() < seconds {
        for _ in 0..1_000 {
            act(done % count);
            done += 1;
        }
    }
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), on_cpu() - cpu);
    println!(
        "{what}: {:.0} a second of one core ({:.0} a second by the clock, {done} in all)",
        done as f64 / cpu,
        done as f64 / wall
    );
    done as f64 / cpu
}

/// Seconds that this thread has been on a CPU (Linux: the first number of its schedstat, in nanoseconds).
fn on_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
    nanoseconds / 1e9
}

fn snapshot() -> Snapshot {
    let toml = format!(
        r#"
[[template]]
name = "sale"
class = "marketing"
sender = "BOUTIQUE"
language = "fr"
text = "{TEXT}"
[policy]
opt_out = "STOP au 36111"
[[policy.cap]]
messages = 2
per = "1d"
[[policy.cap]]
messages = 5
per = "7d"
[[policy.price]]
prefix = "+262"
micros = 45000
[[policy.price]]
prefix = "+33"
micros = 60000
"#
    );
    let mut snapshot = Snapshot::default();
    for resource in parse_toml(&toml).unwrap() {
        snapshot.insert(resource, 1);
    }
    snapshot
}

fn contact(number: usize) -> Contact {
    let names = [
        "Élodie",
        "Zoé",
        "Jean-Pierre",
        "O'Brien",
        "Marie",
        "Françoise",
        "Luc",
        "Ana",
    ];
    let cities = [
        "Saint-Denis",
        "Saint-Pierre",
        "Le Tampon",
        "Saint-Paul",
        "Paris",
        "Lyon",
    ];
    let phone = match number % 4 {
        0 => format!("+336{:08}", 10_000_000 + number * 7),
        1 => format!("+262693{number:06}"),
        _ => format!("+262692{number:06}"),
    };
    Contact {
        id: format!("c{number}"),
        phone: Some(Phone::from_e164(phone)),
        first_name: (!number.is_multiple_of(9)).then(|| names[number % names.len()].to_owned()),
        city: Some(cities[number % cities.len()].to_owned()),
        language: Some("fr".into()),
        time_zone: number.is_multiple_of(3).then(|| "Indian/Reunion".to_owned()),
        marketing_consent: Consent::Given(None),
        ..Contact::default()
    }
}

fn job(number: usize, contact: &Contact) -> Job {
    let at: Timestamp = "2026-11-24T07:59:00Z".parse().unwrap();
    let values = json!({"article": "les chaussures"});
    Job {
        message_id: Uuid::from_u128(number as u128),
        contact_id: contact.id.clone(),
        cause: Cause::Campaign {
            campaign_id: "0192f0c1-7d2b-7000-8000-000000000001".into(),
        },
        template: "sale".into(),
        caused_at: at,
        planned_at: at,
        deadline: "2026-11-25T08:00:00Z".parse().ok(),
        event: serde_json::Map::new(),
        values: values.as_object().cloned().unwrap_or_default(),
        deferrals: 0,
        suppress: None,
        phone: None,
    }
}
