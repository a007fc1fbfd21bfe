//! What is SMPP's own, against a server that the test plays PDU by PDU, and against the simulator behind TLS.

use std::time::Duration;

use gateways::Outcome;
use resources::gateway::SmppVersion;
use simulator::Script;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    gateways::{accepted, message, open, up},
    support::{
        simulator::{Simulator, eventually},
        tls::tls_before,
    },
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
    pub body: Vec<u8>,
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
        self.bound_by().await.0
    }

    /// The same, and the PDU that bound it.
    async fn bound_by(&self) -> (Connection, Pdu) {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut connection = Connection(stream);
        let bind = connection.read().await.unwrap();
        assert_eq!(bind.command, BIND_TRANSMITTER);
        connection.answer(&bind, 0, b"s\0").await;
        (connection, bind)
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
            body,
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
    // Whoever hands over is told, and need not spend its rate on what would only wait here.
    assert!(gateway.pause().is_some_and(|pause| pause <= Duration::from_secs(1)));
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
    assert_eq!(gateway.pause(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bind_that_pauses_leaves_the_work_to_the_other() {
    let server = Server::start().await;
    let gateway = open(&resources::Gateway {
        binds: 2,
        ..resource(&server.address)
    });
    let (mut one, mut other) = (server.bound().await, server.bound().await);
    eventually("up", || async { gateway.is_up().then_some(()) }).await;
    let submit = |number: u128| {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.submit(message(number, "x")).await })
    };
    // Both are up as soon as each has had a message.
    let mut number = 0;
    let mut taken = [false, false];
    while taken != [true, true] {
        number += 1;
        let submitting = submit(number);
        let (connection, pdu, index) = tokio::select! {
            pdu = one.submission() => (&mut one, pdu, 0),
            pdu = other.submission() => (&mut other, pdu, 1),
        };
        connection.answer(&pdu, 0, b"id\0").await;
        accepted(&submitting.await.unwrap());
        taken[index] = true;
    }
    let throttled = submit(number + 1);
    let (mut pauses, mut works) = tokio::select! {
        pdu = one.submission() => { one.answer(&pdu, 0x58, b"").await; (one, other) }
        pdu = other.submission() => { other.answer(&pdu, 0x58, b"").await; (other, one) }
    };
    let since = std::time::Instant::now();
    let outcome = throttled.await.unwrap();
    assert!(matches!(outcome, Outcome::Retry { throttled: true, .. }), "{outcome:?}");
    assert_eq!(gateway.pause(), None, "one of them takes more");
    for more in 2..8 {
        let submitting = submit(number + more);
        let (connection, pdu) = tokio::select! {
            pdu = works.submission() => (&mut works, pdu),
            pdu = pauses.submission() => {
                // On a machine that is busy the pause may be over by now.
                assert!(since.elapsed() >= Duration::from_millis(900), "{:?}", since.elapsed());
                (&mut pauses, pdu)
            }
        };
        connection.answer(&pdu, 0, b"id\0").await;
        accepted(&submitting.await.unwrap());
    }
}

/// What a `submit_sm` says, field by field.
#[derive(Debug, PartialEq)]
struct Fields {
    service_type: String,
    source: (u8, u8, String),
    dest: (u8, u8, String),
    validity: String,
    data_coding: u8,
    text: Vec<u8>,
    tlvs: Vec<u8>,
}

fn c_string(bytes: &mut &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap();
    let text = String::from_utf8(bytes[..end].to_vec()).unwrap();
    *bytes = &bytes[end + 1..];
    text
}

fn octet(bytes: &mut &[u8]) -> u8 {
    let first = bytes[0];
    *bytes = &bytes[1..];
    first
}

fn fields(pdu: &Pdu) -> Fields {
    let mut body = pdu.body.as_slice();
    let bytes = &mut body;
    let service_type = c_string(bytes);
    let source = (octet(bytes), octet(bytes), c_string(bytes));
    let dest = (octet(bytes), octet(bytes), c_string(bytes));
    // esm_class, protocol_id, priority_flag, schedule_delivery_time.
    let _ = (octet(bytes), octet(bytes), octet(bytes), c_string(bytes));
    let validity = c_string(bytes);
    // registered_delivery, replace_if_present_flag.
    let _ = (octet(bytes), octet(bytes));
    let data_coding = octet(bytes);
    let _ = octet(bytes);
    let length = usize::from(octet(bytes));
    let (text, tlvs) = bytes.split_at(length);
    Fields {
        service_type,
        source,
        dest,
        validity,
        data_coding,
        text: text.to_vec(),
        tlvs: tlvs.to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_resource_says_is_on_the_wire() {
    let server = Server::start().await;
    let gateway = open(&resources::Gateway {
        version: SmppVersion::V50,
        system_type: Some("BULK".into()),
        service_type: Some("CMT".into()),
        source_ton: Some(2),
        source_npi: Some(8),
        dest_ton: Some(0),
        dest_npi: Some(9),
        gsm_coding: Some(0xF1),
        ucs2_coding: Some(0x18),
        reference_tlv: 0,
        tlvs: std::collections::BTreeMap::from([("0x1400".into(), "shop".into())]),
        ..resource(&server.address)
    });
    let (mut connection, bind) = server.bound_by().await;
    let mut body = bind.body.as_slice();
    assert_eq!(c_string(&mut body), "tamtam");
    assert_eq!(c_string(&mut body), "secret");
    assert_eq!(c_string(&mut body), "BULK");
    assert_eq!(octet(&mut body), 0x50, "the version");
    eventually("up", || async { gateway.is_up().then_some(()) }).await;

    let mut sent = message(1, "é");
    sent.expires_at = Some(jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3_600));
    let submitting = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.submit(sent).await }
    });
    let pdu = connection.submission().await;
    connection.answer(&pdu, 0, b"id\0").await;
    accepted(&submitting.await.unwrap());
    let read = fields(&pdu);
    assert!(
        read.validity.starts_with("00000000595") || read.validity == "000000010000000R",
        "{}",
        read.validity
    );
    let expected = Fields {
        service_type: "CMT".into(),
        source: (2, 8, "BOUTIQUE".into()),
        dest: (0, 9, "262692100001".into()),
        validity: read.validity.clone(),
        data_coding: 0xF1,
        text: vec![0x05],
        tlvs: b"\x14\x00\x00\x04shop".to_vec(),
    };
    assert_eq!(read, expected);

    let submitting = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.submit(message(2, "ж")).await }
    });
    let pdu = connection.submission().await;
    connection.answer(&pdu, 0, b"id\0").await;
    accepted(&submitting.await.unwrap());
    let read = fields(&pdu);
    assert_eq!((read.data_coding, read.text.as_slice()), (0x18, &[0x04, 0x36][..]));
    assert_eq!(read.validity, "", "it has no deadline");
    gateway.close().await;
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
