//! How fast tamtam is, measured on the release binary as users run it: processes, real brokers and databases with their
//! default durability, the gateway simulator on the same machine. `make bench`, or one bench by `make bench-NAME`.
//!
//! Each bench writes `target/bench/NAME.json` (medians and every run); `bench document` puts them into
//! `docs/benchmarks.md`.

mod bare;
mod campaign;
mod chart;
mod growth;
mod load;
mod machine;
mod meter;
mod peers;
mod pipeline;
mod process;
mod raw;
mod report;
mod simulator;
mod stages;
mod stand;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::{campaign::Through, stand::Bus};

#[derive(Debug, Parser)]
#[command(about = "Measures tamtam; see docs/benchmarks.md")]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Args)]
struct Options {
    /// The bus: a Kafka's bootstrap servers; absent: PostgreSQL
    #[arg(long, global = true, env = "KAFKA", value_name = "BROKERS")]
    kafka: Option<String>,
    /// How long each run publishes
    #[arg(long, global = true, env = "BENCH_SECONDS", default_value_t = 60)]
    seconds: u64,
    /// Runs of which the median is taken
    #[arg(long, global = true, env = "BENCH_RUNS", default_value_t = 3)]
    runs: u32,
    /// Prove that the bench works: one run of two seconds, a hundredth of the data
    #[arg(long, global = true, env = "BENCH_SHORT")]
    short: bool,
    /// Let PostgreSQL count its statements, and print where its time went
    #[arg(long, global = true, env = "BENCH_STATEMENTS")]
    statements: bool,
    /// Partitions of each topic where the whole pipeline is measured: as few as are best where each role is one process
    #[arg(long, global = true, env = "BENCH_PARTITIONS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    topic_partitions: u32,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// The whole pipeline: messages a second, latency, processor time, memory
    Pipeline {
        /// All roles in one process, as `tamtam up` runs them
        #[arg(long)]
        up: bool,
        /// Only how long messages take, at so many events a second; several separated by commas
        #[arg(long, value_delimiter = ',', value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..))]
        rates: Vec<u32>,
    },
    /// A campaign from launch to the last message accepted
    Campaign {
        #[arg(long, default_value_t = 200_000)]
        recipients: u64,
        /// Contacts of whom these are a part; absent: as many
        #[arg(long)]
        contacts: Option<u64>,
        /// Through an HTTP gateway instead of SMPP
        #[arg(long)]
        http: bool,
        /// The gateway sends no receipts
        #[arg(long)]
        no_receipts: bool,
    },
    /// The same killed in the middle
    CampaignKilled {
        #[arg(long, default_value_t = 200_000)]
        recipients: u64,
    },
    /// The time from launch to the first message at the gateway, with so many contacts
    CampaignFirst {
        #[arg(long, default_value_t = 1_000_000)]
        contacts: u64,
    },
    /// Each stage alone on a filled topic, against its raw limit
    Stages {
        /// Only the dispatcher over HTTP, beside bare requests; what a whole run wrote stays
        #[arg(long)]
        http: bool,
    },
    /// What people use today, in the same run; needs a Kafka
    Peers {
        /// Only campaigns, listmonk's and then tamtam's, without a Kafka; what `peers` wrote stays
        #[arg(long)]
        campaigns: bool,
        /// A checkout of listmonk's source, of which `deploy/install.sh peers` built .cache/peers/listmonk; absent: it is
        /// left out
        #[arg(long, env = "LISTMONK_SRC", value_name = "DIRECTORY")]
        listmonk: Option<PathBuf>,
    },
    /// What a message costs against contacts, history, triggers, partitions, dispatchers and backlog
    Growth(growth::Sizes),
    /// Put what was measured into docs/benchmarks.md
    Document,
}

/// What every bench is told.
#[derive(Clone, Debug)]
pub struct Common {
    pub bus: Bus,
    pub seconds: u64,
    pub runs: u32,
    pub short: bool,
    pub statements: bool,
    pub partitions: u32,
}

impl Common {
    /// Amounts of data: a hundredth in the short form.
    pub fn scaled(&self, amount: u64) -> u64 {
        if self.short { amount / 100 } else { amount }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // What runs is dropped with what it has started: left behind, it would be measured beside the next bench.
    tokio::select! {
        done = run(Cli::parse()) => done,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn run(cli: Cli) -> Result<()> {
    let options = cli.options;
    let common = Common {
        bus: options.kafka.map_or(Bus::Postgres, Bus::Kafka),
        seconds: if options.short { 2 } else { options.seconds.max(1) },
        runs: if options.short { 1 } else { options.runs.max(1) },
        short: options.short,
        statements: options.statements,
        partitions: options.topic_partitions,
    };
    match cli.bench {
        Bench::Pipeline { up, rates } if rates.is_empty() => pipeline::run(&common, up).await,
        Bench::Pipeline { up, rates } => pipeline::at_rates(&common, up, &rates).await,
        Bench::Campaign {
            recipients,
            contacts,
            http,
            no_receipts,
        } => {
            let recipients = common.scaled(recipients);
            let contacts = common.scaled(contacts.unwrap_or(0)).max(recipients);
            let through = Through {
                gateway: if http { "http" } else { "smpp" },
                receipts: !no_receipts,
            };
            campaign::run(&common, recipients, through, contacts).await
        }
        Bench::CampaignKilled { recipients } => campaign::killed(&common, common.scaled(recipients)).await,
        Bench::CampaignFirst { contacts } => campaign::first(&common, common.scaled(contacts)).await,
        Bench::Stages { http } => match http {
            true => stages::http(&common).await,
            false => stages::run(&common).await,
        },
        Bench::Peers { listmonk, campaigns } => {
            let source = listmonk.filter(|path| !path.as_os_str().is_empty());
            match campaigns {
                true => peers::campaigns(&common, source.as_deref()).await,
                false => peers::run(&common, source.as_deref()).await,
            }
        }
        Bench::Growth(sizes) => growth::run(&common, &sizes).await,
        Bench::Document => report::document(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An option that all benches have must not be one of a bench's own: its value would be taken for the other's.
    #[test]
    fn sizes_that_grow_are_no_options_of_all() {
        let cli = Cli::parse_from(["bench", "growth", "--partitions", "1,32"]);
        assert!(matches!(cli.bench, Bench::Growth(_)));
    }
}
