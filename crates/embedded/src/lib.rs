//! A private PostgreSQL from the machine's own binaries: what `tamtam up` keeps its data in, and what tests run on.
//!
//! The cluster listens on loopback alone, with a password, on a free port. As root the server runs as an unprivileged
//! user, because PostgreSQL refuses root.

use std::{
    ffi::OsStr,
    io,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A running private cluster. Dropped, it is stopped at once; [`Cluster::stop`] does so in good order.
#[derive(Debug)]
pub struct Cluster {
    binaries: PathBuf,
    data: PathBuf,
    account: Option<(u32, u32)>,
    port: u16,
    password: String,
    running: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(
        "no PostgreSQL server of version 15 or later found under /usr/lib/postgresql: install `postgresql` (Debian)"
    )]
    NoBinaries,
    #[error("running as root needs an unprivileged user for PostgreSQL: no user `postgres` or `nobody` in /etc/passwd")]
    NoAccount,
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{program} failed: {output}")]
    Program { program: &'static str, output: String },
}

/// What a cluster is started with beyond PostgreSQL's own defaults, as `name=value`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub settings: Vec<String>,
}

impl Cluster {
    /// Starts the cluster under `data`, making it first where there is none.
    pub fn start(data: &Path, options: &Options) -> Result<Cluster, ClusterError> {
        let binaries = find_binaries()?;
        let account = unprivileged_account()?;
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ClusterError::Io { path, source }
        };
        std::fs::create_dir_all(data).map_err(io(data))?;
        let data = data.canonicalize().map_err(io(data))?;
        if let Some((uid, gid)) = account {
            chown(&data, Some(uid), Some(gid)).map_err(io(&data))?;
        }
        let port = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|socket| socket.local_addr())
            .map_err(io(&data))?
            .port();
        let secret = data.join("password");
        let cluster_dir = data.join("cluster");
        let mut cluster = Cluster {
            binaries,
            data: cluster_dir,
            account,
            port,
            password: String::new(),
            running: false,
        };
        if cluster.data.join("PG_VERSION").exists() {
            cluster.password = std::fs::read_to_string(&secret).map_err(io(&secret))?;
        } else {
            cluster.password = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
                .map_err(io(&secret))?
                .trim()
                .into();
            std::fs::write(&secret, &cluster.password).map_err(io(&secret))?;
            if let Some((uid, gid)) = account {
                chown(&secret, Some(uid), Some(gid)).map_err(io(&secret))?;
            }
            let pwfile = format!("--pwfile={}", secret.display());
            cluster.program(
                "initdb",
                [
                    "--username=tamtam",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    &pwfile,
                ],
            )?;
        }
        let mut server = format!("-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=");
        for setting in &options.settings {
            server.push_str(&format!(" -c {setting}"));
        }
        let log = format!("--log={}", data.join("postgresql.log").display());
        if let Some((uid, gid)) = account {
            let path = data.join("postgresql.log");
            std::fs::File::options()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(io(&path))?;
            chown(&path, Some(uid), Some(gid)).map_err(io(&path))?;
        }
        cluster.program(
            "pg_ctl",
            ["start", "--wait", "--timeout=60", &log, &format!("--options={server}")],
        )?;
        cluster.running = true;
        Ok(cluster)
    }

    /// `postgres://…` of the given database on this cluster.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://tamtam:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    pub fn stop(mut self) -> Result<(), ClusterError> {
        self.running = false;
        self.program("pg_ctl", ["stop", "--wait", "--mode=fast"])
    }

    fn program<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(
        &self,
        program: &'static str,
        arguments: I,
    ) -> Result<(), ClusterError> {
        let mut command = Command::new(self.binaries.join(program));
        command
            .arg("--pgdata")
            .arg(&self.data)
            .args(arguments)
            .stdin(Stdio::null())
            .current_dir("/");
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        // The server inherits pg_ctl's outputs, so a pipe would never end: a file takes them.
        let path = self.data.with_extension("start.log");
        let file = std::fs::File::create(&path).map_err(|source| ClusterError::Io {
            path: path.clone(),
            source,
        })?;
        let twin = file.try_clone().map_err(|source| ClusterError::Io {
            path: path.clone(),
            source,
        })?;
        let status = command
            .stdout(file)
            .stderr(twin)
            .status()
            .map_err(|source| ClusterError::Io {
                path: self.binaries.join(program),
                source,
            })?;
        if status.success() {
            return Ok(());
        }
        Err(ClusterError::Program {
            program,
            output: std::fs::read_to_string(&path).unwrap_or_default(),
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.running {
            let _ = self.program("pg_ctl", ["stop", "--wait", "--mode=immediate"]);
        }
    }
}

/// The newest `bin` directory under /usr/lib/postgresql, 15 or later.
fn find_binaries() -> Result<PathBuf, ClusterError> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .map_err(|_| ClusterError::NoBinaries)?
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let path = entry.path().join("bin");
            (version >= 15 && path.join("initdb").exists()).then_some((version, path))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, path)| path).ok_or(ClusterError::NoBinaries)
}

/// As root: the user and group that the server runs as.
fn unprivileged_account() -> Result<Option<(u32, u32)>, ClusterError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(|_| ClusterError::NoAccount)?;
    for wanted in ["postgres", "nobody"] {
        for line in passwd.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [name, _, uid, gid, ..] = fields[..]
                && name == wanted
                && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
            {
                return Ok(Some((uid, gid)));
            }
        }
    }
    Err(ClusterError::NoAccount)
}
