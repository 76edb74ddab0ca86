//! 60 to 70: what is kept when something breaks.

use std::time::{Duration, Instant};

use dockframe_tests::wait;
use serde_json::{Value, json};

use super::Item;
use crate::check::{same, same_json, that};
use crate::registry::{item, unseen};
use crate::worker::bench::{Bench, Ended, PATIENT};
use crate::worker::engine;
use crate::worker::relay::{Relay, Way};
use crate::worker::setup::{Line, START, Test};

pub(super) fn items() -> Vec<Item> {
    vec![
        item!(
            "60a",
            Compat,
            "A killed worker that is back at once reports its running job once, run once.",
            killed_old_way
        )
        .long(),
        item!(
            "60b",
            Dockframe,
            "It names the lease at once, leaves the inputs alone, and sends each line once.",
            killed_with_lease
        ),
        item!(
            "61",
            Dockframe,
            "A program that ended meanwhile is reported without a second run.",
            ended_meanwhile
        ),
        item!(
            "62",
            Dockframe,
            "A report that was lost with the connection is sent again, and nothing runs again.",
            lost_report
        ),
        item!(
            "63a",
            Compat,
            "A container is unaffected by an outage of the relay, and its end is reported after it.",
            outage
        )
        .long(),
        item!("63b", Dockframe, "So is an end that came during the outage.", end_during_outage),
        unseen!(
            "64",
            Dockframe,
            "A restart of the Engine ends no job as Success with 137.",
            "restarts an Engine: the scenario engine_restart shows it"
        ),
        unseen!(
            "65",
            Dockframe,
            "The worker outlives an Engine that is away for 30 s.",
            "stops an Engine: the scenario engine_restart shows it"
        ),
        item!("66a", Dockframe, "Two workers of one Engine leave each other's jobs alone.", two_workers),
        item!("66b", Dockframe, "What a dead worker left is removed within two minutes.", orphans).long(),
        item!(
            "67a",
            Compat,
            "The old way SIGTERM ends the worker with code 0, and the container runs on.",
            sigterm_old_way
        ),
        item!(
            "67b",
            Dockframe,
            "With leases SIGTERM stops the container and gives the job back.",
            sigterm_with_lease
        ),
        item!(
            "67c",
            Dockframe,
            "With --on-exit=leave it is left, and the connection closed with 4000.",
            sigterm_leave
        ),
        item!(
            "67d",
            Dockframe,
            "With --drain-timeout=job it ends first, and nothing new is taken.",
            sigterm_drain
        ),
        unseen!("68", Dockframe, "With little disk nothing is claimed.", "fills a disk"),
        unseen!("69", Dockframe, "No image in use is removed.", "fills a disk"),
        item!("70a", Compat, "ClearJobCache ends an active job and its container.", clear_active),
        item!(
            "70b",
            Dockframe,
            "Submitted again at once it runs anew, and the old run is never heard of.",
            clear_and_again
        ),
        item!(
            "70c",
            Dockframe,
            "ClearJobCache of a finished and of an unknown job harms nobody.",
            clear_others
        ),
    ]
}

/// Starts the bench's worker again, with the same id and files.
async fn again(bench: &mut Bench, options: &[&str]) -> anyhow::Result<usize> {
    let links = bench.relay.n_links();
    let line = Line {
        options: options.iter().map(|&option| option.to_owned()).collect(),
        id: Some(bench.worker.id.clone()),
        queue: Some(bench.worker.queue.clone()),
        ..Line::default()
    };
    bench.worker = bench.t.worker_by(&bench.relay, line)?;
    let back = bench.relay.registered_on(links, START).await;
    back.map_err(|error| error.context(bench.worker.process.output()))?;
    Ok(links)
}

/// Says a few lines and its input, waits for `/tmp/go`, says more; counts its starts.
fn counting_job(t: &Test) -> Value {
    let mut definition = t.sh(&format!(
        "echo start >> /job-cache/starts-{}; for n in 1 2 3; do echo line $n; done; cat /inputs/x; \
         until [ -e /tmp/go ]; do sleep 0.05; done; cat /inputs/x; for n in 4 5 6; do echo line $n; done; echo x > /outputs/x",
        t.nonce()
    ));
    definition["inputs"] = json!({ "x": { "type": "utf8", "value": "input\n" } });
    definition
}

