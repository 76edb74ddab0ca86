//! A worker that is played: it speaks `lease/1` (`jobs-and-states` 8) and runs nothing, so a scenario decides what it
//! says and when. It keeps itself registered by itself, and names the leases that it was told to hold.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::wait;

/// How often it says that it is there.
const RENEW: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Dropping it cuts its connection.
#[derive(Debug)]
pub struct Player {
    id: String,
    leases: Arc<Mutex<BTreeSet<String>>>,
    say: mpsc::UnboundedSender<Value>,
    heard: mpsc::UnboundedReceiver<Value>,
    task: JoinHandle<()>,
}

impl Drop for Player {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Player {
    /// Connects, registers with room for so many jobs, and waits for the relay's `Hello`.
    ///
    /// # Errors
    /// The relay refuses, or does not speak `lease/1`.
    pub async fn join(base: &str, queue: &str, id: &str, cpus: u32, held: &[String]) -> anyhow::Result<Self> {
        let url = format!("{}/q/{queue}/worker", base.replacen("http", "ws", 1));
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("dockframe-protocol", HeaderValue::from_static("lease/1"));
        let connected = tokio::time::timeout(wait::SOON, tokio_tungstenite::connect_async(request));
        let (socket, answer) = connected.await.context("no answer to the upgrade")??;
        anyhow::ensure!(answer.headers().contains_key("dockframe-protocol"), "the relay knows no leases");
        let (say, said) = mpsc::unbounded_channel();
        let (tell, heard) = mpsc::unbounded_channel();
        let leases = Arc::new(Mutex::new(held.iter().cloned().collect::<BTreeSet<_>>()));
        let registration = Registration { id: id.to_owned(), cpus, leases: Arc::clone(&leases) };
        let task = tokio::spawn(talk(socket, registration, said, tell));
        let mut player = Self { id: id.to_owned(), leases, say, heard, task };
        player.next("Hello").await?;
        Ok(player)
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the relay says next, of any kind; `None` when the socket is closed.
    pub async fn any(&mut self) -> Option<Value> {
        self.heard.recv().await
    }

    /// The payload of the next message of a kind; others are dropped.
    ///
    /// # Errors
    /// None came in time, or the socket closed.
    pub async fn next(&mut self, kind: &str) -> anyhow::Result<Value> {
        let next = async {
            loop {
                let mut message = self.any().await.context("the relay closed the socket")?;
                if message["type"] == kind {
                    return anyhow::Ok(message["payload"].take());
                }
            }
        };
        tokio::time::timeout(wait::PATIENT, next).await.with_context(|| format!("no {kind} came"))?
    }

    /// Waits for a grant, takes it and holds it: the lease and the job.
    ///
    /// # Errors
    /// None came.
    pub async fn take(&mut self) -> anyhow::Result<(String, String)> {
        let grant = self.next("LeaseGrant").await?;
        let text = |name: &str| grant[name].as_str().unwrap_or_default().to_owned();
        let (lease, job) = (text("leaseId"), text("jobId"));
        self.accept(&lease);
        Ok((lease, job))
    }

    pub fn accept(&self, lease: &str) {
        self.held().insert(lease.to_owned());
        self.send("LeaseAccept", json!({ "leaseId": lease }));
    }

    /// Log lines from a number on.
    pub fn log(&self, lease: &str, job: &str, from: usize, text: &str) {
        let line = json!([text, 1]);
        let payload =
            json!({ "jobId": job, "step": "Running", "logs": [line], "leaseId": lease, "from": from });
        self.send("JobStatusLogs", payload);
    }

    /// Says how a run ended; `text` is its log.
    pub fn report(&self, lease: &str, text: &str) {
        let result = json!({ "StatusCode": 0, "logs": [[text, 1]], "duration": 1, "isTimedOut": false, "outputs": {} });
        let value = json!({ "type": "Finished", "reason": "Success", "worker": self.id, "time": 1, "result": result });
        self.send("LeaseFinish", json!({ "leaseId": lease, "value": value }));
    }

    /// Says how a run ended, and whether that is recorded.
    ///
    /// # Errors
    /// No answer.
    pub async fn finish(&mut self, lease: &str, text: &str) -> anyhow::Result<bool> {
        self.report(lease, text);
        loop {
            let answer = self.next("LeaseFinished").await?;
            if answer["leaseId"] == lease {
                self.forget(lease);
                return Ok(answer["recorded"] == true);
            }
        }
    }

    pub fn forget(&self, lease: &str) {
        self.held().remove(lease);
    }

    /// Any message. Lost when the socket is closed.
    #[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
    pub fn send(&self, kind: &str, payload: Value) {
        drop(self.say.send(json!({ "type": kind, "payload": payload })));
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Registration {
    id: String,
    cpus: u32,
    leases: Arc<Mutex<BTreeSet<String>>>,
}

impl Registration {
    fn message(&self) -> Message {
        let held = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let leases: Vec<Value> =
            held.iter().map(|lease| json!({ "leaseId": lease, "phase": "running" })).collect();
        let payload = json!({ "version": "1.0.0", "id": self.id, "instance": format!("{}-process", self.id),
            "cpus": self.cpus, "gpus": 0, "time": 1, "maxJobDuration": "20m", "leases": leases });
        Message::text(json!({ "type": "WorkerRegistration", "payload": payload }).to_string())
    }
}

async fn talk(
    mut socket: Socket,
    registration: Registration,
    mut said: mpsc::UnboundedReceiver<Value>,
    tell: mpsc::UnboundedSender<Value>,
) {
    let mut renew = tokio::time::interval(RENEW);
    loop {
        let sent = tokio::select! {
            _ = renew.tick() => socket.send(registration.message()).await,
            message = said.recv() => match message {
                Some(message) => socket.send(Message::text(message.to_string())).await,
                None => return,
            },
            frame = socket.next() => match frame {
                Some(Ok(Message::Text(text))) => {
                    if let Ok(message) = serde_json::from_str(&text) {
                        drop(tell.send(message));
                    }
                    Ok(())
                }
                Some(Ok(_)) => Ok(()),
                Some(Err(_)) | None => return,
            },
        };
        if sent.is_err() {
            return;
        }
    }
}
