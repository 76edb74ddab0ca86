//! Several instances of one deployment (`relay-protocol` 3.12, 5; `jobs-and-states` 6). They need `--second`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::check::{LIST_PERIOD, SOON, same, same_json};
use crate::peers::client::ended;
use crate::peers::socket::Socket;
use crate::peers::worker::{finished, logs, registration, result, running};
use crate::registry::{Item, item};
use crate::test::Test;
use dockframe_tests::wait;

/// Within a second (`jobs-and-states` 6), and a little for a busy machine.
const SHOWN: Duration = Duration::from_secs(3);

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "7.50",
            Compat,
            "What is done on one instance is seen on the other, over HTTP and sockets.",
            seen_on_both
        ),
        item!(
            "10.11",
            Dockframe,
            "Each kind of change shows on the other instance within a second.",
            within_a_second
        ),
        item!(
            "J-10",
            Dockframe,
            "Cancels, replacements and deletions reach the other instance.",
            within_a_second
        ),
        item!("J-16", Dockframe, "Both instances show the same namespaces of a job.", same_namespaces),
    ]
}

async fn seen_on_both(t: Test) -> anyhow::Result<()> {
    let (first, second) = t.both()?;
    let queue = t.queue();
    let client = Socket::open(second.base(), &format!("/q/{queue}/client"), &[]).await?;
    let worker = Socket::open(first.base(), &format!("/q/{queue}/worker"), &[]).await?;
    worker.send(&registration("w")).await?;
    let id = first.submit(&queue, &Test::job()).await?;
    client.state_within(&id, "Queued", LIST_PERIOD).await?;
    wait::until("the job in the other list", SOON, async || {
        let list = second.list(&queue).await.map_err(|error| error.to_string())?;
        if list.contains_key(&id) { Ok(()) } else { Err("none".to_owned()) }
    })
    .await?;
    worker.state(&id, "Queued").await?;
    worker.send(&running(&id, "w")).await?;
    client.state_within(&id, "Running", LIST_PERIOD).await?;
    worker.send(&logs(&id, "Running", &json!([["line\n", 1]]))).await?;
    client.message(0, "JobStatusPayload").await?;
    worker.send(&finished(&id, "w", "Success", &result("out"))).await?;
    client.state_within(&id, "Finished", LIST_PERIOD).await?;
    let data = second.result(&queue, &id).await?;
    same_json("the result there", &data["finished"]["result"], &result("out"))?;
    let lines = second.run_logs(&queue, &id, "").await?;
    same_json("the lines there", &lines["data"], &json!([["line\n", 1]]))
}

async fn within_a_second(t: Test) -> anyhow::Result<()> {
    let (first, second) = t.both()?;
    let queue = t.queue();
    let here = Socket::open(first.base(), &format!("/q/{queue}/client"), &[]).await?;
    let there = Socket::open(second.base(), &format!("/q/{queue}/client"), &[]).await?;
    let worker = Socket::open(second.base(), &format!("/q/{queue}/worker"), &[]).await?;
    worker.send(&registration("w")).await?;
    worker.message(0, "Workers").await?;
    let names = async |id: &str, names: &Value| {
        there
            .until_table(&format!("namespaces {names}"), SHOWN, |table| {
                (table.get(id)?["namespaces"] == *names).then_some(())
            })
            .await
    };
    let definition = Test::job();
    let id = first.submit_in(&queue, &definition, "a").await?;
    there.state_within(&id, "Queued", SHOWN).await?;
    first.submit_in(&queue, &definition, "b").await?;
    names(&id, &json!(["a", "b"])).await?;
    worker.send(&running(&id, "w")).await?;
    here.state_within(&id, "Running", SHOWN).await?;
    first.cancel(&queue, &id, "?namespace=a").await?.is(200)?;
    names(&id, &json!(["b"])).await?;
    first.cancel(&queue, &id, "?namespace=b").await?.is(200)?;
    there.gone(&id, SHOWN).await?;
    worker.gone(&id, SHOWN).await?;
    let replaced = first.submit_in(&queue, &Test::job(), "n").await?;
    there.state_within(&replaced, "Queued", SHOWN).await?;
    first.submit_in(&queue, &Test::job(), "n").await?;
    there.gone(&replaced, SHOWN).await?;
    let deleted = first.submit(&queue, &Test::job()).await?;
    worker.state_within(&deleted, "Queued", SHOWN).await?;
    let mark = worker.mark();
    here.send(&ended(&deleted, "Deleted", None)).await?;
    worker.message(mark, "ClearJobCache").await?;
    there.gone(&deleted, SHOWN).await?;
    let lost = first.submit(&queue, &Test::job()).await?;
    worker.state_within(&lost, "Queued", SHOWN).await?;
    worker.send(&running(&lost, "w")).await?;
    here.state_within(&lost, "Running", SHOWN).await?;
    drop(worker);
    here.state_within(&lost, "Queued", LIST_PERIOD).await.map(|_| ())
}

async fn same_namespaces(t: Test) -> anyhow::Result<()> {
    let (first, second) = t.both()?;
    let (queue, definition) = (t.queue(), Test::job());
    let mut id = String::new();
    for (n, http) in [&first, &second, &first, &second].into_iter().enumerate() {
        id = http.submit_in(&queue, &definition, &format!("n{n}")).await?;
    }
    for http in [&first, &second] {
        same_json("namespaces", &http.namespaces(&queue, &id).await?, &json!(["n0", "n1", "n2", "n3"]))?;
        same("in the list", &http.list(&queue).await?[&id]["namespaces"], &json!(["n0", "n1", "n2", "n3"]))?;
    }
    Ok(())
}
