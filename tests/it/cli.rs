//! The commands as scripts use them: JSON shapes, exit codes, and what is said when something is wrong.

use serde_json::{Value, json};

use crate::support::{
    bus,
    process::{eventually, run},
    tamtam::{Installation, PATIENCE, contacts, orders, resources},
};

#[test]
fn a_text_is_measured_without_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &["sms", "--json", "Bonjour Élodie"], &[]);
    assert!(output.status.success());
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["encoding"], &told["parts"]), (&json!("GSM-7"), &json!(1)));
    assert!(told["cost_micros"].is_u64());
}

#[test]
fn what_a_text_takes_is_told_with_and_without_smart_and_national_tables() {
    let directory = tempfile::tempdir().unwrap();
    let measured = |arguments: &[&str]| -> Value {
        let output = run(directory.path(), &[&["sms", "--json"][..], arguments].concat(), &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let six =
        |told: &Value| ["encoding", "units", "parts", "per_part", "remaining", "non_gsm"].map(|key| told[key].clone());
    let expected = |encoding: &str, numbers: [u64; 4], non_gsm: &[&str]| {
        let [units, parts, per_part, remaining] = numbers.map(|number| json!(number));
        [json!(encoding), units, parts, per_part, remaining, json!(non_gsm)]
    };
    // One unit of the 160 is the escape of `€`.
    let told = measured(&["Élodie: 5 €"]);
    assert_eq!(six(&told), expected("GSM-7", [12, 1, 160, 148], &[]));
    let long = "a".repeat(161);
    assert_eq!(six(&measured(&[&long])), expected("GSM-7", [161, 2, 153, 145], &[]));
    // What GSM-7 lacks is named, each once and in order; smart encoding and tables are only what would be.
    let curly = format!("l’été “{}” ’", "a".repeat(70));
    let told = measured(&[&curly]);
    assert_eq!(six(&told), expected("UCS-2", [80, 2, 67, 54], &["’", "“", "”"]));
    assert_eq!(
        (&told["smart"]["encoding"], &told["smart"]["parts"]),
        (&json!("GSM-7"), &json!(1))
    );
    assert!(told["national"].is_null(), "{told}");
    let told = measured(&["--smart", &curly]);
    assert_eq!(six(&told), expected("GSM-7", [80, 1, 160, 80], &[]));
    // A table costs a header: 155 septets are left, and a letter behind the escape takes two.
    let turkish = "Işık şehir";
    let told = measured(&[turkish]);
    assert_eq!(six(&told), expected("UCS-2", [10, 1, 70, 60], &["ş", "ı"]));
    assert!(told["national"].is_null(), "{told}");
    let told = measured(&["--language", "tr", turkish]);
    assert_eq!(six(&told), expected("GSM-7", [13, 1, 155, 142], &[]));
    assert_eq!(told["national"], json!({"locking": null, "single": "tr"}));
    // An emoji is two units, and no smart form helps it.
    let told = measured(&["--smart", "😀 ’"]);
    assert_eq!(six(&told), expected("UCS-2", [4, 1, 70, 66], &["😀", "’"]));
    let refused = run(directory.path(), &["sms", "--json", "--language", "fr", "x"], &[]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn exit_codes_tell_usage_from_an_unreachable_server() {
    let directory = tempfile::tempdir().unwrap();
    let code = |arguments: &[&str]| run(directory.path(), arguments, &[]).status.code();
    assert_eq!(code(&["campaign", "create"]), Some(2));
    assert_eq!(code(&["no-such-command"]), Some(2));
    assert_eq!(code(&["apply", "-f", "missing.toml"]), Some(2));
    assert_eq!(code(&["audit", "--server", "http://127.0.0.1:1", "--json"]), Some(69));
    assert_eq!(code(&["audit", "--server", "127.0.0.1:1"]), Some(2));
    let database = "postgres://user:word@127.0.0.1:1/none";
    let environment = [("TAMTAM__DATABASE__WAIT", "1s")];
    let output = run(
        directory.path(),
        &["renderer", "--free-ports", "--database", database],
        &environment,
    );
    assert_eq!(output.status.code(), Some(69));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("word@"));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_speak_with_up_as_scripts_expect() {
    let installation = Installation::private().await;
    let up = installation.start(&["up", "--simulator", "--data-dir", "data"]);
    for name in [
        "console",
        "grpc",
        "callbacks",
        "metrics",
        "bus",
        "database",
        "simulator_http",
        "simulator_smpp",
    ] {
        assert!(!up.at(name).is_empty());
    }
    let key_file = installation.path().join("data/api-key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key_file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // The key is found beside the data; a wrong one is refused.
    let server = up.at("console").to_owned();
    let with_directory = ["audit", "--json", "--server", &server, "--data-dir", "data"];
    let found = run(installation.path(), &with_directory, &[]);
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let refused = run(installation.path(), &with_directory, &[("TAMTAM_API_KEY", "tt_wrong")]);
    assert_eq!(refused.status.code(), Some(1));

    // Resources, with every mistake at its line.
    let bad = installation.file(
        "bad.toml",
        "[[trigger]]\nname = \"a\"\non = \"order.placed\"\nwiat = \"30m\"\ntemplate = \"b\"\n",
    );
    let output = installation.command(&up, &["apply", "-f", &bad]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64));
    assert!(told.contains("line 4") && told.contains("wiat"), "{told}");
    let good = installation.file("good.toml", &resources(up.at("simulator_smpp"), 1_000));
    assert_eq!(
        installation.json(&up, &["apply", "-f", &good])["resources"][0]["change"],
        "created"
    );

    // Contacts: what is good goes in, what is not is told; again changes nothing.
    let csv = format!("{}bad,not-a-phone,Ana,north,true\n", contacts(5));
    let csv = installation.file("contacts.csv", &csv);
    let imported = installation.json(&up, &["contacts", "import", &csv]);
    let counts =
        |value: &Value| ["created", "updated", "unchanged", "rejected"].map(|name| value[name].as_u64().unwrap());
    assert_eq!(counts(&imported), [5, 0, 0, 1]);
    assert_eq!(
        counts(&installation.json(&up, &["contacts", "import", &csv])),
        [0, 0, 5, 1]
    );
    let told = installation.command(&up, &["contacts", "import", &csv]);
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("line 7"), "{told}");

    // Audiences.
    let counted = installation.json(&up, &["audience", "count", r#"region = "north""#]);
    assert_eq!(counted["count"], 5);
    let output = installation.command(&up, &["audience", "count", "regoin = = 3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("column"));
    assert!(
        installation
            .command(&up, &["audience", "explain", r#"region = "north""#])
            .status
            .success()
    );
    assert!(
        installation
            .command(&up, &["audience", "list", r#"region = "north""#])
            .status
            .success()
    );

    // Events: one bad line does not refuse the others.
    let lines = format!("{}{{\"source\":\"shop\"}}\nnot json\n", orders(3));
    let file = installation.file("events.ndjson", &lines);
    let published = installation.json(&up, &["events", "publish", &file]);
    assert_eq!((&published["accepted"], &published["rejected"]), (&json!(3), &json!(2)));

    // A campaign from a draft to its end.
    let create = [
        "campaign",
        "create",
        "--name",
        "Soldes",
        "--where",
        r#"region = "north""#,
        "--template",
        "sale",
        "--value",
        "article=tout",
        "--deadline",
        "2h",
    ];
    let id = installation.json(&up, &create)["id"].as_str().unwrap().to_owned();
    assert_eq!(installation.json(&up, &["campaign", "status", &id])["state"], "draft");
    installation.json(&up, &["campaign", "launch", &id]);
    let status = installation.settled(&up, &id);
    for name in [
        "planned",
        "suppressed",
        "accepted",
        "delivered",
        "failed",
        "expired",
        "cancelled",
        "unknown",
        "pending",
    ] {
        assert!(status[name].is_u64(), "{name}: {status}");
    }
    assert_eq!((&status["planned"], &status["delivered"]), (&json!(5), &json!(5)));

    // One message, asked for twice under one key.
    let send = [
        "message",
        "send",
        "--contact",
        "c0",
        "--template",
        "hello",
        "--idempotency-key",
        "k",
    ];
    let first = installation.json(&up, &send)["message_id"].as_str().unwrap().to_owned();
    assert_eq!(installation.json(&up, &send)["message_id"], first.as_str());
    eventually("the message's end", PATIENCE, || {
        let shown = installation.command(&up, &["message", "show", &first, "--json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).ok()?;
        shown["message"]["settled_at"].is_string().then_some(())
    });

    // The analysts' topic.
    let receipts = installation.tail(&up, "receipts");
    assert!(receipts.len() >= 8, "{}", receipts.len());
    for name in ["id", "type", "time", "key", "data"] {
        assert!(!receipts[0][name].is_null(), "{name}: {}", receipts[0]);
    }

    // Keys: a reader may look and not write, and once revoked nothing.
    let made = installation.json(&up, &["keys", "create", "analyst", "--role", "read"]);
    let secret = made["secret"].as_str().unwrap().to_owned();
    let as_reader = |arguments: &[&str]| {
        let arguments = [arguments, &["--server", &server]].concat();
        run(installation.path(), &arguments, &[("TAMTAM_API_KEY", &secret)])
            .status
            .code()
    };
    assert_eq!(as_reader(&["audit"]), Some(0));
    assert_eq!(as_reader(&["apply", "-f", &good]), Some(1));
    installation.json(&up, &["keys", "revoke", made["id"].as_str().unwrap()]);
    eventually("the revocation", PATIENCE, || {
        (as_reader(&["audit"]) == Some(1)).then_some(())
    });

    assert!(installation.json(&up, &["dead-letters", "list"])["dead_letters"].is_array());
    assert_eq!(installation.json(&up, &["audit"])["violations"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_runs_and_its_check_holds() {
    let directory = tempfile::tempdir().unwrap();
    let mut arguments = vec!["demo".to_owned()];
    if bus::is_kafka() {
        arguments.extend(["--kafka".to_owned(), bus::kafka_config().await.brokers]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = run(directory.path(), &arguments, &[]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for row in [
        "events",
        "contacts matched",
        "no-consent",
        "delivered",
        "cost",
        "messages/s",
        "p99",
        "conservation check",
    ] {
        assert!(told.contains(row), "{row}: {told}");
    }
    assert!(!told.contains("FAILS"), "{told}");
}
