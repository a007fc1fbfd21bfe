//! A campaign's expansion: the walk over its audience, and its chunks.
//!
//! A chunk is planned (its contacts written down, the campaign's position moved) in one transaction, and only then are
//! its jobs appended, by whoever claims it. So the planned count is the number of distinct jobs that are ever emitted:
//! a repeat after a crash emits the written list, whatever became of the contacts in between.

use std::collections::BTreeSet;

use domain::{CampaignState, Reason, phone::PhoneMark};
use jiff::Timestamp;
use sqlx::Row;
use uuid::Uuid;

use super::{COLUMNS, Campaign, parse_state, read};
use crate::{Store, StoreError, Tx, time::At};

/// A contact of a chunk, and why its job is suppressed, if it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkMember {
    pub contact_id: String,
    pub suppress: Option<Reason>,
}

/// A planned chunk whose jobs are to be appended.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    pub campaign: Campaign,
    pub number: i32,
    pub planned_at: Timestamp,
    pub members: Vec<ChunkMember>,
}

/// A contact that a walk meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    pub id: String,
    /// E.164.
    pub phone: Option<String>,
    /// It consents to the purpose that was asked for.
    pub consents: bool,
}

/// In id order.
pub type Page = Vec<Met>;

/// The contacts of an audience in id order, page by page, as one statement's snapshot.
#[derive(Debug)]
pub struct Walk {
    pages: tokio::sync::mpsc::Receiver<Result<Page, StoreError>>,
    over: bool,
}

impl Walk {
    /// A walk over what comes through `pages`; an empty one is the end.
    pub(crate) fn new(pages: tokio::sync::mpsc::Receiver<Result<Page, StoreError>>) -> Walk {
        Walk { pages, over: false }
    }

    /// The next page; empty at the end.
    pub async fn next_page(&mut self) -> Result<Page, StoreError> {
        if self.over {
            return Ok(Vec::new());
        }
        // The end is said, by an empty page: a walk that only stops was broken off, and somebody was left out.
        let broken_off = || StoreError::Unavailable(sqlx::Error::WorkerCrashed);
        let page = self.pages.recv().await.ok_or_else(broken_off)??;
        self.over = page.is_empty();
        Ok(page)
    }
}

