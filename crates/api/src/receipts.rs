//! Receipts that found no message: they came before it, or match nothing that was ever sent.

use jiff::Timestamp;
use store::unmatched::Unmatched;

use crate::{Api, ApiError, Caller, Role};

/// The most that one list shows.
pub const MAX_LIST: i64 = 1_000;

impl Api {
    /// What gateways reported and no message was found for, the newest first: what came from `since` on, of one gateway or
    /// of all. They are kept for 31 days. None holds a phone.
    pub async fn receipts_unmatched(
        &self,
        caller: &Caller,
        since: Option<Timestamp>,
        gateway: Option<&str>,
        limit: i64,
    ) -> Result<Vec<Unmatched>, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        if !(1..=MAX_LIST).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("expected 1 to {MAX_LIST}")));
        }
        Ok(self.store.unmatched_list(since, gateway, limit).await?)
    }
}
