//! The decoders that only adapters use, by themselves: for whoever feeds them what no gateway would send (`fuzz/`). What a
//! callback says is read by [`crate::understand`], whether it may be believed by [`crate::http::verify`].

use bytes::BytesMut;

use crate::{Outcome, http, smpp};

/// What an HTTP gateway's answer to a submission means; `None`: the gateway is described as none that answers.
pub fn http_answer(resource: &resources::Gateway, status: u16, body: &[u8], reference: &str) -> Option<Outcome> {
    let description = resource.http_description().ok()?;
    Some(http::outcome(&description, status, body, reference))
}

/// How many PDUs a connection's bytes are cut into before they end or make no sense any more. Of each, every field is read
/// that a body of text fields and TLVs could have.
pub fn smpp_pdus(bytes: &[u8]) -> usize {
    let mut inbox = BytesMut::from(bytes);
    let mut count = 0;
    while let Ok(Some(frame)) = smpp::Frame::take(&mut inbox) {
        let mut fields = frame.body();
        while fields.c_string().is_some() {}
        let values: usize = frame.body().tlvs().map(|(_, value)| value.len()).sum();
        debug_assert!(values <= frame.bytes().len());
        count += 1;
    }
    count
}
