//! The roles, and how each is started from the process's parts.

use std::sync::Arc;

use api::Api;
use bus::Log;
use domain::phone::PhoneKey;
use resources::gateway::Secrets;
use stage::{Clock, Live};
use store::{Store, StoreError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{connect::patiently, listeners::Listeners, supervisor::Supervisor};
use crate::{
    exit::{Failure, chain},
    settings::Settings,
    telemetry::health::Health,
};

/// In the order in which `tamtam up` stops them: who takes in first, who hands out last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Ingest,
    Console,
    Segmenter,
    Renderer,
    ReceiptCollector,
    Dispatcher,
    Simulator,
}

impl Role {
    pub const ALL: [Role; 7] = [
        Role::Ingest,
        Role::Console,
        Role::Segmenter,
        Role::Renderer,
        Role::ReceiptCollector,
        Role::Dispatcher,
        Role::Simulator,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Role::Ingest => "ingest",
            Role::Console => "console",
            Role::Segmenter => "segmenter",
            Role::Renderer => "renderer",
            Role::ReceiptCollector => "receipt-collector",
            Role::Dispatcher => "dispatcher",
            Role::Simulator => "simulator",
        }
    }
}

/// What the roles of a process share.
#[derive(Clone)]
pub struct Parts {
    pub log: Arc<dyn Log>,
    pub store: Store,
    pub live: Live,
    pub clock: Clock,
    pub phone_key: PhoneKey,
    /// What the console signs its sessions with, the same for all replicas.
    pub session_secret: Vec<u8>,
    pub api: Api,
    pub secrets: Secrets,
    pub health: Health,
}

impl Parts {
    /// Reads what is needed at the start; `live` goes on reading until `shutdown`.
    pub async fn read(
        settings: &Settings,
        store: Store,
        log: Arc<dyn Log>,
        secrets: Secrets,
        health: Health,
        shutdown: CancellationToken,
    ) -> Result<Parts, Failure> {
        let unreadable = |error| Failure::unreachable(format!("the database: {}", chain(&error)));
        let clock = Clock::system();
        // A database that was there a moment ago may be gone now, and back in another.
        let wait = settings.database.wait;
        let live = patiently(wait, StoreError::is_transient, || {
            Live::start(store.clone(), shutdown.clone())
        })
        .await
        .map_err(unreadable)?;
        let (phone_key, session_secret) = patiently(wait, StoreError::is_transient, async || {
            let session_secret = store.installation_secret("console-session").await?;
            Ok((store.phone_key().await?, session_secret))
        })
        .await
        .map_err(unreadable)?;
        let mut api = Api::new(store.clone(), log.clone(), clock.clone());
        api.sample_ratio = trace_sample(settings);
        health.watch(store.clone(), log.clone());
        Ok(Parts {
            log,
            store,
            live,
            clock,
            phone_key,
            session_secret,
            api,
            secrets,
            health,
        })
    }

    /// Starts one role; its listeners were bound before.
    pub fn start(&self, role: Role, settings: &Settings, listeners: &mut Listeners, supervisor: &mut Supervisor) {
        let Parts {
            log,
            store,
            live,
            clock,
            phone_key,
            session_secret,
            api,
            secrets,
            health,
        } = self.clone();
        let runner = settings.stage;
        match role {
            Role::Ingest => {
                if let Some(listener) = listeners.grpc.take() {
                    let config = ingest::Config { listener, api };
                    supervisor.start(role.name(), |shutdown| ingest::run(config, shutdown));
                }
            }
            Role::Console => {
                if let Some(listener) = listeners.console.take() {
                    let http = ingest::http::router(api.clone()).merge(health.probes());
                    let config = console::Config {
                        listener,
                        api,
                        http,
                        session_secret,
                    };
                    supervisor.start(role.name(), |shutdown| console::run(config, shutdown));
                }
            }
            Role::Segmenter => {
                let config = segmenter::Config {
                    log,
                    store,
                    live,
                    clock,
                    phone_key,
                    trace_sample: trace_sample(settings),
                    runner,
                };
                supervisor.start(role.name(), |shutdown| segmenter::run(config, shutdown));
            }
            Role::Renderer => {
                let config = renderer::Config {
                    log,
                    store,
                    live,
                    clock,
                    phone_key,
                    runner,
                };
                supervisor.start(role.name(), |shutdown| renderer::run(config, shutdown));
            }
            Role::ReceiptCollector => {
                if let Some(listener) = listeners.callbacks.take() {
                    let config = receipt_collector::Config {
                        log,
                        store,
                        live,
                        clock,
                        phone_key,
                        runner,
                        listener,
                        secrets,
                        trusted_proxies: settings.trusted_proxies.clone(),
                    };
                    supervisor.start(role.name(), |shutdown| receipt_collector::run(config, shutdown));
                }
            }
            Role::Dispatcher => {
                let config = dispatcher::Config {
                    log,
                    store,
                    live,
                    clock,
                    phone_key,
                    instance: Uuid::from_bytes(rand::random()),
                    secrets,
                    limits: settings.dispatcher.limits,
                    batch_records: settings.dispatcher.batch_records,
                    drain: settings.drain,
                };
                supervisor.start(role.name(), |shutdown| dispatcher::run(config, shutdown));
            }
            // It needs none of the parts: see `simulator`.
            Role::Simulator => {}
        }
    }
}

/// Starts the gateway simulator, which knows nothing of the rest.
pub fn simulator(settings: &Settings, listeners: &mut Listeners, supervisor: &mut Supervisor) {
    if let (Some(http), Some(smpp)) = (listeners.simulator_http.take(), listeners.simulator_smpp.take()) {
        let config = simulator::Config {
            http,
            smpp,
            script: settings.simulator.clone(),
        };
        supervisor.start(Role::Simulator.name(), |shutdown| simulator::run(config, shutdown));
    }
}

/// The share of traces that begin here which are sampled; where nothing is exported nobody would see them.
fn trace_sample(settings: &Settings) -> f64 {
    match settings.telemetry.otlp_endpoint {
        Some(_) => settings.telemetry.sample,
        None => 0.0,
    }
}
