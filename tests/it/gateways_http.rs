//! What is HTTP's own, against the simulator behind TLS and against a server that the test plays byte by byte.

use gateways::Outcome;
use simulator::Script;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    gateways::{accepted, message, open, up},
    support::{simulator::Simulator, tls::tls_before},
};

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_gateway_proves_who_it_is() {
    let simulator = Simulator::start(Script::default()).await;
    let (address, certificate) = tls_before(simulator.http.replace("http://", "")).await;
    let (_, other) = tls_before(simulator.smpp.clone()).await;
    let tls = |ca: Option<&str>, name: &str| resources::Gateway {
        tls_ca: ca.map(str::to_owned),
        tls_name: Some(name.to_owned()),
        ..resources::Gateway::http("main", &format!("https://{address}/vonage/send"), "vonage")
    };
    let gateway = up(&tls(Some(&certificate), "smsc.example")).await;
    accepted(&gateway.submit(message(1, "x")).await);
    // Who has another certificate or another name is told nothing, nor who is vouched for by nobody that the machine trusts.
    for stranger in [
        open(&tls(Some(&other), "smsc.example")),
        open(&tls(Some(&certificate), "other.example")),
        open(&tls(None, "smsc.example")),
    ] {
        assert_eq!(stranger.submit(message(2, "x")).await, Outcome::Unreachable);
    }
    assert_eq!(simulator.stats().await.accepted, 1);
    gateway.close().await;
    simulator.stop().await;
}

/// Reads one request and answers it; its body.
async fn answer(stream: &mut TcpStream, id: &str) -> String {
    let mut read = Vec::new();
    let body_at = loop {
        stream.read_buf(&mut read).await.unwrap();
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8(read[..body_at].to_vec()).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    while read.len() < body_at + length {
        stream.read_buf(&mut read).await.unwrap();
    }
    let body = format!(r#"{{"sid":"{id}"}}"#);
    let answer = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(read.split_off(body_at)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again_until_the_gateway_ends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let gateway = up(&resources::Gateway::http("main", &address, "twilio")).await;
    let submit = |number| {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.submit(message(number, "x")).await })
    };
    let first = submit(1);
    let (mut stream, _) = listener.accept().await.unwrap();
    answer(&mut stream, "A").await;
    assert_eq!(accepted(&first.await.unwrap()), ["A"]);
    let second = submit(2);
    answer(&mut stream, "B").await;
    assert_eq!(accepted(&second.await.unwrap()), ["B"]);

    // It ends while nothing is under way. What comes next was not written to it, and goes out on a new one.
    drop(stream);
    settled().await;
    let third = submit(3);
    let (mut stream, _) = listener.accept().await.unwrap();
    let body = answer(&mut stream, "C").await;
    assert!(body.contains("To=%2B262692100003"), "{body}");
    assert_eq!(accepted(&third.await.unwrap()), ["C"]);

    // It ends behind a request: nobody knows what became of it, and it is not sent again.
    let fourth = submit(4);
    let mut some = [0; 16];
    stream.read_exact(&mut some).await.unwrap();
    drop(stream);
    let unknown = Outcome::Unknown {
        code: None,
        parts: Vec::new(),
    };
    assert_eq!(fourth.await.unwrap(), unknown);
    gateway.close().await;
}

/// An exchange over another connection: the runtime has then heard of everything that happened before it.
async fn settled() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut near, _) = listener.accept().await.unwrap();
    for _ in 0..3 {
        near.write_all(b"x").await.unwrap();
        far.read_u8().await.unwrap();
        far.write_all(b"x").await.unwrap();
        near.read_u8().await.unwrap();
    }
}
