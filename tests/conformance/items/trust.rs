//! Queues are trust domains (`jobs-and-states` 3.8).

use serde_json::{Value, json};

use crate::check::{same, same_json};
use crate::peers::client::Client;
use crate::peers::worker::{Worker, finished, result, running};
use crate::registry::{Item, item};
use crate::test::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "10.4b",
            Dockframe,
            "A live job in two queues runs once in each, and neither touches the other.",
            two_runs
        ),
        item!("J-3", Dockframe, "A job in two queues has a record in each.", two_runs),
        item!("J-4", Dockframe, "A result sent to a queue that does not hold the job is dropped.", not_held),
    ]
}

async fn two_runs(t: Test) -> anyhow::Result<()> {
    let (http, honest, hostile, definition) = (t.http(), t.queue(), t.queue(), Test::job());
    let id = http.submit(&honest, &definition).await?;
    http.submit(&hostile, &definition).await?;
    let (client, worker) = (Client::join(&t, &honest).await?, Worker::join(&t, &honest).await?);
    let (stranger, forger) = (Client::join(&t, &hostile).await?, Worker::join(&t, &hostile).await?);
    let mark = client.mark();
    forger.claim(&id).await?;
    forger.log(&id, "Running", &json!([["forged\n", 1]])).await?;
    client.settle().await?;
    same("state while the other queue runs it", &client.table()[&id]["state"], &json!("Queued"))?;
    forger.finish(&id, "Success", &result("forged")).await?;
    stranger.end(&id, "Deleted", Some("*")).await?;
    stranger.settle().await?;
    client.settle().await?;
    same("state after its end there", &client.table()[&id]["state"], &json!("Queued"))?;
    same("updates here", &client.payloads(mark, "JobStateUpdates"), &vec![])?;
    same_json(
        "the result here",
        &http.data(&format!("/q/{honest}/j/{id}/result.json")).await?,
        &Value::Null,
    )?;
    worker.claim(&id).await?;
    worker.log(&id, "Running", &json!([["true\n", 1]])).await?;
    // The other queue once more, while it runs here.
    stranger.submit(&definition, None).await?;
    forger.claim(&id).await?;
    stranger.end(&id, "Cancelled", Some("*")).await?;
    stranger.settle().await?;
    worker.finish(&id, "Success", &result("true")).await?;
    client.state(&id, "Finished").await?;
    let data = http.result(&honest, &id).await?;
    same_json("the result here", &data["finished"]["result"], &result("true"))?;
    same_json("the lines here", &http.run_logs(&honest, &id, "").await?["data"], &json!([["true\n", 1]]))?;
    same("lines on sockets", &client.payloads(mark, "JobStatusPayload").len(), &1)
}

async fn not_held(t: Test) -> anyhow::Result<()> {
    let (http, honest, hostile, definition) = (t.http(), t.queue(), t.queue(), Test::job());
    let id = http.submit(&honest, &definition).await?;
    Worker::join(&t, &honest).await?.do_job(&id, "true").await?;
    let before = http.result(&honest, &id).await?;
    let forger = Worker::join(&t, &hostile).await?;
    forger.send(&running(&id, &forger.id)).await?;
    forger.send(&finished(&id, &forger.id, "Success", &result("forged"))).await?;
    forger.settle().await?;
    same_json("the result", &http.result(&honest, &id).await?, &before)?;
    same_json(
        "the shared result",
        &http.data(&format!("/j/{id}/result.json")).await?["finished"],
        &before["finished"],
    )?;
    same("the hostile queue's list", &http.list(&hostile).await?.len(), &0)
}
