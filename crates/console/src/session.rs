//! Who is signed in. A session is a signed cookie and nothing on the server, so any replica serves any request: it holds
//! the hash of the API key that was the password, and at each request that key must still be good (`Api` remembers a
//! verified key for a second), so that revoking a key ends its sessions.
//!
//! The cookie is `base64url(EXPIRY ":" KEY-HASH) "." base64url(HMAC-SHA-256)`, HttpOnly and SameSite=Strict; a POST must
//! also come from our own pages ([`same_origin`]), which is what keeps other sites from acting for a person.

use api::{Api, Caller};
use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;

const NAME: &str = "tamtam_session";
const LANGUAGE: &str = "tamtam_language";
const LASTS: SignedDuration = SignedDuration::from_hours(12);

/// Signs and reads session cookies.
#[derive(Clone)]
pub(crate) struct Sessions {
    secret: Vec<u8>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    pub(crate) fn new(secret: Vec<u8>) -> Sessions {
        Sessions { secret }
    }

    /// `set-cookie` of a new session. `secure`: the page came over TLS.
    pub(crate) fn open(&self, key_hash: &[u8; 32], now: Timestamp, secure: bool) -> String {
        let until = now.checked_add(LASTS).unwrap_or(Timestamp::MAX).as_second();
        let mut payload = until.to_be_bytes().to_vec();
        payload.extend_from_slice(key_hash);
        let signature = self.sign(&payload).finalize().into_bytes();
        let value = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(&payload),
            URL_SAFE_NO_PAD.encode(signature)
        );
        cookie(NAME, &value, LASTS.as_secs(), secure)
    }

    /// `set-cookie` that ends it.
    pub(crate) fn close(&self) -> String {
        cookie(NAME, "", 0, false)
    }

    /// Who is signed in, if anybody.
    pub(crate) async fn caller(&self, headers: &HeaderMap, api: &Api) -> Option<Caller> {
        let hash = self.read(cookie_value(headers, NAME)?, api.clock.now())?;
        api.key_verify_hash(hash).await.ok()
    }

    fn read(&self, value: &str, now: Timestamp) -> Option<[u8; 32]> {
        let (payload, signature) = value.split_once('.')?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        // Compares in constant time.
        self.sign(&payload).verify_slice(&signature).ok()?;
        let until = i64::from_be_bytes(payload.get(..8)?.try_into().ok()?);
        let hash = payload.get(8..)?.try_into().ok()?;
        (now.as_second() < until).then_some(hash)
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    fn sign(&self, payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("any length");
        mac.update(payload);
        mac
    }
}

/// The language that the person chose, as a tag.
pub(crate) fn language(headers: &HeaderMap) -> Option<&str> {
    cookie_value(headers, LANGUAGE)
}

pub(crate) fn language_cookie(tag: &str) -> String {
    cookie(LANGUAGE, tag, 365 * 86_400, false)
}

fn cookie(name: &str, value: &str, seconds: i64, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
        .filter(|value| !value.is_empty())
}

/// Whether the browser says that the request comes from a page of this host. `Sec-Fetch-Site` where there is one (Fetch
/// Metadata), else `Origin` against `Host`; a client that sends neither is no browser and holds no cookie by accident.
pub(crate) fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, authority)| authority == host),
        (Some(_), None) => false,
        (None, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(cookie: &str) -> &str {
        cookie.split_once('=').unwrap().1.split_once(';').unwrap().0
    }

    #[test]
    fn a_session_is_read_until_it_ends_and_never_when_changed() {
        let sessions = Sessions::new(b"secret".to_vec());
        let now: Timestamp = "2026-06-01T10:00:00Z".parse().unwrap();
        let cookie = sessions.open(&[7; 32], now, false);
        assert_eq!(sessions.read(value(&cookie), now), Some([7; 32]));
        let later = now.checked_add(LASTS).unwrap();
        assert_eq!(sessions.read(value(&cookie), later), None);
        assert_eq!(Sessions::new(b"other".to_vec()).read(value(&cookie), now), None);
        let changed = value(&cookie).replacen('A', "B", 1);
        assert_eq!(sessions.read(&changed, now), None);
        for bad in ["", ".", "a.b", "AAAA"] {
            assert_eq!(sessions.read(bad, now), None, "{bad}");
        }
    }

    #[test]
    fn another_sites_post_is_told_apart() {
        let with = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            same_origin(&headers)
        };
        assert!(with(&[("sec-fetch-site", "same-origin")]));
        assert!(!with(&[("sec-fetch-site", "cross-site")]));
        assert!(!with(&[("origin", "http://evil.example"), ("host", "127.0.0.1:8080")]));
        assert!(with(&[("origin", "http://127.0.0.1:8080"), ("host", "127.0.0.1:8080")]));
    }
}
