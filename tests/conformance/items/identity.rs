//! Ids (`jobs-and-states` 2, 10.1).

use serde_json::{Value, json};

use super::vectors::{CANONICAL, JOB_DEFINITIONS, JOB_IDS};
use crate::check::{same, same_json};
use crate::peers::client::Client;
use crate::peers::worker::Worker;
use crate::registry::{Item, item};
use crate::test::{Test, job_id};

pub(super) fn items() -> Vec<Item> {
    vec![
        item!("7.5", Compat, "Without an id the relay computes it from the definition.", computed),
        item!("7.52", Compat, "The ids of the canonical texts come out exactly.", canonical),
        item!("10.1a", Compat, "All recorded ids come out exactly.", recorded),
        item!(
            "10.1b",
            Compat,
            "What does not change the work does not change the id, and what does, does.",
            same_work
        ),
        item!(
            "10.1c",
            Compat,
            "A submission over HTTP without id is answered with the computed one.",
            computed
        ),
        item!("10.1d", Compat, "An id of the client's own is kept and answered.", own_id),
        item!(
            "10.1e",
            Dockframe,
            "A result under an unverified id does not answer another queue.",
            unverified
        ),
        item!(
            "R-11",
            Dockframe,
            "A definition planted under a known id answers nobody in another queue.",
            planted
        ),
        item!("J-11", Dockframe, "The first definition under an id stays.", first_definition),
    ]
}

async fn computed(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    for body in [json!({}), json!({ "id": null }), json!({ "id": "" })] {
        let definition = Test::job();
        let mut body = body;
        body["definition"] = definition.clone();
        same("id", &http.submit_body(&queue, &body).await?, &job_id(&definition)?)?;
    }
    Ok(())
}

/// Submits each definition and compares the id that is answered.
async fn answer_ids(t: &Test, cases: impl Iterator<Item = (String, Value, String)>) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let mut n = 0;
    for (note, definition, id) in cases {
        let came = http.submit(&queue, &definition).await;
        let came = came.map_err(|error| anyhow::anyhow!("{note}: {error:#}"))?;
        same(&note, &came, &id)?;
        n += 1;
    }
    anyhow::ensure!(n > 0, "the file of vectors holds none");
    Ok(())
}

fn case(vector: &Value) -> Option<(String, Value, String)> {
    // One of the files says `id` and `name`.
    let id = vector["jobId"].as_str().or(vector["id"].as_str())?.to_owned();
    let note = vector["note"].as_str().or(vector["name"].as_str()).unwrap_or(&id).to_owned();
    Some((note, vector["definition"].clone(), id))
}

async fn canonical(t: Test) -> anyhow::Result<()> {
    let vectors: Vec<Value> = serde_json::from_str(CANONICAL)?;
    answer_ids(&t, vectors.iter().filter_map(case)).await
}

async fn recorded(t: Test) -> anyhow::Result<()> {
    let vectors: Vec<Value> = serde_json::from_str(JOB_IDS)?;
    answer_ids(&t, vectors.iter().filter_map(case)).await?;
    let more: Value = serde_json::from_str(JOB_DEFINITIONS)?;
    answer_ids(&t, more["ids"].as_array().into_iter().flatten().filter_map(case)).await
}

