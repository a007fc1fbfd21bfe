//! How much somebody got already: what caps count, and the same text twice.

use std::collections::{HashMap, HashSet};

use domain::{CampaignState, State, contact::MARKETING};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Store, StoreError, Tx, time::At};

/// A text that is about to go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextOut {
    pub phone_hash: Vec<u8>,
    pub text_hash: Vec<u8>,
    pub message_id: Uuid,
    /// The campaign that it belongs to.
    pub campaign_id: Option<Uuid>,
}

/// What one cap counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counting {
    /// From this time on.
    pub since: Timestamp,
    /// Messages of this purpose alone; absent: all marketing.
    pub purpose: Option<String>,
}

impl Tx {
    /// For each contact that got any, how many marketing messages it got that each of `caps` counts, in their order. What
    /// failed, expired or was never sent does not count; what may have arrived does.
    pub async fn sent_counts(
        &mut self,
        contacts: &[&str],
        caps: &[Counting],
    ) -> Result<HashMap<String, Vec<u32>>, StoreError> {
        if contacts.is_empty() || caps.is_empty() {
            return Ok(HashMap::new());
        }
        let counted = [State::Sending, State::Unknown, State::Accepted, State::Delivered].map(State::code);
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(
            "select m.contact_id, s.place, count(*)
             from unnest($2::timestamptz[], $4::text[]) with ordinality s (since, purpose, place)
             join messages m on m.claimed_at >= s.since
                 and (s.purpose is null or s.purpose = coalesce(m.purpose, $5))
             where m.contact_id = any($1) and m.class = 1 and m.state = any($3)
             group by 1, 2",
        )
        .bind(contacts)
        .bind(caps.iter().map(|cap| At(cap.since)).collect::<Vec<_>>())
        .bind(&counted[..])
        .bind(caps.iter().map(|cap| cap.purpose.as_deref()).collect::<Vec<_>>())
        .bind(MARKETING)
        .fetch_all(&mut *self.inner)
        .await?;
        let mut counts: HashMap<String, Vec<u32>> = HashMap::new();
        for (contact, place, count) in rows {
            let own = counts.entry(contact).or_insert_with(|| vec![0; caps.len()]);
            // `with ordinality` counts from 1.
            if let Some(slot) = usize::try_from(place - 1).ok().and_then(|place| own.get_mut(place)) {
                *slot = u32::try_from(count).unwrap_or(u32::MAX);
            }
        }
        Ok(counts)
    }

    /// Notes texts that are about to go out; gives the messages whose text the phone got from another message after
    /// `since`. A message that comes again finds its own note, and is not its own repetition. A note of a message that
    /// nobody got counts for nothing: it was suppressed, cancelled, expired or failed, or its campaign was cancelled before
    /// it was claimed.
    pub async fn texts_repeated(
        &mut self,
        texts: &[TextOut],
        since: Timestamp,
        now: Timestamp,
    ) -> Result<HashSet<Uuid>, StoreError> {
        if texts.is_empty() {
            return Ok(HashSet::new());
        }
        // One statement may touch a row once: of two equal texts in the batch the first is noted. Sorted, so that two
        // batches take their locks in one order.
        let mut first: HashMap<(&[u8], &[u8]), Uuid> = HashMap::new();
        let mut repeated = HashSet::new();
        let mut noted: Vec<&TextOut> = Vec::with_capacity(texts.len());
        for text in texts {
            let own = first
                .entry((&text.phone_hash, &text.text_hash))
                .or_insert(text.message_id);
            match *own == text.message_id {
                true => noted.push(text),
                false => {
                    repeated.insert(text.message_id);
                }
            }
        }
        noted.sort_by(|a, b| (&a.phone_hash, &a.text_hash).cmp(&(&b.phone_hash, &b.text_hash)));
        noted.dedup();
        let got_nothing = [State::Suppressed, State::Cancelled, State::Expired, State::Failed].map(State::code);
        let may_have_got = [State::Sending, State::Unknown, State::Accepted, State::Delivered].map(State::code);
        let written: Vec<Uuid> = sqlx::query_scalar(
            "insert into texts_sent as t (phone_hash, text_hash, message_id, campaign_id, at)
             select p, x, m, c, $4 from unnest($1::bytea[], $2::bytea[], $3::uuid[], $6::uuid[]) n (p, x, m, c)
             on conflict (phone_hash, text_hash) do update
                 set message_id = excluded.message_id, campaign_id = excluded.campaign_id,
                     at = case when t.message_id = excluded.message_id then t.at else excluded.at end
                 where t.message_id = excluded.message_id or t.at <= $5
                    or exists (select from messages m where m.message_id = t.message_id and m.state = any($7))
                    or (exists (select from campaigns c where c.id = t.campaign_id and c.state = $9)
                        and not exists (select from messages m where m.message_id = t.message_id and m.state = any($8)))
             returning message_id",
        )
        .bind(noted.iter().map(|text| text.phone_hash.as_slice()).collect::<Vec<_>>())
        .bind(noted.iter().map(|text| text.text_hash.as_slice()).collect::<Vec<_>>())
        .bind(noted.iter().map(|text| text.message_id).collect::<Vec<_>>())
        .bind(At(now))
        .bind(At(since))
        .bind(noted.iter().map(|text| text.campaign_id).collect::<Vec<_>>())
        .bind(&got_nothing[..])
        .bind(&may_have_got[..])
        .bind(CampaignState::Cancelled.as_str())
        .fetch_all(&mut *self.inner)
        .await?;
        let written: HashSet<Uuid> = written.into_iter().collect();
        repeated.extend(
            noted
                .iter()
                .map(|text| text.message_id)
                .filter(|id| !written.contains(id)),
        );
        Ok(repeated)
    }
}

impl Store {
    /// Forgets texts from before `before`, up to `limit` of them; how many.
    pub async fn texts_prune(&self, before: Timestamp, limit: i64) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "delete from texts_sent where (phone_hash, text_hash) in (
                 select phone_hash, text_hash from texts_sent where at < $1 limit $2 for update skip locked
             )",
        )
        .bind(At(before))
        .bind(limit)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}
