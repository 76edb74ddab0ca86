//! The page, and what stands beside it (`relay-protocol` 2.17, 2.18).

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Method, StatusCode, Uri, header};

use super::App;
use super::jobs::wants_html;
use crate::error::ApiError;

const LLMS: &str = include_str!("llms.txt");

pub(crate) async fn health() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=UTF-8")], "OK").into_response()
}

pub(crate) async fn llms() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], LLMS).into_response()
}

/// Where the documentation is (`relay-protocol` 2.18).
pub(crate) async fn docs() -> Response {
    let headers = [(header::LOCATION, "/docs/"), (header::CONTENT_TYPE, "text/plain;charset=UTF-8")];
    (StatusCode::MOVED_PERMANENTLY, headers).into_response()
}

/// A file of the page; the start page for people who look at an address of its own; else nothing.
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if !matches!(method, Method::GET | Method::HEAD) {
        return Err(ApiError::no_route());
    }
    let path = uri.path().trim_start_matches('/');
    if let Some(response) = app.page.file(path, &headers) {
        return Ok(response);
    }
    let first = path.split('/').next().unwrap_or_default();
    if first == "docs" {
        return Err(ApiError::no_route());
    }
    // Hosts ask for the definition below the address that they embed (`metaframe` 2.1).
    if path.ends_with("/metaframe.json")
        && !matches!(first, "q" | "f" | "mcp" | "api")
        && let Some(response) = app.page.file("metaframe.json", &headers)
    {
        return Ok(response);
    }
    if matches!(first, "q" | "f" | "j" | "mcp" | "api") {
        return Err(ApiError::Json(StatusCode::NOT_FOUND, "Not found".to_owned()));
    }
    let is_file = path.rsplit('/').next().is_some_and(|last| last.contains('.'));
    if wants_html(&headers) && !is_file {
        return app.page.start_page(false).ok_or_else(ApiError::no_route);
    }
    Err(ApiError::no_route())
}
