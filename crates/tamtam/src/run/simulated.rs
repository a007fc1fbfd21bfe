//! The gateway `simulator`, which leads to the simulator of `tamtam up --simulator`.

use std::net::SocketAddr;

use jiff::Timestamp;
use resources::{Kind, Resource};
use serde_json::{Value, json};
use store::{Store, StoreError};

/// Who wrote it, so that a gateway of the same name that somebody configured is left alone.
const AUTHOR: &str = "tamtam up";
const NAME: &str = "simulator";

/// Makes the gateway where there is none of that name; the one made at an earlier start gets this start's address.
pub async fn ensure(store: &Store, smpp: SocketAddr, now: Timestamp) -> Result<(), StoreError> {
    let body = match store.resource_get(Kind::Gateway.as_str(), NAME).await? {
        Some(row) if row.updated_by != AUTHOR => return Ok(()),
        Some(row) => {
            let mut body = row.body;
            body["address"] = Value::String(smpp.to_string());
            body
        }
        None => json!({
            "name": NAME,
            "kind": "smpp",
            "address": smpp.to_string(),
            // Its own: receipts go to whoever is bound under the system id that sent, and somebody may configure another
            // gateway that leads to the simulator.
            "system_id": "simulator",
            "password": "tamtam",
            "rate": 2_000,
            "window": 100,
            "priority": 100,
        }),
    };
    // In the form that `tamtam apply` writes, so that applying the same is no change.
    let body = match Resource::from_json(Kind::Gateway, body.clone()) {
        Ok(resource) => resource.to_json(),
        Err(_) => body,
    };
    let mut tx = store.begin().await?;
    let change = (Kind::Gateway.as_str().to_owned(), NAME.to_owned(), body);
    tx.resources_apply(&[change], AUTHOR, now).await?;
    tx.commit().await
}
