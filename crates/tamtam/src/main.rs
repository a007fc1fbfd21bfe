//! tamtam: one binary for every role, and the commands that talk to a running one.
//!
//! `main` reads the environment and the arguments and hands both on; nothing else in the workspace reads the environment.

mod cli;
mod commands;
mod demo;
mod exit;
mod run;
mod settings;
mod telemetry;

use std::{collections::BTreeMap, io::Write, process::ExitCode};

use clap::Parser;

/// Records are many small pieces of memory that live for a batch.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    // Reads FAILPOINTS, where fail points are compiled in.
    let _scenario = fail::FailScenario::setup();
    let arguments = cli::Cli::parse();
    match cli::run(arguments, environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                let _ = writeln!(std::io::stderr(), "tamtam: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}
