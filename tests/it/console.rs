//! The console in a real browser, on the demo's contacts: sign in, announce, watch, pause, resume, cancel.

use std::path::Path;

use crate::support::{
    browser::Browser,
    process::eventually,
    tamtam::{Installation, KEY, PATIENCE, contacts, resources, stats},
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

/// Somebody who is signed in and speaks `language`, without a browser.
struct Visitor {
    client: reqwest::Client,
    console: String,
    cookie: String,
    language: &'static str,
}

impl Visitor {
    async fn sign_in(console: &str, language: &'static str) -> Visitor {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let url = format!("{console}/sign-in");
        let form = [("user", "admin"), ("password", KEY)];
        let answer = client.post(url).form(&form).send().await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Visitor {
            client,
            console: console.to_owned(),
            cookie,
            language,
        }
    }

    fn as_here(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        request
            .header("cookie", &self.cookie)
            .header("accept-language", self.language)
    }

    /// A page's text.
    async fn get(&self, path: &str) -> String {
        let request = self.client.get(format!("{}{path}", self.console));
        let answer = self.as_here(request).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> reqwest::Response {
        let request = self.client.post(format!("{}{path}", self.console)).form(form);
        self.as_here(request).send().await.unwrap()
    }

    /// The fragment that a form's post gives.
    async fn fragment(&self, path: &str, form: &[(&str, &str)]) -> String {
        self.post(path, form).await.text().await.unwrap()
    }

    /// Launches; the campaign's path.
    async fn launch(&self, form: &[(&str, &str)]) -> String {
        let answer = self.post("/announce/launch", form).await;
        assert_eq!(answer.status(), 303, "{}", answer.text().await.unwrap());
        answer.headers()["location"].to_str().unwrap().to_owned()
    }
}

/// A good announcement to everybody, with changes.
fn announcement<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut form = vec![
        ("name", "Soldes"),
        ("expression", "region = \"north\""),
        ("text", "Bonjour {{ contact.first_name }}"),
        ("sender", "BOUTIQUE"),
        ("start", ""),
        ("deadline", ""),
        ("zone", "Indian/Reunion"),
        ("key", "8c0de0f6-9f4f-4b7e-a7a4-0d5c1b2a3f4e"),
    ];
    for (name, value) in changes {
        form.retain(|(other, _)| other != name);
        form.push((name, value));
    }
    form
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_french_reads_french() {
    let installation = Installation::private().await;
    let up = installation.start(&["up", "--simulator", "--data-dir", "data"]);
    let file = installation.file("resources.toml", &resources(up.at("simulator_smpp"), 100));
    installation.json(&up, &["apply", "-f", &file]);
    let csv = format!("{}x,+262692999999,Ana,north,false\n", contacts(3));
    installation.json(&up, &["contacts", "import", &installation.file("contacts.csv", &csv)]);
    let console = up.at("console");
    let french = Visitor::sign_in(console, "fr-RE,fr;q=0.9,en;q=0.8").await;
    let english = Visitor::sign_in(console, "en-GB").await;

    // A mistake in the expression: what the parser says stays English, in a French frame and marked as English.
    let wrong = announcement(&[("expression", "gender = female")]);
    let told = french.fragment("/announce/count", &wrong).await;
    assert!(told.contains("est pas comprise, colonne 10 : "), "{told}");
    assert!(told.contains("lang=\"en\"") && !told.contains("column"), "{told}");
    let told = english.fragment("/announce/count", &wrong).await;
    assert!(told.contains("column 10: ") && !told.contains("colonne"), "{told}");

    // What the form itself checks.
    for (field, value, words) in [
        ("name", "", "Le nom de la campagne : 1 à 200 caractères."),
        ("sender", "X", "3 à 11 lettres, chiffres ou espaces"),
        ("text", "", "Le texte : 1 à 10 000 octets"),
        ("start", "demain", "envoi : un jour et une heure"),
        ("deadline", "demain", "offre : un jour et une heure"),
    ] {
        let told = french
            .fragment("/announce/summary", &announcement(&[(field, value)]))
            .await;
        assert!(told.contains(words), "{field}: {told}");
        assert!(!told.contains("expected"), "{field}: {told}");
    }
    let zone = announcement(&[("zone", "Nulle/Part"), ("deadline", "2100-01-01T10:00")]);
    let told = french.fragment("/announce/summary", &zone).await;
    assert!(told.contains("Le fuseau : un nom IANA"), "{told}");
    let summary = french.post("/announce/launch", &announcement(&[("key", "none")])).await;
    assert_eq!(summary.status(), 422);
    let told = summary.text().await.unwrap();
    assert!(told.contains("vérifiez encore une fois"), "{told}");

    // Who is left out, and the campaign's log.
    let told = french.fragment("/announce/estimate", &announcement(&[])).await;
    assert!(told.contains(">sans consentement 1 <"), "{told}");
    let told = english.fragment("/announce/estimate", &announcement(&[])).await;
    assert!(told.contains(">no consent 1 <"), "{told}");
    let path = french.launch(&announcement(&[])).await;
    let page = french.get(&path).await;
    for action in ["créée", "lancée"] {
        assert!(page.contains(&format!("<td>{action}</td>")), "{action}: {page}");
    }
    let page = english.get(&path).await;
    for action in ["created", "launched"] {
        assert!(page.contains(&format!("<td>{action}</td>")), "{action}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_launches_once_and_what_is_sent_stays_on_the_home_page() {
    let installation = Installation::private().await;
    let up = installation.start(&["up", "--simulator", "--data-dir", "data"]);
    // So slow that it runs for as long as the test looks at it.
    let file = installation.file("resources.toml", &resources(up.at("simulator_smpp"), 1));
    installation.json(&up, &["apply", "-f", &file]);
    let csv = installation.file("contacts.csv", &contacts(300));
    installation.json(&up, &["contacts", "import", &csv]);
    let visitor = Visitor::sign_in(up.at("console"), "en-GB").await;
    let list = |path: &'static str| {
        let request = visitor
            .client
            .get(format!("{}{path}", visitor.console))
            .bearer_auth(KEY);
        async move { request.send().await.unwrap().json::<serde_json::Value>().await.unwrap() }
    };
    let campaigns = || list("/v1/campaigns");
    let templates = || async {
        let listed = list("/v1/resources?kind=template").await;
        let names = listed["resources"].as_array().unwrap().clone().into_iter();
        names
            .filter(|one| one["name"].as_str().unwrap().starts_with("announce-"))
            .count()
    };

    // Pressed by several at once, and again.
    let form = announcement(&[]);
    let pressed = futures::future::join_all((0..8).map(|_| visitor.launch(&form))).await;
    let again = visitor.launch(&form).await;
    assert!(pressed.iter().all(|path| *path == again), "{pressed:?} {again}");
    assert_eq!(campaigns().await["campaigns"].as_array().unwrap().len(), 1);
    assert_eq!(templates().await, 1);
    // Another text under the same key is no launch.
    let other = visitor
        .post("/announce/launch", &announcement(&[("text", "Bonsoir")]))
        .await;
    assert_eq!(other.status(), 409);
    assert_eq!(templates().await, 1);

    // A second one is paused; then there are more newer ones than the page shows.
    let paused = visitor
        .launch(&announcement(&[
            ("name", "Pausée"),
            // The same text to the same phones would be left out.
            ("text", "Bonsoir {{ contact.first_name }}"),
            ("key", "0a4ee5f0-6a9c-4a25-8f09-6b8a6c1f2d3e"),
        ]))
        .await;
    assert_eq!(visitor.post(&format!("{paused}/pause"), &[]).await.status(), 303);
    for number in 0..16 {
        let draft = serde_json::json!({"name": format!("Brouillon {number}"), "audience": "north", "template": "sale"});
        let request = visitor.client.post(format!("{}/v1/campaigns", visitor.console));
        let made = request.bearer_auth(KEY).json(&draft).send().await.unwrap();
        assert!(made.status().is_success());
    }
    let home = visitor.get("/").await;
    let (sending, latest) = home.split_once("id=\"latest\"").unwrap();
    let (_, sending) = sending.split_once("id=\"sending\"").unwrap();
    assert!(sending.contains("Being sent"), "{sending}");
    for path in [&again, &paused] {
        assert!(
            sending.contains(path.as_str()) && !latest.contains(path.as_str()),
            "{path}: {home}"
        );
    }
    assert!(
        latest.contains("Brouillon 15") && !latest.contains("Brouillon 0<"),
        "{latest}"
    );
}
