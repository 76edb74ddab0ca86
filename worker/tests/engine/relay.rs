//! A relay that does what a test says: leases over the real wire, and a store of blobs.
//!
//! It speaks only the documented protocol, so the same script can be put to any worker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use axum::extract::{DefaultBodyLimit, Path, State, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dockframe_shared::job::{Control, Definition, Finished, JobResult, LogLine};
use dockframe_shared::protocol::{
    LEASE_PROTOCOL, LeaseFinish, LeaseFinished, LeaseGrant, LeaseRevoke, Logs, PROTOCOL_HEADER, Phase,
    Registration, RelayMessage, RevokeWhy, WorkerHello, WorkerMessage,
};
use dockframe_shared::{JobId, LeaseId};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;

/// No event that a test waits for takes longer on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// Which connection, from 1.
    pub(crate) connection: usize,
    pub(crate) message: WorkerMessage,
}

#[derive(Debug, Clone)]
enum Order {
    Say(String),
    /// Close with this code, or just drop the connection.
    Close(Option<u16>),
}

struct Inner {
    heard: Mutex<Vec<Heard>>,
    n_heard: watch::Sender<usize>,
    orders: broadcast::Sender<Order>,
    blobs: Mutex<HashMap<String, Bytes>>,
    settings: Mutex<Settings>,
    connections: Mutex<usize>,
    paths: Mutex<Vec<String>>,
}

