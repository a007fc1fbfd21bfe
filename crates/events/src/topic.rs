//! The table of topics. It is the source of the README's table, of `tamtam migrate` and of every subscription.

/// A topic of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    Events,
    Jobs,
    OutboundTransactional,
    OutboundBulk,
    Callbacks,
    Receipts,
    Inbound,
    Clicks,
    DeadLetters,
}

/// What is fixed about a topic; partitions and retention are defaults of the settings.
#[derive(Clone, Copy, Debug)]
pub struct TopicSpec {
    /// Without the prefix (`tamtam.` by default).
    pub name: &'static str,
    pub holds: &'static str,
    pub key: &'static str,
    pub partitions: u32,
    pub retention_hours: u32,
    pub producers: &'static str,
    pub consumers: &'static str,
    /// `ce_type` of its records.
    pub schema: &'static str,
}

impl Topic {
    pub const ALL: [Topic; 9] = [
        Topic::Events,
        Topic::Jobs,
        Topic::OutboundTransactional,
        Topic::OutboundBulk,
        Topic::Callbacks,
        Topic::Receipts,
        Topic::Inbound,
        Topic::Clicks,
        Topic::DeadLetters,
    ];

    pub const fn spec(self) -> TopicSpec {
        const WEEK: u32 = 7 * 24;
        const MONTH: u32 = 30 * 24;
        match self {
            Topic::Events => TopicSpec {
                name: "events",
                holds: "business events and contact changes, as published",
                key: "contact id",
                partitions: 8,
                retention_hours: WEEK,
                producers: "ingest, or any system directly",
                consumers: "segmenter",
                schema: "the event's own type",
            },
            Topic::Jobs => TopicSpec {
                name: "jobs",
                holds: "whom to write to, why, with which template",
                key: "contact id",
                partitions: 8,
                retention_hours: WEEK,
                producers: "segmenter, ingest",
                consumers: "renderer",
                schema: "tamtam.job.v1",
            },
            Topic::OutboundTransactional => TopicSpec {
                name: "outbound.transactional",
                holds: "a finished transactional text for one phone",
                key: "contact id",
                partitions: 8,
                retention_hours: WEEK,
                producers: "renderer",
                consumers: "dispatcher",
                schema: "tamtam.outbound.v1",
            },
            Topic::OutboundBulk => TopicSpec {
                name: "outbound.bulk",
                holds: "a finished marketing text for one phone",
                key: "contact id",
                partitions: 8,
                retention_hours: WEEK,
                producers: "renderer",
                consumers: "dispatcher",
                schema: "tamtam.outbound.v1",
            },
            Topic::Callbacks => TopicSpec {
                name: "callbacks",
                holds: "what gateways said, as it came, before it is understood",
                key: "gateway and its id of the part; a reply's phone hash",
                partitions: 8,
                retention_hours: WEEK,
                producers: "receipt-collector",
                consumers: "receipt-collector",
                schema: "tamtam.callback.v1",
            },
            Topic::Receipts => TopicSpec {
                name: "receipts",
                holds: "every state that a message reached, once per message and state",
                key: "contact id",
                partitions: 8,
                retention_hours: MONTH,
                producers: "renderer, dispatcher, receipt-collector",
                consumers: "analysts",
                schema: "tamtam.receipt.v1",
            },
            Topic::Inbound => TopicSpec {
                name: "inbound",
                holds: "replies, STOP",
                key: "contact id",
                partitions: 8,
                retention_hours: MONTH,
                producers: "receipt-collector",
                consumers: "segmenter, analysts",
                schema: "tamtam.inbound.v1",
            },
            Topic::Clicks => TopicSpec {
                name: "clicks",
                holds: "who followed a short link, once per click",
                key: "contact id",
                partitions: 8,
                retention_hours: MONTH,
                producers: "receipt-collector",
                consumers: "segmenter, analysts",
                schema: "tamtam.click.v1",
            },
            Topic::DeadLetters => TopicSpec {
                name: "dead-letters",
                holds: "a record that could not be processed: where it was, why, its bytes",
                key: "as it was",
                partitions: 1,
                retention_hours: MONTH,
                producers: "every stage",
                consumers: "`tamtam dead-letters replay`",
                schema: "tamtam.dead-letter.v1",
            },
        }
    }

    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    pub fn by_name(name: &str) -> Option<Topic> {
        Topic::ALL.into_iter().find(|topic| topic.name() == name)
    }
}

impl std::fmt::Display for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The README's table, in Markdown.
pub fn markdown() -> String {
    let mut table = String::from(
        "| topic | holds | key | partitions | kept | from | to | schema |\n|---|---|---|---|---|---|---|---|\n",
    );
    for topic in Topic::ALL {
        let spec = topic.spec();
        table.push_str(&format!(
            "| {} | {} | {} | {} | {} days | {} | {} | {} |\n",
            spec.name,
            spec.holds,
            spec.key,
            spec.partitions,
            spec.retention_hours / 24,
            spec.producers,
            spec.consumers,
            spec.schema
        ));
    }
    table
}
