//! Running roles: one alone, or all of them in one process (`up`).

pub mod connect;
pub mod directory;
pub mod listeners;
pub mod roles;
pub mod simulated;
pub mod supervisor;
pub mod up;

use std::io::Write;

use resources::gateway::Secrets;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    exit::{Failure, chain},
    settings::Settings,
    telemetry::health::{self, Health},
};
use listeners::Listeners;
use roles::{Parts, Role};
use supervisor::Supervisor;

/// Runs one role until a signal.
pub async fn role(role: Role, settings: Settings, secrets: Secrets) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let started = tokio::select! {
        started = start(role, &settings, secrets) => started?,
        () = signals.next() => return Ok(()),
    };
    say(&started.ready)?;
    let Running {
        mut supervisor,
        health,
        shared,
        ..
    } = started;
    let outcome = tokio::select! {
        () = signals.next() => Ok(()),
        failure = supervisor.failed() => Err(failure),
    };
    health.set_ready(false);
    tokio::select! {
        () = supervisor.stop() => {}
        () = signals.next() => tracing::warn!("told twice: stopping at once"),
    }
    shared.cancel();
    outcome
}

/// A role that is up.
struct Running {
    supervisor: Supervisor,
    health: Health,
    /// Ends what the roles share, after them.
    shared: CancellationToken,
    ready: String,
}

async fn start(role: Role, settings: &Settings, secrets: Secrets) -> Result<Running, Failure> {
    let simulator = role == Role::Simulator;
    let url = match simulator {
        true => None,
        false => Some(settings.require_database()?.0.clone()),
    };
    let kafka = match simulator {
        true => None,
        false => connect::kafka(settings).await?,
    };
    let mut listeners = Listeners::bind(settings, &[role]).await?;
    let mut supervisor = Supervisor::new();
    let health = Health::default();
    let shared = CancellationToken::new();
    let probes = listeners.metrics.take();
    serve_health(probes, &health, &shared)?;
    let addresses = listeners.addresses;
    let ready = match url {
        None => {
            roles::simulator(settings, &mut listeners, &mut supervisor);
            addresses.ready_line(None, None)
        }
        Some(url) => {
            let store = connect::database(settings, &url).await?;
            let log = connect::bus(settings, kafka, &store).await?;
            let parts = Parts::read(settings, store, log, secrets, health.clone(), shared.clone()).await?;
            admin_key(settings, &parts).await?;
            parts.start(role, settings, &mut listeners, &mut supervisor);
            addresses.ready_line(Some(&bus_name(settings)), Some(&shown(&url)))
        }
    };
    health.set_ready(true);
    Ok(Running {
        supervisor,
        health,
        shared,
        ready,
    })
}

/// Serves metrics and health from now on, before the rest is up: an orchestrator asks early.
fn serve_health(
    listener: Option<tokio::net::TcpListener>,
    health: &Health,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let recorder = health::recorder()?;
    if let Some(listener) = listener {
        let serving = health::run(listener, health.clone(), recorder, shutdown.clone());
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "metrics and health are not served any more");
            }
        });
    }
    Ok(())
}

/// Makes the admin key of the settings known, where there is one.
async fn admin_key(settings: &Settings, parts: &Parts) -> Result<(), Failure> {
    match &settings.admin_key {
        Some(key) => parts
            .api
            .admin_key_ensure(&key.0)
            .await
            .map_err(|error| Failure::no(format!("admin.key: {}", chain(&error)))),
        None => Ok(()),
    }
}

/// Brings the schema and the topics up to date, and makes the admin key of the settings known.
pub async fn migrate(settings: Settings) -> Result<(), Failure> {
    let url = settings.require_database()?.0.clone();
    let kafka = connect::kafka(&settings).await?;
    let settings = Settings {
        database: crate::settings::Database {
            migrate: true,
            ..settings.database.clone()
        },
        ..settings
    };
    let store = connect::database(&settings, &url).await?;
    let log = connect::bus(&settings, kafka, &store).await?;
    if let Some(key) = &settings.admin_key {
        let api = api::Api::new(store, log, stage::Clock::system());
        api.admin_key_ensure(&key.0)
            .await
            .map_err(|error| Failure::no(chain(&error)))?;
    }
    say("schema and topics are up to date")
}

/// SIGTERM and SIGINT, counted from the start: one that comes while starting is not lost.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn new() -> Result<Signals, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::no(format!("signals: {error}")));
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn bus_name(settings: &Settings) -> String {
    match &settings.bus.kafka {
        Some(kafka) => format!("kafka://{}", kafka.brokers.replace(' ', "")),
        None => "postgres".into(),
    }
}

/// A database's URL without its password and its parameters.
fn shown(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = bare.split_once("://") else {
        return "postgres".into();
    };
    match rest.rsplit_once('@') {
        Some((user, place)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{place}")
        }
        None => format!("{scheme}://{rest}"),
    }
}

/// A line on standard output, at once.
pub fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::no)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_shown_without_its_password() {
        assert_eq!(
            shown("postgres://me:hunter2@db:5432/tamtam?sslmode=require"),
            "postgres://me@db:5432/tamtam"
        );
        assert_eq!(shown("postgres://me:p@ss:word@db/tamtam"), "postgres://me@db/tamtam");
        assert_eq!(shown("postgresql://db/tamtam"), "postgresql://db/tamtam");
    }
}
