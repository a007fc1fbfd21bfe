//! Logs on standard error, metrics for Prometheus, traces by OTLP where an endpoint is set.

pub mod health;

use opentelemetry::{global, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{exit::Failure, settings::Settings};

/// Ends the export of traces when dropped.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Starts logging and, where an endpoint is set, tracing; `role` names the process. Within a runtime.
pub fn start(settings: &Settings, role: &'static str) -> Result<Telemetry, Failure> {
    // The sender of an incoming trace is joined even where nothing is exported.
    global::set_text_map_propagator(TraceContextPropagator::new());
    let traces = match &settings.telemetry.otlp_endpoint {
        Some(endpoint) => Some(provider(endpoint, settings.telemetry.sample, role)?),
        None => None,
    };
    let filter = || EnvFilter::new(&settings.log.level);
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs = match settings.log.json {
        true => logs.json().with_filter(filter()).boxed(),
        false => logs
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .with_filter(filter())
            .boxed(),
    };
    let exported = traces.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("tamtam"))
            .with_filter(filter())
    });
    tracing_subscriber::registry()
        .with(logs)
        .with(exported)
        .try_init()
        .map_err(Failure::no)?;
    Ok(Telemetry { traces })
}

fn provider(endpoint: &str, sample: f64, role: &'static str) -> Result<SdkTracerProvider, Failure> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| Failure::settings(format!("telemetry.otlp_endpoint: {error}")))?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        // What the sender of an event decided holds; only what starts here is sampled.
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample))))
        .with_resource(
            Resource::builder()
                .with_service_name(match role {
                    "up" => "tamtam".to_owned(),
                    role => format!("tamtam-{role}"),
                })
                .build(),
        )
        .build();
    global::set_tracer_provider(provider.clone());
    Ok(provider)
}

impl Telemetry {
    /// Sends what is still waiting.
    pub async fn stop(mut self) {
        if let Some(provider) = self.traces.take() {
            // It waits for the exporter, which runs on this runtime.
            let stopped = tokio::task::spawn_blocking(move || provider.shutdown()).await;
            if let Ok(Err(error)) = stopped {
                tracing::warn!(%error, "some traces were not exported");
            }
        }
    }
}
