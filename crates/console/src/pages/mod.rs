//! One module a page.

pub(crate) mod announce;
pub(crate) mod assets;
pub(crate) mod campaign;
pub(crate) mod home;
pub(crate) mod replies;
pub(crate) mod sign_in;

use axum::{http::StatusCode, response::Response};

use crate::{Visit, layout};

pub(crate) async fn not_found(visit: Visit) -> Response {
    let what = layout::error(visit.language.words().not_found);
    layout::error_page(visit.language, visit.caller.as_ref(), StatusCode::NOT_FOUND, what)
}