const WHOLE: &str = "line 1\nline 2\nline 3\ninput\ninput\nline 4\nline 5\nline 6\n";

async fn go_on(container: &str) -> anyhow::Result<()> {
    engine::docker(&["exec", container, "touch", "/tmp/go"]).await.map(drop)
}

/// How often the counting job was started, seen by another job.
async fn starts(bench: &Bench) -> anyhow::Result<usize> {
    let mark = format!("/job-cache/starts-{}", bench.t.nonce());
    let ended = bench.run(bench.t.sh(&format!("cat {mark}; rm {mark}"))).await?.good()?;
    Ok(ended.stdout().lines().count())
}

async fn once(bench: &Bench, ended: &Ended) -> anyhow::Result<()> {
    same("starts", &starts(bench).await?, &1)?;
    same("reports", &bench.relay.finishes(&ended.job).len(), &1)
}

async fn killed_old_way(t: Test) -> anyhow::Result<()> {
    let mut bench = t.bench(Way::Old, &[]).await?;
    let script = format!(
        "echo start >> /job-cache/starts-{}; echo before; until [ -e /tmp/go ]; do sleep 0.05; done; echo after",
        t.nonce()
    );
    let job = bench.submit(t.sh(&script))?;
    bench.relay.prints(&job, "before", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench.worker.process.kill().await?;
    again(&mut bench, &[]).await?;
    // The job is taken up when its definition has come again; only then is the program let go on.
    bench
        .relay
        .until("Running again", PATIENT, |relay| (relay.changes(&job, "Running").len() >= 2).then_some(()))
        .await?;
    go_on(&container).await?;
    let ended = bench.ended(&job).await?.good()?;
    that("its whole text", ended.stdout().ends_with("before\nafter\n"), &ended.value)?;
    once(&bench, &ended).await
}

async fn killed_with_lease(t: Test) -> anyhow::Result<()> {
    let mut bench = t.bench(Way::Leases, &[]).await?;
    let job = bench.submit(counting_job(&t))?;
    bench.relay.prints(&job, "input", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench.worker.process.kill().await?;
    let link = again(&mut bench, &[]).await?;
    let first = bench.relay.registered_on(link, START).await?;
    that(
        "the lease in the first registration",
        first.frame["payload"]["leases"].to_string().contains(&job),
        &first.frame,
    )?;
    same("the container", &bench.container(&job).await?, &container)?;
    go_on(&container).await?;
    let ended = bench.ended(&job).await?.good()?;
    same("its text", &ended.stdout().as_str(), &WHOLE)?;
    let mut numbered = std::collections::BTreeMap::new();
    for logs in bench.relay.logs(&job).into_iter().filter(|logs| logs.step == "Running") {
        let from = logs.from.unwrap_or(u64::MAX);
        numbered.extend(logs.lines.into_iter().enumerate().map(|(n, line)| (from + n as u64, line.text)));
    }
    let streamed: String = numbered.into_values().collect();
    same("the numbered lines", &streamed.as_str(), &WHOLE)?;
    once(&bench, &ended).await
}

async fn ended_meanwhile(t: Test) -> anyhow::Result<()> {
    let mut bench = t.bench(Way::Leases, &[]).await?;
    let job = bench.submit(counting_job(&t))?;
    bench.relay.prints(&job, "input", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench.worker.process.kill().await?;
    go_on(&container).await?;
    engine::docker(&["wait", &container]).await?;
    again(&mut bench, &[]).await?;
    let ended = bench.ended(&job).await?.good()?;
    same("its text", &ended.stdout().as_str(), &WHOLE)?;
    that("its output", ended.outputs() == ["x"], &ended.value)?;
    once(&bench, &ended).await
}

async fn lost_report(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    bench.relay.set(|settings| settings.records = false);
    let script = format!("echo start >> /job-cache/starts-{}", t.nonce());
    let job = bench.submit(t.sh(&script))?;
    bench.relay.finished(&job, PATIENT).await?;
    // As a relay that never heard of the end has it.
    let time = bench.relay.changes(&job, "Running")[0]["value"]["time"].clone();
    bench
        .relay
        .put(&job, json!({ "queuedTime": 1, "state": "Running", "time": time, "worker": bench.worker.id }));
    bench.relay.close(None);
    bench
        .relay
        .until("the report again", PATIENT, |relay| (relay.finishes(&job).len() >= 2).then_some(()))
        .await?;
    let all = bench.relay.finishes(&job);
    same_json("the second report", &all[1], &all[0])?;
    bench.relay.set(|settings| settings.records = true);
    bench.relay.remove(&job);
    same("starts", &starts(&bench).await?, &1)
}

async fn outage(t: Test) -> anyhow::Result<()> {
    let mut bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("echo before; until [ -e /tmp/go ]; do sleep 0.05; done; echo after"))?;
    bench.relay.prints(&job, "before", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench.relay.go_down();
    wait::stays("the container", Duration::from_secs(15), async || {
        let running = engine::running("id", &job).await.map_err(|error| error.to_string())?;
        if running.contains(&container) { Ok(()) } else { Err(format!("{running:?}")) }
    })
    .await?;
    let links = bench.relay.n_links();
    bench.relay.come_up().await?;
    bench.relay.registered_on(links, PATIENT).await?;
    go_on(&container).await?;
    let ended = bench.ended(&job).await?.good()?;
    same("its text", &ended.stdout().as_str(), &"before\nafter\n")?;
    same("reports", &bench.relay.finishes(&job).len(), &1)
}

async fn end_during_outage(t: Test) -> anyhow::Result<()> {
    let mut bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(
        t.sh("echo before; until [ -e /tmp/go ]; do sleep 0.05; done; echo after; echo x > /outputs/x"),
    )?;
    bench.relay.prints(&job, "before", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench.relay.go_down();
    go_on(&container).await?;
    bench.none_runs(&job, PATIENT).await?;
    bench.relay.come_up().await?;
    let ended = bench.ended(&job).await?.good()?;
    same("its text", &ended.stdout().as_str(), &"before\nafter\n")?;
    let running = bench.relay.changes(&job, "Running").len();
    that("Running, then Finished", running >= 1, &running)
}

async fn two_workers(t: Test) -> anyhow::Result<()> {
    let relay = Relay::start(Way::Old).await?;
    // Ids that nobody spares for their name.
    let ids = ["one", "two"].map(|name| format!("conformance-{}-{name}", t.nonce()));
    let first = t.worker_by(&relay, Line { id: Some(ids[0].clone()), ..Line::default() })?;
    let bench = Bench { t: t.clone(), relay, worker: first };
    bench.registered().await?;
    let job = bench.submit(t.sh("echo up; until [ -e /tmp/go ]; do sleep 0.05; done; echo down"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let container = bench.container(&job).await?;
    let other = Relay::start(Way::Old).await?;
    let line = Line { id: Some(ids[1].clone()), ..Line::default() };
    let second = Bench { t: t.clone(), worker: t.worker_by(&other, line)?, relay: other };
    second.registered().await?;
    second.run(t.sh("true")).await?.good()?;
    go_on(&container).await?;
    bench.ended(&job).await?.good()?;
    Ok(())
}

async fn orphans(t: Test) -> anyhow::Result<()> {
    // Two processes of one data directory: the second one sees the lock of the first.
    let data = t.folder()?.join("shared");
    let relays = [Relay::start(Way::Leases).await?, Relay::start(Way::Leases).await?];
    let mut benches = Vec::new();
    for (relay, name) in relays.into_iter().zip(["one", "two"]) {
        let id = format!("conformance-{}-{name}", t.nonce());
        let line = Line { id: Some(id), data: Some(data.clone()), ..Line::default() };
        let bench = Bench { t: t.clone(), worker: t.worker_by(&relay, line)?, relay };
        bench.registered().await?;
        benches.push(bench);
    }
    let job = benches[0].submit(t.sh("echo up; sleep 600"))?;
    benches[0].relay.prints(&job, "up", PATIENT).await?;
    benches[0].worker.process.kill().await?;
    benches[0].no_container(&job, Duration::from_secs(95)).await
}

async fn ends_well(bench: &Bench) -> anyhow::Result<()> {
    let status = bench.worker.process.end(PATIENT).await?;
    that("exit code 0", status.code() == Some(0), &(status, bench.worker.process.output()))
}

async fn sigterm_old_way(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("echo up; sleep 600"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench.worker.process.signal("TERM").await?;
    ends_well(&bench).await?;
    same("what runs", &engine::running("id", &job).await?, &vec![container])?;
    that("no report", bench.relay.finish(&job).is_none(), &bench.relay.finish(&job))
}

async fn sigterm_with_lease(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &["--cpus=2"]).await?;
    let job = bench.submit(t.sh("echo up; sleep 600"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let begin = Instant::now();
    bench.worker.process.signal("TERM").await?;
    let declined = bench.relay.message("LeaseDecline", PATIENT, |_| true).await?;
    that("the lease", declined.frame.to_string().contains(&job), &declined.frame)?;
    ends_well(&bench).await?;
    that("within 10 s", begin.elapsed() < Duration::from_secs(10), &begin.elapsed())?;
    bench.no_container(&job, PATIENT).await?;
    let draining = bench.relay.payloads("WorkerRegistration");
    let said = draining.iter().find(|registration| registration["draining"] == true);
    that(
        "a registration that says so, with its cpus",
        said.is_some_and(|said| said["cpus"] == 2),
        &draining,
    )?;
    that("no report", bench.relay.finish(&job).is_none(), &bench.relay.finish(&job))
}

async fn sigterm_leave(t: Test) -> anyhow::Result<()> {
    let mut bench = t.bench(Way::Leases, &["--on-exit=leave"]).await?;
    let job = bench.submit(counting_job(&t))?;
    bench.relay.prints(&job, "input", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench.worker.process.signal("TERM").await?;
    ends_well(&bench).await?;
    let code = bench.relay.until("a close code", PATIENT, |relay| relay.close_code(0)).await?;
    same("close code", &code, &4000)?;
    that(
        "no decline",
        bench.relay.payloads("LeaseDecline").is_empty(),
        &bench.relay.payloads("LeaseDecline"),
    )?;
    again(&mut bench, &[]).await?;
    go_on(&container).await?;
    let ended = bench.ended(&job).await?.good()?;
    same("its text", &ended.stdout().as_str(), &WHOLE)?;
    once(&bench, &ended).await
}

async fn sigterm_drain(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &["--drain-timeout=job", "--cpus=2"]).await?;
    let job = bench.submit(t.sh("echo up; until [ -e /tmp/go ]; do sleep 0.05; done"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    let container = bench.container(&job).await?;
    bench.worker.process.signal("TERM").await?;
    bench
        .relay
        .message("WorkerRegistration", PATIENT, |registration| registration["draining"] == true)
        .await?;
    let late = bench.submit(t.sh("true"))?;
    let declined = bench.relay.message("LeaseDecline", PATIENT, |_| true).await?;
    that("the late one declined", declined.frame.to_string().contains(&late), &declined.frame)?;
    go_on(&container).await?;
    bench.ended(&job).await?.good()?;
    ends_well(&bench).await
}

async fn clear_active(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let job = bench.submit(t.sh("echo up; sleep 600"))?;
    bench.relay.prints(&job, "up", PATIENT).await?;
    bench.relay.remove(&job);
    bench.relay.say(&json!({ "type": "ClearJobCache", "payload": { "jobId": job, "namespace": "_" } }))?;
    bench.no_container(&job, Duration::from_secs(20)).await
}

async fn clear_and_again(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let mark = format!("/job-cache/again-{}", t.nonce());
    let script =
        format!("if rm {mark} 2>/dev/null; then echo second; else touch {mark}; echo first; sleep 600; fi");
    let definition = t.sh(&script);
    let job = bench.submit(definition.clone())?;
    bench.relay.prints(&job, "first", PATIENT).await?;
    bench.relay.remove(&job);
    bench.relay.say(&json!({ "type": "ClearJobCache", "payload": { "jobId": job, "namespace": "_" } }))?;
    bench.relay.submit(&job, definition)?;
    let ended = bench.ended(&job).await?.good()?;
    same("the second run's text", &ended.stdout().as_str(), &"second\n")?;
    bench
        .relay
        .never("another report", Duration::from_secs(4), |relay| relay.finishes(&job).get(1).cloned())
        .await
}

async fn clear_others(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let done = bench.run(t.sh("true")).await?.good()?.job;
    for job in [&*done, "nobody-knows", "../.."] {
        bench
            .relay
            .say(&json!({ "type": "ClearJobCache", "payload": { "jobId": job, "namespace": "_" } }))?;
    }
    bench.run(t.sh("true")).await?.good()?;
    Ok(())
}
