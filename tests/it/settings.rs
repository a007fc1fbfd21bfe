//! Bad settings end a process before it does anything, with what is wrong and what was expected.

use crate::support::process::run;

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
