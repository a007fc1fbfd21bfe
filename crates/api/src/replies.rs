//! Replies that a person decides on: they sound as if somebody wanted to be left alone, and are no keyword. Nothing is
//! decided by a guess; until somebody decides, the reply changes nothing.

use domain::Consent;
use store::{contacts::ContactChange, reply_parts::Review, suppressions::Scope};
use uuid::Uuid;

use crate::{Api, ApiError, Caller, Role};

/// The most that one list shows.
pub const MAX_LIST: i64 = 1_000;
/// Where an opt-out came from that a person read out of a reply.
const SOURCE: &str = "reply-review";

/// What a person says a reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// No marketing to this phone any more, as if it were STOP.
    Stop,
    /// It means nothing for us.
    Nothing,
}

impl Api {
    /// The replies that wait for a decision, the oldest first. Their texts are what people wrote: not for every reader.
    pub async fn replies_to_review(&self, caller: &Caller, limit: i64) -> Result<Vec<Review>, ApiError> {
        caller.require(&[Role::Campaigns])?;
        if !(1..=MAX_LIST).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("expected 1 to {MAX_LIST}")));
        }
        Ok(self.store.reply_reviews(limit).await?)
    }

    /// How many replies wait for a decision, counted up to [`MAX_LIST`].
    pub async fn replies_waiting(&self, caller: &Caller) -> Result<i64, ApiError> {
        caller.require(&[Role::Campaigns])?;
        Ok(self.store.reply_reviews_count(MAX_LIST).await?)
    }

    /// Decides; the reply's text is gone with it. A reply that was decided before is not found.
    pub async fn reply_decide(&self, caller: &Caller, id: Uuid, meaning: Meaning) -> Result<(), ApiError> {
        caller.require(&[Role::Campaigns])?;
        let mut tx = self.store.begin().await?;
        let review = tx.reply_review_take(id).await?;
        let review = review.ok_or_else(|| ApiError::not_found("reply to review"))?;
        if meaning == Meaning::Stop {
            let now = self.clock.now();
            tx.suppression_put(&review.phone_hash, Scope::Marketing, SOURCE, now)
                .await?;
            if let Some(contact) = review.contact_id {
                let change = ContactChange {
                    id: contact,
                    marketing_consent: Some(Consent::No),
                    withdraws_all: true,
                    ..ContactChange::default()
                };
                tx.contacts_upsert(&[change], &caller.name, SOURCE, now).await?;
            }
        }
        tx.commit().await?;
        tracing::info!(by = caller.name, ?meaning, "reply decided");
        Ok(())
    }
}
