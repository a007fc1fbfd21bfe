//! Submissions read, receipts and replies written.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use domain::sms::{self, Encoding, Udh};
use jiff::Timestamp;
use rusmpp::{
    Command, CommandStatus, Pdu,
    pdus::{DeliverSm, SubmitSm},
    tlvs::{MessageDeliveryRequestTlvValue, TlvTag, TlvValue},
    tokio_codec::CommandCodec,
    types::{AnyOctetString, COctetString, OctetString},
    values::{DataCoding, EsmClass, MessageState, Npi, RegisteredDelivery, Ton},
};
use tokio_util::codec::Encoder as _;
use uuid::Uuid;

use crate::{
    Script,
    core::{Arrival, Client},
    mailbox::{Delivery, Mailbox},
    schedule::{Fate, Receipt},
};

/// Where vendors' own TLVs begin (SMPP 3.4, 5.3.2).
const VENDOR: u16 = 0x1400;
const REFERENCE: u16 = 0x1501;
const UDH_INDICATOR: u8 = 0x40;
const RECEIPT: u8 = 0x04;
/// An intermediate notification.
const INTERMEDIATE: u8 = 0x20;

/// Reads a submission. The client reference is whatever vendor's TLV holds a UUID.
pub(crate) fn arrival(submit: &SubmitSm, mailbox: &Arc<Mailbox>) -> Arrival {
    let mut message: &[u8] = submit.short_message().as_ref();
    let (mut reference, mut is_whole) = (None, false);
    let (mut sar_reference, mut sar_total, mut sar_sequence) = (0, 0, 0);
    for tlv in submit.tlvs() {
        match tlv.value() {
            Some(TlvValue::MessagePayload(payload)) => (message, is_whole) = (payload.value.as_ref(), true),
            Some(TlvValue::SarMsgRefNum(number)) => sar_reference = *number,
            Some(TlvValue::SarTotalSegments(number)) => sar_total = *number,
            Some(TlvValue::SarSegmentSeqnum(number)) => sar_sequence = *number,
            Some(TlvValue::Other { tag, value }) if u16::from(*tag) >= VENDOR => {
                reference = Uuid::try_parse_ascii(value.as_ref()).ok().or(reference);
            }
            _ => {}
        }
    }
    let (mut concat, mut part, mut total) = (sar_reference, sar_sequence.max(1), sar_total.max(1));
    if u8::from(submit.esm_class) & UDH_INDICATOR != 0
        && let Some((udh, length)) = Udh::parse(message)
    {
        message = &message[length.min(message.len())..];
        (concat, part, total) = (udh.reference, udh.sequence.max(1), udh.total.max(1));
    }
    let text = sms::decode(u8::from(submit.data_coding), message);
    Arrival {
        client: Client::Smpp(mailbox.clone()),
        reference,
        from: number(submit.source_addr_ton, submit.source_addr.as_str()),
        to: number(submit.dest_addr_ton, submit.destination_addr.as_str()),
        concat,
        part,
        total,
        // Only what comes in the payload may be a text that is yet to be split.
        counts: match is_whole && total == 1 {
            true => u32::from(sms::measure(&text).parts),
            false => 1,
        },
        ids: 1,
        text,
        validity: Some(submit.validity_period.as_str().to_owned()).filter(|period| !period.is_empty()),
        wants_receipt: u8::from(submit.registered_delivery) & 0x03 != 0,
    }
}

fn number(ton: Ton, address: &str) -> String {
    match ton == Ton::International && !address.starts_with('+') {
        true => format!("+{address}"),
        false => address.to_owned(),
    }
}

