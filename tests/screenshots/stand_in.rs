//! A relay that says what it is told to, so that every state of the page is reached at once (`relay-protocol` 3.13).
//! It keeps a table of jobs and answers watchers about them as a relay does. It serves the page and the sheet as well.
//! A mock, and no more: what relays and workers really do is shown by the scenarios.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use axum::Router;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use dockframe_tests::{checkout, wait};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tower_http::services::ServeDir;
use tower_http::set_header::SetResponseHeaderLayer;

/// As relays send it.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' \
                      data: blob: http: https:; connect-src 'self' http: https: ws: wss:; frame-src http:";
/// How often an answer that is held back looks whether it may go.
const HELD: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Inner {
    sockets: usize,
    submissions: Vec<String>,
    jobs: BTreeMap<String, Value>,
    results: BTreeMap<String, Value>,
    workers: Vec<Value>,
    /// Uploads are not answered.
    holds_uploads: bool,
    /// Results are answered with 500.
    fails_results: bool,
    is_refusing: bool,
    /// Endings are heard and change nothing.
    keeps_jobs: bool,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    out: broadcast::Sender<String>,
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stand-in, listening; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct StandIn {
    origin: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

impl StandIn {
    /// Listens on a port of its own.
    ///
    /// # Errors
    /// The page is not built.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let page = checkout("dist");
        anyhow::ensure!(page.join("index.html").is_file(), "the page is not built: run `make page`");
        let (out, _) = broadcast::channel(4096);
        let inner = Inner { workers: vec![worker("worker1", 0)], ..Inner::default() };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), out });
        let policy = HeaderValue::from_static(POLICY);
        let file = |kind: &'static str, text: &'static str| {
            get(async move || ([(header::CONTENT_TYPE, kind)], text))
        };
        let app = Router::new()
            .route("/q/{*path}", get(queue))
            .route("/f/{key}", put(store))
            .route("/sheet.html", file("text/html", include_str!("sheet.html")))
            .route("/sheet.css", file("text/css", include_str!("sheet.css")))
            .route("/sheet.js", file("text/javascript", include_str!("sheet.js")))
            .with_state(shared.clone())
            .fallback_service(ServeDir::new(page))
            .layer(SetResponseHeaderLayer::overriding(header::CONTENT_SECURITY_POLICY, policy));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let mut server = JoinSet::new();
        server.spawn(async move {
            // Ends with the stand-in, which drops it.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { origin, shared, _server: server })
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    fn says(&self, frame: &Value) {
        // Nobody listening is as good as nobody caring.
        let _ = self.shared.out.send(frame.to_string());
    }

    /// Changes a job and tells of it.
    pub(crate) fn set(&self, job: &str, entry: &Value) {
        self.shared.inner().jobs.insert(job.to_owned(), entry.clone());
        self.says(&updates(&json!({ job: entry })));
    }

    /// Lines of a job's log, from the first on.
    pub(crate) fn logs(&self, job: &str, step: &str, lines: &Value) {
        let payload = json!({ "jobId": job, "step": step, "logs": lines, "from": 0 });
        self.says(&json!({ "type": "JobStatusPayload", "payload": payload }));
    }

    /// Ends a job: its result can be read, then it is told.
    pub(crate) fn finish(&self, job: &str, reason: &str, time: u64, result: &Value) {
        let finished = json!({ "type": "Finished", "reason": reason, "time": time, "worker": "gpu-box", "result": result });
        let answer =
            json!({ "data": { "state": "Finished", "finishedReason": reason, "finished": finished } });
        self.shared.inner().results.insert(job.to_owned(), answer);
        self.set(job, &entry("Finished", reason, time));
    }

    pub(crate) fn set_workers(&self, workers: Vec<Value>) {
        self.shared.inner().workers = workers;
        let frame = summary(&self.shared.inner());
        self.says(&frame);
    }

    pub(crate) fn fail_results(&self) {
        self.shared.inner().fails_results = true;
    }

    pub(crate) fn hold_uploads(&self) {
        self.shared.inner().holds_uploads = true;
    }

    pub(crate) fn refuse(&self) {
        self.shared.inner().is_refusing = true;
    }

    pub(crate) fn keep_jobs(&self) {
        self.shared.inner().keeps_jobs = true;
    }

    /// Waits for as many sockets, and for the job that was submitted first.
    ///
    /// # Errors
    /// They did not come.
    pub(crate) async fn job(&self, sockets: usize) -> anyhow::Result<String> {
        wait::until("the frames and their job", wait::PATIENT, async || {
            let inner = self.shared.inner();
            let job = inner.submissions.first().filter(|_| inner.sockets >= sockets);
            job.cloned().ok_or_else(|| format!("{} sockets, {:?}", inner.sockets, inner.submissions))
        })
        .await
    }
}

/// An entry of the table.
pub(crate) fn entry(state: &str, reason: &str, time: u64) -> Value {
    let worker = if state == "Queued" { "" } else { "gpu-box" };
    let mut entry = json!({
        "queuedTime": time, "state": state, "time": time, "worker": worker, "namespaces": ["_"],
    });
    if state == "Running" {
        entry["attempt"] = json!(1);
    }
    if !reason.is_empty() {
        entry["finishedReason"] = json!(reason);
    }
    entry
}

/// A machine.
pub(crate) fn worker(id: &str, gpus: u32) -> Value {
    json!({ "id": id, "version": "0.1.0", "cpus": 4, "gpus": gpus, "time": now(), "maxJobDuration": "5m" })
}

/// Now, as the protocol counts: milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn updates(jobs: &Value) -> Value {
    json!({ "type": "JobStateUpdates", "payload": { "state": { "jobs": jobs }, "isSubset": true } })
}

