//! The suppression list: phones that get no marketing, or nothing at all.
//!
//! STOP, a reply that a person read and an erasure enter phones by themselves; here they are entered and lifted by hand, as
//! from the list of an earlier provider. The list holds keyed hashes and never phones: it outlives the contacts, and shows
//! nobody whom it is about.

use domain::{Phone, phone::PhoneKey};
use jiff::Timestamp;
use store::suppressions::{Scope, Suppression};

use crate::{Api, ApiError, Caller, Role};

/// Phones in one call.
pub const MAX_BATCH: usize = 10_000;
/// The most that one page shows.
pub const MAX_LIST: i64 = 1_000;
/// Where a phone was entered from that nobody said more of.
const SOURCE: &str = "api";

/// What was done with phones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Shut off more than before, or lifted.
    pub changed: u64,
    pub unchanged: u64,
    /// Which could not be read, counted from 1, and why.
    pub rejected: Vec<(usize, String)>,
}

impl Api {
    /// Shuts phones off. What is wider already stays as it is.
    pub async fn suppressions_add(
        &self,
        caller: &Caller,
        phones: &[String],
        region: Option<&str>,
        scope: Scope,
        source: Option<&str>,
    ) -> Result<Done, ApiError> {
        caller.require(&[Role::Campaigns, Role::Events])?;
        let source = source.unwrap_or(SOURCE);
        if source.is_empty() || source.chars().count() > 100 || source.contains(char::is_control) {
            return Err(ApiError::invalid(
                "source",
                "expected one line of 1 to 100 characters, such as the name of the list",
            ));
        }
        let read = self.read(phones, region).await?;
        let mut tx = self.store.begin().await?;
        let changed = tx
            .suppressions_enter(&read.hashes, scope, source, Some(&caller.name), self.clock.now())
            .await?;
        tx.commit().await?;
        tracing::info!(by = caller.name, %scope, phones = changed, "phones suppressed");
        Ok(read.done(changed))
    }

    /// Lifts a scope from phones. Whoever said STOP has to say START to undo it; to do it for them is an admin's to answer for.
    pub async fn suppressions_remove(
        &self,
        caller: &Caller,
        phones: &[String],
        region: Option<&str>,
        scope: Scope,
    ) -> Result<Done, ApiError> {
        caller.require(&[])?;
        let read = self.read(phones, region).await?;
        let mut tx = self.store.begin().await?;
        let changed = tx.suppressions_remove(&read.hashes, scope).await?;
        tx.commit().await?;
        tracing::warn!(by = caller.name, %scope, phones = changed, "suppressions lifted");
        Ok(read.done(changed))
    }

    /// A page of the list, the newest first; the next one begins after a page's last line.
    pub async fn suppressions_list(
        &self,
        caller: &Caller,
        after: Option<(Timestamp, Vec<u8>)>,
        limit: i64,
    ) -> Result<Vec<Suppression>, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        if !(1..=MAX_LIST).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("expected 1 to {MAX_LIST}")));
        }
        Ok(self.store.suppressions_page(after, limit).await?)
    }

    async fn read(&self, phones: &[String], region: Option<&str>) -> Result<Hashes, ApiError> {
        if !(1..=MAX_BATCH).contains(&phones.len()) {
            return Err(ApiError::invalid(
                "phones",
                format!("{} phones in one call: expected 1 to {MAX_BATCH}", phones.len()),
            ));
        }
        let region = self.region(region).await?;
        let key = self.store.phone_key().await?;
        let phones = phones.to_vec();
        // Reading phones is work: not on the threads that answer others.
        tokio::task::spawn_blocking(move || Hashes::of(&phones, region.as_deref(), &key))
            .await
            .map_err(|_| ApiError::internal("reading the phones failed"))
    }
}

struct Hashes {
    /// Each once.
    hashes: Vec<Vec<u8>>,
    rejected: Vec<(usize, String)>,
}

impl Hashes {
    fn of(phones: &[String], region: Option<&str>, key: &PhoneKey) -> Hashes {
        let mut hashes = Vec::with_capacity(phones.len());
        let mut rejected = Vec::new();
        for (number, phone) in (1..).zip(phones) {
            match Phone::parse(phone, region) {
                Ok(phone) => hashes.push(key.hash(&phone)),
                Err(error) => rejected.push((number, error.to_string())),
            }
        }
        hashes.sort_unstable();
        hashes.dedup();
        Hashes { hashes, rejected }
    }

    fn done(self, changed: u64) -> Done {
        Done {
            changed,
            unchanged: (self.hashes.len() as u64).saturating_sub(changed),
            rejected: self.rejected,
        }
    }
}
