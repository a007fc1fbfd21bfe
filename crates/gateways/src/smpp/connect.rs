//! A connection with its bind: TCP, TLS where it is asked for, and the bind PDU's answer.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use resources::gateway::{Bind, SmppVersion};
use rusmpp::{
    Command, CommandStatus, Pdu,
    pdus::{BindReceiver, BindTransceiver, BindTransmitter},
    tokio_codec::CommandCodec,
    types::COctetString,
    values::InterfaceVersion,
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::codec::Encoder as _;

use super::{
    status,
    wire::{BadLength, Frame, command},
};
use crate::{
    GatewayError,
    tls::{self, Trust},
};

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What we bind as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Transmitter,
    Receiver,
    Transceiver,
}

impl Role {
    pub(crate) fn sending(bind: Bind) -> Role {
        match bind {
            Bind::TransmitterReceiver => Role::Transmitter,
            Bind::Transceiver => Role::Transceiver,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Role::Transmitter => "transmitter",
            Role::Receiver => "receiver",
            Role::Transceiver => "transceiver",
        }
    }

    fn answer(self) -> u32 {
        match self {
            Role::Transmitter => command::BIND_TRANSMITTER_RESP,
            Role::Receiver => command::BIND_RECEIVER_RESP,
            Role::Transceiver => command::BIND_TRANSCEIVER_RESP,
        }
    }
}

/// Where and as whom to connect.
pub(crate) struct Target {
    address: String,
    system_id: COctetString<1, 16>,
    password: COctetString<1, 9>,
    system_type: COctetString<1, 13>,
    version: InterfaceVersion,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// For the whole of connecting and binding.
    limit: Duration,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("the gateway refused the bind with status {0:#010x}")]
    Refused(u32),
    #[error("the gateway answered the bind with command {0:#010x}")]
    Unexpected(u32),
    #[error("the gateway sent {0}")]
    Malformed(#[from] BadLength),
}

impl Target {
    pub(crate) fn new(resource: &resources::Gateway, password: Option<String>) -> Result<Target, GatewayError> {
        let wrong = |key: &'static str, message: &str| GatewayError::Setting {
            gateway: resource.name.clone(),
            key,
            message: message.into(),
        };
        let system_id = resource.system_id.clone().unwrap_or_default();
        let system_type = resource.system_type.clone().unwrap_or_default();
        Ok(Target {
            address: resource.address.clone(),
            system_id: COctetString::from_string(system_id)
                .map_err(|_| wrong("system_id", "expected at most 15 ASCII characters"))?,
            password: COctetString::from_string(password.unwrap_or_default())
                .map_err(|_| wrong("password", "expected at most 8 ASCII characters"))?,
            system_type: COctetString::from_string(system_type)
                .map_err(|_| wrong("system_type", "expected at most 12 ASCII characters"))?,
            version: match resource.version {
                SmppVersion::V34 => InterfaceVersion::Smpp3_4,
                SmppVersion::V50 => InterfaceVersion::Smpp5_0,
            },
            tls: if resource.tls {
                Some(connector(resource, wrong)?)
            } else {
                None
            },
            limit: resource.response_timeout().duration().unsigned_abs(),
        })
    }

    /// Connects and binds. What the gateway sent behind its answer is in the buffer.
    pub(crate) async fn bind(&self, role: Role) -> Result<(Box<dyn Stream>, BytesMut), ConnectError> {
        timeout(self.limit, self.connect(role))
            .await
            .map_err(|_| ConnectError::Slow(self.limit))?
    }

    async fn connect(&self, role: Role) -> Result<(Box<dyn Stream>, BytesMut), ConnectError> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            Some((connector, name)) => Box::new(connector.connect(name.clone(), tcp).await?),
            None => Box::new(tcp),
        };
        let mut out = BytesMut::new();
        let command = Command::new(CommandStatus::EsmeRok, 1, self.bind_pdu(role));
        CommandCodec::new()
            .encode(command, &mut out)
            .map_err(|_| std::io::ErrorKind::InvalidInput)
            .map_err(std::io::Error::from)?;
        stream.write_all(&out).await?;
        stream.flush().await?;
        let mut inbox = BytesMut::with_capacity(16 * 1024);
        loop {
            if let Some(frame) = Frame::take(&mut inbox)? {
                match frame.command() {
                    answer if answer == role.answer() || answer == command::GENERIC_NACK => {
                        return match frame.status() {
                            status::OK if answer == role.answer() => Ok((stream, inbox)),
                            status => Err(ConnectError::Refused(status)),
                        };
                    }
                    other => return Err(ConnectError::Unexpected(other)),
                }
            }
            if stream.read_buf(&mut inbox).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    fn bind_pdu(&self, role: Role) -> Pdu {
        let (system_id, password, system_type) =
            (self.system_id.clone(), self.password.clone(), self.system_type.clone());
        let version = self.version;
        match role {
            Role::Transmitter => BindTransmitter {
                system_id,
                password,
                system_type,
                interface_version: version,
                ..BindTransmitter::default()
            }
            .into(),
            Role::Receiver => BindReceiver {
                system_id,
                password,
                system_type,
                interface_version: version,
                ..BindReceiver::default()
            }
            .into(),
            Role::Transceiver => BindTransceiver {
                system_id,
                password,
                system_type,
                interface_version: version,
                ..BindTransceiver::default()
            }
            .into(),
        }
    }
}

fn connector(
    resource: &resources::Gateway,
    wrong: impl Fn(&'static str, &str) -> GatewayError,
) -> Result<(TlsConnector, ServerName<'static>), GatewayError> {
    let name = match tls::name(resource)? {
        Some(name) => name,
        None => {
            let host = resource.address.rsplit_once(':').map_or("", |(host, _)| host);
            ServerName::try_from(host.to_owned()).map_err(|_| wrong("tls_name", "expected a host name"))?
        }
    };
    let config = tls::config(resource, Trust::Public)?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}
