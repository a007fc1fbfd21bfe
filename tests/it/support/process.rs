//! The real binary as processes: started, waited for, killed.
//!
//! `cargo build -p tamtam` comes first (the Makefile does so): a test of another package cannot ask cargo for it.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(90);
/// What is promised for a stop, and some for a busy machine.
const STOP: Duration = Duration::from_secs(35);

/// The binary beside this test's own, or the one that `TAMTAM_TEST_BINARY` names.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TAMTAM_TEST_BINARY") {
        return path.into();
    }
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join("tamtam");
    assert!(
        path.exists(),
        "{} is missing: run `cargo build -p tamtam` first",
        path.display()
    );
    path
}

/// A command with nothing of this environment that could change its settings.
pub fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TAMTAM_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end.
pub fn run(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = command(directory, arguments);
    command.envs(environment.iter().copied());
    command.output().unwrap()
}

/// A process that printed its `ready` line. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    /// The `ready` line's NAME=VALUE pairs.
    pub ready: HashMap<String, String>,
    /// Lines on standard output after it.
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts it in `directory` and waits until it is ready. Its logs go to a file there, which a failure prints.
    pub fn start(directory: &Path, arguments: &[&str], environment: &BTreeMap<String, String>) -> Process {
        Self::start_named(directory, arguments[0], arguments, environment)
    }

    /// The same; the name tells several of a kind apart.
    pub fn start_named(
        directory: &Path,
        name: &str,
        arguments: &[&str],
        environment: &BTreeMap<String, String>,
    ) -> Process {
        let log = directory.join(format!("{name}.log"));
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut command = command(directory, arguments);
        command.envs(environment).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|read| read > 0) {
                if send.send(line.trim_end().to_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        let mut process = Process {
            child,
            name: name.to_owned(),
            log,
            ready: HashMap::new(),
            lines,
        };
        match process.lines.recv_timeout(START) {
            Ok(line) => {
                let pairs = line
                    .strip_prefix("ready")
                    .unwrap_or_else(|| panic!("{name} said `{line}`"));
                process.ready = pairs
                    .split_whitespace()
                    .map(|pair| {
                        let (key, value) = pair.split_once('=').unwrap_or_else(|| panic!("{name}: `{pair}`"));
                        (key.to_owned(), value.to_owned())
                    })
                    .collect();
            }
            Err(_) => panic!("{name} did not become ready:\n{}", process.log_tail()),
        }
        process
    }

    /// A value of the `ready` line.
    pub fn at(&self, name: &str) -> &str {
        let value = self.ready.get(name);
        value.unwrap_or_else(|| panic!("{}: no `{name}` in {:?}", self.name, self.ready))
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; it must end in time.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + STOP;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} did not stop in time:\n{}",
                self.name,
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The most memory that it had at once, in KiB.
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = std::fs::File::open(&self.log) {
            let _ = file.read_to_string(&mut text);
        }
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- log of {}:\n{}", self.name, self.log_tail());
        }
    }
}

/// Waits until `condition` gives a value; fails with what it waited for.
pub fn eventually<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
