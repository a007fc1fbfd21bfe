//! The ledger on a real PostgreSQL: one claim a message, states that only go forward, receipts that find their message.

use domain::{Cause, Class, MessageId, Phone, Reason, State};
use jiff::{SignedDuration, Timestamp};
use store::{
    Store,
    messages::{AttemptOutcome, ClaimResult, ClaimWant, Claimant, Settle, Settled, TakeOver, Verdict},
    parts::{AdoptedPart, PartOf, PartState, match_id},
    suppressions::Scope,
    unmatched::Unmatched,
};
use uuid::Uuid;

use crate::support::database::database;

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

fn cause(number: usize) -> Cause {
    Cause::Direct {
        idempotency_key: format!("key-{number}"),
    }
}

pub(crate) fn want(number: usize, class: Class) -> ClaimWant {
    let contact_id = format!("contact-{number}");
    ClaimWant {
        message_id: MessageId::derive(&cause(number), &contact_id).0,
        contact_id,
        cause: cause(number),
        class,
        template: "order".into(),
        variant: None,
        encoding: "GSM-7".into(),
        parts: 2,
        cost_micros: 80_000,
        phone_hash: vec![number as u8; 32],
        caused_at: now(),
        planned_at: now(),
        rendered_at: now(),
        attempt: 0,
        gateway: "main".into(),
        epoch: 1,
        traceparent: None,
        again: false,
    }
}

fn claimant(owner: u128) -> Claimant {
    Claimant {
        owner: Uuid::from_u128(owner),
        now: now() + SignedDuration::from_secs(1),
        resend_transactional: true,
        max_attempts: 12,
    }
}

pub(crate) async fn claim(store: &Store, wants: &[ClaimWant], owner: u128) -> Vec<ClaimResult> {
    let mut tx = store.begin().await.unwrap();
    let results = tx.messages_claim(wants, &claimant(owner)).await.unwrap();
    tx.commit().await.unwrap();
    results
}

pub(crate) fn outcome(
    want: &ClaimWant,
    owner: u128,
    attempt: u32,
    settled: Settled,
    remote_ids: &[&str],
) -> AttemptOutcome {
    AttemptOutcome {
        contact_id: want.contact_id.clone(),
        message_id: want.message_id,
        owner: Uuid::from_u128(owner),
        attempt,
        settled,
        gateway: "main".into(),
        gateway_code: None,
        remote_ids: remote_ids.iter().map(|id| (*id).to_owned()).collect(),
        total: remote_ids.len() as u16,
        at: now() + SignedDuration::from_secs(2),
        claimed: None,
    }
}

async fn state(store: &Store, want: &ClaimWant) -> State {
    store.message_get(want.message_id).await.unwrap().unwrap().state
}

