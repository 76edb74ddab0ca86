//! Deleting (`jobs-and-states` 3.6, 10.7).

use serde_json::{Value, json};

use crate::check::{LIST_PERIOD, SOON, same, same_json, that};
use crate::peers::client::{Client, queued};
use crate::peers::socket::Frame;
use crate::peers::worker::Worker;
use crate::registry::{Item, item};
use crate::test::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!("7.44", Compat, "A deletion tells old workers, and the job then runs again.", told),
        item!(
            "7.56",
            Compat,
            "A deletion is told before the list without the job, and a submission right after it is queued.",
            told_first
        ),
        item!(
            "10.7",
            Compat,
            "A deleted job that is submitted again runs again, and other namespaces keep theirs.",
            again
        ),
        item!(
            "10.7",
            Dockframe,
            "A deletion works when the job has been answered by another queue's result.",
            deleted_shared
        ),
        item!(
            "R-3",
            Dockframe,
            "A deleted queued job is gone at once, and workers are told.",
            queued_is_gone
        ),
        item!("J-5", Dockframe, "A deletion in one queue takes nothing from another.", other_queue),
    ]
}

async fn finished(t: &Test, queue: &str, definition: &Value) -> anyhow::Result<(Client, Worker, String)> {
    let (client, worker) = (Client::join(t, queue).await?, Worker::join(t, queue).await?);
    let id = client.submit(definition, Some("n")).await?;
    worker.do_job(&id, "out").await?;
    client.state(&id, "Finished").await?;
    Ok((client, worker, id))
}

async fn told(t: Test) -> anyhow::Result<()> {
    let (queue, definition) = (t.queue(), Test::job());
    let (client, worker, id) = finished(&t, &queue, &definition).await?;
    client.end(&id, "Deleted", Some("n")).await?;
    let told = worker.message(0, "ClearJobCache").await?;
    same_json("ClearJobCache", &told, &json!({ "jobId": id, "namespace": "n" }))?;
    client.gone(&id, LIST_PERIOD).await?;
    worker.gone(&id, LIST_PERIOD).await?;
    same_json("the result", &t.http().result(&queue, &id).await?, &Value::Null)?;
    client.submit(&definition, Some("n")).await?;
    worker.do_job(&id, "again").await?;
    let data = t.http().result(&queue, &id).await?;
    same_json("the new result", &data["finished"]["result"]["logs"], &json!([["again", 1]]))
}

async fn told_first(t: Test) -> anyhow::Result<()> {
    let (queue, definition) = (t.queue(), Test::job());
    let (client, worker, id) = finished(&t, &queue, &definition).await?;
    delete_and_submit(&client, &worker, &id, &definition).await?;
    // While it runs it must be in each full list of its worker, so that a list without it tells of the deletion.
    worker.claim(&id).await?;
    client.state(&id, "Running").await?;
    let mark = delete_and_submit(&client, &worker, &id, &definition).await?;
    let frames = worker.frames(mark);
    let told = frames.iter().position(|frame| is(frame, "ClearJobCache"));
    let without = frames.iter().position(|frame| {
        matches!(frame, Frame::Json(value) if is(frame, "JobStates")
            && value["payload"]["state"]["jobs"].get(&id).is_none())
    });
    let good = without.is_none_or(|at| told < Some(at));
    that("ClearJobCache before a list without the job", good, &worker.tail(mark))
}

fn is(frame: &Frame, kind: &str) -> bool {
    matches!(frame, Frame::Json(value) if value["type"] == kind)
}

/// Deletes a job and submits it in the same breath; gives the worker's mark from before.
async fn delete_and_submit(
    client: &Client,
    worker: &Worker,
    id: &str,
    definition: &Value,
) -> anyhow::Result<usize> {
    let before = client.table()[id]["queuedTime"].as_u64();
    let (mark, client_mark) = (worker.mark(), client.mark());
    client.end(id, "Deleted", Some("n")).await?;
    client.send(&queued(id, definition, Some("n"))).await?;
    let job = client.until_table("the job queued anew", SOON, |table| {
        table.get(id).filter(|job| job["state"] == "Queued").cloned()
    });
    let job = job.await?;
    that("a later queuedTime", job["queuedTime"].as_u64() > before, &job)?;
    worker.state(id, "Queued").await?;
    let frames = worker.frames(mark);
    let told = frames.iter().position(|frame| is(frame, "ClearJobCache"));
    let queued = frames.iter().position(
        |frame| matches!(frame, Frame::Json(value) if value["payload"]["state"]["jobs"][id]["state"] == "Queued"),
    );
    that(
        "ClearJobCache before the job is queued again",
        told.is_some() && told < queued,
        &worker.tail(mark),
    )?;
    let reasons: Vec<_> =
        client.jobs(client_mark, id).iter().map(|job| job["finishedReason"].clone()).collect();
    that("never the word Deleted", !reasons.contains(&json!("Deleted")), &reasons)?;
    Ok(mark)
}

