//! The listener for metrics and health: `/metrics`, `/healthz` (the process answers) and `/readyz` (it is up, and the
//! database and the bus answer).

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use bus::Log;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use store::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;

const PATIENCE: Duration = Duration::from_secs(2);
/// Histograms drop what is older than their window only when somebody asks them to.
const UPKEEP: Duration = Duration::from_secs(5);
const SECONDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// What readiness is asked of. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    ready: AtomicBool,
    parts: OnceLock<(Store, Arc<dyn Log>)>,
}

impl Health {
    /// From now on it asks the database and the bus too.
    pub fn watch(&self, store: Store, log: Arc<dyn Log>) {
        let _ = self.0.parts.set((store, log));
    }

    pub fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Release);
    }

    /// `/healthz` and `/readyz`.
    pub fn probes(&self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { Json(json!({"status": "alive"})) }))
            .route("/readyz", get(readyz))
            .with_state(self.clone())
    }
}

async fn readyz(State(health): State<Health>) -> (StatusCode, Json<Value>) {
    let started = health.0.ready.load(Ordering::Acquire);
    let word = |good: bool| if good { "ok" } else { "does not answer" };
    let (database, bus) = match health.0.parts.get() {
        Some((store, log)) => {
            let store = tokio::time::timeout(PATIENCE, store.ping());
            let log = tokio::time::timeout(PATIENCE, log.ping());
            let (store, log) = tokio::join!(store, log);
            (matches!(store, Ok(Ok(()))), matches!(log, Ok(Ok(()))))
        }
        // The simulator alone has neither.
        None => (true, true),
    };
    let ready = started && database && bus;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({"ready": ready, "started": started, "database": word(database), "bus": word(bus)});
    (status, Json(body))
}

/// Makes the process's recorder; the first call alone does so, later ones share it.
pub fn recorder() -> Result<PrometheusHandle, Failure> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(Failure::no)?;
    metrics::gauge!("tamtam_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(HANDLE.get_or_init(|| handle).clone())
}

/// Serves until `shutdown`.
pub async fn run(
    listener: TcpListener,
    health: Health,
    recorder: PrometheusHandle,
    shutdown: CancellationToken,
) -> Result<(), std::io::Error> {
    let rendered = recorder.clone();
    let routes = health
        .probes()
        .route("/metrics", get(move || std::future::ready(rendered.render())));
    let upkeep = tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            recorder.run_upkeep();
        }
    });
    let server = axum::serve(listener, routes).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let served = tokio::select! {
        served = server => served,
        // A scraper that keeps its connection open does not keep the process.
        () = async { shutdown.cancelled().await; tokio::time::sleep(PATIENCE).await } => Ok(()),
    };
    upkeep.abort();
    served
}
