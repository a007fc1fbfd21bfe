//! The HTTP API, in front of a real bus and a real database.

use std::collections::BTreeSet;

use api::Role;
use domain::{Consent, Phone, contact::ContactChange};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::support::server::{Server, answer, caller};

/// Every operation of `/openapi.json`: method, path with its parameters filled in, roles.
fn operations(document: &Value) -> Vec<(Method, String, Vec<Role>)> {
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let filled = path
                .replace("{kind}", "template")
                .replace("{name}", "nothing")
                .replace("{id}", "00000000-0000-8000-8000-000000000000");
            assert!(!filled.contains('{'), "{path}: an unknown parameter");
            let roles = operation["x-roles"].as_array().unwrap();
            let roles = roles
                .iter()
                .map(|role| role.as_str().unwrap().parse().unwrap())
                .collect();
            operations.push((method.to_uppercase().parse().unwrap(), filled, roles));
        }
    }
    operations
}

#[tokio::test]
async fn every_route_refuses_a_call_without_key_and_of_a_wrong_role() {
    let server = Server::start().await;
    let (status, document) = answer(server.anonymous(Method::GET, "/openapi.json")).await;
    assert_eq!(status, StatusCode::OK);
    let operations = operations(&document);
    assert!(operations.len() >= 35, "{}", operations.len());
    for (method, path, roles) in operations {
        let response = server.anonymous(method.clone(), &path).send().await.unwrap();
        assert_eq!(
            response.status(),
            StatusCode::UNAUTHORIZED,
            "{method} {path} without a key"
        );
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let unknown = format!("tt_{}", "0".repeat(64));
        let (status, _) = answer(server.anonymous(method.clone(), &path).bearer_auth(unknown)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path} with an unknown key");
        for role in Role::ALL {
            // Following would never end.
            let response = server.request(method.clone(), &path, role).send().await.unwrap();
            let status = response.status();
            let refused = status == StatusCode::FORBIDDEN;
            assert_eq!(refused, !roles.contains(&role), "{method} {path} as {role}: {status}");
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert!(!status.is_server_error(), "{method} {path} as {role}: {status}");
            if status == StatusCode::NOT_FOUND {
                let problem: Value = response.json().await.unwrap();
                let detail = problem["detail"].as_str().unwrap_or_default();
                assert!(!detail.contains("route"), "{method} {path} is described and not served");
            }
        }
    }
}

