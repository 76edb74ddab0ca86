//! A relay may die at any instant: what it acknowledged is there when it is back, and what runs goes on.

use std::sync::Arc;

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario::{self, Scenario};
use dockframe_tests::worker::Worker;
use serde_json::json;

#[test]
fn a_job_survives_a_crash_of_the_relay_before_it_runs() {
    scenario::run("a_job_survives_a_crash_of_the_relay_before_it_runs", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let client = relay.client()?;
        let queue = scenario.queue();
        let id = client.submit(queue, &json!({ "image": BUSYBOX, "command": "echo still here" })).await?;

        // At once after the acknowledgement, and without a word.
        relay.kill().await?;
        relay.start_again().await?;
        client.reaches(queue, &id, "Queued").await?;

        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let job = client.finished(queue, &id).await?;
        assert_eq!(job["finished"]["result"]["logs"][0][0], "still here\n", "{job:#}");

        // The result survives as well.
        relay.stop().await?;
        relay.start_again().await?;
        assert_eq!(client.result(queue, &id).await?, Some(job));
        Ok(())
    });
}

#[test]
fn a_job_goes_on_over_a_crash_of_the_relay() {
    scenario::run("a_job_goes_on_over_a_crash_of_the_relay", async |scenario| {
        runs_over(scenario, async |relay| relay.kill().await).await
    });
}

#[test]
fn a_job_goes_on_over_a_restart_of_the_relay() {
    scenario::run("a_job_goes_on_over_a_restart_of_the_relay", async |scenario| {
        runs_over(scenario, async |relay| relay.stop().await).await
    });
}

/// Ends the relay in some way while a job runs, and lets the job end after the relay is back.
async fn runs_over(
    scenario: Arc<Scenario>,
    end: impl AsyncFnOnce(&Relay) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    docker::image(Kind::Busybox, BUSYBOX).await?;
    let relay = Relay::start(&scenario).await?;
    let worker = Worker::start(&scenario, &relay.url()).await?;
    let client = relay.client()?;
    let queue = scenario.queue();

    let script =
        "echo before; until [ -e /tmp/go ]; do sleep 0.1; done; echo after; echo done > /outputs/end.txt";
    let id =
        client.submit(queue, &json!({ "image": BUSYBOX, "command": format!("sh -c \"{script}\"") })).await?;
    client.reaches(queue, &id, "Running").await?;
    let container = worker.running_container().await?;

    end(&relay).await?;
    relay.start_again().await?;
    docker::exec(&container, &["touch", "/tmp/go"]).await?;

    let job = client.finished(queue, &id).await?;
    let logs = job["finished"]["result"]["logs"].as_array().cloned().unwrap_or_default();
    let text: String = logs.iter().filter_map(|line| line[0].as_str()).collect();
    assert_eq!(text, "before\nafter\n", "one run, each line once: {job:#}");
    assert_eq!(job["worker"], worker.id());
    assert_eq!(job["finished"]["result"]["outputs"]["end.txt"]["value"], "ZG9uZQo=");
    Ok(())
}
