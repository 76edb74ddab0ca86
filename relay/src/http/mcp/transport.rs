//! JSON-RPC in, events out.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::App;
use super::super::blobs::origin;
use super::describe;
use super::tools::{self, Caller, RpcError};

/// Versions of the protocol that are spoken, the newest first.
const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// Calls in one batch.
const MAX_BATCH: usize = 64;
/// Events that wait for a slow reader.
const WAITING: usize = 64;
const PING: Duration = Duration::from_secs(30);

const PARSE_ERROR: i64 = -32_700;
const INVALID_REQUEST: i64 = -32_600;
const METHOD_NOT_FOUND: i64 = -32_601;

pub(crate) async fn serve(
    State(app): State<Arc<App>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match method {
        Method::POST => post(&app, &headers, &body),
        Method::GET => pings(&app),
        Method::DELETE => StatusCode::OK.into_response(),
        _ => {
            let answer = error(&Value::Null, -32_000, "Method not allowed.");
            let allow = [(header::ALLOW, "GET, POST, DELETE")];
            (StatusCode::METHOD_NOT_ALLOWED, allow, Json(answer)).into_response()
        }
    }
}

pub(crate) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

pub(crate) async fn info() -> Json<Value> {
    Json(json!({ "name": "dockframe", "version": env!("CARGO_PKG_VERSION"), "endpoint": "/mcp",
        "description": "Runs Docker containers as jobs of a queue, and reads what came of them" }))
}

fn error(id: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "error": { "code": code, "message": message }, "id": id })
}

fn bad(code: i64, message: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(error(&Value::Null, code, message))).into_response()
}

/// Nothing comes here by itself but signs of life.
fn pings(app: &App) -> Response {
    let stop = app.service.stopping().clone();
    let ticks = futures_util::stream::unfold(stop, |stop| async move {
        tokio::select! {
            () = tokio::time::sleep(PING) => {}
            () = stop.cancelled() => return None,
        }
        Some((Ok::<_, Infallible>(Event::default().event("ping")), stop))
    });
    events(Sse::new(ticks).into_response())
}

fn events(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn post(app: &Arc<App>, headers: &HeaderMap, body: &[u8]) -> Response {
    let Ok(message) = serde_json::from_slice::<Value>(body) else {
        return bad(PARSE_ERROR, "the body is not JSON");
    };
    let messages = match message {
        Value::Array(batch) if batch.is_empty() || batch.len() > MAX_BATCH => {
            return bad(INVALID_REQUEST, "a batch has 1 to 64 messages");
        }
        Value::Array(batch) => batch,
        one => vec![one],
    };
    if messages.iter().any(|message| !message.is_object()) {
        return bad(INVALID_REQUEST, "a message is a JSON-RPC object");
    }
    // Notifications and answers need none; only requests have a method and an id.
    let requests: Vec<Value> = messages
        .into_iter()
        .filter(|message| {
            message.get("method").is_some() && message.get("id").is_some_and(|id| !id.is_null())
        })
        .collect();
    if requests.is_empty() {
        return (StatusCode::ACCEPTED, Json(Value::Null)).into_response();
    }
    let (sender, receiver) = mpsc::channel::<Value>(WAITING);
    let caller = Caller { app: Arc::clone(app), origin: origin(app, headers), notices: sender.clone() };
    let stop = app.service.stopping().clone();
    app.service.tasks().spawn(async move {
        for request in requests {
            let answer = tokio::select! {
                answer = answer(&caller, &request) => answer,
                // The reader is gone, or the relay stops.
                () = sender.closed() => return,
                () = stop.cancelled() => return,
            };
            if sender.send(answer).await.is_err() {
                return;
            }
        }
    });
    let answers = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let message = receiver.recv().await?;
        let event = Event::default().event("message").data(message.to_string());
        Some((Ok::<_, Infallible>(event), receiver))
    });
    events(Sse::new(answers).keep_alive(KeepAlive::new().interval(PING)).into_response())
}

async fn answer(caller: &Caller, request: &Value) -> Value {
    let id = request.get("id").cloned().unwrap_or_default();
    let none = Value::Null;
    let params = request.get("params").unwrap_or(&none);
    let outcome = match request.get("method").and_then(Value::as_str).unwrap_or_default() {
        "initialize" => Ok(initialize(params)),
        "ping" | "logging/setLevel" => Ok(json!({})),
        "tools/list" => Ok(json!({ "tools": describe::tools() })),
        "tools/call" => tools::call(caller, params).await,
        "resources/list" => Ok(json!({ "resources": [describe::resource()] })),
        "resources/templates/list" => Ok(json!({ "resourceTemplates": [] })),
        "resources/read" => tools::read_resource(caller, params).await,
        _ => Err(RpcError { code: METHOD_NOT_FOUND, message: "Method not found".to_owned() }),
    };
    match outcome {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(RpcError { code, message }) => error(&id, code, &message),
    }
}

fn initialize(params: &Value) -> Value {
    let asked = params.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
    let version = VERSIONS.into_iter().find(|known| *known == asked).unwrap_or(VERSIONS[0]);
    json!({
        "protocolVersion": version,
        "capabilities": { "tools": {}, "resources": {}, "logging": {} },
        "serverInfo": { "name": "dockframe", "version": env!("CARGO_PKG_VERSION") },
    })
}
