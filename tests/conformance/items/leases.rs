//! Leases (`jobs-and-states` 8): who is granted what.

use std::time::Duration;

use serde_json::{Value, json};

use crate::check::{LIST_PERIOD, SOON, same, same_json, that};
use crate::peers::client::Client;
use crate::peers::lease_worker::LeaseWorker;
use crate::peers::watcher::Watcher;
use crate::registry::{Item, item};
use crate::test::Test;
use dockframe_tests::wait;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "10.14a",
            Dockframe,
            "The header decides; Hello comes once, no grant before the registration, and no lists.",
            handshake
        ),
        item!(
            "10.14c",
            Dockframe,
            "Only what fits is granted, the highest priority and then the oldest first.",
            order
        ),
        item!(
            "10.14d",
            Dockframe,
            "A declined job goes elsewhere or waits with a reason, and is never an error.",
            declined
        ),
        item!(
            "10.14i",
            Dockframe,
            "A draining worker gets nothing new, what is given back is no loss, and five losses are an error.",
            draining
        ),
        item!("10.14m", Dockframe, "Each message of a lease has the documented fields.", shapes),
    ]
}

async fn handshake(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let id = t.http().submit(&queue, &Test::job()).await?;
    let worker = LeaseWorker::connect(&t, &queue, 1).await?;
    worker.say("PING").await?;
    worker.word(0, "PONG unknown").await?;
    same("what comes before the registration", &worker.kinds(0), &vec!["PONG unknown".to_owned()])?;
    worker.register(&[]).await?;
    let grant = worker.grant(0).await?;
    same("the granted job", &grant.job, &id)?;
    let kinds = worker.kinds(0);
    let place = |kind: &str| kinds.iter().position(|one| one == kind);
    that("Hello before the grant", place("Hello") < place("LeaseGrant"), &kinds)?;
    worker.accept(&grant.lease).await?;
    worker.register(&[&grant.lease]).await?;
    // Longer than the period of the full lists.
    wait::stays("a lease socket", Duration::from_secs(11), async || {
        worker.settle().await.map_err(|error| error.to_string())
    })
    .await?;
    same("Hello again", &worker.payloads(0, "Hello").len(), &1)?;
    let lists = ["JobStates", "JobStateUpdates", "BroadcastJobDefinitions", "ClearJobCache", "StatusRequest"];
    let strange: Vec<_> = worker.kinds(0).into_iter().filter(|kind| lists.contains(&kind.as_str())).collect();
    same("messages of the old way", &strange, &vec![])?;
    let old = t.socket(&format!("/q/{queue}/worker")).await?;
    same("the header that nobody sent", &old.protocol, &None)?;
    old.message(0, "JobStates").await.map(|_| ())
}

