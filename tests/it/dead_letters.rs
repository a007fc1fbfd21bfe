//! Dead letters: made of what cannot be read, listed, and put back once.

use api::{
    Role,
    dead_letters::{Filter, Replayed},
};
use bus::{Log, NewRecord, ReadLimits, StoredRecord};
use events::{Callback, Click, DeadLetter, Envelope, Inbound, Job, Outbound, Record as _, Topic};
use jiff::Timestamp;
use uuid::Uuid;

use crate::support::{
    fleet::Fleet,
    process,
    server::{Server, admin, caller},
    tamtam::{PATIENCE, orders},
};

fn letter(number: u128, topic: &str, stage: &str) -> DeadLetter {
    let envelope = Envelope {
        id: format!("event-{number}"),
        source: "shop".into(),
        kind: "order.placed".into(),
        time: None,
        subject: Some("42".into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
    };
    DeadLetter {
        id: Uuid::from_u128(number),
        stage: stage.into(),
        topic: topic.into(),
        partition: 0,
        offset: i64::try_from(number).unwrap(),
        reason: "malformed JSON".into(),
        failed_at: Timestamp::from_second(1_800_000_000).unwrap(),
        key: "42".into(),
        headers: envelope.into_headers(),
        value: b"{\"not\": json \xff".to_vec(),
    }
}

async fn append(server: &Server, letters: &[DeadLetter]) {
    let records = letters
        .iter()
        .map(|letter| {
            let id = letter.id.to_string();
            NewRecord::wrap(Topic::DeadLetters, &letter.key, id, letter.failed_at, None, letter)
        })
        .collect();
    server.log.append(records).await.unwrap();
}

async fn all(log: &dyn Log, topic: Topic) -> Vec<StoredRecord> {
    let limits = ReadLimits {
        records: 100,
        bytes: 1 << 20,
        wait: std::time::Duration::from_secs(5),
    };
    let mut records = Vec::new();
    for bounds in log.bounds(topic).await.unwrap() {
        if bounds.first < bounds.end {
            records.extend(log.read(bounds.partition, bounds.first, limits).await.unwrap());
        }
    }
    records
}

#[tokio::test]
async fn a_dead_letter_is_put_back_as_it_was_and_once() {
    let server = Server::start().await;
    let (one, two) = (letter(1, "events", "segmenter"), letter(2, "jobs", "renderer"));
    let nowhere = letter(3, "no-such-topic", "renderer");
    // The first is there twice: its stage crashed after it had appended it.
    append(&server, &[one.clone(), two.clone(), nowhere, one.clone()]).await;

    let every = Filter::default();
    let listed = server
        .api
        .dead_letters_list(&caller(Role::Read), &every, false, 100)
        .await
        .unwrap();
    let ids: Vec<u128> = listed.iter().map(|letter| letter.id.as_u128()).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(listed[0].record_id.as_deref(), Some("event-1"));
    assert!(listed.iter().all(|letter| letter.replayed_at.is_none()));

    let of_renderer = Filter {
        stage: Some("renderer".into()),
        topic: Some("jobs".into()),
        ..Filter::default()
    };
    let done = server.api.dead_letters_replay(&admin(), &of_renderer).await.unwrap();
    assert_eq!((done.replayed, done.already), (1, 0));
    assert!(all(&*server.log, Topic::Events).await.is_empty());

    // Two at once, and again: each is put back once.
    let caller = admin();
    let (a, b) = tokio::join!(
        server.api.dead_letters_replay(&caller, &every),
        server.api.dead_letters_replay(&caller, &every)
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((a.replayed + b.replayed, a.already + b.already), (1, 3));
    let again = server.api.dead_letters_replay(&caller, &every).await.unwrap();
    let expected = Replayed {
        replayed: 0,
        already: 2,
        refused: 1,
        missing: 0,
    };
    assert_eq!(again, expected);

    let put_back = all(&*server.log, Topic::Events).await;
    assert_eq!(put_back.len(), 1);
    assert_eq!(
        (&put_back[0].key, &put_back[0].headers, &put_back[0].value),
        (&one.key, &one.headers, &one.value)
    );
    assert_eq!(all(&*server.log, Topic::Jobs).await.len(), 1);

    let pending = server.api.dead_letters_list(&caller, &every, true, 100).await.unwrap();
    assert_eq!(pending.len(), 1, "the one whose topic is none of ours");
    let unknown = Filter {
        ids: [Uuid::from_u128(99)].into(),
        ..Filter::default()
    };
    assert_eq!(
        server.api.dead_letters_replay(&caller, &unknown).await.unwrap().missing,
        1
    );
}

/// Every topic that a stage reads, the stage, and the type of its records.
const READ: [(Topic, &str, &str); 7] = [
    (Topic::Events, "segmenter", "order.placed"),
    (Topic::Inbound, "segmenter", Inbound::KIND),
    (Topic::Clicks, "segmenter", Click::KIND),
    (Topic::Jobs, "renderer", Job::KIND),
    (Topic::OutboundTransactional, "dispatcher", Outbound::KIND),
    (Topic::OutboundBulk, "dispatcher", Outbound::KIND),
    (Topic::Callbacks, "receipt-collector", Callback::KIND),
];

/// A record of `kind` as somebody else's mistake puts it onto a topic.
fn bad(topic: Topic, kind: &str, value: &[u8]) -> NewRecord {
    let envelope = Envelope {
        id: format!("bad-{topic}-{kind}"),
        source: "elsewhere".into(),
        kind: kind.into(),
        time: None,
        subject: Some("c0".into()),
        traceparent: None,
    };
    NewRecord {
        topic,
        key: "c0".into(),
        headers: envelope.into_headers(),
        value: value.to_vec(),
    }
}

/// On every topic, before the real roles, each a process of its own: malformed JSON, and a record of a version to come.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_on_any_topic_becomes_a_dead_letter_and_its_stage_goes_on() {
    const PEOPLE: usize = 4;
    let fleet = Fleet::start(500, PEOPLE).await;
    let store = fleet.store().await;
    let log = fleet.log(&store).await;
    let records = READ.into_iter().flat_map(|(topic, _, kind)| {
        let future = match topic {
            // An event's own type has no version; what comes back on the topic has.
            Topic::Events => "tamtam.timer.v2".to_owned(),
            _ => kind.replace(".v1", ".v2"),
        };
        [bad(topic, kind, b"{\"not\": json"), bad(topic, &future, b"{}")]
    });
    log.append(records.collect()).await.unwrap();

    // The letters of a topic, the oldest first.
    let listed = |topic: Topic| {
        let listed = fleet.json(&["dead-letters", "list", "--topic", topic.name()]);
        listed["dead_letters"].as_array().unwrap().clone()
    };
    for (topic, stage, _) in READ {
        let letters = process::eventually("two dead letters", PATIENCE, || {
            let letters = listed(topic);
            (letters.len() >= 2).then_some(letters)
        });
        assert_eq!(letters.len(), 2, "{letters:?}");
        for letter in &letters {
            assert_eq!(
                (&letter["stage"], &letter["topic"]),
                (&stage.into(), &topic.name().into())
            );
            let reason = letter["reason"].as_str().unwrap();
            assert!(!reason.is_empty(), "{letter}");
        }
    }

    // Nothing stands still: what is good goes through all of them, transactional and bulk.
    let orders = fleet.installation.file("events.ndjson", &orders(PEOPLE));
    assert_eq!(fleet.json(&["events", "publish", &orders])["accepted"], PEOPLE);
    let campaign = fleet.launch();
    let status = fleet.installation.settled(fleet.console(), &campaign);
    assert_eq!(status["delivered"], PEOPLE, "{status}");
    process::eventually("the confirmations' receipts", PATIENCE, || {
        let receipts = fleet.installation.tail(fleet.console(), "receipts");
        let delivered = receipts
            .iter()
            .filter(|receipt| receipt["data"]["state"] == "delivered");
        (delivered.count() >= 2 * PEOPLE).then_some(())
    });

    // Put back, its stage reads it again: it is as bad as before, at a new place.
    for (topic, ..) in READ {
        let letter = listed(topic).remove(0);
        let id = letter["id"].as_str().unwrap();
        assert_eq!(fleet.json(&["dead-letters", "replay", id])["replayed"], 1);
        let again = process::eventually("the dead letter of what was put back", PATIENCE, || {
            let mut letters = listed(topic);
            (letters.len() >= 3).then(|| letters.pop().unwrap())
        });
        assert_eq!(again["partition"], letter["partition"]);
        assert!(again["offset"].as_i64() > letter["offset"].as_i64(), "{again} {letter}");
        assert_eq!(again["reason"], letter["reason"]);
        let pending = fleet.json(&["dead-letters", "list", "--pending", "--topic", topic.name()]);
        assert_eq!(pending["dead_letters"].as_array().unwrap().len(), 2, "{pending}");
    }
    assert_eq!(fleet.json(&["audit"])["violations"], 0);
}
