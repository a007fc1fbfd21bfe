//! The console's page of replies that a person decides on, in a real browser: counted, read, decided, each once.

use serde_json::json;

use crate::support::{
    browser::Browser,
    process::{Process, eventually},
    simulator,
    tamtam::{Installation, KEY, PATIENCE, contacts, resources},
};

/// A phone of [`contacts`] writes to us.
async fn reply(up: &Process, contact: usize, text: &str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let from = format!("+262692{contact:06}");
    let body = json!({"system_id": "tamtam", "from": from, "to": "36105", "text": text});
    let url = format!("{}/inbound", up.at("simulator_http"));
    // It refuses until somebody has bound, who would be told.
    simulator::eventually("the gateway to take it", || async {
        let answer = client.post(&url).json(&body).send().await.unwrap();
        answer.status().is_success().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_decides_on_each_reply_once() {
    let installation = Installation::private().await;
    let up = installation.start(&["up", "--simulator", "--data-dir", "data"]);
    let file = installation.file("resources.toml", &resources(up.at("simulator_smpp"), 100));
    installation.json(&up, &["apply", "-f", &file]);
    installation.json(
        &up,
        &["contacts", "import", &installation.file("contacts.csv", &contacts(3))],
    );
    let consents = |contact: &str| installation.json(&up, &["contacts", "get", contact])["marketing_consent"].clone();
    let given = consents("c1");

    let browser = Browser::start("en-GB").await;
    let console = up.at("console").to_owned();
    browser.client.goto(&console).await.unwrap();
    browser.fill("#password", KEY).await;
    browser.click("main button").await;
    browser.sees("No campaign yet").await;
    browser.click("nav a[href='/replies']").await;
    browser.sees("No reply waits for a decision").await;

    // Markup in a reply is text, whoever writes it.
    reply(&up, 0, "arrêtez svp").await;
    reply(&up, 1, "stop <b>it</b> please").await;
    reply(&up, 2, "plus de pub svp, arrêtez").await;
    let ids = eventually("three replies to decide on", PATIENCE, || {
        let listed = installation.json(&up, &["replies", "list"]);
        let replies = listed["replies"].as_array().unwrap().clone();
        (replies.len() == 3).then_some(replies)
    });

    browser.client.goto(&console).await.unwrap();
    browser.find("nav a[href='/replies'] [data-waiting='3']").await;
    browser.click("nav a[href='/replies']").await;
    browser.sees("arrêtez svp").await;
    browser.sees("stop <b>it</b> please").await;
    browser.screenshot("replies").await;
    browser.click("header form[action='/language'] button").await;
    browser.sees("Ces réponses ressemblent à un refus").await;
    browser.click("header form[action='/language'] button").await;
    browser.sees("These replies sound like an opt-out").await;

    browser.click("tr[data-contact='c0'] [data-action='stop']").await;
    browser.find("nav a[href='/replies'] [data-waiting='2']").await;
    assert_eq!(consents("c0"), false);
    browser.click("tr[data-contact='c1'] [data-action='dismiss']").await;
    browser.find("nav a[href='/replies'] [data-waiting='1']").await;
    assert_eq!(consents("c1"), given);

    // Somebody else decides while the page is open.
    browser.find("tr[data-contact='c2']").await;
    let other = ids.iter().find(|reply| reply["contact_id"] == "c2").unwrap();
    installation.json(&up, &["replies", "dismiss", other["id"].as_str().unwrap()]);
    browser.click("tr[data-contact='c2'] [data-action='stop']").await;
    browser.sees("Somebody has decided on this reply already").await;
    browser.sees("No reply waits for a decision").await;
    assert_eq!(consents("c2"), given, "the first decision holds");
    browser.close().await;
}
