//! Texts on the whole way, from a file of templates to a phone: as they are typed, with links that are followed, and a STOP
//! that comes while they wait.

use serde_json::{Value, json};

use crate::support::{
    process::{Process, eventually},
    tamtam::{Installation, PATIENCE, contacts},
};

fn resources(smpp: &str, rate: u32, links: &str) -> String {
    format!(
        r#"
[[gateway]]
name = "main"
kind = "smpp"
address = "{smpp}"
system_id = "tamtam"
password = "tamtam"
rate = {rate}
window = 200

[[template]]
name = "typed"
class = "transactional"
sender = "BOUTIQUE"
text = "{{{{ contact.first_name }}}}: 5 < 6 & \"{{{{ custom.word }}}}\" {{ }} 'x' > y {{a|b}}"

[[template]]
name = "offer"
class = "transactional"
sender = "BOUTIQUE"
text = "{{{{ contact.city | default('Ici') }}}}: {{{{ link(\"https://shop.example/offre?c=\" ~ contact.id) }}}}"

[[template]]
name = "sale"
class = "marketing"
sender = "BOUTIQUE"
text = "Soldes, {{{{ contact.first_name }}}}. STOP au 36111"

[[template]]
name = "city"
class = "transactional"
sender = "BOUTIQUE"
text = "Bonjour {{{{ contact.city }}}}"

[policy]
quiet_hours = "off"
default_region = "RE"
short_links = "{links}"
[[policy.price]]
prefix = "+262"
micros = 45000
[[policy.price]]
prefix = "+262"
gateway = "main"
micros = 40000
"#
    )
}

/// A request without a session, as a phone's browser makes it; (status, where it leads).
async fn follow(client: &reqwest::Client, method: reqwest::Method, url: &str, agent: &str) -> (u16, Option<String>) {
    let request = client.request(method, url).header("user-agent", agent);
    let answer = request.send().await.unwrap();
    let location = answer
        .headers()
        .get("location")
        .map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), location)
}

/// The texts that phones show.
async fn shown(client: &reqwest::Client, up: &Process) -> Vec<Value> {
    let url = format!("{}/messages?limit=10000", up.at("simulator_http"));
    let page: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    page["messages"].as_array().unwrap().clone()
}

