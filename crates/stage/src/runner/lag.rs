//! How far a stage is behind, as a gauge for each partition that this member owns.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bus::{Log, Partition};
use events::Topic;
use tokio::sync::watch;

const EVERY: Duration = Duration::from_secs(10);

/// Until its owner is gone.
pub(super) async fn report(
    stage: &'static str,
    topics: &'static [Topic],
    log: Arc<dyn Log>,
    mut owned: watch::Receiver<Vec<Partition>>,
) {
    let mut shown = BTreeSet::new();
    loop {
        let ours: BTreeSet<Partition> = owned.borrow_and_update().iter().copied().collect();
        // Another member shows these now; two gauges of one partition would be added up.
        for gone in shown.difference(&ours) {
            set(stage, *gone, 0);
        }
        shown = ours;
        if !shown.is_empty() {
            match log.lag(stage, topics).await {
                Ok(lags) => {
                    for lag in lags.iter().filter(|lag| shown.contains(&lag.partition)) {
                        set(stage, lag.partition, lag.end - lag.committed);
                    }
                }
                Err(error) => tracing::debug!(stage, %error, "the lag cannot be read"),
            }
        }
        tokio::select! {
            changed = owned.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

fn set(stage: &'static str, partition: Partition, records: i64) {
    metrics::gauge!(
        "tamtam_stage_lag",
        "stage" => stage,
        "topic" => partition.topic.name(),
        "partition" => partition.number.to_string()
    )
    .set(records as f64);
}
