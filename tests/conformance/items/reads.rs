//! Reading jobs and results (`relay-protocol` 2.4 to 2.8).

use serde_json::{Value, json};

use crate::check::{same, same_json};
use crate::peers::client::Client;
use crate::peers::worker::{Worker, finished, logs, result};
use crate::registry::{Item, item};
use crate::test::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.8",
            Compat,
            "The list of a queue shows what is there, sorted namespaces, and no results.",
            list
        ),
        item!(
            "7.9",
            Compat,
            "A job is read with its definition as submitted, and its result once there is one.",
            job
        ),
        item!(
            "7.10",
            Compat,
            "Definition and result answer 200 under both prefixes, with null for what is not there.",
            documents
        ),
        item!("7.11", Compat, "The worker's result object is handed out unchanged.", unchanged),
        item!(
            "7.12",
            Compat,
            "The result can be read, on every instance, when a socket shows Finished.",
            readable_when_shown
        ),
        item!("7.13", Compat, "The namespaces of a job are a list, empty for an unknown job.", namespaces),
        item!(
            "10.5",
            Compat,
            "Definition, result, outputs and logs can be read when Finished is seen.",
            readable_when_shown
        ),
        item!("7.16", Compat, "All log lines can be read when Finished is visible.", all_lines),
        item!(
            "R-34",
            Dockframe,
            "Under a queue its own result is read, else the shared one, never another queue's.",
            own_result
        ),
    ]
}

async fn list(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    for path in [format!("/q/{queue}"), format!("/q/{queue}/j")] {
        http.get(&path).await?.says(200, &json!({ "data": {} }))?;
    }
    let (kept, cancelled, done) = (Test::job(), Test::job(), Test::job());
    let kept_id = http.submit_in(&queue, &kept, "zz").await?;
    http.submit_in(&queue, &kept, "aa").await?;
    let cancelled_id = http.submit(&queue, &cancelled).await?;
    let done_id = http.submit(&queue, &done).await?;
    Worker::join(&t, &queue).await?.do_job(&done_id, "out").await?;
    http.cancel(&queue, &cancelled_id, "").await?.is(200)?;
    let by_long = http.data(&format!("/q/{queue}/j")).await?;
    let list = Value::Object(http.list(&queue).await?);
    same_json("both forms", &by_long, &list)?;
    same("namespaces", &list[&kept_id]["namespaces"], &json!(["aa", "zz"]))?;
    same("the cancelled job", &list.get(&cancelled_id), &None)?;
    same("the finished job", &list[&done_id]["finishedReason"], &json!("Success"))?;
    same("its result in the list", &list[&done_id].get("finished"), &None)
}

async fn job(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let definition = json!({ "image": "a", "command": Test::nonce(), "unknown": { "deep": [1, null, 1.5] }, "env": { "mp-x": "1" },
        "inputs": { "f": { "type": "utf8", "value": "x", "hash": "h", "more": true } } });
    let id = http.submit(&queue, &definition).await?;
    let paths = [format!("/q/{queue}/j/{id}"), format!("/j/{id}.json")];
    for path in &paths {
        http.get(path).await?.says(200, &json!({ "data": { "definition": definition } }))?;
    }
    Worker::join(&t, &queue).await?.do_job(&id, "out").await?;
    let stored = http.result(&queue, &id).await?;
    for path in &paths {
        let body = json!({ "data": { "definition": definition, "results": stored } });
        http.get(path).await?.says(200, &body)?;
    }
    for path in [format!("/q/{queue}/j/none"), "/j/none.json".to_owned()] {
        http.get(&path).await?.says(404, &json!({ "error": "Job not found" }))?;
    }
    Ok(())
}

async fn documents(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let id = http.submit(&queue, &definition).await?;
    for prefix in ["/j/none".to_owned(), format!("/q/{queue}/j/none")] {
        for name in ["definition.json", "result.json", "results.json"] {
            http.get(&format!("{prefix}/{name}")).await?.says(200, &json!({ "data": null }))?;
        }
    }
    let prefixes = [format!("/j/{id}"), format!("/q/{queue}/j/{id}")];
    for prefix in &prefixes {
        http.get(&format!("{prefix}/definition.json")).await?.says(200, &json!({ "data": definition }))?;
        http.get(&format!("{prefix}/result.json")).await?.says(200, &json!({ "data": null }))?;
    }
    Worker::join(&t, &queue).await?.do_job(&id, "out").await?;
    let stored = http.result(&queue, &id).await?;
    same("state", &stored["state"], &json!("Finished"))?;
    for prefix in &prefixes {
        for name in ["result.json", "results.json"] {
            http.get(&format!("{prefix}/{name}")).await?.says(200, &json!({ "data": stored }))?;
        }
    }
    Ok(())
}

