//! One private PostgreSQL for the whole test binary; each test gets a migrated database of its own.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use embedded::{Cluster, Options};
use store::Store;

struct Shared {
    cluster: Cluster,
    _directory: tempfile::TempDir,
}

static SHARED: OnceLock<Shared> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

fn shared() -> &'static Shared {
    SHARED.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        // PostgreSQL runs as another user when the tests run as root: it must be able to enter.
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let settings = ["fsync=off", "max_connections=300", "shared_buffers=128MB"]
            .map(String::from)
            .to_vec();
        let cluster = Cluster::start(
            &directory.path().join("postgres"),
            &Options {
                settings,
                ephemeral: true,
            },
        )
        .unwrap();
        Shared {
            cluster,
            _directory: directory,
        }
    })
}

/// A database of its own, empty; its URL.
pub async fn empty_database() -> String {
    let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let (admin, url) = tokio::task::spawn_blocking({
        let name = name.clone();
        move || (shared().cluster.url("postgres"), shared().cluster.url(&name))
    })
    .await
    .unwrap();
    let store = Store::connect(&admin, 1, Duration::from_secs(10)).await.unwrap();
    store.database_create(&name).await.unwrap();
    url
}

/// A migrated database of its own.
pub async fn database() -> Store {
    let store = Store::connect(&empty_database().await, 10, Duration::from_secs(10))
        .await
        .unwrap();
    store.migrate().await.unwrap();
    store
}