impl Store {
    /// The running campaigns whose expansion is not at its end, the one that waited longest first.
    pub async fn campaigns_expanding(&self) -> Result<Vec<Campaign>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from campaigns where state = 'running' and expanded_at is null order by updated_at, id limit 100"
        )))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// The running campaigns whose jobs are all on the bus.
    pub async fn campaigns_expanded(&self) -> Result<Vec<Campaign>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from campaigns c where state = 'running' and expanded_at is not null
             and not exists (select from campaign_chunks k where k.campaign_id = c.id and k.done_at is null)
             order by expanded_at limit 1000"
        )))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// The phones that somebody speaks for in a campaign whose walk is not at its end.
    pub async fn campaign_phones(&self, id: Uuid) -> Result<BTreeSet<PhoneMark>, StoreError> {
        let chunks: Vec<Vec<u8>> =
            sqlx::query_scalar("select phones from campaign_chunks where campaign_id = $1 and phones is not null")
                .bind(id)
                .fetch_all(&self.pool)
                .await?;
        Ok(chunks.iter().flat_map(|phones| phones.as_chunks().0).copied().collect())
    }

    /// Forgets the phones of cancelled campaigns, whose walk never comes to its end. Not done by whoever cancels, who would
    /// wait for a chunk whose jobs are just being appended.
    pub async fn campaign_phones_forget(&self) -> Result<(), StoreError> {
        sqlx::query(
            "update campaign_chunks k set phones = null from campaigns c
             where k.phones is not null and c.id = k.campaign_id and c.state = 'cancelled'",
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// How many of a campaign's chunks are planned and not yet on the bus.
    pub async fn campaign_chunks_open(&self, id: Uuid) -> Result<i64, StoreError> {
        Ok(
            sqlx::query_scalar("select count(*) from campaign_chunks where campaign_id = $1 and done_at is null")
                .bind(id)
                .fetch_one(&self.pool)
                .await?,
        )
    }
}

impl Tx {
    /// Writes a chunk down, with the phones that its members speak for, and moves the campaign's position. `false`: the
    /// campaign does not run any more, or somebody else moved its position; nothing was written and the transaction is to
    /// be dropped.
    pub async fn campaign_chunk_plan(
        &mut self,
        campaign: &Campaign,
        members: &[ChunkMember],
        phones: &[PhoneMark],
        spent_micros: i64,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some(last) = members.last() else { return Ok(true) };
        let moved = sqlx::query(
            "update campaigns set after_contact = $3, chunks = chunks + 1, planned = planned + $4,
                 spent_micros = spent_micros + $5, updated_at = $6
             where id = $1 and state = 'running' and expanded_at is null and after_contact = $2 and chunks = $7",
        )
        .bind(campaign.id)
        .bind(&campaign.after_contact)
        .bind(&last.contact_id)
        .bind(members.len() as i64)
        .bind(spent_micros)
        .bind(At(now))
        .bind(campaign.chunks)
        .execute(&mut *self.inner)
        .await?;
        if moved.rows_affected() == 0 {
            return Ok(false);
        }
        let contacts: Vec<&str> = members.iter().map(|member| member.contact_id.as_str()).collect();
        let reasons: Vec<Option<&str>> = members
            .iter()
            .map(|member| member.suppress.map(Reason::as_str))
            .collect();
        sqlx::query(
            "insert into campaign_chunks
                 (campaign_id, number, after_contact, last_contact, planned, contacts, reasons, phones, planned_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(campaign.id)
        .bind(campaign.chunks)
        .bind(&campaign.after_contact)
        .bind(&last.contact_id)
        .bind(members.len() as i32)
        .bind(&contacts)
        .bind(&reasons)
        .bind(phones.as_flattened())
        .bind(At(now))
        .execute(&mut *self.inner)
        .await?;
        Ok(true)
    }

    /// The walk is at its end, and who speaks for a phone is asked no more.
    pub async fn campaign_expanded(&mut self, campaign: &Campaign, now: Timestamp) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "update campaigns set expanded_at = $3, updated_at = $3
             where id = $1 and state = 'running' and expanded_at is null and chunks = $2",
        )
        .bind(campaign.id)
        .bind(campaign.chunks)
        .bind(At(now))
        .execute(&mut *self.inner)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("update campaign_chunks set phones = null where campaign_id = $1")
            .bind(campaign.id)
            .execute(&mut *self.inner)
            .await?;
        Ok(true)
    }

    /// Claims the oldest chunk whose jobs are not on the bus, of a campaign that runs (or was cancelled: its planned
    /// messages go down the pipeline to become `cancelled`). The claim is the row's lock: it ends with this transaction
    /// or with this process, and somebody else takes over. Append the jobs, then [`Tx::campaign_chunk_done`], then commit.
    pub async fn campaign_chunk_claim(&mut self) -> Result<Option<Chunk>, StoreError> {
        // A replica that is cut off from us keeps its lock no longer than this without a word.
        sqlx::query("set local idle_in_transaction_session_timeout = '10s'")
            .execute(&mut *self.inner)
            .await?;
        let row = sqlx::query(
            "select k.campaign_id, k.number, k.contacts, k.reasons, k.planned_at
             from campaign_chunks k join campaigns c on c.id = k.campaign_id
             where k.done_at is null and c.state in ('running', 'cancelled')
             order by k.planned_at, k.number limit 1 for update of k skip locked",
        )
        .fetch_optional(&mut *self.inner)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let id: Uuid = row.try_get("campaign_id")?;
        let campaign = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from campaigns where id = $1"
        )))
        .bind(id)
        .fetch_one(&mut *self.inner)
        .await?;
        let contacts: Vec<String> = row.try_get("contacts")?;
        let reasons: Vec<Option<String>> = row.try_get("reasons")?;
        let members = contacts
            .into_iter()
            .zip(reasons)
            .map(|(contact_id, reason)| {
                let suppress = reason
                    .map(|reason| reason.parse())
                    .transpose()
                    .map_err(|_| StoreError::Corrupt("a chunk's reason is none of ours".into()))?;
                Ok(ChunkMember { contact_id, suppress })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Some(Chunk {
            campaign: read(&campaign)?,
            number: row.try_get("number")?,
            planned_at: row.try_get::<At, _>("planned_at")?.0,
            members,
        }))
    }

    /// The chunk's jobs are on the bus.
    pub async fn campaign_chunk_done(&mut self, chunk: &Chunk, now: Timestamp) -> Result<(), StoreError> {
        sqlx::query("update campaign_chunks set done_at = $3 where campaign_id = $1 and number = $2")
            .bind(chunk.campaign.id)
            .bind(chunk.number)
            .bind(At(now))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// A campaign's state as it is now.
    pub async fn campaign_state(&mut self, id: Uuid) -> Result<Option<CampaignState>, StoreError> {
        let state: Option<String> = sqlx::query_scalar("select state from campaigns where id = $1")
            .bind(id)
            .fetch_optional(&mut *self.inner)
            .await?;
        state.as_deref().map(parse_state).transpose()
    }
}
