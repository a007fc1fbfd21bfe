//! Everything in one process: a private PostgreSQL where no other is named, all roles, the simulator on demand.
//!
//! Killed at any point, the next start goes on: the lock and the ports end with the process, a PostgreSQL left over is
//! stopped by its successor (see `embedded`), and what was under way is delivered again by the bus.

use std::path::PathBuf;

use embedded::{Cluster, Options};
use resources::gateway::Secrets;
use tokio_util::sync::CancellationToken;

use super::{
    Signals, bus_name, connect,
    directory::DataDirectory,
    listeners::{Addresses, Listeners, reachable},
    roles::{self, Parts, Role},
    say, serve_health, shown, simulated,
    supervisor::Supervisor,
};
use crate::{
    exit::{Failure, chain},
    settings::Settings,
    telemetry::health::Health,
};

/// All of tamtam, up.
pub struct Up {
    pub parts: Parts,
    pub addresses: Addresses,
    /// The admin's.
    pub key: String,
    pub ready: String,
    pub supervisor: Supervisor,
    shared: CancellationToken,
    cluster: Option<Cluster>,
    _directory: DataDirectory,
}

/// `tamtam up`: until a signal.
pub async fn run(settings: Settings, simulator: bool, secrets: Secrets) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut up = tokio::select! {
        up = Up::start(&settings, simulator, false, secrets) => up?,
        // What was started is dropped, and with it stopped.
        () = signals.next() => return Ok(()),
    };
    say(&up.ready)?;
    tracing::info!("all is up");
    let outcome = tokio::select! {
        () = signals.next() => Ok(()),
        failure = up.supervisor.failed() => Err(failure),
    };
    tokio::select! {
        () = up.stop() => {}
        // The cluster is stopped all the same, by being dropped.
        () = signals.next() => tracing::warn!("told twice: stopping at once"),
    }
    outcome
}

impl Up {
    /// Starts everything and returns when all of it is up. `ephemeral`: the database goes when the process does.
    pub async fn start(settings: &Settings, simulator: bool, ephemeral: bool, secrets: Secrets) -> Result<Up, Failure> {
        let directory = DataDirectory::open(settings, settings.database.url.is_none())?;
        let kafka = connect::kafka(settings).await?;
        let roles: Vec<Role> = Role::ALL
            .into_iter()
            .filter(|role| simulator || *role != Role::Simulator)
            .collect();
        let mut listeners = Listeners::bind(settings, &roles).await?;
        let addresses = listeners.addresses;
        let health = Health::default();
        let shared = CancellationToken::new();
        let ends = shared.clone().drop_guard();
        serve_health(listeners.metrics.take(), &health, &shared)?;
        let (cluster, url) = match &settings.database.url {
            Some(url) => (None, url.0.clone()),
            None => {
                let cluster = start_cluster(directory.path.join("postgres"), ephemeral).await?;
                let url = ensure_database(&cluster).await?;
                (Some(cluster), url)
            }
        };
        let store = connect::database(settings, &url).await?;
        let log = connect::bus(settings, kafka, &store).await?;
        let parts = Parts::read(settings, store, log, secrets, health, shared.clone()).await?;
        let key = directory.admin_key(settings.admin_key.as_ref().map(|key| key.0.as_str()))?;
        parts
            .api
            .admin_key_ensure(&key)
            .await
            .map_err(|error| Failure::no(format!("admin key: {}", chain(&error))))?;
        let mut supervisor = Supervisor::new();
        if let Some(smpp) = addresses.simulator_smpp {
            simulated::ensure(&parts.store, reachable(smpp), parts.clock.now())
                .await
                .map_err(|error| Failure::no(format!("gateway `simulator`: {}", chain(&error))))?;
        }
        for role in roles {
            match role {
                Role::Simulator => roles::simulator(settings, &mut listeners, &mut supervisor),
                role => parts.start(role, settings, &mut listeners, &mut supervisor),
            }
        }
        parts.health.set_ready(true);
        let _ = ends.disarm();
        Ok(Up {
            addresses,
            key,
            ready: addresses.ready_line(Some(&bus_name(settings)), Some(&shown(&url))),
            supervisor,
            shared,
            cluster,
            parts,
            _directory: directory,
        })
    }

    /// Drains, from who takes in to who hands out; then the database.
    pub async fn stop(self) {
        self.parts.health.set_ready(false);
        self.supervisor.stop().await;
        self.shared.cancel();
        if let Some(cluster) = self.cluster {
            match tokio::task::spawn_blocking(move || cluster.stop()).await {
                Ok(Ok(())) => tracing::info!("PostgreSQL stopped"),
                Ok(Err(error)) => tracing::warn!(error = chain(&error), "PostgreSQL did not stop in good order"),
                Err(_) => tracing::warn!("PostgreSQL did not stop in good order"),
            }
        }
    }
}

async fn start_cluster(directory: PathBuf, ephemeral: bool) -> Result<Cluster, Failure> {
    let options = Options {
        settings: embedded::settings(),
        ephemeral,
    };
    tokio::task::spawn_blocking(move || Cluster::start(&directory, &options))
        .await
        .map_err(|_| Failure::no("PostgreSQL's start panicked"))?
        .map_err(|error| Failure::unreachable(format!("the private PostgreSQL cannot be started: {}", chain(&error))))
}

/// The database in the private cluster; made at its first start.
async fn ensure_database(cluster: &Cluster) -> Result<String, Failure> {
    const NAME: &str = "tamtam";
    const WAIT: std::time::Duration = std::time::Duration::from_secs(30);
    let url = cluster.socket_url(NAME);
    if store::Store::connect(&url, 1, WAIT).await.is_ok() {
        return Ok(url);
    }
    let failure = |error: store::StoreError| Failure::unreachable(format!("the private PostgreSQL: {}", chain(&error)));
    let server = store::Store::connect(&cluster.socket_url("postgres"), 1, WAIT)
        .await
        .map_err(failure)?;
    server.database_create(NAME).await.map_err(failure)?;
    Ok(url)
}
