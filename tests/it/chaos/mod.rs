//! Runs with faults: a campaign and events go through all roles while, as a seed says, roles, the database, the broker and
//! the gateway fail. After each run the ledger, the receipts topic and the gateway's own record must agree: nothing lost,
//! no marketing message twice, what is ambiguous `unknown`, and transactional messages repeated only under their own
//! reference.
//!
//! `make chaos SEED=n RUNS=m MESSAGES=k` runs seeds n to n+m-1 with k messages of a campaign each and as many events as a
//! fifth of that, WORLDS=w in so many worlds beside each other. `TAMTAM_CHAOS_TABLE=FILE` writes the result into a Markdown
//! file, between the marks of the bus.

mod plan;
mod verdict;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use plan::{Fault, Plan};
use store::Store;
use uuid::Uuid;
use verdict::{Count, Start};
use world::World;

use crate::support::{bus, simulator::eventually, tamtam::contacts};

/// A gateway that was down is tried again after a minute at the latest.
const PATIENCE: Duration = Duration::from_secs(120);
/// When the last message is settled, a receipt may still be on its way; so long after, there is nothing to wait for.
const QUIET: Duration = Duration::from_secs(20);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| {
        value.parse().unwrap_or_else(|_| panic!("{name}: expected a number"))
    })
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice_through_faults() {
    let (first, runs) = (setting("TAMTAM_CHAOS_SEED", 1), setting("TAMTAM_CHAOS_RUNS", 2));
    let messages = setting("TAMTAM_CHAOS_MESSAGES", 200);
    let turn = Arc::new(AtomicU64::new(first));
    let table = Arc::new(Mutex::new(Table::default()));
    let failures = Arc::new(Mutex::new(Vec::new()));
    // Most of a run is waiting, so several worlds share a machine well. Each has a thread: much in it blocks.
    let worlds: Vec<_> = (0..setting("TAMTAM_CHAOS_WORLDS", 1).min(runs))
        .map(|_| {
            let (turn, table, failures) = (turn.clone(), table.clone(), failures.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(in_turn(&turn, first + runs, messages, &table, &failures));
            })
        })
        .collect();
    // One that ends early does not end the others: hours may be in what they found.
    let ended: Vec<_> = worlds.into_iter().map(std::thread::JoinHandle::join).collect();
    print!("{}", table.lock().unwrap().text(messages));
    let failures = failures.lock().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    if let Some(panic) = ended.into_iter().find_map(Result::err) {
        std::panic::resume_unwind(panic);
    }
}

/// A world of its own that takes the next seed, again and again, as long as there is one before `end`.
#[expect(clippy::print_stdout, reason = "what a run came to")]
async fn in_turn(turn: &AtomicU64, end: u64, messages: u64, table: &Mutex<Table>, failures: &Mutex<Vec<String>>) {
    let mut world = World::start().await;
    world.apply(plan::Gateways::Both, 100).await;
    let file = world.installation.file("contacts.csv", &contacts(messages as usize));
    assert_eq!(world.ask(&["contacts", "import", &file]).await["created"], messages);
    loop {
        let seed = turn.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let plan = Plan::of(seed, bus::is_kafka());
        println!("seed {seed}: {:?} {:?}", plan.gateways, plan.steps);
        let begun = Instant::now();
        let (count, wrong) = one(&mut world, &plan, messages).await;
        println!("seed {seed}: {count:?} in {:.1} s", begun.elapsed().as_secs_f64());
        {
            let mut table = table.lock().unwrap();
            table.add(&plan, count);
            // After each run: what there is so far holds even if the rest is interrupted.
            if let Ok(path) = std::env::var("TAMTAM_CHAOS_TABLE") {
                table.write(&path, messages);
            }
        }
        if !count.is_good() {
            failures.lock().unwrap().push(format!(
                "seed {seed}: {} lost, {} twice, {} disagree; {plan:?}\n{}",
                count.lost,
                count.twice,
                count.disagree,
                wrong.join("\n")
            ));
        }
        let audit = world.ask(&["audit"]).await;
        if audit["violations"] != 0 {
            failures.lock().unwrap().push(format!("seed {seed}: {audit}"));
        }
    }
}

