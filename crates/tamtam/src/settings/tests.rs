use super::*;

fn load(file: Option<&str>, environment: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tamtam.toml");
    std::fs::write(&path, file.unwrap_or_default()).unwrap();
    Settings::load(&Sources {
        config: Some(&path),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Sources::default()
    })
}

#[test]
fn the_default_file_is_whole_and_says_what_the_code_says() {
    let settings = load(None, &[]).unwrap();
    for topic in &settings.topics {
        let spec = topic.topic.spec();
        assert_eq!(topic.partitions, spec.partitions, "{}", topic.topic);
        assert_eq!(
            topic.retention.as_secs(),
            u64::from(spec.retention_hours) * 3_600,
            "{}",
            topic.topic
        );
    }
    let runner = RunnerConfig::default();
    assert_eq!(settings.stage.batch_records, runner.batch_records);
    assert_eq!(settings.stage.batch_bytes, runner.batch_bytes);
    assert_eq!(settings.stage.concurrency, runner.concurrency);
    assert_eq!(
        (settings.stage.retry_min, settings.stage.retry_max),
        (runner.retry_min, runner.retry_max)
    );
    assert_eq!(settings.listen.console.to_string(), "127.0.0.1:8080");
    assert!(settings.bus.kafka.is_none() && settings.database.url.is_none());
}

#[test]
fn the_environment_goes_over_the_file_and_the_file_over_the_default() {
    let file = "[listen]\nconsole = \"127.0.0.1:1\"\ngrpc = \"127.0.0.1:2\"\n[bus]\nkind = \"kafka\"\nbrokers = \"a:9092,b:9092\"\n[bus.kafka]\nsecurity.protocol = \"SSL\"\n";
    let settings = load(
        Some(file),
        &[
            ("TAMTAM__LISTEN__CONSOLE", "[::1]:3"),
            ("TAMTAM__BUS__KAFKA__SASL_PASSWORD", "secret"),
            ("TAMTAM_API_KEY", "is no setting"),
        ],
    )
    .unwrap();
    assert_eq!(settings.listen.console.to_string(), "[::1]:3");
    assert_eq!(settings.listen.grpc.port(), 2);
    assert_eq!(settings.listen.callbacks.port(), 8081);
    let kafka = settings.bus.kafka.unwrap();
    assert_eq!(kafka.brokers, "a:9092,b:9092");
    assert_eq!(kafka.settings["security.protocol"], "SSL");
    assert_eq!(kafka.settings["sasl.password"], "secret");
}

#[test]
fn every_mistake_is_told_with_key_value_place_and_what_is_expected() {
    let file = "[listen]\nconsole = \"here\"\nconsol = \"127.0.0.1:1\"\n\n[stage]\nbatch_records = 0\n[dispatcher]\nresend_transactional = [1]\n";
    let error = load(Some(file), &[("TAMTAM__DATABASE__URL", "mysql://user:hunter2@host/db")])
        .unwrap_err()
        .to_string();
    assert_eq!(error.lines().count(), 5, "{error}");
    let told = |words: &[&str]| error.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(told(&["line 3", "`listen.consol`", "`listen.console`?"]), "{error}");
    assert!(told(&["line 8", "resend_transactional", "not array"]), "{error}");
    assert!(told(&["line 2", "`here`", "expected an IP address"]), "{error}");
    assert!(told(&["TAMTAM__DATABASE__URL", "expected postgres://"]), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    assert!(told(&["line 6", "`0`", "from 1 to"]), "{error}");
    assert!(load(Some("[listen\n"), &[]).unwrap_err().to_string().contains("line 1"));
    assert!(
        load(None, &[("TAMTAM__BUS__KIND", "kafka")])
            .unwrap_err()
            .to_string()
            .contains("bus.brokers")
    );
    assert!(
        load(None, &[("TAMTAM__NO__SUCH", "1")])
            .unwrap_err()
            .to_string()
            .contains("no such setting")
    );
}
