//! Instructions of the pure hot functions, counted by callgrind, against the ones that are committed
//! (`tests/hot/instructions.json`). Time varies with the machine; instructions hardly do, so a change that makes one of
//! these dearer is seen on any machine: `make bench-instructions`; after a change on purpose, `hot record`.
//!
//! A function's count is the difference between two runs, one of which calls it more often: what the process itself costs
//! falls away. What remains varies by a few per cent with the seeds of hash maps and the processor's string instructions.

use std::{collections::BTreeMap, hint::black_box, io::Write as _, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use domain::{
    Cause, Consent, Contact, Phone,
    audience::{self, Occurrence, Past},
    policy::Rule,
    sms::{self, Encoding},
    template::{Compiled, Locale, Values},
    territory::Place,
};
use events::{Envelope, Job};
use jiff::Timestamp;
use renderer::{
    judge::{Case, Judgement, judge},
    kinds::Kinds,
};
use resources::{Composer, Snapshot, parse_toml, rules::Stopped};
use serde_json::{Map, Value, json};
use uuid::Uuid;

const COMMITTED: &str = "tests/hot/instructions.json";
/// A count may be so much above the committed one.
const TOLERANCE: f64 = 0.10;
const CALLS: (u32, u32) = (200, 1_200);

const GSM: &str =
    "Élodie, -20% sur les chaussures jusqu'au samedi dans votre boutique de Saint-Denis. STOP: contactez-nous";
const LONG: &str = "Zoë, une offre 🎁 rien que pour vous: -20% sur les chaussures jusqu'au samedi dans votre boutique de Saint-Denis. STOP: contactez-nous";

/// A function ready to be called.
type Hot = Box<dyn Fn() -> Result<()>>;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn contact() -> Result<Contact> {
    Ok(Contact {
        id: "42".into(),
        phone: Some(Phone::from_e164("+262692123456")),
        first_name: Some("Élodie".into()),
        gender: Some("female".into()),
        birth_date: Some("1999-05-01".parse()?),
        region: Some("north".into()),
        marketing_consent: Consent::Given(None),
        ..Contact::default()
    })
}

fn functions() -> Result<BTreeMap<&'static str, Hot>> {
    let now: Timestamp = "2026-11-24T10:00:00Z".parse()?;
    let mut all: BTreeMap<&'static str, Hot> = BTreeMap::new();

    all.insert(
        "sms_measure",
        Box::new(|| {
            black_box(sms::measure(black_box(GSM)));
            Ok(())
        }),
    );
    all.insert(
        "sms_split",
        Box::new(|| {
            black_box(sms::split(black_box(LONG), Encoding::Ucs2, 7, false));
            Ok(())
        }),
    );

    let template = Compiled::compile(
        "{{ contact.first_name | default('Bonjour') }}, -20% sur {{ campaign.article }}: {{ event.amount }} EUR.",
    )
    .map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    let (person, event) = (contact()?, object(json!({ "amount": 12.5, "category": "shoes" })));
    let campaign = object(json!({ "article": "les chaussures" }));
    all.insert(
        "template_render",
        Box::new(move || {
            let custom = Map::new();
            let values = Values {
                contact: &person,
                event: &event,
                campaign: &campaign,
                custom: &custom,
                deadline: None,
                locale: Locale::default(),
                links: None,
            };
            black_box(template.render(black_box(&values))?);
            Ok(())
        }),
    );

    let place = Place::of(None, &Phone::from_e164("+262692123456"), None);
    all.insert(
        "policy_next_open",
        Box::new(move || {
            black_box(Rule::Territory.next_open(black_box(&place), now));
            Ok(())
        }),
    );

    let expression = audience::parse(
        "gender = \"female\" and age < 30 and region = \"north\" and did order.placed(category = \"shoes\") within 30 days",
    )?;
    let (person, data) = (contact()?, object(json!({ "category": "shoes", "amount": 12.5 })));
    all.insert(
        "audience_match",
        Box::new(move || {
            let past: Past<'_> = (0..10)
                .map(|_| Occurrence {
                    kind: "order.placed",
                    source: "shop",
                    id: "o1",
                    time: now,
                    data: &data,
                })
                .collect();
            ensure!(
                black_box(expression.matches(&person, &past, None, &|_| None, now)),
                "it matches"
            );
            Ok(())
        }),
    );

    let envelope = Envelope {
        id: "o123456".into(),
        source: "shop".into(),
        kind: "order.placed".into(),
        time: Some(now),
        subject: Some("42".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    };
    let headers = envelope.clone().into_headers();
    all.insert(
        "envelope_encode",
        Box::new(move || {
            black_box(black_box(&envelope).clone().into_headers());
            Ok(())
        }),
    );
    all.insert(
        "envelope_decode",
        Box::new(move || {
            black_box(Envelope::from_headers(black_box(&headers))?);
            Ok(())
        }),
    );
    all.insert("renderer_judge", judged(now)?);
    Ok(all)
}

/// A marketing message from its job to its text: the policy, the template, the opt-out mention, the parts and the price.
fn judged(now: Timestamp) -> Result<Hot> {
    const RESOURCES: &str = r#"
[[template]]
name = "sale"
class = "marketing"
sender = "BOUTIQUE"
validity = "3d"
text = "{{ contact.first_name | default('Bonjour') }}, -20% sur {{ campaign.article }} chez {{ contact.region | title }}."

[policy]
opt_out = "STOP au 36111"
[[policy.cap]]
messages = 3
per = "7d"
[[policy.price]]
prefix = "+262"
micros = 45000
"#;
    let mut snapshot = Snapshot::default();
    for resource in parse_toml(RESOURCES).map_err(|errors| anyhow::anyhow!("{errors:?}"))? {
        snapshot.insert(resource, 1);
    }
    let composer = Composer::new(&snapshot);
    let (kinds, person) = (Kinds::default(), contact()?);
    let job = Job {
        message_id: Uuid::from_u128(42),
        contact_id: person.id.clone(),
        cause: Cause::Direct {
            idempotency_key: "42".into(),
        },
        template: "sale".into(),
        caused_at: now,
        planned_at: now,
        deadline: None,
        event: Map::new(),
        values: object(json!({ "article": "les chaussures" })),
        deferrals: 0,
        suppress: None,
        phone: None,
    };
    Ok(Box::new(move || {
        let case = Case {
            job: &job,
            contact: Some(&person),
            stopped: Stopped::No,
            kinds: &kinds,
            sent: &[1],
            now,
        };
        let judgement = black_box(judge(black_box(&case), &snapshot, &composer));
        ensure!(matches!(judgement, Judgement::Send(..)), "it goes");
        Ok(())
    }))
}

/// What callgrind counts of this very program while it calls a function so often.
fn collected(name: &str, calls: u32) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["call", name, &calls.to_string()])
        .output()
        .context("valgrind (deploy/install.sh valgrind)")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {text}");
    let count = text
        .lines()
        .find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count.with_context(|| format!("callgrind counted nothing: {text}"))
}

