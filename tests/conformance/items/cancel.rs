//! Cancelling (`relay-protocol` 2.12, `jobs-and-states` 3.6).

use std::time::Duration;

use serde_json::{Value, json};

use crate::check::{LIST_PERIOD, SOON, same, same_json, that};
use crate::peers::client::Client;
use crate::peers::worker::{Worker, finished, result};
use crate::registry::{Item, item};
use crate::test::Test;
use dockframe_tests::wait;

/// What "at once" means on a busy machine; the reference does not answer before the job ends.
const AT_ONCE: Duration = Duration::from_secs(4);

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.18",
            Compat,
            "A cancel answers for unknown, finished and live jobs, and parallel cancels all answer.",
            answers
        ),
        item!("7.18b", Compat, "A cancel of a deleted job does not find it.", of_deleted),
        item!("7.19", Compat, "Cancelling a finished job changes nothing that can be seen.", of_finished),
        item!(
            "10.6",
            Compat,
            "A cancel takes one namespace, the last one ends the job, and all are taken by a star.",
            by_namespace
        ),
        item!(
            "10.6",
            Dockframe,
            "Repeated and parallel cancels, and those of a namespace not held, answer at once.",
            at_once
        ),
        item!(
            "R-1",
            Dockframe,
            "A cancel is applied once and answers at once, whatever other namespaces hold.",
            at_once
        ),
        item!(
            "R-2",
            Dockframe,
            "A full list without the ended job comes at once, and never the word Cancelled.",
            list_at_once
        ),
        item!(
            "R-23",
            Dockframe,
            "The namespace in a cancel's path counts, and a percent sign is no error.",
            path_namespace
        ),
        item!("R-39", Dockframe, "A page's cancel without namespace ends what this page submitted.", by_page),
        item!("J-18", Dockframe, "A success stays on sockets when a cancel comes after it.", success_stays),
        item!("10.2e", Dockframe, "A result that comes after a cancel changes nothing.", late_result),
        item!(
            "J-25",
            Dockframe,
            "A result that comes after the end answers no later submission.",
            late_result
        ),
    ]
}

async fn answers(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    http.cancel(&queue, &Test::nonce(), "").await?.says(200, &json!({ "message": "Job not found" }))?;
    let id = http.submit(&queue, &Test::job()).await?;
    let cancelled = http.cancel(&queue, &id, "").await?;
    cancelled.says(200, &json!({ "success": true, "jobId": id, "namespace": "_" }))?;
    same("the list", &http.list(&queue).await?.get(&id), &None)?;
    same_json("the result", &http.result(&queue, &id).await?, &Value::Null)?;
    let done = http.submit(&queue, &Test::job()).await?;
    Worker::join(&t, &queue).await?.do_job(&done, "out").await?;
    let finished = http.cancel(&queue, &done, "?namespace=*").await?;
    finished.says(200, &json!({ "message": "Job already Finished|Removed" }))?;
    let definition = Test::job();
    let mut id = String::new();
    for namespace in ["a", "b", "c"] {
        id = http.submit_in(&queue, &definition, namespace).await?;
    }
    let queries = ["?namespace=a", "?namespace=b", "?namespace=c", "?namespace=*"];
    let cancels = queries.map(|query| http.cancel(&queue, &id, query));
    for answer in futures_util::future::join_all(cancels).await {
        answer?.is(200)?;
    }
    same("the list after all cancels", &http.list(&queue).await?.get(&id), &None)
}

async fn of_deleted(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let client = Client::join(&t, &queue).await?;
    let id = client.submit(&Test::job(), None).await?;
    client.end(&id, "Deleted", None).await?;
    client.settle().await?;
    wait::until("a cancel that does not find the job", SOON, async || {
        let answer = http.cancel(&queue, &id, "").await.map_err(|error| error.to_string())?;
        answer.says(200, &json!({ "message": "Job not found" })).map_err(|error| error.to_string())
    })
    .await
}

async fn of_finished(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let id = client.submit(&Test::job(), None).await?;
    worker.do_job(&id, "out").await?;
    client.state(&id, "Finished").await?;
    let before = http.result(&queue, &id).await?;
    let mark = client.mark();
    http.cancel(&queue, &id, "?namespace=*").await?.is(200)?;
    client.settle().await?;
    same_json("the result", &http.result(&queue, &id).await?, &before)?;
    for job in client.jobs(mark, &id) {
        same("reason shown", &job["finishedReason"], &json!("Success"))?;
    }
    same(
        "state in the table",
        &client.table().get(&id).map(|job| job["state"].clone()),
        &Some(json!("Finished")),
    )
}

