//! 51 and 54: time limits, and stopping on the relay's wish.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Item;
use crate::check::{same, same_json, that};
use crate::registry::item;
use crate::worker::bench::{Bench, Ended, PATIENT};
use crate::worker::relay::{Page, Way, lease};
use crate::worker::setup::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "51a",
            Compat,
            "A job over its maxDuration is TimedOut with code 137 and no outputs.",
            over_time
        ),
        item!("51b", Compat, "The worker's own limit holds too.", workers_limit),
        item!("51c", Dockframe, "The smallest of the four limits wins.", four_limits),
        item!(
            "51d",
            Dockframe,
            "Pulls and inputs do not count: the clock starts with the program.",
            clock_starts_late
        ),
        item!(
            "54a",
            Dockframe,
            "A stopped program sees SIGTERM, is killed after the grace, and nothing is sent.",
            stopped_running
        ),
        item!(
            "54b",
            Dockframe,
            "A stop while inputs are fetched stops that; their failure is not told.",
            stopped_inputs
        ),
        item!("54c", Dockframe, "A stop while outputs are uploaded stops that.", stopped_outputs),
        item!("54d", Dockframe, "A program that ignores SIGTERM is not waited for in vain.", deaf_program),
    ]
}

fn timed_out(ended: &Ended) -> anyhow::Result<()> {
    same("reason", &ended.reason(), &"TimedOut")?;
    same("exit code", &ended.code(), &Some(137))?;
    same_json("isTimedOut", &ended.result()["isTimedOut"], &json!(true))?;
    same_json("outputs", &ended.result()["outputs"], &json!({}))
}

async fn over_time(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let mut definition = t.sh("echo x > /outputs/x; echo up; sleep 100");
    definition["maxDuration"] = json!("2s");
    let job = bench.submit(definition)?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let begin = Instant::now();
    let ended = bench.ended(&job).await?;
    timed_out(&ended)?;
    that("about 2 s", begin.elapsed() < Duration::from_secs(8), &begin.elapsed())?;
    that("a line that says so", ended.text().contains("Timed out"), &ended.text())?;
    bench.none_runs(&job, PATIENT).await
}

async fn workers_limit(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--max-job-duration=2s"]).await?;
    let mut definition = t.sh("sleep 100");
    definition["maxDuration"] = json!("1h");
    timed_out(&bench.run(definition).await?)
}

async fn four_limits(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &["--max-job-duration=10m", "--cpus=3"]).await?;
    let limits = [
        (
            json!({ "maxDuration": "2s", "requirements": { "maxDuration": "1h" } }),
            json!({ "maxDuration": "1h" }),
        ),
        (
            json!({ "maxDuration": "1h", "requirements": { "maxDuration": "2s" } }),
            json!({ "maxDuration": "1h" }),
        ),
        (
            json!({ "maxDuration": "1h", "requirements": { "maxDuration": "1h" } }),
            json!({ "maxDuration": "2s" }),
        ),
    ];
    for (n, (fields, control)) in limits.into_iter().enumerate() {
        let mut definition = t.job(fields);
        definition["command"] = json!(["sh", "-c", "trap 'exit 0' TERM; echo up; sleep 100 & wait"]);
        let job = format!("limit-{n}-{}", t.nonce());
        bench.relay.grant_with(&job, 1, definition, control)?;
        bench.relay.prints(&job, "up", PATIENT).await?;
        let begin = Instant::now();
        timed_out(&bench.ended(&job).await?)?;
        that("about 2 s", begin.elapsed() < Duration::from_secs(5), &begin.elapsed())?;
    }
    Ok(())
}

async fn clock_starts_late(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let answers = vec![Page::status(503), Page::status(503), Page::status(503), Page::ok("late")];
    let url = bench.relay.page("/files/late", answers);
    let mut definition = t.sh("cat /inputs/x; sleep 1");
    definition["inputs"] = json!({ "x": { "type": "url", "value": url } });
    // Three repeats alone take 1.75 s on average.
    definition["maxDuration"] = json!("2500ms");
    let ended = bench.run(definition).await?.good()?;
    same("its text", &ended.stdout().as_str(), &"late")
}

async fn silence(bench: &Bench, job: &str) -> anyhow::Result<()> {
    bench
        .relay
        .never("report of a stopped run", Duration::from_secs(4), |relay| {
            let declines = relay.payloads("LeaseDecline").into_iter();
            let declined = declines.into_iter().find(|decline| decline["leaseId"] == lease(job, 1));
            relay.finish(job).or(declined)
        })
        .await
}

async fn stopped_running(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &["--kill-grace=3s"]).await?;
    let mark = format!("/job-cache/term-{}", t.nonce());
    let script =
        format!("trap 'echo seen > {mark}' TERM; echo x > /outputs/x; echo up; while :; do sleep 0.1; done");
    let job = bench.submit(t.sh(&script))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let begin = Instant::now();
    bench.relay.revoke(&job, 1, "cancelled", 1500)?;
    bench.no_container(&job, Duration::from_secs(10)).await?;
    that("a grace", begin.elapsed() > Duration::from_millis(1400), &begin.elapsed())?;
    silence(&bench, &job).await?;
    let ended = bench.run(t.sh(&format!("cat {mark}; rm {mark}"))).await?.good()?;
    same("SIGTERM", &ended.stdout().as_str(), &"seen\n")
}

async fn stopped_inputs(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    let url = bench.relay.page("/files/never", vec![Page::status(503)]);
    let mut definition = t.sh("true");
    definition["inputs"] = json!({ "x": { "type": "url", "value": url } });
    let job = bench.submit(definition)?;
    bench
        .relay
        .until("a request", PATIENT, |relay| (relay.n_requests("GET", "/files/never") > 0).then_some(()))
        .await?;
    bench.relay.revoke(&job, 1, "cancelled", 1000)?;
    bench.run(t.sh("true")).await?.good()?;
    let asked = bench.relay.n_requests("GET", "/files/never");
    bench
        .relay
        .never("report or another request", Duration::from_secs(10), |relay| {
            let more = relay.n_requests("GET", "/files/never") > asked;
            relay.finish(&job).or_else(|| more.then_some(Value::Null))
        })
        .await
}

async fn stopped_outputs(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    bench.relay.set(|settings| settings.refuses_blobs = true);
    let job = bench.submit(t.sh("head -c 500 /dev/zero > /outputs/x"))?;
    bench
        .relay
        .until("an upload", PATIENT, |relay| {
            relay
                .requests()
                .iter()
                .any(|(method, path)| method == "PUT" && path.starts_with("/f/"))
                .then_some(())
        })
        .await?;
    bench.relay.revoke(&job, 1, "cancelled", 1000)?;
    bench.relay.set(|settings| settings.refuses_blobs = false);
    bench.run(t.sh("true")).await?.good()?;
    silence(&bench, &job).await
}

async fn deaf_program(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &["--kill-grace=30s"]).await?;
    let job = bench.submit(t.job(json!({ "command": ["sleep", "600"] })))?;
    bench.container(&job).await?;
    let begin = Instant::now();
    bench.relay.revoke(&job, 1, "cancelled", 30_000)?;
    bench.no_container(&job, Duration::from_secs(15)).await?;
    that("no grace of 30 s", begin.elapsed() < Duration::from_secs(10), &begin.elapsed())
}
