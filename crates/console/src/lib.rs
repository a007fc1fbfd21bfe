//! The console: the pages of whoever manages an online shop. For now its listener serves the HTTP API alone.

use std::net::SocketAddr;

use api::Api;
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the console needs. The listener is bound by the caller.
#[derive(Debug)]
pub struct Config {
    pub listener: TcpListener,
    pub api: Api,
    /// The HTTP API, served beside the pages.
    pub http: Router,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the console's server failed")]
    Server(#[from] std::io::Error),
    #[error("the secret of the sessions cannot be read")]
    Secret(#[source] store::StoreError),
}

/// Serves until `shutdown`.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    axum::serve(config.listener, config.http.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await?;
    Ok(())
}