async fn again(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let (client, worker, id) = finished(&t, &queue, &definition).await?;
    client.submit(&definition, Some("other")).await?;
    client.end(&id, "Deleted", Some("n")).await?;
    let left = client.until_table("the other namespace", SOON, |table| {
        (table.get(&id)?["namespaces"] == json!(["other"])).then_some(())
    });
    left.await?;
    same("the kept result", &http.result(&queue, &id).await?["finishedReason"], &json!("Success"))?;
    client.end(&id, "Deleted", Some("*")).await?;
    client.gone(&id, LIST_PERIOD).await?;
    same_json("the result", &http.result(&queue, &id).await?, &Value::Null)?;
    // And while it runs.
    client.submit(&definition, None).await?;
    worker.claim(&id).await?;
    let mark = worker.mark();
    client.end(&id, "Deleted", None).await?;
    worker.message(mark, "ClearJobCache").await?;
    client.gone(&id, LIST_PERIOD).await?;
    client.submit(&definition, None).await?;
    same("state", &http.list(&queue).await?[&id]["state"], &json!("Queued"))
}

async fn deleted_shared(t: Test) -> anyhow::Result<()> {
    let (http, first, second, definition) = (t.http(), t.queue(), t.queue(), Test::job());
    let (_, _, id) = finished(&t, &first, &definition).await?;
    let client = Client::join(&t, &second).await?;
    client.submit(&definition, None).await?;
    client.state(&id, "Finished").await?;
    client.end(&id, "Deleted", None).await?;
    client.gone(&id, SOON).await?;
    same_json("the result in this queue", &http.result(&second, &id).await?, &Value::Null)?;
    client.submit(&definition, None).await?;
    client.state(&id, "Queued").await?;
    same(
        "the result of the first queue",
        &http.result(&first, &id).await?["finishedReason"],
        &json!("Success"),
    )?;
    // Where the job never was, as a page does that found the result by a link.
    let third = t.queue();
    let client = Client::join(&t, &third).await?;
    client.end(&id, "Deleted", None).await?;
    client.submit(&definition, None).await?;
    client.state(&id, "Queued").await.map(|_| ())
}

async fn queued_is_gone(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let id = client.submit(&definition, Some("n")).await?;
    worker.state(&id, "Queued").await?;
    client.end(&id, "Deleted", Some("n")).await?;
    let told = worker.message(0, "ClearJobCache").await?;
    same_json("ClearJobCache", &told, &json!({ "jobId": id, "namespace": "n" }))?;
    for socket in [&*client, &*worker] {
        socket.gone(&id, SOON).await?;
        for job in socket.jobs(0, &id) {
            that("never without namespaces", job["namespaces"] != json!([]), &job)?;
        }
    }
    same("the list", &http.list(&queue).await?.get(&id), &None)?;
    client.submit(&definition, Some("n")).await?;
    same("the list after a new submission", &http.list(&queue).await?[&id]["state"], &json!("Queued"))
}

async fn other_queue(t: Test) -> anyhow::Result<()> {
    let (http, first, hostile, definition) = (t.http(), t.queue(), t.queue(), Test::job());
    let (client, _worker, id) = finished(&t, &first, &definition).await?;
    let before = http.result(&first, &id).await?;
    let mark = client.mark();
    let stranger = Client::join(&t, &hostile).await?;
    for namespace in [None, Some("*"), Some("n")] {
        stranger.end(&id, "Deleted", namespace).await?;
    }
    stranger.settle().await?;
    client.settle().await?;
    same_json("the result", &http.result(&first, &id).await?, &before)?;
    same("updates in the other queue", &client.payloads(mark, "JobStateUpdates"), &vec![])?;
    same_json(
        "the shared result",
        &http.data(&format!("/j/{id}/result.json")).await?["finished"],
        &before["finished"],
    )
}
