//! What a `deliver_sm` says: a delivery receipt, or a text that a person sent.
//!
//! A receipt's TLVs come first (`receipted_message_id`, `message_state`). Its text is only a habit (SMPP 3.4, appendix B:
//! `id:… sub:… dlvrd:… submit date:… done date:… stat:… err:… text:…`), read for what the TLVs do not say. A state that we
//! do not know is kept as it came and nothing is concluded from it.

use domain::{State, sms::Fragment};
use events::Callback;
use uuid::Uuid;

use super::wire::{Cursor, Frame, command};
use crate::{Heard, NotUnderstood};

const RECEIPTED_MESSAGE_ID: u16 = 0x001E;
const MESSAGE_STATE: u16 = 0x0427;
const MESSAGE_PAYLOAD: u16 = 0x0424;
const SAR_REFERENCE: u16 = 0x020C;
const SAR_TOTAL: u16 = 0x020E;
const SAR_SEQUENCE: u16 = 0x020F;

/// The message type in `esm_class` (SMPP 3.4, 5.2.12).
const TYPE: u8 = 0x3C;
const DELIVERY_RECEIPT: u8 = 0x04;
const INTERMEDIATE: u8 = 0x20;
const UDH_INDICATOR: u8 = 0x40;

/// The fields of a `deliver_sm` that matter.
struct Delivery<'a> {
    source_ton: u8,
    source: &'a [u8],
    dest: &'a [u8],
    esm_class: u8,
    data_coding: u8,
    message: &'a [u8],
    tlvs: Cursor<'a>,
}

impl<'a> Delivery<'a> {
    fn parse(frame: &'a Frame) -> Option<Delivery<'a>> {
        let mut body = frame.body();
        body.c_string()?;
        let source_ton = body.bytes(2)?[0];
        let source = body.c_string()?;
        body.bytes(2)?;
        let dest = body.c_string()?;
        let esm_class = body.byte()?;
        body.bytes(2)?;
        body.c_string()?;
        body.c_string()?;
        body.bytes(2)?;
        let data_coding = body.byte()?;
        body.byte()?;
        let length = body.byte()?;
        let message = body.bytes(usize::from(length))?;
        let mut delivery = Delivery {
            source_ton,
            source,
            dest,
            esm_class,
            data_coding,
            message,
            tlvs: body,
        };
        if let Some(payload) = delivery.tlv(MESSAGE_PAYLOAD) {
            delivery.message = payload;
        }
        Some(delivery)
    }

    fn tlv(&self, wanted: u16) -> Option<&'a [u8]> {
        self.tlvs.tlvs().find(|(tag, _)| *tag == wanted).map(|(_, value)| value)
    }

    fn text_tlv(&self, wanted: u16) -> Option<String> {
        self.tlv(wanted).map(|value| {
            let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
            String::from_utf8_lossy(&value[..end]).trim().to_owned()
        })
    }
}

pub(crate) fn understand(callback: &Callback, resource: &resources::Gateway) -> Result<Vec<Heard>, NotUnderstood> {
    let frame = Frame::whole(&callback.body).ok_or(NotUnderstood::Pdu("its length is wrong"))?;
    if frame.command() != command::DELIVER_SM {
        return Err(NotUnderstood::Pdu("not a deliver_sm"));
    }
    let delivery = Delivery::parse(&frame).ok_or(NotUnderstood::Pdu("it is cut off"))?;
    let is_receipt = matches!(delivery.esm_class & TYPE, DELIVERY_RECEIPT | INTERMEDIATE)
        || delivery.tlv(RECEIPTED_MESSAGE_ID).is_some();
    let heard = if is_receipt {
        receipt(&delivery, callback, resource)?
    } else {
        inbound(&delivery)
    };
    Ok(vec![heard])
}

fn receipt(
    delivery: &Delivery<'_>,
    callback: &Callback,
    resource: &resources::Gateway,
) -> Result<Heard, NotUnderstood> {
    let text = String::from_utf8_lossy(delivery.message).into_owned();
    let said = ReceiptText::parse(&text);
    let remote_id = delivery
        .text_tlv(RECEIPTED_MESSAGE_ID)
        .filter(|id| !id.is_empty())
        .or_else(|| said.id.map(str::to_owned))
        .ok_or(NotUnderstood::Missing("id"))?;
    let by_number = delivery.tlv(MESSAGE_STATE).and_then(|value| value.first().copied());
    let state = match by_number {
        Some(number) => by_message_state(number),
        None => said.stat.and_then(by_stat),
    };
    let word = match (said.stat, by_number) {
        (Some(stat), _) => Some(stat.to_owned()),
        (None, Some(number)) => Some(format!("state-{number}")),
        (None, None) => None,
    };
    // `err:000` is how gateways say that there was none.
    let error = said.err.filter(|err| err.bytes().any(|byte| byte != b'0'));
    let code = match (word, error) {
        (Some(word), Some(error)) => Some(format!("{word}:{error}")),
        (word, error) => word.or(error.map(str::to_owned)),
    };
    let reference = match resource.reference_tlv {
        0 => None,
        tag => delivery.text_tlv(tag).and_then(|text| Uuid::parse_str(&text).ok()),
    };
    Ok(Heard::Receipt {
        remote_id,
        state,
        code: code.map(|code| code.chars().take(100).collect()),
        at: callback.received_at,
        reference,
    })
}

