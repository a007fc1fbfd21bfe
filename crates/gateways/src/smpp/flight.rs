//! What is under way on one bind: which sequence number is which part of which message, when it is overdue, and where in
//! the outgoing stream it begins, so that a cut connection tells what was handed over and what was not.
//!
//! Bounded: at most the window is in flight, and a message keeps its PDUs only until it is decided.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::{Bytes, BytesMut};
use tokio::{sync::oneshot, time::Instant};

use super::judge::{Judgement, Part, judge};
use crate::Outcome;

/// A message on its way to a bind.
#[derive(Debug)]
pub(crate) struct Request {
    /// Its PDUs, in the order of the parts, without sequence numbers.
    pub(crate) pdus: Vec<Bytes>,
    pub(crate) reply: oneshot::Sender<Outcome>,
}

/// What an answer's sequence number belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A submission that waited for it.
    Ours,
    /// One that was given up before.
    Late,
    /// Nothing that was ever under way, or that was answered before.
    Stray,
}

/// Overdue numbers that are remembered: as many as the largest window.
const REMEMBERED: usize = 10_000;

/// How often parts are tried again when the rest of their message was taken.
const TRIES: u32 = 10;

#[derive(Debug)]
struct Message {
    pdus: Vec<Bytes>,
    parts: Vec<Part>,
    reply: oneshot::Sender<Outcome>,
    tries: u32,
}

#[derive(Debug)]
struct Sent {
    message: u64,
    part: usize,
    /// Where it begins in the outgoing stream.
    begins: u64,
}

#[derive(Debug)]
pub(crate) struct Flight {
    next_sequence: u32,
    next_message: u64,
    sent: HashMap<u32, Sent>,
    overdue: VecDeque<(Instant, u32)>,
    messages: HashMap<u64, Message>,
    /// Numbers that were given up, the oldest first.
    late: (VecDeque<u32>, HashSet<u32>),
    /// Parts that wait for a place in the window or for the end of a pause.
    waiting: VecDeque<(u64, usize)>,
}

impl Flight {
    pub(crate) fn new() -> Flight {
        Flight {
            next_sequence: 1,
            next_message: 0,
            sent: HashMap::new(),
            overdue: VecDeque::new(),
            messages: HashMap::new(),
            late: Default::default(),
            waiting: VecDeque::new(),
        }
    }

    /// For a PDU that is not a submission.
    pub(crate) fn sequence(&mut self) -> u32 {
        let sequence = self.next_sequence;
        // 1 to 0x7FFFFFFF (SMPP 3.4, 3.2).
        self.next_sequence = if sequence == 0x7FFF_FFFF { 1 } else { sequence + 1 };
        sequence
    }

