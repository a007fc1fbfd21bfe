//! PDUs as they lie on the wire: cut out of the stream by their length, headers read, bodies left alone.
//!
//! Bodies that come from a gateway are read by hand where they are needed: gateways leave out closing NULs, put UTF-8 in
//! addresses and invent TLVs, and one such field must not cost the whole PDU, let alone the connection. What we send is
//! written by `rusmpp`.

use bytes::{Buf as _, Bytes, BytesMut};

/// `message_payload` holds 64 KiB; no PDU that we know is longer than that and its other fields.
pub(crate) const MAX_PDU: usize = 68 * 1024;
pub(crate) const HEADER: usize = 16;

pub(crate) mod command {
    pub(crate) const BIND_RECEIVER_RESP: u32 = 0x8000_0001;
    pub(crate) const BIND_TRANSMITTER_RESP: u32 = 0x8000_0002;
    pub(crate) const BIND_TRANSCEIVER_RESP: u32 = 0x8000_0009;
    pub(crate) const SUBMIT_SM_RESP: u32 = 0x8000_0004;
    pub(crate) const DELIVER_SM: u32 = 0x0000_0005;
    pub(crate) const DELIVER_SM_RESP: u32 = 0x8000_0005;
    pub(crate) const UNBIND: u32 = 0x0000_0006;
    pub(crate) const UNBIND_RESP: u32 = 0x8000_0006;
    pub(crate) const ENQUIRE_LINK: u32 = 0x0000_0015;
    pub(crate) const ENQUIRE_LINK_RESP: u32 = 0x8000_0015;
    pub(crate) const GENERIC_NACK: u32 = 0x8000_0000;
    pub(crate) const RESPONSE: u32 = 0x8000_0000;

    /// Whether SMPP (3.4, 5.1.2.1; 5.0, 4.7.5) has a request, or the answer without its bit, of this id.
    pub(crate) fn is_defined(id: u32) -> bool {
        matches!(id, 0x00..=0x09 | 0x0B | 0x15 | 0x21 | 0x102 | 0x103 | 0x111..=0x113)
    }
}

/// A whole PDU.
#[derive(Clone)]
pub(crate) struct Frame(Bytes);

/// The stream makes no sense any more: the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a PDU of {0} bytes: expected 16 to {MAX_PDU}")]
pub(crate) struct BadLength(pub(crate) u32);

impl Frame {
    /// Cuts the next PDU off `inbox`, once it is whole. Its length is looked at first, so that a nonsensical one is found
    /// before anything is kept for it.
    pub(crate) fn take(inbox: &mut BytesMut) -> Result<Option<Frame>, BadLength> {
        let Some(length) = inbox.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        if !(HEADER..=MAX_PDU).contains(&(length as usize)) {
            return Err(BadLength(length));
        }
        if inbox.len() < length as usize {
            return Ok(None);
        }
        Ok(Some(Frame(inbox.split_to(length as usize).freeze())))
    }

    /// A PDU that was kept as a callback's body.
    pub(crate) fn whole(bytes: &[u8]) -> Option<Frame> {
        let mut inbox = BytesMut::from(bytes);
        let frame = Frame::take(&mut inbox).ok()??;
        inbox.is_empty().then_some(frame)
    }

    fn word(&self, at: usize) -> u32 {
        (&self.0[at..]).get_u32()
    }

    pub(crate) fn command(&self) -> u32 {
        self.word(4)
    }

    pub(crate) fn status(&self) -> u32 {
        self.word(8)
    }

    pub(crate) fn sequence(&self) -> u32 {
        self.word(12)
    }

    pub(crate) fn body(&self) -> Cursor<'_> {
        Cursor(&self.0[HEADER..])
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }
}

/// Reads fields one after the other; `None` when nothing is left where something had to be.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Up to the NUL, or to the end of the PDU where a gateway forgot it.
    pub(crate) fn c_string(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().position(|byte| *byte == 0);
        let text = &self.0[..end.unwrap_or(self.0.len())];
        self.0 = &self.0[end.map_or(self.0.len(), |end| end + 1)..];
        Some(text)
    }

    /// The TLVs that follow; a cut-off one ends them.
    pub(crate) fn tlvs(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let head = rest.bytes(4)?;
            let tag = u16::from_be_bytes([head[0], head[1]]);
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            Some((tag, rest.bytes(length)?))
        })
    }
}

/// A header alone is many a PDU.
pub(crate) fn put_header(out: &mut BytesMut, command: u32, status: u32, sequence: u32) {
    put(out, command, status, sequence, &[]);
}

pub(crate) fn put(out: &mut BytesMut, command: u32, status: u32, sequence: u32, body: &[u8]) {
    for word in [(HEADER + body.len()) as u32, command, status, sequence] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_out_of_a_stream_however_it_is_chopped() {
        let mut stream = BytesMut::new();
        put(&mut stream, command::SUBMIT_SM_RESP, 0, 7, b"id\0");
        put_header(&mut stream, command::ENQUIRE_LINK, 0, 8);
        let mut inbox = BytesMut::new();
        let mut frames = Vec::new();
        for byte in stream {
            inbox.extend_from_slice(&[byte]);
            while let Some(frame) = Frame::take(&mut inbox).unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames.len(), 2);
        assert_eq!(
            (frames[0].command(), frames[0].sequence()),
            (command::SUBMIT_SM_RESP, 7)
        );
        assert_eq!(frames[0].body().c_string(), Some(&b"id"[..]));
        assert_eq!(frames[1].sequence(), 8);
    }

    #[test]
    fn nonsensical_lengths_are_found_at_once() {
        for length in [0_u32, 15, 100_000_000, u32::MAX] {
            let mut inbox = BytesMut::from(&length.to_be_bytes()[..]);
            assert_eq!(Frame::take(&mut inbox).err(), Some(BadLength(length)));
        }
    }

    #[test]
    fn a_cut_off_field_is_no_panic() {
        let mut cursor = Cursor(b"ab");
        assert_eq!(cursor.bytes(3), None);
        assert_eq!(cursor.c_string(), Some(&b"ab"[..]));
        assert_eq!(cursor.c_string(), None);
        assert_eq!(Cursor(&[0, 0x1e, 0, 9, 1]).tlvs().count(), 0);
        let whole: Vec<_> = Cursor(&[0, 0x1e, 0, 1, 5, 4, 0x27]).tlvs().collect();
        assert_eq!(whole, [(0x001E, &[5][..])]);
    }
}
