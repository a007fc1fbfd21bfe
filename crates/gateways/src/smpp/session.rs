//! One bound connection, from the bind's answer to its end: a single task that owns everything, so nothing is locked.
//!
//! It reads and writes at the same time (a gateway that does not read while it waits for us to read would otherwise stop
//! both), writes what has gathered in one go, and notices time-outs itself. What it holds is bounded: one PDU being read,
//! a window of PDUs being written, [`MAX_DELIVERIES`] deliveries being kept.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use resources::gateway::Meaning;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    connect::Stream,
    flight::{Answer, Flight, Request},
    judge::Part,
    line::State,
    status::{self, Catalogue},
    wire::{self, Frame, command},
};
use crate::{Incoming, Now};

/// Deliveries that are being kept and not yet answered; more are left in the connection's own buffers.
const MAX_DELIVERIES: usize = 1_000;
/// What one read takes at most.
const READ: usize = 16 * 1024;
/// How long a throttled bind says nothing.
const THROTTLE_PAUSE: Duration = Duration::from_secs(1);
/// How long a bind whose gateway asked for patience otherwise (queue full, system error) says nothing.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// After so many PDUs in a row that belong to nothing (answers under numbers that we never gave, commands that SMPP does
/// not have) the two sides do not mean the same connection any more. Late answers are not among them: a gateway may be slow.
const MAX_ASTRAY: u32 = 5;
/// How long the gateway may take to agree that we part.
const PARTING: Duration = Duration::from_secs(2);

/// What does not change over a session.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) gateway: String,
    pub(crate) window: usize,
    pub(crate) response_timeout: Duration,
    pub(crate) enquire_link: Duration,
    pub(crate) catalogue: Catalogue,
    pub(crate) now: Now,
    pub(crate) incoming: Option<Arc<dyn Incoming>>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// We stopped.
    #[error("stopped")]
    Closed,
    #[error("the gateway ended the session")]
    Unbound,
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("the gateway closed the connection")]
    Eof,
    #[error("the gateway does not answer enquire_link")]
    Silent,
    #[error("the gateway sent {0}")]
    Malformed(#[from] wire::BadLength),
    #[error("the gateway sent {MAX_ASTRAY} PDUs in a row that belong to nothing")]
    Astray,
}

pub(crate) struct Session<'a> {
    rules: &'a Rules,
    inbox: BytesMut,
    out: BytesMut,
    /// Bytes of the stream that the connection took.
    written: u64,
    flight: Flight,
    paused: Option<Instant>,
    /// What others see of it.
    state: &'a State,
    /// When the last whole PDU came: single bytes are no sign of life.
    heard: Instant,
    enquired: Option<Instant>,
    closing: Option<Instant>,
    deliveries: FuturesUnordered<BoxFuture<'static, (u32, bool)>>,
    /// Something came that a gateway in working order sends.
    worked: bool,
    /// PDUs in a row that belong to nothing.
    astray: u32,
}

