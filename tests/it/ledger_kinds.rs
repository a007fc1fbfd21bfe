//! What a claim writes of messages of many kinds, on a real PostgreSQL: the columns that they share are written once a kind.

use domain::{Cause, Class, MessageId};
use store::messages::ClaimWant;
use uuid::Uuid;

use crate::{
    ledger::{claim, now, want},
    support::database::database,
};

/// Of all causes and with everything that can differ within a claim, each so many kinds in turns.
fn wants(kinds: usize, count: usize) -> Vec<ClaimWant> {
    (0..count)
        .map(|number| {
            let kind = number * 7 % kinds;
            let mut want = want(number, Class::Marketing);
            want.cause = match kind % 3 {
                0 => want.cause,
                1 => Cause::Trigger {
                    trigger: format!("trigger-{kind}"),
                    event_source: format!("shop-{}", kind % 2),
                    event_id: format!("event-{number}"),
                },
                _ => Cause::Campaign {
                    campaign_id: Uuid::from_u128(kind as u128 + 1).to_string(),
                },
            };
            want.message_id = MessageId::derive(&want.cause, &want.contact_id).0;
            want.template = format!("template-{kind}");
            want.variant = kind.is_multiple_of(2).then(|| "b".into());
            want.encoding = if kind % 4 < 2 { "GSM-7" } else { "UCS-2" }.into();
            want.parts = 1 + kind as u16 % 3;
            want.cost_micros = 40_000 * (1 + kind as i64 % 5);
            want.attempt = u32::from(kind % 8 == 7);
            want.epoch = number as i64 % 3;
            want.traceparent = number
                .is_multiple_of(5)
                .then(|| format!("00-{number:032x}-0000000000000001-01"));
            want.rendered_at = now() + jiff::SignedDuration::from_millis(number as i64);
            want
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_as_its_claim_says_whatever_it_shares_with_others() {
    // One kind, some, and more than are looked for.
    for (kinds, count) in [(1, 30), (9, 60), (64, 128), (65, 130), (120, 120)] {
        let store = database().await;
        let wants = wants(kinds, count);
        let claimed = claim(&store, &wants, 1).await;
        assert!(claimed.iter().all(|claim| claim.granted), "{kinds} kinds");
        for (want, claim) in wants.iter().zip(claimed) {
            assert_eq!(
                store.message_get(want.message_id).await.unwrap(),
                Some(claim.row),
                "message {} of {kinds} kinds",
                want.contact_id
            );
        }
        let again = claim(&store, &wants, 2).await;
        assert!(again.iter().all(|claim| !claim.granted), "{kinds} kinds, claimed twice");
    }
}
