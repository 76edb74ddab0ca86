//! The transport: Streamable HTTP without sessions.
//!
//! A POST is answered as events where the caller takes them, what a running call has to say first and the replies in
//! the order of their requests, else as plain JSON without it. A caller that goes ends its calls.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Caller;
use super::methods;
use super::progress::Notifier;
use super::rpc::{self, Incoming, RpcError, TRANSPORT_ERROR};
use crate::http::App;
use crate::http::blobs::origin;

/// How often a listener without calls is sent a sign of life.
const PING: Duration = Duration::from_secs(30);
/// How often a call that has nothing to say sends a comment, so that no proxy closes it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Messages that wait for a slow caller before its call waits too.
const BACKLOG: usize = 64;
const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";

pub(super) async fn endpoint(
    State(app): State<Arc<App>>,
    method: Method,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    match method {
        Method::POST => match body {
            Ok(body) => post(app, &headers, &body).await.into_response(),
            Err(rejection) => Refusal::new(rejection.status(), rejection.body_text()).into_response(),
        },
        Method::GET => get(&app, &headers).into_response(),
        Method::HEAD => ([(header::CONTENT_TYPE, EVENTS)], ()).into_response(),
        Method::DELETE => StatusCode::OK.into_response(),
        _ => {
            let allow = [(header::ALLOW, "GET, POST, DELETE")];
            (allow, Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed.")).into_response()
        }
    }
}

/// A refusal of the whole request.
struct Refusal(StatusCode, RpcError);

impl Refusal {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self(status, RpcError::new(TRANSPORT_ERROR, why))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(self.1.reply_to(&Value::Null))).into_response()
    }
}

/// Whether the caller takes this type; without the header it takes all.
fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let mut named = headers.get_all(header::ACCEPT).iter().peekable();
    if named.peek().is_none() {
        return true;
    }
    let family = kind.split('/').next().unwrap_or_default();
    named.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|range| {
        let range = range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        range == kind || range == "*/*" || range.strip_suffix("/*") == Some(family)
    })
}

fn check_version(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(version) = headers.get("mcp-protocol-version") else { return Ok(()) };
    if version.to_str().is_ok_and(methods::is_supported) {
        return Ok(());
    }
    // As `relay-protocol` 2.20 has it, where MCP itself would say 400.
    Err(Refusal::new(StatusCode::NOT_FOUND, "Not Found: this protocol version is not supported"))
}

fn get(app: &Arc<App>, headers: &HeaderMap) -> Result<Response, Refusal> {
    if !accepts(headers, EVENTS) {
        let why = "Not Acceptable: the answer is text/event-stream";
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, why));
    }
    check_version(headers)?;
    let pings = stream::unfold((), |()| async {
        tokio::time::sleep(PING).await;
        Some((Ok::<_, Infallible>(Event::default().event("ping")), ()))
    });
    let stop = app.service.stopping().clone();
    Ok(Sse::new(pings.take_until(stop.cancelled_owned())).into_response())
}

async fn post(app: Arc<App>, headers: &HeaderMap, body: &[u8]) -> Result<Response, Refusal> {
    // Who says nothing means JSON.
    let media = headers.get(header::CONTENT_TYPE).map_or(JSON, |value| value.to_str().unwrap_or_default());
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case(JSON) {
        let why = "Unsupported Media Type: Content-Type must be application/json";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let takes_events = accepts(headers, EVENTS);
    if !takes_events && !accepts(headers, JSON) {
        let why = "Not Acceptable: the answer is application/json or text/event-stream";
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, why));
    }
    check_version(headers)?;
    let incoming = Incoming::read(body).map_err(|error| Refusal(StatusCode::BAD_REQUEST, error))?;
    if incoming.requests.is_empty() {
        return Ok((StatusCode::ACCEPTED, Json(json!(null))).into_response());
    }
    let caller = Caller { origin: origin(&app, headers), app };
    if takes_events { Ok(as_events(caller, incoming)) } else { Ok(as_json(&caller, incoming).await) }
}

fn as_events(caller: Caller, incoming: Incoming) -> Response {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let tasks = caller.app.service.tasks().clone();
    tasks.spawn(async move {
        let stop = caller.app.service.stopping().clone();
        let answered = async {
            for request in &incoming.requests {
                let notifier = Notifier::new(sender.clone(), request);
                let outcome = methods::answer(&caller, request, &notifier).await;
                drop(sender.send(rpc::reply(request, &outcome)).await);
            }
        };
        tokio::select! {
            () = answered => {}
            () = sender.closed() => {}
            () = stop.cancelled() => {}
        }
    });
    let events = stream::unfold(receiver, |mut receiver: mpsc::Receiver<Value>| async move {
        let message = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Event::default().event("message").data(message.to_string())), receiver))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

async fn as_json(caller: &Caller, incoming: Incoming) -> Response {
    let (sender, receiver) = mpsc::channel(1);
    // There is no place for what comes before the reply.
    drop(receiver);
    let mut replies = Vec::with_capacity(incoming.requests.len());
    for request in &incoming.requests {
        let notifier = Notifier::new(sender.clone(), request);
        let outcome = methods::answer(caller, request, &notifier).await;
        replies.push(rpc::reply(request, &outcome));
    }
    match replies.pop() {
        Some(only) if !incoming.is_batch && replies.is_empty() => Json(only).into_response(),
        last => {
            replies.extend(last);
            Json(replies).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn types_are_accepted_by_name_by_family_and_without_a_header() {
        let accepted = |value: &'static str, kind: &str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]);
            accepts(&headers, kind)
        };
        assert!(accepts(&HeaderMap::new(), EVENTS));
        assert!(accepted("application/json, text/event-stream", EVENTS));
        assert!(accepted("Text/Event-Stream;q=0.5", EVENTS));
        assert!(accepted("*/*", JSON) && accepted("application/*", JSON));
        assert!(!accepted("text/html", JSON) && !accepted("application/json", EVENTS));
    }
}
