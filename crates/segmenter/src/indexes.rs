//! Keeps the indexes that audiences ask for ([`store::audience::properties`]). One replica at a time does.

use stage::Clock;
use store::{
    Store,
    audience::properties::{LEAST, LOOK},
};
use tokio_util::sync::CancellationToken;

pub(crate) async fn keep(store: Store, clock: Clock, stop: CancellationToken) {
    let mut failing = false;
    loop {
        let (store, now) = (store.clone(), clock.now());
        // A task of its own is not cancelled with us (sqlx #4393).
        let looking = tokio::spawn(async move { store.audience_properties_keep(now, LEAST).await });
        let looked = tokio::select! {
            // An index that is half made is made again by whoever comes next: a stop does not wait for it.
            () = stop.cancelled() => return,
            looked = looking => looked,
        };
        match looked {
            Ok(Ok(true)) => tracing::info!("an index was made for what audiences ask of events"),
            Ok(Ok(false)) => failing = false,
            Ok(Err(error)) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(%error, "an index for audiences cannot be made, trying again");
            }
            Ok(Err(_)) => {}
            Err(error) => tracing::error!(%error, "making an index failed by a mistake of ours, trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
