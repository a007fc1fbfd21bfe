//! The way in for internal systems: gRPC and HTTP over the operations of `api`.
//!
//! The server carries no state: what is acknowledged is on the bus or in the database, so any number of replicas can
//! stand behind one address, and one that is killed loses only what it had not answered. Its limits: messages of 16 MiB,
//! 256 calls at once on a connection, 512 unary calls at once in all (more are refused with RESOURCE_EXHAUSTED), a ping
//! every 30 s to find dead peers. Stopping lets calls end, and ends streams after what they sent is answered.

pub mod convert;
mod guard;
pub mod http;
mod services;
mod status;

/// The generated types, clients and servers of `proto/tamtam/v1`.
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    missing_docs,
    missing_debug_implementations,
    rustdoc::all,
    reason = "generated code"
)]
pub mod proto {
    tonic::include_proto!("tamtam.v1");

    /// What reflection answers with.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tamtam.v1.bin"));
}

pub use guard::ROLES;

use std::time::Duration;

use api::Api;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

/// One request or response.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
const MAX_CALLS_PER_CONNECTION: u32 = 256;
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long calls may take to end when it stops.
const DRAIN: Duration = Duration::from_secs(20);

/// What the service needs. The listener is bound by the caller.
#[derive(Debug)]
pub struct Config {
    pub listener: TcpListener,
    pub api: Api,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the gRPC server failed")]
    Server(#[from] tonic::transport::Error),
    #[error("the descriptors of the protos cannot be read")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves until `shutdown`.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let Config { listener, api } = config;
    let (health, health_service) = tonic_health::server::health_reporter();
    for name in services::NAMES.into_iter().chain([""]) {
        health
            .set_service_status(name, tonic_health::ServingStatus::Serving)
            .await;
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = services::add(Routes::new(health_service), &api, &shutdown)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let guarded = routes.into_axum_router().layer(axum::middleware::from_fn_with_state(
        guard::Guard::new(api),
        guard::guard,
    ));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
        .concurrency_limit_per_connection(MAX_CALLS_PER_CONNECTION as usize)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_routes(Routes::from(guarded))
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    tokio::select! {
        done = server => done?,
        // A peer that keeps its connection open for ever does not keep the process.
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => {
            tracing::warn!("some gRPC calls did not end in time");
        }
    }
    Ok(())
}
