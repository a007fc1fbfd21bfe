//! The conservation check (guarantee 5): planned messages against what became of them.

use jiff::Timestamp;
use store::messages::Audit;

pub use store::audit::AUDIT_LIMIT;

use crate::{Api, ApiError, Caller, Role};

/// The most violations of each kind that one audit tells.
pub const MAX_LIST: i64 = 10_000;

impl Api {
    /// Compares what campaigns and events planned in a period with what the ledger holds; up to `limit` violations of each
    /// kind are told.
    pub async fn audit(
        &self,
        caller: &Caller,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        limit: i64,
    ) -> Result<Audit, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            return Err(ApiError::invalid("until", "expected a time after `since`"));
        }
        if !(1..=MAX_LIST).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("expected 1 to {MAX_LIST}")));
        }
        Ok(self.store.audit_up_to(since, until, limit).await?)
    }
}
