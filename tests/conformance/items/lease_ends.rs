//! Leases (`jobs-and-states` 8): keeping, losing and ending them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::check::{LIST_PERIOD, SOON, same, same_json, that};
use crate::peers::client::Client;
use crate::peers::lease_worker::LeaseWorker;
use crate::peers::worker::result;
use crate::registry::{Item, item};
use crate::test::Test;
use dockframe_tests::wait;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "10.14e",
            Dockframe,
            "A lease that is not renewed expires, and its finish counts until the job is granted anew.",
            expiry
        )
        .long(),
        item!("10.14f", Dockframe, "A cancel revokes a lease at once, accepted or not.", revoked),
        item!(
            "10.14g",
            Dockframe,
            "A finish is recorded once and acknowledged each time; a stale one changes nothing.",
            finishing
        ),
        item!(
            "10.14h",
            Dockframe,
            "A worker that comes back keeps its lease; another process with its id is turned away.",
            coming_back
        ),
        item!("10.14l", Dockframe, "Lines are counted per lease from zero, and repeats are dropped.", lines),
    ]
}

async fn expiry(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let client = Client::join(&t, &queue).await?;
    let mut worker = LeaseWorker::join(&t, &queue, 1).await?;
    let id = client.submit(&Test::job(), None).await?;
    let grant = worker.take().await?;
    let running = client.state(&id, "Running").await?;
    worker.more = json!({ "draining": true });
    worker.register(&[&grant.lease]).await?;
    worker.settle().await?;
    let renewed = Instant::now();
    let ttl = worker.payloads(0, "Hello")[0]["ttlMs"].as_u64().unwrap_or(30_000);
    let ttl = Duration::from_millis(ttl);
    let expired = wait::until("the expiry", ttl + LIST_PERIOD, async || {
        // Signs of life, but no renewal.
        worker.settle().await.map_err(|error| error.to_string())?;
        client.settle().await.map_err(|error| error.to_string())?;
        let job = client.table()[&id].clone();
        if job["state"] == "Queued" { Ok(job) } else { Err(job.to_string()) }
    });
    let expired = expired.await?;
    that("not before its time", renewed.elapsed() + Duration::from_secs(1) >= ttl, &renewed.elapsed())?;
    same("queuedTime", &expired["queuedTime"], &running["queuedTime"])?;
    // Nobody else has it: the finish still counts.
    worker.succeed(&grant.lease, "late").await?;
    client.state(&id, "Finished").await?;
    // A lease that its worker forgot, granted anew to another.
    let definition = Test::job();
    let forgetful = LeaseWorker::join(&t, &queue, 1).await?;
    let id = client.submit(&definition, None).await?;
    let old = forgetful.take().await?;
    client.state(&id, "Running").await?;
    let mark = forgetful.mark();
    forgetful.register(&[]).await?;
    let new = forgetful.grant(mark).await?;
    same("the same job again", &new.job, &id)?;
    same("attempt", &new.payload["attempt"], &json!(2))?;
    let answer = forgetful.finish(&old.lease, &forgetful.success("stale")).await?;
    same("recorded", &answer["recorded"], &json!(false))?;
    forgetful.accept(&new.lease).await?;
    client.end(&id, "Deleted", None).await?;
    forgetful.revoked(0, &new.lease).await?;
    client.submit(&definition, None).await?;
    let answer = forgetful.finish(&new.lease, &forgetful.success("stale")).await?;
    same("recorded after a deletion", &answer["recorded"], &json!(false))?;
    same_json("the result", &http.result(&queue, &id).await?, &Value::Null)
}

async fn revoked(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let worker = LeaseWorker::join(&t, &queue, 1).await?;
    for (accepted, reason, why) in
        [(true, "Cancelled", "cancelled"), (false, "Cancelled", "cancelled"), (true, "Deleted", "deleted")]
    {
        let mark = worker.mark();
        let id = client.submit(&Test::job(), None).await?;
        let grant = worker.grant(mark).await?;
        if accepted {
            worker.accept(&grant.lease).await?;
            client.state(&id, "Running").await?;
        }
        let begin = Instant::now();
        client.end(&id, reason, None).await?;
        let revoke = worker.revoked(mark, &grant.lease).await?;
        // 100 ms are promised; the machine of a test may be busy, and the next full list is ten seconds away.
        that("a revoke at once", begin.elapsed() < Duration::from_secs(3), &begin.elapsed())?;
        same("why", &revoke["why"], &json!(why))?;
        client.gone(&id, SOON).await?;
        let answer = worker.finish(&grant.lease, &worker.success("late")).await?;
        same("recorded", &answer["recorded"], &json!(false))?;
    }
    let mark = worker.mark();
    let id = client.submit(&Test::job(), Some("n")).await?;
    let grant = worker.grant(mark).await?;
    worker.accept(&grant.lease).await?;
    client.state(&id, "Running").await?;
    client.submit(&Test::job(), Some("n")).await?;
    same("why", &worker.revoked(mark, &grant.lease).await?["why"], &json!("replaced"))
}

