//! Receipts that waited and now go through the step again, as records on `callbacks`: of the transport `joined`.
//!
//! They take the same way as any other so that they have the same guarantees: what is on the topic is applied and emitted
//! however often somebody dies meanwhile.

use domain::State;
use events::Callback;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::unmatched::Unmatched;
use uuid::Uuid;

pub(crate) const TRANSPORT: &str = "joined";

/// A receipt that was understood before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// As the gateway said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remote_id: Option<String>,
    pub(crate) forms: Vec<String>,
    pub(crate) state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    pub(crate) at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<Uuid>,
}

impl Joined {
    /// `None`: its word is none that we know, and nothing follows from it.
    pub(crate) fn of(receipt: &Unmatched) -> Option<Joined> {
        Some(Joined {
            remote_id: Some(receipt.remote_id.clone()),
            forms: receipt.match_ids.clone(),
            state: receipt.state?.as_str().into(),
            code: receipt.code.clone(),
            at: receipt.at,
            reference: receipt.reference,
        })
    }

    pub(crate) fn state(&self) -> Option<State> {
        self.state.parse().ok()
    }

    /// That of its part's other receipts.
    pub(crate) fn key(&self, gateway: &str) -> String {
        let id = self.forms.first().map(String::as_str).unwrap_or_default();
        gateways::key::receipt_key(gateway, id)
    }

    /// As it goes onto the topic.
    pub(crate) fn to_callback(&self, gateway: &str, received_at: Timestamp) -> Callback {
        Callback {
            gateway: gateway.into(),
            transport: TRANSPORT.into(),
            received_at,
            meta: serde_json::Map::new(),
            // Plain data: there is nothing in it that JSON could not hold.
            body: serde_json::to_vec(self).unwrap_or_default(),
        }
    }

    pub(crate) fn from_callback(callback: &Callback) -> Option<Joined> {
        serde_json::from_slice(&callback.body).ok()
    }
}
