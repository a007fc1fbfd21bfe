//! Receipts that say at once what became of their message: found by the gateway's id and written by one statement.
//!
//! Most receipts are such: the only one of a message that was sent once, in one part, and stands at `accepted`. Whatever is
//! otherwise stays as it is and is left to [`Tx::parts_match`] and [`Tx::receipts_apply`].

use std::collections::HashMap;

use domain::State;
use jiff::Timestamp;
use uuid::Uuid;

use super::{
    MessageRow, foreign,
    rows::{COLUMNS, place, read_from},
};
use crate::{
    StoreError, Tx,
    parts::{match_id, reason_of},
    time::At,
};

/// What a receipt says of the part with this id.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    pub gateway: &'a str,
    /// The form of the gateway's id that is the likeliest; where a part bears it, it is that part.
    pub remote_id: &'a str,
    pub state: State,
    /// The gateway's own code, as it came.
    pub code: Option<&'a str>,
    pub at: Timestamp,
    /// The message that it can be of alone, where it says so.
    pub message_id: Option<Uuid>,
}

impl Tx {
    /// Settles the messages of these receipts where each is the one receipt that its message waits for: their places, and
    /// the rows as they now stand. Of receipts with the same id none is taken: which of them counts is not decided here.
    ///
    /// Rows are written in the order of their keys, as everybody locks them. `= any (array[…])` leaves no plan but to look
    /// each up ([`Tx::messages_accept`](Tx)), and so does `offset 0`.
    pub async fn receipts_settle(&mut self, said: &[Said<'_>]) -> Result<Vec<(usize, MessageRow)>, StoreError> {
        let ids: Vec<String> = said.iter().map(|said| match_id(said.remote_id)).collect();
        let mut times: HashMap<(&str, &str), u32> = HashMap::with_capacity(said.len());
        for (said, id) in said.iter().zip(&ids) {
            *times.entry((said.gateway, id)).or_default() += 1;
        }
        let taken: Vec<usize> = (said.iter().zip(&ids).zip(0..))
            .filter(|((said, id), _)| said.state.is_terminal() && times.get(&(said.gateway, id.as_str())) == Some(&1))
            .map(|(_, place)| place)
            .collect();
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let of = || taken.iter().map(|place| &said[*place]);
        let moved = sqlx::query(sqlx::AssertSqlSafe(format!(
            "update messages m set state = v.state, reason = v.reason, gateway_code = coalesce(v.code, m.gateway_code),
                 settled_at = v.at, changed_at = v.at
             from (select w.number, w.state, w.reason, w.code, w.at, p.contact_id, p.message_id
                   from unnest($1::text[], $2::text[], $3::int2[], $4::text[], $5::text[], $6::timestamptz[], $7::uuid[])
                       with ordinality as w (gateway, match_id, state, reason, code, at, message_id, number)
                   cross join lateral (
                       select p.contact_id, p.message_id from message_parts p
                       where p.gateway = w.gateway and p.match_id = w.match_id and p.total <= 1 offset 0
                   ) p
                   where w.message_id is null or w.message_id = p.message_id
                   order by p.contact_id, p.message_id) v
             where m.contact_id = any (array[v.contact_id]) and m.message_id = any (array[v.message_id])
               and m.state = $8 and m.attempt <= 1
             returning v.number, {COLUMNS}"
        )))
        .bind(of().map(|said| said.gateway).collect::<Vec<_>>())
        .bind(taken.iter().map(|place| ids[*place].as_str()).collect::<Vec<_>>())
        .bind(of().map(|said| said.state.code()).collect::<Vec<_>>())
        .bind(of().map(|said| reason_of(said.state).map(domain::Reason::as_str)).collect::<Vec<_>>())
        .bind(of().map(|said| said.code.map(foreign)).collect::<Vec<_>>())
        .bind(of().map(|said| At(said.at)).collect::<Vec<_>>())
        .bind(of().map(|said| said.message_id).collect::<Vec<_>>())
        .bind(State::Accepted.code())
        .fetch_all(&mut *self.inner)
        .await?;
        let mut settled = Vec::with_capacity(moved.len());
        for row in &moved {
            let place = (taken.get(place(row)?).copied())
                .ok_or_else(|| StoreError::Corrupt("a receipt was answered that was not asked".into()))?;
            settled.push((place, read_from(row, 1)?));
        }
        Ok(settled)
    }
}
