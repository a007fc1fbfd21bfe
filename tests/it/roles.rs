//! The real binary: each role as its own process, started by its flags, and `tamtam up` killed, stopped and started again.

use std::time::{Duration, Instant};

use crate::support::{
    fleet::{Fleet, ROLES},
    process::{eventually, run},
    tamtam::{Installation, PATIENCE, contacts, orders, resources, stats},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_role_as_its_own_process_and_messages_go_through() {
    const MESSAGES: usize = 20;
    let mut fleet = Fleet::start(1_000, MESSAGES).await;
    for (role, process) in &fleet.roles {
        let metrics = process.at("metrics");
        let ready = reqwest::get(format!("{metrics}/readyz")).await.unwrap();
        assert_eq!(ready.status(), 200, "{role}");
        let text = reqwest::get(format!("{metrics}/metrics"))
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert!(text.contains("tamtam_build_info"), "{role}: {text}");
        assert!(!process.at("database").contains("password"), "{role}");
    }
    let (installation, console) = (&fleet.installation, fleet.console());
    // Somebody whom nobody has told us of is no mistake of the event's: it is taken, and the message ends by that name.
    let stranger = r#"{"id":"o","source":"shop","type":"order.placed","contact_id":"nobody","data":{"amount":1}}"#;
    let lines = format!("{}{stranger}\n", orders(MESSAGES));
    let published = installation.json(
        console,
        &["events", "publish", &installation.file("events.ndjson", &lines)],
    );
    assert_eq!(
        (&published["accepted"], &published["rejected"]),
        (&(MESSAGES + 1).into(), &0.into())
    );

    let delivered = eventually("all receipts", PATIENCE, || {
        let receipts = installation.tail(console, "receipts");
        let delivered: Vec<_> = receipts
            .into_iter()
            .filter(|record| record["data"]["state"] == "delivered")
            .collect();
        (delivered.len() >= MESSAGES).then_some(delivered)
    });
    assert_eq!(delivered.len(), MESSAGES, "a state is told once");
    let unknown = eventually("the stranger's receipt", PATIENCE, || {
        let receipts = installation.tail(console, "receipts");
        let mut receipts = receipts.into_iter();
        receipts.find(|record| record["data"]["contact_id"] == "nobody")
    });
    assert_eq!(
        (&unknown["data"]["state"], &unknown["data"]["reason"]),
        (&"suppressed".into(), &"unknown-contact".into()),
        "{unknown}"
    );
    let stats = stats(&fleet.simulator);
    assert_eq!(
        (&stats["distinct"], &stats["duplicates"]),
        (&MESSAGES.into(), &0.into()),
        "{stats}"
    );
    assert_eq!(fleet.json(&["audit"])["violations"], 0);
    for process in fleet.roles.values_mut() {
        assert!(process.terminate().success(), "{}", process.log_tail());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_is_stopped_in_the_middle_of_a_campaign_and_nothing_becomes_unknown() {
    const MESSAGES: usize = 2_000;
    let mut fleet = Fleet::start(500, MESSAGES).await;
    let id = fleet.launch();
    for (step, role) in ROLES.into_iter().enumerate() {
        fleet.until_taken(MESSAGES * (step * 3 + 1) / 24);
        let process = fleet.roles.get_mut(role).unwrap();
        // Within the time that is promised for a stop, and a little for a busy machine.
        assert!(process.terminate().success(), "{role}: {}", process.log_tail());
        fleet.start_again(role);
    }
    let status = fleet.installation.settled(fleet.console(), &id);
    assert_eq!(
        (&status["planned"], &status["delivered"], &status["unknown"]),
        (&MESSAGES.into(), &MESSAGES.into(), &0.into()),
        "{status}"
    );
    let counted = stats(&fleet.simulator);
    assert_eq!(
        (&counted["distinct"], &counted["duplicates"]),
        (&MESSAGES.into(), &0.into()),
        "{counted}"
    );
    assert_eq!(fleet.json(&["audit"])["violations"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn up_is_stopped_in_the_middle_of_a_campaign_and_nothing_becomes_unknown() {
    const CONTACTS: usize = 1_500;
    let installation = Installation::private().await;
    let simulator = installation.start(&["simulator"]);
    let up = ["up", "--data-dir", "data"];
    let mut first = installation.start(&up);
    let file = installation.file("resources.toml", &resources(simulator.at("simulator_smpp"), 200));
    installation.json(&first, &["apply", "-f", &file]);
    let file = installation.file("contacts.csv", &contacts(CONTACTS));
    installation.json(&first, &["contacts", "import", &file]);
    let id = installation.launch(&first);
    eventually("the first messages", PATIENCE, || {
        (stats(&simulator)["distinct"].as_u64() > Some(100)).then_some(())
    });

    let asked = Instant::now();
    assert!(first.terminate().success(), "{}", first.log_tail());
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    let taken = stats(&simulator)["distinct"].as_u64().unwrap();
    assert!(taken < CONTACTS as u64, "it was over before it was stopped");

    let second = installation.start(&up);
    let status = installation.settled(&second, &id);
    assert_eq!(
        (&status["planned"], &status["delivered"], &status["unknown"]),
        (&CONTACTS.into(), &CONTACTS.into(), &0.into()),
        "{status}"
    );
    let counted = stats(&simulator);
    assert_eq!(
        (&counted["distinct"], &counted["duplicates"]),
        (&CONTACTS.into(), &0.into()),
        "{counted}"
    );
    assert_eq!(installation.json(&second, &["audit"])["violations"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn up_is_killed_and_goes_on_and_stops_in_good_order() {
    const CONTACTS: usize = 1_500;
    let installation = Installation::private().await;
    let simulator = installation.start(&["simulator"]);
    let up = ["up", "--data-dir", "data"];
    let mut first = installation.start(&up);
    let file = installation.file("resources.toml", &resources(simulator.at("simulator_smpp"), 300));
    installation.json(&first, &["apply", "-f", &file]);
    let file = installation.file("contacts.csv", &contacts(CONTACTS));
    installation.json(&first, &["contacts", "import", &file]);
    let id = installation.launch(&first);
    eventually("the first messages", PATIENCE, || {
        (stats(&simulator)["distinct"].as_u64() > Some(100)).then_some(())
    });

    // A second one on the same directory is refused while the first runs; it is not the first's PostgreSQL that it stops.
    let environment: Vec<(&str, &str)> = installation
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let refused = run(
        installation.path(),
        &["up", "--data-dir", "data", "--free-ports"],
        &environment,
    );
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another `tamtam up`"));
    assert!(first.is_running());

    first.kill();
    let mut second = installation.start(&up);
    let status = installation.settled(&second, &id);
    let count = |name: &str| status[name].as_u64().unwrap();
    assert_eq!(count("planned"), CONTACTS as u64, "{status}");
    assert_eq!(
        count("planned"),
        count("delivered") + count("unknown") + count("failed"),
        "{status}"
    );
    let counted = stats(&simulator);
    assert_eq!(counted["duplicates"], 0, "{counted}");
    let distinct = counted["distinct"].as_u64().unwrap();
    assert!(
        distinct >= count("delivered") && distinct <= count("planned"),
        "{counted} {status}"
    );
    assert_eq!(installation.json(&second, &["audit"])["violations"], 0);

    let asked = Instant::now();
    assert!(second.terminate().success(), "{}", second.log_tail());
    assert!(asked.elapsed() < Duration::from_secs(30));
    let pid = installation.path().join("data/postgres/cluster/postmaster.pid");
    assert!(!pid.exists(), "PostgreSQL still runs");

    let third = installation.start(&up);
    assert_eq!(
        installation.json(&third, &["campaign", "status", &id])["delivered"],
        status["delivered"]
    );
}
