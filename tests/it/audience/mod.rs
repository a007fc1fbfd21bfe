//! The two evaluators of the audience language are one: what SQL finds in a real PostgreSQL is what memory says of each
//! contact.

mod dice;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use domain::{
    Contact, State,
    audience::{Expression, Occurrence, Past, parse, tree::Node},
};
use events::BusinessEvent;
use jiff::Timestamp;
use store::{Store, audience::Named};
use uuid::Uuid;

use self::dice::{Dice, TYPES};
use crate::support::database::database;

const CONTACTS: usize = 40;
/// Expressions that are asked about the same people.
const EXPRESSIONS: usize = 100;
/// Databases that are asked at the same time.
const SIDE_BY_SIDE: usize = 2;
/// Before all that is asked.
const EARLY: &str = "2024-01-01T00:00:00Z";

struct Person {
    contact: Contact,
    events: Vec<BusinessEvent>,
    received: Vec<String>,
}

/// Random people in an empty database, written and read back; and events of some who are no contacts.
async fn people(store: &Store, dice: &mut Dice) -> Vec<Person> {
    let clear = "truncate contacts, history, strangers, consent_log, messages";
    sqlx::raw_sql(clear).execute(store.pool()).await.unwrap();
    let now = dice.now();
    let changes: Vec<_> = (0..CONTACTS)
        .map(|number| dice.contact(&format!("c{number}")))
        .collect();
    let ids: Vec<&str> = changes.iter().map(|change| change.id.as_str()).collect();
    let mut events = Vec::new();
    for id in ids.iter().copied().chain(["stranger", "another"]) {
        for _ in 0..dice.below(8) {
            events.push(dice.event(id, events.len(), now));
        }
    }
    let mut tx = store.begin().await.unwrap();
    tx.contacts_upsert(&changes, "test", "test", now).await.unwrap();
    assert!(tx.history_put(&events).await.unwrap().iter().all(|new| *new));
    let (campaigns, states) = (0..CONTACTS * 2)
        .map(|_| (Uuid::from_u128(dice.below(3) as u128), dice.pick(&State::ALL).code()))
        .unzip::<_, _, Vec<_>, Vec<_>>();
    sqlx::query(
        "insert into messages (contact_id, message_id, class, state, campaign_id, template, caused_at, planned_at, changed_at)
         select 'c' || (n % $3), gen_random_uuid(), 1, state, campaign, 't', now(), now(), now()
         from unnest($1::uuid[], $2::smallint[]) with ordinality u (campaign, state, n)",
    )
    .bind(campaigns)
    .bind(states)
    .bind(CONTACTS as i64)
    .execute(tx.connection())
    .await
    .unwrap();
    let mut known = tx.contacts_get(&ids).await.unwrap();
    let mut past = tx.history_for(&ids, &TYPES, None).await.unwrap();
    let mut received = tx.campaigns_received(&ids).await.unwrap();
    tx.commit().await.unwrap();
    ids.iter()
        .map(|id| Person {
            contact: known.remove(*id).unwrap(),
            events: past.remove(*id).unwrap_or_default(),
            received: received.remove(*id).unwrap_or_default(),
        })
        .collect()
}

/// Three campaigns, one of them an occurrence of another.
async fn campaigns(store: &Store) {
    sqlx::query(
        "insert into campaigns (id, parent_id, name, state, expression, template, created_at, created_by)
         select n, p, name, 'finished', 'age > 1', 't', now(), 'test'
         from unnest($1::uuid[], $2::uuid[], $3::text[]) u (n, p, name)",
    )
    .bind([0, 1, 2].map(Uuid::from_u128).to_vec())
    .bind([None, Some(Uuid::from_u128(0)), None].to_vec())
    .bind(
        ["Soldes", "Soldes 2024-02-29", "Rentr\u{e9}e"]
            .map(str::to_owned)
            .to_vec(),
    )
    .execute(store.pool())
    .await
    .unwrap();
}

fn holds(expression: &Expression, person: &Person, named: &Named, now: Timestamp) -> bool {
    let mut past: Past<'_> = person
        .events
        .iter()
        .map(|event| Occurrence {
            kind: &event.kind,
            source: &event.source,
            id: &event.id,
            time: event.time,
            data: &event.data,
        })
        .collect();
    past.received = &person.received;
    let audiences = |name: &str| named.get(name).map(Arc::clone);
    let answer = expression.matches(&person.contact, &past, None, &audiences, now);
    assert_eq!(
        expression.explain(&person.contact, &past, None, &audiences, now).holds,
        answer
    );
    answer
}

/// The contacts that SQL finds, and counts.
async fn found(store: &Store, expression: &Expression, named: &Named, now: Timestamp) -> BTreeSet<String> {
    let page = store.audience_page(expression, named, "", 1_000, now).await.unwrap();
    let ids: Vec<String> = page.into_iter().map(|contact| contact.id).collect();
    let count = store.audience_count(expression, named, now).await.unwrap();
    assert_eq!(count, ids.len() as i64, "{expression}");
    assert!(ids.is_sorted(), "{expression}");
    let once: BTreeSet<String> = ids.iter().cloned().collect();
    assert_eq!(once.len(), ids.len(), "no contact twice: {expression}");
    once
}

