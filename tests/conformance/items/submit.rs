//! Submitting (`relay-protocol` 2.3, `jobs-and-states` 3.2).

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
            "7.4",
            Compat,
            "Both paths take a wrapped definition, with or without id, control and debug.",
            forms
        ),
        item!("7.6", Compat, "A body that is no job is refused with one sentence.", no_job),
        item!(
            "7.7",
            Compat,
            "A job is listed and readable when its submission is answered.",
            read_after_write
        ),
        item!("10.3a", Compat, "A first submission is Queued, stamped once, without a worker.", first),
        item!(
            "10.3b",
            Compat,
            "A submission of a live job adds its namespace and changes nothing else.",
            live
        ),
        item!(
            "7.54",
            Compat,
            "A job answered from the cache is Finished on sockets at once, never Queued before.",
            cached
        ),
        item!(
            "10.3c",
            Compat,
            "A stored result answers in its own and in another queue, and nothing runs.",
            cached
        ),
        item!(
            "10.3c",
            Dockframe,
            "A result of another queue is marked as shared, one of this queue is not.",
            marked
        ),
        item!("10.3d", Compat, "A cancelled job that is submitted again runs.", after_cancel),
        item!("10.3e", Dockframe, "A replaced job that is submitted again runs.", after_replacement),
        item!("10.3f", Dockframe, "A submission without a definition is refused with 400.", no_definition),
        item!(
            "10.3g",
            Dockframe,
            "A rerun runs again, and the old result stays readable until the new one stands.",
            rerun
        ),
        item!("R-8", Dockframe, "What is no submission is refused with 400 and an error text.", malformed),
        item!("R-27", Dockframe, "A body above the limit is refused with 413.", too_large),
        item!(
            "R-38",
            Dockframe,
            "A job answered from the cache is in the list too, and cancel finds it.",
            cached_is_listed
        ),
    ]
}

async fn forms(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    for path in [format!("/q/{queue}"), format!("/q/{queue}/j")] {
        let definition = Test::job();
        let answer = http.post(&path, &json!({ "definition": definition })).await?.is(200)?.json()?;
        let id = answer["jobId"].as_str().unwrap_or_default().to_owned();
        same_json("answer", &answer, &json!({ "success": true, "jobId": id }))?;
        same("length of the id", &id.len(), &64)?;
        let id = Test::nonce();
        let whole = json!({ "id": id, "definition": Test::job(), "control": { "namespace": "n" }, "debug": true, "unknown": 1 });
        http.post(&path, &whole).await?.says(200, &json!({ "success": true, "jobId": id }))?;
        let job = http.list(&queue).await?[&id].clone();
        same("namespaces", &job["namespaces"], &json!(["n"]))?;
        same("debug", &job["debug"], &json!(true))?;
    }
    Ok(())
}

async fn no_job(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    for body in ["null", "false", "\"\"", "0"] {
        http.post_text(&format!("/q/{queue}"), body)
            .await?
            .says(400, &json!({ "error": "No job provided" }))?;
    }
    Ok(())
}

async fn read_after_write(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    for _ in 0..5 {
        let definition = Test::job();
        let id = http.submit(&queue, &definition).await?;
        anyhow::ensure!(http.list(&queue).await?.contains_key(&id), "expected the job in the list at once");
        let answer = http.get(&format!("/j/{id}.json")).await?;
        same_json("the job", &answer.is(200)?.json()?, &json!({ "data": { "definition": definition } }))?;
        same_json("namespaces", &http.namespaces(&queue, &id).await?, &json!(["_"]))?;
    }
    Ok(())
}

async fn first(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let id = http.submit(&queue, &Test::job()).await?;
    let job = http.list(&queue).await?[&id].clone();
    same("state", &job["state"], &json!("Queued"))?;
    that("a number as queuedTime", job["queuedTime"].as_u64().is_some_and(|time| time > 0), &job)?;
    same("time", &job["time"], &job["queuedTime"])?;
    same("worker", &job["worker"], &json!(""))?;
    same("namespaces", &job["namespaces"], &json!(["_"]))
}

async fn live(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let id = http.submit_in(&queue, &definition, "b").await?;
    let worker = Worker::join(&t, &queue).await?;
    for (namespace, names) in [("a", json!(["a", "b"])), ("c", json!(["a", "b", "c"]))] {
        let before = http.list(&queue).await?[&id].clone();
        http.submit_in(&queue, &definition, namespace).await?;
        let mut expected = before;
        expected["namespaces"] = names;
        same_json("the job", &http.list(&queue).await?[&id], &expected)?;
        if namespace == "a" {
            worker.claim(&id).await?;
            wait::until("the claim in the list", SOON, async || {
                let job = http.list(&queue).await.map_err(|error| error.to_string())?[&id].clone();
                if job["state"] == "Running" { Ok(()) } else { Err(job.to_string()) }
            })
            .await?;
        }
    }
    Ok(())
}

