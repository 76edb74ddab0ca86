//! `/f/{key}`: files in and out (`relay-protocol` 2.13). The relay stores them itself: 200, no redirect.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tower::ServiceExt as _;
use tower_http::services::ServeFile;

use super::{App, pace};
use crate::blobs::{BlobKey, PutError};
use crate::error::ApiError;
use crate::limits::SOON_S;
use crate::metrics::Refused;

fn key(text: &str) -> Result<BlobKey, ApiError> {
    BlobKey::new(text).ok_or_else(|| {
        ApiError::text(
            StatusCode::BAD_REQUEST,
            "a file's key is one segment of at most 255 bytes, without slashes and control characters",
        )
    })
}

pub(crate) async fn upload(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let key = key(&name)?;
    let (parts, body) = request.into_parts();
    let mut pieces = pace::pieces(body);
    let Ok(_place) = app.uploads.try_acquire() else {
        app.service.metrics.refused(Refused::Uploads);
        pace::discard(&parts.headers, pieces).await;
        return Err(ApiError::Busy("too many uploads at the same time: send it again".to_owned(), SOON_S));
    };
    let declared = parts.headers.get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let put = app.service.blobs.put(&key, declared, &mut pieces).await;
    if matches!(put, Err(PutError::TooLarge { .. })) {
        pace::discard(&parts.headers, pieces).await;
    }
    app.service.metrics.uploaded_bytes.inc_by(put?);
    Ok(Json(json!({ "success": true })).into_response())
}

pub(crate) async fn exists(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let exists = app.service.blobs.exists(&key(&name)?).await?;
    let status = if exists { StatusCode::OK } else { StatusCode::NOT_FOUND };
    Ok((status, Json(json!({ "exists": exists }))).into_response())
}

/// Read from a file at once: each reading goes to another thread and back.
const DOWNLOAD_BYTES: usize = 256 << 10;

/// Ranges and conditions are the file service's.
pub(crate) async fn download(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let key = key(&name)?;
    let tag = format!("\"{}\"", key.as_str());
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let Some(file) = app.service.blobs.get(&key).await? else {
        return Err(ApiError::text(StatusCode::NOT_FOUND, "no such file"));
    };
    // What a digest names never changes.
    if key.is_digest() && known.is_some_and(|known| known.contains(&tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    // Whatever was uploaded, no browser is to run it as a page of this relay.
    let served = ServeFile::new_with_mime(&file.path, &mime_guess::mime::APPLICATION_OCTET_STREAM)
        .with_buf_chunk_size(DOWNLOAD_BYTES);
    let mut wanted = head_of(&request);
    if wanted.headers().get(header::RANGE).is_some_and(|range| !is_one_range(range)) {
        wanted.headers_mut().remove(header::RANGE);
    }
    let mut whole = head_of(&wanted);
    whole.headers_mut().remove(header::RANGE);
    let part_of = wanted.headers_mut().remove(header::IF_RANGE);
    let mut response = serve(&served, wanted).await;
    // A part of another version would not fit to what the reader has, and of nothing there is no part.
    if is_misfit(&response, part_of.as_ref(), key.is_digest().then_some(&*tag)) {
        response = serve(&served, whole).await;
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if key.is_digest()
        && let Ok(tag) = HeaderValue::from_str(&tag)
    {
        headers.insert(header::ETAG, tag);
        headers
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    }
    Ok(response)
}

/// The request without its body, which is none.
fn head_of(request: &http::Request<impl Sized>) -> http::Request<Body> {
    let mut head = http::Request::new(Body::empty());
    head.method_mut().clone_from(request.method());
    head.headers_mut().clone_from(request.headers());
    head
}

async fn serve(file: &ServeFile, request: http::Request<Body>) -> Response {
    match file.clone().oneshot(request).await {
        Ok(response) => response.map(Body::new).into_response(),
        Err(never) => match never {},
    }
}

/// Whether this part is not what was asked for: of a version that is not the wanted one, or of an empty file.
fn is_misfit(part: &Response, wanted: Option<&HeaderValue>, tag: Option<&str>) -> bool {
    if !matches!(part.status(), StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE) {
        return false;
    }
    let named = |name: header::HeaderName| part.headers().get(name);
    let is_other = wanted.is_some_and(|wanted| match tag {
        Some(tag) => wanted != tag,
        None => named(header::ETAG) != Some(wanted) && named(header::LAST_MODIFIED) != Some(wanted),
    });
    is_other || named(header::CONTENT_RANGE).is_some_and(|range| range == "bytes 0-0/0")
}

/// One range of bytes that can be read; every other is ignored (RFC 9110, 14.2), and the answer is the whole file.
fn is_one_range(range: &HeaderValue) -> bool {
    let Some(range) = range.to_str().ok().and_then(|text| text.strip_prefix("bytes=")) else { return false };
    let number = |text: &str| text.parse::<u64>().ok();
    match range.split_once('-') {
        Some(("", last)) => number(last).is_some(),
        Some((first, "")) => number(first).is_some(),
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
        None => false,
    }
}

/// Where to send a file, and how to refer to it: for workers and browsers of before `/f/` (2.14).
pub(crate) async fn old_upload(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let key = key(&name)?;
    let url = address(&app, &headers, &key);
    let reference = json!({ "value": key.as_str(), "type": "key" });
    Ok(Json(json!({ "url": url, "ref": reference })).into_response())
}

pub(crate) async fn old_download(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let url = address(&app, &headers, &key(&name)?);
    let reference = json!({ "value": url, "type": "url" });
    Ok(Json(json!({ "url": url, "ref": reference })).into_response())
}

/// The address of a file, in the scheme by which the relay is reached.
pub(super) fn address(app: &App, headers: &HeaderMap, key: &BlobKey) -> String {
    format!("{}/f/{}", origin(app, headers), utf8_percent_encode(key.as_str(), SEGMENT))
}

/// A name as one segment of a path.
pub(super) const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Scheme, host and port under which the reader reaches this relay: as configured, else as it asked.
pub(crate) fn origin(app: &App, headers: &HeaderMap) -> String {
    if let Some(url) = &app.public_url {
        return url.as_str().trim_end_matches('/').to_owned();
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let first = |name: &str| text(name).and_then(|value| value.split(',').next()).map(str::trim);
    let scheme = first("x-forwarded-proto").filter(|scheme| matches!(*scheme, "http" | "https"));
    let host = first("x-forwarded-host").or_else(|| text("host")).unwrap_or("localhost");
    format!("{}://{host}", scheme.unwrap_or("http"))
}