/// The same in pages, and as the walk of a campaign gives them.
async fn walked(store: &Store, expression: &Expression, named: &Named, now: Timestamp, ids: &BTreeSet<String>) {
    let ids: Vec<&String> = ids.iter().collect();
    let mut walk = store
        .audience_walk(expression, named, "", "marketing", 17, now)
        .await
        .unwrap();
    let mut met = Vec::new();
    loop {
        let page = walk.next_page().await.unwrap();
        if page.is_empty() {
            break;
        }
        met.extend(page.into_iter().map(|one| one.id));
    }
    assert_eq!(met.iter().collect::<Vec<_>>(), ids, "{expression}");
    if let Some(middle) = ids.get(ids.len() / 2) {
        let rest = store
            .audience_page(expression, named, middle, 1_000, now)
            .await
            .unwrap();
        let rest: Vec<String> = rest.into_iter().map(|contact| contact.id).collect();
        assert_eq!(
            rest.iter().collect::<Vec<_>>(),
            ids[ids.len() / 2 + 1..],
            "{expression}"
        );
    }
}

/// The smallest part of an expression on which the two disagree about one of these people.
async fn blame(store: &Store, expression: &Expression, people: &[Person], named: &Named, now: Timestamp) -> String {
    let mut parts = Vec::new();
    expression.root().walk(&mut |node: &Node| parts.push(node.to_string()));
    parts.sort_by_key(String::len);
    for part in parts {
        let part = parse(&part).unwrap();
        let ids = found(store, &part, named, now).await;
        for person in people {
            let memory = holds(&part, person, named, now);
            if memory != ids.contains(&person.contact.id) {
                let fields = serde_json::Value::Object(person.contact.to_json());
                let (events, received) = (&person.events, &person.received);
                return format!(
                    "at {now}, memory says {memory} to\n{part}\nof {fields}\nwho received {received:?} and did {events:#?}"
                );
            }
        }
    }
    "nothing smaller".to_owned()
}

/// So many cases on a database of its own; how many held for nobody or for everybody.
async fn agree(seed: u64, cases: usize) -> usize {
    let mut dice = Dice(seed);
    let store = database().await;
    campaigns(&store).await;
    let named: Named = [
        ("buyers", "did order.placed within 90 days or in audience \"young\""),
        ("young", "age < 30 or received campaign Soldes"),
        ("circle", "city is set or in audience \"circle\""),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_owned(), Arc::new(parse(text).unwrap())))
    .collect();
    // Whatever the dice say, some properties are asked for that events have.
    for kind in TYPES {
        for property in ["category", "amount", "in"] {
            let asked = parse(&format!("did {kind:?}({property} = \"north\")")).unwrap();
            store
                .audience_count(&asked, &named, EARLY.parse().unwrap())
                .await
                .unwrap();
        }
    }
    let mut same = 0;
    let mut group = Vec::new();
    for case in 0..cases {
        // The second half finds properties of events by their indexes.
        if case == cases / 2 {
            while store.audience_properties_keep(EARLY.parse().unwrap(), 1).await.unwrap() {}
        }
        if case % EXPRESSIONS == 0 {
            group = people(&store, &mut dice).await;
        }
        let now = dice.now();
        let text = dice.expression(3);
        let expression = parse(&text).unwrap_or_else(|error| panic!("seed {seed}: {text}\n{error}"));
        assert_eq!(
            parse(&expression.to_string()).as_ref(),
            Ok(&expression),
            "seed {seed}: {text}"
        );
        let memory: BTreeSet<String> = group
            .iter()
            .filter(|person| holds(&expression, person, &named, now))
            .map(|person| person.contact.id.clone())
            .collect();
        let ids = found(&store, &expression, &named, now).await;
        if memory != ids {
            panic!("seed {seed}: {}", blame(&store, &expression, &group, &named, now).await);
        }
        if case % 10 == 0 {
            walked(&store, &expression, &named, now, &ids).await;
        }
        same += usize::from(memory.is_empty() || memory.len() == CONTACTS);
    }
    let built: i64 = sqlx::query_scalar("select count(*) from audience_properties where built_at is not null")
        .fetch_one(store.pool())
        .await
        .unwrap();
    assert!(built > 0 || cases < 100, "no property found its index");
    same
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_and_memory_agree() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let cases = usize::try_from(number("TAMTAM_TEST_AUDIENCES").unwrap_or(1_000)).unwrap();
    let seed = number("TAMTAM_TEST_SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
    println!("seed {seed}: run again with TAMTAM_TEST_SEED={seed}");
    let share = cases.div_ceil(SIDE_BY_SIDE);
    let asked = (0..SIDE_BY_SIDE as u64).map(|number| tokio::spawn(agree(seed.wrapping_add(number), share)));
    let same: usize = futures::future::try_join_all(asked).await.unwrap().into_iter().sum();
    // Expressions that hold for nobody, or for everybody, prove little.
    assert!(
        same < cases * 2 / 3,
        "{same} of {cases} expressions hold for nobody or for everybody"
    );
}
