//! A message as `submit_sm` PDUs, one a part.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU16, Ordering},
};

use bytes::{Bytes, BytesMut};
use domain::sms::{self, Encoding, Part};
use jiff::Timestamp;
use resources::gateway::{LongText, tlv};
use rusmpp::{
    Command, CommandStatus,
    pdus::SubmitSm,
    tlvs::{MessageSubmissionRequestTlvValue, TlvTag},
    tokio_codec::CommandCodec,
    types::{AnyOctetString, COctetString, EmptyOrFullCOctetString, OctetString},
    values::{DataCoding, EsmClass, MessagePayload, Npi, RegisteredDelivery, ServiceType, Ton},
};
use tokio_util::codec::Encoder as _;

use crate::Submission;

const UDH_INDICATOR: u8 = 0x40;
/// Ask for the final receipt, whatever the outcome (SMPP 3.4, 5.2.17).
const FINAL_RECEIPT: u8 = 1;
const ASCII: u8 = 1;
const LATIN_1: u8 = 3;
/// One octet counts a short message.
const MAX_SHORT: usize = 254;

/// Writes submissions the way one gateway wants them.
#[derive(Debug)]
pub(crate) struct Composer {
    service_type: ServiceType,
    source: Option<(u8, u8)>,
    source_npi: Option<u8>,
    dest: (u8, u8),
    long_text: LongText,
    gsm_coding: u8,
    ucs2_coding: u8,
    reference_tlv: u16,
    tlvs: Vec<(u16, Vec<u8>)>,
    references: References,
}

/// Why a submission cannot be written. The message can never be sent here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwritable {
    /// A sender or a phone that is too long or not ASCII.
    Address,
    /// More parts than can be counted, or more than `message_payload` holds.
    Length,
}

impl Unwritable {
    /// As a code in the ledger; the gateway never saw it.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Unwritable::Address => "local-address",
            Unwritable::Length => "local-length",
        }
    }
}

impl Composer {
    pub(crate) fn new(resource: &resources::Gateway) -> Composer {
        let service = resource.service_type.clone().unwrap_or_default();
        Composer {
            // Its length and characters were checked when the resource was applied.
            service_type: COctetString::from_string(service)
                .map(ServiceType::new)
                .unwrap_or_default(),
            source: resource.source_ton.map(|ton| (ton, resource.source_npi.unwrap_or(0))),
            source_npi: resource.source_npi,
            dest: (resource.dest_ton.unwrap_or(1), resource.dest_npi.unwrap_or(1)),
            long_text: resource.long_text,
            gsm_coding: resource.gsm_coding.unwrap_or(0),
            ucs2_coding: resource.ucs2_coding.unwrap_or(8),
            reference_tlv: resource.reference_tlv,
            // They were checked when the resource was applied.
            tlvs: resource
                .tlvs
                .iter()
                .filter_map(|(tag, value)| tlv(tag, value))
                .collect(),
            references: References::new(),
        }
    }

    /// The parts and their `data_coding`.
    fn written(&self, text: &str, encoding: Encoding, reference: u16) -> (u8, Vec<Part>) {
        let mut parts = sms::split(text, encoding, reference, false);
        if encoding == Encoding::Ucs2 {
            return (self.ucs2_coding, parts);
        }
        if !matches!(self.gsm_coding, ASCII | LATIN_1) {
            return (self.gsm_coding, parts);
        }
        // A gateway that is asked for one of these makes GSM-7 of it for the phone, so the parts stay as they are.
        for part in &mut parts {
            match recoded(&part.bytes, self.gsm_coding) {
                Some(octets) => part.bytes = octets,
                None => return (self.ucs2_coding, sms::split(text, Encoding::Ucs2, reference, false)),
            }
        }
        (self.gsm_coding, parts)
    }

    /// The client reference, and what the operator asks for.
    fn own_tlvs(&self, message: &Submission) -> Vec<MessageSubmissionRequestTlvValue> {
        let other = |tag: u16, value| MessageSubmissionRequestTlvValue::Other {
            tag: TlvTag::from(tag),
            value,
        };
        let reference = (self.reference_tlv != 0).then(|| {
            let text = message.reference.hyphenated().to_string();
            other(self.reference_tlv, AnyOctetString::from_string(text))
        });
        let configured = self
            .tlvs
            .iter()
            .map(|(tag, value)| other(*tag, AnyOctetString::from_vec(value.clone())));
        reference.into_iter().chain(configured).collect()
    }

