//! What is said of an expression that is wrong, or probably is: by the commands and over HTTP.

use api::Role;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::server::Server;

const TEMPLATE: &str =
    "[[template]]\nname = \"sale\"\nclass = \"marketing\"\nsender = \"BOUTIQUE\"\ntext = \"Soldes\"\n";

/// A shop whose contacts have an attribute of its own, `loyalty`.
async fn shop() -> Server {
    let server = Server::start().await;
    server.apply(TEMPLATE).await;
    let contacts = json!({"contacts": [
        {"id": "1", "gender": "female", "loyalty": "gold"},
        {"id": "2", "gender": "male", "loyalty": "silver"},
    ]});
    server.post("/v1/contacts", &contacts).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_has_is_told_with_what_was_meant() {
    let server = shop().await;
    let cases = [
        (
            "gendre = \"female\"",
            "0",
            "hint: no contact has `gendre`; did you mean `gender`?\n",
        ),
        (
            "loyalti = \"gold\"",
            "0",
            "hint: no contact has `loyalti`; did you mean `loyalty`?\n",
        ),
        ("not shoe_size > 40", "2", "hint: no contact has `shoe_size`\n"),
        ("gender = \"female\" and loyalty = \"gold\"", "1", ""),
    ];
    for (expression, count, hint) in cases {
        let output = server.command(Role::Read, &["audience", "count", expression]);
        assert_eq!(output.status.code(), Some(0), "{expression}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), count, "{expression}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), hint, "{expression}");
    }
    // A script that takes the id gets nothing else.
    let create = [
        "campaign",
        "create",
        "--name",
        "x",
        "--template",
        "sale",
        "--where",
        "gendre = \"female\"",
    ];
    let output = server.command(Role::Campaigns, &create);
    let id = String::from_utf8(output.stdout).unwrap();
    assert!(id.trim().parse::<uuid::Uuid>().is_ok(), "{id}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean `gender`?"));
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_and_previewing_tell_names_that_nobody_has() {
    let server = shop().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("north.toml");
    let toml = "[[audience]]\nname = \"women\"\nwhere = 'gendre = \"female\"'\n\n\
                [[trigger]]\nname = \"thanks\"\non = \"order.placed\"\nwhen = 'event.amount > 0 and loyalti = \"gold\"'\n\
                template = \"sale\"\n";
    std::fs::write(&file, toml).unwrap();
    let output = server.command(Role::Admin, &["apply", "-f", &file.display().to_string()]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for hint in [
        "women: no contact has `gendre`; did you mean `gender`?",
        "thanks: no contact has `loyalti`; did you mean `loyalty`?",
    ] {
        assert!(told.contains(hint), "{told}");
    }
    let preview = json!({"where": "gendre = \"female\"", "template": "sale"});
    let preview = server.post("/v1/preview", &preview).await;
    assert_eq!(
        preview["hints"],
        json!(["no contact has `gendre`; did you mean `gender`?"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_told_with_its_column_and_what_was_expected() {
    let server = shop().await;
    let cases = [
        ("gender = female", 10, "did you mean the text \"female\"?"),
        ("regoin = = 3", 10, "did you mean `region`?"),
        ("age < 30 adn gender = \"male\"", 10, "did you mean `and`?"),
        ("did order.placed within 30 dyas", 28, "did you mean `days`?"),
        ("city =", 7, "expected a value"),
        ("(age < 30", 10, "or `)`, found the end"),
    ];
    for (expression, column, expected) in cases {
        let place = format!("column {column}: ");
        let output = server.command(Role::Read, &["audience", "count", expression]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{expression}: {told}");
        assert!(
            told.contains(&format!("where: {place}expected")) && told.contains(expected),
            "{expression}: {told}"
        );
        let draft = json!({"name": "x", "template": "sale", "where": expression});
        let (status, problem) = server.send(Method::POST, "/v1/campaigns", Some(&draft)).await;
        assert_eq!((status, &problem["field"]), (StatusCode::BAD_REQUEST, &json!("where")));
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(&place) && detail.contains(expected), "{detail}");
    }
    // In a file, at the line, too.
    let toml = "[[audience]]\nname = \"women\"\nwhere = 'gender = female'\n";
    let request = server
        .request(Method::POST, "/v1/resources", Role::Admin)
        .header("content-type", "application/toml")
        .body(toml);
    let (status, problem) = crate::support::server::answer(request).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(problem["errors"][0]["line"], 3, "{problem}");
    let message = problem["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("column 10: expected a value"), "{message}");
}
