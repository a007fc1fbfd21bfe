//! What was applied is there for the next batch, however late the task that keeps resources fresh.

use jiff::Timestamp;
use resources::Kind;
use stage::Live;
use tokio_util::sync::CancellationToken;

use crate::support::database::database;

#[tokio::test]
async fn a_batch_sees_what_was_applied_before_it() {
    let store = database().await;
    let shutdown = CancellationToken::new();
    let live = Live::start(store.clone(), shutdown.clone()).await.unwrap();
    // From here on nothing but the batch itself looks.
    shutdown.cancel();
    let now = Timestamp::from_second(1_790_000_000).unwrap();
    for number in 1..=3 {
        let name = format!("young-{number}");
        let body = serde_json::json!({"name": name, "where": format!("age < {}", 20 + number)});
        let mut tx = store.begin().await.unwrap();
        tx.resources_apply(&[(Kind::Audience.as_str().to_owned(), name.clone(), body)], "test", now)
            .await
            .unwrap();
        let mut earlier = store.begin().await.unwrap();
        let seen = live.as_of(&mut earlier).await.unwrap();
        assert!(!seen.audiences.contains_key(&name), "not committed yet");
        tx.commit().await.unwrap();

        let mut batch = store.begin().await.unwrap();
        let seen = live.as_of(&mut batch).await.unwrap();
        assert!(seen.audiences.contains_key(&name));
        assert_eq!(seen.audiences.len(), number);
    }
}
