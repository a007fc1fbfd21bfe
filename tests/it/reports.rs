//! Reports and replies on the whole system: what the ledger says live, what the topics say alone, and what phones got.

use serde_json::{Value, json};

use crate::support::{
    process::{Process, eventually},
    tamtam::{Installation, PATIENCE, contacts, orders, resources},
};

const CONTACTS: usize = 120;
const CONVERTED: usize = 40;

const KEYWORDS: &str = r#"
[[policy.keyword]]
does = "stop"
answer = "stopped"

[[policy.keyword]]
does = "points"
words = ["mes points"]
territory = "RE"
sender = "36105"
answer = "points"

[[template]]
name = "stopped"
class = "transactional"
sender = "36105"
text = "Vous ne recevrez plus de publicité de notre part."

[[template]]
name = "points"
class = "transactional"
sender = "36105"
text = "Vous avez 12 points."

[[template]]
name = "heard"
class = "transactional"
sender = "36105"
text = "Merci de votre message."

[[trigger]]
name = "heard"
on = "sms.replied"
when = 'not event.keyword is set and event.needs_review = false'
template = "heard"
"#;

async fn post(simulator: &Process, from: &str, text: &str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"system_id": "tamtam", "from": from, "to": "36105", "text": text});
    let url = format!("{}/inbound", simulator.at("simulator_http"));
    let answer = client.post(url).json(&body).send().await.unwrap();
    assert!(answer.status().is_success());
}

async fn texts_to(simulator: &Process, phone: &str) -> Vec<String> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/messages?limit=10000", simulator.at("simulator_http"));
    let page: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|message| message["to"] == phone)
        .map(|message| message["text"].as_str().unwrap().to_owned())
        .collect()
}

