//! Hostile frames and names (`relay-protocol` 6, R-44 and R-45).

use serde_json::{Value, json};

use crate::check::{SOON, same, same_json};
use crate::peers::client::{Client, queued};
use crate::peers::worker::Worker;
use crate::registry::{Item, item};
use crate::test::{Test, job_id};

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "R-44",
            Dockframe,
            "A frame with fields of wrong types costs its sender that frame alone.",
            wrong_types
        ),
        item!(
            "R-45",
            Dockframe,
            "Names of built-in properties are names like any other, and other types are refused.",
            odd_names
        ),
        item!("J-20", Dockframe, "A client's WorkerLost or Removed changes nothing.", lost_or_removed),
    ]
}

async fn wrong_types(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let id = client.submit(&Test::job(), None).await?;
    worker.claim(&id).await?;
    let odd = [json!(["x"]), json!({ "a": 1 }), json!(5), json!(true), Value::Null];
    for value in &odd {
        let change = |state: &str, value: &Value| json!({ "type": "StateChange", "payload": { "tag": value, "state": state, "job": value, "value": value } });
        let frames = [
            json!({ "type": "QueryJob", "payload": { "jobId": value } }),
            json!({ "type": "QueryJob", "payload": value }),
            json!({ "type": "RequestJobDefinitions", "payload": { "jobIds": value } }),
            json!({ "type": "RequestJobDefinitions", "payload": { "jobIds": [value] } }),
            json!({ "type": "WorkerRegistration", "payload": value }),
            json!({ "type": "WorkerRegistration", "payload": { "id": value, "cpus": value } }),
            json!({ "type": "JobStatusLogs", "payload": { "jobId": id, "step": value, "logs": value } }),
            json!({ "type": "JobStatusLogs", "payload": { "jobId": value, "step": "Running", "logs": [value] } }),
            json!({ "type": "WorkerStatusResponse", "payload": value }),
            json!({ "type": "Watch", "payload": { "jobs": value } }),
            json!({ "type": value, "payload": value }),
            change("Queued", value),
            change("Running", value),
            change("Finished", value),
            change("Removed", value),
        ];
        for frame in &frames {
            client.send(frame).await?;
            worker.send(frame).await?;
        }
    }
    client.settle().await?;
    worker.settle().await?;
    same("state of the other job", &client.state(&id, "Running").await?["worker"], &json!(worker.id))?;
    worker.finish(&id, "Success", &crate::peers::worker::result("out")).await?;
    client.state(&id, "Finished").await?;
    t.http().get("/healthz").await?.tells(200, "OK")
}

async fn odd_names(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let client = Client::join(&t, &queue).await?;
    for name in ["constructor", "toString", "hasOwnProperty", "valueOf", "__proto__"] {
        let id = http.submit_in(&queue, &Test::job(), name).await?;
        same_json("namespaces", &http.namespaces(&queue, &id).await?, &json!([name]))?;
        let body = json!({ "id": name, "definition": Test::job() });
        same("id", &http.submit_body(&queue, &body).await?, &name.to_owned())?;
        client.state(name, "Queued").await?;
    }
    for namespace in [json!(["a"]), json!({ "a": 1 }), json!(5), json!("*")] {
        let body = json!({ "definition": Test::job(), "control": { "namespace": namespace } });
        http.post(&format!("/q/{queue}"), &body)
            .await?
            .refuses(400)
            .map_err(|error| anyhow::anyhow!("namespace {namespace}: {error}"))?;
        let definition = Test::job();
        let id = job_id(&definition)?;
        let mut change = queued(&id, &definition, None);
        change["payload"]["value"]["enqueued"]["control"] = json!({ "namespace": namespace });
        client.send(&change).await?;
        client.settle().await?;
        same_json("a job that was not taken", &client.query(&id).await?, &json!({}))?;
    }
    client.submit(&Test::job(), None).await.map(|_| ())
}

async fn lost_or_removed(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let id = client.submit(&Test::job(), None).await?;
    worker.claim(&id).await?;
    client.state(&id, "Running").await?;
    let mark = client.mark();
    client.end(&id, "WorkerLost", None).await?;
    client.send(&json!({ "type": "StateChange", "payload": { "tag": "", "state": "Removed", "job": id, "value": {} } })).await?;
    worker.send(&json!({ "type": "StateChange", "payload": { "tag": "", "state": "Removed", "job": id, "value": {} } })).await?;
    worker.settle().await?;
    client.settle().await?;
    same("updates", &client.payloads(mark, "JobStateUpdates"), &vec![])?;
    same("QueryJob", &client.query(&id).await?[&id]["state"], &json!("Running"))?;
    client.state_within(&id, "Running", SOON).await.map(|_| ())
}
