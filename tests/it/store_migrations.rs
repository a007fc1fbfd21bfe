use crate::support::database::database;

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let store = database().await;
    store.migrate().await.unwrap();
    store.ping().await.unwrap();
}