impl<'a> Session<'a> {
    pub(crate) fn new(rules: &'a Rules, inbox: BytesMut, state: &'a State) -> Session<'a> {
        Session {
            rules,
            inbox,
            out: BytesMut::with_capacity(64 * 1024),
            written: 0,
            flight: Flight::new(),
            paused: None,
            state,
            heard: Instant::now(),
            enquired: None,
            closing: None,
            deliveries: FuturesUnordered::new(),
            worked: false,
            astray: 0,
        }
    }

    /// Works until the connection ends or `stop` lets it; what was under way then has its outcome. Says why it ended, and
    /// whether it was of any use.
    pub(crate) async fn run(
        mut self,
        stream: Box<dyn Stream>,
        requests: &mut mpsc::Receiver<Request>,
        stop: &CancellationToken,
    ) -> (Ended, bool) {
        let ended = match self.work(stream, requests, stop).await {
            Ok(ended) => ended,
            Err(ended) => ended,
        };
        // Before anybody hears of the cut: whoever does and asks whether the bind is up must not be told that it is.
        self.state.down();
        self.flight.cut(self.written);
        (ended, self.worked)
    }

    async fn work(
        &mut self,
        stream: Box<dyn Stream>,
        requests: &mut mpsc::Receiver<Request>,
        stop: &CancellationToken,
    ) -> Result<Ended, Ended> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut open = true;
        // What came behind the bind's answer.
        self.read()?;
        loop {
            let now = Instant::now();
            if let Some(ended) = self.time(now)? {
                return Ok(ended);
            }
            if stop.is_cancelled() {
                open = false;
            }
            if !open && self.closing.is_none() && self.flight.is_empty() && self.deliveries.is_empty() {
                let sequence = self.flight.sequence();
                wire::put_header(&mut self.out, command::UNBIND, 0, sequence);
                self.closing = Some(now + PARTING);
            }
            if self.paused.is_none() {
                let overdue = now + self.rules.response_timeout;
                self.flight
                    .write(&mut self.out, self.written, self.rules.window, overdue);
            }
            let room = self.flight.outstanding() + self.flight.waiting() < self.rules.window;
            let wake = self.wake(now);
            // Frames that were cut off took their capacity with them; without this reads would become tiny.
            if self.inbox.capacity() - self.inbox.len() < READ / 4 {
                self.inbox.reserve(READ);
            }
            tokio::select! {
                biased;
                read = reader.read_buf(&mut self.inbox), if self.deliveries.len() < MAX_DELIVERIES => {
                    if read? == 0 {
                        return Ok(if self.closing.is_some() { Ended::Closed } else { Ended::Eof });
                    }
                    if self.read()? {
                        // The gateway ends it: say yes, as far as it still listens.
                        let _ = tokio::time::timeout(PARTING, writer.write_all_buf(&mut self.out)).await;
                        return Ok(if self.closing.is_some() { Ended::Closed } else { Ended::Unbound });
                    }
                }
                request = requests.recv(), if open && room && self.paused.is_none() => match request {
                    Some(request) => {
                        self.flight.add(request);
                        // What else is there goes out with it.
                        while self.flight.outstanding() + self.flight.waiting() < self.rules.window {
                            match requests.try_recv() {
                                Ok(request) => self.flight.add(request),
                                Err(_) => break,
                            }
                        }
                    }
                    None => open = false,
                },
                Some((sequence, kept)) = self.deliveries.next(), if !self.deliveries.is_empty() => {
                    self.deliver_answer(sequence, kept);
                    while let Some(Some((sequence, kept))) = self.deliveries.next().now_or_never() {
                        self.deliver_answer(sequence, kept);
                    }
                }
                written = writer.write_buf(&mut self.out), if !self.out.is_empty() => {
                    let written = written?;
                    if written == 0 {
                        return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
                    }
                    self.written += written as u64;
                    if self.out.is_empty() {
                        writer.flush().await?;
                    }
                }
                () = stop.cancelled(), if open => open = false,
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Everything that depends on the time alone.
    fn time(&mut self, now: Instant) -> Result<Option<Ended>, Ended> {
        let overdue = self.flight.expire(now);
        if overdue > 0 {
            metrics::counter!("tamtam_gateway_response_timeouts_total", "gateway" => self.rules.gateway.clone())
                .increment(overdue as u64);
        }
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
        }
        if self.closing.is_some_and(|until| until <= now) {
            return Ok(Some(Ended::Closed));
        }
        match self.enquired {
            Some(asked) if asked + self.rules.response_timeout <= now => return Err(Ended::Silent),
            None if self.heard + self.rules.enquire_link <= now => {
                let sequence = self.flight.sequence();
                wire::put_header(&mut self.out, command::ENQUIRE_LINK, 0, sequence);
                self.enquired = Some(now);
            }
            _ => {}
        }
        Ok(None)
    }

    /// When there is something to do again although nothing happens.
    fn wake(&self, now: Instant) -> Instant {
        let liveness = match self.enquired {
            Some(asked) => asked + self.rules.response_timeout,
            None => self.heard + self.rules.enquire_link,
        };
        [self.flight.next_overdue(), self.paused, self.closing]
            .into_iter()
            .flatten()
            .fold(liveness, Instant::min)
            .max(now)
    }

    /// Takes the whole PDUs out of the inbox; `true` when the session is to end.
    fn read(&mut self) -> Result<bool, Ended> {
        while let Some(frame) = Frame::take(&mut self.inbox)? {
            self.heard = Instant::now();
            self.enquired = None;
            if self.take(&frame) {
                return Ok(true);
            }
            if self.astray >= MAX_ASTRAY {
                return Err(Ended::Astray);
            }
        }
        Ok(false)
    }

    fn take(&mut self, frame: &Frame) -> bool {
        match frame.command() {
            command::SUBMIT_SM_RESP => {
                self.submit_answer(frame);
                // We are not bound as we think: only a new bind helps.
                return frame.status() == status::INVALID_BIND_STATUS;
            }
            command::DELIVER_SM => self.deliver(frame),
            command::ENQUIRE_LINK => {
                wire::put_header(&mut self.out, command::ENQUIRE_LINK_RESP, 0, frame.sequence());
            }
            command::UNBIND => {
                wire::put_header(&mut self.out, command::UNBIND_RESP, 0, frame.sequence());
                return true;
            }
            command::UNBIND_RESP if self.closing.is_some() => return true,
            command::GENERIC_NACK => {
                // It names the PDU that the gateway could not read: that one was not taken.
                let code = status::code(frame.status());
                let answer = self
                    .flight
                    .answered(frame.sequence(), Part::Not(Meaning::Refused, code));
                self.count(answer);
            }
            other if other & command::RESPONSE == 0 => {
                if !command::is_defined(other) {
                    self.astray += 1;
                }
                // A request that we do not know: it is told so (SMPP 3.4, 4.3.1; 0x03 is an invalid command id).
                wire::put_header(&mut self.out, command::GENERIC_NACK, 0x03, frame.sequence());
            }
            other if !command::is_defined(other & !command::RESPONSE) => self.astray += 1,
            _ => {}
        }
        false
    }

    fn submit_answer(&mut self, frame: &Frame) {
        let part = match frame.status() {
            status::OK => {
                let id = frame.body().c_string().unwrap_or_default();
                Part::Accepted(String::from_utf8_lossy(id).into_owned())
            }
            status => {
                let code = status::code(status);
                let meaning = self.rules.catalogue.meaning(status);
                match meaning {
                    Meaning::Throttled => self.pause(THROTTLE_PAUSE),
                    Meaning::Retry => self.pause(RETRY_PAUSE),
                    _ => {}
                }
                match meaning {
                    Meaning::Unknown => Part::Unknown(Some(code)),
                    meaning => Part::Not(meaning, code),
                }
            }
        };
        let answer = self.flight.answered(frame.sequence(), part);
        self.count(answer);
    }

    fn count(&mut self, answer: Answer) {
        match answer {
            Answer::Ours => {
                self.worked = true;
                self.astray = 0;
            }
            Answer::Late => {}
            Answer::Stray => self.astray += 1,
        }
        if answer != Answer::Ours {
            metrics::counter!("tamtam_gateway_stray_answers_total", "gateway" => self.rules.gateway.clone())
                .increment(1);
        }
    }

    fn pause(&mut self, length: Duration) {
        let until = Instant::now() + length;
        let until = self.paused.map_or(until, |paused| paused.max(until));
        self.paused = Some(until);
        // Before anybody hears of the answer that it comes from.
        self.state.pause_until(until);
    }

    fn deliver(&mut self, frame: &Frame) {
        self.worked = true;
        self.astray = 0;
        let sequence = frame.sequence();
        let Some(incoming) = self.rules.incoming.clone() else {
            // Nobody here can keep it: the gateway brings it again, to somebody who can.
            self.deliver_answer(sequence, false);
            return;
        };
        let callback = events::Callback {
            gateway: self.rules.gateway.clone(),
            transport: "smpp".into(),
            received_at: (self.rules.now)(),
            meta: serde_json::Map::new(),
            body: frame.bytes().to_vec(),
        };
        self.deliveries
            .push(async move { (sequence, incoming.deliver(callback).await.is_ok()) }.boxed());
    }

    fn deliver_answer(&mut self, sequence: u32, kept: bool) {
        let status = if kept { status::OK } else { status::RECEIVER_TEMPORARY };
        // deliver_sm_resp has a message id that is always empty (SMPP 3.4, 4.6.2).
        wire::put(&mut self.out, command::DELIVER_SM_RESP, status, sequence, &[0]);
    }
}
