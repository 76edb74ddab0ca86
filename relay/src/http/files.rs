//! Inputs and outputs of a job as files (`relay-protocol` 2.9).
//!
//! Names are taken from the path as it came and, when there is no such name, decoded once. Types that a browser
//! would run are never served as such from the relay's own address.

use std::sync::Arc;

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use dockframe_shared::JobId;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use url::Url;

use super::App;
use super::blobs::{SEGMENT, address, origin};
use super::extract::{ByJob, InQueue};
use crate::blobs::BlobKey;
use crate::error::ApiError;
use crate::queue::service::Scope;

type Answer = Result<Response, ApiError>;

/// As browsers read it: with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(crate) async fn missing() -> ApiError {
    ApiError::text(StatusCode::BAD_REQUEST, "Missing filename")
}

pub(crate) async fn input(
    State(app): State<Arc<App>>,
    ByJob(job): ByJob,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Answer {
    input_of(&app, Scope::Anywhere, &job, &uri, &headers).await
}

pub(crate) async fn input_in_queue(
    State(app): State<Arc<App>>,
    InQueue(queue, job): InQueue,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Answer {
    let queue = app.service.open(&queue).await?;
    input_of(&app, Scope::Queue(&queue), &job, &uri, &headers).await
}

pub(crate) async fn output(
    State(app): State<Arc<App>>,
    ByJob(job): ByJob,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Answer {
    output_of(&app, Scope::Anywhere, &job, &uri, &headers).await
}

pub(crate) async fn output_in_queue(
    State(app): State<Arc<App>>,
    InQueue(queue, job): InQueue,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Answer {
    let queue = app.service.open(&queue).await?;
    output_of(&app, Scope::Queue(&queue), &job, &uri, &headers).await
}

async fn input_of(app: &App, scope: Scope<'_>, job: &JobId, uri: &Uri, headers: &HeaderMap) -> Answer {
    let name = name_of(uri, "/inputs/")?;
    let Some(definition) = app.service.definition(scope, job).await? else {
        return Err(ApiError::text(StatusCode::NOT_FOUND, "Job not found"));
    };
    let files = definition.get("inputs").cloned().unwrap_or_default();
    serve(app, &files, name, "Input", headers).await
}

async fn output_of(app: &App, scope: Scope<'_>, job: &JobId, uri: &Uri, headers: &HeaderMap) -> Answer {
    let name = name_of(uri, "/outputs/")?;
    let finished = app.service.result(scope, job).await?.and_then(|job| job.finished);
    let Some(finished) = finished else {
        return Err(ApiError::text(StatusCode::NOT_FOUND, "Finished job not found"));
    };
    let files = finished.result.as_ref().and_then(|result| result.get("outputs")).cloned();
    serve(app, &files.unwrap_or_default(), name, "Output", headers).await
}

/// What the address of a file names, as it came: everything after the first marker behind the names of queue
/// and job, which may hold a marker themselves.
pub(super) fn name_of_file<'p>(path: &'p str, marker: &str) -> Option<(&'p str, &'p str)> {
    // `/q/{queue}/j/{job}`, or `/j/{job}`.
    let slashes = if path.starts_with("/q/") { 4 } else { 2 };
    let (end, _) = path.match_indices('/').nth(slashes)?;
    path[end..].strip_prefix(marker).map(|name| (&path[..end], name))
}

fn name_of<'u>(uri: &'u Uri, marker: &str) -> Result<&'u str, ApiError> {
    let name = name_of_file(uri.path(), marker).map_or("", |(_, name)| name);
    if name.is_empty() {
        return Err(ApiError::text(StatusCode::BAD_REQUEST, "Missing filename"));
    }
    Ok(name)
}

async fn serve(app: &App, files: &Value, name: &str, what: &str, headers: &HeaderMap) -> Answer {
    let not_found = || ApiError::text(StatusCode::NOT_FOUND, format!("{what} file '{name}' not found"));
    let decoded = percent_decode_str(name).decode_utf8_lossy();
    let found = files.get(name).map(|file| (name, file));
    let found = found.or_else(|| files.get(&*decoded).map(|file| (&*decoded, file)));
    let Some((name, file)) = found else { return Err(not_found()) };
    let value = file.get("value").unwrap_or(&Value::Null);
    let text = || value.as_str().ok_or_else(not_found);
    match file.get("type").and_then(Value::as_str).unwrap_or("utf8") {
        "url" => redirect(app, text()?, headers).await?.ok_or_else(not_found),
        "key" => {
            let key = BlobKey::new(text()?).ok_or_else(not_found)?;
            found_at(&address(app, headers, &key))
        }
        "base64" => {
            let text: String = text()?.split_ascii_whitespace().collect();
            let bytes = BASE64.decode(text).map_err(|_| ApiError::bad("Invalid base64 data"))?;
            let kind = mime_guess::from_path(name).first_or_octet_stream();
            let mut response = bytes.into_response();
            let headers = response.headers_mut();
            insert(headers, header::CONTENT_TYPE, kind.as_ref());
            insert(headers, header::CONTENT_DISPOSITION, &disposition(name));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            Ok(response)
        }
        "json" => Ok(Json(value.clone()).into_response()),
        "utf8" => {
            let mut response = text()?.to_owned().into_response();
            let headers = response.headers_mut();
            insert(headers, header::CONTENT_TYPE, &text_type(name));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            Ok(response)
        }
        _ => Err(ApiError::bad("Unknown data type")),
    }
}

/// By the extension where it is known, except what a browser would run.
fn text_type(name: &str) -> String {
    let kind = mime_guess::from_path(name).first();
    let active = ["html", "xhtml", "svg", "javascript", "ecmascript", "xml"];
    match kind {
        Some(kind) if !active.iter().any(|part| kind.essence_str().contains(part)) => {
            match kind.type_().as_str() {
                "text" => format!("{}; charset=UTF-8", kind.essence_str()),
                _ => kind.essence_str().to_owned(),
            }
        }
        _ => "text/plain; charset=UTF-8".to_owned(),
    }
}

/// Where a reference leads: to the relay's own file if it is one of its own, else to the address itself.
async fn redirect(app: &App, target: &str, headers: &HeaderMap) -> Result<Option<Response>, ApiError> {
    let Ok(url) = Url::parse(target) else { return Ok(None) };
    if !matches!(url.scheme(), "http" | "https") {
        return Ok(None);
    }
    let origin = origin(app, headers);
    if let Some(segment_) = url.path().strip_prefix("/f/")
        && let Ok(decoded) = percent_decode_str(segment_).decode_utf8()
        && let Some(key) = BlobKey::new(&decoded)
    {
        let own = url.origin().ascii_serialization() == origin;
        if own || (key.is_digest() && app.service.blobs.exists(&key).await?) {
            return found_at(&address(app, headers, &key)).map(Some);
        }
    }
    found_at(url.as_str()).map(Some)
}

fn found_at(location: &str) -> Answer {
    let mut response = StatusCode::FOUND.into_response();
    insert(response.headers_mut(), header::LOCATION, location);
    insert(response.headers_mut(), header::CONTENT_TYPE, "text/plain;charset=UTF-8");
    Ok(response)
}

/// RFC 6266: a plain form for old readers, an exact one for names that need it.
fn disposition(name: &str) -> String {
    const UNQUOTED: &AsciiSet = &CONTROLS.add(b'"').add(b'\\').add(b'%');
    let last = name.rsplit('/').next().unwrap_or(name);
    let is_plain =
        last.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'%'));
    if is_plain {
        return format!("attachment; filename=\"{last}\"");
    }
    let ascii = utf8_percent_encode(last, UNQUOTED);
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{}", utf8_percent_encode(last, SEGMENT))
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    // What comes here is ASCII by construction; anything else is better left out than half there.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_behind_queue_and_job_whatever_they_are_called() {
        let names = |path| name_of_file(path, "/inputs/");
        assert_eq!(names("/j/id/inputs/a/inputs/b"), Some(("/j/id", "a/inputs/b")));
        assert_eq!(names("/q/inputs/j/id/inputs/a%20b"), Some(("/q/inputs/j/id", "a%20b")));
        assert_eq!(names("/j/inputs/inputs/"), Some(("/j/inputs", "")));
        for other in ["/j/inputs/x", "/q/inputs/x", "/inputs/x", "/j/id/outputs/x", "/j/id", "/"] {
            assert_eq!(names(other), None, "{other}");
        }
    }

    #[test]
    fn names_in_dispositions_are_quoted() {
        assert_eq!(disposition("d/b.png"), "attachment; filename=\"b.png\"");
        let odd = disposition("a\"b\\ü.txt");
        assert!(odd.is_ascii() && odd.contains("filename*=UTF-8''a%22b%5C%C3%BC.txt"), "{odd}");
    }

    #[test]
    fn active_types_are_plain_text() {
        for name in ["a.html", "a.svg", "a.js", "a", "a.unknown"] {
            assert_eq!(text_type(name), "text/plain; charset=UTF-8", "{name}");
        }
        assert_eq!(text_type("a.csv"), "text/csv; charset=UTF-8");
    }
}
