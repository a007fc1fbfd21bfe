//! An SMS provider: where it is, how fast it may be used, and how it is spoken to.
//!
//! A gateway of kind `smpp` is described by the keys here. One of kind `http` is described by [`Http`]: a ready-made
//! profile, the keys of `[gateway.http]` over it, or these keys alone. Nothing about one provider stands in code.

mod http;
mod kinds;

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use domain::Class;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Period, Problem, check_name};

pub use http::{
    Answer, AnswerWord, Auth, CALLBACK_WORDS, CallbackAuth, CallbackMap, Format, Http, Meaning, Method, PLACEHOLDERS,
    PROFILES, Placeholders,
};
pub use kinds::{Bind, GatewayKind, LongText, ReceiptIds, SmppVersion};

/// Where a secret that a resource only names is looked up: the process's environment, or a test's table.
pub type Secrets = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    pub name: String,
    pub kind: GatewayKind,
    /// SMPP: `host:port`. HTTP: the URL that messages are sent to.
    pub address: String,
    /// SMPP: the system id. HTTP: the account or user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The environment variable that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// Parts (SMS) a second over all dispatchers.
    pub rate: u32,
    /// Parts a second of one sender, over all dispatchers. Absent: only `rate` holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_rate: Option<u32>,
    /// Submissions that may wait for their answer at once; SMPP: on each bind.
    #[serde(default = "ten")]
    pub window: u32,
    /// Empty: every phone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Empty: messages of every class.
    #[serde(default, with = "kinds::classes", skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<Class>,
    /// Lower first; the next one takes over when this one is down.
    #[serde(default = "one")]
    pub priority: u32,
    /// How long an answer may take before the outcome counts as unknown. Absent: 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_timeout: Option<Period>,
    /// How long after acceptance a delivery receipt is waited for. Absent: 3 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt_timeout: Option<Period>,
    /// How the ids in receipts are written, compared with those in the answers to submissions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub receipt_ids: ReceiptIds,
    /// What this gateway's own error codes mean, where that is not what the protocol says: `"0x0400" = "throttled"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, Meaning>,

    // --- smpp
    /// `3.4` or `5.0`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub version: SmppVersion,
    #[serde(default, skip_serializing_if = "is_default")]
    pub bind: Bind,
    /// Connections that send, for each dispatcher.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub binds: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: bool,
    /// Certificates (PEM) to trust instead of the public ones; over HTTPS instead of those that the machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<String>,
    /// The name that the certificate is checked for; absent: the host of `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<String>,
    /// Type of number and numbering plan of the sender; absent: by its form (letters 5/0, E.164 1/1, short code 3/0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ton: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_npi: Option<u8>,
    /// The same of the phone; absent: international (1), ISDN (1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dest_ton: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dest_npi: Option<u8>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub long_text: LongText,
    /// `data_coding` of GSM-7 and of UCS-2 texts, for gateways with a habit of their own. 1 (ASCII) and 3 (Latin-1) are
    /// other octets too: what has a character that they lack goes out as UCS-2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gsm_coding: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ucs2_coding: Option<u8>,
    /// How long a bind may be silent before it is asked whether it still lives. Absent: 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enquire_link: Option<Period>,
    /// The vendor TLV that carries our message id; 0: none is sent.
    #[serde(default = "reference_tlv", skip_serializing_if = "is_reference_tlv")]
    pub reference_tlv: u16,
    /// Further TLVs of each submission, for operators that ask for their own: `"0x1401" = "text"`, or `"hex:00FF"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tlvs: BTreeMap<String, String>,

    // --- http
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Box<Http>>,
    /// Where the gateway is to send receipts and replies: our own address as it reaches it. Absent: it is configured at
    /// the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    /// What a callback proves its origin with (`[gateway.http] callback.auth` says how).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_secret: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_secret_env: Option<String>,
    /// The addresses that callbacks may come from, such as `192.0.2.0/24`; empty: every one. It stands beside the secret,
    /// not in its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callback_addresses: Vec<String>,
}

