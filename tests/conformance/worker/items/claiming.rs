//! 15 to 18: which jobs a worker takes, and how many at once, the old way.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::Item;
use crate::check::{same, same_json, that};
use crate::registry::{item, unseen};
use crate::worker::bench::{Bench, PATIENT};
use crate::worker::engine;
use crate::worker::relay::Way;
use crate::worker::setup::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!("15a", Compat, "No more than --cpus plain jobs run at once, and all of them run.", slots),
        item!("15b", Compat, "A job that does not fit blocks none behind it.", no_block),
        item!("15c", Dockframe, "The oldest job is claimed first.", oldest_first),
        unseen!("16", Dockframe, "A job gets as many GPUs as it wants, in the order given.", "needs GPUs"),
        item!("17a", Compat, "A job that wants a GPU is not claimed by a worker without one.", gpu_wish),
        item!(
            "17b",
            Dockframe,
            "What can never run here is told in the status, with its reason.",
            unclaimable
        ),
        item!("17c", Dockframe, "A cpu wish beyond the machine runs alone.", large_wish),
        item!("18a", Dockframe, "Cpu wishes are counted.", cpu_wishes),
        item!("18b", Compat, "A plain job has no memory limit.", no_memory_limit),
    ]
}

/// The most jobs that were between Running and Finished at the same time, by the worker's own words.
fn most_at_once(bench: &Bench) -> usize {
    let mut running = BTreeSet::new();
    let mut most = 0;
    for change in bench.relay.payloads("StateChange") {
        let job = change["job"].to_string();
        match change["state"].as_str() {
            Some("Running") => running.insert(job),
            Some("Finished") => running.remove(&job),
            _ => false,
        };
        most = most.max(running.len());
    }
    most
}

/// Puts jobs into the table with these times, and tells all of them at once.
fn submit_together(bench: &Bench, jobs: &[(u64, Value)]) -> Vec<String> {
    let mut names = Vec::new();
    let mut objects = serde_json::Map::new();
    for (n, (time, definition)) in jobs.iter().enumerate() {
        let job = format!("together-{}-{n}", bench.t.nonce());
        bench.relay.define(&job, definition.clone());
        objects.insert(job.clone(), crate::worker::relay::queued(*time));
        names.push(job);
    }
    bench.relay.put_all(objects);
    names
}

async fn slots(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=2"]).await?;
    let job = t.sh("sleep 1");
    let jobs = submit_together(&bench, &[(1, job.clone()), (2, job.clone()), (3, job.clone()), (4, job)]);
    for job in &jobs {
        bench.ended(job).await?.good()?;
    }
    same("jobs at once", &most_at_once(&bench), &2)
}

async fn no_block(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let mut wish = t.sh("true");
    wish["requirements"] = json!({ "gpus": 1 });
    let jobs = submit_together(&bench, &[(1, wish.clone()), (2, t.sh("true")), (3, wish)]);
    bench.ended(&jobs[1]).await?.good()?;
    Ok(())
}

async fn oldest_first(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let jobs = submit_together(&bench, &[(30, t.sh("true")), (10, t.sh("true")), (20, t.sh("true"))]);
    for job in &jobs {
        bench.ended(job).await?.good()?;
    }
    let mut order: Vec<String> = Vec::new();
    for change in bench.relay.payloads("StateChange") {
        let job = change["job"].as_str().unwrap_or_default().to_owned();
        if change["state"] == "Running" && !order.contains(&job) {
            order.push(job);
        }
    }
    same("order of claims", &order, &vec![jobs[1].clone(), jobs[2].clone(), jobs[0].clone()])
}

async fn gpu_wish(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--gpus=0"]).await?;
    let mut wish = t.sh("true");
    wish["requirements"] = json!({ "gpus": 1 });
    let job = bench.submit(wish)?;
    bench
        .relay
        .never("claim", Duration::from_secs(8), |relay| relay.changes(&job, "Running").into_iter().next())
        .await
}

async fn unclaimable(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--memory=1G", "--tag=eu"]).await?;
    let wishes = [
        ("gpu", json!({ "requirements": { "gpus": 1 } })),
        ("memory", json!({ "requirements": { "memory": "2G" } })),
        ("tag", json!({ "tags": ["us"] })),
    ];
    let mut jobs = Vec::new();
    for (word, wish) in wishes {
        let mut definition = t.sh("true");
        if let (Value::Object(all), Value::Object(more)) = (&mut definition, wish) {
            all.extend(more);
        }
        jobs.push((word, bench.submit(definition)?));
    }
    // A job behind them shows that they were looked at.
    let mut fits = t.sh("true");
    fits["tags"] = json!(["eu"]);
    bench.run(fits).await?.good()?;
    bench.relay.say(&json!({ "type": "StatusRequest" }))?;
    let status = bench.relay.message("WorkerStatusResponse", Duration::from_secs(2), |_| true).await?;
    for (word, job) in jobs {
        let why = status.frame["payload"]["unclaimable"][&job].as_str().unwrap_or_default().to_lowercase();
        that(&format!("a reason with {word:?}"), why.contains(word), &status.frame)?;
        that("no claim", bench.relay.changes(&job, "Running").is_empty(), &job)?;
    }
    Ok(())
}

async fn large_wish(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=2"]).await?;
    let mut wish = t.sh("sleep 1");
    wish["requirements"] = json!({ "cpus": 64 });
    let jobs = submit_together(&bench, &[(1, t.sh("sleep 1")), (2, wish), (3, t.sh("sleep 1"))]);
    for job in &jobs {
        bench.ended(job).await?.good()?;
    }
    let mut running = BTreeSet::new();
    for change in bench.relay.payloads("StateChange") {
        let job = change["job"].as_str().unwrap_or_default().to_owned();
        match change["state"].as_str() {
            Some("Running") => running.insert(job),
            _ => running.remove(&job),
        };
        that("the large job alone", !running.contains(&jobs[1]) || running.len() == 1, &running)?;
    }
    Ok(())
}

async fn cpu_wishes(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=3"]).await?;
    let mut wish = t.sh("sleep 1");
    wish["requirements"] = json!({ "cpus": 2 });
    let jobs = submit_together(&bench, &[(1, wish.clone()), (2, wish.clone()), (3, wish)]);
    for job in &jobs {
        bench.ended(job).await?.good()?;
    }
    same("jobs of 2 cpus at once on 3", &most_at_once(&bench), &1)
}

async fn no_memory_limit(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=2"]).await?;
    let job = bench.submit(t.sh("sleep 600"))?;
    let container = bench.container(&job).await?;
    let body = engine::inspect(&container).await?;
    bench.relay.claimed(&job, PATIENT).await?;
    same_json("HostConfig.Memory", &body["HostConfig"]["Memory"], &json!(0))
}
