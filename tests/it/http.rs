//! The HTTP API, in front of a real bus and a real database.

use std::collections::BTreeSet;

use api::Role;
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::support::server::{Server, answer};

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
            let roles = roles.iter().map(|role| role.as_str().unwrap().parse().unwrap()).collect();
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
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path} without a key");
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
    assert_eq!((status, wrong["field"].as_str()), (StatusCode::BAD_REQUEST, Some("role")));
    let (status, wrong) = problem(post("/v1/keys").json(&json!({"nmae": "x", "role": "read"}))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(wrong["detail"].as_str().unwrap().contains("unknown field `nmae`"), "{wrong}");
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
    let toml = "[[audience]]\nname = \"a\"\nwhere = 'age <'\n\n[[trigger]]\nname = \"t\"\non = \"x\"\ntemplate = \"no\"\n";
    let (status, wrong) = problem(post("/v1/resources").header("content-type", "application/toml").body(toml)).await;
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

    let large = format!(r#"{{"id":"large","source":"s","type":"t","contact_id":"42","data":{{"x":"{}"}}}}"#, "x".repeat(2 << 20));
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
    assert_eq!(records[0]["data"], json!({"amount": 3, "phone": "…"}), "a phone is hidden");
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
    let made = server.post("/v1/keys", &json!({"name": "shop", "role": "events"})).await;
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
    assert_eq!((status, &measured["encoding"], &measured["parts"]), (StatusCode::OK, &json!("UCS-2"), &json!(1)));
    let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    let (status, _) = server.send(Method::DELETE, &path, None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while answer(measure()).await.0 != StatusCode::UNAUTHORIZED {
        assert!(std::time::Instant::now() < until, "a revoked key is still taken");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
