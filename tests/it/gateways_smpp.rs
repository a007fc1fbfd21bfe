//! What is SMPP's own, against a server that the test plays PDU by PDU, and against the simulator behind TLS.

use std::{sync::Arc, time::Duration};

use gateways::Outcome;
use simulator::Script;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use crate::{
    gateways::{accepted, message, open, up},
    support::simulator::{Simulator, eventually},
};

const BIND_TRANSMITTER: u32 = 2;
const SUBMIT: u32 = 4;
const UNBIND: u32 = 6;
const ENQUIRE_LINK: u32 = 0x15;
const ANSWER: u32 = 0x8000_0000;

/// A gateway of which the test is the other side.
pub struct Server {
    listener: TcpListener,
    pub address: String,
}

pub struct Pdu {
    pub command: u32,
    pub sequence: u32,
}

pub struct Connection(pub TcpStream);

impl Server {
    pub async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Server { listener, address }
    }

    /// The next connection, bound.
    pub async fn bound(&self) -> Connection {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut connection = Connection(stream);
        let bind = connection.read().await.unwrap();
        assert_eq!(bind.command, BIND_TRANSMITTER);
        connection.answer(&bind, 0, b"s\0").await;
        connection
    }
}

impl Connection {
    pub async fn read(&mut self) -> Option<Pdu> {
        let mut header = [0; 16];
        self.0.read_exact(&mut header).await.ok()?;
        let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let mut body = vec![0; word(0) as usize - 16];
        self.0.read_exact(&mut body).await.ok()?;
        Some(Pdu {
            command: word(4),
            sequence: word(12),
        })
    }

    /// The next submission; what asks whether we live is answered on the way.
    pub async fn submission(&mut self) -> Pdu {
        loop {
            let pdu = self.read().await.unwrap();
            match pdu.command {
                SUBMIT => return pdu,
                ENQUIRE_LINK => self.answer(&pdu, 0, b"").await,
                other => panic!("command {other:#x}"),
            }
        }
    }

    pub async fn answer(&mut self, pdu: &Pdu, status: u32, body: &[u8]) {
        let bytes = pdu_bytes(pdu.command | ANSWER, status, pdu.sequence, body);
        self.0.write_all(&bytes).await.unwrap();
    }
}