    /// The PDUs in the order of the parts; their sequence numbers are still 0.
    pub(crate) fn compose(&self, message: &Submission, now: Timestamp) -> Result<Vec<Bytes>, Unwritable> {
        let (sender, (ton, npi)) = self.sender(&message.sender);
        let digits = message.phone.e164().trim_start_matches('+');
        let mut base = SubmitSm::builder()
            .service_type(self.service_type.clone())
            .source_addr_ton(Ton::from(ton))
            .source_addr_npi(Npi::from(npi))
            .source_addr(address(sender)?)
            .dest_addr_ton(Ton::from(self.dest.0))
            .dest_addr_npi(Npi::from(self.dest.1))
            .destination_addr(address(digits)?)
            // rusmpp's default is not 0.
            .esm_class(EsmClass::from(0))
            .registered_delivery(RegisteredDelivery::from(FINAL_RECEIPT))
            .build();
        if let Some(period) = message.expires_at.and_then(|at| validity(at, now)) {
            base.validity_period = EmptyOrFullCOctetString::from_string(period).unwrap_or_default();
        }
        let reference = self.references.next(message.phone.e164());
        let (coding, parts) = self.written(&message.text, message.encoding, reference);
        if parts.is_empty() {
            return Err(Unwritable::Length);
        }
        base.data_coding = DataCoding::from(coding);
        let own = self.own_tlvs(message);
        let total = parts.len();
        if total > 1 && self.long_text == LongText::Payload {
            let whole: Vec<u8> = parts.into_iter().flat_map(|part| part.bytes).collect();
            if whole.len() > usize::from(u16::MAX) {
                return Err(Unwritable::Length);
            }
            let payload = MessagePayload::new(AnyOctetString::from_vec(whole));
            base.push_tlv(MessageSubmissionRequestTlvValue::MessagePayload(payload));
            own.into_iter().for_each(|tlv| base.push_tlv(tlv));
            return Ok(vec![encode(base)]);
        }
        parts
            .into_iter()
            .map(|part| {
                let mut pdu = base.clone();
                let mut short = Vec::with_capacity(part.bytes.len() + 6);
                match (&part.udh, self.long_text) {
                    (Some(udh), LongText::Sar) => {
                        pdu.push_tlv(MessageSubmissionRequestTlvValue::SarMsgRefNum(reference));
                        pdu.push_tlv(MessageSubmissionRequestTlvValue::SarTotalSegments(udh.total));
                        pdu.push_tlv(MessageSubmissionRequestTlvValue::SarSegmentSeqnum(udh.sequence));
                    }
                    (Some(udh), _) => {
                        pdu.esm_class = EsmClass::from(UDH_INDICATOR);
                        short.extend_from_slice(&udh.to_bytes());
                    }
                    (None, _) => {}
                }
                short.extend_from_slice(&part.bytes);
                if short.len() > MAX_SHORT {
                    return Err(Unwritable::Length);
                }
                pdu.set_short_message(OctetString::from_vec(short).map_err(|_| Unwritable::Length)?);
                for tlv in &own {
                    pdu.push_tlv(tlv.clone());
                }
                Ok(encode(pdu))
            })
            .collect()
    }

    /// The sender as it is written, and its type and plan: letters are alphanumeric (5, 0), a number in E.164 is
    /// international (1, 1) and goes without its +, a short code is network specific (3, 0).
    fn sender<'a>(&self, sender: &'a str) -> (&'a str, (u8, u8)) {
        let digits = sender.strip_prefix('+').unwrap_or(sender);
        let (text, (ton, npi)) = if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            match sender.starts_with('+') || digits.len() > 8 {
                true => (digits, (1, 1)),
                false => (digits, (3, 0)),
            }
        } else {
            (sender, (5, 0))
        };
        (text, self.source.unwrap_or((ton, self.source_npi.unwrap_or(npi))))
    }
}

/// The octets of GSM-7 as those of ASCII (`data_coding` 1) or Latin-1 (3), one a character; `None`: it lacks one of them.
fn recoded(gsm: &[u8], coding: u8) -> Option<Vec<u8>> {
    sms::decode(0, gsm)
        .chars()
        .map(|character| {
            u8::try_from(character)
                .ok()
                .filter(|octet| coding == LATIN_1 || *octet < 0x80)
        })
        .collect()
}

