//! The scripted relay's server: sockets, blobs, results, and whatever the page under test consists of.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocket};
use axum::extract::{
    DefaultBodyLimit, FromRequestParts as _, Path, Request, State as Held, WebSocketUpgrade,
};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tower_http::cors::CorsLayer;

use super::{Answer, Inner, Order, Socket, What};

pub(super) fn serve(listener: TcpListener, inner: Arc<Inner>) -> tokio::task::JoinHandle<()> {
    let api = Router::new()
        .route("/f/{key}", get(read_blob).put(write_blob))
        .route("/stored/{key}", put(write_stored))
        .route("/j/{id}/definition.json", get(definition))
        .route("/j/{id}/result.json", get(result))
        .layer(CorsLayer::permissive());
    let router = api
        .fallback(other)
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(inner.clone(), remember))
        .with_state(inner);
    tokio::spawn(async move {
        // An end by an error shows in the tests that wait for what does not come.
        let _ = axum::serve(listener, router).await;
    })
}

async fn remember(Held(inner): Held<Arc<Inner>>, request: Request, next: Next) -> Response {
    if let Some(what) = what_is(&request) {
        inner.happened(what);
    }
    next.run(request).await
}

/// A request, but for those that become sockets: these are remembered when they do.
fn what_is(request: &Request) -> Option<What> {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if text(header::UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
        return None;
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Some(What::Request { method: request.method().to_string(), path, referer: text(header::REFERER) })
}

/// Sockets and results of any queue, whatever its name looks like; all else is the page's.
async fn other(Held(inner): Held<Arc<Inner>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let (mut parts, _) = request.into_parts();
    if let Some(rest) = path.strip_prefix("/q/") {
        if (rest.ends_with("/client") || rest.ends_with("/browser"))
            && let Ok(upgrade) = WebSocketUpgrade::from_request_parts(&mut parts, &()).await
        {
            let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            return open(&inner, path, parts.uri.query().unwrap_or_default(), upgrade);
        }
        if let Some((_, job)) = rest.split_once("/j/") {
            let job = job.strip_suffix("/result.json").unwrap_or_default().to_owned();
            let mut response = result(Held(inner), Path(job)).await;
            allow_all(response.headers_mut());
            return response;
        }
        if rest.ends_with("/j") || !rest.contains('/') {
            let jobs: serde_json::Map<String, Value> =
                inner.state().jobs.iter().map(|(id, job)| (id.clone(), job.entry.clone())).collect();
            let mut response = axum::Json(json!({ "data": jobs })).into_response();
            allow_all(response.headers_mut());
            return response;
        }
    }
    page(&inner, &parts.method, parts.uri.path_and_query().map_or("/", |path| path.as_str()), &parts.headers)
        .await
        .unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, error.to_string()).into_response())
}

fn allow_all(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, header::HeaderValue::from_static("*"));
}

/// A file of the page under test, as its own server gives it.
async fn page(inner: &Inner, method: &Method, path: &str, headers: &HeaderMap) -> anyhow::Result<Response> {
    let base = inner.page.as_str().trim_end_matches('/');
    let mut request = inner.http.request(method.clone(), format!("{base}{path}"));
    for name in [header::ACCEPT, header::ACCEPT_ENCODING, header::ORIGIN] {
        if let Some(value) = headers.get(&name) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    for (name, value) in answer.headers() {
        // What is about this connection is not passed on.
        if ![header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH].contains(name) {
            response.headers_mut().append(name, value.clone());
        }
    }
    *response.body_mut() = Body::from(answer.bytes().await?);
    Ok(response)
}

fn open(inner: &Arc<Inner>, path: &str, query: &str, upgrade: WebSocketUpgrade) -> Response {
    let (out, orders) = mpsc::unbounded_channel();
    let socket = {
        let mut state = inner.state();
        if !state.settings.takes_connections {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let watches = state.settings.watches(query);
        state.sockets.push(Socket { watches, is_open: true, watched: Vec::new(), out });
        let socket = state.sockets.len() - 1;
        if state.settings.greets {
            state.greet(socket);
        }
        socket
    };
    inner.happened(What::Opened { socket, path: path.to_owned() });
    let inner = inner.clone();
    upgrade.on_upgrade(async move |connection| {
        converse(&inner, connection, socket, orders).await;
        inner.state().sockets[socket].is_open = false;
        inner.happened(What::Closed { socket });
    })
}

async fn converse(
    inner: &Inner,
    mut connection: WebSocket,
    socket: usize,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    loop {
        let text = tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Say(text)) => {
                    if connection.send(Message::text(text)).await.is_err() { return }
                    continue;
                }
                Some(Order::Close) | None => return,
            },
            frame = connection.recv() => match frame {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
        };
        let frame = match serde_json::from_str(&text) {
            Ok(frame @ Value::Object(_)) => frame,
            _ => Value::String(text.as_str().to_owned()),
        };
        {
            let mut state = inner.state();
            // Remembered first: what is said because of it comes later.
            state.events.push(What::Frame { socket, frame: frame.clone() });
            state.hear(socket, &frame);
        }
        inner.news.send_modify(|n| *n += 1);
    }
}

async fn read_blob(Held(inner): Held<Arc<Inner>>, Path(key): Path<String>) -> Response {
    match inner.state().blobs.get(&key) {
        Some(content) => content.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn write_blob(inner: Held<Arc<Inner>>, Path(key): Path<String>, content: Bytes) -> Response {
    let (takes, redirects, delay) = {
        let state = inner.state();
        (state.settings.takes_uploads, state.settings.redirects, state.settings.upload_delay)
    };
    tokio::time::sleep(delay).await;
    if !takes {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if redirects {
        let place = format!("/stored/{key}");
        return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, place)]).into_response();
    }
    write_stored(inner, Path(key), content).await
}

async fn write_stored(Held(inner): Held<Arc<Inner>>, Path(key): Path<String>, content: Bytes) -> Response {
    let digest = Sha256::digest(&content);
    if digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>() != key {
        return StatusCode::BAD_REQUEST.into_response();
    }
    inner.state().blobs.insert(key, content);
    StatusCode::OK.into_response()
}

async fn definition(Held(inner): Held<Arc<Inner>>, Path(id): Path<String>) -> Response {
    let definition = inner.state().definitions.get(&id).cloned();
    match definition {
        Some(definition) => axum::Json(json!({ "data": definition })).into_response(),
        None => (StatusCode::NOT_FOUND, axum::Json(json!({ "error": "unknown" }))).into_response(),
    }
}

async fn result(Held(inner): Held<Arc<Inner>>, Path(id): Path<String>) -> Response {
    let delay = inner.state().settings.result_delay;
    tokio::time::sleep(delay).await;
    let state = inner.state();
    match state.settings.result {
        Answer::Honest => {}
        Answer::Status(status) => {
            return StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY).into_response();
        }
        Answer::Null => return axum::Json(json!({ "data": null })).into_response(),
        // A body that ends before its length does.
        Answer::Cut => {
            let body = Body::from_stream(futures_util::stream::iter([
                Ok(Bytes::from_static(b"{\"data\":")),
                Err(std::io::Error::other("cut")),
            ]));
            return Response::new(body);
        }
    }
    let Some((entry, result)) =
        state.jobs.get(&id).and_then(|job| Some((job.entry.clone(), job.result.clone()?)))
    else {
        return axum::Json(json!({ "data": null })).into_response();
    };
    let mut data = entry;
    data["finished"] = json!({ "type": "Finished", "reason": data["finishedReason"], "time": data["time"], "worker": "worker1", "result": result });
    axum::Json(json!({ "data": data })).into_response()
}
