//! 75 to 80 and rows of `worker` 20: what an operator sees.

use serde_json::json;

use super::Item;
use crate::check::{same, that};
use crate::registry::{item, unseen};
use crate::test::skip;
use crate::worker::bench::PATIENT;
use crate::worker::engine;
use crate::worker::relay::Way;
use crate::worker::setup::Test;

pub(super) fn items() -> Vec<Item> {
    vec![
        unseen!("75", Dockframe, "Jobs run on Kubernetes.", "needs a cluster"),
        unseen!("76", Dockframe, "Jobs run on Nomad.", "needs a cluster"),
        item!("77", Dockframe, "Metrics have their names and types, and no queue or job in them.", metrics),
        unseen!("78", Dockframe, "A cached job begins within 0.5 s.", "a measurement: make bench"),
        item!("79", Dockframe, "Neither queue nor secrets are in the worker's log.", no_secrets),
        unseen!("80", Dockframe, "2,000 jobs leave no growth.", "a measurement: make bench"),
        item!("W-59", Dockframe, "Forty jobs that end at once are all reported.", many_short_jobs).long(),
        item!("W-73", Dockframe, "--version and the registration say the same.", one_version),
        item!(
            "W-26",
            Dockframe,
            "Nothing of a finished job is left in the Engine, and its files go.",
            nothing_left
        ),
    ]
}

async fn metrics(t: Test) -> anyhow::Result<()> {
    let address = dockframe_tests::ports::free()?;
    let bench = t.bench(Way::Leases, &[&format!("--metrics-listen={address}")]).await?;
    let job = bench.run(t.sh("exit 3")).await?.job;
    let text = reqwest::get(format!("http://{address}/metrics")).await?.text().await?;
    for name in [
        "dockframe_worker_info",
        "dockframe_worker_slots",
        "dockframe_worker_connected",
        "dockframe_worker_draining",
        "dockframe_jobs_claimed_total",
        "dockframe_jobs_finished_total",
        "dockframe_job_exit_total",
        "dockframe_job_phase_seconds",
    ] {
        that(name, text.contains(name), &text)?;
    }
    that("no queue and no job", !text.contains(&bench.worker.queue) && !text.contains(&job), &text)?;
    for path in ["healthz", "readyz"] {
        let answer = reqwest::get(format!("http://{address}/{path}")).await?.status();
        that(path, answer.is_success(), &answer)?;
    }
    Ok(())
}

async fn no_secrets(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--debug"]).await?;
    let mut definition = t.sh("echo hush-text; exit 1");
    definition["env"] = json!({ "API_TOKEN": "hush-env" });
    definition["inputs"] = json!({ "x": { "type": "utf8", "value": "hush-input" } });
    bench.run(definition).await?;
    let mut failing = t.sh("true");
    failing["inputs"] = json!({ "x": { "type": "url", "value": format!("{}/gone?token=hush-url", bench.relay.url().replace("http://", "http://user:hush-pass@")) } });
    bench.run(failing).await?;
    let said = bench.worker.process.output();
    for secret in [&*bench.worker.queue, "hush-text", "hush-env", "hush-input", "hush-pass"] {
        that(&format!("no {secret}"), !said.contains(secret), &said)?;
    }
    Ok(())
}

async fn many_short_jobs(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &["--cpus=4"]).await?;
    let jobs: Vec<String> = (0..40).map(|_| bench.submit(t.sh("true"))).collect::<anyhow::Result<_>>()?;
    for job in &jobs {
        bench.ended(job).await?.good()?;
        same("reports", &bench.relay.finishes(job).len(), &1)?;
    }
    Ok(())
}

async fn one_version(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Old, &[]).await?;
    let registered = bench.registered().await?["version"].as_str().unwrap_or_default().to_owned();
    that("a version", !registered.is_empty(), &registered)?;
    let Ok(process) = t.launch_with(&["--version".to_owned()], &[]) else {
        return skip("the command takes no options");
    };
    let status = process.end(PATIENT).await?;
    let said = process.output();
    // `run --version` may be no option of its own: then the program's is asked by nobody here.
    if !status.success() {
        return skip("COMMAND ends in a subcommand without --version");
    }
    that(&format!("{registered} in --version"), said.contains(&registered), &said)
}

async fn nothing_left(t: Test) -> anyhow::Result<()> {
    let bench = t.bench(Way::Leases, &[]).await?;
    let job = bench.run(t.sh("echo x > /outputs/x")).await?.good()?.job;
    bench.no_container(&job, PATIENT).await?;
    let left = engine::containers("worker", &bench.worker.id).await?;
    same("containers", &left, &Vec::new())?;
    let volumes = engine::docker(&[
        "volume",
        "ls",
        "--quiet",
        "--filter",
        "dangling=true",
        "--filter",
        &format!("label=container.mtfm.io/id={job}"),
    ])
    .await?;
    same("volumes", &volumes.as_str(), &"")?;
    Ok(())
}
