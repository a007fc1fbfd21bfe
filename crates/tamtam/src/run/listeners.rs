//! The ports of a process: all bound before anything starts, so that a port in use ends it at once.

use std::{fmt::Write, net::SocketAddr};

use tokio::net::TcpListener;

use super::roles::Role;
use crate::{exit::Failure, settings::Settings};

/// Each is taken by the role that serves it.
#[derive(Debug, Default)]
pub struct Listeners {
    pub console: Option<TcpListener>,
    pub grpc: Option<TcpListener>,
    pub callbacks: Option<TcpListener>,
    pub metrics: Option<TcpListener>,
    pub simulator_http: Option<TcpListener>,
    pub simulator_smpp: Option<TcpListener>,
    pub addresses: Addresses,
}

/// Where they ended up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
    pub console: Option<SocketAddr>,
    pub grpc: Option<SocketAddr>,
    pub callbacks: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    pub simulator_http: Option<SocketAddr>,
    pub simulator_smpp: Option<SocketAddr>,
}

impl Listeners {
    /// Binds what these roles serve, and the metrics.
    pub async fn bind(settings: &Settings, roles: &[Role]) -> Result<Listeners, Failure> {
        let listen = &settings.listen;
        let mut listeners = Listeners::default();
        for role in roles {
            match role {
                Role::Ingest => listeners.grpc = Some(bind("grpc", listen.grpc).await?),
                Role::Console => listeners.console = Some(bind("console", listen.console).await?),
                Role::ReceiptCollector => listeners.callbacks = Some(bind("callbacks", listen.callbacks).await?),
                Role::Simulator => {
                    listeners.simulator_http = Some(bind("simulator_http", listen.simulator_http).await?);
                    listeners.simulator_smpp = Some(bind("simulator_smpp", listen.simulator_smpp).await?);
                }
                Role::Segmenter | Role::Renderer | Role::Dispatcher => {}
            }
        }
        listeners.metrics = Some(bind("metrics", listen.metrics).await?);
        let at = |listener: &Option<TcpListener>| listener.as_ref().and_then(|listener| listener.local_addr().ok());
        listeners.addresses = Addresses {
            console: at(&listeners.console),
            grpc: at(&listeners.grpc),
            callbacks: at(&listeners.callbacks),
            metrics: at(&listeners.metrics),
            simulator_http: at(&listeners.simulator_http),
            simulator_smpp: at(&listeners.simulator_smpp),
        };
        Ok(listeners)
    }
}

async fn bind(name: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::no(format!(
            "`listen.{name}` is `{address}`, which cannot be bound: {error}: expected a free port, for example with --free-ports"
        ))
    })
}

impl Addresses {
    /// The line that says that all is up; part of the public interface.
    pub fn ready_line(&self, bus: Option<&str>, database: Option<&str>) -> String {
        let mut line = String::from("ready");
        let mut put = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = write!(line, " {name}={value}");
            }
        };
        let http = |address: Option<SocketAddr>| address.map(|address| format!("http://{}", reachable(address)));
        put("console", http(self.console));
        put("grpc", http(self.grpc));
        put("callbacks", http(self.callbacks));
        put("metrics", http(self.metrics));
        put("bus", bus.map(str::to_owned));
        put("database", database.map(str::to_owned));
        put("simulator_http", http(self.simulator_http));
        put(
            "simulator_smpp",
            self.simulator_smpp.map(|address| reachable(address).to_string()),
        );
        line
    }
}

/// An address that can be connected to: 0.0.0.0 stands for all of this machine's, loopback included.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_has_its_form() {
        let at = |text: &str| Some(text.parse().unwrap());
        let addresses = Addresses {
            console: at("127.0.0.1:8080"),
            grpc: at("0.0.0.0:50051"),
            callbacks: at("127.0.0.1:8081"),
            metrics: at("[::]:9464"),
            simulator_http: at("127.0.0.1:8088"),
            simulator_smpp: at("127.0.0.1:2775"),
        };
        assert_eq!(
            addresses.ready_line(Some("postgres"), Some("postgres://127.0.0.1:5432/tamtam")),
            "ready console=http://127.0.0.1:8080 grpc=http://127.0.0.1:50051 callbacks=http://127.0.0.1:8081 \
             metrics=http://[::1]:9464 bus=postgres database=postgres://127.0.0.1:5432/tamtam \
             simulator_http=http://127.0.0.1:8088 simulator_smpp=127.0.0.1:2775"
        );
    }
}
