//! Consent by purpose with its proof, and the suppression list: through the API, and on the whole way.

use api::Role;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::suppressions::Scope;

use crate::support::{
    process::{Process, eventually},
    server::{Server, answer},
    tamtam::{Installation, PATIENCE, resources},
};

/// (purpose, given, source, wording) of each line, the latest first.
fn lines(said: &Value) -> Vec<(&str, bool, &str, Option<&str>)> {
    let lines = said["consents"].as_array().unwrap();
    lines
        .iter()
        .map(|line| {
            assert!(line["recorded_at"].is_string(), "{line}");
            (
                line["purpose"].as_str().unwrap(),
                line["given"].as_bool().unwrap(),
                line["source"].as_str().unwrap(),
                line["wording"].as_str(),
            )
        })
        .collect()
}

#[tokio::test]
async fn each_purpose_is_kept_with_its_proof() {
    let server = Server::start().await;
    let upsert = async |consents: Value| {
        let batch = json!({"contacts": [{"id": "a", "phone": "+262692000001", "consents": consents}]});
        server.post("/v1/contacts", &batch).await["results"][0].clone()
    };
    let given = json!([{"purpose": "newsletter", "given": true, "at": "2026-01-31T10:00:00Z",
                        "source": "form /inscription", "wording": "J'accepte la lettre."}]);
    assert_eq!(upsert(given.clone()).await["change"], "created");
    assert_eq!(upsert(given).await["change"], "unchanged");
    // The words of a consent that was known before are a proof of their own, once.
    for _ in 0..2 {
        let words = json!([{"purpose": "newsletter", "given": true, "wording": "La lettre, chaque mois."}]);
        assert_eq!(upsert(words).await["change"], "unchanged");
    }
    let changed = json!([{"purpose": "newsletter", "given": false, "source": "shop"},
                         {"purpose": "marketing", "given": true}]);
    assert_eq!(upsert(changed).await["change"], "updated");
    let refused = upsert(json!([{"purpose": "News letter", "given": true}])).await;
    assert_eq!(refused["error"]["field"], "consents", "{refused}");

    let contact = server.get("/v1/contacts/a").await;
    assert_eq!(contact["marketing_consent"], true);
    assert_eq!(contact["consents"], json!([{"purpose": "newsletter", "given": false}]));
    let said = server.get("/v1/contacts/a/consents").await;
    assert_eq!(
        lines(&said),
        [
            ("newsletter", false, "shop", None),
            ("marketing", true, "api", None),
            ("newsletter", true, "api", Some("La lettre, chaque mois.")),
            ("newsletter", true, "form /inscription", Some("J'accepte la lettre.")),
        ]
    );
    assert_eq!(said["consents"][3]["at"], "2026-01-31T10:00:00Z");
    assert_eq!(said["consents"][3]["recorded_by"], "admin");
    let (status, _) = server.send(Method::GET, "/v1/contacts/nobody/consents", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    // With the contact its proofs are gone.
    server.send(Method::DELETE, "/v1/contacts/a", None).await;
    let (status, _) = server.send(Method::GET, "/v1/contacts/a/consents", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_table_brings_consents_with_their_proof() {
    let server = Server::start().await;
    let file = "id;phone;Consents\r\n\
                a;+262692000001;\"[{\"\"purpose\"\": \"\"newsletter\"\", \"\"given\"\": true, \"\"wording\"\": \"\"Oui.\"\"}]\"\r\n\
                b;+262692000002;\r\n\
                c;+262692000003;yes\r\n";
    let import = async || {
        let request = server
            .request(Method::POST, "/v1/contacts/import", Role::Events)
            .header("content-type", "text/csv")
            .body(file);
        answer(request).await.1
    };
    let first = import().await;
    assert_eq!(
        (&first["created"], &first["rejected"]),
        (&json!(2), &json!(1)),
        "{first}"
    );
    assert_eq!(first["errors"][0]["field"], "consents");
    assert_eq!(import().await["unchanged"], 2);
    let said = server.get("/v1/contacts/a/consents").await;
    assert_eq!(lines(&said), [("newsletter", true, "import", Some("Oui."))]);
    assert!(lines(&server.get("/v1/contacts/b/consents").await).is_empty());
}

#[tokio::test]
async fn an_opt_out_takes_back_the_consent_to_every_purpose() {
    let server = Server::start().await;
    let phones = json!({"phones": ["+262692000001"], "source": "old provider"});
    server.post("/v1/suppressions", &phones).await;
    let batch = json!({"contacts": [{"id": "a", "phone": "+262692000001", "consents": [
        {"purpose": "newsletter", "given": true, "wording": "Oui."}, {"purpose": "survey", "given": false}]}]});
    server.post("/v1/contacts", &batch).await;
    let contact = server.get("/v1/contacts/a").await;
    let expected = json!([{"purpose": "newsletter", "given": false}, {"purpose": "survey", "given": false}]);
    assert_eq!(contact["consents"], expected);
    // Words of a consent prove no refusal.
    let said = server.get("/v1/contacts/a/consents").await;
    assert!(lines(&said).iter().all(|line| !line.1 && line.3.is_none()), "{said}");
}

#[tokio::test]
async fn phones_are_suppressed_and_let_go_of_by_hand() {
    let server = Server::start().await;
    let add = json!({"phones": ["+262692000001", "0692 00 00 02", "12", "+262692000001"], "region": "RE",
                     "scope": "all", "source": "old provider"});
    let done = server.post("/v1/suppressions", &add).await;
    assert_eq!(
        (&done["changed"], &done["unchanged"], &done["rejected"]),
        (&json!(2), &json!(0), &json!(1)),
        "{done}"
    );
    assert_eq!(done["errors"][0]["item"], 3);
    let again = server.post("/v1/suppressions", &add).await;
    assert_eq!((&again["changed"], &again["unchanged"]), (&json!(0), &json!(2)));

    // Page by page, as hashes.
    let first = server.get("/v1/suppressions?limit=1").await;
    let after = first["next"].as_str().unwrap();
    let second = server.get(&format!("/v1/suppressions?limit=1&after={after}")).await;
    let line = |page: &Value| page["suppressions"][0].clone();
    assert_ne!(line(&first)["phone_hash"], line(&second)["phone_hash"]);
    for page in [&first, &second] {
        let line = line(page);
        assert_eq!(
            (&line["scope"], &line["source"], &line["recorded_by"]),
            (&json!("all"), &json!("old provider"), &json!("admin"))
        );
        assert!(line["since"].is_string());
        assert_eq!(line["phone_hash"].as_str().unwrap().len(), 64);
    }
    let last = second["next"].as_str().unwrap();
    let none = server.get(&format!("/v1/suppressions?limit=1&after={last}")).await;
    assert_eq!(none["suppressions"], json!([]));

    // A STOP that comes while the phone is blocked is not forgotten with the block.
    let hash = server
        .store
        .phone_key()
        .await
        .unwrap()
        .hash(&domain::Phone::from_e164("+262692000001"));
    let mut tx = server.store.begin().await.unwrap();
    tx.suppression_put(&hash, Scope::Marketing, "reply", server.api.clock.now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let both = ["+262692000001", "+262692000002"];
    let lift = |scope: &str| json!({"phones": both, "scope": scope});
    for role in [Role::Campaigns, Role::Events, Role::Read] {
        let request = server.request(Method::DELETE, "/v1/suppressions", role);
        let (status, _) = answer(request.json(&lift("all"))).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{role}");
    }
    let (status, lifted) = server
        .send(Method::DELETE, "/v1/suppressions", Some(&lift("all")))
        .await;
    assert_eq!((status, &lifted["changed"]), (StatusCode::OK, &json!(2)), "{lifted}");
    let left = server.get("/v1/suppressions").await;
    let left = left["suppressions"].as_array().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(
        (&left[0]["scope"], &left[0]["source"]),
        (&json!("marketing"), &json!("reply"))
    );
    let (_, lifted) = server
        .send(Method::DELETE, "/v1/suppressions", Some(&lift("marketing")))
        .await;
    assert_eq!((&lifted["changed"], &lifted["unchanged"]), (&json!(1), &json!(1)));
    assert_eq!(server.get("/v1/suppressions").await["suppressions"], json!([]));
}

fn status_of(installation: &Installation, up: &Process, message: &str) -> (String, String) {
    let shown = installation.json(up, &["message", "show", message]);
    let message = if shown["message"].is_object() {
        &shown["message"]
    } else {
        &shown
    };
    let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
    (text("state"), text("reason"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_goes_to_who_asked_for_it_and_a_block_stops_what_waits() {
    let installation = Installation::private().await;
    let up = installation.start(&["up", "--simulator", "--data-dir", "data"]);
    let letter = "[[template]]\nname = \"letter\"\nclass = \"marketing\"\npurpose = \"newsletter\"\n\
                  sender = \"BOUTIQUE\"\ntext = \"La lettre. STOP au 36111\"\n";
    let apply = |rate: u32| {
        let toml = format!("{letter}{}", resources(up.at("simulator_smpp"), rate));
        let file = installation.file("resources.toml", &toml);
        installation.json(&up, &["apply", "-f", &file]);
    };
    apply(500);
    // One consents to marketing, one to the letter, one to neither.
    let newsletter = "\"[{\"\"purpose\"\": \"\"newsletter\"\", \"\"given\"\": true, \"\"wording\"\": \"\"Oui.\"\"}]\"";
    let csv = format!(
        "id,phone,first_name,region,marketing_consent,consents\n\
         c0,+262692000000,Ana,north,true,\nc1,+262692000001,Ana,north,false,{newsletter}\nc2,+262692000002,Ana,north,,\n"
    );
    let csv = installation.file("contacts.csv", &csv);
    installation.json(&up, &["contacts", "import", &csv]);
    let create = [
        "campaign",
        "create",
        "--name",
        "x",
        "--audience",
        "north",
        "--template",
        "letter",
    ];
    let campaign = installation.json(&up, &create)["id"].as_str().unwrap().to_owned();
    installation.json(&up, &["campaign", "launch", &campaign]);
    let status = installation.settled(&up, &campaign);
    assert_eq!(
        (&status["planned"], &status["suppressed"], &status["delivered"]),
        (&json!(3), &json!(2), &json!(1)),
        "{status}"
    );
    let receipts = installation.tail(&up, "receipts");
    let delivered: Vec<&Value> = receipts
        .iter()
        .filter(|record| record["data"]["state"] == "delivered")
        .map(|record| &record["key"])
        .collect();
    assert_eq!(delivered, ["c1"]);

    let said = installation.json(&up, &["contacts", "consents", "c1"]);
    let newsletter = ("newsletter", true, "import", Some("Oui."));
    assert_eq!(lines(&said), [newsletter, ("marketing", false, "import", None)]);
    // STOP withdraws the letter too.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let reply = json!({"system_id": "tamtam", "from": "+262692000001", "to": "BOUTIQUE", "text": "STOP"});
    let url = format!("{}/inbound", up.at("simulator_http"));
    let sent = client.post(url).json(&reply).send().await.unwrap();
    assert!(sent.status().is_success(), "{}", sent.status());
    let contact = eventually("the STOP to be taken in", PATIENCE, || {
        let contact = installation.json(&up, &["contacts", "get", "c1"]);
        (contact["consents"][0]["given"] == false).then_some(contact)
    });
    assert_eq!(contact["marketing_consent"], false);
    let said = installation.json(&up, &["contacts", "consents", "c1"]);
    assert_eq!(lines(&said)[0], ("newsletter", false, "reply", None));

    // A transactional message that waits for its turn at a slow gateway, and its phone is blocked meanwhile.
    apply(1);
    let send = |contact: &str, key: &str| {
        let arguments = [
            "message",
            "send",
            "--contact",
            contact,
            "--template",
            "hello",
            "--idempotency-key",
            key,
        ];
        let sent = installation.json(&up, &arguments);
        sent["message_id"].as_str().unwrap().to_owned()
    };
    const BEFORE: usize = 20;
    let orders: String = (0..BEFORE)
        .map(|number| {
            let order = json!({"id": format!("o{number}"), "source": "shop", "type": "order.placed", "contact_id": "c0",
                               "data": {"amount": 12.5}});
            format!("{order}\n")
        })
        .collect();
    let orders = installation.file("orders.ndjson", &orders);
    installation.json(&up, &["events", "publish", &orders]);
    let delivered = || {
        let receipts = installation.tail(&up, "receipts");
        let delivered = receipts.iter().filter(|record| record["data"]["state"] == "delivered");
        delivered.count()
    };
    // They are at the gateway's door.
    eventually("the first of them to go", PATIENCE, || (delivered() > 1).then_some(()));
    let blocked = send("c2", "blocked");
    let done = installation.json(&up, &["suppressions", "add", "+262692000002", "--scope", "all"]);
    assert_eq!(done["changed"], 1, "{done}");
    apply(500);
    eventually("the message to be suppressed", PATIENCE, || {
        (status_of(&installation, &up, &blocked) == ("suppressed".into(), "blocked".into())).then_some(())
    });
    eventually("all others to go", PATIENCE, || {
        (delivered() == 1 + BEFORE).then_some(())
    });
    // One that is sent later is stopped as well, until the block is lifted.
    let later = send("c2", "later");
    eventually("the later message to be suppressed", PATIENCE, || {
        (status_of(&installation, &up, &later).1 == "blocked").then_some(())
    });
    let listed = installation.json(&up, &["suppressions", "list"]);
    let sources: Vec<&str> = listed["suppressions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["source"].as_str().unwrap())
        .collect();
    assert_eq!(sources, ["command line", "reply"]);
    let file = installation.file("phones.txt", "+262692000002\n\n0692 00 00 02\n");
    let lifted = installation.json(&up, &["suppressions", "remove", "--file", &file, "--scope", "all"]);
    assert_eq!(lifted["changed"], 1, "{lifted}");
    let last = send("c2", "last");
    eventually("the last message to be delivered", PATIENCE, || {
        (status_of(&installation, &up, &last).0 == "delivered").then_some(())
    });
    assert_eq!(installation.json(&up, &["audit"])["violations"], 0);
}
