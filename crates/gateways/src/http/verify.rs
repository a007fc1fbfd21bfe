//! Whether a callback comes from the gateway. Comparisons take the same time whatever differs.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use resources::gateway::CallbackAuth;
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// What of a request its proof is made from.
pub struct CallbackRequest<'a> {
    /// Without the `?`.
    pub query: &'a str,
    pub header: &'a (dyn Fn(&str) -> Option<String> + Sync),
    pub body: &'a [u8],
}

impl std::fmt::Debug for CallbackRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallbackRequest")
    }
}

/// The callback does not prove that it comes from the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not signed by the gateway, or with another secret")]
pub struct Unproven;

/// How old or how far ahead a signed callback may be (Standard Webhooks, "Verifying webhook authenticity").
const WINDOW_SECONDS: u64 = 300;

/// Checks a callback against what the gateway has configured. Without a secret and a way to prove it, everything is
/// taken; with a way and no secret nothing is: a secret that cannot be found must not open the door.
pub fn verify(
    resource: &resources::Gateway,
    secret: Option<&str>,
    request: &CallbackRequest<'_>,
    now: Timestamp,
) -> Result<(), Unproven> {
    let way = resource
        .http_description()
        .ok()
        .and_then(|http| http.callback)
        .and_then(|callback| callback.auth);
    let configured = resource.callback_secret.is_some() || resource.callback_secret_env.is_some();
    let (way, secret) = match (way, secret.filter(|secret| !secret.is_empty())) {
        (None, None) if !configured => return Ok(()),
        (_, None) => return Err(Unproven),
        (way, Some(secret)) => (way.unwrap_or(CallbackAuth::Secret), secret),
    };
    match way {
        CallbackAuth::Secret => shared(secret, request),
        CallbackAuth::StandardWebhooks => standard(secret, request, now),
        CallbackAuth::Twilio => twilio(resource, secret, request),
    }
}

fn same(left: &[u8], right: &[u8]) -> Result<(), Unproven> {
    match bool::from(left.ct_eq(right)) {
        true => Ok(()),
        false => Err(Unproven),
    }
}

fn shared(secret: &str, request: &CallbackRequest<'_>) -> Result<(), Unproven> {
    let in_query = url::form_urlencoded::parse(request.query.as_bytes())
        .find(|(name, _)| name == "secret")
        .map(|(_, value)| value.into_owned());
    let bearer = || {
        let header = (request.header)("authorization")?;
        header.strip_prefix("Bearer ").map(str::to_owned)
    };
    let given = in_query
        .or_else(|| (request.header)("x-callback-secret"))
        .or_else(bearer)
        .ok_or(Unproven)?;
    same(given.as_bytes(), secret.as_bytes())
}

/// Several secrets, separated by spaces, may hold at once while one replaces another.
fn standard(secrets: &str, request: &CallbackRequest<'_>, now: Timestamp) -> Result<(), Unproven> {
    let header = |name: &str| (request.header)(name).ok_or(Unproven);
    let (id, time, signatures) = (
        header("webhook-id")?,
        header("webhook-timestamp")?,
        header("webhook-signature")?,
    );
    let sent: i64 = time.parse().map_err(|_| Unproven)?;
    if now.as_second().abs_diff(sent) > WINDOW_SECONDS {
        return Err(Unproven);
    }
    for secret in secrets.split_whitespace() {
        let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
        let key = STANDARD.decode(encoded).unwrap_or_else(|_| secret.as_bytes().to_vec());
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| Unproven)?;
        for piece in [id.as_bytes(), b".", time.as_bytes(), b".", request.body] {
            mac.update(piece);
        }
        let expected = mac.finalize().into_bytes();
        let found = signatures
            .split_whitespace()
            .filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok())
            .any(|signature| bool::from(signature.as_slice().ct_eq(expected.as_slice())));
        if found {
            return Ok(());
        }
    }
    Err(Unproven)
}