fn inbound(delivery: &Delivery<'_>) -> Heard {
    let has_header = delivery.esm_class & UDH_INDICATOR != 0;
    let mut fragment = Fragment::read(delivery.data_coding, has_header, delivery.message);
    if fragment.part.is_none()
        && let (Some(&[high, low]), Some(&[total]), Some(&[sequence])) = (
            delivery.tlv(SAR_REFERENCE),
            delivery.tlv(SAR_TOTAL),
            delivery.tlv(SAR_SEQUENCE),
        )
    {
        fragment = fragment.with_sar(u16::from_be_bytes([high, low]), total, sequence);
    }
    let from = String::from_utf8_lossy(delivery.source).into_owned();
    Heard::Inbound {
        // SMPP has no id for what a person sent; what TLVs name is a message of ours.
        id: None,
        // International: the plus belongs to it.
        from: match delivery.source_ton == 1 && !from.starts_with('+') {
            true => format!("+{from}"),
            false => from,
        },
        to: String::from_utf8_lossy(delivery.dest).into_owned(),
        text: fragment.text(),
        part: Some(fragment).filter(|fragment| fragment.key().is_some()),
    }
}

/// `message_state` (SMPP 3.4, 5.2.28).
fn by_message_state(number: u8) -> Option<State> {
    match number {
        // Scheduled, en route, accepted.
        0 | 1 | 6 => Some(State::Accepted),
        2 => Some(State::Delivered),
        3 => Some(State::Expired),
        // Deleted, undeliverable, rejected.
        4 | 5 | 8 => Some(State::Failed),
        _ => None,
    }
}

fn by_stat(stat: &str) -> Option<State> {
    match stat.to_ascii_uppercase().as_str() {
        "ENROUTE" | "ACCEPTD" | "ACCEPTED" | "SCHEDULED" => Some(State::Accepted),
        "DELIVRD" | "DELIVERED" => Some(State::Delivered),
        "EXPIRED" => Some(State::Expired),
        "UNDELIV" | "UNDELIVERABLE" | "REJECTD" | "REJECTED" | "DELETED" | "FAILED" => Some(State::Failed),
        _ => None,
    }
}

/// The habit of receipts' texts. Keys are looked for in any order and case; a value ends at the next space.
#[derive(Debug, Default, PartialEq, Eq)]
struct ReceiptText<'a> {
    id: Option<&'a str>,
    stat: Option<&'a str>,
    err: Option<&'a str>,
}