fn address(text: &str) -> Result<COctetString<1, 21>, Unwritable> {
    COctetString::from_string(text.to_owned()).map_err(|_| Unwritable::Address)
}

fn encode(pdu: SubmitSm) -> Bytes {
    let mut out = BytesMut::with_capacity(320);
    // Writing to memory has no error that could happen.
    let written = CommandCodec::new().encode(Command::new(CommandStatus::EsmeRok, 0, pdu), &mut out);
    debug_assert!(written.is_ok());
    out.freeze()
}

/// How long it is worth delivering, relative to its arrival, `YYMMDDhhmmss000R` (SMPP 3.4, 7.1.1.2): so the gateway's
/// clock and ours need not agree. At least a minute; what is over is not submitted at all, which the caller sees to.
fn validity(expires: Timestamp, now: Timestamp) -> Option<String> {
    let seconds = expires.duration_since(now).as_secs().max(60);
    let days = seconds / 86_400;
    // Beyond what the format counts in days the gateway's own limit is shorter anyway.
    if days > 28 {
        return None;
    }
    let (hours, minutes, rest) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    Some(format!("0000{days:02}{hours:02}{minutes:02}{rest:02}000R"))
}

/// References for the parts of long texts. Two messages to one phone must not share one while parts of both are on
/// their way, or the phone mixes them: so each phone counts by itself (phones that share a counter only skip numbers).
/// A contact's messages all go through one dispatcher, and a restarted one begins elsewhere.
struct References {
    counters: Box<[AtomicU16]>,
    hasher: RandomState,
}

const COUNTERS: usize = 1 << 14;

impl References {
    fn new() -> References {
        References {
            counters: (0..COUNTERS).map(|_| AtomicU16::new(rand::random())).collect(),
            hasher: RandomState::new(),
        }
    }

    fn next(&self, phone: &str) -> u16 {
        let slot = self.hasher.hash_one(phone) as usize % COUNTERS;
        self.counters[slot].fetch_add(1, Ordering::Relaxed)
    }
}

impl std::fmt::Debug for References {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("References")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smpp::wire::Frame;
    use domain::Phone;
    use uuid::Uuid;

    fn submission(sender: &str, text: &str) -> Submission {
        let measured = sms::measure(text);
        Submission {
            reference: Uuid::from_u128(7),
            phone: Phone::from_e164("+262692123456"),
            sender: sender.into(),
            text: text.into(),
            encoding: measured.encoding,
            parts: measured.parts,
            expires_at: None,
        }
    }

    fn composer(long_text: LongText) -> Composer {
        Composer::new(&resources::Gateway {
            long_text,
            ..resources::Gateway::smpp("main", "h:1", "tamtam")
        })
    }

    fn short_message(pdu: &Bytes) -> (u8, Vec<u8>, Vec<u16>) {
        let frame = Frame::whole(pdu).unwrap();
        let mut body = frame.body();
        body.c_string().unwrap();
        body.bytes(2).unwrap();
        body.c_string().unwrap();
        body.bytes(2).unwrap();
        body.c_string().unwrap();
        let esm = body.byte().unwrap();
        body.bytes(2).unwrap();
        body.c_string().unwrap();
        body.c_string().unwrap();
        body.bytes(4).unwrap();
        let length = body.byte().unwrap();
        let short = body.bytes(usize::from(length)).unwrap().to_vec();
        (esm, short, body.tlvs().map(|(tag, _)| tag).collect())
    }

