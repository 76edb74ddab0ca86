//! The scripted relay's server: sockets, blobs, scripted pages.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use axum::extract::{DefaultBodyLimit, Path, Request, State as Held, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{Heard, Inner, LIST_PERIOD, Link, Order, Page, State, Way};
use crate::test::now;

const PROTOCOL: HeaderName = HeaderName::from_static("dockframe-protocol");
/// The largest frame that a worker may send here: more than any test makes.
const MAX_FRAME: usize = 64 << 20;

pub(super) fn serve(listener: TcpListener, inner: Arc<Inner>) -> tokio::task::JoinHandle<()> {
    let router = Router::new()
        .route("/q/{queue}/worker", get(upgrade))
        .route("/{queue}/worker", get(upgrade))
        .route("/f/{key}", get(read_blob).put(write_blob))
        .route("/stored/{key}", any(stored))
        .route("/f/{key}/exists", get(has_blob))
        .fallback(page)
        .layer(DefaultBodyLimit::disable())
        .with_state(inner);
    tokio::spawn(async move {
        // An end by an error shows in the tests that wait for what does not come.
        let _ = axum::serve(listener, router).await;
    })
}

async fn upgrade(
    Held(inner): Held<Arc<Inner>>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let wants_leases = headers.get(PROTOCOL).is_some_and(|value| value == "lease/1");
    let (out, orders) = mpsc::unbounded_channel();
    let (link, way) = {
        let mut state = inner.state();
        if !state.settings.takes_connections {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let way = if wants_leases { state.settings.way } else { Way::Old };
        state.links.push(Link {
            path: uri.path().to_owned(),
            wants_leases,
            way,
            closed: None,
            close_code: None,
            worker: None,
            out,
        });
        (state.links.len() - 1, way)
    };
    inner.tell();
    let upgrade = upgrade.max_message_size(MAX_FRAME).max_frame_size(MAX_FRAME);
    let mut response = upgrade.on_upgrade(async move |socket| {
        converse(&inner, socket, link, orders).await;
        inner.state().links[link].closed = Some(Instant::now());
        inner.tell();
    });
    if way == Way::Leases {
        response.headers_mut().insert(PROTOCOL, HeaderValue::from_static("lease/1"));
    }
    response
}

async fn converse(
    inner: &Inner,
    mut socket: WebSocket,
    link: usize,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut lists = tokio::time::interval(LIST_PERIOD);
    lists.tick().await;
    loop {
        let text = tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Say(text)) => {
                    if socket.send(Message::text(text)).await.is_err() { return }
                    continue;
                }
                Some(Order::Close(Some(code))) => {
                    let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await;
                    return;
                }
                Some(Order::Close(None)) | None => return,
            },
            _ = lists.tick() => {
                let state = inner.state();
                if state.settings.sends_lists && state.links[link].way == Way::Old {
                    tell(&state, link, &full_list(&state));
                }
                continue;
            }
            frame = socket.recv() => match frame {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(frame))) => {
                    inner.state().links[link].close_code = frame.map(|frame| frame.code);
                    return;
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
        };
        let frame = match serde_json::from_str(&text) {
            Ok(frame @ Value::Object(_)) => frame,
            _ => Value::String(text.as_str().to_owned()),
        };
        hear(&mut inner.state(), link, frame);
        inner.tell();
    }
}

