//! Transactions by key, on the connections that are kept for them.

use std::time::Duration;

use store::{Store, Tx};

use crate::support::{
    database::{database, empty_database},
    simulator::eventually,
};

async fn put(tx: &mut Tx, id: i32) {
    sqlx::query("insert into seen (id) values ($1)")
        .bind(id)
        .execute(tx.connection())
        .await
        .unwrap();
}

async fn seen(store: &Store) -> Vec<i32> {
    sqlx::query_scalar("select id from seen order by id")
        .fetch_all(store.pool())
        .await
        .unwrap()
}

async fn pid(tx: &mut Tx) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(tx.connection())
        .await
        .unwrap()
}

async fn prepare(store: &Store) {
    sqlx::query("create table seen (id integer primary key)")
        .execute(store.pool())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_connection_is_used_again_and_what_was_not_committed_is_undone() {
    let store = database().await;
    prepare(&store).await;
    let mut tx = store.begin_by_key().await.unwrap();
    let first = pid(&mut tx).await;
    put(&mut tx, 1).await;
    tx.commit().await.unwrap();

    let mut tx = store.begin_by_key().await.unwrap();
    assert_eq!(pid(&mut tx).await, first);
    put(&mut tx, 2).await;
    drop(tx);

    // It is undone beside us: until then another connection is used.
    let mut tx = store.begin_by_key().await.unwrap();
    put(&mut tx, 2).await;
    tx.commit().await.unwrap();
    assert_eq!(seen(&store).await, [1, 2]);
    eventually("it is used again", || async {
        let mut one = store.begin_by_key().await.unwrap();
        let mut other = store.begin_by_key().await.unwrap();
        [pid(&mut one).await, pid(&mut other).await]
            .contains(&first)
            .then_some(())
    })
    .await;
    eventually("nothing is left open", || async {
        let open: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'",
        )
        .fetch_one(store.pool())
        .await
        .unwrap();
        (open == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn more_at_once_than_connections_are_kept_plan_alike() {
    let store = database().await;
    prepare(&store).await;
    let mut open = Vec::new();
    for id in 0..6 {
        let mut tx = store.begin_by_key().await.unwrap();
        put(&mut tx, id).await;
        let planned: (String, String) =
            sqlx::query_as("select current_setting('enable_hashjoin'), current_setting('plan_cache_mode')")
                .fetch_one(tx.connection())
                .await
                .unwrap();
        assert_eq!(planned, ("off".to_owned(), "force_generic_plan".to_owned()));
        open.push(tx);
    }
    // What nobody else has is not left behind in the pool.
    for tx in open {
        tx.commit().await.unwrap();
    }
    let mut tx = store.begin().await.unwrap();
    let planned: String = sqlx::query_scalar("select current_setting('enable_hashjoin')")
        .fetch_one(tx.connection())
        .await
        .unwrap();
    assert_eq!(planned, "on");
    assert_eq!(seen(&store).await, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn one_that_begins_again_has_written_nothing_yet_and_plans_as_before() {
    let store = database().await;
    prepare(&store).await;
    // The last of them are on connections of the pool.
    let mut open = Vec::new();
    for id in 0..6 {
        let mut tx = store.begin_by_key().await.unwrap();
        put(&mut tx, 10).await;
        tx.begin_again().await.unwrap();
        put(&mut tx, id).await;
        let planned: String = sqlx::query_scalar("select current_setting('enable_hashjoin')")
            .fetch_one(tx.connection())
            .await
            .unwrap();
        assert_eq!(planned, "off");
        open.push(tx);
    }
    drop(open.pop());
    for tx in open {
        tx.commit().await.unwrap();
    }
    assert_eq!(seen(&store).await, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_small_pool_has_them_all() {
    let store = Store::connect(&empty_database().await, 2, Duration::from_secs(10))
        .await
        .unwrap();
    prepare(&store).await;
    let mut first = store.begin_by_key().await.unwrap();
    let mut second = store.begin_by_key().await.unwrap();
    put(&mut first, 1).await;
    put(&mut second, 2).await;
    first.commit().await.unwrap();
    second.commit().await.unwrap();
    assert_eq!(seen(&store).await, [1, 2]);
}

#[tokio::test]
async fn a_connection_that_the_server_ended_is_replaced() {
    let store = database().await;
    prepare(&store).await;
    let mut tx = store.begin_by_key().await.unwrap();
    let ended = pid(&mut tx).await;
    tx.commit().await.unwrap();
    let (done,): (bool,) = sqlx::query_as("select pg_terminate_backend($1, 10000)")
        .bind(ended)
        .fetch_one(store.pool())
        .await
        .unwrap();
    assert!(done);
    // The first may still meet it; whoever works with transactions tries again.
    for id in 0..2 {
        if let Ok(mut tx) = store.begin_by_key().await {
            assert_ne!(pid(&mut tx).await, ended);
            put(&mut tx, id).await;
            tx.commit().await.unwrap();
        }
    }
    assert!(!seen(&store).await.is_empty());
}
