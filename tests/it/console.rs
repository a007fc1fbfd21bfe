//! The console in a real browser, on the demo's contacts: sign in, announce, watch, pause, resume, cancel.

use std::path::Path;

use crate::support::{
    browser::Browser,
    process::eventually,
    tamtam::{Installation, KEY, PATIENCE, resources, stats},
};

fn demo_contacts() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo/contacts.csv");
    path.canonicalize().unwrap().display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_manager_announces_and_watches() {
    let installation = Installation::private().await;
    let simulator = installation.start(&["simulator"]);
    let up = installation.start(&["up", "--data-dir", "data"]);
    let rate = |rate: u32| {
        let file = installation.file("resources.toml", &resources(simulator.at("simulator_smpp"), rate));
        installation.json(&up, &["apply", "-f", &file]);
    };
    // So slow that the campaign runs for as long as the browser takes to pause it.
    rate(20);
    installation.json(&up, &["contacts", "import", &demo_contacts(), "--region", "RE"]);
    let women = installation.json(
        &up,
        &["audience", "count", "gender = \"female\" and region = \"north\""],
    );
    let women = women["count"].as_i64().unwrap();
    assert!(women > 400, "{women}");

    let browser = Browser::start("en-GB").await;
    let console = up.at("console").to_owned();
    browser.client.goto(&console).await.unwrap();
    // Nobody is let in without signing in, nor with a wrong password.
    browser.sees("Sign in").await;
    browser.screenshot("sign-in").await;
    browser.fill("#password", "tt_00000000000000000000000000000000").await;
    browser.click("main button").await;
    browser.sees("Unknown user or password").await;
    browser.fill("#password", KEY).await;
    browser.click("main button").await;
    browser.sees("No campaign yet").await;

    // French and back.
    browser.click("header form[action='/language'] button").await;
    browser.sees("Aucune campagne").await;
    browser.click("header form[action='/language'] button").await;
    browser.sees("No campaign yet").await;

    // Announce: the count follows what is typed, and a mistake is told with its column.
    browser.click("a[href='/announce']").await;
    browser.find("#count [data-count='10000']").await;
    browser.fill("#expression", "gender = female").await;
    browser.sees("column 10").await;
    browser
        .fill("#expression", "gender = \"female\" and region = \"north\"")
        .await;
    browser.find(&format!("#count [data-count='{women}']")).await;
    browser.fill("#name", "Soldes").await;
    browser.fill("#sender", "BOUTIQUE").await;
    browser.fill("#text", "{{ contact.first_name | default('Bonjour') }}, -20% & plus <aujourd'hui> à {{ contact.city | default('la boutique') }}").await;
    browser.sees("GSM-7").await;
    browser.find("#estimate .sms:nth-of-type(3)").await;
    browser.sees("-20% & plus <aujourd'hui>").await;
    browser.screenshot("announce").await;

    browser.click("#check").await;
    browser.find("#launch").await;
    browser.screenshot("summary").await;
    browser.click("#launch").await;

    // Live: running, paused within moments, gone on, and everything through.
    browser.find("[data-state='running']").await;
    eventually("some messages", PATIENCE, || {
        (stats(&simulator)["distinct"].as_u64() > Some(50)).then_some(())
    });
    browser.sees("Delivered").await;
    browser.screenshot("campaign").await;
    browser.click("[data-action='pause']").await;
    browser.find("[data-state='paused']").await;
    rate(500);
    browser.click("[data-action='resume']").await;
    browser.find("[data-state='finished']").await;
    let url = browser.client.current_url().await.unwrap();
    let id = url.path_segments().unwrap().next_back().unwrap().to_owned();
    let status = installation.settled(&up, &id);
    assert_eq!(status["planned"].as_i64(), Some(women), "{status}");
    assert_eq!(stats(&simulator)["duplicates"], 0);

    // A second one is cancelled: nothing more leaves.
    rate(20);
    browser.client.goto(&format!("{console}/announce")).await.unwrap();
    browser.fill("#name", "Zweite").await;
    browser.fill("#expression", "region = \"south\"").await;
    browser.fill("#sender", "BOUTIQUE").await;
    browser.fill("#text", "Bonjour").await;
    browser.click("#check").await;
    browser.click("#launch").await;
    browser.find("[data-state='running']").await;
    browser.click("[data-action='cancel']").await;
    browser.accept().await;
    browser.find("[data-state='cancelled']").await;

    browser.client.goto(&console).await.unwrap();
    browser.sees("Zweite").await;
    browser.screenshot("home").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_sites_form_and_a_made_up_session_are_refused() {
    let installation = Installation::private().await;
    let up = installation.start(&["up", "--data-dir", "data"]);
    let console = up.at("console");
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let signed_in = client
        .post(format!("{console}/sign-in"))
        .form(&[("user", "admin"), ("password", KEY)])
        .send()
        .await
        .unwrap();
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let status = |cookie: String, site: &'static str| {
        let request = client
            .post(format!("{console}/announce/count"))
            .header("cookie", cookie)
            .header("sec-fetch-site", site)
            .form(&[("expression", "")]);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(status(cookie.clone(), "same-origin").await, 200);
    assert_eq!(status(cookie.clone(), "cross-site").await, 403);
    assert_eq!(status(format!("{cookie}x"), "same-origin").await, 303);
    // The pages' session is none for the API: it wants a key.
    let api = client
        .get(format!("{console}/v1/campaigns"))
        .header("cookie", &cookie)
        .send()
        .await
        .unwrap();
    assert_eq!(api.status(), 401);
    let page = client.get(format!("{console}/sign-in")).send().await.unwrap();
    assert!(
        page.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("default-src 'self'")
    );
}