async fn order(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let mut ids = Vec::new();
    for priority in [0, 0, 50, -5] {
        let body = json!({ "definition": Test::job(), "control": { "priority": priority } });
        ids.push(http.submit_body(&queue, &body).await?);
        // The order of equal priorities is that of the milliseconds.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let worker = LeaseWorker::join(&t, &queue, 1).await?;
    let mut mark = 0;
    for place in [2, 0, 1, 3] {
        let grant = worker.grant(mark).await?;
        same("the next granted job", &grant.job, &ids[place])?;
        worker.accept(&grant.lease).await?;
        worker.settle().await?;
        same("grants without room", &worker.grants(mark).len(), &1)?;
        mark = worker.mark();
        worker.succeed(&grant.lease, "out").await?;
    }
    let queue = t.queue();
    let mut ids = Vec::new();
    for cpus in [2, 1, 1] {
        let mut definition = Test::job();
        definition["requirements"] = json!({ "cpus": cpus });
        ids.push(http.submit(&queue, &definition).await?);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let worker = LeaseWorker::join(&t, &queue, 2).await?;
    let big = worker.take().await?;
    same("the oldest job, which fills the worker", &big.job, &ids[0])?;
    let mark = worker.mark();
    wait::stays("a full worker", Duration::from_secs(3), async || {
        worker.settle().await.map_err(|error| error.to_string())?;
        if worker.grants(mark).is_empty() { Ok(()) } else { Err("it was granted".to_owned()) }
    })
    .await?;
    worker.succeed(&big.lease, "out").await?;
    let both = worker.until("both small jobs at once", mark, SOON, |_| {
        let jobs: Vec<_> = worker.grants(mark).into_iter().map(|grant| grant.job).collect();
        (jobs.len() == 2).then_some(jobs)
    });
    same("the small jobs", &both.await?, &ids[1..].to_vec())
}

async fn declined(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let (first, second) = (LeaseWorker::join(&t, &queue, 1).await?, LeaseWorker::join(&t, &queue, 1).await?);
    let id = client.submit(&Test::job(), None).await?;
    // Whoever gets it declines for good, and then so does the other.
    let (one, other) = tokio::select! {
        grant = first.grant(0) => { first.decline(&grant?.lease, "never").await?; (&first, &second) }
        grant = second.grant(0) => { second.decline(&grant?.lease, "never").await?; (&second, &first) }
    };
    let grant = other.grant(0).await?;
    same("the same job", &grant.job, &id)?;
    other.decline(&grant.lease, "never").await?;
    let people = Watcher::join(&t, &queue).await?;
    people.watch(&json!({ &id: {} })).await?;
    let reason = people.until_table("a waitReason", LIST_PERIOD, |table| {
        let job = table.get(&id)?;
        (job["state"] == "Queued").then(|| job["waitReason"].as_str().map(str::to_owned))?
    });
    that("a reason that people can read", !reason.await?.is_empty(), &())?;
    one.settle().await?;
    same("grants to who declined for good", &one.grants(0).len(), &1)?;
    // `soon` comes back, and so does what nobody accepts.
    let third = LeaseWorker::join(&t, &queue, 1).await?;
    let grant = third.grant(0).await?;
    let mark = third.mark();
    third.decline(&grant.lease, "soon").await?;
    third.register(&[]).await?;
    let again = third.grant(mark).await?;
    that("a lease of its own", again.lease != grant.lease, &again)?;
    let mark = third.mark();
    let silent = third.grant_within(mark, Duration::from_secs(14)).await?;
    third.accept(&again.lease).await?;
    third.revoked(mark, &again.lease).await?;
    third.accept(&silent.lease).await?;
    client.state(&id, "Running").await?;
    // What fits nobody waits, and says so.
    let mut big = Test::job();
    big["requirements"] = json!({ "gpus": 8 });
    let big = client.submit(&big, None).await?;
    people.watch(&json!({ &big: {} })).await?;
    let reason = people.until_table("a waitReason of the big job", LIST_PERIOD, |table| {
        table.get(&big)?["waitReason"].as_str().map(str::to_owned)
    });
    reason.await?;
    same("state", &client.table()[&big]["state"], &json!("Queued"))
}

async fn draining(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let mut worker = LeaseWorker::join(&t, &queue, 2).await?;
    let id = client.submit(&Test::job(), None).await?;
    let grant = worker.take().await?;
    worker.more = json!({ "draining": true });
    worker.register(&[&grant.lease]).await?;
    worker.settle().await?;
    let mark = worker.mark();
    let other = client.submit(&Test::job(), None).await?;
    wait::stays("a draining worker", Duration::from_secs(3), async || {
        worker.settle().await.map_err(|error| error.to_string())?;
        if worker.grants(mark).is_empty() { Ok(()) } else { Err("it was granted".to_owned()) }
    })
    .await?;
    worker.succeed(&grant.lease, "out").await?;
    client.state(&id, "Finished").await?;
    let willing = LeaseWorker::join(&t, &queue, 1).await?;
    // Given back more often than a job may be lost.
    let mut grant = willing.grant(0).await?;
    for _ in 0..6 {
        willing.accept(&grant.lease).await?;
        client.state(&other, "Running").await?;
        let mark = willing.mark();
        willing.decline(&grant.lease, "soon").await?;
        client.state(&other, "Queued").await?;
        willing.register(&[]).await?;
        grant = willing.grant(mark).await?;
    }
    same("state", &client.state(&other, "Queued").await?["finishedReason"], &Value::Null)?;
    // Lost as often as that it is an error.
    willing.accept(&grant.lease).await?;
    client.state(&other, "Running").await?;
    willing.succeed(&grant.lease, "out").await?;
    let lost = client.submit(&Test::job(), None).await?;
    let mut mark = 0;
    for attempt in 1..=5 {
        let grant = willing.until("the job granted anew", mark, SOON, |_| {
            willing.grants(mark).into_iter().find(|grant| grant.job == lost)
        });
        let grant = grant.await?;
        same("attempt", &grant.payload["attempt"], &json!(attempt))?;
        willing.accept(&grant.lease).await?;
        client.state(&lost, "Running").await?;
        mark = willing.mark();
        // Forgotten: that is a loss.
        willing.register(&[]).await?;
    }
    same("reason", &client.state(&lost, "Finished").await?["finishedReason"], &json!("Error"))
}

async fn shapes(t: Test) -> anyhow::Result<()> {
    let (http, queue, definition) = (t.http(), t.queue(), Test::job());
    let worker = LeaseWorker::join(&t, &queue, 1).await?;
    let hello = worker.message(0, "Hello").await?;
    that("relay and epoch", hello["relay"].is_string() && hello["epoch"].is_string(), &hello)?;
    that(
        "ttlMs, renewMs, maxFinishBytes",
        ["ttlMs", "renewMs", "maxFinishBytes"].iter().all(|name| hello[name].as_u64() > Some(0)),
        &hello,
    )?;
    let secret = Test::nonce();
    let control = json!({ "maxDuration": "5m", "namespace": "n", "callbacks": { "queued": { "url": "https://hook.example/", "payload": secret } },
        "outputs": { "nhost": { "PAT": secret, "path": "p" } } });
    let id = http.submit_body(&queue, &json!({ "definition": definition, "control": control })).await?;
    let grant = worker.take().await?;
    let payload = &grant.payload;
    same("jobId", &payload["jobId"], &json!(id))?;
    same("attempt", &payload["attempt"], &json!(1))?;
    same_json("definition", &payload["definition"], &definition)?;
    same("maxDuration", &payload["control"]["maxDuration"], &json!("5m"))?;
    that("no secret in a grant", !payload.to_string().contains(&secret), payload)?;
    that("deadlineMs", payload["deadlineMs"].as_u64() >= Some(300_000), payload)?;
    that("80 random bits in a lease id", grant.lease.len() >= 14, &grant.lease)?;
    let answer = worker.finish(&grant.lease, &worker.success("out")).await?;
    same_json("LeaseFinished", &answer, &json!({ "leaseId": grant.lease, "recorded": true }))?;
    worker.accept("unknown-lease").await?;
    let revoke = worker.revoked(0, "unknown-lease").await?;
    that("why and graceMs", revoke["why"].is_string() && revoke["graceMs"].is_u64(), &revoke)
}
