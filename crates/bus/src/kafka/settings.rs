//! librdkafka's settings: ours, then the user's over them, except for those that the guarantees rest on.

use rdkafka::{ClientConfig, config::RDKafkaLogLevel, error::KafkaError};

use crate::{BusError, KafkaConfig, MAX_RECORD_BYTES};

/// What a record's framing may add to [`MAX_RECORD_BYTES`] on the wire.
const FRAMING_BYTES: usize = 64 * 1024;
/// A topic's `max.message.bytes`, and what a producer puts in a message at most.
pub(super) const MESSAGE_BYTES: usize = MAX_RECORD_BYTES + FRAMING_BYTES;

/// Set by us alone, and why.
const REFUSED: [(&str, &str); 12] = [
    ("bootstrap.servers", "the brokers have a setting of their own"),
    ("metadata.broker.list", "the brokers have a setting of their own"),
    ("group.id", "every role has its group"),
    ("acks", "a record is acknowledged when all in-sync replicas have it"),
    (
        "request.required.acks",
        "a record is acknowledged when all in-sync replicas have it",
    ),
    ("enable.idempotence", "retries must neither repeat nor reorder records"),
    (
        "enable.gapless.guarantee",
        "a record that fails is reported and appended again by its stage",
    ),
    (
        "transactional.id",
        "transactions are not used: the consumer offset is the outbox",
    ),
    ("enable.auto.commit", "an offset is committed when its records are done"),
    (
        "enable.auto.offset.store",
        "an offset is committed when its records are done",
    ),
    ("auto.offset.reset", "a new group reads from the start"),
    (
        "partitioner",
        "one contact's records go to one partition, whoever writes them",
    ),
];

/// Settings that only one kind of client takes; librdkafka warns when the other kind gets them.
const CONSUMER: [&str; 7] = [
    "group.",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
    "fetch.",
    "queued.",
];
const PRODUCER: [&str; 7] = [
    "linger.ms",
    "queue.buffering.",
    "batch.",
    "compression.",
    "delivery.timeout.ms",
    "message.timeout.ms",
    "retries",
];

/// Refuses what is not the user's to set, and what librdkafka does not know.
pub(super) fn check(config: &KafkaConfig) -> Result<(), BusError> {
    for (key, value) in &config.settings {
        let refused = |reason: String| BusError::Setting {
            key: key.clone(),
            reason,
        };
        if let Some((_, why)) = REFUSED.iter().find(|(name, _)| name == key) {
            return Err(refused(format!("not for the user to set: {why}")));
        }
        let alone = ClientConfig::new().set(key, value).create_native_config();
        if let Err(error) = alone {
            // The error's own text has the value, which can be a password.
            let reason = match error {
                KafkaError::ClientConfig(_, text, ..) if !text.contains(value.as_str()) => text,
                _ => "librdkafka refuses the value".into(),
            };
            return Err(refused(reason));
        }
    }
    Ok(())
}

fn client(config: &KafkaConfig, others: &[&str]) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", "tamtam")
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.max.ms", "2000")
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set_log_level(RDKafkaLogLevel::Warning);
    for (key, value) in &config.settings {
        let is_theirs = others
            .iter()
            .any(|other| key == other || (other.ends_with('.') && key.starts_with(other)));
        if !is_theirs {
            client.set(key, value);
        }
    }
    client
}

/// For metadata, offsets and administration.
pub(super) fn plain(config: &KafkaConfig) -> ClientConfig {
    client(config, &[&CONSUMER[..], &PRODUCER[..]].concat())
}

pub(super) fn producer(config: &KafkaConfig) -> ClientConfig {
    let mut ours = ClientConfig::new();
    ours.set("linger.ms", "2")
        .set("compression.type", "lz4")
        .set("delivery.timeout.ms", "30000")
        // Bounds what waits in memory; beyond it `append` waits.
        .set("queue.buffering.max.kbytes", "131072")
        .set("queue.buffering.max.messages", "100000")
        .set("topic.metadata.propagation.max.ms", "5000");
    let mut merged = over(ours, client(config, &CONSUMER));
    merged
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", MESSAGE_BYTES.to_string());
    merged
}

pub(super) fn consumer(config: &KafkaConfig, group: &str) -> ClientConfig {
    let mut ours = ClientConfig::new();
    ours.set("max.poll.interval.ms", "300000")
        .set("fetch.wait.max.ms", "500")
        // Of one partition at a time, so that what is fetched ahead is of all of them.
        .set("fetch.message.max.bytes", "262144")
        // A partition of which enough is there is not asked for again before: by default for a second, in which a stage that
        // lags works off what it has and then waits.
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.min.messages", "2000")
        .set("queued.max.messages.kbytes", "8192");
    // With the newer group protocol these belong to the broker, and librdkafka refuses them.
    if config
        .settings
        .get("group.protocol")
        .is_none_or(|protocol| protocol != "consumer")
    {
        ours.set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "2000")
            .set("partition.assignment.strategy", "cooperative-sticky");
    }
    let mut merged = over(ours, client(config, &PRODUCER));
    merged
        .set("group.id", format!("{}{group}", config.prefix))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false");
    merged
}

fn over(mut ours: ClientConfig, theirs: ClientConfig) -> ClientConfig {
    for (key, _) in theirs.config_map() {
        if let Some(value) = theirs.get(key) {
            ours.set(key, value);
        }
    }
    ours.set_log_level(theirs.log_level);
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(key: &str, value: &str) -> KafkaConfig {
        KafkaConfig {
            brokers: "localhost:9092".into(),
            prefix: "tamtam.".into(),
            settings: [(key.to_owned(), value.to_owned())].into(),
        }
    }

    #[test]
    fn what_the_guarantees_rest_on_is_refused_by_name() {
        for (key, value) in [
            ("acks", "1"),
            ("enable.idempotence", "false"),
            ("enable.auto.commit", "true"),
        ] {
            let error = check(&config(key, value)).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
        let error = check(&config("no.such.thing", "1")).unwrap_err().to_string();
        assert!(error.contains("no.such.thing"), "{error}");
        let error = check(&config("security.protocol", "geheim")).unwrap_err().to_string();
        assert!(!error.contains("geheim"), "{error}");
    }

    #[test]
    fn the_users_settings_go_over_ours_and_tls_and_sasl_are_there() {
        let given = config("session.timeout.ms", "45000");
        assert_eq!(consumer(&given, "g").get("session.timeout.ms"), Some("45000"));
        assert_eq!(producer(&given).get("session.timeout.ms"), None);
        assert_eq!(consumer(&given, "g").get("group.id"), Some("tamtam.g"));
        let newer = consumer(&config("group.protocol", "consumer"), "g");
        assert_eq!(newer.get("session.timeout.ms"), None);
        newer.create_native_config().unwrap();
        for (key, value) in [("security.protocol", "sasl_ssl"), ("sasl.mechanism", "SCRAM-SHA-512")] {
            check(&config(key, value)).unwrap();
            producer(&config(key, value)).create_native_config().unwrap();
        }
    }
}
