//! The server of a process that was killed.
//!
//! `postmaster.pid` alone proves nothing: the number may belong to somebody else by now. A postmaster is told by its
//! program's name and by its working directory, which is its data directory.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{ClusterError, at};

const STOP: Duration = Duration::from_secs(20);

/// Stops the server of `data` if one is still running, and removes a `postmaster.pid` that stands for nobody.
pub(crate) fn stop(data: &Path) -> Result<(), ClusterError> {
    let path = data.join("postmaster.pid");
    let Ok(content) = std::fs::read_to_string(&path) else {
        return Ok(());
    };
    let pid = content.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
    let Some(pid) = pid.filter(|pid| is_postmaster_of(*pid, data)) else {
        // PostgreSQL would refuse to start if the number is now some other process of its user.
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        };
    };
    // SIGINT is the fast shutdown, SIGQUIT the immediate one, which needs recovery (PostgreSQL manual, 19.5).
    for (signal, patience) in [(Signal::INT, STOP), (Signal::QUIT, STOP)] {
        if let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(process, signal);
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !is_postmaster_of(pid, data) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Err(ClusterError::Leftover { pid })
}

fn is_postmaster_of(pid: u32, data: &Path) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    name.trim() == "postgres" && std::fs::read_link(process.join("cwd")).is_ok_and(|directory| directory == data)
}
