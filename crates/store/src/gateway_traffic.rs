//! What a gateway did with what it was handed: how much of it it took and delivered, and how fast.
//!
//! From the ledger, one query for all gateways. A message counts where its last hand-over was: earlier attempts at another
//! gateway are gone from its row. The ledger has no index by hand-over (one would cost every claim), so what is read is what
//! was planned from [`LOOK_BACK`] before the period on, by the BRIN index `messages_planned`; a message that waited longer
//! than that for its first attempt is left out.

use domain::State;
use jiff::{SignedDuration, Timestamp};
use sqlx::Row;

use crate::{Store, StoreError, time::At};

/// How long before its hand-over a message that counts was planned, at most.
pub const LOOK_BACK: SignedDuration = SignedDuration::from_hours(24);

/// The query of [`Store::gateway_traffic`]: $1 and $2 are the period, $3 since when planned, $4 to $6 the codes of `delivered`,
/// `sending` and `unknown`.
pub const SQL: &str = "with handed as (
         select gateway, state, accepted_at is not null or state = $4 as taken,
             extract(epoch from accepted_at - claimed_at)::float8 * 1000 as answer,
             extract(epoch from accepted_at - caused_at)::float8 * 1000 as event_to_accepted,
             case when state = $4 then extract(epoch from settled_at - accepted_at)::float8 * 1000 end as delivery
         from messages
         where gateway is not null and claimed_at >= $1 and claimed_at < $2 and planned_at >= $3 and planned_at < $2
     )
     select gateway, count(*) as handed_over,
         count(*) filter (where taken) as accepted,
         count(*) filter (where not taken and state > $4) as refused,
         count(*) filter (where not taken and state < $5) as retrying,
         count(*) filter (where not taken and state = $6) as unknown,
         count(*) filter (where not taken and state = $5) as sending,
         count(*) filter (where state = $4) as delivered,
         count(*) filter (where taken and state > $4) as undelivered,
         count(*) filter (where taken and state = $6) as no_receipt,
         percentile_disc(array[0.5, 0.99]) within group (order by answer) as answer,
         percentile_disc(array[0.5, 0.99]) within group (order by event_to_accepted) as event_to_accepted,
         percentile_disc(array[0.5, 0.99]) within group (order by delivery) as delivery
     from handed group by gateway order by gateway";

/// The messages that were last handed to one gateway in a period. Each of them is in one of `accepted`, `refused`,
/// `retrying`, `unknown` and `sending`; each of the accepted in one of `delivered`, `undelivered`, `no_receipt`, or still
/// waiting for its receipt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    pub gateway: String,
    pub handed_over: i64,
    pub accepted: i64,
    /// Not taken, and not tried again.
    pub refused: i64,
    /// Not taken, and put off to be tried again.
    pub retrying: i64,
    /// The connection ended before the answer.
    pub unknown: i64,
    /// The answer is awaited.
    pub sending: i64,
    pub delivered: i64,
    /// Accepted, and said to have failed or expired.
    pub undelivered: i64,
    /// Accepted, and nothing was heard in time.
    pub no_receipt: i64,
    /// From the claim to the gateway's answer, in milliseconds.
    pub answer: Option<Percentiles>,
    /// From the event (or the launch) that caused it to the gateway's answer.
    pub event_to_accepted: Option<Percentiles>,
    /// From the gateway's answer to the delivery.
    pub accepted_to_delivered: Option<Percentiles>,
}

/// In milliseconds, each one that was measured (none is interpolated).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentiles {
    pub p50: i64,
    pub p99: i64,
}

impl Traffic {
    /// The share of hand-overs with an outcome that the gateway took.
    pub fn accepted_rate(&self) -> Option<f64> {
        share(self.accepted, self.handed_over - self.sending)
    }

    /// The share of what was accepted and has ended that was delivered.
    pub fn delivered_rate(&self) -> Option<f64> {
        share(self.delivered, self.delivered + self.undelivered + self.no_receipt)
    }
}

fn share(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Store {
    /// What each gateway was handed from `since` on and before `until`, by name. A gateway that was handed nothing has none.
    pub async fn gateway_traffic(&self, since: Timestamp, until: Timestamp) -> Result<Vec<Traffic>, StoreError> {
        let rows = sqlx::query(SQL)
            // Planned each time, with the period in sight.
            .persistent(false)
            .bind(At(since))
            .bind(At(until))
            .bind(At(since.checked_sub(LOOK_BACK).unwrap_or(Timestamp::MIN)))
            .bind(State::Delivered.code())
            .bind(State::Sending.code())
            .bind(State::Unknown.code())
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let percentiles = |name: &str| -> Result<Option<Percentiles>, sqlx::Error> {
                    let found: Option<Vec<Option<f64>>> = row.try_get(name)?;
                    Ok(match found.as_deref() {
                        Some([Some(p50), Some(p99)]) => Some(Percentiles {
                            p50: p50.round() as i64,
                            p99: p99.round() as i64,
                        }),
                        _ => None,
                    })
                };
                Ok(Traffic {
                    gateway: row.try_get("gateway")?,
                    handed_over: row.try_get("handed_over")?,
                    accepted: row.try_get("accepted")?,
                    refused: row.try_get("refused")?,
                    retrying: row.try_get("retrying")?,
                    unknown: row.try_get("unknown")?,
                    sending: row.try_get("sending")?,
                    delivered: row.try_get("delivered")?,
                    undelivered: row.try_get("undelivered")?,
                    no_receipt: row.try_get("no_receipt")?,
                    answer: percentiles("answer")?,
                    event_to_accepted: percentiles("event_to_accepted")?,
                    accepted_to_delivered: percentiles("delivery")?,
                })
            })
            .collect()
    }
}
