//! A receiver bind for every SMPP gateway that is configured, started and stopped as the resources change.

use std::{collections::BTreeMap, sync::Arc};

use gateways::Now;
use resources::{
    Gateway,
    gateway::{Bind, GatewayKind, Secrets},
};
use stage::{Clock, Live};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::appender::Appender;

struct Receiver {
    resource: Arc<Gateway>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Lets what it received be kept and answered, then unbinds.
    async fn end(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

/// Until `shutdown`.
pub(crate) async fn keep(
    mut live: Live,
    secrets: Secrets,
    clock: Clock,
    appender: Appender,
    shutdown: CancellationToken,
) {
    let now: Now = Arc::new(move || clock.now());
    let mut receivers: BTreeMap<String, Receiver> = BTreeMap::new();
    loop {
        let wanted: BTreeMap<String, Arc<Gateway>> = live
            .current()
            .gateways
            .iter()
            .filter(|(_, gateway)| gateway.kind == GatewayKind::Smpp && gateway.bind == Bind::TransmitterReceiver)
            .map(|(name, gateway)| (name.clone(), gateway.clone()))
            .collect();
        let gone: Vec<String> = receivers
            .iter()
            .filter(|(name, receiver)| wanted.get(*name).is_none_or(|gateway| *gateway != receiver.resource))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(receiver) = receivers.remove(&name) {
                receiver.end().await;
            }
        }
        for (name, resource) in wanted {
            receivers.entry(name).or_insert_with(|| {
                // Its own token, not the process's: the bind ends after what it received is kept.
                let stop = shutdown.child_token();
                let password = resource.password(&secrets);
                let task = tokio::spawn(gateways::receive(
                    resource.as_ref().clone(),
                    password,
                    now.clone(),
                    Arc::new(appender.clone()),
                    stop.clone(),
                ));
                Receiver { resource, stop, task }
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = live.changed() => {}
        }
    }
    for receiver in receivers.into_values() {
        receiver.end().await;
    }
}
