//! The layers hold: which crate may name what is read from the manifests and the sources themselves.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const SERVICES: [&str; 7] = [
    "ingest",
    "segmenter",
    "renderer",
    "dispatcher",
    "receipt-collector",
    "console",
    "simulator",
];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates")
}

/// Each crate's own dependencies, without the ones of tests.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(crates()).unwrap().flatten() {
        let manifest = fs::read_to_string(entry.path().join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let names = manifest["dependencies"].as_table().unwrap().keys().cloned().collect();
        all.insert(entry.file_name().into_string().unwrap(), names);
    }
    assert!(all.len() > 10, "the crates are where they were expected");
    all
}

fn sources(of: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(of).unwrap().flatten() {
        let path = entry.path();
        // Examples and tests of a crate are no part of what is deployed.
        let deployed = !path.ends_with("examples") && !path.ends_with("tests");
        if path.is_dir() && deployed {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The source files of all crates whose code (not comments) holds `word`, relative to `crates/`.
fn files_naming(word: &str) -> Vec<String> {
    let mut files = Vec::new();
    sources(&crates(), &mut files);
    files
        .iter()
        .filter(|path| {
            fs::read_to_string(path)
                .unwrap()
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(word))
        })
        .map(|path| path.strip_prefix(crates()).unwrap().display().to_string())
        .collect()
}

#[test]
fn domain_and_events_depend_on_nothing_that_does_io() {
    let all = dependencies();
    for pure in ["domain", "events", "resources"] {
        for name in [
            "tokio", "sqlx", "rdkafka", "reqwest", "axum", "tonic", "store", "bus", "stage", "rand", "tracing",
        ] {
            assert!(!all[pure].iter().any(|has| has == name), "{pure} depends on {name}");
        }
    }
    for word in [
        "std::fs",
        "std::net",
        "std::time::Instant",
        "SystemTime",
        "Timestamp::now",
        "Zoned::now",
    ] {
        let named: Vec<String> = files_naming(word)
            .into_iter()
            .filter(|file| file.starts_with("domain/") || file.starts_with("events/"))
            .collect();
        assert!(named.is_empty(), "{word} in {named:?}");
    }
}

#[test]
fn services_do_not_depend_on_each_other() {
    let all = dependencies();
    for (krate, names) in &all {
        if krate == "tamtam" {
            continue;
        }
        for service in SERVICES {
            assert!(
                !names.iter().any(|name| name == service),
                "{krate} depends on {service}"
            );
        }
    }
}

#[test]
fn the_broker_client_and_the_database_driver_are_named_in_one_place() {
    for (krate, names) in dependencies() {
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        assert!(!has("rdkafka") || krate == "bus", "{krate} depends on rdkafka");
        assert!(
            !has("sqlx") || ["bus", "store"].contains(&krate.as_str()),
            "{krate} depends on sqlx"
        );
    }
    // Whoever has no dependency cannot name it; inside the bus each half keeps to its own.
    for (word, half) in [("rdkafka::", "bus/src/kafka"), ("sqlx::", "bus/src/postgres")] {
        for file in files_naming(word).iter().filter(|file| file.starts_with("bus/")) {
            let contract = ["bus/src/lib.rs", "bus/src/config.rs"].contains(&file.as_str());
            assert!(file.starts_with(half) || contract, "{file} names {word}");
        }
    }
}

#[test]
fn the_environment_is_read_by_the_binary_alone() {
    for word in ["env::var", "env::vars", "env::args"] {
        for file in files_naming(word) {
            let build_script = file.ends_with("build.rs");
            assert!(
                file.starts_with("tamtam/") || build_script,
                "{file} reads the environment ({word})"
            );
        }
    }
}

#[test]
fn no_source_file_grew_past_one_idea() {
    let mut files = Vec::new();
    sources(&crates(), &mut files);
    for path in files {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 700, "{} has {lines} lines", path.display());
    }
}
