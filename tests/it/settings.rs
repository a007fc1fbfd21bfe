//! Bad settings end a process before it does anything, with what is wrong and what was expected.

use std::net::TcpListener;

use crate::support::process::run;

const LISTENS: [&str; 6] = [
    "CONSOLE",
    "GRPC",
    "CALLBACKS",
    "METRICS",
    "SIMULATOR_HTTP",
    "SIMULATOR_SMPP",
];

#[test]
fn bad_settings_exit_64_before_anything_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("tamtam.toml");
    std::fs::write(
        &config,
        "[listen]\nconsole = \"127.0.0.1:0\"\nconsol = 1\n\n[bus]\nkind = \"rabbit\"\n",
    )
    .unwrap();
    let output = run(
        directory.path(),
        &["up"],
        &[("TAMTAM__DISPATCHER__BATCH_RECORDS", "many")],
    );
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(told.contains("tamtam.toml, line 3: `listen.consol`"), "{told}");
    assert!(
        told.contains("tamtam.toml, line 6: `bus.kind` is `rabbit`: expected postgres or kafka"),
        "{told}"
    );
    assert!(
        told.contains("TAMTAM__DISPATCHER__BATCH_RECORDS: `dispatcher.batch_records` is `many`"),
        "{told}"
    );
    assert!(output.stdout.is_empty());
    assert!(!directory.path().join(".tamtam").exists());
}

#[test]
fn a_role_without_a_database_and_a_bad_kafka_setting_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &["renderer"], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--database"));

    let database = ("TAMTAM__DATABASE__URL", "postgres://127.0.0.1:1/none");
    let output = run(
        directory.path(),
        &["renderer", "--kafka", "127.0.0.1:1"],
        &[database, ("TAMTAM__BUS__KAFKA__NO_SUCH_SETTING", "1")],
    );
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(told.contains("no.such.setting"), "{told}");
}

#[test]
fn the_defaults_are_printed_and_are_good_settings() {
    let directory = tempfile::tempdir().unwrap();
    let printed = run(directory.path(), &["settings"], &[]);
    assert!(printed.status.success());
    std::fs::write(directory.path().join("tamtam.toml"), &printed.stdout).unwrap();
    // Good as far as it goes: what is missing is the database.
    let output = run(directory.path(), &["renderer"], &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("database.url"));
}

/// With every port taken a process that binds one before it has read its settings would end otherwise.
#[test]
fn a_bad_setting_is_told_before_a_port_is_bound() {
    let directory = tempfile::tempdir().unwrap();
    let taken: Vec<TcpListener> = LISTENS
        .iter()
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let listen: Vec<(String, String)> = LISTENS
        .iter()
        .zip(&taken)
        .map(|(name, port)| {
            (
                format!("TAMTAM__LISTEN__{name}"),
                port.local_addr().unwrap().to_string(),
            )
        })
        .collect();
    let end = |arguments: &[&str], more: &[(&str, &str)]| {
        let mut environment: Vec<(&str, &str)> = listen
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        environment.extend(more);
        let output = run(directory.path(), arguments, &environment);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told)
    };
    let database = "postgres://127.0.0.1:1/none";
    let with_ports = [
        ("ingest", "listen.grpc"),
        ("console", "listen.console"),
        ("receipt-collector", "listen.callbacks"),
        ("renderer", "listen.metrics"),
        ("segmenter", "listen.metrics"),
        ("dispatcher", "listen.metrics"),
    ];
    for (role, port) in with_ports {
        // The ports are taken, and that is what a start with good settings says.
        let (code, told) = end(&[role, "--database", database], &[]);
        assert_eq!(code, Some(1), "{role}: {told}");
        assert!(
            told.contains(port) && told.contains("cannot be bound"),
            "{role}: {told}"
        );

        let bad = [("TAMTAM__STAGE__BATCH_RECORDS", "many")];
        let (code, told) = end(&[role, "--database", database], &bad);
        assert_eq!(code, Some(64), "{role}: {told}");
        assert!(!told.contains("cannot be bound"), "{role}: {told}");
        let (code, told) = end(&[role], &[]);
        assert_eq!(code, Some(64), "{role} without a database: {told}");
        let bad = [("TAMTAM__BUS__KAFKA__NO_SUCH_SETTING", "1")];
        let (code, told) = end(&[role, "--database", database, "--kafka", "127.0.0.1:1"], &bad);
        assert_eq!(code, Some(64), "{role}: {told}");
    }
    for arguments in [&["up", "--simulator"][..], &["simulator"]] {
        let (code, told) = end(arguments, &[("TAMTAM__LISTEN__GRPC", "nowhere")]);
        assert_eq!(code, Some(64), "{arguments:?}: {told}");
        assert!(told.contains("listen.grpc"), "{told}");
    }
    let (code, told) = end(&["simulator"], &[]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("listen.simulator_http"), "{told}");
    assert!(!directory.path().join(".tamtam").exists());
}
