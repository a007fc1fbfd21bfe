//! The database and the bus: reached, migrated, topics made. A start waits for them for a while, because they often
//! start at the same moment.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{BusConfig, BusError, Log, PostgresConfig};
use store::{Store, StoreError};

use crate::{
    exit::{Failure, chain},
    settings::Settings,
};

const AGAIN: Duration = Duration::from_millis(500);

/// Kafka, where the settings name it. It does not wait for an answer, but looks at librdkafka's settings: before any
/// port is bound.
pub async fn kafka(settings: &Settings) -> Result<Option<Arc<dyn Log>>, Failure> {
    match &settings.bus.kafka {
        Some(kafka) => Ok(Some(
            bus::open(BusConfig::Kafka(kafka.clone())).await.map_err(bus_failure)?,
        )),
        None => Ok(None),
    }
}

/// The database, and the schema brought up to date where the settings say so.
pub async fn database(settings: &Settings, url: &str) -> Result<Store, Failure> {
    let failure = |what: &str, error: &StoreError| {
        let text = format!("{what}: {}", chain(error));
        match error {
            StoreError::Unavailable(_) | StoreError::Refused(_) => Failure::unreachable(text),
            _ => Failure::no(text),
        }
    };
    let store = Store::connect(url, settings.database.connections, settings.database.wait)
        .await
        .map_err(|error| failure("the database cannot be reached", &error))?;
    if settings.database.migrate {
        let migrate = || store.migrate();
        patiently(settings.database.wait, StoreError::is_transient, migrate)
            .await
            .map_err(|error| failure("the schema cannot be brought up to date", &error))?;
    }
    Ok(store)
}

/// The bus, with its topics.
pub async fn bus(settings: &Settings, kafka: Option<Arc<dyn Log>>, store: &Store) -> Result<Arc<dyn Log>, Failure> {
    let log = match kafka {
        Some(log) => log,
        None => {
            let pool = store.pool().clone();
            bus::open(BusConfig::Postgres(PostgresConfig { pool }))
                .await
                .map_err(bus_failure)?
        }
    };
    let ensure = || log.topics_ensure(&settings.topics);
    patiently(settings.bus.wait, BusError::is_transient, ensure)
        .await
        .map_err(bus_failure)?;
    Ok(log)
}

fn bus_failure(error: BusError) -> Failure {
    match &error {
        BusError::Setting { .. } => Failure::settings(chain(&error)),
        error => Failure::unreachable(chain(error)),
    }
}

/// Tries again until it succeeds, fails for good, or the time is over.
pub async fn patiently<T, F, E>(
    wait: Duration,
    may_pass: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: std::error::Error,
{
    let deadline = Instant::now() + wait;
    loop {
        match attempt().await {
            Err(error) if may_pass(&error) && Instant::now() + AGAIN < deadline => {
                tracing::warn!(error = chain(&error), "not there yet, waiting");
                tokio::time::sleep(AGAIN).await;
            }
            done => return done,
        }
    }
}
