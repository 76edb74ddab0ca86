//! A queue's name is a secret: after everything that can be done with one it is in no log, metric, stored file, name
//! of a file, or text of a crash (`jobs-and-states` 9, 12). That the search finds what is there is shown by words that
//! are planted on purpose.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dockframe_tests::client::Client;
use dockframe_tests::player::Player;
use dockframe_tests::redis::Redis;
use dockframe_tests::relay::{Relay, Store};
use dockframe_tests::scenario::{self, Scenario};
use dockframe_tests::{ports, wait};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// Frames that no peer should send.
const ODD_FRAMES: [&str; 12] = [
    "",
    "undefined",
    "{",
    "{}",
    "[1]",
    "{\"type\":\"StateChange\"}",
    "{\"type\":\"StateChange\",\"payload\":{\"job\":{},\"state\":\"Queued\",\"value\":7}}",
    "{\"type\":\"QueryJob\",\"payload\":{\"jobId\":[\"constructor\"]}}",
    "{\"type\":\"Watch\",\"payload\":{\"jobs\":{\"\":{\"run\":-1}},\"ref\":\"r\"}}",
    "{\"type\":\"WorkerRegistration\",\"payload\":{\"id\":\"\",\"cpus\":1e999}}",
    "{\"type\":\"LeaseFinish\",\"payload\":{\"leaseId\":\"x\",\"value\":[[[[]]]]}}",
    "{\"type\":\"RequestJobDefinitions\",\"payload\":{\"jobIds\":\"all\"}}",
];

#[test]
fn a_queues_name_is_nowhere_after_everything() {
    scenario::run("a_queues_name_is_nowhere_after_everything", async |scenario| {
        search_after_everything(&scenario, &Store::Embedded).await
    });
}

#[test]
fn a_queues_name_is_nowhere_after_everything_on_redis() {
    scenario::run("a_queues_name_is_nowhere_after_everything_on_redis", async |scenario| {
        let redis = Redis::start(scenario.folder()).await?;
        search_after_everything(&scenario, &Store::from(&redis)).await
    });
}

async fn search_after_everything(scenario: &Arc<Scenario>, store: &Store) -> anyhow::Result<()> {
    let random = || uuid::Uuid::new_v4().simple().to_string();
    let (key, planted) = (format!("canary{}", random()), format!("planted{}", random()));
    let metrics_at = ports::free()?;
    let words = ["--allow-private-callbacks", "--metrics-listen", &metrics_at.to_string()];
    let relay = Relay::start_logging(scenario, "relay", store, &words, "debug,dockframe_relay=trace").await?;
    let client = relay.client()?;

    everything(&relay, &client, &key, &planted).await?;
    let mut metrics = metrics_of(metrics_at).await?;
    relay.kill().await?;
    relay.start_again().await?;
    everything(&relay, &client, &key, &planted).await?;
    metrics.push_str(&metrics_of(metrics_at).await?);
    relay.stop().await?;

    // What was asked for was counted, so the metrics say something.
    for counted in ["dockframe_relay_submissions_total ", "dockframe_relay_refused_total{why=\"Frame\"} "] {
        let line = metrics.lines().rev().find(|line| line.starts_with(counted)).unwrap_or_default();
        anyhow::ensure!(!line.is_empty() && !line.ends_with(" 0"), "{counted}: {metrics}");
    }
    let log = std::fs::read_to_string(scenario.folder().join("relay.log"))?;
    anyhow::ensure!(log.contains("a callback is given up"), "nothing was given up: {log}");
    anyhow::ensure!(log.contains("a frame was dropped"), "no frame was dropped");

    // The search finds what is there: in a document, in a file's content.
    let found = files_with(scenario.folder(), &planted)?;
    anyhow::ensure!(found.len() >= 2, "the planted word was found in {found:?} only");
    let hits = files_with(scenario.folder(), &key)?;
    scenario.tell(&format!(
        "{} files, {} bytes of log, {} of metrics: planted word in {} files, the queue's name in {}",
        files(scenario.folder())?.len(),
        log.len(),
        metrics.len(),
        found.len(),
        hits.len()
    ));
    anyhow::ensure!(hits.is_empty(), "the queue's name is in {hits:?}");
    anyhow::ensure!(!metrics.contains(&key), "the queue's name is in the metrics");
    Ok(())
}

