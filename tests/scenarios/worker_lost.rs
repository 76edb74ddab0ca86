//! A worker that dies takes no job with it: the job goes back to its queue, and another worker runs it to its end.

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::relay::Relay;
use dockframe_tests::worker::Worker;
use dockframe_tests::{scenario, wait};
use serde_json::json;

#[test]
fn a_lost_worker_returns_its_job_to_the_queue() {
    scenario::run("a_lost_worker_returns_its_job_to_the_queue", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let first = Worker::start(&scenario, &relay.url()).await?;
        let client = relay.client()?;
        let queue = scenario.queue();

        // The first run leaves a mark in the cache that all jobs of an Engine share, and stays; the second one finds
        // it, removes it and ends.
        let mark = format!("/job-cache/{queue}");
        let script = format!("if rm {mark} 2>/dev/null; then echo second; else touch {mark}; sleep 600; fi");
        let definition = json!({ "image": BUSYBOX, "command": format!("sh -c '{script}'") });
        let id = client.submit(queue, &definition).await?;
        wait::until("the first run's mark", wait::PATIENT, async || {
            let containers = first.containers().await.map_err(|error| error.to_string())?;
            let running = containers.iter().find_map(|container| container.strip_suffix(" running"));
            let container = running.ok_or_else(|| format!("{containers:?}"))?;
            docker::exec(container, &["test", "-e", &mark]).await.map_err(|error| error.to_string())
        })
        .await?;

        first.process().kill().await?;
        let second = Worker::start(&scenario, &relay.url()).await?;
        let job =
            wait::until(
                "the second run's result",
                std::time::Duration::from_secs(100),
                async || match client.result(queue, &id).await {
                    Ok(Some(job)) => Ok(job),
                    other => Err(format!("{other:?}; {:?}", client.jobs(queue).await)),
                },
            )
            .await?;
        assert_eq!(job["finished"]["result"]["logs"][0][0], "second\n", "{job:#}");
        assert_eq!(job["worker"], second.id(), "{job:#}");
        Ok(())
    });
}
