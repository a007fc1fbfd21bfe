//! A private PostgreSQL from the machine's own binaries: what `tamtam up` keeps its data in, and what tests run on.
//!
//! The cluster listens on loopback alone, with a password, on a free port. As root the server runs as an unprivileged
//! user, because PostgreSQL refuses root.
//!
//! Whoever started it may be killed at any point. Before `initdb` has ended: it works in a directory beside, which is
//! thrown away and made again. While the server runs: the next start finds its `postmaster.pid`, sees that it is the
//! server of this very directory, and stops it before it starts its own; PostgreSQL's own recovery does the rest.

mod flush;
mod leftover;
mod system;

use std::{
    ffi::OsStr,
    io,
    net::TcpListener,
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use flush::Flusher;
pub use system::closed_directory;
use system::{find_binaries, unprivileged_account};

/// A running private cluster. Dropped, it is stopped at once; [`Cluster::stop`] does so in good order.
#[derive(Debug)]
pub struct Cluster {
    binaries: PathBuf,
    directory: PathBuf,
    account: Option<(u32, u32)>,
    port: u16,
    password: String,
    running: bool,
    flusher: Option<Flusher>,
    watcher: Option<Child>,
}

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(
        "no PostgreSQL server of version 15 or later found under /usr/lib/postgresql: install `postgresql` (Debian), or name a database with --database"
    )]
    NoBinaries,
    #[error("running as root needs an unprivileged user for PostgreSQL: no user `postgres` or `nobody` in /etc/passwd")]
    NoAccount,
    #[error(
        "{directory} lies in {closed}, which PostgreSQL's user may not enter (as root, the server runs as an unprivileged user): expected a data directory elsewhere, for example /var/lib/tamtam"
    )]
    Closed { directory: PathBuf, closed: PathBuf },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{program} failed: {output}")]
    Program { program: &'static str, output: String },
    #[error("the PostgreSQL left over from before (process {pid}) does not stop: stop it by hand")]
    Leftover { pid: u32 },
}

/// What a cluster is started with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Beyond PostgreSQL's own defaults, as `name=value`.
    pub settings: Vec<String>,
    /// The server ends, and its directory is removed, when this process ends, however it ends: for tests and trials.
    pub ephemeral: bool,
}

/// What `tamtam up` starts its cluster with, beyond PostgreSQL's defaults. All roles and their consumers connect to it;
/// durability stays as it is by default.
pub fn settings() -> Vec<String> {
    let mut settings = [
        "max_connections=200",
        "max_wal_size=2GB",
        // Files of the log stay for the next burst: to write a new one of 16 MB holds up every commit.
        "min_wal_size=1GB",
        "jit=off",
        "log_min_messages=warning",
    ]
    .map(String::from)
    .to_vec();
    settings.push(format!("shared_buffers={}MB", cache_megabytes()));
    settings
}

/// PostgreSQL's own cache: an eighth of the memory that there is for us, from 128 MB (its default) up to 1 GB.
fn cache_megabytes() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .map_or(0, |kilobytes: u64| kilobytes << 10);
    // A container's limit; without one it says `max`.
    let limit = read("/sys/fs/cgroup/memory.max").trim().parse().unwrap_or(u64::MAX);
    (machine.min(limit) / (8 << 20)).clamp(128, 1024)
}

/// How often a start is tried: the port was free a moment ago, and the shared memory of a killed server may need a
/// moment to go.
const ATTEMPTS: u32 = 5;
/// The server's log is put aside when it is larger at a start.
const LOG_LIMIT: u64 = 16 << 20;

