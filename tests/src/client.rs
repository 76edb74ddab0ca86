//! A client of the relay's public protocol, over HTTP and over the watching socket (`relay-protocol` 2 and 3.13).
//!
//! It reads plain JSON, not the product's types: what is on the wire is what is checked.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::wait;

/// How long a single answer may take.
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
}

impl Client {
    /// # Errors
    /// No HTTP client can be made.
    pub fn new(base: &str) -> anyhow::Result<Self> {
        // One provider for the process; that it is there already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(ANSWER).build()?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), http })
    }

    /// # Errors
    /// The relay is not ready.
    pub async fn health(&self) -> anyhow::Result<()> {
        let answer = self.http.get(format!("{}/healthz", self.base)).send().await?;
        anyhow::ensure!(answer.status() == StatusCode::OK, "/healthz answers {}", answer.status());
        let text = answer.text().await?;
        anyhow::ensure!(text == "OK", "/healthz says {text:?}");
        Ok(())
    }

    /// A path as it is answered, redirects followed.
    ///
    /// # Errors
    /// No answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        self.http
            .get(format!("{}{path}", self.base))
            .send()
            .await
            .with_context(|| format!("no answer to {path}"))
    }

    /// A path's JSON.
    ///
    /// # Errors
    /// No answer, another status than 200, no JSON.
    pub async fn json(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.get(path).await?;
        let (status, text) = (answer.status(), answer.text().await?);
        anyhow::ensure!(status == StatusCode::OK, "{path} answers {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("{path} answers no JSON: {text}"))
    }

    /// Submits a definition and gives the job's id.
    ///
    /// # Errors
    /// It is refused.
    pub async fn submit(&self, queue: &str, definition: &Value) -> anyhow::Result<String> {
        let url = format!("{}/q/{queue}", self.base);
        let answer = self.http.post(url).json(&json!({ "definition": definition })).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        anyhow::ensure!(status == StatusCode::OK, "the job is refused with {status}: {text}");
        let answer: Value = serde_json::from_str(&text)?;
        let id = answer["jobId"].as_str().filter(|_| answer["success"] == true);
        Ok(id.with_context(|| format!("the relay answers {text}"))?.to_owned())
    }

    /// Posts JSON, and gives the JSON that it is answered with.
    ///
    /// # Errors
    /// It is refused, or the answer is no JSON.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.post_any(path, body).await?;
        let (status, text) = (answer.status(), answer.text().await?);
        anyhow::ensure!(status == StatusCode::OK, "{path} answers {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Posts JSON, whatever the answer is.
    ///
    /// # Errors
    /// No answer.
    pub async fn post_any(&self, path: &str, body: &Value) -> anyhow::Result<reqwest::Response> {
        let request = self.http.post(format!("{}{path}", self.base)).json(body);
        // As a client of MCP says that it reads both.
        let request = request.header("accept", "application/json, text/event-stream");
        request.send().await.with_context(|| format!("no answer to {path}"))
    }

    /// Uploads a file.
    ///
    /// # Errors
    /// It is refused.
    pub async fn put(&self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        let answer = self.http.put(format!("{}{path}", self.base)).body(content.to_vec()).send().await?;
        anyhow::ensure!(answer.status().is_success(), "{path} answers {}", answer.status());
        Ok(())
    }

    /// Cancels a job in the default namespace.
    ///
    /// # Errors
    /// No answer.
    pub async fn cancel(&self, queue: &str, id: &str) -> anyhow::Result<Value> {
        let url = format!("{}/q/{queue}/j/{id}/cancel", self.base);
        Ok(self.http.post(url).send().await?.json().await?)
    }

    /// The jobs of a queue, by id.
    ///
    /// # Errors
    /// No answer.
    pub async fn jobs(&self, queue: &str) -> anyhow::Result<Value> {
        Ok(self.json(&format!("/q/{queue}")).await?["data"].take())
    }

    /// The state's name in the list of the queue.
    ///
    /// # Errors
    /// No answer.
    pub async fn state(&self, queue: &str, id: &str) -> anyhow::Result<Option<String>> {
        Ok(self.jobs(queue).await?[id]["state"].as_str().map(str::to_owned))
    }

    /// Waits for a state by its name.
    ///
    /// # Errors
    /// It did not come; the message has the last one seen.
    pub async fn reaches(&self, queue: &str, id: &str, wanted: &str) -> anyhow::Result<()> {
        wait::until(&format!("the state {wanted}"), wait::PATIENT, async || {
            match self.state(queue, id).await {
                Ok(Some(state)) if state == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// The finished job, or `None` while there is no result.
    ///
    /// # Errors
    /// No answer.
    pub async fn result(&self, queue: &str, id: &str) -> anyhow::Result<Option<Value>> {
        let data = self.json(&format!("/q/{queue}/j/{id}/result.json")).await?["data"].take();
        Ok((!data.is_null()).then_some(data))
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// It did not come; the message has the queue's list as it was last.
    pub async fn finished(&self, queue: &str, id: &str) -> anyhow::Result<Value> {
        wait::until("the job's result", wait::PATIENT, async || match self.result(queue, id).await {
            Ok(Some(result)) => Ok(result),
            Ok(None) => Err(format!("{:?}", self.jobs(queue).await)),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    /// The watching socket of a queue.
    ///
    /// # Errors
    /// The relay refuses it, or does not speak `watch/1`.
    pub async fn watch(&self, queue: &str) -> anyhow::Result<Watcher> {
        let base = self.base.replacen("http", "ws", 1);
        let url = format!("{base}/q/{queue}/client?protocol=watch/1");
        let (socket, _) =
            tokio_tungstenite::connect_async(&url).await.context("the relay refuses the socket")?;
        let mut watcher = Watcher { socket };
        let hello = watcher.next().await?;
        anyhow::ensure!(hello["type"] == "Hello", "the first frame is no Hello: {hello}");
        Ok(watcher)
    }
}

/// A socket that hears of the jobs it named.
#[derive(Debug)]
pub struct Watcher {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Watcher {
    /// # Errors
    /// The socket is closed.
    pub async fn send(&mut self, kind: &str, payload: &Value) -> anyhow::Result<()> {
        let text = json!({ "type": kind, "payload": payload }).to_string();
        Ok(self.socket.send(Message::text(text)).await?)
    }

    /// The next JSON frame.
    ///
    /// # Errors
    /// None came in time, or the socket closed.
    pub async fn next(&mut self) -> anyhow::Result<Value> {
        let next = async {
            loop {
                let frame = self.socket.next().await.context("the relay closed the socket")??;
                match frame {
                    Message::Text(text) if text.starts_with('{') => return Ok(serde_json::from_str(&text)?),
                    Message::Close(frame) => anyhow::bail!("the relay closed the socket: {frame:?}"),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(wait::PATIENT, next).await.context("no frame came")?
    }

    /// The first frame for which `pick` gives something; the others are dropped.
    ///
    /// # Errors
    /// None came in time, or the socket closed.
    pub async fn find<T>(&mut self, mut pick: impl FnMut(&Value) -> Option<T>) -> anyhow::Result<T> {
        let find = async {
            loop {
                if let Some(found) = pick(&self.next().await?) {
                    return Ok(found);
                }
            }
        };
        tokio::time::timeout(wait::PATIENT, find).await.context("the wanted frame did not come")?
    }

    /// The next state of a job: its object, or `null`.
    ///
    /// # Errors
    /// None came in time, or the socket closed.
    pub async fn job(&mut self, id: &str) -> anyhow::Result<Value> {
        self.find(|frame| {
            let job = frame["payload"]["state"]["jobs"].as_object()?.get(id)?;
            (frame["type"] == "JobStateUpdates").then(|| job.clone())
        })
        .await
    }
}
