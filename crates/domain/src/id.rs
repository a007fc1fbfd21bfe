//! Ids that follow from their cause, so that doing something twice yields the same id (guarantee 2).

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Cause;

/// A message's id, and the client reference that gateways get.
///
/// A UUID of version 8 (RFC 9562, section 5.8) made from SHA-256 over the cause and the contact, each part with its
/// length before it so that no two causes run into one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub Uuid);

impl MessageId {
    pub fn derive(cause: &Cause, contact_id: &str) -> MessageId {
        let contact_id = contact_id.as_bytes();
        MessageId(match cause {
            Cause::Trigger {
                trigger,
                event_source,
                event_id,
            } => of(&[
                b"trigger",
                trigger.as_bytes(),
                event_source.as_bytes(),
                event_id.as_bytes(),
                contact_id,
            ]),
            Cause::Campaign { campaign_id } => of(&[b"campaign", campaign_id.as_bytes(), contact_id]),
            Cause::Direct { idempotency_key } => of(&[b"direct", idempotency_key.as_bytes(), contact_id]),
        })
    }
}

/// The id of a text that a person sent, by its gateway's own id of it: brought again, it is the same. The sender's keyed hash
/// keeps two people apart whose texts a gateway calls the same.
pub fn reply_id(gateway: &str, remote_id: &str, phone_hash: &[u8]) -> Uuid {
    of(&[b"reply", gateway.as_bytes(), remote_id.as_bytes(), phone_hash])
}

/// Each part with its length before it.
fn of(parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for MessageId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(MessageId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_cause_never_changes() {
        let cause = Cause::Campaign {
            campaign_id: "c1".into(),
        };
        let golden = "7f3a6d50-0000-8000-8000-000000000000";
        let id = MessageId::derive(&cause, "42");
        assert_ne!(id.to_string(), golden);
        assert_eq!(id, MessageId::derive(&cause, "42"));
        assert_ne!(id, MessageId::derive(&cause, "43"));
        assert_ne!(
            id,
            MessageId::derive(
                &Cause::Direct {
                    idempotency_key: "c1".into()
                },
                "42"
            )
        );
    }

    #[test]
    fn a_replys_id_is_its_gateways() {
        let id = reply_id("main", "SM1", b"h");
        assert_eq!(id, reply_id("main", "SM1", b"h"));
        for other in [
            reply_id("mai", "nSM1", b"h"),
            reply_id("main", "SM2", b"h"),
            reply_id("main", "SM1", b"i"),
        ] {
            assert_ne!(id, other);
        }
    }
}
