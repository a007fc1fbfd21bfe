//! A campaign's start as a local time of a zone.

use api::Role;
use jiff::{Timestamp, tz::TimeZone};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    server::Server,
    tamtam::{Installation, contacts, resources},
};

const TEMPLATE: &str =
    "[[template]]\nname = \"sale\"\nclass = \"marketing\"\nsender = \"BOUTIQUE\"\ntext = \"Soldes\"\n";

async fn shop() -> Server {
    let server = Server::start().await;
    server.apply(TEMPLATE).await;
    server
}

const CREATE: [&str; 8] = [
    "campaign",
    "create",
    "--name",
    "x",
    "--template",
    "sale",
    "--where",
    "age < 30",
];

/// A draft; its id.
fn draft(server: &Server, more: &[&str]) -> String {
    let created = server.json(&[&CREATE, more].concat());
    created["id"].as_str().unwrap().to_owned()
}

fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn start(campaign: &Value) -> Timestamp {
    assert_eq!(campaign["state"], "scheduled", "{campaign}");
    instant(campaign["at"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_time_is_an_instant_of_its_zone_whatever_the_clocks_do() {
    let server = shop().await;
    let cases = [
        ("2031-12-24T09:00", "Indian/Reunion", "2031-12-24T05:00:00Z"),
        ("2031-01-15T09:00", "Europe/Paris", "2031-01-15T08:00:00Z"),
        ("2031-07-15T09:00", "Europe/Paris", "2031-07-15T07:00:00Z"),
        // The clock goes from 02:00 to 03:00, and in autumn from 03:00 to 02:00.
        ("2031-03-30T02:30", "Europe/Paris", "2031-03-30T01:30:00Z"),
        ("2031-10-26T02:30", "Europe/Paris", "2031-10-26T00:30:00Z"),
        ("2031-07-15T09:00:30", "America/New_York", "2031-07-15T13:00:30Z"),
        // An offset says it all.
        ("2031-07-15T09:00:00+04:00", "Europe/Paris", "2031-07-15T05:00:00Z"),
    ];
    for (at, zone, expected) in cases {
        let id = draft(&server, &[]);
        let launched = server.json(&["campaign", "launch", &id, "--at", at, "--zone", zone]);
        assert_eq!(start(&launched), instant(expected), "launched at {at} in {zone}");
        let id = draft(&server, &["--at", at, "--zone", zone]);
        let launched = server.json(&["campaign", "launch", &id]);
        assert_eq!(start(&launched), instant(expected), "made for {at} in {zone}");
    }
    // Without a zone it is the campaign's own.
    let id = draft(&server, &["--zone", "America/New_York"]);
    let launched = server.json(&["campaign", "launch", &id, "--at", "2031-01-15T09:00"]);
    assert_eq!(start(&launched), instant("2031-01-15T14:00:00Z"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_is_none_is_refused_and_nothing_starts() {
    let server = shop().await;
    let id = draft(&server, &[]);
    let refused = |arguments: &[&str]| {
        let output = server.command(Role::Campaigns, arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told)
    };
    let local = "2031-12-24T09:00";
    let launch = ["campaign", "launch", &id];
    for command in [&launch[..], &CREATE] {
        let (code, told) = refused(&[command, &["--at", local, "--zone", "Mars/Olympus"]].concat());
        assert_eq!(code, Some(2), "{told}");
        for part in ["Mars/Olympus", "--zone", "expected an IANA zone such as Indian/Reunion"] {
            assert!(told.contains(part), "{told}");
        }
    }
    let (code, told) = refused(&[&launch[..], &["--zone", "Europe/Paris"]].concat());
    assert!(code == Some(2) && told.contains("--at"), "{told}");
    let (code, told) = refused(&[&launch[..], &["--at", "Christmas"]].concat());
    assert!(
        code == Some(2) && told.contains("--at") && told.contains("2026-12-24T09:00 with --zone"),
        "{told}"
    );
    // Whether the campaign has a zone of its own is the server's to know.
    let (code, told) = refused(&[&launch[..], &["--at", local]].concat());
    assert!(
        code == Some(1) && told.contains("zone: a time without an offset is a local one: expected"),
        "{told}"
    );

    // Over HTTP the same, also where an offset makes the zone needless.
    let path = format!("/v1/campaigns/{id}/launch");
    for (query, field) in [
        ("at=2031-12-24T09:00&zone=Mars/Olympus", "zone"),
        ("at=2031-12-24T09:00:00Z&zone=Mars/Olympus", "zone"),
        ("at=2031-12-24T09:00", "zone"),
        ("zone=Europe/Paris", "at"),
    ] {
        let (status, problem) = server.send(Method::POST, &format!("{path}?{query}"), None).await;
        assert_eq!(
            (status, &problem["field"]),
            (StatusCode::BAD_REQUEST, &json!(field)),
            "{query}: {problem}"
        );
        assert!(
            problem["detail"].as_str().unwrap().contains("expected"),
            "{query}: {problem}"
        );
    }
    let campaign = server.get(&format!("/v1/campaigns/{id}")).await;
    assert_eq!((&campaign["state"], &campaign["at"]), (&json!("draft"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_starts_when_its_local_time_has_come() {
    let installation = Installation::private().await;
    let up = installation.start(&["up", "--simulator", "--data-dir", "data"]);
    let toml = installation.file("r.toml", &resources(up.at("simulator_smpp"), 1_000));
    installation.json(&up, &["apply", "-f", &toml]);
    let csv = installation.file("c.csv", &contacts(2));
    installation.json(&up, &["contacts", "import", &csv]);
    let create = [
        "campaign",
        "create",
        "--name",
        "x",
        "--audience",
        "north",
        "--template",
        "sale",
    ];
    let created = installation.json(&up, &[&create[..], &["--value", "article=tout"]].concat());
    let id = created["id"].as_str().unwrap();

    // Without summer time, so that no hour of the year comes twice.
    let zone = TimeZone::get("Indian/Reunion").unwrap();
    let soon = Timestamp::from_second(Timestamp::now().as_second() + 6).unwrap();
    let local = zone.to_datetime(soon).to_string();
    let launch = ["campaign", "launch", id, "--at", &local, "--zone", "Indian/Reunion"];
    let launched = installation.json(&up, &launch);
    assert_eq!(start(&launched), soon);
    let status = installation.settled(&up, id);
    assert_eq!((&status["planned"], &status["delivered"]), (&json!(2), &json!(2)));
    let started = instant(status["launched_at"].as_str().unwrap());
    assert!(started >= soon, "{started} is before {soon}");
}