/// A receipt as a `deliver_sm`.
pub(crate) fn receipt(receipt: &Receipt, script: &Script) -> Delivery {
    let id = script.receipt_ids.write(receipt.id, script.receipt_id_width);
    let (state, stat, error) = match receipt.fate {
        Fate::Delivered => (MessageState::Delivered, "DELIVRD", "000"),
        Fate::Failed => (MessageState::Undeliverable, "UNDELIV", "011"),
        Fate::Expired => (MessageState::Expired, "EXPIRED", "027"),
        Fate::Unheard => (MessageState::Other(77), "MYSTERY", "999"),
        Fate::Enroute => (MessageState::Enroute, "ENROUTE", "000"),
    };
    let at = Timestamp::now().strftime("%y%m%d%H%M").to_string();
    let delivered = u8::from(receipt.fate == Fate::Delivered);
    let text =
        format!("id:{id} sub:001 dlvrd:00{delivered} submit date:{at} done date:{at} stat:{stat} err:{error} text:");
    let mut pdu = base(&receipt.to, &receipt.from);
    pdu.esm_class = EsmClass::from(match receipt.fate {
        Fate::Enroute => INTERMEDIATE,
        _ => RECEIPT,
    });
    pdu.set_short_message(OctetString::from_vec(text.into_bytes()).unwrap_or_else(|_| OctetString::empty()));
    if script.receipt_tlvs {
        if let Ok(id) = COctetString::from_string(id) {
            pdu.push_tlv(MessageDeliveryRequestTlvValue::ReceiptedMessageId(id));
        }
        pdu.push_tlv(MessageDeliveryRequestTlvValue::MessageState(state));
    }
    if script.receipt_references
        && let Some(reference) = receipt.reference
    {
        pdu.push_tlv(MessageDeliveryRequestTlvValue::Other {
            tag: TlvTag::from(REFERENCE),
            value: AnyOctetString::from_string(reference.hyphenated().to_string()),
        });
    }
    Delivery {
        pdu: encode(pdu),
        is_receipt: true,
    }
}

/// A text that a person sent, in as many parts as it needs.
pub(crate) fn reply(from: &str, to: &str, text: &str) -> Vec<Delivery> {
    let encoding = Encoding::of(text);
    // Any number does: one person's replies that are on their way together begin with different bytes.
    let reference = Timestamp::now().subsec_nanosecond() as u16;
    sms::split(text, encoding, reference, false)
        .into_iter()
        .map(|part| {
            let mut pdu = base(from, to);
            pdu.data_coding = DataCoding::from(match encoding {
                Encoding::Gsm7 => 0,
                Encoding::Ucs2 => 8,
            });
            let mut message = Vec::with_capacity(part.bytes.len() + 6);
            if let Some(udh) = &part.udh {
                pdu.esm_class = EsmClass::from(UDH_INDICATOR);
                message.extend_from_slice(&udh.to_bytes());
            }
            message.extend_from_slice(&part.bytes);
            pdu.set_short_message(OctetString::from_vec(message).unwrap_or_else(|_| OctetString::empty()));
            Delivery {
                pdu: encode(pdu),
                is_receipt: false,
            }
        })
        .collect()
}

fn base(source: &str, dest: &str) -> DeliverSm {
    let (source_ton, source) = address(source);
    let (dest_ton, dest) = address(dest);
    let mut pdu = DeliverSm::default();
    (pdu.source_addr_ton, pdu.source_addr_npi, pdu.source_addr) = (source_ton, Npi::Isdn, source);
    (pdu.dest_addr_ton, pdu.dest_addr_npi, pdu.destination_addr) = (dest_ton, Npi::Isdn, dest);
    // rusmpp's defaults are not 0.
    pdu.esm_class = EsmClass::from(0);
    pdu.registered_delivery = RegisteredDelivery::from(0);
    pdu
}

fn address(text: &str) -> (Ton, COctetString<1, 21>) {
    let (ton, digits) = match text.strip_prefix('+') {
        Some(digits) => (Ton::International, digits),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => (Ton::NetworkSpecific, text),
        None => (Ton::Alphanumeric, text),
    };
    let ascii: String = digits.chars().filter(char::is_ascii).take(20).collect();
    (
        ton,
        COctetString::from_string(ascii).unwrap_or_else(|_| COctetString::empty()),
    )
}

fn encode(pdu: DeliverSm) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    let command = Command::new(CommandStatus::EsmeRok, 0, Pdu::from(pdu));
    // Writing to memory has no error that could happen.
    let written = CommandCodec::new().encode(command, &mut out);
    debug_assert!(written.is_ok());
    out.freeze()
}