#[tokio::test]
async fn the_description_is_whole() {
    let document = ingest::http::openapi();
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is referred to and not described");
    }
    let mut ids = BTreeSet::new();
    for methods in document["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} stands twice");
            assert!(!operation["summary"].as_str().unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn mistakes_are_problems_that_say_what_was_expected() {
    let server = Server::start().await;
    let problem = async |request: reqwest::RequestBuilder| {
        let (status, problem) = answer(request).await;
        assert_eq!(problem["status"], status.as_u16());
        (status, problem)
    };
    let post = |path: &str| server.request(Method::POST, path, Role::Admin);

    let (status, wrong) = problem(post("/v1/keys").json(&json!({"name": "x", "role": "boss"}))).await;
    assert_eq!(
        (status, wrong["field"].as_str()),
        (StatusCode::BAD_REQUEST, Some("role"))
    );
    let (status, wrong) = problem(post("/v1/keys").json(&json!({"nmae": "x", "role": "read"}))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        wrong["detail"].as_str().unwrap().contains("unknown field `nmae`"),
        "{wrong}"
    );
    let (status, _) = problem(post("/v1/keys").header("content-type", "application/json").body("{")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    // What a form on another site could send is not read.
    let (status, _) = problem(post("/v1/keys").form(&[("name", "x")])).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (status, _) = problem(
        post("/v1/preview")
            .header("content-type", "application/json")
            .body(vec![b' '; (16 << 20) + 1]),
    )
    .await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = problem(server.request(Method::GET, "/v1/nothing/here", Role::Admin)).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = problem(server.request(Method::PATCH, "/v1/keys", Role::Admin)).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let (status, wrong) = problem(server.request(Method::GET, "/v1/campaigns/42", Role::Admin)).await;
    assert_eq!((status, wrong["field"].as_str()), (StatusCode::BAD_REQUEST, Some("id")));
    // A file of resources tells all of its mistakes.
    let toml =
        "[[audience]]\nname = \"a\"\nwhere = 'age <'\n\n[[trigger]]\nname = \"t\"\non = \"x\"\ntemplate = \"no\"\n";
    let (status, wrong) = problem(
        post("/v1/resources")
            .header("content-type", "application/toml")
            .body(toml),
    )
    .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let lines: Vec<u64> = wrong["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [3, 8]);
}

#[tokio::test]
async fn events_are_published_and_read_back() {
    let server = Server::start().await;
    let event = |id: &str| {
        json!({"id": id, "source": "shop", "type": "order.placed", "contact_id": "42",
               "time": "2026-06-01T10:00:00Z", "data": {"amount": 3, "phone": "+262692000001"}})
    };
    assert_eq!(server.post("/v1/events", &event("a")).await["accepted"], 1);
    let batch = json!({"events": [event("b"), {"source": "shop"}, event("c")]});
    let published = server.post("/v1/events", &batch).await;
    assert_eq!((&published["accepted"], &published["rejected"]), (&json!(2), &json!(1)));
    assert_eq!(published["errors"][0]["item"], 2);
    assert_eq!(published["errors"][0]["field"], "id");

    let large = format!(
        r#"{{"id":"large","source":"s","type":"t","contact_id":"42","data":{{"x":"{}"}}}}"#,
        "x".repeat(2 << 20)
    );
    let late = r#"{"id":"late","source":"s","type":"t","contact_id":"42","time":"9999-12-31T23:59:59Z"}"#;
    let lines = format!("{}\n\n{late}\n{large}\nnot json\n{}", event("d"), event("e"));
    let request = server
        .request(Method::POST, "/v1/events", Role::Events)
        .header("content-type", "application/x-ndjson")
        .body(lines);
    let (status, published) = answer(request).await;
    assert_eq!(status, StatusCode::OK, "{published}");
    assert_eq!((&published["accepted"], &published["rejected"]), (&json!(2), &json!(3)));
    let told: Vec<(u64, &str)> = published["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["item"].as_u64().unwrap(), error["code"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [(3, "out_of_range"), (4, "too_large"), (5, "bad_value")]);

    let tail = async |query: &str, role: Role| {
        let path = format!("/v1/topics/events/records{query}");
        let response = server.request(Method::GET, &path, role).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (status, lines)
    };
    let (_, records) = tail("", Role::Read).await;
    let ids: Vec<&str> = records.iter().map(|record| record["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e"]);
    assert_eq!(records[0]["type"], "order.placed");
    assert_eq!(records[0]["time"], "2026-06-01T10:00:00Z");
    assert_eq!(records[0]["key"], "42");
    assert_eq!(
        records[0]["data"],
        json!({"amount": 3, "phone": "…"}),
        "a phone is hidden"
    );
    let (status, _) = tail("?reveal=true", Role::Read).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (_, revealed) = tail("?reveal=true", Role::Admin).await;
    assert_eq!(revealed[0]["data"]["phone"], "+262692000001");
    let (_, none) = tail("?from=end", Role::Read).await;
    assert!(none.is_empty());
}

#[tokio::test]
async fn a_followed_topic_tells_what_comes() {
    let server = Server::start().await;
    let event = |id: &str| json!({"id": id, "source": "shop", "type": "order.placed", "contact_id": "42"});
    server.post("/v1/events", &event("before")).await;
    let path = "/v1/topics/events/records?from=end&follow=true";
    let mut response = server.request(Method::GET, path, Role::Read).send().await.unwrap();
    server.post("/v1/events", &event("after")).await;
    let line = tokio::time::timeout(std::time::Duration::from_secs(30), response.chunk()).await;
    let line = line.expect("nothing was told").unwrap().unwrap();
    let record: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(record["id"], "after");
}

#[tokio::test]
async fn a_key_is_shown_once_and_ends_when_it_is_revoked() {
    let server = Server::start().await;
    let made = server
        .post("/v1/keys", &json!({"name": "shop", "role": "events"}))
        .await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    let listed = server.get("/v1/keys").await;
    assert!(!listed.to_string().contains(&secret));
    let measure = || {
        server
            .anonymous(Method::POST, "/v1/sms/measure")
            .bearer_auth(&secret)
            .json(&json!({"text": "Forêt"}))
    };
    let (status, measured) = answer(measure()).await;
    assert_eq!(
        (status, &measured["encoding"], &measured["parts"]),
        (StatusCode::OK, &json!("UCS-2"), &json!(1))
    );
    let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    let (status, _) = server.send(Method::DELETE, &path, None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while answer(measure()).await.0 != StatusCode::UNAUTHORIZED {
        assert!(std::time::Instant::now() < until, "a revoked key is still taken");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_preview_tells_whom_what_and_how_much() {
    let server = Server::start().await;
    server
        .apply(
            r#"
[[gateway]]
name = "main"
kind = "smpp"
address = "127.0.0.1:2775"
system_id = "tamtam"
rate = 2

[[template]]
name = "sale"
class = "marketing"
sender = "BOUTIQUE"
text = "Bonjour {{ contact.first_name | default('vous') }}, -20% sur {{ campaign.article }}."

[policy]
quiet_hours = "off"
opt_out = ""
[[policy.price]]
micros = 40000
"#,
        )
        .await;
    let contact = |id: &str, phone: Option<&str>, consent: Consent| ContactChange {
        id: id.into(),
        phone: Some(phone.map(Phone::from_e164)),
        first_name: Some(Some(format!("Prénom-{id}"))),
        region: Some(Some("north".into())),
        marketing_consent: Some(consent),
        ..ContactChange::default()
    };
    let given = Consent::Given(None);
    let contacts = [
        contact("a", Some("+262692000001"), given),
        contact("b", Some("+262692000002"), Consent::No),
        contact("c", None, given),
        contact("d", Some("+262692000001"), given),
        contact("e", Some("+262692000005"), given),
    ];
    let mut tx = server.store.begin().await.unwrap();
    tx.contacts_upsert(&contacts, "test", "test", server.api.clock.now())
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let asked = json!({"where": "region = \"north\"", "template": "sale", "values": {"article": "les chaussures"}});
    let preview = server.post("/v1/preview", &asked).await;
    assert_eq!(
        (&preview["count"], &preview["sampled"], &preview["sent"]),
        (&json!(5), &json!(5), &json!(2))
    );
    assert_eq!(
        preview["suppressed"],
        json!({"no-consent": 1, "no-phone": 1, "duplicate-phone": 1})
    );
    let texts: Vec<&str> = preview["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts.len(), 2);
    assert_eq!(texts[0], "Bonjour Prénom-a, -20% sur les chaussures.");
    assert_eq!(preview["parts"], json!({"1": 2}));
    assert_eq!(
        (&preview["cost_micros"], &preview["seconds"]),
        (&json!(80_000), &json!(1))
    );

    // A text that has no name yet, and mistakes in it.
    let text = |text: &str| json!({"where": "region = \"north\"", "text": text});
    let preview = server
        .post("/v1/preview", &text("Salut {{ contact.first_name }}"))
        .await;
    assert_eq!(preview["texts"][0]["text"], "Salut Prénom-a");
    assert!(preview["smart"].is_null(), "{preview}");
    // What smart encoding saves is told whether it is asked for or not.
    let curly = format!("l’{} {{{{ contact.first_name }}}}", "a".repeat(80));
    for (smart, parts) in [(false, json!({"2": 2})), (true, json!({"1": 2}))] {
        let asked = json!({"where": "region = \"north\"", "text": curly, "smart": smart});
        let preview = server.post("/v1/preview", &asked).await;
        assert_eq!(preview["parts"], parts);
        assert_eq!(preview["smart"], json!({"parts_without": 4, "parts_with": 2}));
    }
    let (status, problem) = server
        .send(Method::POST, "/v1/preview", Some(&text("Salut {{ contact.")))
        .await;
    assert_eq!(
        (status, problem["field"].as_str()),
        (StatusCode::BAD_REQUEST, Some("text"))
    );
    let (status, problem) = server
        .send(
            Method::POST,
            "/v1/preview",
            Some(&json!({"where": "region =", "template": "sale"})),
        )
        .await;
    assert_eq!(
        (status, problem["field"].as_str()),
        (StatusCode::BAD_REQUEST, Some("where"))
    );
}

#[tokio::test]
async fn a_campaign_is_watched_until_it_is_settled() {
    let server = Server::start().await;
    server
        .apply("[[template]]\nname = \"sale\"\nclass = \"marketing\"\nsender = \"BOUTIQUE\"\ntext = \"Soldes\"\n")
        .await;
    let draft = json!({"name": "Soldes", "where": "region = \"north\"", "template": "sale"});
    let made = server
        .request(Method::POST, "/v1/campaigns", Role::Campaigns)
        .header("idempotency-key", "k")
        .json(&draft);
    let (status, made) = answer(made).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    let path = format!("/v1/campaigns/{}", made["id"].as_str().unwrap());
    let response = server
        .request(Method::GET, &format!("{path}/watch"), Role::Read)
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    server.post(&format!("{path}/launch"), &Value::Null).await;
    server.post(&format!("{path}/cancel"), &Value::Null).await;
    let text = tokio::time::timeout(std::time::Duration::from_secs(30), response.text()).await;
    let text = text.expect("the watch does not end").unwrap();
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(events.first(), Some(&"status"));
    assert_eq!(events.last(), Some(&"end"));
    assert!(text.contains("\"state\":\"cancelled\""), "{text}");

    let status = server.get(&path).await;
    assert_eq!(
        (&status["state"], &status["planned"], &status["pending"]),
        (&json!("cancelled"), &json!(0), &json!(0))
    );
    let log = server.get(&format!("{path}/log")).await;
    assert_eq!(log["log"][0]["by"], "campaigns");
    assert_eq!(
        server.get("/v1/campaigns").await["campaigns"].as_array().unwrap().len(),
        1
    );
    assert_eq!(server.get("/v1/audit").await["violations"], 0);
}

#[tokio::test]
async fn contacts_are_upserted_imported_found_and_erased() {
    let server = Server::start().await;
    let batch = json!({"region": "RE", "contacts": [
        {"id": "1", "phone": "0692 00 00 01", "gender": "female", "shoe_size": 38},
        {"id": "2", "phone": "not a phone"},
        {"phone": "+262692000003"},
        {"id": "import", "region": "north"},
    ]});
    let upserted = server.post("/v1/contacts", &batch).await;
    assert_eq!(
        (&upserted["created"], &upserted["rejected"]),
        (&json!(2), &json!(2)),
        "{upserted}"
    );
    assert_eq!(upserted["results"][1]["error"]["field"], "phone");
    assert_eq!(upserted["results"][2]["error"]["field"], "id");
    let again = server.post("/v1/contacts", &batch).await;
    assert_eq!(again["unchanged"], 2, "{again}");
    let one = server.get("/v1/contacts/1").await;
    assert_eq!(
        one,
        json!({"id": "1", "phone": "+262692000001", "gender": "female", "shoe_size": 38})
    );
    // A contact may be named as the import's path is.
    assert_eq!(server.get("/v1/contacts/import").await["region"], "north");

    let change = async |id: &str, fields: Value| {
        server
            .send(Method::PUT, &format!("/v1/contacts/{id}"), Some(&fields))
            .await
    };
    assert_eq!(
        change("1", json!({"gender": null, "city": "Saint-Denis"})).await.1["change"],
        "updated"
    );
    let (status, problem) = change("1", json!({"birth_date": "31/12/2000"})).await;
    assert_eq!(
        (status, problem["field"].as_str()),
        (StatusCode::BAD_REQUEST, Some("birth_date"))
    );

    let csv = "id,phone,region\n3,+262692000003,north\n4,nothing,north\n5,+262692000005,south\n";
    let import = || {
        server
            .request(Method::POST, "/v1/contacts/import?region=RE", Role::Events)
            .header("content-type", "text/csv")
            .body(csv)
    };
    let (status, report) = answer(import()).await;
    assert_eq!(status, StatusCode::OK, "{report}");
    assert_eq!((&report["created"], &report["rejected"]), (&json!(2), &json!(1)));
    assert_eq!(
        (&report["errors"][0]["line"], &report["errors"][0]["field"]),
        (&json!(3), &json!("phone"))
    );
    assert!(
        !report.to_string().contains("nothing"),
        "a rejected row's content is not repeated"
    );
    assert_eq!(answer(import()).await.1["unchanged"], 2);

    let query = "where=region%20%3D%20%22north%22";
    assert_eq!(server.get(&format!("/v1/audience/count?{query}")).await["count"], 2);
    let listed = server
        .get(&format!("/v1/audience/contacts?{query}&limit=1&after=3"))
        .await;
    assert_eq!(listed["contacts"][0]["id"], "import");
    let explained = server.get(&format!("/v1/audience/explain?{query}&contact=5")).await;
    assert_eq!(
        (&explained["contacts"], &explained["contact"]["holds"]),
        (&json!(4), &json!(false))
    );

    for (id, expected) in [("3", StatusCode::NO_CONTENT), ("3", StatusCode::NOT_FOUND)] {
        assert_eq!(
            server.send(Method::DELETE, &format!("/v1/contacts/{id}"), None).await.0,
            expected
        );
    }
}

#[tokio::test]
async fn a_caller_that_a_layer_in_front_knows_needs_no_key() {
    let server = Server::start().await;
    let signed_in = caller(Role::Read);
    let router = ingest::http::router(server.api.clone()).layer(axum::Extension(signed_in));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = async |method: Method, path: &str| {
        let response = client.request(method, format!("http://{address}{path}")).send().await;
        response.unwrap().status()
    };
    assert_eq!(status(Method::GET, "/v1/campaigns").await, StatusCode::OK);
    assert_eq!(status(Method::GET, "/v1/keys").await, StatusCode::FORBIDDEN);
    serving.abort();
}
