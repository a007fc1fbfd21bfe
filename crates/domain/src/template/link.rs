//! `{{ link("https://…") }}`: a short address of one message, by which it is known who followed it.
//!
//! The code is a hash of the message and the address, so a text that is made again has the same links. It leads nowhere
//! by itself: the address is kept beside it before the text goes out, and only kept addresses are redirected to. That is
//! no open redirect as long as nobody but the template's author chooses the host, so the argument begins with it, written
//! out: what follows the host may be a value.

use std::sync::{Arc, Mutex, PoisonError};

use minijinja::{Error, State, Value, value::Object};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::filters::{expected, is_missing};

/// The name under which the function finds its links. It cannot be written in a template.
pub(super) const LINKS: &str = " links";

/// Longer addresses are refused.
pub const MAX_URL: usize = 2_000;
/// Links of one text.
const MOST: usize = 10;

/// An address and the code that stands for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    pub code: String,
    pub url: String,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An address may hold a person's data.
        f.debug_struct("Link").field("code", &self.code).finish_non_exhaustive()
    }
}

/// Makes the links of one message.
#[derive(Debug)]
pub struct Links {
    base: String,
    message_id: Uuid,
    made: Mutex<Vec<Link>>,
}

impl Object for Links {}

impl Links {
    /// `base` is what short addresses begin with, such as `https://s.example.com/l/`.
    pub fn new(base: impl Into<String>, message_id: Uuid) -> Arc<Links> {
        Arc::new(Links {
            base: base.into(),
            message_id,
            made: Mutex::new(Vec::new()),
        })
    }

    /// What was made, each address once.
    pub fn take(&self) -> Vec<Link> {
        std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `None`: too many.
    fn shorten(&self, url: &str) -> Option<String> {
        let code = code(self.message_id, url);
        let short = format!("{}{code}", self.base);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.iter().all(|link| link.code != code) {
            if made.len() == MOST {
                return None;
            }
            made.push(Link {
                code,
                url: url.to_owned(),
            });
        }
        Some(short)
    }
}

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// 64 bits of a hash in 11 letters and digits.
fn code(message_id: Uuid, url: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(message_id.as_bytes());
    hash.update(url.as_bytes());
    let digest = hash.finalize();
    let mut number = digest
        .iter()
        .take(8)
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let mut code = String::with_capacity(11);
    for _ in 0..11 {
        code.push(char::from(DIGITS[(number % 62) as usize]));
        number /= 62;
    }
    code
}

/// The function itself.
pub(super) fn link(state: &State<'_, '_>, url: Value) -> Result<Value, Error> {
    if is_missing(&url) {
        return Ok(Value::UNDEFINED);
    }
    let url = url.as_str().filter(|url| is_address(url)).ok_or_else(|| {
        expected("link: expected an address such as \"https://shop.example/offer\", of up to 2000 characters")
    })?;
    let carried = state.lookup(LINKS);
    let links = carried.as_ref().and_then(|value| value.downcast_object_ref::<Links>());
    let links =
        links.ok_or_else(|| expected("link: expected `short_links` in the policy, the address of our links"))?;
    links
        .shorten(url)
        .map(Value::from)
        .ok_or_else(|| expected("link: expected at most 10 different addresses in a text"))
}

/// Where the path begins, in an address with scheme and host: its length where there is none.
fn host_end(url: &str) -> Option<usize> {
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))?;
    let host = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    // No user name before the host, which would be read as the host.
    (host > 0 && rest[..host].bytes().all(good)).then(|| url.len() - rest.len() + host)
}

fn is_address(url: &str) -> bool {
    url.len() <= MAX_URL && host_end(url).is_some() && !url.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// What is wrong with the text that the argument begins with; `alone` where nothing follows it.
pub(super) fn check_literal(quoted: &str, alone: bool) -> Option<&'static str> {
    const WRONG: &str = "link(…) expects an address that begins, written out, with `https://` and its host, such as \
                         `link(\"https://shop.example/offer?c=\" ~ contact.id)`";
    let text = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    match host_end(text) {
        Some(end) if alone || end < text.len() => None,
        _ => Some(WRONG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_of_the_message_and_the_address() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let first = code(one, "https://a.example/");
        assert_eq!(first.len(), 11);
        assert_eq!(first, code(one, "https://a.example/"));
        assert_ne!(first, code(other, "https://a.example/"));
        assert_ne!(first, code(one, "https://a.example/b"));
    }

    #[test]
    fn the_host_is_written_out() {
        for (quoted, alone, good) in [
            ("'https://a.example'", true, true),
            ("'https://a.example'", false, false),
            ("'https://a.example/'", false, true),
            ("'https://a.example?x='", false, true),
            ("'https://'", false, false),
            ("'javascript:alert(1)'", true, false),
            ("'https://a.example@evil.example/'", true, false),
            ("'//a.example/'", true, false),
            ("''", true, false),
        ] {
            assert_eq!(check_literal(quoted, alone).is_none(), good, "{quoted} {alone}");
        }
        assert!(!is_address("https://a.example/a b"));
        assert!(!is_address(&format!("https://a.example/{}", "x".repeat(MAX_URL))));
    }
}