/// Asks again and again; each question is asynchronous.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    crate::support::simulator::eventually(what, ask).await
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_from_the_topics_equal_the_live_ones_and_replies_are_answered_once() {
    let installation = Installation::private().await;
    let script = installation.file(
        "script.toml",
        "receipt_delay_ms = 50\nreceipt_jitter_ms = 200\nfailed_percent = 10\nexpired_percent = 5\nduplicate_percent = 20\n",
    );
    let up = installation.start(&["up", "--simulator", "--script", &script, "--data-dir", "data"]);
    let toml = format!("{}{KEYWORDS}", resources(up.at("simulator_smpp"), 1_000));
    installation.json(&up, &["apply", "-f", &installation.file("all.toml", &toml)]);
    installation.json(
        &up,
        &[
            "contacts",
            "import",
            &installation.file("contacts.csv", &contacts(CONTACTS)),
        ],
    );
    let create = [
        "campaign",
        "create",
        "--name",
        "sale",
        "--audience",
        "north",
        "--template",
        "sale",
        "--value",
        "article=tout",
        "--control-percent",
        "25",
    ];
    let campaign = installation.json(&up, &create)["id"].as_str().unwrap().to_owned();
    installation.json(&up, &["campaign", "launch", &campaign]);
    let status = installation.settled(&up, &campaign);
    installation.json(
        &up,
        &[
            "events",
            "publish",
            &installation.file("orders.ndjson", &orders(CONVERTED)),
        ],
    );

    // Replies: of one's own word, a long one, STOP three times, a wish that only a person may decide.
    let phone = |number: usize| format!("+262692{number:06}");
    eventually("a message to everybody who is to reply", PATIENCE, || {
        (status["planned"] == CONTACTS).then_some(())
    });
    post(&up, &phone(0), "Mes points !").await;
    post(
        &up,
        &phone(1),
        &"Je voudrais savoir quand ma commande arrive. ".repeat(5),
    )
    .await;
    for _ in 0..3 {
        post(&up, &phone(2), "Stop.").await;
    }
    post(&up, &phone(3), "arrêtez svp").await;
    let inbound = eventually("six replies", PATIENCE, || {
        let records = installation.tail(&up, "inbound");
        (records.len() >= 6).then_some(records)
    });
    let of = |contact: &str| -> Vec<&Value> {
        (inbound.iter().map(|record| &record["data"]))
            .filter(|data| data["contact_id"] == contact)
            .collect()
    };
    assert_eq!(of("c0")[0]["keyword"], "points");
    assert_eq!(
        (of("c1").len(), &of("c1")[0]["parts"]),
        (1, &json!(2)),
        "{:?}",
        of("c1")
    );
    assert!(of("c2").len() == 3 && of("c2").iter().all(|data| data["keyword"] == "stop"));
    let flagged = of("c3")[0];
    assert!(
        flagged["needs_review"] == true && flagged["keyword"].is_null(),
        "{flagged}"
    );
    for (number, text) in [
        (0, "Vous avez 12 points."),
        (1, "Merci de votre message."),
        (2, "Vous ne recevrez plus de publicité de notre part."),
    ] {
        until(text, || async {
            let got = texts_to(&up, &phone(number)).await;
            got.iter().any(|one| one == text).then_some(())
        })
        .await;
    }

    // Everything is settled; then the two agree.
    let arguments = [
        "--by",
        "campaign,trigger,gateway,day",
        "--conversions",
        "order.placed",
        "--within",
        "7",
    ];
    let live = eventually("nothing to be on its way", PATIENCE, || {
        let live = installation.json(&up, &[&["report", "show"], &arguments[..]].concat());
        let rows = live["rows"].as_array().unwrap();
        let sum = |field: &str| rows.iter().map(|row| row[field].as_i64().unwrap()).sum::<i64>();
        let all = CONTACTS + CONVERTED + 3;
        (sum("planned") == all as i64 && sum("pending") == 0 && sum("accepted") == 0 && sum("replies") >= 1)
            .then_some(live)
    });
    let rebuilt = eventually("the figures from the topics to be the live ones", PATIENCE, || {
        let output = installation.command(&up, &[&["report", "rebuild", "--json"], &arguments[..]].concat());
        let rebuilt: Value = serde_json::from_slice(&output.stdout).unwrap();
        let current = installation.json(&up, &[&["report", "show"], &arguments[..]].concat());
        assert!(output.status.success() || current != live, "{rebuilt}\n{current}");
        output.status.success().then_some(rebuilt)
    });
    assert_eq!(rebuilt["rows"], live["rows"]);

    let rows = live["rows"].as_array().unwrap();
    let of_campaign = |field: &str| -> i64 {
        (rows.iter().filter(|row| row["campaign"] == campaign.as_str()))
            .map(|row| row[field].as_i64().unwrap())
            .sum()
    };
    for field in ["planned", "suppressed", "delivered", "failed", "expired", "unknown"] {
        assert_eq!(of_campaign(field), status[field].as_i64().unwrap(), "{field}");
    }
    assert!(of_campaign("failed") > 0 && of_campaign("parts") > 0);
    let failed = rows
        .iter()
        .find_map(|row| row["failed_by"].as_object().filter(|by| !by.is_empty()));
    assert!(failed.unwrap().contains_key("UNDELIV:011"), "{failed:?}");
    let conversions = live["conversions"].as_array().unwrap();
    let found = conversions
        .iter()
        .find(|one| one["campaign"] == campaign.as_str())
        .unwrap();
    let (planned, control) = (&found["planned"], &found["control"]);
    assert_eq!(
        planned["of"].as_i64().unwrap() + control["of"].as_i64().unwrap(),
        CONTACTS as i64
    );
    assert_eq!(
        planned["converted"].as_i64().unwrap() + control["converted"].as_i64().unwrap(),
        CONVERTED as i64
    );
    assert!(control["of"].as_i64().unwrap() > 0);
    let number = |field: &str| found[field].as_f64().unwrap();
    assert!(number("low") < number("difference") && number("difference") < number("high"));

    // The same receipts as a Parquet file, one row a message and state.
    let file = installation.path().join("receipts.parquet");
    let exported = installation.json(
        &up,
        &["receipts", "export", "--since", "1d", "--out", file.to_str().unwrap()],
    );
    let reader =
        parquet::file::serialized_reader::SerializedFileReader::new(std::fs::File::open(&file).unwrap()).unwrap();
    let rows: Vec<parquet::record::Row> = reader.into_iter().map(Result::unwrap).collect();
    assert_eq!(rows.len() as u64, exported["rows"].as_u64().unwrap());
    let mut ids = std::collections::BTreeSet::new();
    let mut delivered = 0;
    for row in &rows {
        let text = |name: &str| {
            let (_, field) = row.get_column_iter().find(|(column, _)| *column == name).unwrap();
            field.to_string()
        };
        assert!(ids.insert(text("id")), "{} twice", text("id"));
        delivered += i64::from(text("state") == "\"delivered\"");
    }
    let all_rows = live["rows"].as_array().unwrap();
    let live_delivered: i64 = all_rows.iter().map(|row| row["delivered"].as_i64().unwrap()).sum();
    assert_eq!(delivered, live_delivered);

    // STOP was confirmed once, whatever was repeated; the flagged one got no answer and was not stopped.
    let confirmed = texts_to(&up, &phone(2)).await;
    assert_eq!(
        confirmed
            .iter()
            .filter(|text| text.contains("plus de publicité"))
            .count(),
        1
    );
    let text = texts_to(&up, &phone(3)).await;
    assert!(!text.iter().any(|text| text.contains("plus de publicité")), "{text:?}");
    // A person reads it and decides, once.
    let listed = installation.json(&up, &["replies", "list"]);
    let replies = listed["replies"].as_array().unwrap();
    assert_eq!(replies.len(), 1, "{listed}");
    assert_eq!(replies[0]["contact_id"], "c3");
    let id = replies[0]["id"].as_str().unwrap();
    installation.json(&up, &["replies", "stop", id]);
    assert_eq!(
        installation.json(&up, &["contacts", "get", "c3"])["marketing_consent"],
        false
    );
    assert!(!installation.command(&up, &["replies", "dismiss", id]).status.success());
    assert_eq!(installation.json(&up, &["replies", "list"])["replies"], json!([]));
    assert_eq!(installation.json(&up, &["audit"])["violations"], 0);
}