/// What a relay of the protocol does with a frame.
fn hear(state: &mut State, link: usize, frame: Value) {
    let payload = &frame["payload"];
    match frame["type"].as_str() {
        None if frame == "PING" && state.settings.answers_pings => {
            let id = state.links[link].worker.as_deref().unwrap_or("unknown");
            tell(state, link, &Value::String(format!("PONG {id}")));
        }
        Some("WorkerRegistration") => {
            let is_first = state.links[link].worker.is_none();
            state.links[link].worker = payload["id"].as_str().map(str::to_owned);
            if is_first {
                greet(state, link, payload);
            }
        }
        Some("StateChange") if state.settings.records => record(state, payload),
        Some("RequestJobDefinitions") if state.settings.defines => {
            let asked = payload["jobIds"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let known = asked.filter_map(|id| Some((id.to_owned(), state.definitions.get(id)?.clone())));
            let definitions = Value::Object(known.collect());
            tell(
                state,
                link,
                &json!({ "type": "BroadcastJobDefinitions", "payload": { "definitions": definitions } }),
            );
        }
        Some("LeaseFinish") if state.settings.answers_finish => {
            let answer = json!({ "leaseId": payload["leaseId"], "recorded": true });
            tell(state, link, &json!({ "type": "LeaseFinished", "payload": answer }));
        }
        _ => {}
    }
    state.heard.push(Heard { link, at: Instant::now(), frame });
}

fn greet(state: &State, link: usize, registration: &Value) {
    if state.links[link].way == Way::Leases {
        let settings = &state.settings;
        let hello = json!({
            "relay": "scripted/1", "epoch": settings.epoch, "ttlMs": 30_000, "renewMs": settings.renew_ms,
            "maxFinishBytes": settings.max_finish_bytes,
        });
        return tell(state, link, &json!({ "type": "Hello", "payload": hello }));
    }
    tell(state, link, &json!({ "type": "Workers", "payload": { "workers": [registration] } }));
    if state.settings.sends_lists {
        tell(state, link, &full_list(state));
    }
}

/// The old way: Queued < Running < Finished, and of two that run the smaller id.
fn record(state: &mut State, change: &Value) {
    let (Some(job), Some(wanted)) = (change["job"].as_str(), change["state"].as_str()) else { return };
    let Some(object) = state.jobs.get_mut(job) else { return };
    let worker = change["value"]["worker"].as_str().unwrap_or_default();
    let is_taken = match (object["state"].as_str(), wanted) {
        (Some("Queued"), "Running") => true,
        (Some("Running"), "Running") => object["worker"].as_str().is_some_and(|holder| worker < holder),
        (Some("Queued" | "Running"), "Finished") => true,
        _ => false,
    };
    if !is_taken {
        return;
    }
    let is_given_back = change["value"]["reason"] == "WorkerLost";
    object["state"] = if is_given_back { "Queued" } else { wanted }.into();
    object["worker"] = if is_given_back { "" } else { worker }.into();
    object["time"] = change["value"]["time"].as_u64().unwrap_or_else(now).into();
    if wanted == "Finished" && !is_given_back {
        object["finishedReason"] = change["value"]["reason"].clone();
    }
    let changed = json!({ job: object.clone() });
    tell_all(state, &update(&changed));
}

pub(super) fn full_list(state: &State) -> Value {
    json!({ "type": "JobStates", "payload": { "isSubset": false, "state": { "jobs": state.jobs } } })
}

pub(super) fn update(jobs: &Value) -> Value {
    json!({ "type": "JobStateUpdates", "payload": { "isSubset": true, "state": { "jobs": jobs } } })
}

fn tell(state: &State, link: usize, message: &Value) {
    // A connection that is gone hears nothing.
    let _ = state.links[link].out.send(Order::Say(super::says::words(message)));
}

/// To every open connection of the old way.
pub(super) fn tell_all(state: &State, message: &Value) {
    for (n, link) in state.links.iter().enumerate() {
        if link.closed.is_none() && link.way == Way::Old {
            tell(state, n, message);
        }
    }
}

fn asked(inner: &Inner, method: &Method, path: &str) {
    inner.state().requests.push((method.to_string(), path.to_owned()));
    inner.tell();
}

async fn has_blob(Held(inner): Held<Arc<Inner>>, Path(key): Path<String>) -> Response {
    asked(&inner, &Method::GET, &format!("/f/{key}/exists"));
    let exists = inner.state().blobs.contains_key(&key);
    let status = if exists { StatusCode::OK } else { StatusCode::NOT_FOUND };
    (status, axum::Json(json!({ "exists": exists }))).into_response()
}

async fn read_blob(Held(inner): Held<Arc<Inner>>, Path(key): Path<String>) -> Response {
    let path = format!("/f/{key}");
    asked(&inner, &Method::GET, &path);
    if let Some(page) = next_page(&inner, &path) {
        return answer(page);
    }
    let found = inner.state().blobs.get(&key).cloned();
    found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}

async fn write_blob(Held(inner): Held<Arc<Inner>>, Path(key): Path<String>, body: Bytes) -> Response {
    asked(&inner, &Method::PUT, &format!("/f/{key}"));
    let settings = inner.state().settings.clone();
    tokio::time::sleep(settings.put_delay).await;
    if settings.refuses_blobs {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if let Some(status) = settings.redirects.and_then(|status| StatusCode::from_u16(status).ok()) {
        return (status, [(header::LOCATION, format!("/stored/{key}?signature=a%2Fb"))]).into_response();
    }
    inner.state().blobs.insert(key, body);
    inner.tell();
    "file saved".into_response()
}

/// Where a redirected upload ends: only a PUT with a length and its signature is taken.
async fn stored(
    Held(inner): Held<Arc<Inner>>,
    Path(key): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    asked(&inner, &method, uri.path());
    let is_good = method == Method::PUT
        && uri.query() == Some("signature=a%2Fb")
        && headers.contains_key(header::CONTENT_LENGTH);
    if !is_good {
        return StatusCode::FORBIDDEN.into_response();
    }
    inner.state().blobs.insert(key, body);
    inner.tell();
    StatusCode::OK.into_response()
}

async fn page(Held(inner): Held<Arc<Inner>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    asked(&inner, request.method(), &path);
    match next_page(&inner, &path) {
        Some(page) => answer(page),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn next_page(inner: &Inner, path: &str) -> Option<Page> {
    let mut state = inner.state();
    let answers = state.pages.get_mut(path)?;
    if answers.len() > 1 { Some(answers.remove(0)) } else { answers.first().cloned() }
}

fn answer(page: Page) -> Response {
    let mut response = Response::builder().status(page.status);
    for (name, value) in &page.headers {
        response = response.header(*name, value);
    }
    let body = if page.cut {
        response = response.header(header::CONTENT_LENGTH, page.body.len() + 1000);
        let parts = [Ok(page.body), Err(std::io::Error::other("cut"))];
        Body::from_stream(futures_util::stream::iter(parts))
    } else {
        Body::from(page.body)
    };
    response.body(body).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}