/// What people, pages, workers and strangers do with a queue.
async fn everything(relay: &Relay, client: &Client, key: &str, planted: &str) -> anyhow::Result<()> {
    let mut receiver = Receiver::start().await?;
    let nobody = ports::free()?;
    let callbacks = json!({
        "queued": { "url": format!("http://{nobody}/nobody"), "payload": { "x": 1 } },
        "finished": { "url": format!("http://{}/gone", receiver.address) },
    });
    let control = json!({ "namespace": "n", "callbacks": callbacks });
    let env = json!({ "PLANTED": planted, "NONCE": uuid::Uuid::new_v4().simple().to_string() });
    let definition = json!({ "image": "a", "command": "x", "env": env });
    let submission = json!({ "definition": definition, "control": control });

    // Over HTTP, well and badly.
    let answer = client.post(&format!("/q/{key}"), &submission).await?;
    let job = answer["jobId"].as_str().unwrap_or_default().to_owned();
    anyhow::ensure!(!job.is_empty(), "{answer}");
    for odd in [
        json!(null),
        json!([]),
        json!({ "definition": 7 }),
        json!({ "id": [1], "definition": {} }),
        json!({ "definition": { "inputs": { "a": null } } }),
        json!({ "definition": {}, "control": { "namespace": "*" } }),
        json!({ "definition": {}, "control": { "namespace": {} } }),
    ] {
        client.post_any(&format!("/q/{key}"), &odd).await?;
    }
    client.post_any(&format!("/j/{job}/copy"), &json!({ "queue": key, "control": {} })).await?;
    client
        .post_any(
            "/mcp",
            &json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "list_jobs", "arguments": { "queue": key } } }),
        )
        .await?;
    for path in [
        String::new(),
        "/j".into(),
        "/status".into(),
        "/metrics".into(),
        "/nothing".into(),
        "%zz".into(),
        format!("/j/{job}"),
        format!("/j/{job}/result.json"),
        format!("/j/{job}/run-logs.json?since=x"),
        format!("/j/{job}/outputs/none"),
        format!("/j/{job}/inputs/"),
        "/j/%00".into(),
        "?limit=x".into(),
        format!("/j/{job}/stream"),
        format!("/j/{job}/namespaces.json"),
        format!("/j/{job}/history.json"),
    ] {
        client.get(&format!("/q/{key}{path}")).await?;
    }
    for path in [format!("/{key}/status"), format!("/{key}/metrics"), format!("/{key}/client")] {
        client.get(&path).await?;
    }
    raw(relay, &format!("POST /q/{key} HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{{\"broken\""))
        .await?;
    raw(relay, &format!("BREW /q/{key} HTTP/9\r\n\r\n")).await?;
    client.put(&format!("/f/file-{planted}"), planted.as_bytes()).await?;

    // Over sockets of every kind.
    for path in ["client?protocol=watch/1", "client", "worker", "browser", "nothing"] {
        odd_frames(relay, &format!("/q/{key}/{path}")).await;
        odd_frames(relay, &format!("/{key}/{path}")).await;
    }
    let mut worker = Player::join(&relay.url(), key, "worker", 1, &[]).await?;
    worker.send("LeaseFinish", json!({ "leaseId": "unknown", "value": "odd" }));
    worker.send("LeaseDecline", json!({ "leaseId": "unknown", "why": "x", "retry": "never" }));
    let (lease, granted) = worker.take().await?;
    worker.log(&lease, &granted, 0, planted);
    anyhow::ensure!(worker.finish(&lease, planted).await?, "the result is not recorded");
    client.finished(key, &job).await?;

    // The end of a job is told, with the queue's name, to its own receiver, who does not want it.
    let told = receiver.next().await?;
    anyhow::ensure!(told.contains(key), "a callback names its queue: {told}");
    client.post_any(&format!("/q/{key}/j/{job}/cancel?namespace=%zz"), &json!({})).await?;
    client.post_any(&format!("/q/{key}/j/{job}/n/cancel"), &json!({})).await?;
    let given_up = "a callback is given up";
    relay.process().says(given_up, wait::SOON).await?;
    Ok(())
}

async fn odd_frames(relay: &Relay, path: &str) {
    let url = format!("{}{path}", relay.url().replacen("http", "ws", 1));
    let Ok((mut socket, _)) = tokio_tungstenite::connect_async(url).await else { return };
    for frame in ODD_FRAMES {
        drop(socket.send(Message::text(frame)).await);
    }
    drop(socket.send(Message::binary(vec![0, 159, 146, 150])).await);
    drop(socket.send(Message::text("PING")).await);
    let answered = async {
        while let Some(Ok(frame)) = socket.next().await {
            if matches!(&frame, Message::Text(text) if text.starts_with("PONG")) {
                return;
            }
        }
    };
    drop(tokio::time::timeout(wait::SOON, answered).await);
}

/// Bytes that no HTTP client would send.
async fn raw(relay: &Relay, text: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(relay.address()).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    tokio::time::timeout(wait::SOON, stream.read_to_end(&mut answer)).await??;
    Ok(())
}

async fn metrics_of(at: std::net::SocketAddr) -> anyhow::Result<String> {
    let answer = Client::new(&format!("http://{at}"))?.get("/metrics").await?;
    anyhow::ensure!(answer.status() == 200, "metrics: {}", answer.status());
    Ok(answer.text().await?)
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// Files whose content or path has a word in it.
fn files_with(folder: &Path, word: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in files(folder)? {
        let in_name = path.to_string_lossy().contains(word);
        let content = std::fs::read(&path)?;
        if in_name || content.windows(word.len()).any(|window| window == word.as_bytes()) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Takes callbacks, and says each time that nobody is there any more.
struct Receiver {
    address: std::net::SocketAddr,
    told: tokio::sync::mpsc::UnboundedReceiver<String>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    async fn start() -> anyhow::Result<Self> {
        use axum::http::StatusCode;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        let routes = axum::Router::new().fallback(move |body: String| {
            let tell = tell.clone();
            async move {
                drop(tell.send(body));
                StatusCode::GONE
            }
        });
        let task = tokio::spawn(async move { drop(axum::serve(listener, routes).await) });
        Ok(Self { address, told, task })
    }

    async fn next(&mut self) -> anyhow::Result<String> {
        let told = tokio::time::timeout(wait::SOON, self.told.recv()).await?;
        told.ok_or_else(|| anyhow::anyhow!("nothing was told"))
    }
}
