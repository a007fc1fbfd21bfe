//! Replies of which a part never came: what there is goes through the step again, as a record on `callbacks` of the
//! transport `incomplete`.

use events::Callback;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::replies::Reply;

pub(crate) const TRANSPORT: &str = "incomplete";

#[derive(Serialize, Deserialize)]
pub(crate) struct GivenUp {
    pub(crate) id: Uuid,
    from: String,
    to: String,
    text: String,
    parts: u16,
}

impl GivenUp {
    pub(crate) fn of(reply: &Reply) -> GivenUp {
        GivenUp {
            id: reply.id,
            from: reply.from.clone(),
            to: reply.to.clone(),
            text: reply.text.clone(),
            parts: reply.parts,
        }
    }

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

    pub(crate) fn read(callback: &Callback, input: usize) -> Option<Reply> {
        let given_up: GivenUp = serde_json::from_slice(&callback.body).ok()?;
        Some(Reply {
            input,
            id: given_up.id,
            // Its parts were new when they came.
            origin: given_up.id,
            gateway: callback.gateway.clone(),
            received_at: callback.received_at,
            from: given_up.from,
            to: given_up.to,
            text: given_up.text,
            parts: given_up.parts,
            incomplete: true,
        })
    }
}
