//! The arguments, and which command they mean.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Parser, Subcommand};
use resources::gateway::Secrets;

use crate::{
    commands::{self, client::Connection},
    demo,
    exit::Failure,
    run::{self, roles::Role},
    settings::{self, Settings, Sources},
    telemetry,
};

/// Turns what customers do into text messages, within seconds.
#[derive(Debug, Parser)]
#[command(name = "tamtam", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process, on a private PostgreSQL
    Up(UpArgs),
    /// Run the main job once, on real input, and check its result
    Demo(DemoArgs),
    /// Run one role: take events and requests over gRPC
    Ingest(ServerArgs),
    /// Run one role: find out whom events and campaigns concern
    Segmenter(ServerArgs),
    /// Run one role: write the texts and apply the rules
    Renderer(ServerArgs),
    /// Run one role: hand texts to the SMS gateways
    Dispatcher(ServerArgs),
    /// Run one role: take what gateways report
    ReceiptCollector(ServerArgs),
    /// Run one role: the page and the HTTP API
    Console(ServerArgs),
    /// Run one role: an SMS gateway to test against
    Simulator(SimulatorArgs),
    /// Bring the database's schema and the bus's topics up to date
    Migrate(ServerArgs),
    /// Print all settings with their defaults
    Settings,
    /// Apply gateways, templates, audiences, triggers and the policy from a TOML file
    Apply(commands::apply::ApplyArgs),
    /// Contacts
    #[command(subcommand)]
    Contacts(commands::contacts::Contacts),
    /// Business events
    #[command(subcommand)]
    Events(commands::events::Events),
    /// Who an expression of the audience language matches
    #[command(subcommand)]
    Audience(commands::audience::Audience),
    /// Campaigns
    #[command(subcommand)]
    Campaign(commands::campaign::Campaign),
    /// SMS gateways, and how well they do
    #[command(subcommand)]
    Gateway(commands::gateway::Gateway),
    /// Single messages
    #[command(subcommand)]
    Message(commands::message::Message),
    /// How many SMS a text takes, and what they cost
    Sms(commands::sms::SmsArgs),
    /// Check that every planned message is accounted for
    Audit(commands::audit::AuditArgs),
    /// The receipts topic, and receipts that found no message
    #[command(subcommand)]
    Receipts(commands::receipts::Receipts),
    /// Replies that only a person can decide on
    #[command(subcommand)]
    Replies(commands::replies::Replies),
    /// Phones that must not be written to
    #[command(subcommand)]
    Suppressions(commands::suppressions::Suppressions),
    /// What became of messages: by campaign, trigger, gateway and day
    #[command(subcommand)]
    Report(commands::report::Report),
    /// Records that could not be processed
    #[command(subcommand)]
    DeadLetters(commands::dead_letters::DeadLetters),
    /// Topics of the bus
    #[command(subcommand)]
    Topics(commands::topics::Topics),
    /// API keys
    #[command(subcommand)]
    Keys(commands::keys::Keys),
    /// Write the demo's contacts, as they are kept in deploy/demo
    #[command(hide = true)]
    DemoContacts,
}

/// What every process that serves takes.
#[derive(Debug, Args)]
struct ServerArgs {
    /// Settings file (default: tamtam.toml in the current directory, where there is one)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use this Kafka as the bus, instead of PostgreSQL
    #[arg(long, value_name = "BROKERS")]
    kafka: Option<String>,
    /// Use this PostgreSQL: postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Let the system pick every port
    #[arg(long)]
    free_ports: bool,
}

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Where the private PostgreSQL and the admin key are kept (default: .tamtam)
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Run the SMS gateway simulator too, with a gateway that leads to it
    #[arg(long)]
    simulator: bool,
    /// The simulator's faults, as TOML
    #[arg(long, value_name = "FILE", requires = "simulator")]
    script: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct SimulatorArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Faults, as TOML
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Use this Kafka as the bus, instead of PostgreSQL
    #[arg(long, value_name = "BROKERS")]
    kafka: Option<String>,
    /// Use this PostgreSQL, an empty database: postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

