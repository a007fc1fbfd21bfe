//! The simulator as a person or a script meets it: over HTTP.

use serde_json::{Value, json};
use simulator::Script;

use crate::support::simulator::{Simulator, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_what_to_do_and_shows_what_came() {
    let simulator = Simulator::start(Script::default()).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("{}{path}", simulator.http);

    // A script in TOML; a mistake in it is told and changes nothing.
    let answer = client
        .post(url("/script"))
        .body("receipt_delay_ms = 0\nreceipt_jitter_ms = 0")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let answer = client
        .post(url("/script"))
        .body("lost_percent = 300")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("lost_percent"));
    let script: Value = client.get(url("/script")).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&script["receipt_delay_ms"], &script["lost_percent"]),
        (&json!(0), &json!(0.0))
    );

    // A text that came by HTTP is on the page, escaped, and in the list.
    let form = [("To", "+262692000001"), ("From", "BOUTIQUE"), ("Body", "<b>Söhne</b>")];
    let answer = client
        .post(url("/twilio/Messages.json"))
        .form(&form)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
    let page = client.get(url("/")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("&lt;b&gt;Söhne&lt;/b&gt;"));
    let first: Value = client
        .get(url("/messages?limit=1"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&first["messages"][0]["text"], &first["next"]),
        (&json!("<b>Söhne</b>"), &json!(1))
    );
    let none: Value = client
        .get(url("/messages?after=1"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(none["messages"], json!([]));

    // What lacks a field is refused, and not counted.
    let answer = client
        .post(url("/twilio/x"))
        .form(&[("To", "+262692000001")])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 400);
    let stats = simulator.stats().await;
    assert_eq!((stats.accepted, stats.distinct, stats.texts), (1, 1, 1));
    assert_eq!(stats.per_second.iter().sum::<u32>(), 1);

    // A reply to nobody is told so.
    let reply = json!({ "from": "+262692000001", "to": "36105", "text": "STOP" });
    assert_eq!(
        client.post(url("/inbound")).json(&reply).send().await.unwrap().status(),
        409
    );

    client.post(url("/reset")).send().await.unwrap();
    eventually("all forgotten", || async {
        (simulator.stats().await.accepted == 0).then_some(())
    })
    .await;
    assert!(simulator.messages().await.is_empty());
    drop(client);
    simulator.stop().await;
}
