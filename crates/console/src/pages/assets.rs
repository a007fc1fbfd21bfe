//! The files that pages load, compiled in.

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

pub(crate) async fn asset(Path(name): Path<String>) -> Response {
    let (kind, body): (&str, &[u8]) = match name.as_str() {
        "console.css" => ("text/css; charset=utf-8", include_bytes!("../../assets/console.css")),
        "htmx.min.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("../../assets/htmx.min.js"),
        ),
        "sse.min.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("../../assets/sse.min.js"),
        ),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    // An hour: a new version's files are there within it, and pages load without asking for them.
    (
        [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "public, max-age=3600"),
        ],
        body,
    )
        .into_response()
}
