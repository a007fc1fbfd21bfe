//! One real Apache Kafka node for the whole test binary (`deploy/kafka/node.sh`), or the one that `TAMTAM_TEST_KAFKA` names.
//! The script watches this process and ends the node with it, however it ends.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

static NODE: OnceLock<String> = OnceLock::new();

/// `HOST:PORT` of a Kafka that answers connections. Blocks while it starts.
pub fn brokers() -> String {
    NODE.get_or_init(|| std::env::var("TAMTAM_TEST_KAFKA").unwrap_or_else(|_| start()))
        .clone()
}

fn start() -> String {
    let port = TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // Not a `TempDir`: nothing in a static is dropped. The script removes it.
    let directory = tempfile::tempdir().unwrap().keep();
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("kafka-{}.log", std::process::id()));
    let output = std::fs::File::create(&log).unwrap();
    #[expect(
        clippy::zombie_processes,
        reason = "it serves until this process ends, and then ends by itself"
    )]
    let mut node = Command::new(root.join("deploy/kafka/node.sh"))
        .arg(port.to_string())
        .arg(&directory)
        .arg(std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            is_running(&mut node),
            "Kafka ended while it started: see {}",
            log.display()
        );
        assert!(Instant::now() < until, "Kafka does not listen: see {}", log.display());
        std::thread::sleep(Duration::from_millis(100));
    }
    format!("127.0.0.1:{port}")
}

fn is_running(node: &mut Child) -> bool {
    node.try_wait().unwrap().is_none()
}
