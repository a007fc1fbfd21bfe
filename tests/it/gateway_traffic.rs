//! What each gateway did: every kind of outcome in the ledger, counted over HTTP and by the command.

use domain::{Cause, Class, MessageId, Reason, State};
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde_json::{Value, json};
use store::{
    Store,
    gateway_traffic::{LOOK_BACK, SQL},
    messages::{AttemptOutcome, ClaimWant, Claimant, Settle, Settled},
};
use uuid::Uuid;

use crate::support::{process::run, server::Server};

const OWNER: Uuid = Uuid::from_u128(1);

/// Everything was planned then, handed over a second later.
fn planned() -> Timestamp {
    "2026-06-01T10:00:00Z".parse().unwrap()
}

fn after(milliseconds: i64) -> Timestamp {
    planned() + SignedDuration::from_millis(milliseconds)
}

fn want(number: usize, gateway: &str, planned_at: Timestamp) -> ClaimWant {
    let cause = Cause::Direct {
        idempotency_key: format!("key-{number}"),
    };
    let contact_id = format!("contact-{number}");
    ClaimWant {
        message_id: MessageId::derive(&cause, &contact_id).0,
        contact_id,
        cause,
        class: Class::Marketing,
        template: "order".into(),
        variant: None,
        encoding: "GSM-7".into(),
        parts: 1,
        cost_micros: 40_000,
        phone_hash: number.to_be_bytes().to_vec(),
        caused_at: planned_at - 500.milliseconds(),
        planned_at,
        rendered_at: planned_at,
        attempt: 0,
        gateway: gateway.into(),
        epoch: 1,
        traceparent: None,
        again: false,
    }
}

/// Hands one message over and says what came of it: the attempt's outcome, and a receipt after it.
async fn message(
    store: &Store,
    want: &ClaimWant,
    claimed_at: Timestamp,
    outcome: Option<(Settled, Timestamp)>,
    receipt: Option<(State, Option<Reason>, Timestamp)>,
) {
    let mut tx = store.begin().await.unwrap();
    let claimant = Claimant {
        owner: OWNER,
        now: claimed_at,
        resend_transactional: true,
        max_attempts: 12,
    };
    let claimed = tx.messages_claim(std::slice::from_ref(want), &claimant).await.unwrap();
    assert!(claimed[0].granted);
    if let Some((settled, at)) = outcome {
        let outcome = AttemptOutcome {
            contact_id: want.contact_id.clone(),
            message_id: want.message_id,
            owner: OWNER,
            attempt: claimed[0].row.attempt,
            settled,
            gateway: want.gateway.clone(),
            gateway_code: None,
            remote_ids: Vec::new(),
            total: 1,
            at,
            claimed: None,
        };
        let done = tx.messages_outcome(&[outcome]).await.unwrap();
        assert!(done.rows[0].as_ref().unwrap().1);
    }
    if let Some((state, reason, at)) = receipt {
        let settle = Settle {
            contact_id: want.contact_id.clone(),
            message_id: want.message_id,
            state,
            reason,
            gateway_code: None,
            at,
        };
        assert!(tx.messages_settle(&[settle]).await.unwrap()[0].1);
    }
    tx.commit().await.unwrap();
}