/// How the relay behaves from now on.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) answer_finish: bool,
    pub(crate) answer_ping: bool,
    pub(crate) accept_connections: bool,
    pub(crate) redirect_puts: Option<StatusCode>,
    pub(crate) refuse_blobs: bool,
    pub(crate) epoch: String,
    pub(crate) renew_ms: u64,
    pub(crate) max_finish_bytes: u64,
    /// Otherwise it is a relay of the old way, whose table the test sends.
    pub(crate) speaks_leases: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            answer_finish: true,
            answer_ping: true,
            accept_connections: true,
            redirect_puts: None,
            refuse_blobs: false,
            epoch: "epoch-1".to_owned(),
            renew_ms: 1000,
            max_finish_bytes: 4 << 20,
            speaks_leases: true,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Relay {
    inner: Arc<Inner>,
    pub(crate) address: String,
    _stop: mpsc::Sender<()>,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let inner = Arc::new(Inner {
            heard: Mutex::default(),
            n_heard: watch::Sender::new(0),
            orders: broadcast::channel(1024).0,
            blobs: Mutex::default(),
            settings: Mutex::default(),
            connections: Mutex::new(0),
            paths: Mutex::default(),
        });
        let router = Router::new()
            .route("/healthz", get(async || "OK"))
            .route("/q/{queue}/worker", get(socket))
            .route("/f/{key}", get(read_blob).put(write_blob))
            .route("/stored/{key}", get(read_blob).put(store_blob))
            .route("/f/{key}/exists", get(has_blob))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&inner));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (stop, mut stopped) = mpsc::channel::<()>(1);
        tokio::spawn(async move {
            let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
                // Ends when the last handle is dropped.
                stopped.recv().await;
            });
            serving.await.unwrap();
        });
        Self { inner, address, _stop: stop }
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.inner.settings.lock().unwrap());
    }

    pub(crate) fn put_blob(&self, key: &str, content: &[u8]) {
        self.inner.blobs.lock().unwrap().insert(key.to_owned(), Bytes::copy_from_slice(content));
    }

    pub(crate) fn blob(&self, key: &str) -> Option<Bytes> {
        self.inner.blobs.lock().unwrap().get(key).cloned()
    }

    /// Request targets of all upgrades, as they came.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.inner.paths.lock().unwrap().clone()
    }

    pub(crate) fn grant(&self, lease: &str, job: &str, definition: Value) {
        self.grant_with(lease, job, definition, Control::default());
    }

    pub(crate) fn grant_with(&self, lease: &str, job: &str, definition: Value, control: Control) {
        let Value::Object(fields) = definition else { panic!("a definition is an object") };
        self.say(&RelayMessage::LeaseGrant(Box::new(LeaseGrant {
            lease_id: LeaseId::new(lease).unwrap(),
            job_id: JobId::new(job).unwrap(),
            attempt: 1,
            definition: Definition(fields),
            control,
            deadline_ms: 3_600_000,
        })));
    }

    pub(crate) fn revoke(&self, lease: &str, why: RevokeWhy, grace_ms: u64) {
        self.say(&RelayMessage::LeaseRevoke(LeaseRevoke {
            lease_id: LeaseId::new(lease).unwrap(),
            why,
            grace_ms,
        }));
    }

    pub(crate) fn say(&self, message: &RelayMessage) {
        self.say_text(serde_json::to_string(message).unwrap());
    }

    pub(crate) fn say_text(&self, text: String) {
        self.inner.orders.send(Order::Say(text)).expect("a worker is connected");
    }

    pub(crate) fn close(&self, code: Option<u16>) {
        let _ = self.inner.orders.send(Order::Close(code));
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.inner.heard.lock().unwrap().clone()
    }

    /// The first message, among all that came and will come, of which `look` makes something.
    pub(crate) async fn wait_for<T>(&self, what: &str, look: impl Fn(&Heard) -> Option<T>) -> T {
        self.wait_within(PATIENCE, what, look).await
    }

    pub(crate) async fn wait_within<T>(
        &self,
        patience: Duration,
        what: &str,
        look: impl Fn(&Heard) -> Option<T>,
    ) -> T {
        let mut n_heard = self.inner.n_heard.subscribe();
        let found = async {
            loop {
                n_heard.borrow_and_update();
                if let Some(found) = self.heard().iter().find_map(&look) {
                    return found;
                }
                n_heard.changed().await.unwrap();
            }
        };
        match timeout(patience, found).await {
            Ok(found) => found,
            Err(_) => panic!("no {what}; heard: {:#?}", self.heard()),
        }
    }

    pub(crate) async fn registration(&self) -> Registration {
        self.wait_for("registration", |heard| match &heard.message {
            WorkerMessage::Registration(registration) => Some(registration.clone()),
            _ => None,
        })
        .await
    }

    /// The registration of a connection after which the worker may be given work.
    pub(crate) async fn connected(&self, connection: usize) -> Registration {
        self.wait_for("connection", |heard| match &heard.message {
            WorkerMessage::Registration(registration) if heard.connection >= connection => {
                Some(registration.clone())
            }
            _ => None,
        })
        .await
    }

    pub(crate) async fn accepted(&self, lease: &str) {
        self.wait_for("accept", |heard| match &heard.message {
            WorkerMessage::LeaseAccept(accept) if accept.lease_id.as_str() == lease => Some(()),
            _ => None,
        })
        .await;
    }

    pub(crate) async fn phase(&self, lease: &str, wanted: Phase) {
        self.wait_for("phase", |heard| match &heard.message {
            WorkerMessage::Registration(registration) => registration
                .leases
                .iter()
                .flatten()
                .any(|held| held.lease_id.as_str() == lease && held.phase == wanted)
                .then_some(()),
            _ => None,
        })
        .await;
    }

    pub(crate) async fn declined(&self, lease: &str) -> String {
        self.wait_for("decline", |heard| match &heard.message {
            WorkerMessage::LeaseDecline(decline) if decline.lease_id.as_str() == lease => {
                Some(decline.why.clone())
            }
            _ => None,
        })
        .await
    }

    pub(crate) async fn finished(&self, lease: &str) -> (Finished, JobResult) {
        self.finished_within(lease, PATIENCE).await
    }

    pub(crate) async fn finished_within(&self, lease: &str, patience: Duration) -> (Finished, JobResult) {
        let finish: LeaseFinish = self
            .wait_within(patience, "finish", |heard| match &heard.message {
                WorkerMessage::LeaseFinish(finish) if finish.lease_id.as_str() == lease => {
                    Some(finish.clone())
                }
                _ => None,
            })
            .await;
        let finished: Finished = serde_json::from_value(finish.value).unwrap();
        let result = serde_json::from_value(finished.result.clone().unwrap()).unwrap();
        (finished, result)
    }

    pub(crate) fn logs(&self, lease: &str) -> Vec<Logs> {
        let of_lease = |heard: Heard| match heard.message {
            WorkerMessage::Logs(logs) if logs.lease_id.as_ref().is_some_and(|id| id.as_str() == lease) => {
                Some(logs)
            }
            _ => None,
        };
        self.heard().into_iter().filter_map(of_lease).collect()
    }

    /// Waits until the run's log has this text in it, and gives all of it.
    pub(crate) async fn log_with(&self, lease: &str, text: &str) -> String {
        self.wait_for(&format!("line {text:?}"), |_| {
            let all: String =
                self.logs(lease).iter().flat_map(|logs| &logs.logs).map(|line| line.text.as_str()).collect();
            all.contains(text).then_some(all)
        })
        .await
    }

    /// Lines of a run by number, as a relay keeps them: repeats are dropped by number.
    pub(crate) fn run_lines(&self, lease: &str) -> Vec<LogLine> {
        let mut lines: Vec<LogLine> = Vec::new();
        for logs in self
            .logs(lease)
            .into_iter()
            .filter(|logs| logs.step.kind() == dockframe_shared::protocol::LogKind::Run)
        {
            let from = usize::try_from(logs.from.unwrap()).unwrap();
            assert!(from <= lines.len(), "a gap in the numbers: {from} after {}", lines.len());
            for (offset, line) in logs.logs.into_iter().enumerate() {
                if from + offset >= lines.len() {
                    lines.push(line);
                }
            }
        }
        lines
    }
}