/// One run: `messages` of a campaign, and events for a fifth of its contacts.
async fn one(world: &mut World, plan: &Plan, messages: u64) -> (Count, Vec<String>) {
    let events = messages / 5;
    let total = messages + events;
    // A run of a few seconds, so that there is a middle.
    world.apply(plan.gateways, (total / 4).clamp(50, 1_200) as u32).await;
    let start = Start::now(world).await;
    let before = world.taken().await;
    let prefix = format!("seed{}-", plan.seed);
    let mut steps = plan.steps.iter().map(|step| (step.at, step.fault)).peekable();

    let down = steps.next_if(|(_, fault)| matches!(fault, Fault::GatewayDownAtLaunch { .. }));
    if down.is_some() {
        world.gateways_close();
    }
    publish(world, &prefix, 0..events / 2).await;
    let create = [
        "campaign",
        "create",
        "--name",
        &prefix,
        "--audience",
        "north",
        "--template",
        "sale",
        "--value",
        "article=tout",
    ];
    let campaign = world.ask(&create).await["id"].as_str().unwrap().to_owned();
    world.ask(&["campaign", "launch", &campaign]).await;
    if let Some((_, fault)) = down {
        world.commit(fault).await;
    }
    let id: Uuid = campaign.parse().unwrap();
    let asked = messages + events / 2;
    for (at, fault) in steps {
        let due = before + total * at / 1_000;
        eventually("the next fault's turn", || async {
            if world.taken().await >= due {
                return Some(());
            }
            // Where a gateway cuts its connection again and again, much is unknown and never gets there.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let store = world.store().await;
            (verdict::settled(&store, id, &prefix).await >= asked).then_some(())
        })
        .await;
        world.commit(fault).await;
    }
    publish(world, &prefix, events / 2..events).await;

    let store = world.store().await;
    all_settled(&store, id, &prefix, total).await;
    world.mend().await;
    let quiet = Instant::now() + QUIET;
    loop {
        let rows = verdict::ledger(&store, id, &prefix).await;
        let verdict = verdict::count(world, &start, &rows, total).await;
        if verdict.0.is_good() || Instant::now() > quiet {
            return verdict;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits for the run's last message, for as long as any moves.
async fn all_settled(store: &Store, campaign: Uuid, events: &str, total: u64) {
    let (mut moved, mut most) = (Instant::now(), 0);
    loop {
        let settled = verdict::settled(store, campaign, events).await;
        if settled >= total {
            return;
        }
        if settled > most {
            (moved, most) = (Instant::now(), settled);
        }
        assert!(
            moved.elapsed() < PATIENCE,
            "{most} of {total} messages are settled and none moves: {:?}",
            verdict::states(store, campaign, events).await
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn publish(world: &World, prefix: &str, numbers: std::ops::Range<u64>) {
    let lines: String = numbers
        .clone()
        .map(|number| {
            format!(
                "{{\"id\":\"{prefix}{number}\",\"source\":\"shop\",\"type\":\"order.placed\",\"contact_id\":\"c{number}\",\"data\":{{\"amount\":12.5}}}}\n"
            )
        })
        .collect();
    let file = world.installation.file("events.ndjson", &lines);
    let answer = world.ask(&["events", "publish", &file]).await;
    assert_eq!(answer["accepted"], numbers.end - numbers.start, "{answer}");
}

/// What each fault came to, over all runs in which it happened.
#[derive(Default)]
struct Table {
    faults: BTreeMap<String, (u64, Count)>,
    all: Count,
    seeds: BTreeSet<u64>,
}

impl Table {
    fn add(&mut self, plan: &Plan, count: Count) {
        self.seeds.insert(plan.seed);
        self.all.add(count);
        for step in &plan.steps {
            let (runs, sum) = self.faults.entry(step.fault.name()).or_default();
            *runs += 1;
            sum.add(count);
        }
    }

    fn text(&self, messages: u64) -> String {
        let bus = if bus::is_kafka() { "Apache Kafka" } else { "PostgreSQL" };
        let (first, last) = (self.seeds.first().unwrap_or(&0), self.seeds.last().unwrap_or(&0));
        let mut text = format!(
            "Seeds {first} to {last} on {bus}, {messages} marketing and {} transactional messages each (three faults a run, so a \
             run counts in up to three rows):\n\n\
             | fault | runs | messages | delivered | unknown | transactional repeated | marketing twice | lost |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|\n",
            messages / 5
        );
        let mut row = |name: &str, runs: u64, count: Count| {
            text.push_str(&format!(
                "| {name} | {runs} | {} | {} | {} | {} | {} | {} |\n",
                count.messages, count.delivered, count.unknown, count.repeated, count.twice, count.lost
            ));
        };
        for (name, (runs, count)) in &self.faults {
            row(name, *runs, *count);
        }
        row("**all runs**", self.seeds.len() as u64, self.all);
        text
    }

    /// Between `<!-- chaos BUS -->` and `<!-- end -->`.
    fn write(&self, path: &str, messages: u64) {
        let mark = format!(
            "<!-- chaos {} -->\n",
            if bus::is_kafka() { "kafka" } else { "postgres" }
        );
        let text = std::fs::read_to_string(path).unwrap();
        let begin = text
            .find(&mark)
            .unwrap_or_else(|| panic!("{path}: no mark `{}`", mark.trim()))
            + mark.len();
        let end = begin + text[begin..].find("<!-- end -->").unwrap();
        let new = format!("{}\n{}\n{}", &text[..begin], self.text(messages), &text[end..]);
        std::fs::write(path, new).unwrap();
    }
}
