//! Sockets: how a peer speaks is decided once, at its upgrade (`relay-protocol` 3.1, 3.13, `jobs-and-states` 8.1).

mod changes;
mod connection;
mod lease_worker;
mod lists;
mod old_client;
mod old_worker;
mod watch_client;

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts as _, Request};
use axum::response::{IntoResponse as _, Response};
use dockframe_shared::QueueKey;
use dockframe_shared::protocol::{
    BadFrame, ClientMessage, LEASE_PROTOCOL, PROTOCOL_HEADER, WATCH_PROTOCOL, WorkerMessage,
};
use http::{HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;

use crate::error::{ApiError, chain};
use crate::http::{App, origin};
use crate::limits::{LATER_S, MAX_BODY_BYTES, MAX_CLIENT_FRAME_BYTES, MAX_REGISTRATION_BYTES};
use crate::metrics::{Peer, Refused};
use crate::queue::open::OpenQueue;
use crate::queue::service::Service;

/// Buffers of a socket: small, since most are idle.
const BUFFER_BYTES: usize = 4 << 10;

/// Who is at the other end, by the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Worker,
}

/// What the path of a socket names; why not, as a refusal.
fn parse_path(path: &str) -> Result<(QueueKey, Role), ApiError> {
    let not_found = || ApiError::text(StatusCode::NOT_FOUND, "no socket at this path");
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let (queue, role) = match segments.as_slice() {
        ["q", queue, role, ..] => (*queue, *role),
        ["q", ..] => return Err(not_found()),
        [queue, role, ..] => (*queue, *role),
        _ => return Err(not_found()),
    };
    let role = match role {
        "client" | "browser" => Role::Client,
        "worker" => Role::Worker,
        _ => return Err(not_found()),
    };
    let bad = |why: &str| ApiError::text(StatusCode::BAD_REQUEST, why);
    let name = percent_decode_str(queue).decode_utf8().map_err(|_| bad("the queue's name is not UTF-8"))?;
    if role == Role::Client && matches!(&*name, "undefined" | "null") {
        return Err(bad("a queue needs a name"));
    }
    let key = QueueKey::new(&*name).map_err(|error| bad(&error.to_string()))?;
    Ok((key, role))
}

pub(crate) async fn upgrade(app: Arc<App>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let (key, role) = match parse_path(parts.uri.path()) {
        Ok(parsed) => parsed,
        Err(error) => return error.into_response(),
    };
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(_) => return ApiError::text(StatusCode::BAD_REQUEST, "not a WebSocket upgrade").into_response(),
    };
    let watches = parts.uri.query().is_some_and(|query| {
        url::form_urlencoded::parse(query.as_bytes())
            .any(|(name, value)| name == "protocol" && value == WATCH_PROTOCOL)
    });
    let leases = parts.headers.get(PROTOCOL_HEADER).is_some_and(|value| value == LEASE_PROTOCOL);
    let limit = if role == Role::Client && watches { MAX_CLIENT_FRAME_BYTES } else { MAX_BODY_BYTES };
    let upgrade = upgrade
        .max_message_size(limit)
        .max_frame_size(limit)
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES);
    let service = Arc::clone(&app.service);
    let Some(place) = service.sockets.take_one(key.digest()) else {
        service.metrics.refused(Refused::Sockets);
        return ApiError::Busy("too many sockets of this queue are open".to_owned(), LATER_S).into_response();
    };
    let peer = match role {
        Role::Client if watches => Peer::Client,
        Role::Client => Peer::OldClient,
        Role::Worker if leases => Peer::Worker,
        Role::Worker => Peer::OldWorker,
    };
    let origin = origin(&app, &parts.headers);
    // Frames that come while the queue is read wait in the socket: nothing is lost.
    let mut response = upgrade.on_upgrade(move |socket| {
        let tasks = service.tasks().clone();
        tasks.track_future(async move {
            let held = (place, service.metrics.connected(peer));
            match peer {
                Peer::Client => watch_client::serve(service, key, origin, socket).await,
                Peer::OldClient => old_client::serve(service, key, origin, socket).await,
                Peer::Worker => lease_worker::serve(service, key, socket).await,
                Peer::OldWorker | Peer::Stream => old_worker::serve(service, key, socket).await,
            }
            drop(held);
        })
    });
    if peer == Peer::Worker {
        response.headers_mut().insert(PROTOCOL_HEADER, HeaderValue::from_static(LEASE_PROTOCOL));
    }
    response
}

/// What a client said; a frame that says nothing is counted.
fn read_client(service: &Service, text: &str) -> Result<ClientMessage, BadFrame> {
    ClientMessage::read(text).inspect_err(|error| dropped(service, error))
}

fn dropped(service: &Service, error: &BadFrame) {
    service.metrics.refused(Refused::Frame);
    tracing::debug!(%error, "a frame was dropped");
}

/// What a worker said; a frame that says nothing, or too much, is dropped and counted.
fn read_worker(service: &Service, text: &str) -> Option<WorkerMessage> {
    match WorkerMessage::read(text) {
        Ok(WorkerMessage::Registration(_)) if text.len() > MAX_REGISTRATION_BYTES => {
            service.metrics.refused(Refused::Frame);
            tracing::debug!(bytes = text.len(), "a registration was dropped: it is too long");
            None
        }
        Ok(message) => Some(message),
        Err(error) => {
            dropped(service, &error);
            None
        }
    }
}

/// The queue of a socket; `None`: the socket is dropped, and its peer tries again.
async fn open(service: &Arc<Service>, key: &QueueKey) -> Option<Arc<OpenQueue>> {
    match Box::pin(service.open(key)).await {
        Ok(queue) => Some(queue),
        Err(error) => {
            tracing::error!(error = chain(&error), queue.hash = %key.digest(), "a queue could not be opened");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_path_are_known_and_names_are_decoded() {
        for path in ["/q/a%20b/client", "/a%20b/browser", "//q//a%20b/client/more"] {
            let (key, role) = parse_path(path).unwrap();
            assert_eq!((key.reveal(), role), ("a b", Role::Client), "{path}");
        }
        assert_eq!(parse_path("/x/worker").unwrap().1, Role::Worker);
        assert_eq!(parse_path("/q/undefined/worker").unwrap().1, Role::Worker);
    }

    #[test]
    fn other_paths_are_refused() {
        for path in ["/", "/q", "/q/x", "/q/x/foo", "/foo", "/q/undefined/client", "/q/null/browser"] {
            assert!(parse_path(path).is_err(), "{path}");
        }
    }
}
