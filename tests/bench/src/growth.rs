//! What a message costs when something grows: contacts, what they did before, triggers, partitions, dispatchers, or the
//! messages that wait before the gateway.
//!
//! Each size is an installation of its own, so that nothing but what grows differs. After a warm-up the whole pipeline
//! carries messages, and the processor time of tamtam and PostgreSQL (and Kafka, where that is the bus) is divided by
//! their number: unlike messages a second it does not hide behind an idle core. A backlog is let come to wait while no
//! dispatcher runs, and worked off: each of its messages passes every stage once, as all others do. `target/bench/growth-SERIES.json` has the
//! figures; `bench document` makes a table and a picture of each.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use events::Topic;
use serde_json::{Value, json};

use crate::{
    Common, machine,
    pipeline::{self, Numbers},
    report::{self, Figures, get, put},
    stages,
    stand::{Bus, Plan, Stand},
};

const PATIENCE: Duration = Duration::from_secs(1_200);
/// Contacts of the series of histories: its largest gives each a hundred events.
const CONTACTS: u64 = 100_000;

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Series {
    /// Contacts in the database
    Contacts,
    /// Events that a hundred thousand contacts have had within a year; the trigger asks for some of them
    History,
    /// Triggers, ten an event type
    Triggers,
    /// Partitions of each topic
    Partitions,
    /// Dispatcher processes
    Dispatchers,
    /// Messages that wait before the gateway before the dispatcher starts
    Backlog,
}

impl Series {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Whether its sizes are amounts of data, which a short run has less of.
    fn is_data(self) -> bool {
        !matches!(self, Series::Partitions | Series::Dispatchers)
    }
}

/// The sizes of each series, smallest first.
#[derive(Debug, Args)]
pub struct Sizes {
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "N,N…",
        default_value = "10000,100000,1000000"
    )]
    contacts: Vec<u64>,
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "N,N…",
        default_value = "100000,1000000,10000000"
    )]
    history: Vec<u64>,
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "N,N…",
        default_value = "10,100,1000,10000"
    )]
    triggers: Vec<u64>,
    #[arg(long, value_delimiter = ',', value_name = "N,N…", default_value = "1,2,4,8,16,32")]
    partitions: Vec<u64>,
    #[arg(long, value_delimiter = ',', value_name = "N,N…", default_value = "1,2,4")]
    dispatchers: Vec<u64>,
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "N,N…",
        default_value = "0,10000,100000,1000000"
    )]
    backlog: Vec<u64>,
    /// Only these series
    #[arg(long, value_delimiter = ',', value_name = "SERIES,…")]
    only: Vec<Series>,
}

impl Sizes {
    fn of(&self, series: Series) -> &[u64] {
        match series {
            Series::Contacts => &self.contacts,
            Series::History => &self.history,
            Series::Triggers => &self.triggers,
            Series::Partitions => &self.partitions,
            Series::Dispatchers => &self.dispatchers,
            Series::Backlog => &self.backlog,
        }
    }
}

pub async fn run(common: &Common, sizes: &Sizes) -> Result<()> {
    let series: Vec<Series> = match sizes.only.is_empty() {
        true => Series::value_variants().to_vec(),
        false => sizes.only.clone(),
    };
    for series in series {
        one_series(common, series, &chosen(common, series, sizes.of(series))).await?;
    }
    Ok(())
}

/// A short run takes the smallest and the largest size, of data a hundredth.
fn chosen(common: &Common, series: Series, sizes: &[u64]) -> Vec<u64> {
    if !common.short {
        return sizes.to_vec();
    }
    let mut ends: Vec<u64> = sizes.first().into_iter().chain(sizes.last()).copied().collect();
    if series.is_data() {
        // None is a size as well; of anything else some is left.
        ends = ends.into_iter().map(|size| size.div_ceil(100)).collect();
    }
    ends.dedup();
    ends
}

