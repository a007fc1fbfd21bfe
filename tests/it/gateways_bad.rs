//! Gateways that answer badly: what they say has a name, what they send is bounded, and the next message goes out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gateways::Outcome;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    gateways::{accepted, message, open},
    gateways_smpp::{Server, pdu_bytes},
    support::simulator::eventually,
};

const SUBMIT_RESP: u32 = 0x8000_0004;

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_answer_over_smpp_leaves_the_outcome_unknown_and_the_next_message_goes_out() {
    let server = Server::start().await;
    let gateway = open(&resources::Gateway {
        response_timeout: Some("1s".parse().unwrap()),
        ..resources::Gateway::smpp("main", &server.address, "tamtam")
    });
    // What is written in place of an answer to submission number `sequence`; whether the bind survives it.
    type Bad = fn(u32) -> Vec<u8>;
    let bad: [(&str, Bad, bool); 7] = [
        ("cut off in the header", |_| vec![0, 0, 0, 0x20, 0x80], false),
        (
            "cut off in the body",
            |sequence| pdu_bytes(SUBMIT_RESP, 0, sequence, b"id\0")[..17].to_vec(),
            false,
        ),
        ("a PDU of 4 GiB", |_| vec![0xFF; 40], false),
        (
            "a PDU of 100 MB",
            |sequence| {
                let mut bytes = pdu_bytes(SUBMIT_RESP, 0, sequence, b"id\0");
                bytes[..4].copy_from_slice(&100_000_000_u32.to_be_bytes());
                bytes
            },
            false,
        ),
        (
            "a PDU shorter than its header",
            |_| vec![0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            false,
        ),
        (
            "an answer to another sequence number",
            |sequence| pdu_bytes(SUBMIT_RESP, 0, sequence.wrapping_add(77), b"id\0"),
            true,
        ),
        (
            "a command that nobody knows",
            |sequence| pdu_bytes(0x7777, 0, sequence, b"??"),
            true,
        ),
    ];
    let mut connection = server.bound().await;
    for (number, (name, bytes, survives)) in bad.into_iter().enumerate() {
        eventually("up", || async { gateway.is_up().then_some(()) }).await;
        let submit = |number: usize| {
            let gateway = gateway.clone();
            tokio::spawn(async move { gateway.submit(message(number as u128, "x")).await })
        };
        let submitting = submit(number * 2 + 1);
        let submission = connection.submission().await;
        connection.0.write_all(&bytes(submission.sequence)).await.unwrap();
        if name.starts_with("cut off") {
            connection.0.shutdown().await.unwrap();
        }
        let outcome = submitting.await.unwrap();
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{name}: {outcome:?}");
        if !survives {
            connection = server.bound().await;
        }
        eventually("up", || async { gateway.is_up().then_some(()) }).await;
        let submitting = submit(number * 2 + 2);
        let submission = loop {
            let pdu = connection.read().await.unwrap();
            // It says that it does not know the command.
            if pdu.command == 4 {
                break pdu;
            }
        };
        connection.answer(&submission, 0, b"id\0").await;
        accepted(&submitting.await.unwrap());
    }
}

/// An HTTP server that answers the first request with what `answer` writes, and every other one well.
async fn http<F>(answer: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let number = requests.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4_096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            if number == 0 {
                tokio::spawn(answer(stream));
            } else if read > 0 {
                let body = br#"{"sid":"SM1","status":"queued"}"#;
                let head = format!(
                    "HTTP/1.1 201 Created\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(body).await;
            }
        }
    });
    address
}

/// The first message's outcome is unknown and known in time, and the second is taken.
async fn endures(name: &str, address: String) {
    let gateway = open(&resources::Gateway {
        response_timeout: Some("2s".parse().unwrap()),
        ..resources::Gateway::http("main", &address, "twilio")
    });
    let outcome = gateway.submit(message(1, "x")).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{name}: {outcome:?}");
    accepted(&gateway.submit(message(2, "x")).await);
}

/// Writes a block until 100 MB are written or the other side has had enough; how much was written.
async fn flood(stream: &mut TcpStream, block: &[u8]) -> usize {
    let mut written = 0;
    while written < 100_000_000 && stream.write_all(block).await.is_ok() {
        written += block.len();
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_or_a_head_without_end_is_not_read_to_its_end() {
    let heads: [(&str, &str); 3] = [
        (
            "a body of 100 MB",
            "HTTP/1.1 201 Created\r\nContent-Length: 100000000\r\n\r\n",
        ),
        (
            "a body in chunks",
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        ("a head", "HTTP/1.1 201 Created\r\n"),
    ];
    for (name, head) in heads {
        let written = Arc::new(AtomicUsize::new(usize::MAX));
        let count = written.clone();
        let address = http(move |mut stream: TcpStream| {
            let count = count.clone();
            async move {
                stream.write_all(head.as_bytes()).await.unwrap();
                let block = match name {
                    "a body in chunks" => format!("10000\r\n{}\r\n", "x".repeat(0x10000)),
                    "a head" => format!("X-{}: y\r\n", "x".repeat(1_000)).repeat(64),
                    _ => " ".repeat(0x10000),
                };
                let written = flood(&mut stream, block.as_bytes()).await;
                count.store(written, Ordering::SeqCst);
            }
        })
        .await;
        endures(name, address).await;
        eventually("it hangs up", || async {
            (written.load(Ordering::SeqCst) != usize::MAX).then_some(())
        })
        .await;
        // What the sockets' buffers hold, and little more.
        let written = written.load(Ordering::SeqCst);
        assert!(written < 16_000_000, "{name}: {written} bytes were taken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_drips_is_given_up_in_time() {
    for (name, head) in [
        (
            "a body that drips",
            "HTTP/1.1 201 Created\r\nContent-Length: 100000\r\n\r\n",
        ),
        ("a head that drips", "HTTP/1.1 201 Created\r\nX-Drip: "),
        ("no answer", ""),
    ] {
        let address = http(move |mut stream: TcpStream| async move {
            let _ = stream.write_all(head.as_bytes()).await;
            let drips = !head.is_empty();
            while drips && stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let mut rest = [0; 16];
            let _ = stream.read(&mut rest).await;
        })
        .await;
        endures(name, address).await;
    }
}
