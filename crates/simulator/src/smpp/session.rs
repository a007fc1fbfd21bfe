//! One connection of a client, from its bind to its end.
//!
//! It reads, answers and delivers at the same time; answers that the script delays wait by their time. What a receiver
//! did not acknowledge when its connection ends goes back into the mailbox.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
};

use bytes::BytesMut;
use futures::StreamExt as _;
use rusmpp::{
    Command, CommandStatus, Pdu,
    pdus::{BindReceiverResp, BindTransceiverResp, BindTransmitterResp, SubmitSmResp},
    tokio_codec::CommandCodec,
    types::COctetString,
    values::InterfaceVersion,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, tcp::OwnedWriteHalf},
    time::{Duration, Instant, sleep_until, timeout},
};
use tokio_util::{
    codec::{Encoder as _, FramedRead},
    sync::CancellationToken,
};

use super::pdu;
use crate::{
    core::{Core, Verdict},
    mailbox::{Delivery, Mailbox},
};

/// Deliveries that may wait for their acknowledgement.
const WINDOW: usize = 500;
/// Beyond this the client does not read, and is not read from either.
const MAX_OUT: usize = 1 << 20;
/// How long a delivery that the client could not keep waits before it is brought again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a connection may be without a bind.
const UNBOUND: Duration = Duration::from_secs(10);

struct Session {
    core: Arc<Core>,
    out: BytesMut,
    mailbox: Option<Arc<Mailbox>>,
    transmits: bool,
    receives: bool,
    /// Answers that wait for their time: (when, in which order, bytes).
    delayed: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    order: u64,
    sequence: u32,
    delivering: BTreeMap<u32, Delivery>,
    quiet_until: Option<Instant>,
}

/// What a PDU leads to.
enum Next {
    Go,
    /// Send what is to be sent, and end.
    End,
    /// End at once.
    Cut,
}

pub(super) async fn run(core: Arc<Core>, stream: TcpStream, shutdown: CancellationToken) {
    let mut session = Session {
        core,
        out: BytesMut::with_capacity(64 * 1024),
        mailbox: None,
        transmits: false,
        receives: false,
        delayed: BinaryHeap::new(),
        order: 0,
        sequence: 0,
        delivering: BTreeMap::new(),
        quiet_until: None,
    };
    session.work(stream, shutdown).await;
    if let Some(mailbox) = session.mailbox.take() {
        session.core.bound(false);
        // The last one first: each goes to the front.
        mailbox.put_back(std::mem::take(&mut session.delivering).into_values().rev());
    }
}