fn verdict(want: &ClaimWant, state: State, reason: Option<Reason>) -> Verdict {
    Verdict {
        contact_id: want.contact_id.clone(),
        message_id: want.message_id,
        cause: want.cause.clone(),
        class: want.class,
        template: want.template.clone(),
        variant: None,
        state,
        reason,
        encoding: None,
        parts: 0,
        cost_micros: 0,
        phone_hash: None,
        caused_at: want.caused_at,
        planned_at: want.planned_at,
        rendered_at: None,
        decided_by: None,
        at: now(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_claimants_one_gets_each_message() {
    let store = database().await;
    let wants: Vec<ClaimWant> = (0..300).map(|number| want(number, Class::Marketing)).collect();
    // Half of them have a row already, so both ways to a claim are raced.
    let mut tx = store.begin().await.unwrap();
    let queued: Vec<Verdict> = wants
        .iter()
        .step_by(2)
        .map(|want| verdict(want, State::Queued, None))
        .collect();
    tx.messages_decide(&queued).await.unwrap();
    tx.commit().await.unwrap();
    let mut claimants = tokio::task::JoinSet::new();
    for owner in 1..=6_u128 {
        let (store, mut wants) = (store.clone(), wants.clone());
        wants.rotate_left(owner as usize * 40);
        claimants.spawn(async move {
            let mut granted = Vec::new();
            for batch in wants.chunks(70) {
                granted.extend(
                    claim(&store, batch, owner)
                        .await
                        .into_iter()
                        .filter(|result| result.granted),
                );
            }
            (owner, granted)
        });
    }
    let mut owners = std::collections::HashMap::new();
    while let Some(claimed) = claimants.join_next().await {
        let (owner, granted) = claimed.unwrap();
        for result in granted {
            assert_eq!(owners.insert(result.row.message_id, owner), None, "claimed twice");
        }
    }
    assert_eq!(owners.len(), wants.len());
}

#[tokio::test]
async fn a_stop_takes_effect_at_the_claim() {
    let store = database().await;
    let key = store.phone_key().await.unwrap();
    let (stopped, blocked) = (Phone::from_e164("+262692000001"), Phone::from_e164("+262692000002"));
    let mut tx = store.begin().await.unwrap();
    tx.suppression_put(&key.hash(&stopped), Scope::Marketing, "reply", now())
        .await
        .unwrap();
    tx.suppression_put(&key.hash(&blocked), Scope::All, "api", now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut wants = Vec::new();
    for (number, (phone, class)) in [
        (&stopped, Class::Marketing),
        (&stopped, Class::Transactional),
        (&blocked, Class::Marketing),
        (&blocked, Class::Transactional),
    ]
    .into_iter()
    .enumerate()
    {
        wants.push(ClaimWant {
            phone_hash: key.hash(phone),
            ..want(number, class)
        });
    }
    // The first has a row that waited; the STOP came meanwhile.
    let mut tx = store.begin().await.unwrap();
    tx.messages_decide(&[verdict(&wants[0], State::Deferred, Some(Reason::QuietHours))])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let results = claim(&store, &wants, 1).await;
    let seen: Vec<_> = results
        .iter()
        .map(|result| (result.granted, result.row.reason))
        .collect();
    assert_eq!(
        seen,
        [
            (false, Some(Reason::Stopped)),
            (true, None),
            (false, Some(Reason::Blocked)),
            (false, Some(Reason::Blocked))
        ]
    );
    assert!(results[0].row.settled_at.is_some());
}

#[tokio::test]
async fn states_only_go_forward_and_what_is_read_again_is_the_same() {
    let store = database().await;
    let wants = [want(1, Class::Marketing), want(2, Class::Transactional)];
    claim(&store, &wants, 1).await;
    // What an owner that died left: unknown, or claimed again as the next attempt.
    let taken = claim(&store, &wants, 2).await;
    assert_eq!((taken[0].granted, taken[0].row.state), (false, State::Unknown));
    assert_eq!((taken[1].granted, taken[1].row.attempt), (true, 2));
    // Late answers of the first owner.
    let mut tx = store.begin().await.unwrap();
    let outcomes = tx
        .messages_outcome(&[
            outcome(&wants[0], 1, 1, Settled::Deferred, &[]),
            outcome(&wants[1], 1, 1, Settled::Failed(Reason::GatewayRefused), &[]),
        ])
        .await
        .unwrap();
    assert!(outcomes.rows.iter().flatten().all(|(_, moved)| !moved));
    let outcomes = tx
        .messages_outcome(&[
            outcome(&wants[0], 1, 1, Settled::Accepted, &["a1", "a2"]),
            outcome(&wants[1], 2, 2, Settled::Accepted, &["b1", "b2"]),
            outcome(&want(77, Class::Marketing), 2, 1, Settled::Accepted, &[]),
        ])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(outcomes.rows[2], None, "there is no such message");
    for (want, (row, moved)) in wants.iter().zip(outcomes.rows.iter().flatten()) {
        assert!(*moved);
        let read = store.message_get(want.message_id).await.unwrap().unwrap();
        assert_eq!(read, *row, "as written, so read");
        let receipts = |row: &store::messages::MessageRow| {
            let record = row.to_receipts();
            record.iter().map(events::Record::to_bytes).collect::<Vec<_>>()
        };
        assert_eq!(receipts(&read), receipts(row));
    }
    // No decision and no claim touches it any more, and a gateway's word moves it once.
    let mut tx = store.begin().await.unwrap();
    let decided = tx
        .messages_decide_owned(
            &[verdict(&wants[0], State::Cancelled, Some(Reason::CampaignCancelled))],
            TakeOver {
                resend_transactional: true,
                max_attempts: 12,
            },
        )
        .await
        .unwrap();
    assert_eq!((decided[0].0.state, decided[0].1), (State::Accepted, false));
    let settle = |state| Settle {
        contact_id: wants[0].contact_id.clone(),
        message_id: wants[0].message_id,
        state,
        reason: None,
        gateway_code: Some("000".into()),
        at: now(),
    };
    let settled = tx
        .messages_settle(&[settle(State::Delivered), settle(State::Failed), settle(State::Accepted)])
        .await
        .unwrap();
    assert_eq!(
        settled.iter().map(|(_, moved)| *moved).collect::<Vec<_>>(),
        [true, false, false]
    );
    tx.commit().await.unwrap();
    assert!(!claim(&store, &wants, 3).await.iter().any(|result| result.granted));
    assert_eq!(state(&store, &wants[0]).await, State::Delivered);
}

/// A transactional message that was taken over, and then not handed over after all, can be claimed by the same record.
#[tokio::test]
async fn a_release_leaves_the_record_able_to_claim() {
    let store = database().await;
    let wants = [want(1, Class::Transactional)];
    claim(&store, &wants, 1).await;
    assert_eq!(claim(&store, &wants, 2).await[0].row.attempt, 2);
    let mut tx = store.begin().await.unwrap();
    let released = Settled::Released { attempt: 0 };
    tx.messages_outcome(&[outcome(&wants[0], 2, 2, released, &[])])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(state(&store, &wants[0]).await, State::Deferred);
    assert!(claim(&store, &wants, 3).await[0].granted);
    // The commit's answer was lost: the claim is ours.
    let again = ClaimWant {
        again: true,
        ..wants[0].clone()
    };
    assert!(claim(&store, &[again], 3).await[0].granted);
}

#[tokio::test]
async fn a_batch_of_decisions_may_name_a_message_twice() {
    let store = database().await;
    let (one, other) = (want(1, Class::Marketing), want(2, Class::Marketing));
    let mut tx = store.begin().await.unwrap();
    let rows = tx
        .messages_decide(&[
            verdict(&one, State::Deferred, Some(Reason::QuietHours)),
            verdict(&other, State::Suppressed, Some(Reason::NoConsent)),
            verdict(&one, State::Expired, Some(Reason::DeadlinePassed)),
            verdict(&one, State::Deferred, Some(Reason::QuietHours)),
        ])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let states: Vec<State> = rows.iter().map(|row| row.state).collect();
    assert_eq!(
        states,
        [State::Deferred, State::Suppressed, State::Expired, State::Expired]
    );
    assert_eq!(state(&store, &one).await, State::Expired);
}

/// A receipt without a part, by its id in the forms that this may have had.
fn kept(number: u128, ids: &[&str]) -> Unmatched {
    Unmatched {
        id: Uuid::from_u128(number),
        gateway: "main".into(),
        remote_id: ids[0].to_owned(),
        match_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        state: Some(State::Delivered),
        code: Some("DELIVRD".into()),
        at: now(),
        received_at: now() + SignedDuration::from_secs(number as i64),
        reference: None,
        waits: false,
    }
}

#[tokio::test]
async fn receipts_find_their_message_before_and_after_the_answer() {
    let store = database().await;
    let (early, late) = (want(1, Class::Marketing), want(2, Class::Marketing));
    claim(&store, &[early.clone(), late.clone()], 1).await;
    let receipt = |id: &str, state| PartState {
        gateway: "main".into(),
        match_id: match_id(id),
        state,
        code: Some("DELIVRD".into()),
        at: now() + SignedDuration::from_secs(5),
    };
    // Both receipts of the first are there before the gateway's answer, one of them in two spellings.
    let unmatched = |number: u128, ids: &[&str]| Unmatched {
        received_at: now(),
        ..kept(number, ids)
    };
    let mut tx = store.begin().await.unwrap();
    let waiting = [unmatched(1, &["000A1", "161"]), unmatched(2, &["a2"])];
    tx.callbacks_unmatched_put(&waiting).await.unwrap();
    tx.callbacks_unmatched_put(&waiting).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.begin().await.unwrap();
    let outcomes = tx
        .messages_outcome(&[
            outcome(&early, 1, 1, Settled::Accepted, &["0a1", "A2"]),
            outcome(&late, 1, 1, Settled::Accepted, &["c1", "c2"]),
        ])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(outcomes.early.len(), 1);
    assert_eq!(
        (
            outcomes.early[0].message_id,
            outcomes.early[0].state,
            outcomes.early[0].gateway_code.as_deref()
        ),
        (early.message_id, State::Delivered, Some("DELIVRD"))
    );
    let mut tx = store.begin().await.unwrap();
    assert!(
        tx.callbacks_unmatched_ripe(SignedDuration::from_mins(10), 10)
            .await
            .unwrap()
            .is_empty()
    );
    let matched = tx
        .parts_match(&[
            ("main".into(), vec!["193".into(), "C1".into()]),
            ("other".into(), vec!["c1".into()]),
        ])
        .await
        .unwrap();
    assert_eq!(matched[0].as_ref().unwrap().message_id, late.message_id);
    assert_eq!(matched[1], None);
    let of = || PartOf {
        contact_id: late.contact_id.clone(),
        message_id: late.message_id,
        alone: false,
    };
    // Delivered when all parts are; the second time it has been said already.
    let moved = tx
        .receipts_apply(&[(receipt("C1", State::Delivered), of())])
        .await
        .unwrap();
    assert!(moved.is_empty());
    let moved = tx
        .receipts_apply(&[(receipt("c2", State::Delivered), of())])
        .await
        .unwrap();
    assert!(moved[0].1 && moved[0].0.state == State::Delivered);
    let moved = tx
        .receipts_apply(&[(receipt("c1", State::Failed), of())])
        .await
        .unwrap();
    assert!(moved.iter().all(|(row, moved)| !moved && row.state == State::Delivered));
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_message_in_one_part_stands_where_its_receipt_says_unless_it_was_sent_again() {
    let store = database().await;
    let (once, twice) = (want(1, Class::Transactional), want(2, Class::Transactional));
    claim(&store, &[once.clone(), twice.clone()], 1).await;
    let answered = async |want: &ClaimWant, owner, attempt, id: &str| {
        let mut tx = store.begin().await.unwrap();
        let accepted = outcome(want, owner, attempt, Settled::Accepted, &[id]);
        tx.messages_outcome(&[accepted]).await.unwrap();
        tx.commit().await.unwrap();
    };
    // The first owner of the second died before it wrote down that the gateway had taken it; that came late.
    claim(&store, std::slice::from_ref(&twice), 2).await;
    answered(&once, 1, 1, "a1").await;
    answered(&twice, 1, 1, "b1").await;
    answered(&twice, 2, 2, "b2").await;
    let told = async |id: &str, state: State| {
        let mut tx = store.begin().await.unwrap();
        let part = tx.parts_match(&[("main".into(), vec![id.into()])]).await.unwrap();
        let part = part[0].clone().unwrap();
        assert!(part.of().alone);
        let said = PartState {
            gateway: "main".into(),
            match_id: part.match_id.clone(),
            state,
            code: Some("042".into()),
            at: now() + SignedDuration::from_secs(5),
        };
        let moved = tx.receipts_apply(&[(said, part.of())]).await.unwrap();
        tx.commit().await.unwrap();
        moved.iter().filter(|(_, moved)| *moved).count()
    };
    assert_eq!(told("a1", State::Accepted).await, 0);
    assert_eq!(told("a1", State::Failed).await, 1);
    assert_eq!(told("a1", State::Delivered).await, 0, "that was the end");
    let row = store.message_get(once.message_id).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.reason, row.gateway_code.as_deref()),
        (State::Failed, Some(Reason::Undeliverable), Some("042"))
    );
    // As good as the better of the two.
    assert_eq!(told("b1", State::Failed).await, 0);
    assert_eq!(state(&store, &twice).await, State::Accepted);
    assert_eq!(told("b2", State::Delivered).await, 1);
    let shown = async |want: &ClaimWant| -> Vec<State> {
        let parts = store.message_parts_of(want.message_id).await.unwrap();
        parts.iter().map(|part| part.state).collect()
    };
    assert_eq!(shown(&once).await, [State::Failed]);
    assert_eq!(shown(&twice).await, [State::Failed, State::Delivered]);
}

#[tokio::test]
async fn a_receipt_without_a_part_is_placed_by_our_reference() {
    let store = database().await;
    let (lost, renamed) = (want(1, Class::Marketing), want(2, Class::Marketing));
    claim(&store, &[lost.clone(), renamed.clone()], 1).await;
    let kept = [(1, "000A1", "161", &lost), (2, "b7", "b7", &renamed)].map(|(number, one, other, want)| Unmatched {
        reference: Some(want.message_id),
        waits: true,
        ..kept(number, &[one, other])
    });
    let mut tx = store.begin_by_key().await.unwrap();
    tx.callbacks_unmatched_put(&kept).await.unwrap();
    tx.commit().await.unwrap();

    let referred = async |kept_for: SignedDuration| {
        let mut tx = store.begin_by_key().await.unwrap();
        let found = tx.callbacks_unmatched_referred(kept_for, 10).await.unwrap();
        tx.commit().await.unwrap();
        found
    };
    assert!(
        referred(SignedDuration::ZERO).await.is_empty(),
        "both may still be answered"
    );
    let mut tx = store.begin_by_key().await.unwrap();
    tx.messages_outcome(&[
        outcome(&lost, 1, 1, Settled::Unknown, &[]),
        outcome(&renamed, 1, 1, Settled::Accepted, &["another"]),
    ])
    .await
    .unwrap();
    tx.commit().await.unwrap();
    assert!(
        referred(SignedDuration::from_hours(1)).await.is_empty(),
        "kept just now"
    );
    let found = referred(SignedDuration::ZERO).await;
    let told: Vec<_> = found
        .iter()
        .map(|one| (one.reference, one.match_ids.join(" "), one.remote_id.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (Some(lost.message_id), "a1 161".to_owned(), "000A1"),
            (Some(renamed.message_id), "b7".to_owned(), "b7"),
        ]
    );
    assert!(referred(SignedDuration::ZERO).await.is_empty(), "taken once");
}

async fn keep(store: &Store, receipts: &[Unmatched]) {
    let mut tx = store.begin_by_key().await.unwrap();
    tx.callbacks_unmatched_put(receipts).await.unwrap();
    tx.commit().await.unwrap();
}

async fn accepted(store: &Store, want: &ClaimWant, ids: &[&str]) {
    let mut tx = store.begin_by_key().await.unwrap();
    tx.messages_outcome(&[outcome(want, 1, 1, Settled::Accepted, ids)])
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn waiting(store: &Store) -> Vec<u128> {
    let listed = store.unmatched_list(None, None, 100).await.unwrap();
    listed.iter().map(|one| one.id.as_u128()).collect()
}

#[tokio::test]
async fn a_waiting_receipt_goes_to_the_likeliest_form_of_its_id() {
    let store = database().await;
    let wants: Vec<ClaimWant> = (0..4).map(|number| want(number, Class::Marketing)).collect();
    claim(&store, &wants, 1).await;
    // 12345678 in hexadecimal is 305419896: both are parts, taken in one batch.
    keep(&store, &[kept(1, &["12345678", "bc614e", "305419896"])]).await;
    let mut tx = store.begin_by_key().await.unwrap();
    tx.messages_outcome(&[
        outcome(&wants[0], 1, 1, Settled::Accepted, &["305419896"]),
        outcome(&wants[1], 1, 1, Settled::Accepted, &["12345678"]),
    ])
    .await
    .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(state(&store, &wants[0]).await, State::Accepted);
    assert_eq!(state(&store, &wants[1]).await, State::Delivered);
    assert!(waiting(&store).await.is_empty());

    // Of two that could be one part's, that with its very id; the other stays for its own part.
    let other = Unmatched {
        state: Some(State::Failed),
        ..kept(2, &["87654321", "5397fb1", "2271560481"])
    };
    keep(&store, &[other, kept(3, &["2271560481"])]).await;
    accepted(&store, &wants[2], &["2271560481"]).await;
    assert_eq!(state(&store, &wants[2]).await, State::Delivered);
    assert_eq!(waiting(&store).await, [2]);
    accepted(&store, &wants[3], &["87654321"]).await;
    assert_eq!(state(&store, &wants[3]).await, State::Failed);
    assert!(waiting(&store).await.is_empty());
}

#[tokio::test]
async fn a_waiting_receipt_that_names_its_message_joins_no_other() {
    let store = database().await;
    let (named, other) = (want(1, Class::Marketing), want(2, Class::Marketing));
    claim(&store, &[named.clone(), other.clone()], 1).await;
    let of_named = |number: u128| Unmatched {
        reference: Some(named.message_id),
        ..kept(number, &["a1"])
    };
    let unheard = Unmatched {
        state: None,
        code: Some("MYSTERY:999".into()),
        ..kept(2, &["b1"])
    };
    keep(&store, &[of_named(1), unheard]).await;
    accepted(&store, &other, &["A1"]).await;
    let ripe = async || {
        let mut tx = store.begin_by_key().await.unwrap();
        let within = SignedDuration::from_hours(1);
        let found = tx.callbacks_unmatched_ripe(within, 10).await.unwrap();
        tx.commit().await.unwrap();
        found
    };
    assert!(ripe().await.is_empty());
    assert_eq!(state(&store, &other).await, State::Accepted);
    assert_eq!(waiting(&store).await, [2, 1], "the newest first");

    // A word that we do not know is its part's as soon as there is one, and moves nothing.
    accepted(&store, &named, &["b1", "b2"]).await;
    let parts = store.message_parts_of(named.message_id).await.unwrap();
    let codes: Vec<Option<&str>> = parts.iter().map(|part| part.code.as_deref()).collect();
    assert_eq!(codes, [Some("MYSTERY:999"), None]);
    assert_eq!(state(&store, &named).await, State::Accepted);
    assert_eq!(waiting(&store).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_only_receipts_tell_of_are_counted() {
    let store = database().await;
    let lost = want(1, Class::Marketing);
    claim(&store, std::slice::from_ref(&lost), 1).await;
    let mut tx = store.begin_by_key().await.unwrap();
    // Of its two parts, the answer to the first came.
    tx.messages_outcome(&[AttemptOutcome {
        total: 2,
        ..outcome(&lost, 1, 1, Settled::Unknown, &["x1"])
    }])
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let delivered = async |id: &str| {
        let mut tx = store.begin_by_key().await.unwrap();
        let adopted = AdoptedPart {
            gateway: "main".into(),
            remote_id: id.into(),
            contact_id: lost.contact_id.clone(),
            message_id: lost.message_id,
            at: now(),
        };
        tx.parts_adopt(&[adopted.clone(), adopted]).await.unwrap();
        let told = PartState {
            gateway: "main".into(),
            match_id: match_id(id),
            state: State::Delivered,
            code: None,
            at: now(),
        };
        let of = PartOf {
            contact_id: lost.contact_id.clone(),
            message_id: lost.message_id,
            alone: false,
        };
        tx.receipts_apply(&[(told, of)]).await.unwrap();
        tx.commit().await.unwrap();
        state(&store, &lost).await
    };
    assert_eq!(delivered("00X2").await, State::Unknown, "one of two");
    assert_eq!(delivered("x2").await, State::Unknown, "the same again");
    assert_eq!(delivered("x1").await, State::Delivered);
    let parts = store.message_parts_of(lost.message_id).await.unwrap();
    let ids: Vec<&str> = parts.iter().map(|part| part.remote_id.as_str()).collect();
    assert_eq!(ids, ["x1", "00X2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_receipts_at_once_the_second_sees_the_first() {
    let store = database().await;
    let wants: Vec<ClaimWant> = (0..40).map(|number| want(number, Class::Marketing)).collect();
    claim(&store, &wants, 1).await;
    let mut tx = store.begin().await.unwrap();
    let ids: Vec<[String; 2]> = (0..40)
        .map(|number| [format!("x{number}"), format!("y{number}")])
        .collect();
    let outcomes: Vec<AttemptOutcome> = wants
        .iter()
        .zip(&ids)
        .map(|(want, [x, y])| outcome(want, 1, 1, Settled::Accepted, &[x, y]))
        .collect();
    tx.messages_outcome(&outcomes).await.unwrap();
    tx.commit().await.unwrap();
    let mut receipts = tokio::task::JoinSet::new();
    for (number, [x, y]) in ids.iter().enumerate() {
        for id in [x.clone(), y.clone()] {
            let store = store.clone();
            let of = PartOf {
                contact_id: wants[number].contact_id.clone(),
                message_id: wants[number].message_id,
                alone: false,
            };
            receipts.spawn(async move {
                let mut tx = store.begin().await.unwrap();
                let state = PartState {
                    gateway: "main".into(),
                    match_id: id,
                    state: State::Delivered,
                    code: None,
                    at: now(),
                };
                let moved = tx.receipts_apply(&[(state, of)]).await.unwrap();
                tx.commit().await.unwrap();
                (number, moved.iter().filter(|(_, moved)| *moved).count())
            });
        }
    }
    let mut moves = vec![0; wants.len()];
    while let Some(done) = receipts.join_next().await {
        let (number, count) = done.unwrap();
        moves[number] += count;
    }
    assert!(moves.iter().all(|count| *count == 1), "{moves:?}");
}
