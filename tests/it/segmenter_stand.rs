//! A segmenter on a real bus and a real database, and what its tests give it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ::bus::{Log, StoredRecord};
use domain::{Consent, Phone, contact::ContactChange};
use events::Topic;
use jiff::Timestamp;
use stage::{Clock, Live, RunnerConfig};
use store::{NewCampaign, Store};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    stage::{eventually, id_of, records},
    support::{bus, campaign::drafted, resources::apply},
};

pub(crate) const RESOURCES: &str = r#"
[[template]]
name = "t"
class = "marketing"
sender = "BOUTIQUE"
text = "Bonjour {{ contact.first_name | default('vous') }}"

[[audience]]
name = "north"
where = 'region = "north"'

[[trigger]]
name = "confirm"
on = "order.placed"
when = 'event.amount > 0'
template = "t"
deadline = "1h"
vars = { shop = "Saint-Denis" }

[[trigger]]
name = "second-order"
on = "order.placed"
when = 'did order.placed count = 2'
audience = "north"
once_per = "7d"
template = "t"

[[trigger]]
name = "cart"
on = "cart.updated"
wait = "2s"
unless = 'order.placed(category = event.category)'
template = "t"

[policy]
default_region = "RE"

[[policy.price]]
micros = 50000
"#;

pub(crate) fn contact(id: &str, phone: Option<&str>, region: &str) -> ContactChange {
    ContactChange {
        id: id.into(),
        phone: Some(phone.map(Phone::from_e164)),
        region: Some(Some(region.into())),
        marketing_consent: Some(Consent::Given(None)),
        ..ContactChange::default()
    }
}

pub(crate) async fn contacts(store: &Store, changes: &[ContactChange]) {
    let mut tx = store.begin().await.unwrap();
    tx.contacts_upsert(changes, "test", "test", Timestamp::now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

pub(crate) async fn many(store: &Store, count: u32) {
    for from in (0..count).step_by(5_000) {
        let changes: Vec<ContactChange> = (from..(from + 5_000).min(count))
            .map(|number| contact(&format!("c{number:06}"), Some(&format!("+262692{number:06}")), "north"))
            .collect();
        contacts(store, &changes).await;
    }
}

/// A segmenter in a runtime of its own: dropped, everything in it stops where it stands, as when a process is killed.
pub(crate) struct Process {
    runtime: Option<tokio::runtime::Runtime>,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Process {
    fn start(url: &str, kafka: Option<::bus::KafkaConfig>) -> Process {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let (url, token) = (url.to_owned(), stop.clone());
        let task = runtime.spawn(async move {
            let store = Store::connect(&url, 10, Duration::from_secs(10)).await.unwrap();
            let config = match kafka {
                Some(kafka) => ::bus::BusConfig::Kafka(kafka),
                None => ::bus::BusConfig::Postgres(::bus::PostgresConfig {
                    pool: store.pool().clone(),
                }),
            };
            let config = segmenter::Config {
                log: ::bus::open(config).await.unwrap(),
                live: Live::start(store.clone(), token.clone()).await.unwrap(),
                clock: Clock::system(),
                phone_key: store.phone_key().await.unwrap(),
                trace_sample: 0.0,
                runner: RunnerConfig::default(),
                store,
            };
            segmenter::run(config, token).await.unwrap();
        });
        Process {
            runtime: Some(runtime),
            stop,
            task: Some(task),
        }
    }

    pub(crate) fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that fails drops us within its own runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) struct Stand {
    pub store: Store,
    pub url: String,
    pub log: Arc<dyn Log>,
    pub kafka: Option<::bus::KafkaConfig>,
}

impl Stand {
    pub async fn new() -> Stand {
        let url = crate::support::database::empty_database().await;
        let store = Store::connect(&url, 10, Duration::from_secs(10)).await.unwrap();
        store.migrate().await.unwrap();
        let bus = bus::start(&store).await;
        apply(&store, RESOURCES).await;
        Stand {
            store,
            url,
            log: bus.log,
            kafka: bus.kafka,
        }
    }

    pub fn start(&self) -> Process {
        Process::start(&self.url, self.kafka.clone())
    }

    pub async fn jobs(&self) -> Vec<StoredRecord> {
        records(&*self.log, Topic::Jobs).await
    }

    /// Waits until the campaign is expanded and all its jobs are there.
    pub async fn on_the_bus(&self, id: Uuid) {
        eventually("all is on the bus", || async {
            let now = self.store.campaign_get(id).await.unwrap().unwrap();
            now.expanded_at.is_some() && self.store.campaign_chunks_open(id).await.unwrap() == 0
        })
        .await;
    }

    pub async fn waiting(&self) -> i64 {
        self.store.deferred_count().await.unwrap().0
    }

    pub async fn launch(&self, new: NewCampaign) -> Uuid {
        let mut tx = self.store.begin().await.unwrap();
        let campaign = tx.campaign_create(&new, "test", Timestamp::now()).await.unwrap();
        tx.campaign_launch(new.id, None, &new.expression, "test", Timestamp::now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        campaign.id
    }
}

pub(crate) fn campaign(expression: &str) -> NewCampaign {
    drafted(
        Uuid::from_u128(u128::from(std::process::id()) << 64 | 77),
        "Soldes",
        expression,
        "t",
    )
}

pub(crate) fn distinct(jobs: &[StoredRecord]) -> BTreeSet<String> {
    jobs.iter().map(id_of).collect()
}