async fn unchanged(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let id = http.submit(&queue, &Test::job()).await?;
    let worker = Worker::join(&t, &queue).await?;
    worker.claim(&id).await?;
    let odd = json!({ "StatusCode": 3, "logs": [["a\nb", 1], ["err", 2, true]], "duration": 1.5, "isTimedOut": false,
        "outputs": { "d/e.json": { "type": "json", "value": { "z": 1, "a": [null, 1e21] }, "hash": "h" }, "u": { "type": "url", "value": "https://e.example/f/x" } },
        "error": { "statusCode": 404, "json": { "message": "m" } }, "unknown": [{}] });
    let mut end = finished(&id, &worker.id, "Error", &odd);
    end["payload"]["value"]["maker"] = json!({ "name": "another", "since": [1.5, null] });
    worker.send(&end).await?;
    worker.state(&id, "Finished").await?;
    let data = http.result(&queue, &id).await?;
    same_json("result", &data["finished"]["result"], &odd)?;
    same_json("what else it said", &data["finished"]["maker"], &end["payload"]["value"]["maker"])?;
    same("reason", &data["finishedReason"], &json!("Error"))?;
    same("inner reason", &data["finished"]["reason"], &json!("Error"))?;
    same("worker", &data["worker"], &json!(worker.id))?;
    same("inner worker", &data["finished"]["worker"], &json!(worker.id))?;
    same("namespaces", &data["namespaces"], &json!(["_"]))
}

async fn readable_when_shown(t: Test) -> anyhow::Result<()> {
    let (queue, definition) = (t.queue(), Test::job());
    let id = t.http().submit(&queue, &definition).await?;
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    worker.claim(&id).await?;
    worker.log(&id, "Running", &json!([["line\n", 5]])).await?;
    worker.send(&finished(&id, &worker.id, "Success", &result("out"))).await?;
    client.state(&id, "Finished").await?;
    // With two instances the two connections go to both.
    for http in [t.http(), t.http()] {
        let data = http.result(&queue, &id).await?;
        same_json("result", &data["finished"]["result"], &result("out"))?;
        same_json("definition", &http.data(&format!("/j/{id}/definition.json")).await?, &definition)?;
        http.get(&format!("/q/{queue}/j/{id}/outputs/o.txt")).await?.tells(200, "out")?;
        same_json("lines", &http.run_logs(&queue, &id, "").await?["data"], &json!([["line\n", 5]]))?;
    }
    Ok(())
}

async fn namespaces(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    http.get(&format!("/q/{queue}/j/none/namespaces.json")).await?.says(200, &json!({ "data": [] }))?;
    let mut id = String::new();
    for namespace in ["b", "_", "a", "B"] {
        id = http.submit_in(&queue, &definition, namespace).await?;
    }
    let path = format!("/q/{queue}/j/{id}/namespaces.json");
    http.get(&path).await?.says(200, &json!({ "data": ["B", "_", "a", "b"] }))
}

async fn all_lines(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let id = t.http().submit(&queue, &Test::job()).await?;
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    worker.claim(&id).await?;
    for n in 0..100 {
        worker.send(&logs(&id, "Running", &json!([[format!("{n}\n"), n]]))).await?;
    }
    worker.send(&finished(&id, &worker.id, "Success", &result("out"))).await?;
    client.state(&id, "Finished").await?;
    let came = t.http().run_logs(&queue, &id, "").await?;
    same("nextCursor", &came["nextCursor"], &json!(100))?;
    same("isFinal", &came["isFinal"], &json!(true))?;
    same("number of lines", &came["data"].as_array().map(Vec::len), &Some(100))
}

async fn own_result(t: Test) -> anyhow::Result<()> {
    let (http, definition) = (t.http(), Test::job());
    let (first, second, third) = (t.queue(), t.queue(), t.queue());
    // Both queues hold the job live, so each runs it.
    let id = http.submit(&first, &definition).await?;
    http.submit(&second, &definition).await?;
    Worker::join(&t, &first).await?.do_job(&id, "first").await?;
    same_json(
        "result while this queue still waits",
        &http.list(&second).await?[&id]["state"],
        &json!("Queued"),
    )?;
    Worker::join(&t, &second).await?.do_job(&id, "second").await?;
    for (queue, text) in [(&first, "first"), (&second, "second"), (&third, "first")] {
        let data = http.result(queue, &id).await?;
        same_json("result", &data["finished"]["result"], &result(text))?;
        http.get(&format!("/q/{queue}/j/{id}/outputs/o.txt")).await?.tells(200, text)?;
    }
    let shared = http.data(&format!("/j/{id}/result.json")).await?;
    same_json("the shared result", &shared["finished"]["result"], &result("first"))
}
