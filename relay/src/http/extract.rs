//! Parameters of paths and queries, and JSON bodies whatever their content type says (`relay-protocol` 1.5).

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use dockframe_shared::{JobId, QueueKey};
use http::header;
use http::request::Parts;
use serde::Deserialize;
use serde_json::Value;

use super::{App, pace};
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

/// The parameters of a query. Of a name that comes twice the first counts, and no query is refused as such.
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

/// A JSON body.
pub(crate) struct JsonBody(pub(crate) Value);

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let length = parts.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
            pace::discard(&parts.headers, pace::pieces(body)).await;
            return Err(pace::too_long(MAX_BODY_BYTES));
        }
        // Long ones take memory until they are dealt with: so many at a time, the others come again.
        let is_long = length.is_none_or(|length| length > LONG_BODY_BYTES);
        let place = is_long.then(|| app.long_bodies.try_acquire());
        if matches!(place, Some(Err(_))) {
            app.service.metrics.refused(Refused::Bodies);
            pace::discard(&parts.headers, pace::pieces(body)).await;
            let why = "too many long requests at the same time: send it again";
            return Err(ApiError::Busy(why.to_owned(), SOON_S));
        }
        let body = pace::whole(body, MAX_BODY_BYTES).await?;
        // Some editors and shells begin a text with a byte order mark.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body);
        serde_json::from_slice(body)
            .map(Self)
            .map_err(|error| ApiError::bad(format!("the body is not JSON: {error}")))
    }
}