fn resources() -> String {
    ["main", "spare"]
        .map(|name| {
            format!(
                "[[gateway]]\nname = \"{name}\"\nkind = \"smpp\"\naddress = \"127.0.0.1:1\"\nsystem_id = \"x\"\npassword = \"x\"\nrate = 1\n"
            )
        })
        .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_outcome_is_counted_once_at_the_gateway_of_the_last_hand_over() {
    let server = Server::start().await;
    let store = &server.store;
    server.apply(&resources()).await;

    let mut number = 0;
    let mut next = |gateway: &str| {
        number += 1;
        want(number, gateway, planned())
    };
    let claimed = after(1_000);
    let accepted = |milliseconds| Some((Settled::Accepted, after(1_000 + milliseconds)));
    // Ten were taken, after 10 to 100 ms. Five of them arrived, after 200 to 1000 ms; two did not, of one nothing was heard
    // in time, and two are waited for.
    for tenth in 1..=10 {
        let (took, delivered) = (tenth * 10, tenth * 200);
        let receipt = match tenth {
            1..=5 => Some((State::Delivered, None, after(1_000 + took + delivered))),
            6 => Some((State::Failed, None, after(9_000))),
            7 => Some((State::Expired, None, after(9_000))),
            8 => Some((State::Unknown, Some(Reason::NoReceipt), after(9_000))),
            _ => None,
        };
        message(store, &next("main"), claimed, accepted(took), receipt).await;
    }
    let refused = Settled::Failed(Reason::GatewayRefused);
    message(store, &next("main"), claimed, Some((refused, after(1_100))), None).await;
    message(
        store,
        &next("main"),
        claimed,
        Some((Settled::Deferred, after(1_100))),
        None,
    )
    .await;
    message(
        store,
        &next("main"),
        claimed,
        Some((Settled::Unknown, after(1_100))),
        None,
    )
    .await;
    message(store, &next("main"), claimed, None, None).await;
    // A receipt settles what was unknown: it was taken, and nobody knows when.
    let heard = Some((State::Delivered, None, after(2_000)));
    message(
        store,
        &next("old"),
        claimed,
        Some((Settled::Unknown, after(1_100))),
        heard,
    )
    .await;
    // Never handed to it: the hand-over was taken back.
    let released = Settled::Released { attempt: 0 };
    message(store, &next("old"), claimed, Some((released, after(1_100))), None).await;
    // Before the period, after it, and planned too long before it.
    message(store, &next("main"), after(999), accepted(10), None).await;
    message(store, &next("main"), after(61_000), accepted(60_010), None).await;
    number += 1;
    let old = want(number, "main", claimed - LOOK_BACK - 1.milliseconds());
    message(store, &old, claimed, accepted(10), None).await;

    let (since, until) = (after(1_000), after(61_000));
    let report = server.get(&format!("/v1/gateways?since={since}&until={until}")).await;
    let gateways = report["gateways"].as_array().unwrap();
    let names: Vec<&Value> = gateways.iter().map(|gateway| &gateway["name"]).collect();
    assert_eq!(names, ["main", "old", "spare"]);
    assert_eq!(
        gateways[0],
        json!({
            "name": "main", "configured": true, "handed_over": 14,
            "accepted": 10, "refused": 1, "retrying": 1, "unknown": 1, "sending": 1,
            "delivered": 5, "undelivered": 2, "no_receipt": 1,
            "accepted_rate": 10.0 / 13.0, "delivered_rate": 5.0 / 8.0,
            "answer_ms": {"p50": 50, "p99": 100},
            "event_to_accepted_ms": {"p50": 1_550, "p99": 1_600},
            "accepted_to_delivered_ms": {"p50": 600, "p99": 1_000},
        })
    );
    assert_eq!(
        gateways[1],
        json!({
            "name": "old", "configured": false, "handed_over": 1,
            "accepted": 1, "refused": 0, "retrying": 0, "unknown": 0, "sending": 0,
            "delivered": 1, "undelivered": 0, "no_receipt": 0,
            "accepted_rate": 1.0, "delivered_rate": 1.0,
            "answer_ms": null, "event_to_accepted_ms": null, "accepted_to_delivered_ms": null,
        })
    );
    assert_eq!(
        (&gateways[2]["configured"], &gateways[2]["handed_over"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(gateways[2]["accepted_rate"], Value::Null);

    // The command shows the same as a table.
    let directory = tempfile::tempdir().unwrap();
    let (since, until) = (since.to_string(), until.to_string());
    let arguments = [
        "gateway",
        "list",
        "--since",
        &since,
        "--until",
        &until,
        "--server",
        &server.http,
    ];
    let environment = [("TAMTAM_API_KEY", server.key(api::Role::Read))];
    let listed = |json: &[&str]| {
        let arguments = [&arguments[..], json].concat();
        let output = tokio::task::block_in_place(|| run(directory.path(), &arguments, &environment));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = listed(&[]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows[1],
        [
            "main",
            "14",
            "10",
            "1",
            "1",
            "1",
            "1",
            "76.9",
            "5",
            "62.5",
            "50/100",
            "1550/1600",
            "600/1000"
        ]
    );
    assert_eq!(&rows[2][..3], ["old", "(removed)", "1"]);
    assert_eq!(rows[3][7], "-");
    assert_eq!(serde_json::from_str::<Value>(&listed(&["--json"])).unwrap(), report);

    // A period that is none, or too long.
    for query in [
        format!("since={until}&until={since}"),
        format!("since=2026-01-01T00:00:00Z&until={until}"),
    ] {
        let path = format!("/v1/gateways?{query}");
        let (status, problem) = server.send(reqwest::Method::GET, &path, None).await;
        assert_eq!(
            (status.as_u16(), problem["field"].as_str()),
            (400, Some("since")),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn the_ledger_is_read_by_the_times_of_planning() {
    let store = crate::support::database::database().await;
    let mut tx = store.pool().begin().await.unwrap();
    // Of an empty table nothing else would be read by an index.
    sqlx::query("set local enable_seqscan = off")
        .execute(&mut *tx)
        .await
        .unwrap();
    let prepare = format!("prepare traffic (timestamptz, timestamptz, timestamptz, int2, int2, int2) as {SQL}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(prepare))
        .execute(&mut *tx)
        .await
        .unwrap();
    let plan: Vec<String> = sqlx::query_scalar(
        "explain execute traffic ('2026-06-01 10:00Z', '2026-06-01 11:00Z', '2026-05-31 10:00Z', 50, 20, 30)",
    )
    .persistent(false)
    .fetch_all(&mut *tx)
    .await
    .unwrap();
    let plan = plan.join("\n");
    for part in 0..8 {
        assert!(
            plan.contains(&format!("Bitmap Index Scan on messages_p{part}_planned_at_idx")),
            "{plan}"
        );
    }
}
