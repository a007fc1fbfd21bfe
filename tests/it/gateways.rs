//! The contract of gateways, on every adapter, against the simulator; and what is SMPP's own.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use domain::{Phone, Reason, State, sms};
use gateways::{Gateway, Heard, Incoming, Outcome, Submission, Undelivered};
use jiff::Timestamp;
use resources::gateway::{Bind, LongText};
use serde_json::{Value, json};
use simulator::{Script, Stats};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::simulator::{Simulator, eventually};

/// One kind of gateway, as a user would configure it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Smpp,
    Transceiver,
    Http(&'static str),
}

const KINDS: [Kind; 6] = [
    Kind::Smpp,
    Kind::Transceiver,
    Kind::Http("twilio"),
    Kind::Http("vonage"),
    Kind::Http("ovh"),
    Kind::Http("kannel"),
];

impl Kind {
    fn resource(self, simulator: &Simulator) -> resources::Gateway {
        match self {
            Kind::Smpp => resources::Gateway::smpp("main", &simulator.smpp, "tamtam"),
            Kind::Transceiver => resources::Gateway {
                bind: Bind::Transceiver,
                ..Kind::Smpp.resource(simulator)
            },
            Kind::Http(profile) => resources::Gateway {
                system_id: Some("account:consumer".into()),
                callback_url: Some("http://127.0.0.1:9/nowhere".into()),
                ..resources::Gateway::http("main", &format!("{}/{profile}/send", simulator.http), profile)
            },
        }
    }
}

pub fn open(resource: &resources::Gateway) -> Arc<dyn Gateway> {
    gateways::open(resource, Some("secret".into()), Arc::new(Timestamp::now), None).unwrap()
}

pub async fn up(resource: &resources::Gateway) -> Arc<dyn Gateway> {
    let gateway = open(resource);
    eventually("the gateway is up", || async { gateway.is_up().then_some(()) }).await;
    gateway
}

pub fn message(number: u128, text: &str) -> Submission {
    let measured = sms::measure(text);
    Submission {
        reference: Uuid::from_u128(number),
        phone: Phone::from_e164(format!("+2626921{:05}", number % 100_000)),
        sender: "BOUTIQUE".into(),
        text: text.into(),
        encoding: measured.encoding,
        parts: measured.parts,
        expires_at: None,
    }
}

