//! The two evaluators of the audience language are one: what SQL finds in a real PostgreSQL is what memory says of each
//! contact.

mod dice;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use domain::{
    Contact,
    audience::{Expression, Occurrence, Past, parse, tree::Node},
};
use events::BusinessEvent;
use jiff::Timestamp;
use store::{Store, audience::Named};

use self::dice::{Dice, TYPES};
use crate::support::database::database;

const CONTACTS: usize = 40;
const EXPRESSIONS: usize = 25;

struct People {
    prefix: String,
    people: Vec<(Contact, Vec<BusinessEvent>)>,
}

/// Random people, written to the database and read back.
async fn people(store: &Store, dice: &mut Dice, round: usize) -> People {
    let prefix = format!("r{round}-");
    let now = dice.now();
    let changes: Vec<_> = (0..CONTACTS)
        .map(|number| dice.contact(&format!("{prefix}{number}")))
        .collect();
    let mut events = Vec::new();
    for change in &changes {
        for _ in 0..dice.below(8) {
            events.push(dice.event(&change.id, events.len(), now));
        }
    }
    let ids: Vec<&str> = changes.iter().map(|change| change.id.as_str()).collect();
    let mut tx = store.begin().await.unwrap();
    tx.contacts_upsert(&changes, "test", "test", now).await.unwrap();
    assert!(tx.history_put(&events).await.unwrap().iter().all(|new| *new));
    let mut known = tx.contacts_get(&ids).await.unwrap();
    let mut past = tx.history_for(&ids, &TYPES, None).await.unwrap();
    tx.commit().await.unwrap();
    let people = ids
        .iter()
        .map(|id| (known.remove(*id).unwrap(), past.remove(*id).unwrap_or_default()))
        .collect();
    People { prefix, people }
}

fn holds(expression: &Expression, contact: &Contact, events: &[BusinessEvent], named: &Named, now: Timestamp) -> bool {
    let past: Past<'_> = events
        .iter()
        .map(|event| Occurrence {
            kind: &event.kind,
            source: &event.source,
            id: &event.id,
            time: event.time,
            data: &event.data,
        })
        .collect();
    let audiences = |name: &str| named.get(name).map(Arc::clone);
    let answer = expression.matches(contact, &past, None, &audiences, now);
    assert_eq!(expression.explain(contact, &past, None, &audiences, now).holds, answer);
    answer
}

/// The contacts that SQL finds, in pages, as the walk gives them, and counted.
async fn found(
    store: &Store,
    expression: &Expression,
    prefix: &str,
    named: &Named,
    now: Timestamp,
) -> BTreeSet<String> {
    let here = parse(&format!("id starts with \"{prefix}\" and ({expression})")).unwrap();
    let mut ids = Vec::new();
    let mut walk = store.audience_walk(&here, named, "", 17, now).await.unwrap();
    loop {
        let page = walk.next_page().await.unwrap();
        if page.is_empty() {
            break;
        }
        ids.extend(page.into_iter().map(|(id, _)| id));
    }
    assert_eq!(
        store.audience_count(&here, named, now).await.unwrap(),
        ids.len() as i64,
        "{here}"
    );
    if let Some(middle) = ids.get(ids.len() / 2) {
        let rest = store.audience_page(&here, named, middle, 1_000, now).await.unwrap();
        let rest: Vec<String> = rest.into_iter().map(|contact| contact.id).collect();
        assert_eq!(rest, ids[ids.len() / 2 + 1..], "{here}");
    }
    let count = ids.len();
    let ids: BTreeSet<String> = ids.into_iter().collect();
    assert_eq!(ids.len(), count, "no contact twice: {here}");
    ids
}

/// The smallest part of an expression on which the two disagree about one of these people.
async fn blame(store: &Store, expression: &Expression, people: &People, named: &Named, now: Timestamp) -> String {
    let mut parts = Vec::new();
    expression.root().walk(&mut |node: &Node| parts.push(node.to_string()));
    parts.sort_by_key(String::len);
    for part in parts {
        let part = parse(&part).unwrap();
        let ids = found(store, &part, &people.prefix, named, now).await;
        for (contact, events) in &people.people {
            let memory = holds(&part, contact, events, named, now);
            if memory != ids.contains(&contact.id) {
                let fields = serde_json::Value::Object(contact.to_json());
                return format!("at {now}, memory says {memory} to\n{part}\nof {fields}\nwho did {events:#?}");
            }
        }
    }
    "nothing smaller".to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_and_memory_agree() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let cases = usize::try_from(number("PROPTEST_CASES").unwrap_or(500)).unwrap();
    let seed = number("TAMTAM_TEST_SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
    println!("seed {seed}: run again with TAMTAM_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let store = database().await;
    let named: Named = [
        ("buyers", "did order.placed within 90 days or in audience \"young\""),
        ("young", "age < 30"),
        ("circle", "city is set or in audience \"circle\""),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_owned(), Arc::new(parse(text).unwrap())))
    .collect();
    let (mut none, mut all) = (0, 0);
    for round in 0..cases.div_ceil(EXPRESSIONS) {
        let people = people(&store, &mut dice, round).await;
        for _ in 0..EXPRESSIONS {
            let now = dice.now();
            let text = dice.expression(3);
            let expression = parse(&text).unwrap_or_else(|error| panic!("seed {seed}: {text}\n{error}"));
            assert_eq!(
                parse(&expression.to_string()).as_ref(),
                Ok(&expression),
                "seed {seed}: {text}"
            );
            let memory: BTreeSet<String> = people
                .people
                .iter()
                .filter(|(contact, events)| holds(&expression, contact, events, &named, now))
                .map(|(contact, _)| contact.id.clone())
                .collect();
            if memory != found(&store, &expression, &people.prefix, &named, now).await {
                panic!(
                    "seed {seed}: {}",
                    blame(&store, &expression, &people, &named, now).await
                );
            }
            none += usize::from(memory.is_empty());
            all += usize::from(memory.len() == CONTACTS);
        }
    }
    // Expressions that hold for nobody, or for everybody, prove little.
    assert!(
        none + all < cases * 2 / 3,
        "{none} of {cases} expressions hold for nobody, {all} for everybody"
    );
}
