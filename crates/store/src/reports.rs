//! Reports from the ledger and the history, each one query over a period of planning.
//!
//! Clicks and replies are events of the contact's history that name the message (`sms.clicked`, `sms.replied`; what an erasure
//! leaves of them: `erased.click`, `erased.reply`, `erased.stop`).

use std::collections::BTreeMap;

use domain::{
    State,
    report::{Answer, Cell, Conversions, Group, Share},
};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::{
    Store, StoreError,
    time::{Day, at},
};

/// Which messages a report is about: those planned in a period, of one campaign or trigger, or of all.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub campaign: Option<Uuid>,
    pub trigger: Option<String>,
}

/// $1 to $4 are the scope.
const IN_SCOPE: &str =
    "($1::timestamptz is null or m.planned_at >= $1) and ($2::timestamptz is null or m.planned_at < $2)
    and ($3::uuid is null or m.campaign_id = $3) and ($4::text is null or m.trigger = $4)";

type CellRow = (
    Option<String>,
    Option<String>,
    Option<String>,
    Day,
    i16,
    Option<String>,
    i64,
    i64,
    i64,
);
type AnswerRow = (Option<String>, Option<String>, Option<String>, Day, String, i64);
type ConversionRow = (Option<String>, Option<String>, bool, i64, i64);

impl Store {
    /// The messages of a scope by cause, gateway, day and state.
    pub async fn report_cells(&self, scope: &Scope) -> Result<Vec<Cell>, StoreError> {
        let rows: Vec<CellRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "select m.campaign_id::text, m.trigger, m.gateway, (m.planned_at at time zone 'UTC')::date, m.state,
                 case m.state when 53 then m.reason when 51 then coalesce(m.gateway_code, m.reason) end,
                 count(*), coalesce(sum(m.parts) filter (where m.accepted_at is not null), 0)::int8,
                 coalesce(sum(m.cost_micros) filter (where m.accepted_at is not null), 0)::int8
             from messages m where {IN_SCOPE} group by 1, 2, 3, 4, 5, 6"
        )))
        .persistent(false)
        .bind(at(scope.since))
        .bind(at(scope.until))
        .bind(scope.campaign)
        .bind(scope.trigger.as_deref())
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(
                |(campaign, trigger, gateway, day, state, why, messages, parts, cost_micros)| {
                    Ok(Cell {
                        group: Group {
                            campaign,
                            trigger,
                            gateway,
                            day: Some(day.0),
                        },
                        state: State::from_code(state)
                            .ok_or_else(|| StoreError::Corrupt("a message's state is none of ours".into()))?,
                        why,
                        messages,
                        parts,
                        cost_micros,
                    })
                },
            )
            .collect()
    }

    /// Clicks and replies on the messages of a scope.
    pub async fn report_answers(&self, scope: &Scope) -> Result<Vec<(Group, Answer, i64)>, StoreError> {
        // The answers are few beside the messages: from them to their messages, by the primary key.
        let rows: Vec<AnswerRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "with said as (
                 select h.contact_id, (h.data->>'message_id')::uuid as message_id,
                     case when h.type in ('sms.clicked', 'erased.click') then 'click'
                         when h.data->>'keyword' = 'stop' or h.type = 'erased.stop' then 'stop' else 'reply' end as what
                 from history h
                 where h.type in ('sms.clicked', 'sms.replied', 'erased.click', 'erased.reply', 'erased.stop')
                   and h.source = 'tamtam'
                   and h.data->>'message_id' is not null and ($1::timestamptz is null or h.time >= $1)
             )
             select m.campaign_id::text, m.trigger, m.gateway, (m.planned_at at time zone 'UTC')::date, s.what, count(*)
             from said s join messages m on m.contact_id = s.contact_id and m.message_id = s.message_id
             where {IN_SCOPE} group by 1, 2, 3, 4, 5"
        )))
        .persistent(false)
        .bind(at(scope.since))
        .bind(at(scope.until))
        .bind(scope.campaign)
        .bind(scope.trigger.as_deref())
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|(campaign, trigger, gateway, day, what, count)| {
                let group = Group {
                    campaign,
                    trigger,
                    gateway,
                    day: Some(day.0),
                };
                let answer = match what.as_str() {
                    "click" => Answer::Click,
                    "stop" => Answer::Stop,
                    _ => Answer::Reply,
                };
                (group, answer, count)
            })
            .collect())
    }

    /// For each campaign and trigger of a scope, how many of those planned did `kind` within `within` of being planned,
    /// and how many of its control group.
    pub async fn report_conversions(
        &self,
        scope: &Scope,
        kind: &str,
        within: SignedDuration,
    ) -> Result<BTreeMap<Group, Conversions>, StoreError> {
        let kinds = match kind {
            "sms.clicked" => vec![kind, "erased.click"],
            "sms.replied" => vec![kind, "erased.reply", "erased.stop"],
            _ => vec![kind],
        };
        let rows: Vec<ConversionRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "select m.campaign_id::text, m.trigger, coalesce(m.reason = 'control-group', false), count(*),
                 count(*) filter (where exists (select from history h
                     where h.contact_id = m.contact_id and h.type = any($5)
                       and h.time >= m.planned_at and h.time < m.planned_at + $6 * interval '1 second'))
             from messages m where {IN_SCOPE} and (m.campaign_id is not null or m.trigger is not null)
             group by 1, 2, 3"
        )))
        .persistent(false)
        .bind(at(scope.since))
        .bind(at(scope.until))
        .bind(scope.campaign)
        .bind(scope.trigger.as_deref())
        .bind(kinds)
        .bind(within.as_secs() as f64)
        .fetch_all(&self.pool)
        .await?;
        let mut found: BTreeMap<Group, Conversions> = BTreeMap::new();
        for (campaign, trigger, is_control, of, converted) in rows {
            let group = Group {
                campaign,
                trigger,
                ..Group::default()
            };
            let conversions = found.entry(group).or_default();
            let share = Share { of, converted };
            match is_control {
                true => conversions.control = share,
                false => conversions.planned = share,
            }
        }
        Ok(found)
    }
}