async fn one_series(common: &Common, series: Series, sizes: &[u64]) -> Result<()> {
    let suffix = if matches!(common.bus, Bus::Kafka(_)) {
        "-kafka"
    } else {
        ""
    };
    let name = format!("growth-{}{suffix}", series.name());
    // As long as the shares of the maximum at which the pipeline's latency is taken.
    let period = Duration::from_secs(common.seconds.div_ceil(3));
    report::say(&format!(
        "{name}: {sizes:?}, {} s, {} runs",
        period.as_secs(),
        common.runs
    ));
    let mut points = Vec::new();
    for &size in sizes {
        let runs = point(common, series, size, period).await?;
        let medians = report::medians(&runs);
        let cost = get(&medians, "cpu_us_per_message").unwrap_or(0.0);
        report::say(&format!("  {size:>12} {}: {cost:.0} µs a message", series.name()));
        points.push(json!({ "size": size, "medians": report::object(&medians),
            "runs": runs.iter().map(report::object).collect::<Vec<_>>() }));
    }
    let made = json!({
        "bench": name,
        "growth": series.name(),
        "short": common.short,
        "conditions": machine::conditions(),
        "settings": { "bus": common.bus.name(), "seconds": period.as_secs(), "runs": common.runs, "processes": "one a role" },
        "points": points,
    });
    report::file(&format!("{name}.json"), serde_json::to_string_pretty(&made)?)
}

/// The runs at one size.
async fn point(common: &Common, series: Series, size: u64, period: Duration) -> Result<Vec<Figures>> {
    let mut plan = Plan::new(common.bus.clone());
    match series {
        Series::Contacts => plan.contacts = size,
        Series::History => {
            plan.contacts = common.scaled(CONTACTS);
            plan.resources = ASKS.into();
        }
        Series::Triggers => plan.resources = stages::triggers(size),
        Series::Partitions => plan.partitions = u32::try_from(size)?,
        Series::Dispatchers => plan.dispatchers = u32::try_from(size)?,
        Series::Backlog => {}
    }
    let mut stand = Stand::start(plan).await?;
    let mut numbers = Numbers::default();
    if series == Series::History {
        history(&stand, size).await?;
    }
    // Warm: code, caches, connections, and the batch sizes that adapt.
    pipeline::sustained(&stand, &mut numbers, period / 2).await?;
    let mut runs = Vec::new();
    for _ in 0..common.runs {
        runs.push(match series {
            Series::Backlog if size > 0 => pent_up(&mut stand, &mut numbers, size).await?,
            _ => pipeline::sustained(&stand, &mut numbers, period).await?,
        });
    }
    Ok(runs)
}

/// A further trigger on what is published. It reads what the contact ordered and never writes: nobody spent so much.
const ASKS: &str = r#"
[[trigger]]
name = "asks"
on = "order.placed"
when = 'did order.placed(amount > 1000) within 30 days'
template = "order"
"#;

/// Events of the stand's contacts, evenly over them and over the last year, a fifth of them orders.
async fn history(stand: &Stand, events: u64) -> Result<()> {
    let contacts = i64::try_from(stand.plan.contacts)?;
    // By contact, as the primary key's leaves lie: several times as fast as at random.
    sqlx::query(
        "insert into history (contact_id, source, event_id, type, time, data)
         select 'c' || n % $1, 'past', 'e' || n,
             (array['order.placed', 'cart.updated', 'page.viewed', 'message.opened', 'visit.paid'])[(1 + (n / $1 + n) % 5)::integer],
             now() - make_interval(secs => (n * 7919 % 31536000)), jsonb_build_object('amount', 5 + n % 195)
         from generate_series(0, $1 - 1) c, generate_series(c, $2 - 1, $1) n on conflict do nothing",
    )
    .bind(contacts)
    .bind(i64::try_from(events)?)
    .execute(stand.store.pool())
    .await?;
    sqlx::query("vacuum analyze history")
        .execute(stand.store.pool())
        .await?;
    let (kept,): (i64,) = sqlx::query_as("select count(*) from history where source = 'past'")
        .fetch_one(stand.store.pool())
        .await?;
    ensure!(kept == i64::try_from(events)?, "{kept} of {events} events were kept");
    Ok(())
}

/// Lets so many messages come to wait before the gateway while no dispatcher runs, and has them worked off by one.
async fn pent_up(stand: &mut Stand, numbers: &mut Numbers, messages: u64) -> Result<Figures> {
    stand.end("dispatcher");
    let (meter, begun) = (stand.meter(), Instant::now());
    stages::publish(stand, messages, numbers.published).await?;
    numbers.published += messages;
    stand.drained("segmenter", Topic::Events, PATIENCE).await?;
    stand.drained("renderer", Topic::Jobs, PATIENCE).await?;
    stand.begin("dispatcher")?;
    pipeline::delivered(stand, numbers, PATIENCE).await?;
    let mut figures = Figures::new();
    put(
        &mut figures,
        "messages_per_second",
        messages as f64 / begun.elapsed().as_secs_f64(),
    );
    stand.meter().since(&meter, messages, &mut figures);
    Ok(figures)
}