impl Cluster {
    /// Starts the cluster under `directory`, making it first where there is none.
    pub fn start(directory: &Path, options: &Options) -> Result<Cluster, ClusterError> {
        let binaries = find_binaries()?;
        let account = unprivileged_account()?;
        make_directory(directory)?;
        let directory = directory.canonicalize().map_err(at(directory))?;
        if let Some(closed) = closed_directory(&directory)? {
            return Err(ClusterError::Closed { directory, closed });
        }
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).map_err(at(&directory))?;
        let mut cluster = Cluster {
            binaries,
            directory,
            account,
            port: 0,
            password: String::new(),
            running: false,
            flusher: None,
            watcher: None,
        };
        cluster.own(&cluster.directory)?;
        leftover::stop(&cluster.data())?;
        cluster.password = cluster.password_ensure()?;
        if !cluster.data().join("PG_VERSION").exists() {
            cluster.initialize()?;
        }
        cluster.log_prepare()?;
        let mut attempt = 1;
        loop {
            match cluster.launch(options) {
                Ok(()) => break,
                Err(_) if attempt < ATTEMPTS => std::thread::sleep(std::time::Duration::from_millis(500)),
                Err(error) => return Err(error),
            }
            attempt += 1;
        }
        if options.ephemeral {
            cluster.watcher = Some(cluster.watch()?);
        }
        Ok(cluster)
    }

    /// `postgres://…` of the given database on this cluster, password included.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://tamtam:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The same over its Unix socket, which takes a fifth less of the processor for each statement; over TCP where the
    /// directory's path is not fit for a socket.
    pub fn socket_url(&self, database: &str) -> String {
        match self.socket_directory() {
            Some(directory) => format!(
                "postgres://tamtam:{}@localhost:{}/{database}?host={directory}",
                self.password, self.port
            ),
            None => self.url(database),
        }
    }

    /// The cluster's own directory, which only its owner can enter. A socket's path has at most 107 bytes (unix(7)), and what
    /// is not plain would have to be quoted for the shell, for PostgreSQL's list and in a URL.
    fn socket_directory(&self) -> Option<&str> {
        let directory = self.directory.to_str()?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
        (directory.len() + "/.s.PGSQL.65535.lock".len() <= 107 && directory.bytes().all(is_plain)).then_some(directory)
    }

    /// Ends its sessions and stops it; what was committed is on disk.
    pub fn stop(mut self) -> Result<(), ClusterError> {
        self.running = false;
        self.program("pg_ctl", ["stop", "--wait", "--timeout=20", "--mode=fast"])
    }

    /// Ends it without a word, as a power cut of the machine does to its memory, and starts it again on what is on disk;
    /// its port may be another one afterwards.
    pub fn restart(&mut self, options: &Options) -> Result<(), ClusterError> {
        self.running = false;
        self.program("pg_ctl", ["stop", "--wait", "--timeout=20", "--mode=immediate"])?;
        self.launch(options)
    }

    /// PostgreSQL's own data directory.
    fn data(&self) -> PathBuf {
        self.directory.join("cluster")
    }

    fn password_ensure(&self) -> Result<String, ClusterError> {
        let path = self.directory.join("password");
        match std::fs::read_to_string(&path) {
            Ok(password) if !password.trim().is_empty() => return Ok(password.trim().into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at(&path)(error)),
        }
        let random = |path: &str| std::fs::read_to_string(path).map_err(at(Path::new(path)));
        // The kernel's random generator; without hyphens it needs no escaping in a URL.
        let password = random("/proc/sys/kernel/random/uuid")?.trim().replace('-', "");
        let mut file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(at(&path))?;
        io::Write::write_all(&mut file, password.as_bytes()).map_err(at(&path))?;
        self.own(&path)?;
        Ok(password)
    }

    /// `initdb` writes into a directory beside, which becomes the cluster when it is whole.
    fn initialize(&self) -> Result<(), ClusterError> {
        let fresh = self.directory.join("cluster.new");
        match std::fs::remove_dir_all(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&fresh)(error)),
            _ => {}
        }
        let pgdata = format!("--pgdata={}", fresh.display());
        let pwfile = format!("--pwfile={}", self.directory.join("password").display());
        self.run(
            "initdb",
            &[
                &pgdata,
                "--username=tamtam",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                // The same order by comparing bytes, without asking the system's library.
                "--lc-collate=C",
                &pwfile,
            ],
        )?;
        let data = self.data();
        std::fs::rename(&fresh, &data).map_err(at(&data))
    }

    fn log_prepare(&self) -> Result<(), ClusterError> {
        let path = self.directory.join("postgresql.log");
        if path.metadata().is_ok_and(|metadata| metadata.len() > LOG_LIMIT) {
            std::fs::rename(&path, path.with_extension("log.1")).map_err(at(&path))?;
        }
        std::fs::File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(at(&path))?;
        self.own(&path)
    }

    fn launch(&mut self, options: &Options) -> Result<(), ClusterError> {
        self.port = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|socket| socket.local_addr())
            .map_err(at(&self.directory))?
            .port();
        let mut server = format!(
            "-c port={} -c listen_addresses=127.0.0.1 -c unix_socket_directories={}",
            self.port,
            self.socket_directory().unwrap_or_default()
        );
        for setting in &options.settings {
            server.push_str(&format!(" -c {setting}"));
        }
        let log = format!("--log={}", self.directory.join("postgresql.log").display());
        let arguments = ["start", "--wait", "--timeout=60", &log, &format!("--options={server}")];
        self.program("pg_ctl", arguments)?;
        self.running = true;
        // Without it commits are late at times; it is no reason not to run.
        self.flusher = Flusher::start(&self.data()).ok();
        Ok(())
    }

    /// A shell that waits for the end of this process (its end of the pipe closes) and then clears up.
    fn watch(&self) -> Result<Child, ClusterError> {
        const SCRIPT: &str = r#"cat >/dev/null
pid=$(head -n 1 "$1/cluster/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null
for i in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
rm -rf "$1""#;
        Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // Ctrl-C on the terminal is not for it.
            .process_group(0)
            .spawn()
            .map_err(at(Path::new("sh")))
    }

    /// Gives a file to the user that the server runs as.
    fn own(&self, path: &Path) -> Result<(), ClusterError> {
        match self.account {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)).map_err(at(path)),
            None => Ok(()),
        }
    }

    fn program<const N: usize>(&self, program: &'static str, arguments: [&str; N]) -> Result<(), ClusterError> {
        let pgdata = format!("--pgdata={}", self.data().display());
        let mut all = vec![pgdata.as_str()];
        all.extend(arguments);
        self.run(program, &all)
    }

    fn run<S: AsRef<OsStr>>(&self, program: &'static str, arguments: &[S]) -> Result<(), ClusterError> {
        let mut command = Command::new(self.binaries.join(program));
        command.args(arguments).stdin(Stdio::null()).current_dir("/");
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        // The server inherits pg_ctl's outputs, so a pipe would never end: a file takes them.
        let path = self.directory.join("program.log");
        let file = std::fs::File::create(&path).map_err(at(&path))?;
        let twin = file.try_clone().map_err(at(&path))?;
        let status = command
            .stdout(file)
            .stderr(twin)
            .status()
            .map_err(at(&self.binaries.join(program)))?;
        if status.success() {
            return Ok(());
        }
        let mut output = std::fs::read_to_string(&path).unwrap_or_default();
        if program == "pg_ctl" {
            // What the server itself had to say.
            let log = std::fs::read_to_string(self.directory.join("postgresql.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(5).collect();
            for line in lines.into_iter().rev() {
                output.push_str(line);
                output.push('\n');
            }
        }
        Err(ClusterError::Program { program, output })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.running {
            let _ = self.program("pg_ctl", ["stop", "--wait", "--timeout=20", "--mode=immediate"]);
        }
        if let Some(mut watcher) = self.watcher.take() {
            drop(watcher.stdin.take());
            let _ = watcher.wait();
        }
    }
}

/// Missing parents are made open to enter: as root the server runs as another user.
fn make_directory(directory: &Path) -> Result<(), ClusterError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .map_err(at(directory))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ClusterError + use<> {
    let path = path.to_owned();
    move |source| ClusterError::Io { path, source }
}