/// The vendor range of SMPP 3.4 (5.3.2) begins at 0x1400.
const REFERENCE_TLV: u16 = 0x1501;

fn ten() -> u32 {
    10
}

fn one() -> u32 {
    1
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

fn reference_tlv() -> u16 {
    REFERENCE_TLV
}

fn is_reference_tlv(tag: &u16) -> bool {
    *tag == REFERENCE_TLV
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Gateway {
    /// An SMPP gateway with everything else at its default.
    pub fn smpp(name: &str, address: &str, system_id: &str) -> Gateway {
        Gateway {
            system_id: Some(system_id.into()),
            ..Gateway::bare(name, GatewayKind::Smpp, address)
        }
    }

    /// An HTTP gateway of a ready-made profile, everything else at its default.
    pub fn http(name: &str, address: &str, profile: &str) -> Gateway {
        let http = Http {
            profile: Some(profile.into()),
            ..Http::default()
        };
        Gateway {
            http: Some(Box::new(http)),
            ..Gateway::bare(name, GatewayKind::Http, address)
        }
    }

    fn bare(name: &str, kind: GatewayKind, address: &str) -> Gateway {
        Gateway {
            name: name.into(),
            kind,
            address: address.into(),
            system_id: None,
            password: None,
            password_env: None,
            rate: 100,
            sender_rate: None,
            window: 10,
            prefixes: Vec::new(),
            classes: Vec::new(),
            priority: 1,
            response_timeout: None,
            receipt_timeout: None,
            receipt_ids: ReceiptIds::default(),
            errors: BTreeMap::new(),
            version: SmppVersion::default(),
            bind: Bind::default(),
            binds: 1,
            tls: false,
            tls_ca: None,
            tls_name: None,
            system_type: None,
            service_type: None,
            source_ton: None,
            source_npi: None,
            dest_ton: None,
            dest_npi: None,
            long_text: LongText::default(),
            gsm_coding: None,
            ucs2_coding: None,
            enquire_link: None,
            reference_tlv: REFERENCE_TLV,
            tlvs: BTreeMap::new(),
            http: None,
            callback_url: None,
            callback_secret: None,
            callback_secret_env: None,
            callback_addresses: Vec::new(),
        }
    }

    /// The password, from the resource itself or from where it says; `None` where it has none or it cannot be found.
    pub fn password(&self, secrets: &Secrets) -> Option<String> {
        secret(self.password.as_ref(), self.password_env.as_ref(), secrets)
    }

    /// What callbacks prove their origin with.
    pub fn callback_secret(&self, secrets: &Secrets) -> Option<String> {
        secret(
            self.callback_secret.as_ref(),
            self.callback_secret_env.as_ref(),
            secrets,
        )
    }

    /// Whether a callback may come from there.
    pub fn callback_allowed(&self, from: IpAddr) -> bool {
        // An IPv4 address that came in on an IPv6 socket.
        let from = from.to_canonical();
        self.callback_addresses.is_empty()
            || self
                .callback_addresses
                .iter()
                .any(|text| network(text).is_some_and(|network| network.contains(&from)))
    }

    pub fn response_timeout(&self) -> Period {
        self.response_timeout.unwrap_or(Period::from_secs(10))
    }

    pub fn receipt_timeout(&self) -> Period {
        self.receipt_timeout.unwrap_or(Period::from_secs(3 * 86_400))
    }

    pub fn enquire_link(&self) -> Period {
        self.enquire_link.unwrap_or(Period::from_secs(30))
    }

    /// Whether it serves messages of this class to this phone (E.164).
    pub fn serves(&self, e164: &str, class: Class) -> bool {
        (self.classes.is_empty() || self.classes.contains(&class))
            && (self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| e164.starts_with(prefix.as_str())))
    }

    /// The whole HTTP description: the profile with the resource's own keys over it.
    pub fn http_description(&self) -> Result<Http, Problem> {
        let mut http = self.http.as_deref().cloned().unwrap_or_default().resolved()?;
        http.errors
            .extend(self.errors.iter().map(|(code, meaning)| (code.clone(), *meaning)));
        Ok(http)
    }

    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        check_name("name", &self.name, problems);
        let mut expect = |good: bool, key: &'static str, message: &str| {
            if !good {
                problems.push(Problem::new(key, message));
            }
        };
        expect(
            (1..=1_000_000).contains(&self.rate),
            "rate",
            "expected 1 to 1,000,000 parts a second",
        );
        expect(
            self.sender_rate.is_none_or(|rate| (1..=self.rate).contains(&rate)),
            "sender_rate",
            "expected 1 part a second to `rate`",
        );
        expect(
            (1..=10_000).contains(&self.window),
            "window",
            "expected 1 to 10,000 submissions at once",
        );
        expect(
            self.prefixes.iter().all(|prefix| {
                let digits = prefix.strip_prefix('+').unwrap_or_default();
                (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
            }),
            "prefixes",
            "expected prefixes in E.164 such as \"+262\"",
        );
        expect(
            self.password.is_none() || self.password_env.is_none(),
            "password_env",
            "expected either `password` or `password_env`",
        );
        expect(
            self.callback_secret.is_none() || self.callback_secret_env.is_none(),
            "callback_secret_env",
            "expected either `callback_secret` or `callback_secret_env`",
        );
        expect(
            self.callback_addresses.iter().all(|text| network(text).is_some()),
            "callback_addresses",
            "expected addresses or networks such as \"192.0.2.7\" or \"192.0.2.0/24\"",
        );
        match self.kind {
            GatewayKind::Smpp => self.check_smpp(problems),
            GatewayKind::Http => self.check_http(problems),
        }
    }

    fn check_smpp(&self, problems: &mut Vec<Problem>) {
        let mut expect = |good: bool, key: &'static str, message: &str| {
            if !good {
                problems.push(Problem::new(key, message));
            }
        };
        expect(
            self.address.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
            }),
            "address",
            "expected host:port such as \"smpp.example.com:2775\"",
        );
        // The lengths are those of the bind PDU (SMPP 3.4, 4.1.1), without the closing NUL.
        let ascii = |text: &Option<String>, longest: usize| {
            text.as_deref()
                .is_none_or(|text| text.len() <= longest && text.bytes().all(|byte| (0x20..0x7F).contains(&byte)))
        };
        expect(
            self.system_id.as_deref().is_some_and(|id| !id.is_empty()) && ascii(&self.system_id, 15),
            "system_id",
            "expected 1 to 15 ASCII characters",
        );
        expect(
            ascii(&self.password, 8),
            "password",
            "expected at most 8 ASCII characters",
        );
        expect(
            ascii(&self.system_type, 12),
            "system_type",
            "expected at most 12 ASCII characters",
        );
        expect(
            ascii(&self.service_type, 5),
            "service_type",
            "expected at most 5 ASCII characters",
        );
        expect((1..=64).contains(&self.binds), "binds", "expected 1 to 64 connections");
        expect(
            self.reference_tlv == 0 || self.reference_tlv >= 0x1400,
            "reference_tlv",
            "expected a vendor's tag (0x1400 to 0xFFFF), or 0 to send none",
        );
        // Any other has octets that are not GSM-7's, or that we do not write (3GPP 23.038, 4; SMPP 3.4, 5.2.19).
        expect(
            self.gsm_coding
                .is_none_or(|coding| matches!(coding, 0 | 1 | 3 | 0x10..=0x13 | 0xF0..=0xF3)),
            "gsm_coding",
            "expected a coding of GSM-7 (0, 16 to 19, 240 to 243), 1 (ASCII) or 3 (Latin-1)",
        );
        expect(
            self.ucs2_coding.is_none_or(|coding| matches!(coding, 8 | 0x18..=0x1B)),
            "ucs2_coding",
            "expected a coding of UCS-2 (8, 24 to 27)",
        );
        expect(
            self.tlvs
                .iter()
                .all(|(tag, value)| tlv(tag, value).is_some_and(|(tag, _)| tag >= 0x1400 && tag != self.reference_tlv)),
            "tlvs",
            "expected vendors' tags (\"0x1400\" to \"0xFFFF\", not `reference_tlv`) with a text or \"hex:\" and hex digits",
        );
        expect(
            self.errors.keys().all(|code| smpp_code(code).is_some()),
            "errors",
            "expected command statuses such as \"0x0400\"",
        );
        expect(self.http.is_none(), "http", "belongs to a gateway of kind `http`");
    }

    fn check_http(&self, problems: &mut Vec<Problem>) {
        let is_url = |text: &str| {
            ["http://", "https://"]
                .iter()
                .any(|scheme| text.len() > scheme.len() && text.starts_with(scheme))
                && text.bytes().all(|byte| (0x21..0x7F).contains(&byte))
        };
        if !is_url(&self.address) {
            problems.push(Problem::new("address", "expected a URL: http://… or https://…"));
        } else if (self.address.split('/').nth(2)).is_some_and(|authority| authority.contains('@')) {
            // It is shown on pages.
            problems.push(Problem::new(
                "address",
                "expected a URL without a user and a password: `system_id` and `password` are for those",
            ));
        }
        if self.callback_url.as_deref().is_some_and(|url| !is_url(url)) {
            problems.push(Problem::new("callback_url", "expected a URL: http://… or https://…"));
        }
        match self.http_description() {
            Err(problem) => problems.push(problem),
            Ok(http) => http.check(problems),
        }
    }
}

