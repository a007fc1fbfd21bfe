//! A campaign's messages by state, each counted once where it is now.

use domain::State;
use uuid::Uuid;

use crate::{Store, StoreError};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub planned: i64,
    pub suppressed: i64,
    pub accepted: i64,
    pub delivered: i64,
    pub failed: i64,
    pub expired: i64,
    pub cancelled: i64,
    pub unknown: i64,
    /// Planned and in none of the states above: on its way. Negative would be a violation, which the audit reports.
    pub pending: i64,
}

impl Counts {
    pub(crate) fn from_states(planned: i64, states: &[(i16, i64)]) -> Counts {
        let count = |state: State| -> i64 {
            states
                .iter()
                .filter(|(code, _)| *code == state.code())
                .map(|(_, count)| count)
                .sum()
        };
        let mut counts = Counts {
            planned,
            suppressed: count(State::Suppressed),
            accepted: count(State::Accepted),
            delivered: count(State::Delivered),
            failed: count(State::Failed),
            expired: count(State::Expired),
            cancelled: count(State::Cancelled),
            unknown: count(State::Unknown),
            pending: 0,
        };
        counts.pending = planned
            - counts.suppressed
            - counts.accepted
            - counts.delivered
            - counts.failed
            - counts.expired
            - counts.cancelled
            - counts.unknown;
        counts
    }
}

impl Store {
    /// A campaign's counts; all zero where there is no such campaign.
    pub async fn campaign_counts(&self, id: Uuid) -> Result<Counts, StoreError> {
        // One statement, one snapshot: planned and its parts belong together.
        let rows: Vec<(i64, Option<i16>, Option<i64>)> = sqlx::query_as(
            "select c.planned, s.state, s.count
             from campaigns c left join lateral (
                 select state, count(*) as count from messages where campaign_id = c.id group by state
             ) s on true
             where c.id = $1",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await?;
        let planned = rows.first().map_or(0, |row| row.0);
        let states: Vec<(i16, i64)> = rows.iter().filter_map(|row| Some((row.1?, row.2?))).collect();
        Ok(Counts::from_states(planned, &states))
    }
}
