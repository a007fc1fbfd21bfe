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
    gateways_smpp::{Connection, Pdu, Server, pdu_bytes},
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
        let submission = next_submission(&mut connection).await;
        connection.answer(&submission, 0, b"id\0").await;
        accepted(&submitting.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_drips_single_bytes_is_no_sign_of_life() {
    let server = Server::start().await;
    let gateway = open(&resources::Gateway {
        enquire_link: Some("1s".parse().unwrap()),
        response_timeout: Some("1s".parse().unwrap()),
        ..resources::Gateway::smpp("main", &server.address, "tamtam")
    });
    let mut connection = server.bound().await;
    eventually("up", || async { gateway.is_up().then_some(()) }).await;
    let submitting = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.submit(message(1, "x")).await }
    });
    let submission = connection.submission().await;
    // The answer's length, and then for ever another byte of a body that is announced to be long.
    let mut endless = pdu_bytes(SUBMIT_RESP, 0, submission.sequence, &[b'x'; 60_000]);
    let drips = tokio::spawn(async move {
        for byte in endless.drain(..) {
            if connection.0.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("all of it was read");
    });
    let outcome = submitting.await.unwrap();
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    // It hangs up and comes back, and the next message goes out.
    let mut connection = server.bound().await;
    drips.await.unwrap();
    eventually("up again", || async { gateway.is_up().then_some(()) }).await;
    let submitting = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.submit(message(2, "x")).await }
    });
    let submission = connection.submission().await;
    connection.answer(&submission, 0, b"id\0").await;
    accepted(&submitting.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_pdus_in_a_row_that_belong_to_nothing_reset_the_bind() {
    type Stray = fn(u32) -> Vec<u8>;
    let strays: [(&str, Stray); 2] = [
        ("answers to nothing", |number| {
            pdu_bytes(SUBMIT_RESP, 0, 70_000 + number, b"id\0")
        }),
        ("commands that nobody knows", |number| {
            pdu_bytes(0x7777, 0, number, b"??")
        }),
    ];
    for (name, stray) in strays {
        let server = Server::start().await;
        let gateway = open(&resources::Gateway::smpp("main", &server.address, "tamtam"));
        let mut connection = server.bound().await;
        eventually("up", || async { gateway.is_up().then_some(()) }).await;
        // An answer that belongs to something in between: it goes on.
        let submit = |number: u128| {
            let gateway = gateway.clone();
            tokio::spawn(async move { gateway.submit(message(number, "x")).await })
        };
        for round in 1..=2 {
            let submitting = submit(round);
            let submission = next_submission(&mut connection).await;
            for number in 0..4 {
                connection.0.write_all(&stray(number)).await.unwrap();
            }
            connection.answer(&submission, 0, b"id\0").await;
            accepted(&submitting.await.unwrap());
        }
        let submitting = submit(3);
        next_submission(&mut connection).await;
        for number in 0..5 {
            connection.0.write_all(&stray(number)).await.unwrap();
        }
        let outcome = submitting.await.unwrap();
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{name}: {outcome:?}");
        server.bound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_answers_are_not_astray() {
    let server = Server::start().await;
    let gateway = open(&resources::Gateway {
        response_timeout: Some("1s".parse().unwrap()),
        ..resources::Gateway::smpp("main", &server.address, "tamtam")
    });
    let mut connection = server.bound().await;
    eventually("up", || async { gateway.is_up().then_some(()) }).await;
    let submit = |number: u128| {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.submit(message(number, "x")).await })
    };
    let late: Vec<_> = (1..=8).map(submit).collect();
    let mut submissions = Vec::new();
    for _ in 0..8 {
        submissions.push(connection.submission().await);
    }
    for one in late {
        let outcome = one.await.unwrap();
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    }
    for submission in &submissions {
        connection.answer(submission, 0, b"late\0").await;
    }
    let submitting = submit(9);
    let submission = connection.submission().await;
    connection.answer(&submission, 0, b"id\0").await;
    accepted(&submitting.await.unwrap());
}

/// The next submission; what says that it does not know a command is passed over.
async fn next_submission(connection: &mut Connection) -> Pdu {
    loop {
        let pdu = connection.read().await.unwrap();
        if pdu.command == 4 {
            return pdu;
        }
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
