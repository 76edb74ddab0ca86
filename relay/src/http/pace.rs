//! Bodies as they come. There is room for so many long ones at a time, and whoever sends next to nothing must not keep
//! the others out. Of a body that is refused the rest is taken in for a moment: a sender that finds the connection
//! closed while it still writes does not read why.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, StatusCode, header};
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::ApiError;
use crate::limits::{DISCARDED_BYTES, LINGER_S, SLOW_START_S, SLOWEST_BYTES_PER_SECOND};

const GRACE: Duration = Duration::from_secs(SLOW_START_S);
const LINGER: Duration = Duration::from_secs(LINGER_S);

/// Why no more comes.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the body comes too slowly")]
    TooSlow,
    #[error(transparent)]
    Connection(#[from] axum::Error),
}

/// How long so many bytes may take.
fn allowed(grace: Duration, came: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "a time limit need not be exact")]
    let earned = came as f64 / SLOWEST_BYTES_PER_SECOND;
    grace + Duration::from_secs_f64(earned)
}

/// A body at its pace.
struct Paced {
    body: BodyDataStream,
    grace: Duration,
    started: Instant,
    came: u64,
}

impl Paced {
    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        match timeout_at(self.started + allowed(self.grace, self.came), self.body.next()).await {
            Err(_) => Some(Err(Broken::TooSlow)),
            Ok(None) => None,
            Ok(Some(Err(error))) => Some(Err(error.into())),
            Ok(Some(Ok(chunk))) => {
                self.came += chunk.len() as u64;
                Some(Ok(chunk))
            }
        }
    }
}

/// The pieces of a body.
pub(super) fn pieces(body: Body) -> impl Stream<Item = Result<Bytes, Broken>> + Unpin {
    pieces_within(body, GRACE)
}

fn pieces_within(body: Body, grace: Duration) -> impl Stream<Item = Result<Bytes, Broken>> + Unpin {
    let paced = Paced { body: body.into_data_stream(), grace, started: Instant::now(), came: 0 };
    Box::pin(stream::unfold(paced, |mut paced| async move { Some((paced.next().await?, paced)) }))
}

/// Takes in what is still on its way, so that the refusal is read. A sender that asks first sends nothing.
pub(super) async fn discard(headers: &HeaderMap, pieces: impl Stream<Item = Result<Bytes, Broken>> + Unpin) {
    if !headers.contains_key(header::EXPECT) {
        drain(pieces).await;
    }
}

async fn drain(mut pieces: impl Stream<Item = Result<Bytes, Broken>> + Unpin) {
    let mut left = DISCARDED_BYTES;
    let all = async {
        while let Some(Ok(piece)) = pieces.next().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return;
            }
        }
    };
    // Whoever sends more than that may miss the reason.
    let _ = timeout(LINGER, all).await;
}

/// A whole body of at most so many bytes.
pub(super) async fn whole(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    put_together(pieces(body), limit).await
}

pub(super) fn too_long(limit: usize) -> ApiError {
    let text = format!("the body is longer than {limit} bytes: upload its files and refer to them");
    ApiError::Json(StatusCode::PAYLOAD_TOO_LARGE, text)
}

async fn put_together(
    mut pieces: impl Stream<Item = Result<Bytes, Broken>> + Unpin,
    limit: usize,
) -> Result<Bytes, ApiError> {
    let mut rest = BytesMut::new();
    let mut first = Bytes::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| match error {
            Broken::TooSlow => ApiError::Json(StatusCode::REQUEST_TIMEOUT, error.to_string()),
            Broken::Connection(_) => ApiError::bad("the body broke off"),
        })?;
        if first.len() + rest.len() + piece.len() > limit {
            drain(pieces).await;
            return Err(too_long(limit));
        }
        // Most come in one piece.
        match (first.is_empty(), rest.is_empty()) {
            (true, true) => first = piece,
            (false, _) => {
                rest.extend_from_slice(&std::mem::take(&mut first));
                rest.extend_from_slice(&piece);
            }
            (true, false) => rest.extend_from_slice(&piece),
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn body(pieces: &[&'static str]) -> Body {
        Body::from_stream(stream::iter(pieces.to_vec()).map(Ok::<_, Infallible>))
    }

    fn status(refused: ApiError) -> StatusCode {
        axum::response::IntoResponse::into_response(refused).status()
    }

    #[tokio::test]
    async fn pieces_are_put_together_up_to_the_limit() {
        let three = || body(&["a", "bc", "d"]);
        assert_eq!(whole(three(), 4).await.unwrap(), "abcd");
        assert_eq!(whole(body(&["abcd"]), 4).await.unwrap(), "abcd");
        assert_eq!(whole(Body::empty(), 4).await.unwrap(), "");
        assert_eq!(status(whole(three(), 3).await.unwrap_err()), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let begun = stream::iter([Ok::<_, Infallible>("begun")]).chain(stream::pending());
        let pieces = pieces_within(Body::from_stream(begun), Duration::from_millis(10));
        assert_eq!(status(put_together(pieces, 1000).await.unwrap_err()), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn the_rest_of_a_refused_body_is_taken_in_but_not_without_end() {
        let taken = std::sync::atomic::AtomicUsize::new(0);
        let endless = || {
            stream::repeat_with(|| {
                taken.fetch_add(1 << 20, std::sync::atomic::Ordering::Relaxed);
                Ok(Bytes::from_static(&[0; 1 << 20]))
            })
        };
        assert_eq!(status(put_together(endless(), 10).await.unwrap_err()), StatusCode::PAYLOAD_TOO_LARGE);
        let most = DISCARDED_BYTES + (1 << 20);
        assert!((DISCARDED_BYTES..=most).contains(&taken.load(std::sync::atomic::Ordering::Relaxed)));
        let asks = HeaderMap::from_iter([(header::EXPECT, http::HeaderValue::from_static("100-continue"))]);
        discard(&asks, endless()).await;
        assert!(
            taken.load(std::sync::atomic::Ordering::Relaxed) <= most,
            "nobody is asked to send what is refused"
        );
    }

    #[test]
    fn who_sends_much_may_take_long() {
        assert_eq!(allowed(GRACE, 0), GRACE);
        assert_eq!(allowed(GRACE, 64 << 20), GRACE + Duration::from_secs(16_384));
    }
}
