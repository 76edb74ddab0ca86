//! Old and new workers in one queue (`jobs-and-states` 8.8).

use std::time::Duration;

use serde_json::json;

use crate::check::{SOON, same, same_json, that};
use crate::peers::client::Client;
use crate::peers::lease_worker::LeaseWorker;
use crate::peers::worker::{Worker, result, running};
use crate::registry::{Item, item};
use crate::test::Test;
use dockframe_tests::wait;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "10.14b",
            Dockframe,
            "No lease message and no lease id reaches anybody but its worker.",
            secret
        ),
        item!(
            "10.14k",
            Dockframe,
            "With an old worker in the queue no job is recorded twice, and old peers see old messages.",
            mixed
        ),
        item!("J-14", Dockframe, "A claim outlives the opening of its queue by others.", opened_by_others),
    ]
}

async fn secret(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let (client, old) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let watcher = crate::peers::watcher::Watcher::join(&t, &queue).await?;
    let worker = LeaseWorker::join(&t, &queue, 2).await?;
    let id = client.submit(&Test::job(), None).await?;
    watcher.watch(&json!({ &id: { "run": 0 } })).await?;
    let grant = worker.take().await?;
    client.state(&id, "Running").await?;
    worker.log(&grant, 0, &json!([["line\n", 1]])).await?;
    client.message(0, "JobStatusPayload").await?;
    worker.register(&[&grant.lease]).await?;
    let status = http.get(&format!("/q/{queue}/status")).await?.text();
    worker.succeed(&grant.lease, "out").await?;
    client.state(&id, "Finished").await?;
    old.settle().await?;
    let mut texts = vec![status];
    for path in [
        format!("/q/{queue}"),
        format!("/q/{queue}/j/{id}/result.json"),
        format!("/q/{queue}/j/{id}/run-logs.json"),
        format!("/q/{queue}/status"),
    ] {
        texts.push(http.get(&path).await?.text());
    }
    for socket in [&*client, &*old, &*watcher] {
        texts.push(format!("{:?}", socket.frames(0)));
        let kinds = socket.kinds(0);
        that("no lease message", !kinds.iter().any(|kind| kind.starts_with("Lease")), &kinds)?;
    }
    for text in texts {
        for word in [grant.lease.as_str(), worker.instance.as_str(), "leaseId"] {
            that(&format!("no {word:?}"), !text.contains(word), &text)?;
        }
    }
    let line = client.payloads(0, "JobStatusPayload").remove(0);
    same_json(
        "the line as an old client gets it",
        &line,
        &json!({ "jobId": id, "step": "Running", "logs": [["line\n", 1]] }),
    )
}

async fn mixed(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let (client, old) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let new = LeaseWorker::join(&t, &queue, 1).await?;
    let leased = client.submit(&Test::job(), None).await?;
    let grant = new.take().await?;
    same("the granted job", &grant.job, &leased)?;
    client.state(&leased, "Running").await?;
    // What an old worker does not find in a full list it kills; a leased job must not be in its list.
    let mark = old.mark();
    old.send(&running(&leased, &old.id)).await?;
    let list = old.message(mark, "JobStates").await?;
    same("the leased job in a full list", &list["state"]["jobs"].get(&leased), &None)?;
    client.settle().await?;
    same("worker shown", &client.table()[&leased]["worker"], &json!(new.id))?;
    // The next job finds the new worker full, so the old one may have it.
    let claimed = client.submit(&Test::job(), None).await?;
    old.claim(&claimed).await?;
    new.succeed(&grant.lease, "new").await?;
    old.finish(&claimed, "Success", &result("old")).await?;
    for (id, text) in [(&leased, "new"), (&claimed, "old")] {
        client.state(id, "Finished").await?;
        let data = http.result(&queue, id).await?;
        same_json("the result", &data["finished"]["result"], &result(text))?;
    }
    new.settle().await?;
    same("grants", &new.grants(0).len(), &1)?;
    let known = [
        "JobStates",
        "JobStateUpdates",
        "Workers",
        "JobStatusPayload",
        "ClearJobCache",
        "BroadcastJobDefinitions",
        "StatusRequest",
        "PONG",
    ];
    let strange: Vec<_> =
        client.kinds(0).into_iter().filter(|kind| !known.contains(&kind.as_str())).collect();
    same("messages that an old client does not know", &strange, &vec![])
}

async fn opened_by_others(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let worker = Worker::join(&t, &queue).await?;
    let id = t.http().submit(&queue, &Test::job()).await?;
    worker.claim(&id).await?;
    let client = Client::join(&t, &queue).await?;
    client.state(&id, "Running").await?;
    wait::stays("the claim", Duration::from_secs(8), async || {
        worker.settle().await.map_err(|error| error.to_string())?;
        client.settle().await.map_err(|error| error.to_string())?;
        let job = client.table()[&id].clone();
        if job["state"] == "Running" { Ok(()) } else { Err(job.to_string()) }
    })
    .await?;
    worker.finish(&id, "Success", &result("out")).await?;
    client.state_within(&id, "Finished", SOON).await.map(|_| ())
}
