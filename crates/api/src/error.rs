//! What an operation answers when it does not do what it was asked.

use bus::BusError;
use store::StoreError;

/// Whose fault it is and what the caller can do; each transport has its status code for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no such thing.
    NotFound,
    /// The request is wrong as it stands.
    Invalid,
    /// Not in its present state, or somebody else was first.
    Conflict,
    /// The key's role does not allow it.
    Forbidden,
    /// No key, or one that is not (or no longer) known.
    Unauthenticated,
    /// The database or the bus does not answer: try again later.
    Unavailable,
    /// A fault of ours.
    Internal,
}

/// An error of an operation. `Display` is the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub kind: ErrorKind,
    /// What was wrong and what was expected; it never repeats a phone number or a text.
    pub message: String,
    /// Where: a field's path, for example `events[3].time`.
    pub field: Option<String>,
    /// Where one request has several mistakes (a file of resources): each of them.
    pub errors: Vec<ErrorDetail>,
}

/// One of several mistakes in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorDetail {
    /// Counted from 1.
    pub line: Option<usize>,
    /// What it is about, for example `trigger cart-reminder`; may be empty.
    pub about: String,
    pub message: String,
}

impl ApiError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ApiError {
        ApiError {
            kind,
            message: message.into(),
            field: None,
            errors: Vec::new(),
        }
    }

    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError {
            kind: ErrorKind::Invalid,
            message: message.into(),
            field: Some(field.into()),
            errors: Vec::new(),
        }
    }

    /// `what` is for example `campaign`; the id is not repeated where it could be personal.
    pub fn not_found(what: &str) -> ApiError {
        ApiError::new(ErrorKind::NotFound, format!("there is no such {what}"))
    }

    pub fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::Conflict, message)
    }

    /// The same error, said of a field.
    pub fn at(mut self, field: impl Into<String>) -> ApiError {
        self.field = Some(field.into());
        self
    }

    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorKind::Internal, message)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        // What the database said can hold values of the row: it goes to nobody but the log's own field.
        if error.is_transient() {
            ApiError::new(
                ErrorKind::Unavailable,
                "the database does not answer at the moment: try again",
            )
        } else {
            tracing::error!(kind = store_error_kind(&error), "the database refused an operation");
            ApiError::internal("the database refused the operation")
        }
    }
}

fn store_error_kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Refused(_) => "refused",
        StoreError::Migrate(_) => "migrate",
        _ => "corrupt",
    }
}

impl From<BusError> for ApiError {
    fn from(error: BusError) -> Self {
        match error {
            BusError::TooLarge { bytes, limit, .. } => ApiError::new(
                ErrorKind::Invalid,
                format!("a record of {bytes} bytes is over the bus's limit of {limit} bytes"),
            ),
            error if error.is_transient() => ApiError::new(
                ErrorKind::Unavailable,
                "the bus does not answer at the moment: try again",
            ),
            error => {
                tracing::error!(%error, "the bus refused an operation");
                ApiError::internal(error.to_string())
            }
        }
    }
}
