//! 19 to 21: what a worker does when the relay's table says something else, the old way.

use std::time::{Duration, Instant};

use dockframe_tests::wait;
use serde_json::json;

use super::Item;
use crate::check::{same, same_json, that};
use crate::registry::item;
use crate::worker::bench::PATIENT;
use crate::worker::engine;
use crate::worker::relay::{Relay, Way};
use crate::worker::setup::{Line, START, Test};

pub(super) fn items() -> Vec<Item> {
    vec![
        item!("19a", Compat, "Of two workers that want one job, one reports its end.", two_workers).long(),
        item!("19b", Compat, "A run that a preferred worker has is killed after a grace.", preferred).long(),
        item!("19c", Compat, "A run that a less preferred worker has goes on.", not_preferred).long(),
        item!("19d", Dockframe, "A lost run frees its slot, and nothing of it is sent.", lost_quietly).long(),
        item!("20a", Compat, "A job that is missing from a full list is killed after a grace.", missing)
            .long(),
        item!("20b", Compat, "A job that is missing from an update is untouched.", missing_from_update)
            .long(),
        item!("20c", Compat, "A job that is back within the grace is not killed.", back_in_time).long(),
        item!("20d", Dockframe, "Nothing is sent of a job that was killed for its absence.", missing_quietly)
            .long(),
        item!(
            "21",
            Compat,
            "A job that the relay shows as queued is said to run since its first time.",
            said_again
        ),
    ]
}

/// The grace is 6 s, told by the existing worker to the second look.
const EARLIEST: Duration = Duration::from_millis(4800);
const LATEST: Duration = Duration::from_secs(25);

async fn two_workers(t: Test) -> anyhow::Result<()> {
    let relay = Relay::start(Way::Old).await?;
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        let line = Line { id: Some(t.worker_id(name)), ..Line::default() };
        let worker = t.worker_by(&relay, line)?;
        relay
            .until("a registration", START, |relay| {
                let all = relay.payloads("WorkerRegistration");
                all.iter().any(|one| one["id"] == worker.id).then_some(())
            })
            .await?;
        ids.push(worker.id);
    }
    let job = format!("job-{}", t.nonce());
    relay.submit(&job, t.sh("echo up; sleep 14; echo down"))?;
    let finished = relay.finished(&job, PATIENT).await?;
    same_json("reason", &finished["reason"], &json!("Success"))?;
    that("one of the two", ids.iter().any(|id| finished["worker"] == *id), &finished)?;
    wait::until("no container", LATEST, async || {
        let left = engine::running("id", &job).await.map_err(|error| error.to_string())?;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await?;
    same("reports", &relay.finishes(&job).len(), &1)
}

async fn preferred(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("echo up; sleep 600"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let begin = Instant::now();
    bench
        .relay
        .put(&job, json!({ "queuedTime": 1, "state": "Running", "time": 2, "worker": "00000000-other" }));
    bench.none_runs(&job, LATEST).await?;
    that("a grace of 6 s", begin.elapsed() > EARLIEST, &begin.elapsed())
}

async fn not_preferred(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("echo up; sleep 600"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench.relay.put(&job, json!({ "queuedTime": 1, "state": "Running", "time": 2, "worker": "zzzz-other" }));
    wait::stays("the run", Duration::from_secs(14), async || {
        let running = engine::running("id", &job).await.map_err(|error| error.to_string())?;
        if running.contains(&container) { Ok(()) } else { Err(format!("{running:?}")) }
    })
    .await
}

async fn lost_quietly(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("echo up; until [ -e /tmp/go ]; do sleep 0.1; done; echo x > /outputs/x"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench
        .relay
        .put(&job, json!({ "queuedTime": 1, "state": "Running", "time": 2, "worker": "00000000-other" }));
    engine::docker(&["exec", &container, "touch", "/tmp/go"]).await?;
    // The only slot is free for the next one.
    bench.run(t.sh("true")).await?.good()?;
    bench.relay.never("report of the lost run", Duration::from_secs(8), |relay| relay.finish(&job)).await
}

async fn missing(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("echo up; sleep 600"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let begin = Instant::now();
    bench.relay.remove(&job);
    bench.relay.list();
    bench.none_runs(&job, LATEST).await?;
    that("a grace of 6 s", begin.elapsed() > EARLIEST, &begin.elapsed())
}

async fn missing_from_update(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("echo up; sleep 600"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let container = bench.container(&job).await?;
    for n in 0..4 {
        let done = json!({ "queuedTime": 1, "state": "Finished", "time": 2, "worker": "w", "finishedReason": "Success" });
        bench.relay.put(&format!("other-{n}"), done);
        wait::stays("the run", Duration::from_secs(3), async || {
            let running = engine::running("id", &job).await.map_err(|error| error.to_string())?;
            if running.contains(&container) { Ok(()) } else { Err(format!("{running:?}")) }
        })
        .await?;
    }
    Ok(())
}

async fn back_in_time(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("echo up; sleep 600"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench.relay.set(|settings| settings.sends_lists = false);
    bench.relay.remove(&job);
    bench.relay.list();
    tokio::time::sleep(Duration::from_secs(3)).await;
    bench
        .relay
        .put(&job, json!({ "queuedTime": 1, "state": "Running", "time": 2, "worker": bench.worker.id }));
    bench.relay.list();
    bench.relay.set(|settings| settings.sends_lists = true);
    wait::stays("the run", Duration::from_secs(12), async || {
        let running = engine::running("id", &job).await.map_err(|error| error.to_string())?;
        if running.contains(&container) { Ok(()) } else { Err(format!("{running:?}")) }
    })
    .await
}

async fn missing_quietly(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("echo x > /outputs/x; echo up; sleep 600"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    bench.relay.remove(&job);
    bench.relay.list();
    bench.none_runs(&job, LATEST).await?;
    bench.relay.never("report", Duration::from_secs(5), |relay| relay.finish(&job)).await
}

async fn said_again(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("echo up; sleep 600"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let first = bench.relay.changes(&job, "Running")[0]["value"]["time"].clone();
    let n = bench.relay.changes(&job, "Running").len();
    bench.relay.set(|settings| settings.records = false);
    bench.relay.put(&job, crate::worker::relay::queued(1));
    let again = bench
        .relay
        .until("Running again", Duration::from_secs(12), |relay| {
            let all = relay.changes(&job, "Running");
            (all.len() > n).then(|| all[n].clone())
        })
        .await?;
    same_json("its time", &again["value"]["time"], &first)
}