async fn by_namespace(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let worker = Worker::join(&t, &queue).await?;
    let definition = Test::job();
    let mut id = String::new();
    for namespace in [None, Some("a"), Some("b")] {
        id = client.submit(&definition, namespace).await?;
    }
    worker.claim(&id).await?;
    client.end(&id, "Cancelled", Some("not held")).await?;
    client.end(&id, "Cancelled", Some("a")).await?;
    let left = async |names: Value| {
        let expected = format!("the namespaces {names}");
        let job = client.until_table(&expected, SOON, |table| {
            table.get(&id).filter(|job| job["namespaces"] == names).cloned()
        });
        same("state", &job.await?["state"], &json!("Running"))
    };
    left(json!(["_", "b"])).await?;
    client.end(&id, "Cancelled", None).await?;
    left(json!(["b"])).await?;
    client.end(&id, "Cancelled", Some("b")).await?;
    client.gone(&id, LIST_PERIOD).await?;
    worker.gone(&id, LIST_PERIOD).await?;
    same("state of a cancelled job, asked for", &client.query(&id).await?, &json!({}))?;
    let mut other = String::new();
    let definition = Test::job();
    for namespace in ["x", "y", "z"] {
        other = client.submit(&definition, Some(namespace)).await?;
    }
    client.end(&other, "Cancelled", Some("*")).await?;
    client.gone(&other, LIST_PERIOD).await?;
    same("the list", &t.http().list(&queue).await?.get(&other), &None)
}

async fn at_once(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let mut id = String::new();
    for namespace in ["a", "b", "c", "d"] {
        id = http.submit_in(&queue, &definition, namespace).await?;
    }
    let one = http.cancel(&queue, &id, "?namespace=a").await?;
    one.says(200, &json!({ "success": true, "jobId": id, "namespace": "a" }))?;
    that("an answer at once", one.took < AT_ONCE, &one.took)?;
    let not_held = http.cancel(&queue, &id, "").await?;
    not_held.says(200, &json!({ "success": true, "jobId": id, "namespace": "_" }))?;
    that("an answer at once", not_held.took < AT_ONCE, &not_held.took)?;
    same("namespaces", &http.list(&queue).await?[&id]["namespaces"], &json!(["b", "c", "d"]))?;
    let twice = ["?namespace=b", "?namespace=b", "?namespace=b"].map(|query| http.cancel(&queue, &id, query));
    for answer in futures_util::future::join_all(twice).await {
        answer?.is(200)?;
    }
    same("namespaces", &http.list(&queue).await?[&id]["namespaces"], &json!(["c", "d"]))
}

async fn list_at_once(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let id = client.submit(&Test::job(), None).await?;
    worker.claim(&id).await?;
    client.state(&id, "Running").await?;
    t.http().cancel(&queue, &id, "").await?.is(200)?;
    for socket in [&*client, &*worker] {
        socket.gone(&id, AT_ONCE).await?;
        for job in socket.jobs(0, &id) {
            that("no ending without result", job["finishedReason"].is_null(), &job)?;
        }
    }
    Ok(())
}

async fn path_namespace(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let mut id = String::new();
    for namespace in ["a", "b", "%", "50%25"] {
        id = http.submit_in(&queue, &definition, namespace).await?;
    }
    let answer = http.post_text(&format!("/q/{queue}/j/{id}/a/cancel"), "").await?;
    answer.says(200, &json!({ "success": true, "jobId": id, "namespace": "a" }))?;
    http.cancel(&queue, &id, "?namespace=%25").await?.is(200)?;
    http.cancel(&queue, &id, "?namespace=50%2525").await?.is(200)?;
    same("namespaces", &http.list(&queue).await?[&id]["namespaces"], &json!(["b"]))
}

async fn by_page(t: Test) -> anyhow::Result<()> {
    let (queue, definition) = (t.queue(), Test::job());
    let (page, other) = (Client::join(&t, &queue).await?, Client::join(&t, &queue).await?);
    let id = page.submit(&definition, Some("page")).await?;
    other.submit(&definition, Some("other")).await?;
    page.end(&id, "Cancelled", None).await?;
    let left = other.until_table("the other page's namespace alone", SOON, |table| {
        (table.get(&id)?["namespaces"] == json!(["other"])).then_some(())
    });
    left.await?;
    // An explicit default namespace keeps its meaning.
    other.end(&id, "Cancelled", Some("_")).await?;
    other.settle().await?;
    same("namespaces", &t.http().list(&queue).await?[&id]["namespaces"], &json!(["other"]))
}

async fn success_stays(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let id = client.submit(&Test::job(), None).await?;
    worker.do_job(&id, "out").await?;
    client.state(&id, "Finished").await?;
    client.end(&id, "Cancelled", Some("*")).await?;
    let mark = client.mark();
    client.send(&json!({ "type": "QueryJobStates" })).await?;
    let list = client.message(mark, "JobStates").await?;
    same("reason in the list", &list["state"]["jobs"][&id]["finishedReason"], &json!("Success"))?;
    same("QueryJob", &client.query(&id).await?[&id]["finishedReason"], &json!("Success"))
}

async fn late_result(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    for reason in ["Success", "Error", "TimedOut"] {
        let id = client.submit(&definition, None).await?;
        worker.claim(&id).await?;
        client.state(&id, "Running").await?;
        client.end(&id, "Cancelled", None).await?;
        client.gone(&id, SOON).await?;
        worker.send(&finished(&id, &worker.id, reason, &result("late"))).await?;
        worker.settle().await?;
        same_json("the result", &http.result(&queue, &id).await?, &Value::Null)?;
        same_json("the shared result", &http.data(&format!("/j/{id}/result.json")).await?, &Value::Null)?;
        client.submit(&definition, None).await?;
        same("state after a new submission", &http.list(&queue).await?[&id]["state"], &json!("Queued"))?;
        client.end(&id, "Cancelled", None).await?;
        client.gone(&id, SOON).await?;
    }
    Ok(())
}