#[track_caller]
pub fn accepted(outcome: &Outcome) -> &[String] {
    match outcome {
        Outcome::Accepted { parts } => parts,
        other => panic!("expected Accepted, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_gateway_keeps_the_contract() {
    for kind in KINDS {
        let simulator = Simulator::start(Script::default()).await;
        let gateway = up(&kind.resource(&simulator)).await;
        println!("{kind:?}");

        // Taken: an id for each part it counts, the text as it was written, nothing twice.
        let text = "O'Brien & Söhne <5 € {été}";
        assert_eq!(accepted(&gateway.submit(message(1, text)).await).len(), 1, "{kind:?}");
        let unicode = "Ça vous dirait ? « ж » 😀 \"}]\\";
        assert_eq!(
            accepted(&gateway.submit(message(2, unicode)).await).len(),
            1,
            "{kind:?}"
        );
        let shown = simulator.messages().await;
        assert_eq!(
            shown
                .iter()
                .map(|shown| shown["text"].as_str().unwrap())
                .collect::<Vec<_>>(),
            [text, unicode],
            "{kind:?}"
        );
        assert_eq!(shown[0]["to"], "+262692100001", "{kind:?}");
        assert_eq!(shown[0]["from"], "BOUTIQUE", "{kind:?}");
        assert_eq!(shown[0]["reference"], Uuid::from_u128(1).to_string(), "{kind:?}");

        // Refused for good, and why.
        simulator
            .script(Script {
                refused_percent: 100.0,
                ..Script::default()
            })
            .await;
        match gateway.submit(message(3, "x")).await {
            Outcome::Refused { code, reason } => {
                assert!(!code.is_empty(), "{kind:?}");
                let plain = matches!(kind, Kind::Http("ovh" | "kannel"));
                let expected = if plain {
                    Reason::GatewayRefused
                } else {
                    Reason::Undeliverable
                };
                assert_eq!(reason, expected, "{kind:?}");
            }
            other => panic!("{kind:?}: {other:?}"),
        }
        // Not now.
        simulator
            .script(Script {
                throttled_percent: 100.0,
                ..Script::default()
            })
            .await;
        let outcome = gateway.submit(message(4, "x")).await;
        assert!(
            matches!(outcome, Outcome::Retry { throttled: true, .. }),
            "{kind:?}: {outcome:?}"
        );
        simulator
            .script(Script {
                busy_percent: 100.0,
                ..Script::default()
            })
            .await;
        let outcome = gateway.submit(message(5, "x")).await;
        assert!(matches!(outcome, Outcome::Retry { .. }), "{kind:?}: {outcome:?}");

        // Taken, though it does not say so: the outcome has a name.
        simulator
            .script(Script {
                ambiguous_percent: 100.0,
                ..Script::default()
            })
            .await;
        let outcome = gateway.submit(message(6, "x")).await;
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{kind:?}: {outcome:?}");
        simulator
            .script(Script {
                cut_every: 1,
                ..Script::default()
            })
            .await;
        eventually("up again", || async { gateway.is_up().then_some(()) }).await;
        let outcome = gateway.submit(message(7, "x")).await;
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{kind:?}: {outcome:?}");
        simulator
            .script(Script {
                half_every: 1,
                ..Script::default()
            })
            .await;
        eventually("up again", || async { gateway.is_up().then_some(()) }).await;
        let outcome = gateway.submit(message(11, "x")).await;
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{kind:?}: {outcome:?}");
        simulator
            .script(Script {
                garbage_every: 1,
                ..Script::default()
            })
            .await;
        eventually("up again", || async { gateway.is_up().then_some(()) }).await;
        let outcome = gateway.submit(message(8, "x")).await;
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{kind:?}: {outcome:?}");

        // And it goes on.
        simulator.script(Script::default()).await;
        eventually("up again", || async { gateway.is_up().then_some(()) }).await;
        accepted(&gateway.submit(message(9, "x")).await);
        let stats = simulator.stats().await;
        assert_eq!((stats.distinct, stats.duplicates), (7, 0), "{kind:?}");

        gateway.close().await;
        assert!(!gateway.is_up(), "{kind:?}");
        assert_eq!(gateway.submit(message(10, "x")).await, Outcome::Unreachable, "{kind:?}");
        simulator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_connected_was_not_handed_over() {
    // A port that nobody listens on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let smpp = open(&resources::Gateway::smpp("main", &address, "tamtam"));
    assert!(!smpp.is_up());
    assert_eq!(smpp.submit(message(1, "x")).await, Outcome::Unreachable);
    let http = open(&resources::Gateway::http(
        "main",
        &format!("http://{address}/"),
        "twilio",
    ));
    assert!(http.is_up(), "nobody has tried yet");
    // One failed connection is a hiccup, several in a row are not.
    for number in 1..=3 {
        assert!(http.is_up(), "before attempt {number}");
        assert_eq!(http.submit(message(number, "x")).await, Outcome::Unreachable);
    }
    assert!(!http.is_up());
    smpp.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_in_time_is_unknown() {
    for kind in [Kind::Smpp, Kind::Http("twilio")] {
        let simulator = Simulator::start(Script {
            silent_percent: 100.0,
            ..Script::default()
        })
        .await;
        let resource = resources::Gateway {
            response_timeout: Some("1s".parse().unwrap()),
            ..kind.resource(&simulator)
        };
        let gateway = up(&resource).await;
        let outcome = gateway.submit(message(1, "x")).await;
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{kind:?}: {outcome:?}");
        simulator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_texts_arrive_whole_all_three_ways() {
    let simulator = Simulator::start(Script::default()).await;
    let gsm = "Réduction {50 €} sur tout [jusqu'à dimanche]. ".repeat(12);
    let ucs2 = "Ça vous dirait ? « ж » 😀👨‍👩‍👧‍👦 ".repeat(20);
    let mut expected = Vec::new();
    for (long_text, ids) in [(LongText::Udh, true), (LongText::Sar, true), (LongText::Payload, false)] {
        let gateway = up(&resources::Gateway {
            long_text,
            ..Kind::Smpp.resource(&simulator)
        })
        .await;
        for text in [&gsm, &ucs2] {
            let message = message(expected.len() as u128 + 1, text);
            let parts = usize::from(message.parts);
            assert!(parts > 3);
            let outcome = gateway.submit(message).await;
            assert_eq!(accepted(&outcome).len(), if ids { parts } else { 1 }, "{long_text:?}");
            expected.push(text.clone());
        }
        gateway.close().await;
    }
    let shown: Vec<String> = simulator
        .messages()
        .await
        .iter()
        .map(|shown| shown["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(shown, expected);
    // What the gateway splits by itself counts as what it is.
    let parts: u64 = [&gsm, &ucs2]
        .map(|text| u64::from(sms::measure(text).parts))
        .iter()
        .sum();
    assert_eq!(simulator.stats().await.accepted, parts * 3);
    let gateway = up(&Kind::Http("vonage").resource(&simulator)).await;
    accepted(&gateway.submit(message(100, &gsm)).await);
    let more = u64::from(sms::measure(&gsm).parts);
    assert_eq!(simulator.stats().await.accepted, parts * 3 + more);
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_text_is_completed_and_never_repeated() {
    // Half of all parts are turned away at first: the rest of their messages waits for them on the bind.
    let simulator = Simulator::start(Script {
        busy_percent: 50.0,
        ..Script::default()
    })
    .await;
    let gateway = up(&Kind::Smpp.resource(&simulator)).await;
    let mut taken = 0;
    for number in 1..=10 {
        match gateway.submit(message(number, &"a".repeat(400))).await {
            Outcome::Accepted { parts } => {
                assert_eq!(parts.len(), 3);
                taken += 1;
            }
            // All three were turned away at once.
            Outcome::Retry { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let stats = simulator.stats().await;
    assert_eq!((stats.texts, stats.accepted, stats.duplicates), (taken, taken * 3, 0));
    assert!(stats.busy > 0);
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_is_kept_and_many_go_at_once() {
    let simulator = Simulator::start(Script {
        response_delay_ms: 100,
        ..Script::default()
    })
    .await;
    let gateway = up(&resources::Gateway {
        window: 10,
        ..Kind::Smpp.resource(&simulator)
    })
    .await;
    let begun = std::time::Instant::now();
    let all = (1..=50).map(|number| {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.submit(message(number, "x")).await })
    });
    for outcome in all.collect::<Vec<_>>() {
        accepted(&outcome.await.unwrap());
    }
    // Five windows of ten, each a tenth of a second: not faster, and not one after the other.
    assert!(begun.elapsed() >= Duration::from_millis(480), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_loses_nothing_and_repeats_nothing() {
    let simulator = Simulator::start(Script {
        cut_every: 97,
        response_delay_ms: 2,
        ..Script::default()
    })
    .await;
    let gateway = up(&resources::Gateway {
        window: 20,
        binds: 2,
        ..Kind::Smpp.resource(&simulator)
    })
    .await;
    let (mut taken, mut unknown) = (0, 0);
    let mut left: Vec<u128> = (1..=1_000).collect();
    while !left.is_empty() {
        eventually("up", || async { gateway.is_up().then_some(()) }).await;
        let tried: Vec<_> = left
            .drain(..left.len().min(100))
            .map(|number| {
                let gateway = gateway.clone();
                tokio::spawn(async move { (number, gateway.submit(message(number, "x")).await) })
            })
            .collect();
        for one in tried {
            match one.await.unwrap() {
                (_, Outcome::Accepted { .. }) => taken += 1,
                (_, Outcome::Unknown { .. }) => unknown += 1,
                // Certainly not handed over: the only ones that are tried again.
                (number, Outcome::Unreachable) => left.push(number),
                (number, other) => panic!("{number}: {other:?}"),
            }
        }
    }
    let stats = simulator.stats().await;
    assert_eq!(taken + unknown, 1_000);
    assert_eq!(stats.duplicates, 0);
    // What was taken is known to be; what is unknown may have been.
    assert!(
        stats.distinct >= taken && stats.distinct <= taken + unknown,
        "{stats:?} {taken} {unknown}"
    );
    assert!(unknown > 0 && unknown < 500, "{unknown}");
    simulator.stop().await;
}

/// Keeps what comes, unless it is told not to.
#[derive(Default)]
struct Kept {
    callbacks: Mutex<Vec<events::Callback>>,
    refuse: Mutex<u32>,
}

#[async_trait]
impl Incoming for Kept {
    async fn deliver(&self, callback: events::Callback) -> Result<(), Undelivered> {
        let mut refuse = self.refuse.lock().unwrap();
        if *refuse > 0 {
            *refuse -= 1;
            return Err(Undelivered("not now".into()));
        }
        self.callbacks.lock().unwrap().push(callback);
        Ok(())
    }
}

impl Kept {
    fn heard(&self, resource: &resources::Gateway) -> Vec<Heard> {
        let callbacks = self.callbacks.lock().unwrap();
        callbacks
            .iter()
            .flat_map(|callback| gateways::understand(callback, resource).unwrap())
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_and_replies_are_acknowledged_once_they_are_kept() {
    let simulator = Simulator::start(Script {
        receipt_delay_ms: 0,
        receipt_jitter_ms: 50,
        ..Script::default()
    })
    .await;
    let resource = Kind::Smpp.resource(&simulator);
    let kept = Arc::new(Kept::default());
    // The first three are not kept: the gateway has to bring them again.
    *kept.refuse.lock().unwrap() = 3;
    let stop = CancellationToken::new();
    let receiver = tokio::spawn(gateways::receive(
        resource.clone(),
        None,
        Arc::new(Timestamp::now),
        kept.clone(),
        stop.clone(),
    ));
    let gateway = up(&resource).await;
    let mut ids = Vec::new();
    for number in 1..=20 {
        ids.extend(accepted(&gateway.submit(message(number, "x")).await).to_vec());
    }
    simulator.reply("tamtam", "+262692100001", "36105", "STOP").await;
    let all = eventually("20 receipts and a reply", || async {
        let heard = kept.heard(&resource);
        (heard.len() == 21).then_some(heard)
    })
    .await;
    let mut reported: Vec<String> = all
        .iter()
        .filter_map(|heard| match heard {
            Heard::Receipt { remote_id, .. } => Some(remote_id.clone()),
            Heard::Inbound { from, text, .. } => {
                assert_eq!((from.as_str(), text.as_str()), ("+262692100001", "STOP"));
                None
            }
        })
        .collect();
    reported.sort();
    ids.sort();
    assert_eq!(reported, ids);
    // What is kept is acknowledged a moment later.
    eventually("the acknowledgements", || async {
        let stats: Stats = simulator.stats().await;
        ((stats.receipts, stats.inbound, stats.waiting) == (20, 1, 0)).then_some(())
    })
    .await;
    stop.cancel();
    receiver.await.unwrap();
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_sends_rubbish_loses_its_connection_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let gateway = open(&resources::Gateway::smpp("main", &address, "tamtam"));
    let bound = b"\0\0\0\x11\x80\0\0\x02\0\0\0\0\0\0\0\x01\0";
    let rubbish: [&[u8]; 6] = [
        // A PDU of 4 GiB, one of 0 bytes, one cut off.
        &[0xFF; 64],
        &[0; 64],
        b"\0\0\0\x20\x80\0\0\x04",
        // A command nobody knows, an answer to nothing, an unbind.
        b"\0\0\0\x10\0\0\x77\x77\0\0\0\0\0\0\0\x05\0\0\0\x10\0\0\0\x06\0\0\0\0\0\0\0\x06",
        b"\0\0\0\x12\x80\0\0\x04\0\0\0\0\x7f\0\0\x01x\0\0\0\0\x10\0\0\0\x06\0\0\0\0\0\0\0\x07",
        // HTTP.
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ];
    for bytes in rubbish {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bind = [0; 64];
        assert!(stream.read(&mut bind).await.unwrap() > 16);
        stream.write_all(bound).await.unwrap();
        eventually("bound", || async { gateway.is_up().then_some(()) }).await;
        stream.write_all(bytes).await.unwrap();
        // It hangs up by itself, or when we do.
        let mut rest = Vec::new();
        if bytes.len() == 8 {
            drop(stream);
        } else {
            stream.read_to_end(&mut rest).await.ok();
        }
        eventually("down", || async { (!gateway.is_up()).then_some(()) }).await;
    }
    gateway.close().await;
}

/// What a server was asked, and with which headers.
type Asked = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

/// The gateway that `crates/gateways/README.md` describes, played: it throttles one text and takes every other.
async fn acme(asked: Asked) -> String {
    let router = Router::new().route(
        "/v2/messages",
        post(move |headers: HeaderMap, Json(body): Json<Value>| async move {
            let throttles = body["text"] == "too many";
            asked.lock().unwrap().push((headers, body));
            match throttles {
                true => (StatusCode::BAD_REQUEST, Json(json!({ "error": { "code": "E42" } }))),
                false => (StatusCode::OK, Json(json!({ "data": { "id": "acme-1" } }))),
            }
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_in_the_readme_works_as_it_stands() {
    let asked = Asked::default();
    let address = acme(asked.clone()).await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/gateways/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let example = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(example.contains("https://api.acme.example"));
    let resources = resources::parse_toml(&example.replace("https://api.acme.example", &address)).unwrap();
    let resource: resources::Gateway = serde_json::from_value(resources[0].to_json()).unwrap();
    let gateway = up(&resource).await;

    let text = "Söhne \"50 €\" \\ {été}";
    assert_eq!(accepted(&gateway.submit(message(1, text)).await), ["acme-1"]);
    let outcome = gateway.submit(message(2, "too many")).await;
    assert_eq!(
        outcome,
        Outcome::Retry {
            code: "E42".into(),
            throttled: true
        }
    );
    {
        let asked = asked.lock().unwrap();
        let (headers, body) = &asked[0];
        assert_eq!(headers["authorization"], "Bearer secret");
        assert_eq!(headers["x-account"], "account");
        let reference = Uuid::from_u128(1).to_string();
        assert_eq!(
            *body,
            json!({ "to": "+262692100001", "from": "BOUTIQUE", "text": text, "ref": reference })
        );
    }
    let callback = events::Callback {
        gateway: "acme".into(),
        transport: "http".into(),
        received_at: Timestamp::now(),
        meta: json!({ "method": "POST", "content_type": "application/json", "query": "" })
            .as_object()
            .cloned()
            .unwrap(),
        body: json!({ "message_id": "acme-1", "status": "undeliverable", "error": "E9" })
            .to_string()
            .into_bytes(),
    };
    match gateways::understand(&callback, &resource).unwrap().as_slice() {
        [
            Heard::Receipt {
                remote_id, state, code, ..
            },
        ] => assert_eq!(
            (remote_id.as_str(), *state, code.as_deref()),
            ("acme-1", Some(State::Failed), Some("undeliverable:E9"))
        ),
        other => panic!("{other:?}"),
    }
    gateway.close().await;
}
