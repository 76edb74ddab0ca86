//! Old workers that go and come back (`jobs-and-states` 3.5, 8.7, 8.8).

use std::time::Duration;

use serde_json::{Value, json};

use crate::check::{LIST_PERIOD, same, same_json, that};
use crate::peers::client::Client;
use crate::peers::socket::Socket;
use crate::peers::worker::{Worker, finished, logs, registration, result, running_at};
use crate::registry::{Item, item};
use crate::test::{Test, now};

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "10.9",
            Compat,
            "A lost worker's job is queued with its old time, and its repeated claim or result is taken.",
            back
        ),
        item!("10.9", Dockframe, "A worker with two sockets is lost with the last of them.", two_sockets),
        item!("R-4", Dockframe, "Every live socket of a worker is served.", two_sockets),
        item!("R-4b", Dockframe, "Of two sockets with one id the newer registration stands.", newest_stands),
        item!("J-19", Dockframe, "A job that loses its worker again and again ends with an error.", attempts)
            .long(),
    ]
}

async fn back(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let worker = Worker::join(&t, &queue).await?;
    let (name, claimed) = (worker.id.clone(), now());
    let id = client.submit(&Test::job(), None).await?;
    worker.claim(&id).await?;
    let first = client.state(&id, "Running").await?;
    drop(worker);
    let lost = client.state_within(&id, "Queued", LIST_PERIOD).await?;
    same("queuedTime", &lost["queuedTime"], &first["queuedTime"])?;
    // It flushes what it queued while it was away before it registers, as old workers do.
    let again = t.socket(&format!("/q/{queue}/worker")).await?;
    again.send(&running_at(&id, &name, claimed)).await?;
    again.send(&registration(&name)).await?;
    let resumed = client.state(&id, "Running").await?;
    same("worker", &resumed["worker"], &json!(name))?;
    same("queuedTime", &resumed["queuedTime"], &first["queuedTime"])?;
    drop(again);
    client.state_within(&id, "Queued", LIST_PERIOD).await?;
    let last = t.socket(&format!("/q/{queue}/worker")).await?;
    last.send(&finished(&id, &name, "Success", &result("late"))).await?;
    last.send(&registration(&name)).await?;
    client.state(&id, "Finished").await?;
    let data = t.http().result(&queue, &id).await?;
    same_json("the result", &data["finished"]["result"], &result("late"))
}

async fn two_sockets(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let first = Worker::join(&t, &queue).await?;
    let id = client.submit(&Test::job(), None).await?;
    first.claim(&id).await?;
    let second = Worker::join_as(&t, &queue, &first.id).await?;
    let seen = client.submit(&Test::job(), None).await?;
    first.state(&seen, "Queued").await?;
    second.state(&seen, "Queued").await?;
    drop(first);
    let mark = client.mark();
    // Longer than the grace after a closed socket.
    dockframe_tests::wait::stays("the claim", Duration::from_secs(7), async || {
        second.settle().await.map_err(|error| error.to_string())?;
        client.settle().await.map_err(|error| error.to_string())?;
        let job = client.table()[&id].clone();
        if job["state"] == "Running" { Ok(()) } else { Err(job.to_string()) }
    })
    .await?;
    that(
        "no loss shown",
        client.jobs(mark, &id).iter().all(|job| job["state"] == "Running"),
        &client.tail(mark),
    )?;
    second.send(&logs(&id, "Running", &json!([["by the second\n", 1]]))).await?;
    client.message(mark, "JobStatusPayload").await?;
    drop(second);
    client.state_within(&id, "Queued", LIST_PERIOD).await.map(|_| ())
}

async fn newest_stands(t: Test) -> anyhow::Result<()> {
    // All at one instance: of several, each lists its own first.
    let (address, queue) = (t.address().to_owned(), t.queue());
    let client = Socket::open(&address, &format!("/q/{queue}/client"), &[]).await?;
    let id = Test::nonce();
    let mut sockets = Vec::new();
    // Several, since by chance the right one may come first.
    for cpus in 1..=5 {
        let socket = Socket::open(&address, &format!("/q/{queue}/worker"), &[]).await?;
        let mut message = registration(&id);
        message["payload"]["cpus"] = json!(cpus);
        let mark = client.mark();
        socket.send(&message).await?;
        let newest = client.message_that(mark, "Workers", "the newest registration alone", |list| {
            let all = list["workers"].as_array();
            all.is_some_and(|all| all.len() == 1 && all[0]["cpus"] == cpus)
        });
        newest.await?;
        sockets.push(socket);
    }
    Ok(())
}

async fn attempts(t: Test) -> anyhow::Result<()> {
    const MOST: usize = 6;
    let (http, queue) = (t.http(), t.queue());
    let client = Client::join(&t, &queue).await?;
    let id = client.submit(&Test::job(), None).await?;
    for _ in 0..MOST {
        let worker = Worker::join(&t, &queue).await?;
        if worker.claim(&id).await.is_err() {
            break;
        }
        drop(worker);
        let next = client.until_table("its loss", LIST_PERIOD, |table| {
            table.get(&id).filter(|job| job["state"] != "Running").cloned()
        });
        if next.await?["state"] == "Finished" {
            break;
        }
    }
    same("reason", &client.state(&id, "Finished").await?["finishedReason"], &json!("Error"))?;
    let error: Value = http.result(&queue, &id).await?["finished"]["result"]["error"].take();
    that("a text that says so", !error.is_null(), &error)
}