/// The parts of a point's cost that are shown, in the order of the flow: (heading, its figures).
const PARTS: [(&str, &str); 7] = [
    ("ingest", "ingest"),
    ("segmenter", "segmenter"),
    ("renderer", "renderer"),
    ("dispatcher", "dispatcher"),
    ("receipt-collector", "receipt-collector"),
    ("PostgreSQL", "postgres"),
    ("Kafka", "kafka"),
];

/// A measured series as it is documented.
pub struct Measured<'a> {
    pub axis: &'a str,
    points: Vec<(u64, &'a Value)>,
}

impl<'a> Measured<'a> {
    /// `None`: it is the report of another bench.
    pub fn of(report: &'a Value) -> Option<Measured<'a>> {
        let points = report["points"].as_array()?;
        Some(Measured {
            axis: report["growth"].as_str()?,
            points: points
                .iter()
                .filter_map(|point| Some((point["size"].as_u64()?, &point["medians"])))
                .collect(),
        })
    }

    /// (size, figure) of each point; nothing where one lacks it.
    pub fn figures(&self, name: &str) -> Vec<(u64, f64)> {
        let all: Option<Vec<_>> = self
            .points
            .iter()
            .map(|(size, medians)| Some((*size, medians[name].as_f64()?)))
            .collect();
        all.unwrap_or_default()
    }

    /// The cost of each point, in µs a message.
    pub fn cost(&self) -> Vec<(u64, f64)> {
        self.figures("cpu_us_per_message")
    }

    pub fn table(&self) -> String {
        let cost = self.cost();
        let first = cost.first().map_or(1.0, |(_, cost)| *cost);
        let rates = self.figures("messages_per_second");
        let mut columns: Vec<(&str, Vec<String>)> = vec![
            (
                self.axis,
                cost.iter().map(|(size, _)| report::shown(*size as f64)).collect(),
            ),
            (
                "µs a message",
                cost.iter().map(|(_, cost)| format!("{cost:.0}")).collect(),
            ),
            (
                "× the first",
                cost.iter().map(|(_, cost)| format!("{:.2}", cost / first)).collect(),
            ),
        ];
        for (heading, part) in PARTS {
            let figures = self.figures(&format!("cpu_us_per_message_{part}"));
            if !figures.is_empty() {
                columns.push((heading, figures.iter().map(|(_, cost)| format!("{cost:.0}")).collect()));
            }
        }
        columns.push((
            "messages/s",
            rates.iter().map(|(_, rate)| report::shown(*rate)).collect(),
        ));
        let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(columns.iter().map(|(heading, _)| *heading).collect());
        text.push_str(&format!("|{}\n", "---:|".repeat(columns.len())));
        for row in 0..cost.len() {
            let cells = columns.iter().filter_map(|(_, cells)| cells.get(row));
            text.push_str(&line(cells.map(String::as_str).collect()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_shown_point_by_point() {
        let point = |size: u64, all: f64, postgres: f64| {
            json!({ "size": size, "medians": { "messages_per_second": 9000.0, "cpu_us_per_message": all,
                "cpu_us_per_message_postgres": postgres } })
        };
        let report =
            json!({ "growth": "contacts", "points": [point(10_000, 200.0, 80.0), point(1_000_000, 250.0, 100.0)] });
        let measured = Measured::of(&report).unwrap();
        assert_eq!(
            measured.table(),
            "| contacts | µs a message | × the first | PostgreSQL | messages/s |\n|---:|---:|---:|---:|---:|\n\
             | 10,000 | 200 | 1.00 | 80 | 9,000 |\n| 1,000,000 | 250 | 1.25 | 100 | 9,000 |\n"
        );
        assert!(Measured::of(&json!({ "medians": {} })).is_none());
    }

    #[test]
    fn a_short_run_takes_both_ends() {
        let common = |short| Common {
            bus: Bus::Postgres,
            seconds: 2,
            runs: 1,
            short,
            statements: false,
            partitions: 2,
        };
        let sizes = [0, 100_000, 1_000_000];
        assert_eq!(chosen(&common(true), Series::Backlog, &sizes), [0, 10_000]);
        assert_eq!(chosen(&common(true), Series::Partitions, &[1, 8, 32]), [1, 32]);
        assert_eq!(chosen(&common(true), Series::Triggers, &[10]), [1]);
        assert_eq!(chosen(&common(false), Series::Backlog, &sizes), sizes);
    }
}
