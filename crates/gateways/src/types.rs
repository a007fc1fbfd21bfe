//! What every gateway takes and gives back.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use domain::{Phone, Reason, State, sms::Encoding};
use jiff::Timestamp;
use uuid::Uuid;

/// One message to one phone.
#[derive(Clone, PartialEq)]
pub struct Submission {
    /// The message's id, the same at every attempt: the client reference.
    pub reference: Uuid,
    pub phone: Phone,
    pub sender: String,
    pub text: String,
    pub encoding: Encoding,
    pub parts: u16,
    /// After this the gateway need not deliver it any more.
    pub expires_at: Option<Timestamp>,
}

/// Without the phone and the text.
impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("reference", &self.reference)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

/// What became of an attempt. Codes are the gateway's own, as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken; the gateway's ids in the order of the parts (one where the gateway splits the text itself).
    Accepted { parts: Vec<String> },
    /// It was not taken and never will be.
    Refused { code: String, reason: Reason },
    /// It was not taken; another attempt may succeed.
    Retry { code: String, throttled: bool },
    /// There is no connection: nothing was handed over.
    Unreachable,
    /// It may have been taken; `parts` are the ids of those that certainly were.
    Unknown { code: Option<String>, parts: Vec<String> },
}

/// A way to send. Shared by all tasks of a dispatcher.
#[async_trait]
pub trait Gateway: Send + Sync + fmt::Debug {
    /// Hands a message over and waits for the answer. It ends within the response time-out and the time that the window
    /// and a throttled gateway keep it waiting. Dropping it does not take the message back.
    async fn submit(&self, message: Submission) -> Outcome;
    /// Whether a submission now has a chance.
    fn is_up(&self) -> bool;
    /// How long it still keeps to itself what is handed over, because the gateway asked for patience; `None`: what is
    /// handed over goes out.
    fn pause(&self) -> Option<Duration> {
        None
    }
    /// Lets what is under way end, then closes the connections. Later submissions are [`Outcome::Unreachable`].
    async fn close(&self);
}

/// Where receipts and replies go. What the gateway sent is acknowledged to it only after `Ok`.
#[async_trait]
pub trait Incoming: Send + Sync {
    async fn deliver(&self, callback: events::Callback) -> Result<(), Undelivered>;
}

/// It could not be kept: the gateway is told to bring it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not kept: {0}")]
pub struct Undelivered(pub String);

/// What a gateway told us, understood.
#[derive(Clone, PartialEq, Eq)]
pub enum Heard {
    Receipt {
        /// The gateway's id, as it came.
        remote_id: String,
        /// `None`: a code that we do not know. It is kept and nothing is concluded from it.
        state: Option<State>,
        /// As it came.
        code: Option<String>,
        /// When it happened, by the gateway's clock where it says so with a zone; else when it arrived.
        at: Timestamp,
        /// Our own id, where the gateway repeats it.
        reference: Option<Uuid>,
    },
    Inbound {
        /// The gateway's own id of it, as it came: the same where it is brought again.
        id: Option<String>,
        from: String,
        to: String,
        text: String,
        /// A reply in several texts: this one as it came, to be joined with the others ([`domain::sms::join`]).
        part: Option<domain::sms::Fragment>,
    },
}

/// Without phones and text.
impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Heard::Receipt {
                remote_id, state, code, ..
            } => f
                .debug_struct("Receipt")
                .field("remote_id", remote_id)
                .field("state", state)
                .field("code", code)
                .finish_non_exhaustive(),
            Heard::Inbound { part, .. } => f.debug_struct("Inbound").field("part", part).finish_non_exhaustive(),
        }
    }
}

/// Why a callback means nothing to us. It never repeats what came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUnderstood {
    #[error("a PDU that cannot be read: {0}")]
    Pdu(&'static str),
    #[error("a callback that cannot be read as {0}")]
    Body(&'static str),
    #[error("a callback without `{0}`")]
    Missing(&'static str),
    #[error("the gateway's description has no `callback.fields`")]
    NotDescribed,
    #[error("unknown transport")]
    Transport,
}

/// Why a gateway cannot be opened as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("gateway `{gateway}`: {key}: {message}")]
    Setting {
        gateway: String,
        key: &'static str,
        message: String,
    },
}

/// Where the time is read.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;
