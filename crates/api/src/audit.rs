//! The conservation check (guarantee 5): planned messages against what became of them.

use jiff::Timestamp;
use store::messages::Audit;

use crate::{Api, ApiError, Caller, Role};

impl Api {
    /// Compares what campaigns and events planned in a period with what the ledger holds.
    pub async fn audit(
        &self,
        caller: &Caller,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Audit, ApiError> {
        caller.require(&[Role::Campaigns, Role::Read])?;
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            return Err(ApiError::invalid("until", "expected a time after `since`"));
        }
        Ok(self.store.audit(since, until).await?)
    }
}
