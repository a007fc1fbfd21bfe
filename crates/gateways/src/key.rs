//! Which key a callback goes onto the bus under: callbacks of one gateway spread over all partitions, and what must keep
//! its order keeps it.
//!
//! A receipt's key is the gateway and its id of the part, so one part's receipts stay in order. A reply's is the keyed
//! hash of the sender: STOP and START of one phone, and the parts of one text, come to one reader in their order. What
//! cannot be read becomes a dead letter whatever its key is.

use data_encoding::HEXLOWER;
use domain::{Phone, phone::PhoneKey};
use events::Callback;

use crate::{Heard, understand};

/// What a callback goes onto the bus under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackKey {
    pub key: String,
    /// Somebody wrote it, and no gateway.
    pub is_reply: bool,
}

/// The key of a callback as it came. `resource` is its gateway, where that is (still) configured.
pub fn callback_key(callback: &Callback, resource: Option<&resources::Gateway>, phones: &PhoneKey) -> CallbackKey {
    let first = resource
        .and_then(|resource| understand(callback, resource).ok())
        .and_then(|heard| heard.into_iter().next());
    let (key, is_reply) = match first {
        Some(Heard::Receipt { remote_id, .. }) => (receipt_key(&callback.gateway, &remote_id), false),
        Some(Heard::Inbound { from, .. }) => (reply_key(&sender(&from), phones), true),
        None => (callback.gateway.clone(), false),
    };
    CallbackKey { key, is_reply }
}

/// The key of a receipt of a part.
pub fn receipt_key(gateway: &str, remote_id: &str) -> String {
    let id = remote_id.trim().trim_start_matches('0').to_ascii_lowercase();
    // What a gateway says is never long; a key must not be.
    let id: String = id.chars().take(100).collect();
    format!("{gateway}:{id}")
}

/// The key of a text that a phone sent: its hash, in hexadecimal.
pub fn reply_key(phone: &Phone, phones: &PhoneKey) -> String {
    HEXLOWER.encode(&phones.hash(phone))
}

/// The sender of a reply as a phone; one that is none (a short code, a name) is taken as it came, to be hashed and no more.
pub fn sender(from: &str) -> Phone {
    let digits = from.trim_start_matches('+');
    let international = (8..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    match international {
        true => {
            let e164 = format!("+{digits}");
            Phone::parse(&e164, None).unwrap_or_else(|_| Phone::from_e164(e164))
        }
        false => Phone::from_e164(from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(query: &str) -> CallbackKey {
        let resource = resources::Gateway::http("main", "http://h/", "twilio");
        let callback = Callback {
            gateway: "main".into(),
            transport: "http".into(),
            received_at: jiff::Timestamp::UNIX_EPOCH,
            meta: serde_json::json!({ "query": query }).as_object().cloned().unwrap(),
            body: Vec::new(),
        };
        callback_key(&callback, Some(&resource), &PhoneKey::new(b"k"))
    }

    fn key(query: &str) -> String {
        keyed(query).key
    }

    #[test]
    fn a_parts_receipts_share_a_key_and_so_do_a_phones_texts() {
        assert_eq!(key("MessageSid=00AB&MessageStatus=sent"), "main:ab");
        assert_eq!(key("MessageSid=ab&MessageStatus=delivered"), "main:ab");
        assert_ne!(key("MessageSid=ac&MessageStatus=sent"), "main:ab");
        let stop = key("From=%2B262692123456&To=36105&Body=STOP");
        assert_eq!(stop, key("From=262692123456&To=36106&Body=START"));
        assert!(!stop.contains("692"), "no phone is in a key");
        assert_eq!(key("rubbish"), "main");
        let is_reply = |query| keyed(query).is_reply;
        assert!(is_reply("From=%2B262692123456&To=36105&Body=STOP"));
        assert!(!is_reply("MessageSid=ab&MessageStatus=sent") && !is_reply("rubbish"));
    }

    #[test]
    fn a_sender_is_a_phone_with_or_without_its_plus() {
        assert_eq!(sender("262692123456").e164(), "+262692123456");
        assert_eq!(sender("+262692123456").e164(), "+262692123456");
        assert_eq!(sender("36105").e164(), "36105");
    }
}
