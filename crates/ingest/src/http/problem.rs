//! Errors as RFC 9457 problem details, `application/problem+json`.

use api::{ApiError, ErrorKind};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// An error on its way out.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    error: ApiError,
}

/// What stands in the body.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemJson {
    /// `urn:tamtam:error:KIND`, stable, for programs.
    r#type: &'static str,
    title: &'static str,
    status: u16,
    /// What was wrong and what was expected. It never repeats a phone number or a text.
    detail: String,
    /// The field it is about, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Each mistake, where a file has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<MistakeJson>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MistakeJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "String::is_empty")]
    about: String,
    message: String,
}

impl Problem {
    /// An error of the request that no operation saw.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem {
            status,
            error: ApiError::new(ErrorKind::Invalid, detail),
        }
    }

    pub(crate) fn body(&self) -> ProblemJson {
        let (r#type, title) = match (self.status, self.error.kind) {
            (StatusCode::PAYLOAD_TOO_LARGE, _) => ("urn:tamtam:error:too-large", "The request is too large"),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, _) => ("urn:tamtam:error:media-type", "The content type is not read"),
            (StatusCode::REQUEST_TIMEOUT, _) => ("urn:tamtam:error:timeout", "The request did not come in time"),
            (_, ErrorKind::NotFound) => ("urn:tamtam:error:not-found", "Not found"),
            (_, ErrorKind::Invalid) => ("urn:tamtam:error:invalid", "The request is wrong as it stands"),
            (_, ErrorKind::Conflict) => ("urn:tamtam:error:conflict", "Not in its present state"),
            (_, ErrorKind::Forbidden) => ("urn:tamtam:error:forbidden", "The key's role does not allow it"),
            (_, ErrorKind::Unauthenticated) => ("urn:tamtam:error:unauthenticated", "No valid API key"),
            (_, ErrorKind::Unavailable) => ("urn:tamtam:error:unavailable", "Not available at the moment"),
            (_, ErrorKind::Internal) => ("urn:tamtam:error:internal", "A fault of ours"),
        };
        ProblemJson {
            r#type,
            title,
            status: self.status.as_u16(),
            detail: self.error.message.clone(),
            field: self.error.field.clone(),
            errors: self
                .error
                .errors
                .iter()
                .map(|mistake| MistakeJson {
                    line: mistake.line,
                    about: mistake.about.clone(),
                    message: mistake.message.clone(),
                })
                .collect(),
        }
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let status = match error.kind {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem { status, error }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