/// A command status as `errors` writes it.
pub fn smpp_code(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A TLV as `tlvs` writes it: its tag and its octets.
pub fn tlv(tag: &str, value: &str) -> Option<(u16, Vec<u8>)> {
    let tag = u16::try_from(smpp_code(tag)?).ok()?;
    let octets = match value.strip_prefix("hex:") {
        None => value.as_bytes().to_vec(),
        Some(digits) => {
            let digits = digits.as_bytes();
            if !digits.len().is_multiple_of(2) {
                return None;
            }
            digits
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
                .collect::<Option<_>>()?
        }
    };
    // More than a submission of one part has room for is a mistake.
    (octets.len() <= 1_024).then_some((tag, octets))
}

/// An address, or a network in CIDR form.
pub fn network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn secret(own: Option<&String>, named: Option<&String>, secrets: &Secrets) -> Option<String> {
    own.cloned().or_else(|| named.and_then(|name| secrets(name)))
}

/// Without the secrets.
impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(gateway: &Gateway) -> Vec<&'static str> {
        let mut problems = Vec::new();
        gateway.check(&mut problems);
        problems.iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn what_cannot_work_is_told_by_its_key() {
        let good = Gateway::smpp("main", "smpp.example.com:2775", "tamtam");
        assert!(problems(&good).is_empty());
        let bad = Gateway {
            address: "smpp.example.com".into(),
            system_id: Some("longer than fifteen".into()),
            password: Some("ninechars".into()),
            reference_tlv: 5,
            rate: 0,
            ..good
        };
        assert_eq!(
            problems(&bad),
            ["rate", "address", "system_id", "password", "reference_tlv"]
        );
        assert_eq!(problems(&Gateway::http("a", "ftp://x", "nobody")), ["address", "http"]);
        assert_eq!(
            problems(&Gateway::http("a", "https://user:word@x/", "twilio")),
            ["address"]
        );
        assert!(problems(&Gateway::http("a", "https://x/@me", "twilio")).is_empty());
    }

    #[test]
    fn codings_and_tlvs_are_those_that_we_write() {
        let good = Gateway {
            version: SmppVersion::V50,
            gsm_coding: Some(3),
            ucs2_coding: Some(0x18),
            tlvs: BTreeMap::from([("0x1400".into(), "campaign".into()), ("5121".into(), "hex:00fF".into())]),
            ..Gateway::smpp("main", "h:1", "tamtam")
        };
        assert!(problems(&good).is_empty());
        let json = serde_json::to_value(&good).unwrap();
        assert_eq!(json["version"], "5.0");
        assert_eq!(tlv("5121", "hex:00fF"), Some((0x1401, vec![0x00, 0xFF])));
        for (tag, value) in [
            ("0x0424", "x"),
            ("0x1501", "x"),
            ("0x1400", "hex:0"),
            ("0x14000", "x"),
            ("a", "x"),
        ] {
            let bad = Gateway {
                tlvs: BTreeMap::from([(tag.to_owned(), value.to_owned())]),
                ..good.clone()
            };
            assert_eq!(problems(&bad), ["tlvs"], "{tag} {value}");
        }
        let bad = Gateway {
            gsm_coding: Some(6),
            ucs2_coding: Some(0),
            ..good
        };
        assert_eq!(problems(&bad), ["gsm_coding", "ucs2_coding"]);
    }

    #[test]
    fn prefixes_and_classes_decide_what_it_serves() {
        let gateway = Gateway {
            prefixes: vec!["+262".into()],
            classes: vec![Class::Transactional],
            ..Gateway::smpp("main", "h:1", "tamtam")
        };
        assert!(gateway.serves("+262692000000", Class::Transactional));
        assert!(!gateway.serves("+262692000000", Class::Marketing));
        assert!(!gateway.serves("+33612345678", Class::Transactional));
        let all = Gateway::smpp("main", "h:1", "tamtam");
        assert!(all.serves("+33612345678", Class::Marketing));
        let too_fast = Gateway {
            sender_rate: Some(101),
            ..all
        };
        assert_eq!(problems(&too_fast), ["sender_rate"]);
    }

    #[test]
    fn a_password_is_found_where_the_resource_says_and_never_printed() {
        let secrets: Secrets = Arc::new(|name| (name == "MAIN").then(|| "s3cret".to_owned()));
        let mut gateway = Gateway::smpp("main", "h:1", "tamtam");
        assert_eq!(gateway.password(&secrets), None);
        gateway.password_env = Some("MAIN".into());
        assert_eq!(gateway.password(&secrets).as_deref(), Some("s3cret"));
        gateway.password = Some("s3cret".into());
        assert!(!format!("{gateway:?}").contains("s3cret"));
    }

    #[test]
    fn callbacks_come_from_the_addresses_that_are_named() {
        let mut gateway = Gateway::http("main", "http://h/", "twilio");
        let allowed = |gateway: &Gateway, from: &str| gateway.callback_allowed(from.parse().unwrap());
        assert!(allowed(&gateway, "203.0.113.9"));
        gateway.callback_addresses = vec!["192.0.2.0/24".into(), "2001:db8::1".into()];
        assert!(
            allowed(&gateway, "192.0.2.77")
                && allowed(&gateway, "::ffff:192.0.2.77")
                && allowed(&gateway, "2001:db8::1")
        );
        assert!(!allowed(&gateway, "192.0.3.1") && !allowed(&gateway, "2001:db8::2"));
        gateway.callback_addresses = vec!["192.0.2.0/33".into()];
        assert_eq!(problems(&gateway), ["callback_addresses"]);
        assert!(!allowed(&gateway, "192.0.2.1"), "what cannot be read lets nobody in");
    }

    #[test]
    fn defaults_are_not_written_out() {
        let json = serde_json::to_value(Gateway::smpp("main", "h:1", "tamtam")).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["address", "kind", "name", "priority", "rate", "system_id", "window"]
        );
    }
}
