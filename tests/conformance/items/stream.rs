//! The event stream of a job (`relay-protocol` 2.11).

use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::check::{same, same_json, that};
use crate::peers::client::Client;
use crate::peers::http::Http;
use crate::peers::worker::{Worker, result};
use crate::registry::{Item, item};
use crate::test::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.17",
            Compat,
            "The stream replays what is known, reports what comes, and ends with final.",
            stream
        ),
        item!(
            "R-18",
            Dockframe,
            "The stream pushes at once, keeps itself alive, and ends for an unknown job.",
            pushed
        )
        .long(),
    ]
}

/// Reads a stream to its end, and gives its events and all its text.
async fn read(http: &Http, path: &str, limit: Duration) -> anyhow::Result<(Vec<(String, Value)>, String)> {
    let answer = http.open(path).await?;
    same("status of the stream", &answer.status().as_u16(), &200)?;
    let header =
        |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let media = header("content-type").unwrap_or_default();
    that("text/event-stream", media.starts_with("text/event-stream"), &media)?;
    same("Cache-Control", &header("cache-control"), &Some("no-cache".to_owned()))?;
    let mut text = String::new();
    let all = async {
        let mut body = answer.bytes_stream();
        while let Some(chunk) = body.next().await {
            text.push_str(&String::from_utf8_lossy(&chunk?));
        }
        anyhow::Ok(())
    };
    let ended = tokio::time::timeout(limit, all).await;
    ended.map_err(|_| anyhow::anyhow!("expected the end of {path} within {limit:?}; came {text:?}"))??;
    let mut events = Vec::new();
    for block in text.split("\n\n") {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        if let Some(kind) = field("event: ") {
            let data = field("data: ").context("an event without data")?;
            events.push((kind.to_owned(), serde_json::from_str(data)?));
        }
    }
    Ok((events, text))
}

/// Joins the lines of each kind, and leaves out states that were shown in between: a fast job may skip them.
fn summary(events: &[(String, Value)]) -> Value {
    let lines = |kind: &str| {
        let all = events.iter().filter(|(name, _)| name == kind);
        all.flat_map(|(_, data)| data["lines"].as_array().cloned().unwrap_or_default()).collect::<Vec<_>>()
    };
    let last = events.last().map(|(kind, data)| json!([kind, data]));
    json!({ "build": lines("build-log"), "run": lines("run-log"), "last": last })
}

fn expected() -> Value {
    json!({ "build": [["b1\n", 1]], "run": [["r1\n", 2], ["e1\n", 3, true]],
        "last": ["final", { "state": "Finished", "reason": "Success" }] })
}

async fn run(t: &Test, queue: &str, id: &str) -> anyhow::Result<()> {
    let worker = Worker::join(t, queue).await?;
    // Each state lasts longer than the rounds of a relay that looks.
    tokio::time::sleep(Duration::from_millis(700)).await;
    worker.claim(id).await?;
    worker.log(id, "docker build", &json!([["b1\n", 1]])).await?;
    worker.log(id, "Running", &json!([["r1\n", 2]])).await?;
    worker.log(id, "Running", &json!([["e1\n", 3, true]])).await?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    worker.finish(id, "Success", &result("out")).await
}

async fn stream(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let id = http.submit(&queue, &Test::job()).await?;
    let path = format!("/q/{queue}/j/{id}/stream");
    let limit = Duration::from_secs(20);
    let (live, ran) = tokio::join!(read(&http, &path, limit), run(&t, &queue, &id));
    ran?;
    let (live, _) = live?;
    same_json("the live stream", &summary(&live), &expected())?;
    let states: Vec<_> =
        live.iter().filter(|(kind, _)| kind == "state").map(|(_, data)| data["state"].clone()).collect();
    same("states", &states, &vec![json!("Queued"), json!("Running"), json!("Finished")])?;
    let cursor =
        live.iter().rev().find(|(kind, _)| kind == "run-log").map(|(_, data)| data["cursor"].clone());
    same("cursor", &cursor, &Some(json!(2)))?;
    let (again, _) = read(&http, &path, limit).await?;
    same_json("the stream of a finished job", &summary(&again), &expected())?;
    let kinds: Vec<_> = again.iter().map(|(kind, _)| kind.as_str()).collect();
    same("its events", &kinds, &vec!["build-log", "run-log", "state", "final"])?;
    // Under another queue's name it is the same: the answer is shared.
    let (elsewhere, _) = read(&http, &format!("/q/{}/j/{id}/stream", t.queue()), limit).await?;
    same_json("the stream elsewhere", &summary(&elsewhere), &expected())?;
    // A cancelled job ends its stream too.
    let id = http.submit(&queue, &Test::job()).await?;
    let path = format!("/q/{queue}/j/{id}/stream");
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        http.cancel(&queue, &id, "").await
    };
    let (cancelled, answer) = tokio::join!(read(&http, &path, limit), cancel);
    answer?.is(200)?;
    let last = cancelled?.0.pop().context("no event of a cancelled job")?;
    same_json(
        "its last event",
        &json!([last.0, last.1]),
        &json!(["final", { "state": "Finished", "reason": "Cancelled" }]),
    )
}

async fn pushed(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    // An unknown job: a comment every 15 s, and an end after a minute.
    let path = format!("/q/{queue}/j/{}/stream", Test::nonce());
    let unknown = read(&http, &path, Duration::from_secs(80));
    let id = http.submit(&queue, &Test::job()).await?;
    let client = Client::join(&t, &queue).await?;
    let path = format!("/q/{queue}/j/{id}/stream");
    let deleted = async {
        let delete = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            client.end(&id, "Deleted", None).await
        };
        let (events, sent) = tokio::join!(read(&http, &path, Duration::from_secs(20)), delete);
        sent?;
        anyhow::Ok(events?.0)
    };
    let (unknown, deleted) = tokio::join!(unknown, deleted);
    let kinds: Vec<_> = deleted?.into_iter().map(|(kind, _)| kind).collect();
    same("last event of a deleted job", &kinds.last().map(String::as_str), &Some("final"))?;
    let (events, text) = unknown?;
    let last = events.last().map(|(kind, data)| json!([kind, data]));
    same(
        "last event of an unknown job",
        &last,
        &Some(json!(["final", { "state": "Unknown", "reason": "Job not found" }])),
    )?;
    that("comments that keep it alive", text.lines().any(|line| line.starts_with(':')), &text)
}