async fn text_of(client: &reqwest::Client, up: &Process, phone: &str) -> String {
    let begun = std::time::Instant::now();
    loop {
        let found = shown(client, up).await.into_iter().find(|message| {
            message["to"]
                .as_str()
                .is_some_and(|to| to.trim_start_matches('+') == phone)
        });
        if let Some(message) = found {
            return message["text"].as_str().unwrap().to_owned();
        }
        assert!(begun.elapsed() < PATIENCE, "nothing came to {phone}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_arrives_as_it_was_typed_and_its_link_is_counted() {
    let installation = Installation::private().await;
    let up = installation.start(&["up", "--simulator", "--data-dir", "data"]);
    let callbacks = up.at("callbacks").to_owned();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();

    let csv =
        "id,phone,first_name,city\nq,+262692000001,O'Brien & Söhne,\nl,+262692000002,\"<b>{{ x }}</b>\",Saint-Denis\n";
    let csv = installation.file("contacts.csv", csv);
    installation.json(&up, &["contacts", "import", &csv]);

    // What is wrong with a template is told with its line, its column and what was expected.
    let bad = resources(up.at("simulator_smpp"), 500, &callbacks)
        .replace("contact.first_name }}: 5", "contact.frist_name }}: 5");
    let bad = installation.file("bad.toml", &bad);
    let output = installation.command(&up, &["apply", "-f", &bad]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64));
    assert!(
        told.contains("line 15: template `typed`: text")
            && told.contains("line 1, column 12")
            && told.contains("did you mean `first_name`"),
        "{told}"
    );

    let good = installation.file("good.toml", &resources(up.at("simulator_smpp"), 500, &callbacks));
    let applied = installation.json(&up, &["apply", "-f", &good]);
    let notes = |name: &str| {
        let all = applied["resources"].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).unwrap()["notes"].to_string()
    };
    assert!(
        notes("city").contains("contact.city has no default and 1 of 2 contacts lack it"),
        "{}",
        notes("city")
    );
    assert!(notes("typed").contains("usually 1 part (GSM-7)"), "{}", notes("typed"));
    assert_eq!(notes("main"), "null");

    let send = |contact: &str, template: &str, key: &str| {
        let sent = installation.json(
            &up,
            &[
                "message",
                "send",
                "--contact",
                contact,
                "--template",
                template,
                "--idempotency-key",
                key,
                "--value",
                "word=l\"été\" {{ y }}",
            ],
        );
        sent["message_id"].as_str().unwrap().to_owned()
    };
    let typed = send("q", "typed", "k1");
    assert_eq!(
        text_of(&client, &up, "262692000001").await,
        "O'Brien & Söhne: 5 < 6 & \"l\"été\" {{ y }}\" { } 'x' > y {a|b}"
    );
    // The cost is the gateway's own price by then, and the rules that decided are on record.
    let row = eventually("the message to be delivered", PATIENCE, || {
        let shown = installation.json(&up, &["message", "show", &typed]);
        let message = if shown["message"].is_object() {
            shown["message"].clone()
        } else {
            shown
        };
        (message["state"] == "delivered").then_some(message)
    });
    assert_eq!(row["cost_micros"], 40_000, "{row}");
    assert!(
        row["decided_by"]
            .as_str()
            .unwrap()
            .starts_with("policy 1, territories "),
        "{row}"
    );
    // Whoever lacks a value without a default gets nothing.
    let missing = send("q", "city", "k2");
    eventually("the message to be suppressed", PATIENCE, || {
        let shown = installation.json(&up, &["message", "show", &missing]).to_string();
        (shown.contains("suppressed") && shown.contains("missing-value")).then_some(())
    });

    // A link: kept before the text went out, and led to; who says that it is no person is not counted.
    send("l", "offer", "k3");
    let text = text_of(&client, &up, "262692000002").await;
    let link = text.strip_prefix("Saint-Denis: ").unwrap();
    let code = link.strip_prefix(&format!("{callbacks}/l/")).unwrap();
    assert_eq!(code.len(), 11);
    let phone = "Mozilla/5.0 (Linux; Android 14) Mobile Safari/537.36";
    let leads = (302, Some("https://shop.example/offre?c=l".to_owned()));
    for agent in ["WhatsApp/2.23", "Googlebot/2.1", ""] {
        assert_eq!(follow(&client, reqwest::Method::GET, link, agent).await, leads);
    }
    assert_eq!(follow(&client, reqwest::Method::HEAD, link, phone).await, leads);
    for unknown in ["00000000000", "https:%2F%2Fevil.example", "0", "..%2Fhealthz"] {
        let url = format!("{callbacks}/l/{unknown}?url=https://evil.example");
        assert_eq!(
            follow(&client, reqwest::Method::GET, &url, phone).await,
            (404, None),
            "{unknown}"
        );
    }
    let tampered = format!("{link}?url=https://evil.example");
    assert_eq!(follow(&client, reqwest::Method::GET, &tampered, phone).await, leads);
    let count = |within: &str| {
        let asked = format!("did sms.clicked(url = \"https://shop.example/offre\") {within}");
        installation.json(&up, &["audience", "count", &asked])["count"].clone()
    };
    eventually("the click to be in the history", PATIENCE, || {
        (count("within 7 days") == 1).then_some(())
    });
    assert_eq!(
        installation.json(&up, &["audience", "count", "did sms.clicked count = 1 within 7 days"])["count"],
        1
    );
    let clicks = installation.tail(&up, "clicks");
    assert_eq!(clicks.len(), 1, "{clicks:?}");
    assert_eq!(
        (&clicks[0]["type"], &clicks[0]["key"]),
        (&json!("tamtam.click.v1"), &json!("l"))
    );
    assert_eq!(clicks[0]["data"]["code"], code);
    assert!(clicks[0]["data"]["message_id"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_among_ten_thousand_that_wait_stops_its_own() {
    const COUNT: usize = 10_000;
    let mut installation = Installation::private().await;
    // Its status is asked for all the while.
    installation
        .environment
        .insert("TAMTAM__DATABASE__CONNECTIONS".into(), "20".into());
    let up = installation.start(&["up", "--simulator", "--data-dir", "data"]);
    // So slowly that nearly all of them wait when the campaign is paused.
    let slow = installation.file("slow.toml", &resources(up.at("simulator_smpp"), 1, up.at("callbacks")));
    installation.json(&up, &["apply", "-f", &slow]);
    let csv = installation.file("contacts.csv", &contacts(COUNT));
    installation.json(&up, &["contacts", "import", &csv]);
    let created = installation.json(
        &up,
        &[
            "campaign",
            "create",
            "--name",
            "Soldes",
            "--where",
            "region = \"north\"",
            "--template",
            "sale",
        ],
    );
    let campaign = created["id"].as_str().unwrap().to_owned();
    installation.json(&up, &["campaign", "launch", &campaign]);
    eventually("all of them to be planned", PATIENCE, || {
        (installation.json(&up, &["campaign", "status", &campaign])["planned"] == COUNT).then_some(())
    });
    installation.json(&up, &["campaign", "pause", &campaign]);
    let status = installation.json(&up, &["campaign", "status", &campaign]);
    assert_eq!(status["state"], "paused", "{status}");

    // The last of them in the audience's order answers STOP, by way of the gateway.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let reply =
        json!({"system_id": "tamtam", "from": format!("+262692{:06}", COUNT - 1), "to": "BOUTIQUE", "text": "Stop !"});
    let url = format!("{}/inbound", up.at("simulator_http"));
    let answer = client.post(url).json(&reply).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    eventually("the STOP to be taken in", PATIENCE, || {
        let inbound = installation.tail(&up, "inbound");
        inbound
            .iter()
            .any(|record| record["data"]["keyword"] == "stop")
            .then_some(())
    });

    let fast = installation.file(
        "fast.toml",
        &resources(up.at("simulator_smpp"), 20_000, up.at("callbacks")),
    );
    installation.json(&up, &["apply", "-f", &fast]);
    installation.json(&up, &["campaign", "resume", &campaign]);
    let status = installation.settled(&up, &campaign);
    assert_eq!(
        (&status["planned"], &status["suppressed"], &status["delivered"]),
        (&json!(COUNT), &json!(1), &json!(COUNT - 1)),
        "{status}"
    );
    let receipts = installation.tail(&up, "receipts");
    let suppressed: Vec<&Value> = receipts
        .iter()
        .filter(|record| record["data"]["state"] == "suppressed")
        .collect();
    assert_eq!(suppressed.len(), 1);
    assert_eq!(suppressed[0]["key"], format!("c{}", COUNT - 1));
    // A STOP takes the consent back as well; which of the two is met first depends on where the message waited.
    let reason = &suppressed[0]["data"]["reason"];
    assert!(reason == "stopped" || reason == "no-consent", "{reason}");
}