    /// How many submissions are not answered yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.sent.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) fn next_overdue(&self) -> Option<Instant> {
        self.overdue.front().map(|(at, _)| *at)
    }

    pub(crate) fn add(&mut self, request: Request) {
        let id = self.next_message;
        self.next_message += 1;
        self.waiting.extend((0..request.pdus.len()).map(|part| (id, part)));
        let message = Message {
            parts: vec![Part::Open; request.pdus.len()],
            pdus: request.pdus,
            reply: request.reply,
            tries: 0,
        };
        self.messages.insert(id, message);
    }

    /// Writes waiting parts to `out` up to `window`; `begins` is how many bytes went into the stream before `out`.
    pub(crate) fn write(&mut self, out: &mut BytesMut, begins: u64, window: usize, overdue: Instant) {
        while self.sent.len() < window {
            let Some((id, part)) = self.waiting.pop_front() else {
                return;
            };
            let Some(pdu) = self
                .messages
                .get(&id)
                .and_then(|message| message.pdus.get(part))
                .cloned()
            else {
                continue;
            };
            let mut sequence = self.sequence();
            while self.sent.contains_key(&sequence) {
                sequence = self.sequence();
            }
            let at = out.len();
            out.extend_from_slice(&pdu);
            out[at + 12..at + 16].copy_from_slice(&sequence.to_be_bytes());
            self.sent.insert(
                sequence,
                Sent {
                    message: id,
                    part,
                    begins: begins + at as u64,
                },
            );
            self.overdue.push_back((overdue, sequence));
        }
    }

    /// An answer, and what its number belongs to.
    pub(crate) fn answered(&mut self, sequence: u32, part: Part) -> Answer {
        let Some(sent) = self.sent.remove(&sequence) else {
            return match self.late.1.remove(&sequence) {
                true => Answer::Late,
                false => Answer::Stray,
            };
        };
        while let Some((_, front)) = self.overdue.front() {
            if self.sent.contains_key(front) {
                break;
            }
            self.overdue.pop_front();
        }
        self.settle(sent.message, sent.part, part, true);
        Answer::Ours
    }

    /// Gives up what is overdue at `now`: these outcomes are unknown. Says how many.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        let mut expired = 0;
        while let Some((at, sequence)) = self.overdue.front().copied() {
            if at > now {
                break;
            }
            self.overdue.pop_front();
            if let Some(sent) = self.sent.remove(&sequence) {
                expired += 1;
                self.remember(sequence);
                self.settle(sent.message, sent.part, Part::Unknown(None), true);
            }
        }
        expired
    }

    fn remember(&mut self, sequence: u32) {
        let (order, numbers) = &mut self.late;
        if order.len() >= REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            numbers.remove(&oldest);
        }
        order.push_back(sequence);
        numbers.insert(sequence);
    }

    /// The connection is gone after `written` bytes of the stream: what begins beyond was not handed over, anything else
    /// may have arrived.
    pub(crate) fn cut(mut self, written: u64) {
        let mut sent: Vec<Sent> = self.sent.drain().map(|(_, sent)| sent).collect();
        sent.sort_by_key(|sent| (sent.message, sent.part));
        for Sent { message, part, begins } in sent {
            let became = if begins < written {
                Part::Unknown(None)
            } else {
                Part::NotSent
            };
            self.settle(message, part, became, false);
        }
        while let Some((message, part)) = self.waiting.pop_front() {
            self.settle(message, part, Part::NotSent, false);
        }
    }

    fn settle(&mut self, id: u64, part: usize, became: Part, connected: bool) {
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        message.parts[part] = became;
        match judge(&message.parts, connected && message.tries < TRIES) {
            Judgement::Wait => {}
            Judgement::Resubmit(parts) => {
                message.tries += 1;
                for part in parts {
                    message.parts[part] = Part::Open;
                    self.waiting.push_back((id, part));
                }
            }
            Judgement::Done(outcome) => {
                if let Some(message) = self.messages.remove(&id) {
                    // Nobody waits any more where the caller was dropped.
                    let _ = message.reply.send(outcome);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resources::gateway::Meaning;
    use std::time::Duration;

    fn request(parts: usize) -> (Request, oneshot::Receiver<Outcome>) {
        let (reply, outcome) = oneshot::channel();
        let pdus = vec![Bytes::from_static(&[0; 20]); parts];
        (Request { pdus, reply }, outcome)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn the_window_is_kept_and_answers_find_their_part() {
        let mut flight = Flight::new();
        let (first, mut outcome) = request(3);
        flight.add(first);
        let mut out = BytesMut::new();
        flight.write(&mut out, 0, 2, later());
        assert_eq!((out.len(), flight.outstanding(), flight.waiting()), (40, 2, 1));
        assert_eq!(out[12..16], [0, 0, 0, 1]);
        assert_eq!(flight.answered(2, Part::Accepted("b".into())), Answer::Ours);
        let again = flight.answered(2, Part::Accepted("b".into()));
        assert_eq!(again, Answer::Stray, "twice is ignored");
        flight.write(&mut out, 0, 2, later());
        flight.answered(3, Part::Accepted("c".into()));
        assert!(outcome.try_recv().is_err());
        flight.answered(1, Part::Accepted("a".into()));
        let parts = ["a", "b", "c"].map(String::from).to_vec();
        assert_eq!(outcome.try_recv(), Ok(Outcome::Accepted { parts }));
        assert!(flight.is_empty());
    }

    #[test]
    fn a_cut_tells_what_was_handed_over_from_what_was_not() {
        let mut flight = Flight::new();
        let outcomes: Vec<_> = (0..4)
            .map(|_| {
                let (request, outcome) = request(1);
                flight.add(request);
                outcome
            })
            .collect();
        let mut out = BytesMut::new();
        flight.write(&mut out, 100, 3, later());
        // The first PDU and a byte of the second went out.
        flight.cut(121);
        let unknown = Outcome::Unknown {
            code: None,
            parts: vec![],
        };
        let expected = [unknown.clone(), unknown, Outcome::Unreachable, Outcome::Unreachable];
        for (mut outcome, expected) in outcomes.into_iter().zip(expected) {
            assert_eq!(outcome.try_recv(), Ok(expected));
        }
    }

    #[test]
    fn a_throttled_part_is_tried_again_while_the_others_were_taken() {
        let mut flight = Flight::new();
        let (one, mut outcome) = request(2);
        flight.add(one);
        let mut out = BytesMut::new();
        flight.write(&mut out, 0, 10, later());
        flight.answered(1, Part::Accepted("a".into()));
        flight.answered(2, Part::Not(Meaning::Throttled, "0x58".into()));
        assert_eq!(flight.waiting(), 1);
        flight.write(&mut out, 0, 10, later());
        flight.answered(3, Part::Accepted("b".into()));
        assert!(matches!(outcome.try_recv(), Ok(Outcome::Accepted { .. })));
    }

    #[test]
    fn what_is_overdue_is_unknown() {
        let mut flight = Flight::new();
        let (one, mut outcome) = request(1);
        flight.add(one);
        let now = Instant::now();
        flight.write(&mut BytesMut::new(), 0, 10, now);
        assert_eq!(flight.expire(now), 1);
        assert!(matches!(outcome.try_recv(), Ok(Outcome::Unknown { .. })));
        assert_eq!(flight.outstanding(), 0);
        assert_eq!(flight.answered(1, Part::Accepted("a".into())), Answer::Late);
        assert_eq!(flight.answered(1, Part::Accepted("a".into())), Answer::Stray);
    }
}
