//! The decoders by themselves: for whoever feeds them what no client would send (`fuzz/`).

use std::sync::Arc;

use bytes::BytesMut;
use domain::sms;
use rusmpp::{Pdu, tokio_codec::CommandCodec};
use tokio_util::codec::Decoder as _;

use crate::{http::Profile, mailbox::Mailbox, smpp};

/// The words for the shapes of HTTP gateways.
pub const PROFILES: [&str; 5] = ["twilio", "vonage", "ovh", "kannel", "listmonk"];

/// How many SMS a request to an HTTP gateway of a shape asks for; `None`: it asks for nothing.
pub fn http_request(profile: &str, query: &str, body: &[u8]) -> Option<u16> {
    let profile = match profile {
        "twilio" => Profile::Twilio,
        "vonage" => Profile::Vonage,
        "ovh" => Profile::Ovh,
        "kannel" => Profile::Kannel,
        "listmonk" => Profile::Listmonk,
        _ => return None,
    };
    profile.read(query, body).map(|wanted| sms::measure(&wanted.text).parts)
}

/// How many submissions a connection's bytes hold, as far as they make sense.
pub fn smpp_submissions(bytes: &[u8]) -> usize {
    let mailbox = Arc::new(Mailbox::default());
    let mut codec = CommandCodec::new().with_max_length(smpp::MAX_PDU);
    let mut inbox = BytesMut::from(bytes);
    let mut count = 0;
    while let Ok(Some(command)) = codec.decode(&mut inbox) {
        if let Some(Pdu::SubmitSm(submit)) = command.pdu() {
            let arrival = smpp::arrival(submit, &mailbox);
            debug_assert!(arrival.part > 0 && arrival.total > 0);
            count += 1;
        }
    }
    count
}
