//! Replies on their way to being understood: parts until they are whole, which answers went out, and what waits for a
//! person.

use jiff::{SignedDuration, Timestamp};
use sqlx::Row;
use uuid::Uuid;

use crate::{Store, StoreError, Tx, messages::foreign, time::At};

/// What the parts of one text share.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyKey {
    pub phone_hash: Vec<u8>,
    pub recipient: String,
    pub gateway: String,
    pub reference: u16,
    pub wide: bool,
    pub total: u8,
}

/// A part as the gateway brought it.
#[derive(Clone, PartialEq)]
pub struct ReplyPart {
    pub key: ReplyKey,
    /// From 1.
    pub sequence: u8,
    pub id: Uuid,
    /// `tamtam.callback.v1`
    pub callback: Vec<u8>,
    pub received_at: Timestamp,
}

impl std::fmt::Debug for ReplyPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyPart")
            .field("sequence", &self.sequence)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A reply that a person must look at.
#[derive(Clone, PartialEq)]
pub struct Review {
    pub id: Uuid,
    pub contact_id: Option<String>,
    pub phone_hash: Vec<u8>,
    pub gateway: String,
    pub text: String,
    pub received_at: Timestamp,
}

impl std::fmt::Debug for Review {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Review").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A sender's reference comes round again: parts that are further apart belong to two texts.
const TOGETHER: SignedDuration = SignedDuration::from_mins(10);

const KEY: &str = "phone_hash, recipient, gateway, reference, wide, total";
/// $1 to $6.
const KEYS: &str = "unnest($1::bytea[], $2::text[], $3::text[], $4::int4[], $5::bool[], $6::int2[]) as k (phone_hash, recipient, gateway, reference, wide, total)";

type PartRow = (Vec<u8>, String, String, i32, bool, i16, i16, Uuid, Vec<u8>, At);

fn read(row: PartRow) -> ReplyPart {
    let (phone_hash, recipient, gateway, reference, wide, total, sequence, id, callback, received_at) = row;
    let small = |number: i16| u8::try_from(number).unwrap_or_default();
    ReplyPart {
        key: ReplyKey {
            phone_hash,
            recipient,
            gateway,
            reference: u16::try_from(reference).unwrap_or_default(),
            wide,
            total: small(total),
        },
        sequence: small(sequence),
        id,
        callback,
        received_at: received_at.0,
    }
}

fn keys<'q>(
    statement: sqlx::query::QueryAs<'q, sqlx::Postgres, PartRow, sqlx::postgres::PgArguments>,
    parts: &'q [ReplyPart],
) -> sqlx::query::QueryAs<'q, sqlx::Postgres, PartRow, sqlx::postgres::PgArguments> {
    let all = |of: fn(&ReplyPart) -> &str| parts.iter().map(of).collect::<Vec<_>>();
    statement
        .bind(
            parts
                .iter()
                .map(|part| part.key.phone_hash.as_slice())
                .collect::<Vec<_>>(),
        )
        .bind(all(|part| &part.key.recipient))
        .bind(all(|part| &part.key.gateway))
        .bind(
            parts
                .iter()
                .map(|part| i32::from(part.key.reference))
                .collect::<Vec<_>>(),
        )
        .bind(parts.iter().map(|part| part.key.wide).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| i16::from(part.key.total)).collect::<Vec<_>>())
}

