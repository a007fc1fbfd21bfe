//! Receipts and replies, called back in the provider's shape.

use std::time::Duration;

use reqwest::{Client as HttpClient, RequestBuilder};
use serde_json::json;

use super::Profile;
use crate::{
    Script,
    core::Client,
    schedule::{Fate, Receipt},
};

/// What became of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CalledBack {
    Kept,
    Failed,
    Nowhere,
}

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn client() -> HttpClient {
    HttpClient::builder()
        .timeout(PATIENCE)
        .no_proxy()
        .build()
        .unwrap_or_default()
}

pub(crate) async fn call_back(client: &HttpClient, script: &Script, receipt: &Receipt) -> CalledBack {
    let Client::Http { profile, callback } = &receipt.client else {
        return CalledBack::Nowhere;
    };
    let Some(url) = callback else {
        return CalledBack::Nowhere;
    };
    let id = profile.id(&script.receipt_ids.write(receipt.id, script.receipt_id_width));
    let fate = receipt.fate;
    let request = match profile {
        Profile::Twilio => {
            let (status, code) = match fate {
                Fate::Delivered => ("delivered", ""),
                Fate::Failed => ("undelivered", "30003"),
                Fate::Expired => ("undelivered", "30036"),
                Fate::Unheard => ("mystery", "999"),
                Fate::Enroute => ("sent", ""),
            };
            client.post(url).form(&[
                ("MessageSid", id.as_str()),
                ("MessageStatus", status),
                ("ErrorCode", code),
                ("From", &receipt.from),
                ("To", &receipt.to),
            ])
        }
        Profile::Vonage => {
            let (status, code) = match fate {
                Fate::Delivered => ("delivered", "0"),
                Fate::Failed => ("failed", "1"),
                Fate::Expired => ("expired", "1"),
                Fate::Unheard => ("mystery", "99"),
                Fate::Enroute => ("buffered", "0"),
            };
            let mut body = json!({
                "messageId": id,
                "status": status,
                "err-code": code,
                "msisdn": receipt.to.trim_start_matches('+'),
                "to": receipt.from,
            });
            if let Some(reference) = receipt.reference {
                body["client-ref"] = reference.hyphenated().to_string().into();
            }
            client.post(url).json(&body)
        }
        Profile::Ovh => {
            let reference = receipt.reference.map(|id| id.hyphenated().to_string());
            client.post(url).form(&[
                ("id", id.as_str()),
                ("ptt", dlr_kind(fate)),
                ("tag", reference.as_deref().unwrap_or_default()),
            ])
        }
        Profile::Kannel => client.get(url.replace("%d", dlr_kind(fate))),
        // It knows of no receipts.
        Profile::Listmonk => return CalledBack::Nowhere,
    };
    send(request).await
}

/// The kinds of receipts that Kannel's `dlr-mask` is made of, which OVH has from there.
fn dlr_kind(fate: Fate) -> &'static str {
    match fate {
        Fate::Delivered => "1",
        Fate::Failed | Fate::Expired => "2",
        Fate::Unheard => "9000",
        // The SMSC has it.
        Fate::Enroute => "8",
    }
}

/// A text that a person sent.
pub(crate) async fn reply(
    client: &HttpClient,
    profile: Profile,
    url: &str,
    from: &str,
    to: &str,
    text: &str,
) -> CalledBack {
    let digits = from.trim_start_matches('+');
    let request = match profile {
        Profile::Twilio => {
            client
                .post(url)
                .form(&[("From", from), ("To", to), ("Body", text), ("SmsStatus", "received")])
        }
        Profile::Vonage => client
            .post(url)
            .json(&json!({ "msisdn": digits, "to": to, "text": text, "type": "text" })),
        Profile::Ovh => client
            .post(url)
            .form(&[("senderid", from), ("number", to), ("message", text)]),
        Profile::Kannel => client.get(url).query(&[("from", from), ("to", to), ("text", text)]),
        Profile::Listmonk => return CalledBack::Nowhere,
    };
    send(request).await
}

async fn send(request: RequestBuilder) -> CalledBack {
    match request.send().await {
        Ok(answer) if answer.status().is_success() => CalledBack::Kept,
        _ => CalledBack::Failed,
    }
}
