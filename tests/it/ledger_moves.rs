//! The moves that almost every message makes, by statements that do not read the row before: they do what reading it does.

use std::sync::Arc;

use domain::{Class, Reason, State};
use jiff::SignedDuration;
use store::{
    Store,
    messages::{AttemptOutcome, ClaimResult, ClaimWant, MessageRow, Said, Settled},
    parts::{PartOf, PartState, match_id},
};

use crate::{
    ledger::{claim, now, outcome, want},
    support::database::database,
};

/// An outcome by somebody who still has the claim's row.
fn known(claimed: &ClaimResult, want: &ClaimWant, settled: Settled, id: &str) -> AttemptOutcome {
    AttemptOutcome {
        claimed: Some(Arc::new(claimed.row.clone())),
        ..outcome(want, 1, 1, settled, &[id])
    }
}

async fn written(store: &Store, outcomes: &[AttemptOutcome]) -> Vec<Option<(MessageRow, bool)>> {
    let mut tx = store.begin_by_key().await.unwrap();
    let done = tx.messages_outcome(outcomes).await.unwrap();
    tx.commit().await.unwrap();
    assert!(done.early.is_empty());
    done.rows
}

async fn row(store: &Store, want: &ClaimWant) -> MessageRow {
    store.message_get(want.message_id).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_outcome_by_the_claims_row_is_the_one_by_the_ledgers() {
    let store = database().await;
    let wants: Vec<ClaimWant> = (0..7).map(|number| want(number, Class::Transactional)).collect();
    let claims = claim(&store, &wants, 1).await;
    // The third is claimed by somebody else meanwhile; the fourth is settled; the fifth is gone.
    let taken = claim(&store, &wants[2..3], 2).await;
    assert!(taken[0].granted && taken[0].row.attempt == 2);
    written(
        &store,
        &[outcome(&wants[3], 1, 1, Settled::Failed(Reason::GatewayRefused), &[])],
    )
    .await;
    sqlx::query("delete from messages where message_id = $1")
        .bind(wants[4].message_id)
        .execute(store.pool())
        .await
        .unwrap();
    let mut refused = known(&claims[5], &wants[5], Settled::Failed(Reason::GatewayRefused), "f");
    refused.gateway_code = Some("refused\0".into());
    let batch = [
        known(&claims[0], &wants[0], Settled::Accepted, "a"),
        outcome(&wants[1], 1, 1, Settled::Accepted, &["b"]),
        known(&claims[2], &wants[2], Settled::Accepted, "c"),
        known(&claims[3], &wants[3], Settled::Accepted, "d"),
        known(&claims[4], &wants[4], Settled::Accepted, "e"),
        refused,
        known(&claims[6], &wants[6], Settled::Accepted, "g"),
        known(&claims[6], &wants[6], Settled::Accepted, "g"),
    ];
    let done = written(&store, &batch).await;
    let moved: Vec<Option<bool>> = done.iter().map(|one| one.as_ref().map(|one| one.1)).collect();
    let expected = [true, true, true, false, false, true, true, false];
    for (place, want) in wants.iter().enumerate().filter(|(place, _)| *place != 4) {
        assert_eq!(moved[place], Some(expected[place]), "{place}");
        assert_eq!(done[place].as_ref().unwrap().0, row(&store, want).await, "{place}");
    }
    assert_eq!((moved[4], moved[7]), (None, Some(false)));
    let (by_claim, by_ledger) = (row(&store, &wants[0]).await, row(&store, &wants[1]).await);
    assert_eq!(by_claim.state, State::Accepted);
    assert_eq!(
        MessageRow {
            contact_id: by_ledger.contact_id.clone(),
            message_id: by_ledger.message_id,
            cause: by_ledger.cause.clone(),
            phone_hash: by_ledger.phone_hash.clone(),
            ..by_claim
        },
        by_ledger
    );
    let late = row(&store, &wants[2]).await;
    assert_eq!((late.state, late.attempt), (State::Accepted, 2), "a late answer counts");
    assert_eq!(row(&store, &wants[5]).await.gateway_code.as_deref(), Some("refused"));
    // Written again, as after an append that failed: nothing moves, and the rows are the same.
    let again = written(&store, &batch[..1]).await;
    assert_eq!(again[0], Some((row(&store, &wants[0]).await, false)));
}

#[tokio::test]
async fn a_receipt_settles_what_stands_at_accepted_and_all_else_as_it_reads_it() {
    let store = database().await;
    let wants: Vec<ClaimWant> = (0..5).map(|number| want(number, Class::Marketing)).collect();
    let claims = claim(&store, &wants, 1).await;
    let ids = ["a", "b", "c", "d", "e"];
    let mut outcomes: Vec<AttemptOutcome> = (claims.iter().zip(&wants).zip(ids))
        .map(|((claimed, want), id)| known(claimed, want, Settled::Accepted, id))
        .collect();
    outcomes[2].settled = Settled::Unknown;
    written(&store, &outcomes).await;
    let said = |place: usize, state: State, code: Option<&str>, seconds: i64| {
        let want = &wants[place];
        let said = PartState {
            gateway: "main".into(),
            match_id: match_id(ids[place]),
            state,
            code: code.map(str::to_owned),
            at: now() + SignedDuration::from_secs(seconds),
        };
        let of = PartOf {
            contact_id: want.contact_id.clone(),
            message_id: want.message_id,
            alone: true,
        };
        (said, of)
    };
    let applied = async |receipts: &[(PartState, PartOf)]| {
        let mut tx = store.begin_by_key().await.unwrap();
        let mut rows = tx.receipts_apply(receipts).await.unwrap();
        tx.commit().await.unwrap();
        rows.sort_by(|one, other| one.0.contact_id.cmp(&other.0.contact_id));
        rows
    };
    let batch = [
        said(0, State::Delivered, Some("000\0"), 5),
        // Of two in one batch the first that is an end counts.
        said(1, State::Accepted, None, 4),
        said(1, State::Expired, None, 5),
        said(1, State::Delivered, None, 6),
        said(2, State::Delivered, None, 5),
        said(3, State::Failed, Some("042"), 5),
    ];
    let rows = applied(&batch).await;
    let told: Vec<(State, bool)> = rows.iter().map(|(row, moved)| (row.state, *moved)).collect();
    let delivered = State::Delivered;
    assert_eq!(
        told,
        [
            (delivered, true),
            (State::Expired, true),
            (State::Expired, false),
            (delivered, true),
            (State::Failed, true)
        ]
    );
    for (settled, _) in rows.iter().filter(|(_, moved)| *moved) {
        let want = wants.iter().find(|want| want.message_id == settled.message_id).unwrap();
        assert_eq!(*settled, row(&store, want).await);
        assert_eq!(settled.settled_at, Some(now() + SignedDuration::from_secs(5)));
    }
    let reasons: Vec<Option<Reason>> = rows.iter().map(|(row, _)| row.reason).collect();
    let expired = Some(Reason::ValidityPassed);
    assert_eq!(reasons, [None, expired, expired, None, Some(Reason::Undeliverable)]);
    assert_eq!(rows[0].0.gateway_code.as_deref(), Some("000"));
    // What is said a second time moves nothing and shows where the message stands.
    let again = applied(&batch[..1]).await;
    assert_eq!(again, [(rows[0].0.clone(), false)]);
    assert_eq!(
        row(&store, &wants[4]).await.state,
        State::Accepted,
        "nobody spoke of it"
    );
}

#[tokio::test]
async fn receipts_by_ids_alone_settle_what_waits_for_one_and_nothing_else() {
    let store = database().await;
    let wants: Vec<ClaimWant> = (0..10).map(|number| want(number, Class::Transactional)).collect();
    let claims = claim(&store, &wants, 1).await;
    let ids = ["00A1", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let mut outcomes: Vec<AttemptOutcome> = (claims.iter().zip(&wants).zip(ids))
        .map(|((claimed, want), id)| known(claimed, want, Settled::Accepted, id))
        .collect();
    // The fifth in two parts; the sixth's first attempt was not answered, the next one is.
    outcomes[4].remote_ids.push("e2".into());
    outcomes.remove(5);
    written(&store, &outcomes).await;
    let second = claim(&store, &wants[5..6], 2).await;
    assert!(second[0].granted && second[0].row.attempt == 2);
    written(&store, &[outcome(&wants[5], 2, 2, Settled::Accepted, &["f2"])]).await;

    let said = |id: &'static str, state: State| Said {
        gateway: "main",
        remote_id: id,
        state,
        code: Some("0\0"),
        at: now() + SignedDuration::from_secs(5),
        message_id: None,
    };
    let batch = [
        said("0a1", State::Delivered),
        said("b", State::Failed),
        // Two of one id, in whatever form: who reads them in their order decides.
        said("c", State::Delivered),
        said("0C", State::Failed),
        said("d", State::Accepted),
        said("e", State::Delivered),
        said("f2", State::Delivered),
        Said {
            message_id: Some(wants[7].message_id),
            ..said("g", State::Delivered)
        },
        Said {
            message_id: Some(wants[7].message_id),
            ..said("h", State::Expired)
        },
        Said {
            gateway: "other",
            ..said("i", State::Delivered)
        },
        said("nobody's", State::Delivered),
    ];
    let settled = async |batch: &[Said<'_>]| {
        let mut tx = store.begin_by_key().await.unwrap();
        let mut settled = tx.receipts_settle(batch).await.unwrap();
        tx.commit().await.unwrap();
        settled.sort_by_key(|(place, _)| *place);
        settled
    };
    let before: Vec<MessageRow> = {
        let mut rows = Vec::new();
        for want in &wants {
            rows.push(row(&store, want).await);
        }
        rows
    };
    let done = settled(&batch).await;
    let told: Vec<(usize, State, Option<Reason>)> = done
        .iter()
        .map(|(place, row)| (*place, row.state, row.reason))
        .collect();
    assert_eq!(
        told,
        [
            (0, State::Delivered, None),
            (1, State::Failed, Some(Reason::Undeliverable)),
            (8, State::Expired, Some(Reason::ValidityPassed)),
        ]
    );
    for ((_, settled), place) in done.iter().zip([0, 1, 7]) {
        assert_eq!(*settled, row(&store, &wants[place]).await);
        let at = batch[0].at;
        assert_eq!((settled.settled_at, settled.changed_at), (Some(at), at));
        assert_eq!(settled.gateway_code.as_deref(), Some("0"));
    }
    for place in [2, 3, 4, 5, 6, 8, 9] {
        assert_eq!(row(&store, &wants[place]).await, before[place], "{place}");
    }
    assert!(settled(&batch).await.is_empty(), "they do not move again");
}

/// Whatever the planner thinks of a table that has no statistics yet, each row is found by its key.
#[tokio::test]
async fn no_move_reads_more_than_its_own_rows() {
    const THERE: usize = 3_000;
    const MOVED: usize = 100;
    let store = database().await;
    let wants: Vec<ClaimWant> = (0..THERE).map(|number| want(number, Class::Marketing)).collect();
    let read = async || {
        let (read,): (i64,) = sqlx::query_as(
            "select sum(idx_tup_read)::int8 from pg_stat_user_indexes where relname like 'messages_p%'
             and pg_stat_force_next_flush() is not null",
        )
        .fetch_one(store.pool())
        .await
        .unwrap();
        read
    };
    let claims = claim(&store, &wants, 1).await;
    let before = read().await;
    for run in 0..8 {
        let of = run * MOVED..(run + 1) * MOVED;
        let outcomes: Vec<AttemptOutcome> = of
            .clone()
            .map(|place| known(&claims[place], &wants[place], Settled::Accepted, &format!("id{place}")))
            .collect();
        assert!(
            written(&store, &outcomes)
                .await
                .iter()
                .flatten()
                .all(|(_, moved)| *moved)
        );
        let mut tx = store.begin_by_key().await.unwrap();
        // Every other run by the statement that looks for the part as well.
        if run % 2 == 1 {
            let ids: Vec<String> = of.map(|place| format!("id{place}")).collect();
            let said = ids.iter().map(|id| Said {
                gateway: "main",
                remote_id: id,
                state: State::Delivered,
                code: None,
                at: now(),
                message_id: None,
            });
            let settled = tx.receipts_settle(&said.collect::<Vec<_>>()).await.unwrap();
            assert_eq!(settled.len(), MOVED);
            tx.commit().await.unwrap();
            continue;
        }
        let receipts: Vec<(PartState, PartOf)> = of
            .map(|place| {
                let said = PartState {
                    gateway: "main".into(),
                    match_id: format!("id{place}"),
                    state: State::Delivered,
                    code: None,
                    at: now(),
                };
                let of = PartOf {
                    contact_id: wants[place].contact_id.clone(),
                    message_id: wants[place].message_id,
                    alone: true,
                };
                (said, of)
            })
            .collect();
        let settled = tx.receipts_apply(&receipts).await.unwrap();
        assert_eq!(settled.len(), MOVED);
        tx.commit().await.unwrap();
    }
    // Each row is read for each of its two moves, and perhaps a few versions of it.
    let (read, moves) = (read().await - before, 2 * 8 * MOVED as i64);
    assert!(read < 5 * moves, "{read} rows were read for {moves} moves");
}