async fn same_work(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let nonce = Test::nonce();
    let base = json!({ "image": "a:1", "command": nonce, "env": { "A": "1" }, "inputs": { "f": { "type": "utf8", "value": "x" } } });
    let id = http.submit(&queue, &base).await?;
    let same_work = [
        json!({ "command": nonce, "inputs": { "f": { "value": "x", "type": "utf8" } }, "env": { "A": "1" }, "image": "a:1" }),
        json!({ "image": "a:1", "command": nonce, "env": { "A": "1" }, "inputs": { "f": { "type": "utf8", "value": "x" } }, "unknown": 1, "workdir": null }),
        json!({ "image": "a:1", "command": nonce, "env": { "A": "1", "mp-x": "1", "channel": "c" }, "configFiles": {}, "inputs": { "f": { "type": "utf8", "value": "x", "hash": "h" } } }),
    ];
    for definition in same_work {
        same(&format!("id of {definition}"), &http.submit(&queue, &definition).await?, &id)?;
    }
    let other_work = [
        json!({ "image": "a:1", "command": nonce, "env": { "A": "1" }, "inputs": { "f": { "type": "utf8", "value": "x" } }, "workdir": "" }),
        json!({ "image": "a:1", "command": nonce, "env": { "A": "1" }, "inputs": { "f": { "type": "utf8", "value": "x" } }, "tags": [] }),
        json!({ "image": "a:1", "command": nonce, "env": { "A": "1" }, "inputs": { "f": { "type": "utf8", "value": "x" } }, "tags": ["a", "b"] }),
        json!({ "image": "a:1", "command": nonce, "env": { "A": "1" }, "inputs": { "f": { "type": "utf8", "value": "x" } }, "tags": ["b", "a"] }),
        json!({ "image": "a:1", "command": nonce, "env": { "A": "1" }, "inputs": { "f": { "type": "utf8", "value": "x" } }, "requirements": { "gpus": 0 } }),
    ];
    let mut ids = vec![id];
    for definition in other_work {
        let id = http.submit(&queue, &definition).await?;
        anyhow::ensure!(!ids.contains(&id), "expected an id of its own for {definition}; came {id}");
        ids.push(id);
    }
    Ok(())
}

async fn own_id(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let (id, definition) = (format!("own-{}", Test::nonce()), Test::job());
    let body = json!({ "id": id, "definition": definition });
    same("id", &http.submit_body(&queue, &body).await?, &id)?;
    anyhow::ensure!(
        http.list(&queue).await?.contains_key(&id),
        "expected the job under its own id in the list"
    );
    same_json("definition", &http.data(&format!("/q/{queue}/j/{id}/definition.json")).await?, &definition)
}

async fn unverified(t: Test) -> anyhow::Result<()> {
    let (http, first, second) = (t.http(), t.queue(), t.queue());
    let body = json!({ "id": format!("own-{}", Test::nonce()), "definition": Test::job() });
    let id = http.submit_body(&first, &body).await?;
    Worker::join(&t, &first).await?.do_job(&id, "forged").await?;
    http.submit_body(&second, &body).await?;
    same("state in the other queue", &http.list(&second).await?[&id]["state"], &json!("Queued"))?;
    same_json("result in the other queue", &http.result(&second, &id).await?, &Value::Null)
}

async fn planted(t: Test) -> anyhow::Result<()> {
    let (http, hostile, honest) = (t.http(), t.queue(), t.queue());
    let definition = Test::job();
    let id = job_id(&definition)?;
    let planted = json!({ "id": id, "definition": Test::job() });
    same("id", &http.submit_body(&hostile, &planted).await?, &id)?;
    Worker::join(&t, &hostile).await?.do_job(&id, "forged").await?;
    same("id", &http.submit(&honest, &definition).await?, &id)?;
    let client = Client::join(&t, &honest).await?;
    client.state(&id, "Queued").await?;
    let came = http.data(&format!("/q/{honest}/j/{id}/definition.json")).await?;
    same_json("definition in the honest queue", &came, &definition)?;
    same_json("definition of the id", &http.data(&format!("/j/{id}/definition.json")).await?, &definition)
}

async fn first_definition(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let (id, first) = (format!("own-{}", Test::nonce()), Test::job());
    http.submit_body(&queue, &json!({ "id": id, "definition": first })).await?;
    http.cancel(&queue, &id, "?namespace=*").await?.is(200)?;
    // A submission that creates an entry again.
    http.submit_body(&queue, &json!({ "id": id, "definition": Test::job() })).await?;
    same_json("definition", &http.data(&format!("/q/{queue}/j/{id}/definition.json")).await?, &first)
}
