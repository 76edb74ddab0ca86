//! Definitions, log lines and lists of workers on sockets (`relay-protocol` 3.7, 3.8).

use serde_json::{Value, json};

use crate::check::{LIST_PERIOD, same, same_json, that};
use crate::peers::client::Client;
use crate::peers::socket::Socket;
use crate::peers::worker::{Worker, registration, running, running_at};
use crate::registry::{Item, item};
use crate::test::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.41",
            Compat,
            "A worker that asks for definitions gets the known ones, and nothing when none is known.",
            definitions
        ),
        item!("7.42", Compat, "Lines of a running job go unchanged to clients, others are dropped.", lines),
        item!(
            "7.43",
            Compat,
            "Workers is sent when a worker comes and goes, and its jobs are queued again.",
            workers
        ),
        item!("7.43b", Compat, "A registration is listed with all that it holds.", whole_registration),
        item!(
            "10.2b",
            Compat,
            "A job set back to Queued still takes its result, and a later claim changes nothing.",
            late_result
        ),
        item!("10.2c", Compat, "Of two claims the worker whose id sorts first is shown.", two_claims),
    ]
}

async fn definitions(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let (one, two) = (Test::job(), Test::job());
    let (first, second) = (http.submit(&queue, &one).await?, http.submit(&queue, &two).await?);
    let worker = Worker::join(&t, &queue).await?;
    let ask = |ids: Value| json!({ "type": "RequestJobDefinitions", "payload": { "jobIds": ids } });
    let mark = worker.mark();
    worker.send(&ask(json!([first, Test::nonce(), second]))).await?;
    let came = worker.message(mark, "BroadcastJobDefinitions").await?;
    same_json("definitions", &came, &json!({ "definitions": { first: one, second: two } }))?;
    let mark = worker.mark();
    worker.send(&ask(json!([Test::nonce()]))).await?;
    worker.settle().await?;
    same("answers about unknown jobs", &worker.payloads(mark, "BroadcastJobDefinitions"), &vec![])
}

async fn lines(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let clients = [Client::join(&t, &queue).await?, Client::join(&t, &queue).await?];
    let (owner, stranger) = (Worker::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let id = clients[0].submit(&Test::job(), None).await?;
    owner.state(&id, "Queued").await?;
    owner.log(&id, "docker build", &json!([["not running\n", 1]])).await?;
    owner.claim(&id).await?;
    stranger.state(&id, "Running").await?;
    stranger.log(&id, "Running", &json!([["not mine\n", 1]])).await?;
    stranger.settle().await?;
    let sent = [
        json!({ "jobId": id, "step": "docker image pull", "logs": [["b1\n", 3]] }),
        json!({ "jobId": id, "step": "Running", "logs": [["r1\n", 4], ["e1", 5, true]] }),
    ];
    for payload in &sent {
        owner.send(&json!({ "type": "JobStatusLogs", "payload": payload })).await?;
    }
    for client in &clients {
        client
            .message_that(0, "JobStatusPayload", "the last lines", |payload| payload["step"] == "Running")
            .await?;
        same("lines forwarded", &client.payloads(0, "JobStatusPayload"), &sent.to_vec())?;
    }
    stranger.settle().await?;
    same("lines forwarded to a worker", &stranger.payloads(0, "JobStatusPayload"), &vec![])
}

fn names(payload: &Value) -> Vec<&str> {
    payload["workers"].as_array().into_iter().flatten().filter_map(|one| one["id"].as_str()).collect()
}

async fn whole_registration(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let worker = t.socket(&format!("/q/{queue}/worker")).await?;
    let mut sent = registration(&Test::nonce());
    sent["payload"]["maker"] = json!({ "name": "another", "since": [1.5, null] });
    worker.send(&sent).await?;
    let listed = client
        .message_that(0, "Workers", "Workers with the new one", |list| !names(list).is_empty())
        .await?["workers"][0]
        .take();
    same_json("the registration", &listed, &sent["payload"])
}

async fn workers(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let worker = Worker::join(&t, &queue).await?;
    let listed =
        client.message_that(0, "Workers", "Workers with the new one", |list| names(list) == [&worker.id]);
    let entry = listed.await?["workers"][0].take();
    for (field, value) in [
        ("version", json!("0.54.85")),
        ("cpus", json!(2)),
        ("gpus", json!(0)),
        ("maxJobDuration", json!("5m")),
    ] {
        same(field, &entry[field], &value)?;
    }
    let id = client.submit(&Test::job(), None).await?;
    worker.claim(&id).await?;
    let first = client.state(&id, "Running").await?;
    let mark = client.mark();
    worker.close(1000).await?;
    client
        .until("Workers without the lost one", mark, LIST_PERIOD, |_| {
            client.payloads(mark, "Workers").iter().any(|list| names(list).is_empty()).then_some(())
        })
        .await?;
    let back = client.state_within(&id, "Queued", LIST_PERIOD).await?;
    same("queuedTime", &back["queuedTime"], &first["queuedTime"])?;
    same("worker", &back["worker"], &json!(""))
}

/// Waits until a lost worker's job is queued again.
async fn lose(client: &Client, worker: Worker, id: &str) -> anyhow::Result<()> {
    worker.close(1000).await?;
    drop(worker);
    client.state_within(id, "Queued", LIST_PERIOD).await?;
    Ok(())
}

async fn late_result(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let worker = Worker::join(&t, &queue).await?;
    let name = worker.id.clone();
    let id = client.submit(&Test::job(), None).await?;
    worker.claim(&id).await?;
    client.state(&id, "Running").await?;
    lose(&client, worker, &id).await?;
    let back = Worker::join_as(&t, &queue, &name).await?;
    back.finish(&id, "Success", &crate::peers::worker::result("late")).await?;
    client.state(&id, "Finished").await?;
    let mark = client.mark();
    back.send(&running(&id, &name)).await?;
    back.settle().await?;
    client.settle().await?;
    same("updates after a claim of a finished job", &client.payloads(mark, "JobStateUpdates"), &vec![])?;
    same("state", &client.table()[&id]["state"], &json!("Finished"))
}

async fn two_claims(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    // By locale comparison: punctuation before digits before letters, `a` before `A` before `b`.
    let pairs = [("a1", "b1"), ("a", "A"), ("A", "b"), ("1", "a"), ("-x", "1")];
    for (first, second) in pairs {
        let nonce = Test::nonce();
        let (winner, loser) = (format!("{first}{nonce}"), format!("{second}{nonce}"));
        let one = Worker::join_as(&t, &queue, &loser).await?;
        let two = Worker::join_as(&t, &queue, &winner).await?;
        let id = client.submit(&Test::job(), None).await?;
        two.state(&id, "Queued").await?;
        one.claim(&id).await?;
        // A later time does not help: the id decides.
        two.send(&running_at(&id, &winner, crate::test::now() + 1000)).await?;
        shown_as(&client, &id, &winner).await?;
        one.send(&running(&id, &loser)).await?;
        one.settle().await?;
        client.settle().await?;
        same("worker after both claims", &client.table()[&id]["worker"], &json!(winner))?;
    }
    Ok(())
}

async fn shown_as(client: &Socket, id: &str, worker: &str) -> anyhow::Result<()> {
    let expected = format!("the claim of {worker}");
    let shown = client.until_table(&expected, crate::check::SOON, |table| {
        table.get(id).filter(|job| job["worker"] == worker).cloned()
    });
    let job = shown.await?;
    that("Running", job["state"] == "Running", &job)
}
