//! Path parameters as the types they name, and JSON bodies whatever their content type says (`relay-protocol` 1.5).

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use bytes::Bytes;
use dockframe_shared::{JobId, QueueKey};
use http::request::Parts;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

use super::App;
use crate::error::ApiError;
use crate::limits::{LONG_BODY_BYTES, MAX_BODY_BYTES, SOON_S};
use crate::metrics::Refused;

fn bad_path(what: impl std::fmt::Display) -> ApiError {
    ApiError::bad(format!("the address cannot be read: {what}"))
}

/// The job of `/j/{job}/…`.
pub(crate) struct ByJob(pub(crate) JobId);

/// The queue of `/q/{queue}/…`.
pub(crate) struct ByQueue(pub(crate) QueueKey);

/// Both of `/q/{queue}/j/{job}/…`.
pub(crate) struct InQueue(pub(crate) QueueKey, pub(crate) JobId);

#[derive(Deserialize)]
struct Names {
    queue: Option<String>,
    job: Option<String>,
}

impl Names {
    async fn of<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<Self>::from_request_parts(parts, state).await.map_err(bad_path)?;
        Ok(path.0)
    }

    fn queue(&self) -> Result<QueueKey, ApiError> {
        QueueKey::new(self.queue.as_deref().unwrap_or_default()).map_err(bad_path)
    }

    fn job(&self) -> Result<JobId, ApiError> {
        JobId::new(self.job.as_deref().unwrap_or_default()).map_err(bad_path)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ByJob {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self(Names::of(parts, state).await?.job()?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ByQueue {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self(Names::of(parts, state).await?.queue()?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InQueue {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let names = Names::of(parts, state).await?;
        Ok(Self(names.queue()?, names.job()?))
    }
}

/// A JSON body.
pub(crate) struct JsonBody(pub(crate) Value);

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
            let text =
                format!("the body is longer than {MAX_BODY_BYTES} bytes: upload its files and refer to them");
            return Err(ApiError::Json(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        // Long ones take memory until they are dealt with: so many at a time, the others come again.
        let _place = if length.is_none_or(|length| length > LONG_BODY_BYTES) {
            let place = app.long_bodies.try_acquire().map_err(|_| {
                app.service.metrics.refused(Refused::Bodies);
                ApiError::Busy("too many long requests at the same time: send it again".to_owned(), SOON_S)
            })?;
            Some(place)
        } else {
            None
        };
        let body = Bytes::from_request(request, app)
            .await
            .map_err(|rejection| ApiError::Json(rejection.status(), rejection.body_text()))?;
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| ApiError::bad(format!("the body is not JSON: {error}")))
    }
}
