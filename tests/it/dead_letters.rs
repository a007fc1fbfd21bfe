//! Dead letters: listed, and put back once.

use api::{
    Role,
    dead_letters::{Filter, Replayed},
};
use bus::{Log, NewRecord, ReadLimits, StoredRecord};
use events::{DeadLetter, Envelope, Topic};
use jiff::Timestamp;
use uuid::Uuid;

use crate::support::server::{Server, admin, caller};

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
        headers: envelope.to_headers(),
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
