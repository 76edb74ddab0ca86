//! Status and metrics of a queue (`relay-protocol` 2.16).

use std::time::Duration;

use serde_json::{Value, json};

use crate::check::{SOON, same, same_json, that};
use crate::peers::client::Client;
use crate::peers::worker::{Worker, result};
use crate::registry::{Item, item};
use crate::test::Test;
use dockframe_tests::wait;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.26",
            Compat,
            "The status of a queue has its jobs, workers and clients under both paths.",
            status
        ),
        item!("7.26", Dockframe, "The status never shows a definition.", no_definition),
        item!(
            "7.26b",
            Compat,
            "The old paths of a queue stand before the job page, and the new ones before them.",
            old_paths
        ),
        item!("7.27", Compat, "The metrics of a queue count what is outstanding.", metrics),
        item!(
            "7.49",
            Compat,
            "StatusRequest has no payload, and a mute worker delays the answer by little.",
            mute_worker
        ),
        item!(
            "R-19",
            Dockframe,
            "The status answers from the records, with the reason of an ending.",
            from_records
        ),
    ]
}

async fn status(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let (_client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let queued = http.submit(&queue, &Test::job()).await?;
    let running = http.submit(&queue, &Test::job()).await?;
    worker.claim(&running).await?;
    for path in [format!("/q/{queue}/status"), format!("/{queue}/status")] {
        let answer = wait::until("the claim in the status", Duration::from_secs(10), async || {
            let answer = http.get(&path).await.and_then(|answer| answer.is(200)?.json());
            let answer = answer.map_err(|error| error.to_string())?;
            if answer["jobs"][&running]["state"] == "Running" { Ok(answer) } else { Err(answer.to_string()) }
        })
        .await?;
        same("the queued job", &answer["jobs"][&queued]["state"], &json!("Queued"))?;
        for map in ["jobs", "localWorkers", "otherServers", "queueInfo"] {
            that(&format!("a map {map}"), answer[map].is_object(), &answer)?;
        }
        // With two instances the peers may be on the other one.
        let info = &answer["queueInfo"];
        same("address", &info["address"], &json!(queue))?;
        that("a server id", info["serverId"].is_string(), info)?;
        that(
            "numbers",
            ["jobCount", "localWorkerCount", "otherWorkerCount", "clientCount"]
                .iter()
                .all(|name| info[name].is_u64()),
            info,
        )?;
        that("clientCount", answer["clientCount"].is_u64(), &answer)?;
        let states = info["jobStates"].as_array().map(Vec::as_slice).unwrap_or_default();
        let shown = |id: &str| states.iter().find(|job| job["id"] == id[..6]);
        let job = shown(&running).cloned().unwrap_or_default();
        same("state in jobStates", &job["state"], &json!("Running"))?;
        same("worker in jobStates", &job["worker"], &json!(&worker.id[..6]))?;
        same(
            "worker of a queued job",
            &shown(&queued).map(|job| job["worker"].clone()),
            &Some(json!("none")),
        )?;
    }
    Ok(())
}

async fn no_definition(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let secret = Test::nonce();
    let worker = Worker::join(&t, &queue).await?;
    let id = http.submit(&queue, &json!({ "image": "a", "command": secret })).await?;
    worker.claim(&id).await?;
    // The worker answers with the definition, as old ones do, whenever it is asked.
    let answer = json!({ "type": "WorkerStatusResponse", "payload": { "time": 1, "id": worker.id, "cpus": 2, "gpus": 0,
        "queue": { &id: { "jobId": id, "definition": { "command": secret }, "finished": true } } } });
    worker.send(&answer).await?;
    let reply = async {
        if worker.message(0, "StatusRequest").await.is_ok() {
            worker.send(&answer).await?;
        }
        anyhow::Ok(())
    };
    let path = format!("/q/{queue}/status");
    let (status, reply) = tokio::join!(http.get(&path), reply);
    reply?;
    let text = status?.is(200)?.text();
    that("no definition in the status", !text.contains(&secret), &text)
}

/// Consequences of the order of the routes.
async fn old_paths(t: Test) -> anyhow::Result<()> {
    let http = t.http();
    for queue in ["j", "mcp", "docs", "healthz"] {
        let status = http.get(&format!("/{queue}/status")).await?.is(200)?.json()?;
        same("address", &status["queueInfo"]["address"], &json!(queue))?;
        let metrics = http.get(&format!("/{queue}/metrics")).await?;
        that("a queue's length", metrics.is(200)?.text().contains("\nqueue_length "), &metrics.text())?;
    }
    for queue in ["status", "metrics"] {
        let list = http.get(&format!("/q/{queue}")).await?.is(200)?.json()?;
        that("a list", list["data"].is_object(), &list)?;
    }
    let upload = http.get("/upload/status").await?.is(200)?.json()?;
    same_json("the reference", &upload["ref"], &json!({ "value": "status", "type": "key" }))
}

async fn metrics(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let length = async |n: u32| {
        for path in [format!("/q/{queue}/metrics"), format!("/{queue}/metrics")] {
            wait::until(&format!("queue_length {n}"), SOON, async || {
                let answer = http.get(&path).await.map_err(|error| error.to_string())?;
                let text = answer.text();
                let last = text.lines().last().unwrap_or_default();
                let good = answer.status == 200
                    && answer.media() == "text/plain"
                    && text.contains("# TYPE queue_length gauge")
                    && last == format!("queue_length {n}");
                if good { Ok(()) } else { Err(text) }
            })
            .await?;
        }
        anyhow::Ok(())
    };
    length(0).await?;
    let first = http.submit(&queue, &Test::job()).await?;
    http.submit(&queue, &Test::job()).await?;
    length(2).await?;
    let worker = Worker::join(&t, &queue).await?;
    worker.claim(&first).await?;
    length(2).await?;
    worker.finish(&first, "Success", &result("out")).await?;
    length(1).await
}

async fn mute_worker(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let worker = Worker::join(&t, &queue).await?;
    let answer = http.get(&format!("/q/{queue}/status")).await?;
    answer.is(200)?;
    // Two seconds for workers, three for other instances, and a little for a busy machine.
    that("an answer in time", answer.took < Duration::from_secs(7), &answer.took)?;
    for frame in worker.frames(0) {
        if let crate::peers::socket::Frame::Json(value) = frame
            && value["type"] == "StatusRequest"
        {
            same_json("StatusRequest", &value, &json!({ "type": "StatusRequest" }))?;
        }
    }
    Ok(())
}

async fn from_records(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let worker = Worker::join(&t, &queue).await?;
    let id = http.submit(&queue, &Test::job()).await?;
    worker.do_job(&id, "out").await?;
    let answer = http.get(&format!("/q/{queue}/status")).await?;
    that("an answer that waits for nobody", answer.took < Duration::from_secs(5), &answer.took)?;
    let answer = answer.is(200)?.json()?;
    let expected = json!({ "state": "Finished", "finishedReason": "Success" });
    same_json("the finished job", &answer["jobs"][&id], &expected)?;
    // A worker of another instance is heard of a little later.
    wait::until("the worker among all servers' workers", SOON, async || {
        let path = format!("/q/{queue}/status");
        let answer = http.get(&path).await.and_then(|answer| answer.is(200)?.json());
        let workers = workers_of(&answer.map_err(|error| error.to_string())?);
        if workers == [worker.id.as_str()] { Ok(()) } else { Err(format!("{workers:?}")) }
    })
    .await?;
    let empty = answer["otherServers"]
        .as_object()
        .into_iter()
        .flatten()
        .find(|(_, server)| server["workers"] == json!({}));
    same("other servers without workers", &empty.map(|(_, server)| server), &None::<&Value>)
}

/// The ids of the workers of this server and of all others.
fn workers_of(status: &Value) -> Vec<String> {
    let names =
        |map: &Value| map.as_object().into_iter().flatten().map(|(id, _)| id.clone()).collect::<Vec<_>>();
    let others = status["otherServers"].as_object().into_iter().flatten();
    let others = others.flat_map(|(_, server)| names(&server["workers"]));
    names(&status["localWorkers"]).into_iter().chain(others).collect()
}
