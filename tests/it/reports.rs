//! Reports and replies on the whole system: what the ledger says live, what the topics say alone, and what phones got.

use serde_json::{Value, json};

use crate::support::{
    process::{Process, eventually},
    tamtam::{Installation, PATIENCE, contacts, orders, resources},
};

const CONTACTS: usize = 120;
const CONVERTED: usize = 40;

const KEYWORDS: &str = r#"
[[policy.price]]
prefix = "+262"
micros = 45000

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
name = "offer"
class = "marketing"
sender = "BOUTIQUE"
text = "-20% sur {{ campaign.article }}: {{ link('https://shop.example/offre') }}"

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

/// What phones show: to whom, and the text.
async fn texts(simulator: &Process) -> Vec<(String, String)> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/messages?limit=10000", simulator.at("simulator_http"));
    let page: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    let word = |message: &Value, field: &str| message[field].as_str().unwrap().to_owned();
    let messages = page["messages"].as_array().unwrap().iter();
    messages
        .map(|message| (word(message, "to"), word(message, "text")))
        .collect()
}

async fn texts_to(simulator: &Process, phone: &str) -> Vec<String> {
    let all = texts(simulator).await.into_iter();
    all.filter(|(to, _)| to == phone).map(|(_, text)| text).collect()
}

/// Follows a link as a person does.
async fn follow(link: &str) {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let phone = "Mozilla/5.0 (Linux; Android 14) Mobile Safari/537.36";
    let answer = client.get(link).header("user-agent", phone).send().await.unwrap();
    assert_eq!(answer.status(), 302);
}

/// A column of the report's rows, summed.
fn sum(report: &Value, field: &str) -> i64 {
    let rows = report["rows"].as_array().unwrap().iter();
    rows.map(|row| row[field].as_i64().unwrap()).sum()
}

/// What the ledger says and what the topics say, once the two are equal.
fn equal(installation: &Installation, up: &Process, conversions: &str) -> Value {
    let arguments = [
        "--by",
        "campaign,trigger,gateway,day",
        "--conversions",
        conversions,
        "--within",
        "7",
    ];
    eventually("the figures from the topics to be the live ones", PATIENCE, || {
        let before = installation.json(up, &[&["report", "show"], &arguments[..]].concat());
        let output = installation.command(up, &[&["report", "rebuild", "--json"], &arguments[..]].concat());
        let rebuilt: Value = serde_json::from_slice(&output.stdout).unwrap();
        let after = installation.json(up, &[&["report", "show"], &arguments[..]].concat());
        assert!(output.status.success() || before != after, "{rebuilt}\n{after}");
        (output.status.success() && before == after).then(|| {
            assert_eq!(rebuilt["rows"], after["rows"]);
            after
        })
    })
}

fn phone_of(contact: usize) -> String {
    format!("+262692{contact:06}")
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
    let policy = resources(up.at("simulator_smpp"), 1_000);
    let toml = format!("{policy}short_links = \"{}\"\n{KEYWORDS}", up.at("callbacks"));
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
        "offer",
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

    // Whoever is to reply has got a message that the reply is one to.
    eventually("every order to be thanked for", PATIENCE, || {
        let report = installation.json(&up, &["report", "show", "--by", "trigger"]);
        let rows = report["rows"].as_array().unwrap();
        let thanks = rows.iter().find(|row| row["trigger"] == "thanks")?;
        (thanks["planned"] == CONVERTED && thanks["pending"] == 0).then_some(())
    });
    // Three who ordered nothing look at the offer, one of them twice.
    let offered: Vec<(String, String)> = texts(&up)
        .await
        .into_iter()
        .filter(|(to, text)| to.as_str() >= phone_of(CONVERTED).as_str() && text.contains("/l/"))
        .collect();
    let link = |text: &str| {
        let mut words = text.split_whitespace();
        words.find(|word| word.starts_with("http")).unwrap().to_owned()
    };
    for number in [0, 0, 1, 2] {
        follow(&link(&offered[number].1)).await;
    }

    // Replies: of one's own word, a long one, STOP three times, a wish that only a person may decide.
    let phone = phone_of;
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

    // Everything is settled; then the two agree: six replies, three of which were STOP, and four clicks.
    eventually("nothing to be on its way", PATIENCE, || {
        let live = installation.json(&up, &["report", "show", "--by", "campaign"]);
        let all = (CONTACTS + CONVERTED + 3) as i64;
        let settled = sum(&live, "planned") == all && sum(&live, "pending") == 0 && sum(&live, "accepted") == 0;
        (settled && sum(&live, "replies") == 6 && sum(&live, "clicks") == 4).then_some(())
    });
    let live = equal(&installation, &up, "order.placed");
    assert_eq!(
        (sum(&live, "stops"), sum(&live, "replies"), sum(&live, "clicks")),
        (3, 6, 4)
    );
    // A price a part that a gateway took.
    assert_eq!(sum(&live, "cost_micros"), 45_000 * sum(&live, "parts"));

    let rows = live["rows"].as_array().unwrap();
    let of_campaign = |field: &str| -> i64 {
        (rows.iter().filter(|row| row["campaign"] == campaign.as_str()))
            .map(|row| row[field].as_i64().unwrap())
            .sum()
    };
    for field in ["planned", "suppressed", "delivered", "failed", "expired", "unknown"] {
        assert_eq!(of_campaign(field), status[field].as_i64().unwrap(), "{field}");
    }
    assert!(of_campaign("failed") > 0 && of_campaign("parts") > 0 && of_campaign("cost_micros") > 0);
    assert_eq!(of_campaign("clicks"), 4);
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

    // What people do with a message is an event as any other, and may be what was hoped for.
    for (kind, converted) in [("sms.clicked", 3), ("sms.replied", 4)] {
        let figures = equal(&installation, &up, kind);
        let conversions = figures["conversions"].as_array().unwrap();
        let of = conversions
            .iter()
            .find(|one| one["campaign"] == campaign.as_str())
            .unwrap();
        let count = |group: &str| of[group]["converted"].as_i64().unwrap();
        assert_eq!(count("planned") + count("control"), converted, "{kind}");
    }
    // The figures do not change with whoever is forgotten.
    let number: usize = offered[0].0.trim_start_matches("+262692").parse().unwrap();
    installation.json(&up, &["contacts", "erase", &format!("c{number}")]);
    assert_eq!(equal(&installation, &up, "sms.clicked")["rows"], live["rows"]);

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
