//! Errors of operations as gRPC statuses.

use api::{ApiError, ErrorKind};
use tonic::{Code, Status};

/// The status of an error; the field stands before the message.
pub(crate) fn status(error: ApiError) -> Status {
    let code = match error.kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::Conflict => Code::FailedPrecondition,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Internal => Code::Internal,
    };
    match error.field {
        Some(field) => Status::new(code, format!("{field}: {}", error.message)),
        None => Status::new(code, error.message),
    }
}