async fn cached(t: Test) -> anyhow::Result<()> {
    let (http, first, second, definition) = (t.http(), t.queue(), t.queue(), Test::job());
    let id = http.submit(&first, &definition).await?;
    let worker = Worker::join(&t, &first).await?;
    worker.do_job(&id, "out").await?;
    for queue in [&first, &second] {
        let client = Client::join(&t, queue).await?;
        let idle = Worker::join(&t, queue).await?;
        let (mark, idle_mark) = (client.mark(), idle.mark());
        same("id", &client.submit(&definition, Some("n")).await?, &id)?;
        let job = client.state(&id, "Finished").await?;
        same("reason", &job["finishedReason"], &json!("Success"))?;
        idle.settle().await?;
        for job in client.jobs(mark, &id).iter().chain(&idle.jobs(idle_mark, &id)) {
            same("every state shown", &job["state"], &json!("Finished"))?;
        }
        let data = http.result(queue, &id).await?;
        same_json("result", &data["finished"]["result"], &result("out"))?;
    }
    Ok(())
}

async fn marked(t: Test) -> anyhow::Result<()> {
    let (first, second, definition) = (t.queue(), t.queue(), Test::job());
    let id = t.http().submit(&first, &definition).await?;
    Worker::join(&t, &first).await?.do_job(&id, "out").await?;
    let other = Client::join(&t, &second).await?;
    other.submit(&definition, None).await?;
    same("shared in the other queue", &other.state(&id, "Finished").await?["shared"], &json!(true))?;
    let own = Client::join(&t, &first).await?;
    own.submit(&definition, Some("n")).await?;
    same("shared in its own queue", &own.state(&id, "Finished").await?["shared"], &Value::Null)
}

async fn after_cancel(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let id = http.submit(&queue, &definition).await?;
    http.cancel(&queue, &id, "").await?.is(200)?;
    http.submit(&queue, &definition).await?;
    same("state", &http.list(&queue).await?[&id]["state"], &json!("Queued"))?;
    Worker::join(&t, &queue).await?.do_job(&id, "out").await?;
    same("reason", &http.result(&queue, &id).await?["finishedReason"], &json!("Success"))
}

async fn after_replacement(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let id = http.submit_in(&queue, &definition, "n").await?;
    let client = Client::join(&t, &queue).await?;
    let other = http.submit_in(&queue, &Test::job(), "n").await?;
    client.gone(&id, SOON).await?;
    http.submit_in(&queue, &definition, "n").await?;
    client.gone(&other, SOON).await?;
    client.state(&id, "Queued").await?;
    Worker::join(&t, &queue).await?.do_job(&id, "out").await?;
    same("reason", &http.result(&queue, &id).await?["finishedReason"], &json!("Success"))
}

async fn no_definition(t: Test) -> anyhow::Result<()> {
    let (http, path) = (t.http(), format!("/q/{}", t.queue()));
    http.post(&path, &json!({ "id": Test::nonce() })).await?.refuses(400)?;
    http.post(&path, &json!({ "definition": null })).await?.refuses(400)
}

async fn rerun(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let id = http.submit(&queue, &definition).await?;
    let worker = Worker::join(&t, &queue).await?;
    worker.do_job(&id, "old").await?;
    let old = http.result(&queue, &id).await?;
    let again = json!({ "definition": definition, "control": { "rerun": old["time"] } });
    http.submit_body(&queue, &again).await?;
    worker.claim(&id).await?;
    same_json("result meanwhile", &http.result(&queue, &id).await?["finished"], &old["finished"])?;
    same("isFinal meanwhile", &http.run_logs(&queue, &id, "").await?["isFinal"], &json!(false))?;
    worker.finish(&id, "Success", &result("new")).await?;
    let new = http.result(&queue, &id).await?;
    same_json("result", &new["finished"]["result"], &result("new"))?;
    // Repeated: another result stands by now, so that one answers.
    http.submit_body(&queue, &again).await?;
    same("state", &http.list(&queue).await?[&id]["state"], &json!("Finished"))
}

async fn malformed(t: Test) -> anyhow::Result<()> {
    let (http, path) = (t.http(), format!("/q/{}", t.queue()));
    let bodies = [
        "",
        "{bad",
        "{}",
        "[]",
        "5",
        "true",
        "\"text\"",
        "{\"id\":\"H9\"}",
        "{\"definition\":\"text\"}",
        "{\"definition\":5}",
        "{\"definition\":[]}",
        "{\"definition\":{\"inputs\":{\"a\":null}}}",
    ];
    for body in bodies {
        let answer = http.post_text(&path, body).await?;
        answer.refuses(400).map_err(|error| anyhow::anyhow!("body {body:?}: {error}"))?;
    }
    http.get("/q/%zz").await?.is(400)?;
    Ok(())
}

async fn too_large(t: Test) -> anyhow::Result<()> {
    const LIMIT_BYTES: usize = 64 << 20;
    let (http, queue) = (t.http(), t.queue());
    let mut definition = Test::job();
    definition["env"] = json!({ "A": "x".repeat(LIMIT_BYTES) });
    let answer = http.post(&format!("/q/{queue}"), &json!({ "definition": definition })).await?;
    answer.refuses(413)?;
    same("jobs", &http.list(&queue).await?.len(), &0)
}

async fn cached_is_listed(t: Test) -> anyhow::Result<()> {
    let (http, first, second, definition) = (t.http(), t.queue(), t.queue(), Test::job());
    let id = http.submit(&first, &definition).await?;
    Worker::join(&t, &first).await?.do_job(&id, "out").await?;
    http.submit(&second, &definition).await?;
    same("state in the list", &http.list(&second).await?[&id]["state"], &json!("Finished"))?;
    let answer = http.cancel(&second, &id, "").await?;
    answer.says(200, &json!({ "message": "Job already Finished|Removed" }))
}