async fn socket(
    State(inner): State<Arc<Inner>>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let settings = inner.settings.lock().unwrap().clone();
    if !settings.accept_connections {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    inner.paths.lock().unwrap().push(uri.path().to_owned());
    let wants_leases = headers.get(PROTOCOL_HEADER).is_some_and(|value| value == LEASE_PROTOCOL);
    let mut response = upgrade.max_message_size(64 << 20).on_upgrade(move |socket| converse(inner, socket));
    if wants_leases && settings.speaks_leases {
        response
            .headers_mut()
            .insert(HeaderName::from_static(PROTOCOL_HEADER), HeaderValue::from_static(LEASE_PROTOCOL));
    }
    response
}

async fn converse(inner: Arc<Inner>, mut socket: WebSocket) {
    let connection = {
        let mut connections = inner.connections.lock().unwrap();
        *connections += 1;
        *connections
    };
    let mut orders = inner.orders.subscribe();
    let mut id = "unknown".to_owned();
    let mut greeted = false;
    loop {
        let text = tokio::select! {
            order = orders.recv() => match order.unwrap() {
                Order::Say(text) => {
                    socket.send(Message::text(text)).await.ok();
                    continue;
                }
                Order::Close(None) => return,
                Order::Close(Some(code)) => {
                    socket.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await.ok();
                    return;
                }
            },
            frame = socket.recv() => match frame {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
        };
        let message = WorkerMessage::read(&text).expect("a worker speaks the protocol");
        let settings = inner.settings.lock().unwrap().clone();
        match &message {
            WorkerMessage::Ping => {
                if settings.answer_ping {
                    socket.send(Message::text(format!("PONG {id}"))).await.ok();
                }
                continue;
            }
            WorkerMessage::Registration(registration) => {
                id = registration.id.to_string();
                if !std::mem::replace(&mut greeted, true) && settings.speaks_leases {
                    let hello = RelayMessage::WorkerHello(WorkerHello {
                        relay: "scripted/1".to_owned(),
                        epoch: settings.epoch,
                        ttl_ms: 30_000,
                        renew_ms: settings.renew_ms,
                        max_finish_bytes: settings.max_finish_bytes,
                    });
                    socket.send(Message::text(serde_json::to_string(&hello).unwrap())).await.ok();
                }
            }
            WorkerMessage::LeaseFinish(finish) if settings.answer_finish => {
                let answer = RelayMessage::LeaseFinished(LeaseFinished {
                    lease_id: finish.lease_id.clone(),
                    recorded: true,
                    why: None,
                });
                socket.send(Message::text(serde_json::to_string(&answer).unwrap())).await.ok();
            }
            _ => {}
        }
        let mut heard = inner.heard.lock().unwrap();
        heard.push(Heard { connection, message });
        inner.n_heard.send_replace(heard.len());
    }
}

async fn has_blob(State(inner): State<Arc<Inner>>, Path(key): Path<String>) -> StatusCode {
    if inner.blobs.lock().unwrap().contains_key(&key) { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

async fn read_blob(State(inner): State<Arc<Inner>>, Path(key): Path<String>) -> Response {
    let found = inner.blobs.lock().unwrap().get(&key).cloned();
    found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}

async fn write_blob(State(inner): State<Arc<Inner>>, Path(key): Path<String>, body: Bytes) -> Response {
    let settings = inner.settings.lock().unwrap().clone();
    if settings.refuse_blobs {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match settings.redirect_puts {
        Some(status) => (status, [(header::LOCATION, format!("/stored/{key}"))]).into_response(),
        None => store_blob(State(inner), Path(key), body).await,
    }
}

async fn store_blob(State(inner): State<Arc<Inner>>, Path(key): Path<String>, body: Bytes) -> Response {
    inner.blobs.lock().unwrap().insert(key, body);
    StatusCode::CREATED.into_response()
}