impl Session {
    async fn work(&mut self, stream: TcpStream, shutdown: CancellationToken) {
        let (reader, mut writer) = stream.into_split();
        let codec = CommandCodec::new().with_max_length(super::MAX_PDU);
        let mut frames = FramedRead::with_capacity(reader, codec, 64 * 1024);
        let opened = Instant::now();
        loop {
            let now = Instant::now();
            self.answer_delayed(now);
            if self.quiet_until.is_some_and(|until| until <= now) {
                self.quiet_until = None;
            }
            let room = WINDOW.saturating_sub(self.delivering.len());
            let receiving = self.receives && self.quiet_until.is_none() && room > 0;
            if receiving {
                self.deliver(room);
            }
            let mailbox = self.mailbox.clone();
            let filled = async {
                match mailbox {
                    Some(mailbox) if mailbox.len() == 0 => mailbox.filled().await,
                    Some(_) => {}
                    None => std::future::pending().await,
                }
            };
            let mut wake = now + Duration::from_secs(3_600);
            if let Some(Reverse((at, ..))) = self.delayed.peek() {
                wake = wake.min(*at);
            }
            wake = wake.min(self.quiet_until.unwrap_or(wake));
            if self.mailbox.is_none() {
                wake = wake.min(opened + UNBOUND);
                if opened + UNBOUND <= now {
                    return;
                }
            }
            tokio::select! {
                biased;
                frame = frames.next(), if self.out.len() < MAX_OUT => {
                    let next = match frame {
                        Some(Ok(command)) => self.take(command),
                        // It makes no sense any more; say so and end.
                        Some(Err(_)) => {
                            self.put(Command::new(CommandStatus::EsmeRinvcmdlen, 0, Pdu::GenericNack));
                            Next::End
                        }
                        None => return,
                    };
                    match next {
                        Next::Go => {}
                        Next::End => return self.finish(&mut writer).await,
                        Next::Cut => return,
                    }
                }
                () = filled, if receiving => {}
                written = writer.write_buf(&mut self.out), if !self.out.is_empty() => match written {
                    Ok(written) if written > 0 => {}
                    _ => return,
                },
                () = shutdown.cancelled() => {
                    self.sequence += 1;
                    self.put(Command::new(CommandStatus::EsmeRok, self.sequence, Pdu::Unbind));
                    return self.finish(&mut writer).await;
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    async fn finish(&mut self, writer: &mut OwnedWriteHalf) {
        let _ = timeout(Duration::from_secs(1), writer.write_all_buf(&mut self.out)).await;
        let _ = writer.shutdown().await;
    }

    fn take(&mut self, command: Command) -> Next {
        let sequence = command.sequence_number();
        match command.pdu() {
            Some(Pdu::SubmitSm(submit)) => {
                let Some(mailbox) = self.mailbox.as_ref().filter(|_| self.transmits) else {
                    self.put(Command::new(
                        CommandStatus::EsmeRinvbndsts,
                        sequence,
                        SubmitSmResp::default(),
                    ));
                    return Next::Go;
                };
                let verdict = self.core.take(pdu::arrival(submit, mailbox));
                self.answer(sequence, verdict)
            }
            Some(Pdu::BindTransmitter(bind)) => {
                let answer = BindTransmitterResp::new(system_id(), Some(InterfaceVersion::Smpp3_4));
                self.bind(bind.system_id.as_str(), true, false, sequence, answer.into())
            }
            Some(Pdu::BindReceiver(bind)) => {
                let answer = BindReceiverResp::new(system_id(), Some(InterfaceVersion::Smpp3_4));
                self.bind(bind.system_id.as_str(), false, true, sequence, answer.into())
            }
            Some(Pdu::BindTransceiver(bind)) => {
                let answer = BindTransceiverResp::new(system_id(), Some(InterfaceVersion::Smpp3_4));
                self.bind(bind.system_id.as_str(), true, true, sequence, answer.into())
            }
            Some(Pdu::EnquireLink) => {
                self.put(Command::new(CommandStatus::EsmeRok, sequence, Pdu::EnquireLinkResp));
                Next::Go
            }
            Some(Pdu::Unbind) => {
                self.put(Command::new(CommandStatus::EsmeRok, sequence, Pdu::UnbindResp));
                Next::End
            }
            Some(Pdu::DeliverSmResp(_)) => {
                self.delivered(sequence, command.status());
                Next::Go
            }
            _ if command.id() == rusmpp::CommandId::DeliverSmResp => {
                self.delivered(sequence, command.status());
                Next::Go
            }
            _ if command.id().is_response() => Next::Go,
            _ => {
                self.put(Command::new(CommandStatus::EsmeRinvcmdid, sequence, Pdu::GenericNack));
                Next::Go
            }
        }
    }

    fn bind(&mut self, system_id: &str, transmits: bool, receives: bool, sequence: u32, answer: Pdu) -> Next {
        if self.core.script().refuse_binds {
            self.put(Command::new(CommandStatus::EsmeRbindfail, sequence, answer));
            return Next::End;
        }
        if self.mailbox.is_some() {
            self.put(Command::new(CommandStatus::EsmeRalybnd, sequence, answer));
            return Next::Go;
        }
        self.mailbox = Some(self.core.mailbox(system_id));
        (self.transmits, self.receives) = (transmits, receives);
        self.core.bound(true);
        self.put(Command::new(CommandStatus::EsmeRok, sequence, answer));
        Next::Go
    }

    fn answer(&mut self, sequence: u32, verdict: Verdict) -> Next {
        let error = |status| Command::new(status, sequence, SubmitSmResp::default());
        match verdict {
            Verdict::Taken { mut ids, after } => {
                let answer = taken(sequence, ids.pop().unwrap_or_default());
                if after.is_zero() {
                    self.put(answer);
                } else {
                    let mut bytes = BytesMut::new();
                    encode(&answer, &mut bytes);
                    self.order += 1;
                    self.delayed
                        .push(Reverse((Instant::now() + after, self.order, bytes.to_vec())));
                }
            }
            Verdict::Ambiguous => self.put(error(CommandStatus::EsmeRsubmitfail)),
            Verdict::Silent => {}
            Verdict::Cut => return Next::Cut,
            Verdict::Half { mut ids } => {
                let mut bytes = BytesMut::new();
                encode(&taken(sequence, ids.pop().unwrap_or_default()), &mut bytes);
                self.out.extend_from_slice(&bytes[..bytes.len() / 2]);
                return Next::End;
            }
            Verdict::Garbage => {
                self.out.extend_from_slice(b"\xff\xff\xff\xffHTTP/1.1 200 OK\r\n\r\n");
                return Next::End;
            }
            Verdict::Throttled => self.put(error(CommandStatus::EsmeRthrottled)),
            Verdict::Busy => self.put(error(CommandStatus::EsmeRmsgqful)),
            Verdict::Refused => self.put(error(CommandStatus::EsmeRinvdstadr)),
        }
        Next::Go
    }

    fn answer_delayed(&mut self, now: Instant) {
        while let Some(Reverse((at, ..))) = self.delayed.peek()
            && *at <= now
        {
            if let Some(Reverse((_, _, bytes))) = self.delayed.pop() {
                self.out.extend_from_slice(&bytes);
            }
        }
    }

    fn deliver(&mut self, room: usize) {
        let Some(mailbox) = &self.mailbox else { return };
        for delivery in mailbox.take(room) {
            self.sequence = if self.sequence >= 0x7FFF_FFFF {
                1
            } else {
                self.sequence + 1
            };
            let at = self.out.len();
            self.out.extend_from_slice(&delivery.pdu);
            self.out[at + 12..at + 16].copy_from_slice(&self.sequence.to_be_bytes());
            self.delivering.insert(self.sequence, delivery);
        }
    }

    fn delivered(&mut self, sequence: u32, status: CommandStatus) {
        let Some(delivery) = self.delivering.remove(&sequence) else {
            return;
        };
        if status == CommandStatus::EsmeRok {
            let receipt = u64::from(delivery.is_receipt);
            self.core.acknowledged(receipt, 1 - receipt);
        } else if let Some(mailbox) = &self.mailbox {
            mailbox.put_back([delivery]);
            self.quiet_until = Some(Instant::now() + AGAIN);
        }
    }

    fn put(&mut self, command: Command) {
        encode(&command, &mut self.out);
    }
}

fn encode(command: &Command, out: &mut BytesMut) {
    // Writing to memory has no error that could happen.
    let written = CommandCodec::new().encode(command, out);
    debug_assert!(written.is_ok());
}

fn taken(sequence: u32, id: String) -> Command {
    let id = COctetString::from_string(id).unwrap_or_else(|_| COctetString::empty());
    Command::new(CommandStatus::EsmeRok, sequence, SubmitSmResp::new(id, Vec::new()))
}

fn system_id() -> COctetString<1, 16> {
    COctetString::from_static_slice(b"simulator\0").unwrap_or_else(|_| COctetString::empty())
}
