//! A relay for one test, and peers that speak to it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use dockframe_relay::page::{Asset, Page};
use dockframe_relay::{BlobAddress, Config, Relay, StoreAddress};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

/// Nothing that is promised at once takes longer, on the busiest machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) static PAGE: &[Asset] = &[
    Asset {
        path: "index.html",
        content_type: "text/html; charset=utf-8",
        immutable: false,
        identity: b"<!doctype html><html><head><title>start page</title></head></html>",
        brotli: None,
        gzip: None,
    },
    Asset {
        path: "app-0123456789abcdef.js",
        content_type: "text/javascript",
        immutable: true,
        identity: b"plain",
        brotli: Some(b"as brotli"),
        gzip: Some(b"as gzip"),
    },
    Asset {
        path: "metaframe.json",
        content_type: "application/json",
        immutable: false,
        identity: b"{\"version\":\"1\"}",
        brotli: None,
        gzip: None,
    },
];

pub(crate) struct TestRelay {
    pub(crate) address: String,
    folder: TempDir,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
    change: fn(&mut Config),
}

impl TestRelay {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: fn(&mut Config)) -> Self {
        static CRYPTO: Once = Once::new();
        CRYPTO.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let folder = tempfile::tempdir().unwrap();
        let mut relay =
            Self { address: String::new(), folder, stop: CancellationToken::new(), serving: None, change };
        relay.serve().await;
        relay
    }

    /// A relay that somebody else started.
    pub(crate) fn at(address: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { address, folder, stop: CancellationToken::new(), serving: None, change: |_| {} }
    }

    async fn serve(&mut self) {
        let root = self.folder.path();
        let mut config = Config::new(
            StoreAddress::Embedded(root.join("store")),
            BlobAddress::Directory(root.join("blobs")),
        );
        (self.change)(&mut config);
        let relay = Relay::open(config, Page { assets: PAGE }).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.address = listener.local_addr().unwrap().to_string();
        self.stop = CancellationToken::new();
        let stop = self.stop.clone();
        self.serving = Some(tokio::spawn(async move { relay.serve(listener, stop).await.unwrap() }));
    }

    /// The process ends and another one takes over the same data.
    pub(crate) async fn restart(&mut self) {
        self.stop.cancel();
        self.serving.take().unwrap().await.unwrap();
        self.serve().await;
    }

    /// The process ends; its data stays as long as this is kept.
    pub(crate) async fn end(&self) {
        self.stop.cancel();
        while self.serving.as_ref().is_some_and(|serving| !serving.is_finished()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        http().get(self.url(path)).send().await.unwrap()
    }

    pub(crate) async fn get_json(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        http().post(self.url(path)).body(body.to_string()).send().await.unwrap()
    }

    pub(crate) async fn submit(&self, queue: &str, body: Value) -> String {
        let answer: Value = self.post(&format!("/q/{queue}"), &body).await.json().await.unwrap();
        answer["jobId"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    pub(crate) async fn client(&self, queue: &str) -> Peer {
        let mut peer =
            Peer::connect(&self.address, &format!("/q/{queue}/client?protocol=watch/1"), &[]).await;
        peer.expect("Hello").await;
        peer.expect("QueueSummary").await;
        peer
    }

    pub(crate) async fn lease_socket(&self, queue: &str) -> Peer {
        Peer::connect(&self.address, &format!("/q/{queue}/worker"), &[("dockframe-protocol", "lease/1")])
            .await
    }

    pub(crate) async fn worker(&self, queue: &str, id: &str) -> Peer {
        let mut peer = self.lease_socket(queue).await;
        peer.send(&registration(id, &[])).await;
        peer.expect("Hello").await;
        peer
    }
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn http() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(SOON).build().unwrap()
}

pub(crate) fn registration(id: &str, leases: &[&str]) -> Value {
    let leases: Vec<Value> =
        leases.iter().map(|lease| json!({ "leaseId": lease, "phase": "running" })).collect();
    json!({ "type": "WorkerRegistration", "payload": {
        "time": 1, "version": "1.0.0", "id": id, "instance": format!("{id}-process"), "cpus": 1, "gpus": 0,
        "maxJobDuration": "20m", "leases": leases,
    }})
}

pub(crate) fn finish(lease: &str, text: &str) -> Value {
    json!({ "type": "LeaseFinish", "payload": { "leaseId": lease, "value": {
        "type": "Finished", "reason": "Success", "worker": "w", "time": 5,
        "result": { "StatusCode": 0, "logs": [[text, 4]], "duration": 1, "isTimedOut": false,
            "outputs": { "o.txt": { "type": "utf8", "value": text } } },
    }}})
}

pub(crate) fn accept(lease: &str) -> Value {
    json!({ "type": "LeaseAccept", "payload": { "leaseId": lease } })
}

pub(crate) fn logs(lease: &str, from: u64, lines: &[&str]) -> Value {
    let lines: Vec<Value> = lines.iter().map(|line| json!([line, 3])).collect();
    json!({ "type": "JobStatusLogs", "payload": {
        "jobId": "whatever", "step": "Running", "logs": lines, "leaseId": lease, "from": from } })
}

pub(crate) fn queued(job: &str, namespace: &str, reference: &str) -> Value {
    json!({ "type": "StateChange", "payload": { "tag": "", "state": "Queued", "job": job, "ref": reference,
        "value": { "type": "Queued", "time": 1, "enqueued": { "id": job,
            "definition": { "image": "a", "command": job }, "control": { "namespace": namespace } } } } })
}

pub(crate) fn ended(job: &str, reason: &str, namespace: Option<&str>) -> Value {
    let mut value = json!({ "type": "Finished", "reason": reason, "time": 1 });
    if let Some(namespace) = namespace {
        value["namespace"] = json!(namespace);
    }
    json!({ "type": "StateChange", "payload": { "tag": "", "state": "Finished", "job": job, "ref": "end",
        "value": value } })
}

pub(crate) fn watch(jobs: &[&str]) -> Value {
    let jobs: serde_json::Map<String, Value> =
        jobs.iter().map(|job| ((*job).to_owned(), json!({ "build": 0, "run": 0 }))).collect();
    json!({ "type": "Watch", "payload": { "jobs": jobs } })
}

/// One socket, with what came and was not looked at yet.
pub(crate) struct Peer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    waiting: VecDeque<Value>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Peer {
    pub(crate) async fn connect(address: &str, path: &str, headers: &[(&'static str, &str)]) -> Self {
        Self::try_connect(address, path, headers).await.unwrap()
    }

    pub(crate) async fn try_connect(
        address: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Box<Error>> {
        let mut request = format!("ws://{address}{path}").into_client_request().map_err(Box::new)?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, response) = tokio_tungstenite::connect_async(request).await.map_err(Box::new)?;
        let headers = response.headers().iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        Ok(Self { socket, waiting: VecDeque::new(), headers })
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next frame as JSON; a word as a text.
    pub(crate) async fn next(&mut self) -> Value {
        if let Some(frame) = self.waiting.pop_front() {
            return frame;
        }
        self.receive().await
    }

    async fn receive(&mut self) -> Value {
        loop {
            let message = tokio::time::timeout(SOON, self.socket.next()).await.expect("no frame came");
            match message.expect("the socket closed").unwrap() {
                Message::Text(text) => {
                    return serde_json::from_str(text.as_str()).unwrap_or_else(|_| json!(text.as_str()));
                }
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// The payload of the next frame of this type. Others stay for later.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        if let Some(at) = self.waiting.iter().position(|frame| frame["type"] == kind) {
            return self.waiting.remove(at).unwrap()["payload"].take();
        }
        loop {
            let mut frame = self.receive().await;
            if frame["type"] == kind {
                return frame["payload"].take();
            }
            self.waiting.push_back(frame);
        }
    }

    /// Waits for the job to be told in this state, and gives it.
    pub(crate) async fn expect_state(&mut self, job: &str, state: &str) -> Value {
        loop {
            let mut update = self.expect("JobStateUpdates").await;
            let told = update["state"]["jobs"][job].take();
            if told["state"] == state {
                return told;
            }
        }
    }

    /// All that has come by the time that a `PING` is answered.
    pub(crate) async fn drain(&mut self) -> Vec<Value> {
        self.send_text("PING").await;
        loop {
            let frame = self.receive().await;
            let is_pong = frame.as_str().is_some_and(|word| word.starts_with("PONG"));
            if is_pong {
                return self.waiting.drain(..).collect();
            }
            self.waiting.push_back(frame);
        }
    }

    /// Asks for a sign of life until it is this word; `false`: the socket ended instead.
    pub(crate) async fn expect_word_or_end(&mut self, word: &str) -> bool {
        loop {
            if self.socket.send(Message::text("PING")).await.is_err() {
                return false;
            }
            loop {
                match tokio::time::timeout(SOON, self.socket.next()).await.expect("no frame came") {
                    Some(Ok(Message::Text(text))) if text.as_str() == word => return true,
                    Some(Ok(Message::Text(text))) if text.as_str().starts_with("PONG") => break,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
                    Some(Ok(_)) => {}
                }
            }
        }
    }

    pub(crate) async fn expect_close(&mut self) -> Option<u16> {
        loop {
            match tokio::time::timeout(SOON, self.socket.next()).await.expect("still open") {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub(crate) async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        self.socket.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}