    #[test]
    fn one_part_with_its_reference() {
        let pdus = composer(LongText::Udh)
            .compose(&submission("BOUTIQUE", "Salut"), Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(pdus.len(), 1);
        let (esm, short, tags) = short_message(&pdus[0]);
        assert_eq!(
            (esm, short.as_slice(), tags.as_slice()),
            (0, &b"Salut"[..], &[0x1501][..])
        );
        let text = String::from_utf8_lossy(&pdus[0]).into_owned();
        assert!(text.contains("\u{5}\0BOUTIQUE\0"));
        assert!(text.contains("\u{1}\u{1}262692123456\0"));
        assert!(text.ends_with("00000000-0000-0000-0000-000000000007"));
    }

    #[test]
    fn long_texts_all_three_ways() {
        let message = submission("+262262123456", &"a".repeat(400));
        let udh = composer(LongText::Udh)
            .compose(&message, Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(udh.len(), 3);
        let (esm, short, _) = short_message(&udh[2]);
        assert_eq!((esm, &short[..3], &short[4..6]), (0x40, &[5, 0, 3][..], &[3, 3][..]));
        let sar = composer(LongText::Sar)
            .compose(&message, Timestamp::UNIX_EPOCH)
            .unwrap();
        let (esm, short, tags) = short_message(&sar[0]);
        assert_eq!((esm, short.len()), (0, 153));
        assert_eq!(tags, [0x020C, 0x020E, 0x020F, 0x1501]);
        let payload = composer(LongText::Payload)
            .compose(&message, Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(payload.len(), 1);
        let (_, short, tags) = short_message(&payload[0]);
        assert_eq!((short.len(), tags.as_slice()), (0, &[0x0424, 0x1501][..]));
    }

    #[test]
    fn latin_1_is_other_octets_and_what_it_lacks_is_ucs2() {
        let coded = |coding: u8, text: &str| {
            let composer = Composer::new(&resources::Gateway {
                gsm_coding: Some(coding),
                ..resources::Gateway::smpp("main", "h:1", "tamtam")
            });
            let pdus = composer
                .compose(&submission("BOUTIQUE", text), Timestamp::UNIX_EPOCH)
                .unwrap();
            // The coding stands two octets before the length of the short message.
            let frame = Frame::whole(&pdus[0]).unwrap();
            let mut body = frame.body();
            body.c_string().unwrap();
            body.bytes(2).unwrap();
            body.c_string().unwrap();
            body.bytes(2).unwrap();
            body.c_string().unwrap();
            body.bytes(3).unwrap();
            body.c_string().unwrap();
            body.c_string().unwrap();
            (body.bytes(3).unwrap()[2], short_message(&pdus[0]).1, pdus.len())
        };
        assert_eq!(coded(0, "é@[").1, [0x05, 0x00, 0x1B, 0x3C]);
        assert_eq!(coded(3, "é@["), (3, vec![0xE9, 0x40, 0x5B], 1));
        assert_eq!(coded(1, "a@["), (1, vec![0x61, 0x40, 0x5B], 1));
        assert_eq!(coded(1, "é"), (8, vec![0x00, 0xE9], 1));
        assert_eq!(coded(3, "5 €"), (8, vec![0x00, 0x35, 0x00, 0x20, 0x20, 0xAC], 1));
        // As many parts as GSM-7, and more where it is UCS-2.
        assert_eq!(coded(3, &"é".repeat(300)).2, 2);
        assert_eq!(coded(3, &"€".repeat(140)).2, 3);
    }

    #[test]
    fn own_tlvs_go_with_each_part() {
        let composer = Composer::new(&resources::Gateway {
            reference_tlv: 0,
            tlvs: std::collections::BTreeMap::from([
                ("0x1400".into(), "shop".into()),
                ("0x1401".into(), "hex:00FF".into()),
            ]),
            ..resources::Gateway::smpp("main", "h:1", "tamtam")
        });
        let pdus = composer
            .compose(&submission("BOUTIQUE", &"a".repeat(200)), Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(pdus.len(), 2);
        for pdu in &pdus {
            assert!(pdu.ends_with(b"\x14\x00\x00\x04shop\x14\x01\x00\x02\x00\xFF"));
        }
    }

    #[test]
    fn references_to_one_phone_differ() {
        let references = References::new();
        let mut seen: Vec<u8> = (0..200).map(|_| references.next("+262692123456") as u8).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 200);
    }

    #[test]
    fn senders_have_their_type_and_what_cannot_be_written_is_said() {
        let composer = composer(LongText::Udh);
        assert_eq!(composer.sender("+33612345678"), ("33612345678", (1, 1)));
        assert_eq!(composer.sender("36105"), ("36105", (3, 0)));
        assert_eq!(composer.sender("BOUTIQUE"), ("BOUTIQUE", (5, 0)));
        let wrong = submission("CAFÉ", "x");
        assert_eq!(
            composer.compose(&wrong, Timestamp::UNIX_EPOCH),
            Err(Unwritable::Address)
        );
    }

    #[test]
    fn validity_is_relative() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(validity(at(90_061), at(0)).as_deref(), Some("000001010101000R"));
        assert_eq!(validity(at(5), at(0)).as_deref(), Some("000000000100000R"));
        assert_eq!(validity(at(90 * 86_400), at(0)), None);
    }
}
