//! The addresses that short links stand for.

use jiff::Timestamp;
use sqlx::Row;
use uuid::Uuid;

use crate::{Store, StoreError, Tx, time::At};

/// A link of one message.
#[derive(Clone, PartialEq, Eq)]
pub struct ShortLink {
    pub code: String,
    pub url: String,
    pub contact_id: String,
    pub message_id: Uuid,
}

impl std::fmt::Debug for ShortLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShortLink")
            .field("message_id", &self.message_id)
            .finish_non_exhaustive()
    }
}

impl Tx {
    /// Keeps links; one that is kept already, because its text is made again, stays as it is.
    pub async fn links_put(&mut self, links: &[ShortLink], now: Timestamp) -> Result<(), StoreError> {
        if links.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into short_links (code, url, contact_id, message_id, created_at)
             select code, url, contact_id, message_id, $5
             from unnest($1::text[], $2::text[], $3::text[], $4::uuid[]) v (code, url, contact_id, message_id)
             order by code
             on conflict do nothing",
        )
        .bind(links.iter().map(|link| link.code.as_str()).collect::<Vec<_>>())
        .bind(links.iter().map(|link| link.url.as_str()).collect::<Vec<_>>())
        .bind(links.iter().map(|link| link.contact_id.as_str()).collect::<Vec<_>>())
        .bind(links.iter().map(|link| link.message_id).collect::<Vec<_>>())
        .bind(At(now))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }
}

impl Store {
    /// What a code stands for.
    pub async fn link_get(&self, code: &str) -> Result<Option<ShortLink>, StoreError> {
        let row = sqlx::query("select url, contact_id, message_id from short_links where code = $1")
            .bind(code)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            Ok(ShortLink {
                code: code.to_owned(),
                url: row.try_get("url")?,
                contact_id: row.try_get("contact_id")?,
                message_id: row.try_get("message_id")?,
            })
        })
        .transpose()
    }

    /// Lets go of links from before `before`, up to `limit` of them; how many.
    pub async fn links_prune(&self, before: Timestamp, limit: i64) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "delete from short_links where code in (
                 select code from short_links where created_at < $1 limit $2 for update skip locked
             )",
        )
        .bind(At(before))
        .bind(limit)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}