impl Tx {
    /// Keeps parts, of one that comes twice the first; and gives all that there are of the texts concerned, each text's in
    /// their order. Parts of an older text under the same reference go.
    pub async fn reply_parts_put(&mut self, parts: &[ReplyPart]) -> Result<Vec<ReplyPart>, StoreError> {
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        // All three in the order of the keys; a phone's callbacks come to one reader, so nobody else has these rows.
        let delete = format!(
            "delete from reply_parts p using {KEYS}
             where (p.phone_hash, p.recipient, p.gateway, p.reference, p.wide, p.total)
                 = (k.phone_hash, k.recipient, k.gateway, k.reference, k.wide, k.total) and p.received_at < $7
             returning p.phone_hash, p.recipient, p.gateway, p.reference, p.wide, p.total, p.sequence, p.id, p.callback, p.received_at"
        );
        let oldest = parts
            .iter()
            .map(|part| part.received_at)
            .min()
            .and_then(|first| first.checked_sub(TOGETHER).ok())
            .unwrap_or(Timestamp::MIN);
        keys(sqlx::query_as(sqlx::AssertSqlSafe(delete)), parts)
            .persistent(false)
            .bind(At(oldest))
            .fetch_all(&mut *self.inner)
            .await?;
        sqlx::query(
            "insert into reply_parts (phone_hash, recipient, gateway, reference, wide, total, sequence, id, callback, received_at)
             select * from unnest($1::bytea[], $2::text[], $3::text[], $4::int4[], $5::bool[], $6::int2[], $7::int2[], $8::uuid[],
                 $9::bytea[], $10::timestamptz[])
             on conflict do nothing",
        )
        .bind(parts.iter().map(|part| part.key.phone_hash.as_slice()).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| part.key.recipient.as_str()).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| part.key.gateway.as_str()).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| i32::from(part.key.reference)).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| part.key.wide).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| i16::from(part.key.total)).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| i16::from(part.sequence)).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| part.id).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| part.callback.as_slice()).collect::<Vec<_>>())
        .bind(parts.iter().map(|part| At(part.received_at)).collect::<Vec<_>>())
        .execute(&mut *self.inner)
        .await?;
        let select = format!(
            "select {KEY}, sequence, id, callback, received_at from reply_parts
             where ({KEY}) in (select {KEY} from {KEYS}) order by {KEY}, sequence"
        );
        let rows = keys(sqlx::query_as(sqlx::AssertSqlSafe(select)), parts)
            .persistent(false)
            .fetch_all(&mut *self.inner)
            .await?;
        Ok(rows.into_iter().map(read).collect())
    }

    /// Takes the parts of texts that are not whole and got no part since `quiet_since`; and forgets all parts from before
    /// `forget`. They stay in the table, so that one that comes after all finds them.
    pub async fn reply_parts_give_up(
        &mut self,
        quiet_since: Timestamp,
        forget: Timestamp,
        limit: i64,
    ) -> Result<Vec<ReplyPart>, StoreError> {
        sqlx::query("delete from reply_parts where received_at < $1")
            .bind(At(forget))
            .execute(&mut *self.inner)
            .await?;
        let rows: Vec<PartRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "with open as (
                 select {KEY} from reply_parts where not flushed group by {KEY}
                 having count(*) < total and max(received_at) < $1 limit $2
             )
             update reply_parts p set flushed = true from open o
             where (p.phone_hash, p.recipient, p.gateway, p.reference, p.wide, p.total)
                 = (o.phone_hash, o.recipient, o.gateway, o.reference, o.wide, o.total)
             returning p.phone_hash, p.recipient, p.gateway, p.reference, p.wide, p.total, p.sequence, p.id, p.callback, p.received_at"
        )))
        .persistent(false)
        .bind(At(quiet_since))
        .bind(limit)
        .fetch_all(&mut *self.inner)
        .await?;
        let mut parts: Vec<ReplyPart> = rows.into_iter().map(read).collect();
        parts.sort_unstable_by(|one, other| (&one.key, one.sequence).cmp(&(&other.key, other.sequence)));
        Ok(parts)
    }

    /// Which of these (phone, keyword, reply, time) are to be answered: a phone gets a keyword's answer once in ten
    /// minutes, and a reply that was answered before, being delivered again, is answered again, under the same id.
    pub async fn reply_answers_claim(
        &mut self,
        wanted: &[(Vec<u8>, String, Uuid, Timestamp)],
    ) -> Result<Vec<Uuid>, StoreError> {
        let mut rows: Vec<&(Vec<u8>, String, Uuid, Timestamp)> = wanted.iter().collect();
        rows.sort_by(|one, other| (&one.0, &one.1, one.3).cmp(&(&other.0, &other.1, other.3)));
        rows.dedup_by(|next, first| (&next.0, &next.1) == (&first.0, &first.1));
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        Ok(sqlx::query_scalar(
            "insert into reply_answers (phone_hash, keyword, reply_id, at)
             select * from unnest($1::bytea[], $2::text[], $3::uuid[], $4::timestamptz[])
             on conflict (phone_hash, keyword) do update set reply_id = excluded.reply_id, at = excluded.at
             where reply_answers.reply_id = excluded.reply_id or reply_answers.at < excluded.at - interval '10 minutes'
             returning reply_id",
        )
        .bind(rows.iter().map(|row| row.0.as_slice()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.1.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.2).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| At(row.3)).collect::<Vec<_>>())
        .fetch_all(&mut *self.inner)
        .await?)
    }

    /// Keeps replies for a person; one that is there stays.
    pub async fn reply_reviews_put(&mut self, reviews: &[Review]) -> Result<(), StoreError> {
        if reviews.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into reply_reviews (id, contact_id, phone_hash, gateway, text, received_at)
             select * from unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[], $5::text[], $6::timestamptz[])
             on conflict do nothing",
        )
        .bind(reviews.iter().map(|one| one.id).collect::<Vec<_>>())
        .bind(reviews.iter().map(|one| one.contact_id.as_deref()).collect::<Vec<_>>())
        .bind(reviews.iter().map(|one| one.phone_hash.as_slice()).collect::<Vec<_>>())
        .bind(reviews.iter().map(|one| one.gateway.as_str()).collect::<Vec<_>>())
        .bind(reviews.iter().map(|one| foreign(&one.text)).collect::<Vec<_>>())
        .bind(reviews.iter().map(|one| At(one.received_at)).collect::<Vec<_>>())
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Takes a reply that a person has decided on.
    pub async fn reply_review_take(&mut self, id: Uuid) -> Result<Option<Review>, StoreError> {
        let row = sqlx::query(
            "delete from reply_reviews where id = $1
             returning id, contact_id, phone_hash, gateway, text, received_at",
        )
        .bind(id)
        .fetch_optional(&mut *self.inner)
        .await?;
        row.as_ref().map(review).transpose()
    }
}

impl Store {
    /// Replies that wait for a person, the oldest first.
    pub async fn reply_reviews(&self, limit: i64) -> Result<Vec<Review>, StoreError> {
        let rows = sqlx::query(
            "select id, contact_id, phone_hash, gateway, text, received_at from reply_reviews
             order by received_at, id limit $1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(review).collect()
    }

    /// How many wait for a person, counted up to `most`.
    pub async fn reply_reviews_count(&self, most: i64) -> Result<i64, StoreError> {
        let count = sqlx::query_scalar("select count(*) from (select from reply_reviews limit $1) r")
            .bind(most)
            .fetch_one(&self.pool)
            .await?;
        Ok(count)
    }
}

fn review(row: &sqlx::postgres::PgRow) -> Result<Review, StoreError> {
    Ok(Review {
        id: row.try_get("id")?,
        contact_id: row.try_get("contact_id")?,
        phone_hash: row.try_get("phone_hash")?,
        gateway: row.try_get("gateway")?,
        text: row.try_get("text")?,
        received_at: row.try_get::<At, _>("received_at")?.0,
    })
}
