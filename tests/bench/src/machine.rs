//! What the kernel counts: processor time and memory of processes, by `/proc`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// The kernel's unit of processor time in `/proc/*/stat`: 100 a second on every Linux that runs Rust.
const TICKS: f64 = 100.0;

/// What a process and its children have used, in seconds of processor time.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    own: f64,
    /// Of children that have ended.
    ended: f64,
    parent: u32,
}

fn times(pid: u32) -> Option<Times> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; what follows the last one is numbers.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let at = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    Some(Times {
        parent: fields.get(1)?.parse().ok()?,
        own: (at(11)? + at(12)?) / TICKS,
        ended: (at(13)? + at(14)?) / TICKS,
    })
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Seconds of processor time of a process alone.
pub fn cpu(pid: u32) -> f64 {
    times(pid).map_or(0.0, |times| times.own)
}

/// The same with its children, ended ones too: PostgreSQL works in those.
pub fn cpu_of_family(pid: u32) -> f64 {
    let Some(root) = times(pid) else { return 0.0 };
    let children: f64 = pids()
        .into_iter()
        .filter_map(times)
        .filter(|child| child.parent == pid)
        .map(|child| child.own + child.ended)
        .sum();
    root.own + root.ended + children
}

/// The most memory that a process has had resident, in MiB.
pub fn peak_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .split_whitespace()
            .next()?
            .parse::<f64>()
            .ok()
    });
    kib.unwrap_or(0.0) / 1024.0
}

/// The process that listens on a TCP port of this machine.
pub fn listener(port: u16) -> Result<u32> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, local, _, "0A", ..] = fields.as_slice()
                && local
                    .rsplit_once(':')
                    .and_then(|(_, hex)| u16::from_str_radix(hex, 16).ok())
                    == Some(port)
                && let Some(inode) = fields.get(9)
            {
                inodes.push(format!("socket:[{inode}]"));
            }
        }
    }
    pids()
        .into_iter()
        .filter(|pid| has_open(*pid, &inodes))
        // Of a server and the children that inherited its socket, the server.
        .min()
        .with_context(|| format!("no process listens on port {port}"))
}

fn has_open(pid: u32, targets: &[String]) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|link: PathBuf| targets.iter().any(|target| link == Path::new(target)))
}

/// What the figures were measured on.
pub fn conditions() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        })
        .unwrap_or(0);
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "processor": model,
        "memory_gib": memory / 1024 / 1024,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "date": jiff::Timestamp::now().to_string().chars().take(10).collect::<String>(),
        "load_before": read("/proc/loadavg").split_whitespace().next().and_then(|load| load.parse::<f64>().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_port_and_has_used_something() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let pid = listener(socket.local_addr().unwrap().port()).unwrap();
        assert_eq!(pid, std::process::id());
        assert!(peak_mib(pid) > 1.0);
        // In this order: it grows meanwhile.
        let own = cpu(pid);
        assert!(cpu_of_family(pid) >= own);
        assert!(listener(1).is_err());
    }
}