pub fn pdu_bytes(command: u32, status: u32, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [16 + body.len() as u32, command, status, sequence] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

fn resource(address: &str) -> resources::Gateway {
    resources::Gateway {
        response_timeout: Some("10s".parse().unwrap()),
        ..resources::Gateway::smpp("main", address, "tamtam")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_last_answer_and_unbinds() {
    let server = Server::start().await;
    let gateway = open(&resource(&server.address));
    let mut connection = server.bound().await;
    eventually("up", || async { gateway.is_up().then_some(()) }).await;
    let submitting = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.submit(message(1, "x")).await }
    });
    let submission = connection.submission().await;
    let mut closing = Box::pin(gateway.close());
    assert!(futures::poll!(&mut closing).is_pending(), "it waits for the answer");
    connection.answer(&submission, 0, b"id\0").await;
    accepted(&submitting.await.unwrap());
    let mut commands = Vec::new();
    let parting = async {
        while let Some(pdu) = connection.read().await {
            commands.push(pdu.command);
            connection.answer(&pdu, 0, b"").await;
        }
    };
    tokio::join!(parting, &mut closing);
    assert_eq!(commands, [UNBIND]);
    assert_eq!(gateway.submit(message(2, "x")).await, Outcome::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_pauses_the_bind_and_then_the_part_comes_again() {
    let server = Server::start().await;
    let gateway = open(&resource(&server.address));
    let mut connection = server.bound().await;
    eventually("up", || async { gateway.is_up().then_some(()) }).await;
    let submitting = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.submit(message(1, &"a".repeat(300))).await }
    });
    let (first, second) = (connection.submission().await, connection.submission().await);
    connection.answer(&first, 0, b"one\0").await;
    let throttled = std::time::Instant::now();
    connection.answer(&second, 0x58, b"").await;
    // Its answer to what is asked after that says that it has read of it.
    connection
        .0
        .write_all(&pdu_bytes(ENQUIRE_LINK, 0, 77, b""))
        .await
        .unwrap();
    assert_eq!(connection.read().await.unwrap().command, ENQUIRE_LINK | ANSWER);
    let other = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.submit(message(2, "x")).await }
    });
    // Neither the part nor another message comes before the pause is over.
    for id in [b"two\0", b"xxx\0"] {
        let again = connection.submission().await;
        assert!(
            throttled.elapsed() >= Duration::from_millis(900),
            "{:?}",
            throttled.elapsed()
        );
        connection.answer(&again, 0, id).await;
    }
    assert_eq!(accepted(&submitting.await.unwrap()).len(), 2);
    accepted(&other.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_says_nothing_is_asked_and_left() {
    let server = Server::start().await;
    let gateway = open(&resources::Gateway {
        enquire_link: Some("1s".parse().unwrap()),
        response_timeout: Some("1s".parse().unwrap()),
        ..resource(&server.address)
    });
    let mut connection = server.bound().await;
    eventually("up", || async { gateway.is_up().then_some(()) }).await;
    let asked = connection.read().await.unwrap();
    assert_eq!(asked.command, ENQUIRE_LINK);
    // No answer: it hangs up and comes back.
    assert!(connection.read().await.is_none());
    let _second = server.bound().await;
    eventually("up again", || async { gateway.is_up().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_binds_share_the_work_and_each_has_its_window() {
    let simulator = Simulator::start(Script {
        response_delay_ms: 100,
        ..Script::default()
    })
    .await;
    let gateway = up(&resources::Gateway {
        binds: 4,
        window: 1,
        ..resources::Gateway::smpp("main", &simulator.smpp, "tamtam")
    })
    .await;
    eventually("four binds", || async {
        (simulator.stats().await.binds == 4).then_some(())
    })
    .await;
    let all: Vec<_> = (1..=20)
        .map(|number| {
            let gateway = gateway.clone();
            tokio::spawn(async move { gateway.submit(message(number, "x")).await })
        })
        .collect();
    let begun = std::time::Instant::now();
    for one in all {
        accepted(&one.await.unwrap());
    }
    // Four at a time, each a tenth of a second.
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    gateway.close().await;
    eventually("no binds", || async {
        (simulator.stats().await.binds == 0).then_some(())
    })
    .await;
    simulator.stop().await;
}

/// TLS in front of another address; the certificate (PEM) that clients are to trust.
async fn tls_before(to: String) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["smsc.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (acceptor, to) = (acceptor.clone(), to.clone());
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(near).await else {
                    return;
                };
                let mut far = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, made.cert.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_gateway_proves_who_it_is() {
    let simulator = Simulator::start(Script::default()).await;
    let (address, certificate) = tls_before(simulator.smpp.clone()).await;
    let (_, other) = tls_before(simulator.smpp.clone()).await;
    let tls = |ca: &str, name: &str| resources::Gateway {
        tls: true,
        tls_ca: Some(ca.to_owned()),
        tls_name: Some(name.to_owned()),
        ..resource(&address)
    };
    let gateway = up(&tls(&certificate, "smsc.example")).await;
    accepted(&gateway.submit(message(1, "x")).await);
    // Who has another certificate or another name is not spoken to.
    let strangers = [
        open(&tls(&other, "smsc.example")),
        open(&tls(&certificate, "other.example")),
    ];
    for number in 2..=20 {
        accepted(&gateway.submit(message(number, "x")).await);
        for stranger in &strangers {
            assert!(!stranger.is_up());
            assert_eq!(stranger.submit(message(100, "x")).await, Outcome::Unreachable);
        }
    }
    assert_eq!(simulator.stats().await.binds, 1);
    gateway.close().await;
    simulator.stop().await;
}