/// How a command reaches a running tamtam.
#[derive(Clone, Debug, Args)]
pub struct ClientArgs {
    /// The running tamtam's HTTP API
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub server: String,
    /// File with the API key (default: TAMTAM_API_KEY, else the admin key that `tamtam up` made)
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// The data directory of `tamtam up`, to find its admin key
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Does what the arguments say.
pub fn run(cli: Cli, environment: BTreeMap<String, String>) -> Result<(), Failure> {
    let secrets = secrets(&environment);
    let connection = |arguments: &ClientArgs| Connection::open(arguments, &environment);
    match cli.command {
        Command::Up(arguments) => {
            let directory = arguments.data_dir.as_deref();
            let paths = [
                ("data.directory", directory, "--data-dir"),
                ("simulator.script", arguments.script.as_deref(), "--script"),
            ];
            let settings = load(&arguments.server, &paths, environment)?;
            serve(settings, Process::Up, |settings| {
                run::up::run(settings, arguments.simulator, secrets)
            })
        }
        Command::Ingest(arguments) => role(Role::Ingest, &arguments, environment, secrets),
        Command::Segmenter(arguments) => role(Role::Segmenter, &arguments, environment, secrets),
        Command::Renderer(arguments) => role(Role::Renderer, &arguments, environment, secrets),
        Command::Dispatcher(arguments) => role(Role::Dispatcher, &arguments, environment, secrets),
        Command::ReceiptCollector(arguments) => role(Role::ReceiptCollector, &arguments, environment, secrets),
        Command::Console(arguments) => role(Role::Console, &arguments, environment, secrets),
        Command::Simulator(arguments) => {
            let paths = [("simulator.script", arguments.script.as_deref(), "--script")];
            let settings = load(&arguments.server, &paths, environment)?;
            serve(settings, Process::Alone("simulator"), |settings| {
                run::role(Role::Simulator, settings, secrets)
            })
        }
        Command::Migrate(arguments) => serve(
            load(&arguments, &[], environment)?,
            Process::Alone("migrate"),
            run::migrate,
        ),
        Command::Settings => commands::output::text(settings::DEFAULT),
        Command::Demo(arguments) => demo::run(arguments.kafka, arguments.database, secrets),
        Command::DemoContacts => demo::contacts::write(),
        Command::Sms(arguments) => commands::sms::run(&arguments),
        Command::Apply(arguments) => client(commands::apply::run(&connection(&arguments.client)?, &arguments)),
        Command::Contacts(command) => client(commands::contacts::run(&connection(command.client())?, &command)),
        Command::Events(command) => client(commands::events::run(&connection(command.client())?, &command)),
        Command::Audience(command) => client(commands::audience::run(&connection(command.client())?, &command)),
        Command::Campaign(command) => client(commands::campaign::run(&connection(command.client())?, &command)),
        Command::Gateway(command) => client(commands::gateway::run(&connection(command.client())?, &command)),
        Command::Message(command) => client(commands::message::run(&connection(command.client())?, &command)),
        Command::Audit(arguments) => client(commands::audit::run(&connection(&arguments.client)?, &arguments)),
        Command::Receipts(command) => client(commands::receipts::run(&connection(command.client())?, &command)),
        Command::Replies(command) => client(commands::replies::run(&connection(command.client())?, &command)),
        Command::Suppressions(command) => client(commands::suppressions::run(&connection(command.client())?, &command)),
        Command::Report(command) => client(commands::report::run(&connection(command.client())?, &command)),
        Command::DeadLetters(command) => client(commands::dead_letters::run(&connection(command.client())?, &command)),
        Command::Topics(command) => client(commands::topics::run(&connection(command.client())?, &command)),
        Command::Keys(command) => client(commands::keys::run(&connection(command.client())?, &command)),
    }
}

/// The variables that gateways name by `password_env`. Read once: a service never looks at the environment itself.
fn secrets(environment: &BTreeMap<String, String>) -> Secrets {
    let environment = environment.clone();
    Arc::new(move |name| environment.get(name).cloned())
}

/// `paths`: further options that name a file, by the setting that they stand for.
fn load(
    arguments: &ServerArgs,
    paths: &[(&'static str, Option<&Path>, &'static str)],
    environment: BTreeMap<String, String>,
) -> Result<Settings, Failure> {
    let mut options = Vec::new();
    if let Some(brokers) = &arguments.kafka {
        options.push(("bus.kind", "kafka".to_owned(), "--kafka"));
        options.push(("bus.brokers", brokers.clone(), "--kafka"));
    }
    if let Some(url) = &arguments.database {
        options.push(("database.url", url.clone(), "--database"));
    }
    for (key, path, name) in paths {
        options.extend(path.map(|path| (*key, path.display().to_string(), *name)));
    }
    Ok(Settings::load(&Sources {
        config: arguments.config.as_deref(),
        environment,
        options,
        free_ports: arguments.free_ports,
    })?)
}

fn role(
    role: Role,
    arguments: &ServerArgs,
    environment: BTreeMap<String, String>,
    secrets: Secrets,
) -> Result<(), Failure> {
    let settings = load(arguments, &[], environment)?;
    let process = match role {
        Role::Dispatcher => Process::Dispatcher,
        role => Process::Alone(role.name()),
    };
    serve(settings, process, |settings| run::role(role, settings, secrets))
}

/// What a process serves.
#[derive(Clone, Copy, Debug)]
pub enum Process {
    /// All roles.
    Up,
    /// It claims, submits and writes at the same time, and with one thread waits for itself while processors are idle.
    Dispatcher,
    /// This alone: others on the machine, PostgreSQL and the bus among them, need processors too.
    Alone(&'static str),
}

impl Process {
    fn name(self) -> &'static str {
        match self {
            Process::Up => "up",
            Process::Dispatcher => "dispatcher",
            Process::Alone(name) => name,
        }
    }

    fn threads(self, processors: usize) -> usize {
        match self {
            Process::Up | Process::Dispatcher => processors,
            Process::Alone(_) => (processors / 2).max(1),
        }
    }
}

/// Runs a process that serves: many threads, logs, traces.
fn serve<F>(settings: Settings, process: Process, run: impl FnOnce(Settings) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    runtime(&settings, process)?.block_on(async {
        let telemetry = telemetry::start(&settings, process.name())?;
        let outcome = run(settings).await;
        telemetry.stop().await;
        outcome
    })
}

/// Runs a command that asks a running tamtam.
fn client(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::no)?
        .block_on(command)
}

pub fn runtime(settings: &Settings, process: Process) -> Result<tokio::runtime::Runtime, Failure> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads.map_or(process.threads(processors), usize::from))
        .enable_all()
        .build()
        .map_err(Failure::no)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_role_alone_leaves_processors_to_others() {
        let threads = |process: Process| [1, 2, 4, 9].map(|processors| process.threads(processors));
        assert_eq!(threads(Process::Up), [1, 2, 4, 9]);
        assert_eq!(threads(Process::Dispatcher), [1, 2, 4, 9]);
        assert_eq!(threads(Process::Alone("ingest")), [1, 1, 2, 4]);
    }

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }
}