async fn finishing(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let client = Client::join(&t, &queue).await?;
    let worker = LeaseWorker::join(&t, &queue, 1).await?;
    let id = client.submit(&Test::job(), None).await?;
    let grant = worker.take().await?;
    for (lease, what) in [("none", "an unknown lease"), (&*Test::nonce(), "a guessed lease")] {
        let answer = worker.finish(lease, &worker.success("forged")).await?;
        same(&format!("recorded of {what}"), &answer["recorded"], &json!(false))?;
    }
    let thief = LeaseWorker::join(&t, &queue, 1).await?;
    let answer = thief.finish(&grant.lease, &thief.success("stolen")).await?;
    same("recorded of another worker's lease", &answer["recorded"], &json!(false))?;
    client.state(&id, "Running").await?;
    for _ in 0..3 {
        worker.succeed(&grant.lease, "out").await?;
    }
    client.state(&id, "Finished").await?;
    let data = http.result(&queue, &id).await?;
    same_json("the result", &data["finished"]["result"], &result("out"))?;
    let finished =
        client.jobs(0, &id).iter().filter(|job| job["state"] == "Finished").cloned().collect::<Vec<_>>();
    that(
        "one time of the end",
        finished.windows(2).all(|pair| pair[0]["time"] == pair[1]["time"]),
        &finished,
    )?;
    // What cannot be read ends the lease, and the job waits again.
    let mark = worker.mark();
    drop(thief);
    let id = client.submit(&Test::job(), None).await?;
    let grant = worker.grant(mark).await?;
    worker.accept(&grant.lease).await?;
    client.state(&id, "Running").await?;
    let answer =
        worker.finish(&grant.lease, &json!({ "type": "Finished", "reason": "Cancelled", "time": 1 })).await?;
    same("recorded", &answer["recorded"], &json!(false))?;
    that("a why", answer["why"].is_string(), &answer)?;
    let again = worker.until("the job granted anew", mark, SOON, |_| {
        worker.grants(mark).into_iter().find(|next| next.job == id && next.lease != grant.lease)
    });
    worker.succeed(&again.await?.lease, "second").await
}

async fn coming_back(t: Test) -> anyhow::Result<()> {
    let queue = t.queue();
    let client = Client::join(&t, &queue).await?;
    let worker = LeaseWorker::join(&t, &queue, 1).await?;
    let id = client.submit(&Test::job(), None).await?;
    let grant = worker.take().await?;
    client.state(&id, "Running").await?;
    let mut other = worker.again(&t, &queue).await?;
    other.instance = Test::nonce();
    other.register(&[]).await?;
    same("close code of another process", &other.closed(SOON).await?, &Some(4409))?;
    let mark = client.mark();
    let again = worker.again(&t, &queue).await?;
    again.register(&[&grant.lease]).await?;
    again.message(0, "Hello").await?;
    same("close code of the older socket", &worker.closed(LIST_PERIOD).await?, &Some(1000))?;
    // "Back soon": nobody else gets it, though somebody is free.
    let free = LeaseWorker::join(&t, &queue, 1).await?;
    again.close(4000).await?;
    wait::stays("a free worker without a grant", Duration::from_secs(5), async || {
        free.settle().await.map_err(|error| error.to_string())?;
        if free.grants(0).is_empty() { Ok(()) } else { Err("it was granted".to_owned()) }
    })
    .await?;
    let last = again.again(&t, &queue).await?;
    last.register(&[&grant.lease]).await?;
    last.message(0, "Hello").await?;
    that(
        "no loss shown",
        client.jobs(mark, &id).iter().all(|job| job["state"] == "Running"),
        &client.tail(mark),
    )?;
    last.succeed(&grant.lease, "out").await?;
    client.state(&id, "Finished").await?;
    // A short job of a worker that is gone is granted anew within two seconds.
    last.close(1000).await?;
    drop(free);
    let gone = LeaseWorker::join(&t, &queue, 1).await?;
    let id = client.submit(&Test::job(), None).await?;
    let old = gone.take().await?;
    client.state(&id, "Running").await?;
    let free = LeaseWorker::join(&t, &queue, 1).await?;
    let begin = Instant::now();
    drop(gone);
    let new = free.grant(0).await?;
    same("the same job", &new.job, &id)?;
    that("within two seconds or so", begin.elapsed() < Duration::from_secs(8), &begin.elapsed())?;
    that("another lease", new.lease != old.lease, &new)
}

async fn lines(t: Test) -> anyhow::Result<()> {
    let (http, queue) = (t.http(), t.queue());
    let client = Client::join(&t, &queue).await?;
    let worker = LeaseWorker::join(&t, &queue, 1).await?;
    let id = client.submit(&Test::job(), None).await?;
    let first = worker.grant(0).await?;
    // Before the accept nothing counts.
    worker.log(&first, 0, &json!([["early\n", 1]])).await?;
    worker.accept(&first.lease).await?;
    worker.log(&first, 0, &json!([["a0\n", 1], ["a1\n", 2]])).await?;
    worker.log(&first, 1, &json!([["a1\n", 2], ["a2\n", 3]])).await?;
    worker.settle().await?;
    let data = json!([["a0\n", 1], ["a1\n", 2], ["a2\n", 3]]);
    wait::until("three lines", SOON, async || {
        let came = http.run_logs(&queue, &id, "").await.map_err(|error| error.to_string())?;
        if came["data"] == data { Ok(()) } else { Err(came.to_string()) }
    })
    .await?;
    let mark = worker.mark();
    worker.register(&[]).await?;
    let second = worker.grant(mark).await?;
    worker.accept(&second.lease).await?;
    worker.log(&first, 3, &json!([["stale\n", 4]])).await?;
    worker.log(&second, 0, &json!([["b0\n", 5]])).await?;
    worker.succeed(&second.lease, "out").await?;
    client.state(&id, "Finished").await?;
    let came = http.run_logs(&queue, &id, "").await?;
    same_json(
        "lines of the second attempt",
        &came,
        &json!({ "data": [["b0\n", 5]], "sliceStart": 0, "nextCursor": 1, "isFinal": true }),
    )
}