fn summary(inner: &Inner) -> Value {
    let count = |state: &str| inner.jobs.values().filter(|job| job["state"] == state).count();
    let sum = |field: &str| inner.workers.iter().filter_map(|worker| worker[field].as_f64()).sum::<f64>();
    let payload = json!({
        "queued": count("Queued"), "running": count("Running"), "workers": inner.workers.len(),
        "cpus": sum("cpus"), "gpus": sum("gpus"), "freeCpus": sum("cpus"), "freeGpus": sum("gpus"),
    });
    json!({ "type": "QueueSummary", "payload": payload })
}

async fn queue(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<String>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if let Ok(upgrade) = upgrade {
        if shared.inner().is_refusing {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        return upgrade.on_upgrade(async move |socket| serve(&shared, socket).await);
    }
    let inner = shared.inner();
    match path.strip_suffix("/result.json").and_then(|path| path.rsplit_once("/j/")) {
        Some(_) if inner.fails_results => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some((_, job)) => axum::Json(inner.results.get(job).cloned().unwrap_or_default()).into_response(),
        None => axum::Json(json!({ "data": inner.jobs })).into_response(),
    }
}

async fn store(State(shared): State<Arc<Shared>>) -> StatusCode {
    while shared.inner().holds_uploads {
        tokio::time::sleep(HELD).await;
    }
    StatusCode::OK
}

/// One socket, from its opening to its end.
async fn serve(shared: &Shared, mut socket: WebSocket) {
    let mut out = shared.out.subscribe();
    let hello = json!({ "relay": "stand-in/1", "epoch": "e", "maxWatched": 256, "maxFrameBytes": 4_194_304 });
    let first = {
        let mut inner = shared.inner();
        inner.sockets += 1;
        [json!({ "type": "Hello", "payload": hello }), summary(&inner)]
    };
    let mut answers: Vec<String> = first.iter().map(Value::to_string).collect();
    loop {
        for text in std::mem::take(&mut answers) {
            if socket.send(Message::text(text)).await.is_err() {
                return;
            }
        }
        answers = tokio::select! {
            frame = socket.recv() => match frame {
                Some(Ok(Message::Text(text))) => hear(shared, text.as_str()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => Vec::new(),
            },
            frame = out.recv() => frame.into_iter().collect(),
        };
    }
}

/// What is answered to a frame.
fn hear(shared: &Shared, text: &str) -> Vec<String> {
    if text == "PING" {
        return vec!["PONG".to_owned()];
    }
    let mut inner = shared.inner();
    let frame: Value = serde_json::from_str(text).unwrap_or_default();
    let payload = &frame["payload"];
    let answers = match frame["type"].as_str() {
        Some("Watch") => {
            let named = payload["jobs"].as_object().cloned().unwrap_or_default();
            let entry = |(job, _)| {
                let entry = inner.jobs.get(&job).cloned().unwrap_or_default();
                (job, entry)
            };
            let entries: Map<String, Value> = named.into_iter().map(entry).collect();
            let mut answers = vec![updates(&Value::Object(entries))];
            if payload["workers"] == true {
                answers.push(json!({ "type": "Workers", "payload": { "workers": inner.workers } }));
            }
            answers
        }
        Some("StateChange") => changed(&mut inner, payload).unwrap_or_default(),
        _ => Vec::new(),
    };
    answers.iter().map(Value::to_string).collect()
}

/// A submission makes an entry that waits, unless there is one; an ending takes it away.
fn changed(inner: &mut Inner, change: &Value) -> anyhow::Result<Vec<Value>> {
    let job = change["job"].as_str().context("no job")?.to_owned();
    let mut answers = Vec::new();
    match change["value"]["reason"].as_str() {
        None => {
            inner.submissions.push(job.clone());
            let entry = inner.jobs.entry(job.clone()).or_insert_with(|| entry("Queued", "", now()));
            answers.push(updates(&json!({ &job: entry })));
        }
        Some(_) if inner.keeps_jobs => {}
        Some(reason) => {
            inner.jobs.remove(&job);
            answers.push(updates(&json!({ &job: entry("Finished", reason, now()) })));
        }
    }
    answers.push(json!({ "type": "Done", "payload": { "ref": change["ref"], "jobId": job } }));
    Ok(answers)
}
