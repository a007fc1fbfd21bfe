//! What came of a run: the ledger, the receipts topic and the gateway's own record, compared message by message.

use std::collections::{BTreeMap, HashMap, HashSet};

use ::bus::ReadLimits;
use domain::{Class, State};
use events::{Receipt, Record, Topic};
use store::Store;
use uuid::Uuid;

use super::world::World;

/// Where the run began in what is kept of all runs.
pub struct Start {
    offsets: BTreeMap<u32, i64>,
    shown: u64,
}

impl Start {
    pub async fn now(world: &World) -> Start {
        let store = world.store().await;
        let log = world.log(&store).await;
        let mut offsets = BTreeMap::new();
        for bounds in log.bounds(Topic::Receipts).await.unwrap() {
            offsets.insert(bounds.partition.number, bounds.end);
        }
        Start {
            offsets,
            shown: world.simulator.stats().await.texts,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub messages: u64,
    pub delivered: u64,
    pub unknown: u64,
    /// Transactional messages that the gateway took more than once, always under the same reference.
    pub repeated: u64,
    /// Neither delivered nor unknown, or delivered although the gateway never took them.
    pub lost: u64,
    /// Marketing messages that the gateway took more than once.
    pub twice: u64,
    /// What the ledger, the receipts and the gateway say differently.
    pub disagree: u64,
}

impl Count {
    pub fn is_good(self) -> bool {
        (self.lost, self.twice, self.disagree) == (0, 0, 0)
    }

    pub fn add(&mut self, other: Count) {
        self.messages += other.messages;
        self.delivered += other.delivered;
        self.unknown += other.unknown;
        self.repeated += other.repeated;
        self.lost += other.lost;
        self.twice += other.twice;
        self.disagree += other.disagree;
    }
}

/// Of the run's messages: how many are in each state (by its code).
pub async fn states(store: &Store, campaign: Uuid, events: &str) -> Vec<(i16, i64)> {
    sqlx::query_as(
        "select state, count(*) from messages
         where campaign_id = $1 or (event_source = 'shop' and starts_with(event_id, $2))
         group by state order by state",
    )
    .bind(campaign)
    .bind(events)
    .fetch_all(store.pool())
    .await
    .unwrap()
}

/// How many of the run's messages go nowhere any more by themselves.
pub async fn settled(store: &Store, campaign: Uuid, events: &str) -> u64 {
    let over = |code: i16| {
        let state = State::from_code(code).unwrap();
        state.is_terminal() || state == State::Unknown
    };
    let states = states(store, campaign, events).await;
    states
        .iter()
        .filter(|(code, _)| over(*code))
        .map(|(_, count)| *count as u64)
        .sum()
}

/// A message as the ledger has it.
pub struct Entry {
    id: Uuid,
    state: State,
    reason: Option<String>,
    class: Class,
}

/// The run's messages in the ledger.
pub async fn ledger(store: &Store, campaign: Uuid, events: &str) -> Vec<Entry> {
    let rows: Vec<(Uuid, i16, Option<String>, i16)> = sqlx::query_as(
        "select message_id, state, reason, class from messages
         where campaign_id = $1 or (event_source = 'shop' and starts_with(event_id, $2))",
    )
    .bind(campaign)
    .bind(events)
    .fetch_all(store.pool())
    .await
    .unwrap();
    rows.into_iter()
        .map(|(id, state, reason, class)| Entry {
            id,
            state: State::from_code(state).unwrap(),
            reason,
            // As migration 0003 says.
            class: [Class::Transactional, Class::Marketing][class as usize],
        })
        .collect()
}

/// Compares; `expected` messages were asked for. With what is wrong, a line each.
pub async fn count(world: &World, start: &Start, rows: &[Entry], expected: u64) -> (Count, Vec<String>) {
    let store = world.store().await;
    let mut taken: HashMap<Uuid, u64> = HashMap::new();
    let mut strangers = 0;
    for shown in world.simulator.messages_after(start.shown).await {
        match shown["reference"].as_str().and_then(|text| text.parse::<Uuid>().ok()) {
            Some(reference) => *taken.entry(reference).or_default() += 1,
            None => strangers += 1,
        }
    }
    let told = receipts(world, &store, start).await;
    let mut count = Count {
        messages: expected,
        // What was asked for and never came to the ledger.
        lost: expected.saturating_sub(rows.len() as u64),
        // What came though nobody asked, or without a name.
        disagree: strangers + (rows.len() as u64).saturating_sub(expected),
        ..Count::default()
    };
    let known: HashSet<Uuid> = rows.iter().map(|row| row.id).collect();
    count.disagree += taken.keys().filter(|reference| !known.contains(reference)).count() as u64;
    let mut wrong = Vec::new();
    for row in rows {
        let times = taken.get(&row.id).copied().unwrap_or(0);
        match row.state {
            State::Delivered if times > 0 => count.delivered += 1,
            State::Unknown => count.unknown += 1,
            state => {
                wrong.push(format!(
                    "lost: {} is {state} ({:?}), taken {times} times",
                    row.id, row.reason
                ));
                count.lost += 1;
            }
        }
        match (row.class, times) {
            (_, 0 | 1) => {}
            (Class::Transactional, _) => count.repeated += 1,
            (Class::Marketing, _) => count.twice += 1,
        }
        // The last word on the topic is what the ledger says.
        let last = told.get(&row.id).and_then(|states| states.iter().max());
        if last != Some(&row.state) {
            wrong.push(format!(
                "{}: the ledger says {}, the receipts {last:?}",
                row.id, row.state
            ));
            count.disagree += 1;
        }
    }
    let most = world.most_unknown(expected);
    if count.unknown > most {
        wrong.push(format!(
            "{} are unknown, and the faults account for {most}",
            count.unknown
        ));
        count.disagree += count.unknown - most;
    }
    (count, wrong)
}

/// The states that each message was said to have reached since the run began.
async fn receipts(world: &World, store: &Store, start: &Start) -> HashMap<Uuid, HashSet<State>> {
    let log = world.log(store).await;
    let mut told: HashMap<Uuid, HashSet<State>> = HashMap::new();
    for bounds in log.bounds(Topic::Receipts).await.unwrap() {
        let mut from = start
            .offsets
            .get(&bounds.partition.number)
            .copied()
            .unwrap_or(bounds.first);
        while from < bounds.end {
            let limits = ReadLimits {
                records: 1_000,
                bytes: 8 << 20,
                wait: std::time::Duration::from_secs(5),
            };
            let records = log.read(bounds.partition, from, limits).await.unwrap();
            let Some(last) = records.last() else { break };
            from = last.offset + 1;
            for record in &records {
                let receipt = Receipt::from_bytes(Receipt::KIND, &record.value).unwrap();
                told.entry(receipt.message_id).or_default().insert(receipt.state);
            }
        }
    }
    told
}
