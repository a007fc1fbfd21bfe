//! The release binary as processes, as users run it: started, waited for, ended.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

const START: Duration = Duration::from_secs(60);

/// The binary beside this one: `cargo build --release -p tamtam` comes first (the Makefile does so).
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.with_file_name("tamtam");
    ensure!(path.exists(), "{} is missing: build it first", path.display());
    Ok(path)
}

/// A command with nothing of this environment that could change its settings.
fn command(directory: &Path, environment: &BTreeMap<String, String>) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.current_dir(directory).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TAMTAM_") {
            command.env_remove(name);
        }
    }
    command.envs(environment);
    Ok(command)
}

/// Runs a command to its end and gives what it printed.
pub fn run(directory: &Path, environment: &BTreeMap<String, String>, arguments: &[&str]) -> Result<String> {
    let output = command(directory, environment)?.args(arguments).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tamtam {}: {stderr}", arguments.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

/// A process that printed its `ready` line. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pub name: String,
    ready: HashMap<String, String>,
}

impl Process {
    /// Starts a role, or `up`; its log goes to a file in `directory`.
    pub fn start(
        directory: &Path,
        environment: &BTreeMap<String, String>,
        name: &str,
        arguments: &[&str],
    ) -> Result<Process> {
        let log = directory.join(format!("{name}.log"));
        let child = command(directory, environment)?
            .args(arguments)
            .arg("--free-ports")
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()?;
        let mut process = Process {
            child,
            name: name.into(),
            ready: HashMap::new(),
        };
        let stdout = process.child.stdout.take().context("its output")?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // After the first line nobody listens, and the pipe must not fill.
                let _ = send.send(line);
            }
        });
        let line = lines.recv_timeout(START).ok();
        let Some(pairs) = line.as_deref().and_then(|line| line.strip_prefix("ready")) else {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("{name} did not become ready:\n{log}");
        };
        process.ready = pairs
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Ok(process)
    }

    /// A value of the `ready` line.
    pub fn at(&self, name: &str) -> Result<&str> {
        let value = self.ready.get(name);
        value
            .map(String::as_str)
            .with_context(|| format!("{} says no `{name}`", self.name))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and its end waited for.
    pub fn stop(mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