impl<'a> ReceiptText<'a> {
    fn parse(text: &'a str) -> ReceiptText<'a> {
        // The original text may follow behind `text:` and hold anything.
        let end = find(text, "text:").unwrap_or(text.len());
        let head = &text[..end];
        let value = |key: &str| {
            let at = find(head, key)? + key.len();
            let value = head[at..].split_whitespace().next().unwrap_or_default();
            (!value.is_empty()).then_some(value)
        };
        ReceiptText {
            id: value("id:"),
            stat: value("stat:"),
            err: value("err:"),
        }
    }
}

/// Where a key begins as a word of its own.
fn find(text: &str, key: &str) -> Option<usize> {
    let (bytes, key) = (text.as_bytes(), key.as_bytes());
    let is_word = |at: usize| !text[..at].ends_with(|before: char| before.is_alphanumeric());
    // Keys are ASCII, so what equals one begins where a character does. Few bytes are a key's first: looking at it alone
    // spares most of the comparisons.
    let first = key.first()?;
    (bytes.iter().zip(0..))
        .filter(|(byte, _)| byte.eq_ignore_ascii_case(first))
        .map(|(_, at)| at)
        .find(|at| {
            let here = bytes.get(*at..at + key.len());
            here.is_some_and(|here| here.eq_ignore_ascii_case(key)) && is_word(*at)
        })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::smpp::wire;
    use bytes::BytesMut;

    /// A `deliver_sm` as a gateway would write it.
    fn pdu(esm_class: u8, data_coding: u8, message: &[u8], tlvs: &[(u16, &[u8])]) -> Callback {
        let mut body = vec![0, 1, 1];
        body.extend_from_slice(b"262692123456\0\x05\x00BOUTIQUE\0");
        body.extend_from_slice(&[esm_class, 0, 0, 0, 0, 0, 0, data_coding, 0, message.len() as u8]);
        body.extend_from_slice(message);
        for (tag, value) in tlvs {
            body.extend_from_slice(&tag.to_be_bytes());
            body.extend_from_slice(&(value.len() as u16).to_be_bytes());
            body.extend_from_slice(value);
        }
        let mut out = BytesMut::new();
        wire::put(&mut out, command::DELIVER_SM, 0, 5, &body);
        Callback {
            gateway: "main".into(),
            transport: "smpp".into(),
            received_at: jiff::Timestamp::UNIX_EPOCH,
            meta: serde_json::Map::new(),
            body: out.to_vec(),
        }
    }

    fn heard(callback: &Callback) -> Heard {
        understand(callback, &resources::Gateway::smpp("main", "h:1", "tamtam"))
            .unwrap()
            .remove(0)
    }

    fn receipt_of(callback: &Callback) -> (String, Option<State>, Option<String>) {
        match heard(callback) {
            Heard::Receipt {
                remote_id, state, code, ..
            } => (remote_id, state, code),
            Heard::Inbound { .. } => panic!("not a receipt"),
        }
    }

    #[test]
    fn a_receipts_tlvs_come_before_its_text() {
        let text = b"id:0000123 sub:001 dlvrd:001 submit date:2611241200 done date:261124120105 stat:UNDELIV err:011 text:stat:DELIVRD";
        assert_eq!(
            receipt_of(&pdu(4, 0, text, &[])),
            ("0000123".into(), Some(State::Failed), Some("UNDELIV:011".into()))
        );
        let tlvs: [(u16, &[u8]); 2] = [(0x001E, b"1A2B\0"), (0x0427, &[2])];
        assert_eq!(
            receipt_of(&pdu(4, 0, b"id:9 stat:UNDELIV err:000", &tlvs)),
            ("1A2B".into(), Some(State::Delivered), Some("UNDELIV".into()))
        );
        // A forgotten NUL and no text at all.
        assert_eq!(
            receipt_of(&pdu(0, 0, b"", &[(0x001E, b"1A2B"), (0x0427, &[3])])),
            ("1A2B".into(), Some(State::Expired), Some("state-3".into()))
        );
    }

    #[test]
    fn an_unknown_code_is_kept_and_not_guessed() {
        assert_eq!(
            receipt_of(&pdu(4, 0, b"id:7 stat:QUEUED-X err:042", &[])),
            ("7".into(), None, Some("QUEUED-X:042".into()))
        );
        assert_eq!(
            receipt_of(&pdu(0x20, 0, b"id:7 stat:ENROUTE", &[])).1,
            Some(State::Accepted)
        );
    }

    #[test]
    fn a_reply_is_read_in_its_coding() {
        let Heard::Inbound {
            id,
            from,
            to,
            text,
            part,
        } = heard(&pdu(0, 8, &[0x04, 0x36, 0x00, 0x21], &[]))
        else {
            panic!()
        };
        assert_eq!((from.as_str(), to.as_str()), ("+262692123456", "BOUTIQUE"));
        assert_eq!((text.as_str(), part, id), ("ж!", None, None));
        let Heard::Inbound { text, part, .. } = heard(&pdu(0x40, 0, b"\x05\x00\x03\x07\x02\x01Sal", &[])) else {
            panic!()
        };
        assert_eq!((text.as_str(), part.unwrap().part.unwrap().sequence), ("Sal", 1));
    }

    #[test]
    fn rubbish_is_an_error_and_never_a_panic() {
        let resource = resources::Gateway::smpp("main", "h:1", "tamtam");
        let good = pdu(4, 0, b"id:1 stat:DELIVRD", &[(0x001E, b"1\0")]);
        for length in 0..good.body.len() {
            let mut cut = good.clone();
            cut.body.truncate(length);
            assert!(understand(&cut, &resource).is_err());
            // The same with a length that says it is whole.
            if length >= 16 {
                cut.body[..4].copy_from_slice(&(length as u32).to_be_bytes());
                let _ = understand(&cut, &resource);
            }
        }
        for byte in 16..good.body.len() {
            let mut changed = good.clone();
            changed.body[byte] ^= 0xFF;
            let _ = understand(&changed, &resource);
        }
    }
}