fn counts() -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for name in functions()?.into_keys() {
        let more = collected(name, CALLS.1)? - collected(name, CALLS.0)?;
        counts.insert(name.to_owned(), (more / f64::from(CALLS.1 - CALLS.0)) as u64);
    }
    Ok(counts)
}

fn check() -> Result<()> {
    let text = std::fs::read_to_string(COMMITTED).context(COMMITTED)?;
    let committed: BTreeMap<String, u64> = serde_json::from_str(&text)?;
    let mut wrong = Vec::new();
    for (name, count) in counts()? {
        let Some(before) = committed.get(&name) else {
            wrong.push(format!("{name}: no committed count"));
            continue;
        };
        let change = count as f64 / *before as f64 - 1.0;
        writeln!(
            std::io::stdout(),
            "{name:<20} {count:>8} instructions, {:+.1} % of {before}",
            change * 100.0
        )?;
        if change > TOLERANCE {
            wrong.push(format!("{name}: {count} instructions, committed are {before}"));
        }
    }
    ensure!(
        wrong.is_empty(),
        "dearer than committed (on purpose: `hot record`):\n{}",
        wrong.join("\n")
    );
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["call", name, calls] => {
            let functions = functions()?;
            let hot = functions.get(name).with_context(|| format!("no function `{name}`"))?;
            for _ in 0..calls.parse::<u32>()? {
                hot()?;
            }
            Ok(())
        }
        ["check"] => check(),
        ["record"] => Ok(std::fs::write(
            COMMITTED,
            serde_json::to_string_pretty(&counts()?)? + "\n",
        )?),
        _ => bail!("expected `check`, `record` or `call NAME TIMES`"),
    }
}
