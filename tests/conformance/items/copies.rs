//! Copying (`relay-protocol` 2.15, `jobs-and-states` 6.1).

use serde_json::{Value, json};

use crate::check::{SOON, same, same_json};
use crate::peers::client::Client;
use crate::peers::worker::{Worker, result};
use crate::registry::{Item, item};
use crate::test::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!("7.25", Compat, "A known job is copied to another queue, an unknown one is a 404.", copied),
        item!("10.12", Compat, "A copy has a namespace of its own and no debug.", copied),
        item!("10.4a", Compat, "A copy of a finished job is finished at once.", finished),
        item!("10.4c", Compat, "A cancel in one queue leaves the job of the other alone.", cancel_in_one),
        item!("R-28", Dockframe, "A copy without a queue is refused.", nowhere),
    ]
}

async fn copied(t: Test) -> anyhow::Result<()> {
    let (http, first, second) = (t.http(), t.queue(), t.queue());
    let body = json!({ "definition": Test::job(), "debug": true, "control": { "namespace": "a" } });
    let id = http.submit_body(&first, &body).await?;
    let copy = json!({ "queue": second, "control": { "namespace": "c" } });
    http.post(&format!("/j/{id}/copy"), &copy).await?.says(200, &json!({ "success": true }))?;
    let job = http.list(&second).await?[&id].clone();
    same("state", &job["state"], &json!("Queued"))?;
    same("namespaces", &job["namespaces"], &json!(["c"]))?;
    anyhow::ensure!(job["debug"] != true, "expected no debug; came {job}");
    let plain = t.queue();
    http.post(&format!("/j/{id}/copy"), &json!({ "queue": plain })).await?.is(200)?;
    same("default namespace", &http.list(&plain).await?[&id]["namespaces"], &json!(["_"]))?;
    let unknown = http.post(&format!("/j/{}/copy", Test::nonce()), &copy).await?;
    unknown.says(404, &json!({ "error": "Job definition not found" }))
}

async fn finished(t: Test) -> anyhow::Result<()> {
    let (http, first, second) = (t.http(), t.queue(), t.queue());
    let id = http.submit(&first, &Test::job()).await?;
    Worker::join(&t, &first).await?.do_job(&id, "out").await?;
    let client = Client::join(&t, &second).await?;
    let mark = client.mark();
    http.post(&format!("/j/{id}/copy"), &json!({ "queue": second })).await?.is(200)?;
    client.state(&id, "Finished").await?;
    for job in client.jobs(mark, &id) {
        same("every state shown", &job["state"], &json!("Finished"))?;
    }
    let data = http.result(&second, &id).await?;
    same_json("result", &data["finished"]["result"], &result("out"))
}

async fn cancel_in_one(t: Test) -> anyhow::Result<()> {
    let (http, first, second, definition) = (t.http(), t.queue(), t.queue(), Test::job());
    let id = http.submit(&first, &definition).await?;
    http.submit(&second, &definition).await?;
    let (one, other) = (Client::join(&t, &first).await?, Client::join(&t, &second).await?);
    http.cancel(&first, &id, "").await?.is(200)?;
    one.send(&json!({ "type": "QueryJobStates" })).await?;
    one.gone(&id, SOON).await?;
    same("state in the other queue", &other.state(&id, "Queued").await?["namespaces"], &json!(["_"]))?;
    same("its list", &http.list(&second).await?[&id]["state"], &json!("Queued"))?;
    same("the list of the first", &http.list(&first).await?.get(&id), &None::<&Value>)
}

async fn nowhere(t: Test) -> anyhow::Result<()> {
    let http = t.http();
    let id = http.submit(&t.queue(), &Test::job()).await?;
    http.post(&format!("/j/{id}/copy"), &json!({})).await?.refuses(400)?;
    http.post(&format!("/j/{id}/copy"), &json!({ "queue": 5 })).await?.refuses(400)?;
    http.post_text(&format!("/j/{id}/copy"), "").await?.refuses(400)
}