fn twilio(resource: &resources::Gateway, secret: &str, request: &CallbackRequest<'_>) -> Result<(), Unproven> {
    let given = (request.header)("x-twilio-signature").ok_or(Unproven)?;
    let given = STANDARD.decode(given).map_err(|_| Unproven)?;
    // The whole address that it was sent to: ours, with what the submission put behind it.
    let url = resource.callback_url.as_deref().unwrap_or_default();
    let mut signed = url.split('?').next().unwrap_or_default().to_owned();
    if !request.query.is_empty() {
        signed.push('?');
        signed.push_str(request.query);
    }
    let mut fields: Vec<(String, String)> = url::form_urlencoded::parse(request.body).into_owned().collect();
    fields.sort();
    for (name, value) in fields {
        signed.push_str(&name);
        signed.push_str(&value);
    }
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map_err(|_| Unproven)?;
    mac.update(signed.as_bytes());
    same(&given, mac.finalize().into_bytes().as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        resource: &resources::Gateway,
        secret: Option<&str>,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        now: i64,
    ) -> bool {
        let header = |name: &str| {
            let found = headers.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let request = CallbackRequest {
            query,
            header: &header,
            body,
        };
        verify(resource, secret, &request, Timestamp::from_second(now).unwrap()).is_ok()
    }

    fn with(auth: CallbackAuth) -> resources::Gateway {
        let mut resource = resources::Gateway::http("main", "http://h/", "twilio");
        if let Some(http) = &mut resource.http {
            http.callback = Some(resources::gateway::CallbackMap {
                auth: Some(auth),
                ..Default::default()
            });
        }
        resource
    }

    #[test]
    fn a_shared_secret() {
        let open = resources::Gateway::http("main", "http://h/", "twilio");
        assert!(check(&open, None, "", &[], b"", 0));
        assert!(check(&open, Some("s"), "secret=s", &[], b"", 0));
        assert!(check(&open, Some("s"), "", &[("x-callback-secret", "s")], b"", 0));
        assert!(check(&open, Some("s"), "", &[("authorization", "Bearer s")], b"", 0));
        assert!(!check(&open, Some("s"), "secret=t", &[], b"", 0));
        assert!(!check(&open, Some("s"), "", &[], b"", 0));
        // It is configured and cannot be found: closed.
        let mut lost = open;
        lost.callback_secret_env = Some("NOWHERE".into());
        assert!(!check(&lost, None, "secret=", &[], b"", 0));
    }

    #[test]
    fn a_time_beyond_all_times_is_no_time_of_now() {
        for time in [i64::MIN, i64::MIN + 1_614_265_330, i64::MAX] {
            let headers = [
                ("webhook-id", "m"),
                ("webhook-timestamp", &*time.to_string()),
                ("webhook-signature", "v1,AAAA"),
            ];
            let resource = with(CallbackAuth::StandardWebhooks);
            assert!(!check(&resource, Some("s"), "", &headers, b"", 1_614_265_330));
        }
    }

    #[test]
    fn standard_webhooks_by_its_own_example() {
        // The vector of the Standard Webhooks reference implementations.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = br#"{"test": 2432232314}"#;
        let headers = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            (
                "webhook-signature",
                "v1,bm90IGl0 v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ];
        let resource = with(CallbackAuth::StandardWebhooks);
        assert!(check(&resource, Some(secret), "", &headers, body, 1_614_265_330));
        let both = format!("whsec_AAAA {secret}");
        assert!(check(&resource, Some(&both), "", &headers, body, 1_614_265_330));
        assert!(!check(&resource, Some(secret), "", &headers, body, 1_614_265_331 + 300));
        assert!(!check(&resource, Some(secret), "", &headers, b"{}", 1_614_265_330));
        assert!(!check(&resource, None, "", &headers, body, 1_614_265_330));
    }

    #[test]
    fn twilios_own_example() {
        // The vector of the tests of twilio-python.
        let mut resource = with(CallbackAuth::Twilio);
        resource.callback_url = Some("https://mycompany.com/myapp.php?foo=1&bar=2".into());
        let body = b"CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212";
        let header = [("x-twilio-signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8=")];
        assert!(check(&resource, Some("12345"), "foo=1&bar=2", &header, body, 0));
        assert!(!check(&resource, Some("12346"), "foo=1&bar=2", &header, body, 0));
    }
}
