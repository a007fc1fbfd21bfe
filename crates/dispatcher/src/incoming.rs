//! What a gateway says on the connection that we send by (SMPP transceivers): kept on `callbacks` before it is answered,
//! as the receipt-collector keeps what comes to it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use bus::{Log, NewRecord};
use domain::phone::PhoneKey;
use events::{Callback, Topic};
use gateways::{Incoming, Undelivered, key::callback_key};
use stage::Live;
use uuid::Uuid;

#[derive(Debug)]
pub(crate) struct ToCallbacks {
    pub log: Arc<dyn Log>,
    pub live: Live,
    pub phone_key: PhoneKey,
    pub instance: Uuid,
    pub count: AtomicU64,
}

#[async_trait]
impl Incoming for ToCallbacks {
    async fn deliver(&self, callback: Callback) -> Result<(), Undelivered> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}:{number}", self.instance.hyphenated());
        let snapshot = self.live.current();
        let resource = snapshot.gateways.get(&callback.gateway);
        let key = callback_key(&callback, resource.map(|resource| &**resource), &self.phone_key).key;
        let record = NewRecord::wrap(Topic::Callbacks, &key, id, callback.received_at, None, &callback);
        self.log
            .append(vec![record])
            .await
            .map_err(|error| Undelivered(error.to_string()))
    }
}
