//! The relay's refusals and failures as HTTP answers: the only place where an error becomes a response.
//!
//! Explicit refusals of the job API are `{"error": text}`, those of files and blobs plain texts, as clients know
//! them (`relay-protocol` 1.6). Failures of ours are logged here, once, with their causes, and shown to nobody.

use axum::Json;
use axum::response::{IntoResponse, Response};
use dockframe_shared::Problem;
use http::{StatusCode, header};
use serde_json::json;

use crate::blobs::PutError;
use crate::limits::LATER_S;
use crate::queue::service;

#[derive(Debug)]
pub(crate) enum ApiError {
    /// `{"error": …}`.
    Json(StatusCode, String),
    /// A plain text.
    Text(StatusCode, String),
    /// There is no room for it now; as `{"error": …}`, with the time after which it may be tried again.
    Busy(String, u64),
    /// Something of ours failed.
    Internal(Box<dyn std::error::Error + Send + Sync>),
    /// What we depend on is away.
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
}

impl ApiError {
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::Json(StatusCode::BAD_REQUEST, text.into())
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::Json(StatusCode::NOT_FOUND, text.into())
    }

    pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self::Text(status, text.into())
    }

    /// What the sender did wrong, by the kind of its problem.
    fn refused(problem: &Problem) -> Self {
        let text = problem.to_string();
        if problem.code.ends_with("-too-large") {
            return Self::Json(StatusCode::PAYLOAD_TOO_LARGE, text);
        }
        if problem.code.starts_with("too-many-") {
            return Self::Busy(text, LATER_S);
        }
        Self::bad(text)
    }

    /// No route for this method and path.
    pub(crate) fn no_route() -> Self {
        Self::Text(StatusCode::NOT_FOUND, "404 Not Found".to_owned())
    }
}

impl From<service::Error> for ApiError {
    fn from(error: service::Error) -> Self {
        match error {
            service::Error::Refused(problem) => Self::refused(&problem),
            service::Error::Busy { problem, retry_after_s } => Self::Busy(problem.to_string(), retry_after_s),
            service::Error::Store(_) | service::Error::Overtaken => Self::Unavailable(Box::new(error)),
            service::Error::Files(_) => Self::Internal(Box::new(error)),
        }
    }
}

impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> Self {
        Self::Internal(Box::new(error))
    }
}

impl From<PutError> for ApiError {
    fn from(error: PutError) -> Self {
        let status = match error {
            PutError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            PutError::WrongDigest { .. } | PutError::Broken(_) => StatusCode::BAD_REQUEST,
            PutError::Disk(_) => return Self::Internal(Box::new(error)),
        };
        Self::Text(status, error.to_string())
    }
}

/// An error with all its causes, for the log.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::Json(status, error) => (status, Json(json!({ "error": error }))).into_response(),
            Self::Text(status, text) => {
                (status, [(header::CONTENT_TYPE, "text/plain; charset=UTF-8")], text).into_response()
            }
            Self::Busy(error, retry_after_s) => (
                StatusCode::TOO_MANY_REQUESTS,
                [(header::RETRY_AFTER, retry_after_s.to_string())],
                Json(json!({ "error": error })),
            )
                .into_response(),
            Self::Internal(error) => {
                tracing::error!(error = chain(&*error), "a request failed");
                Self::Text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error".to_owned())
                    .into_response()
            }
            Self::Unavailable(error) => {
                tracing::error!(error = chain(&*error), "a request failed for the time being");
                Self::Text(StatusCode::SERVICE_UNAVAILABLE, "try again later".to_owned()).into_response()
            }
        }
    }
}
