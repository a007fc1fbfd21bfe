use std::{path::Path, time::Duration};

use domain::{Phone, phone::PhoneKey};
use store::Store;
use uuid::Uuid;

use crate::support::database::{database, empty_database};

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let store = database().await;
    store.migrate().await.unwrap();
    store.ping().await.unwrap();
}

/// The last version that has a row for each phone that somebody speaks for in a campaign.
const PHONES: i64 = 71;

#[tokio::test]
async fn campaigns_of_an_earlier_version_know_their_contacts_and_phones() {
    let store = Store::connect(&empty_database().await, 5, Duration::from_secs(10))
        .await
        .unwrap();
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let migrator = sqlx::migrate::Migrator::new(migrations).await.unwrap();
    migrator.run_to(PHONES, store.pool()).await.unwrap();
    let [walked, walks] = [1, 2].map(Uuid::from_u128);
    let key = PhoneKey::new(&[7; 32]);
    let phone = |number: u32| Phone::from_e164(format!("+26269200000{number}"));
    sqlx::query(
        "insert into campaigns (id, name, state, expression, template, created_at, created_by, expanded_at)
         select id, 'Soldes', 'running', '', 't', now(), 'me', case when id = $1 then now() end from unnest(array[$1, $2]) id",
    )
    .bind(walked)
    .bind(walks)
    .execute(store.pool())
    .await
    .unwrap();
    // Of each two chunks: on the bus, and not yet. The last contact of the first one is the last that is in it.
    sqlx::query(
        "insert into campaign_chunks
             (campaign_id, number, after_contact, last_contact, planned, contacts, reasons, planned_at, done_at)
         select id, number, after, last, 3, contacts, reasons, now(), case when number = 0 then now() end
         from unnest(array[$1, $2]) id,
             (values (0, '', 'c2', null, null), (1, 'c2', 'c5', '{c3,c4,c5}'::text[], '{null,no-consent,null}'::text[]))
                 as chunk (number, after, last, contacts, reasons)",
    )
    .bind(walked)
    .bind(walks)
    .execute(store.pool())
    .await
    .unwrap();
    for (contact, number) in [("c0", 0), ("c2", 2), ("c3", 3), ("c5", 5)] {
        sqlx::query("insert into campaign_phones select id, $3, $4 from unnest(array[$1, $2]) id")
            .bind(walked)
            .bind(walks)
            .bind(key.hash(&phone(number)))
            .bind(contact)
            .execute(store.pool())
            .await
            .unwrap();
    }
    store.migrate().await.unwrap();

    let spoken_for = store.campaign_phones(walks).await.unwrap();
    assert_eq!(spoken_for, [0, 2, 3, 5].map(|number| key.mark(&phone(number))).into());
    assert!(store.campaign_phones(walked).await.unwrap().is_empty());
    let contacts: Vec<Vec<String>> =
        sqlx::query_scalar("select contacts from campaign_chunks order by campaign_id, number")
            .fetch_all(store.pool())
            .await
            .unwrap();
    // Who was suppressed from the start spoke for none, and was not kept.
    let expected = [vec!["c0", "c2"], vec!["c3", "c4", "c5"]];
    assert_eq!(contacts, [expected.clone(), expected].concat());
}

#[tokio::test]
async fn what_rows_are_found_by_has_statistics() {
    let store = database().await;
    let without = async |which: &str| -> Vec<String> {
        let asked = format!(
            "select t.relname || '.' || a.attname from pg_class t join pg_attribute a on a.attrelid = t.oid
             where t.relnamespace = 'public'::regnamespace and a.attstattarget = 0 and a.attnum > 0 and {which} order by 1"
        );
        sqlx::query_scalar(sqlx::AssertSqlSafe(asked))
            .fetch_all(store.pool())
            .await
            .unwrap()
    };
    let found_by = "exists (select from pg_index i where i.indrelid = t.oid and a.attnum = i.indkey[0])";
    assert!(without(found_by).await.is_empty());

    let columns = async |table: &str| -> Vec<String> {
        without(&format!("t.relname = '{table}'"))
            .await
            .iter()
            .map(|name| name[table.len()..].to_owned())
            .collect()
    };
    for table in ["messages", "history", "trigger_log"] {
        let of = columns(table).await;
        assert!(!of.is_empty(), "{table}");
        for part in 0..8 {
            assert_eq!(columns(&format!("{table}_p{part}")).await, of);
        }
    }
}
