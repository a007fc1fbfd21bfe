//! Resources as a test writes them, applied.

use jiff::Timestamp;
use resources::parse_toml;
use serde_json::Value;
use store::Store;

/// What was applied: kind, name, JSON.
pub async fn apply(store: &Store, toml: &str) -> Vec<(String, String, Value)> {
    let rows: Vec<(String, String, Value)> = parse_toml(toml)
        .unwrap()
        .iter()
        .map(|resource| {
            (
                resource.kind().to_string(),
                resource.name().to_owned(),
                resource.to_json(),
            )
        })
        .collect();
    let mut tx = store.begin().await.unwrap();
    tx.resources_apply(&rows, "test", Timestamp::now()).await.unwrap();
    tx.commit().await.unwrap();
    rows
}
