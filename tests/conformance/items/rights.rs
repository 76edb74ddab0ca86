//! Who may do what (`jobs-and-states` 3.7, 3.1).

use serde_json::{Value, json};

use crate::check::{LIST_PERIOD, SOON, same, same_json};
use crate::peers::client::{Client, ended, queued};
use crate::peers::socket::Socket;
use crate::peers::worker::{Worker, finished, result, running, running_at};
use crate::registry::{Item, item};
use crate::test::{Test, job_id, now};

/// Ten minutes.
const OFF_MS: u64 = 600_000;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!("10.16", Dockframe, "What a socket may not do has no visible effect.", refused),
        item!("R-24", Dockframe, "Only the worker that holds a job runs and ends it.", only_holder),
        item!("10.2d", Dockframe, "Clocks that are ten minutes off change no decision.", clocks),
        item!(
            "J-17",
            Dockframe,
            "The relay's clock stamps what is queued, whatever the sender says.",
            clocks
        ),
        item!("J-9", Dockframe, "Changes over HTTP and sockets of one job stand in one line.", one_line),
    ]
}

/// That a job is shown as it was, after frames that must not count.
async fn unchanged(client: &Socket, mark: usize, id: &str, expected: &Value) -> anyhow::Result<()> {
    client.settle().await?;
    same("updates of refused changes", &client.payloads(mark, "JobStateUpdates"), &vec![])?;
    same_json("the job", &client.table().get(id).cloned().unwrap_or_default(), expected)
}

async fn refused(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let id = client.submit(&Test::job(), None).await?;
    let before = client.state(&id, "Queued").await?;
    worker.state(&id, "Queued").await?;
    let mark = client.mark();
    // A client neither claims nor ends a run, nor loses a worker.
    client.send(&running(&id, "nobody")).await?;
    client.send(&running(&id, &worker.id)).await?;
    for reason in ["Success", "Error", "TimedOut", "WorkerLost", "Nonsense"] {
        client.send(&finished(&id, &worker.id, reason, &result("forged"))).await?;
    }
    // A worker neither submits nor lets go, nor claims for others.
    let stranger = Test::job();
    let stranger_id = job_id(&stranger)?;
    worker.send(&queued(&stranger_id, &stranger, None)).await?;
    for reason in ["Cancelled", "JobReplacedByClient", "Deleted", "WorkerLost"] {
        worker.send(&ended(&id, reason, Some("_"))).await?;
    }
    worker.send(&running(&id, "somebody-else")).await?;
    worker.send(&finished(&id, &worker.id, "Success", &result("never claimed"))).await?;
    worker.settle().await?;
    unchanged(&client, mark, &id, &before).await?;
    same_json("a job that a worker submitted", &client.query(&stranger_id).await?, &json!({}))?;
    same_json("the result", &t.http().result(&queue, &id).await?, &Value::Null)
}

async fn only_holder(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let (client, holder) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    let (other, unregistered) =
        (Worker::join(&t, &queue).await?, t.socket(&format!("/q/{queue}/worker")).await?);
    let id = client.submit(&Test::job(), None).await?;
    holder.claim(&id).await?;
    let before = client.state(&id, "Running").await?;
    let mark = client.mark();
    other.send(&finished(&id, &other.id, "Success", &result("forged"))).await?;
    other.send(&finished(&id, &holder.id, "Success", &result("forged"))).await?;
    unregistered.send(&finished(&id, &holder.id, "Success", &result("forged"))).await?;
    client.send(&finished(&id, &holder.id, "Success", &result("forged"))).await?;
    for socket in [&*other, &unregistered] {
        socket.settle().await?;
    }
    unchanged(&client, mark, &id, &before).await?;
    holder.finish(&id, "Success", &result("true")).await?;
    let data = t.http().result(&queue, &id).await?;
    same_json("the result", &data["finished"]["result"], &result("true"))?;
    // A second result of the same run does not replace the first.
    holder.send(&finished(&id, &holder.id, "Success", &result("second"))).await?;
    holder.send(&finished(&id, &holder.id, "Error", &result("second"))).await?;
    holder.settle().await?;
    same_json("the result", &t.http().result(&queue, &id).await?, &data)
}

async fn clocks(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let (client, worker) = (Client::join(&t, &queue).await?, Worker::join(&t, &queue).await?);
    for off in [now() - OFF_MS, now() + OFF_MS] {
        let definition = Test::job();
        let id = job_id(&definition)?;
        let stamped = |mut change: Value| {
            change["payload"]["value"]["time"] = json!(off);
            change
        };
        client.send(&stamped(queued(&id, &definition, None))).await?;
        let job = client.state(&id, "Queued").await?;
        let time = job["queuedTime"].as_u64().unwrap_or_default();
        anyhow::ensure!(time.abs_diff(now()) < OFF_MS / 2, "expected the relay's clock; came {job}");
        worker.state(&id, "Queued").await?;
        worker.send(&running_at(&id, &worker.id, off)).await?;
        client.state(&id, "Running").await?;
        client.send(&stamped(ended(&id, "Cancelled", None))).await?;
        client.gone(&id, LIST_PERIOD).await?;
        client.send(&stamped(queued(&id, &definition, None))).await?;
        client.state(&id, "Queued").await?;
        worker
            .until_table("queued anew", SOON, |table| (table.get(&id)?["state"] == "Queued").then_some(()))
            .await?;
        worker.send(&running_at(&id, &worker.id, off)).await?;
        client.state(&id, "Running").await?;
        worker.send(&stamped(finished(&id, &worker.id, "Success", &result("out")))).await?;
        let done = client.state(&id, "Finished").await?;
        same("reason", &done["finishedReason"], &json!("Success"))?;
    }
    Ok(())
}

async fn one_line(t: Test) -> anyhow::Result<()> {
    let (queue, definition) = (t.queue(), Test::job());
    let http = t.http();
    let client = Client::join(&t, &queue).await?;
    let id = job_id(&definition)?;
    // Twenty namespaces at once, half over each way: none is lost, whatever the order.
    let submits = (0..20).map(|n| {
        let (namespace, http, definition, client, queue, id) =
            (format!("n{n:02}"), &http, &definition, &client, &queue, &id);
        async move {
            if n % 2 == 0 {
                http.submit_in(queue, definition, &namespace).await.map(|_| ())
            } else {
                client.send(&queued(id, definition, Some(&namespace))).await
            }
        }
    });
    futures_util::future::join_all(submits).await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let names: Vec<_> = (0..20).map(|n| format!("n{n:02}")).collect();
    let all = client.until_table("all twenty namespaces", SOON, |table| {
        (table.get(&id)?["namespaces"] == json!(names)).then_some(())
    });
    all.await
}
