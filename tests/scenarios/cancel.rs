//! A cancelled job stops: its container is gone soon, and nothing is stored for it.

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario;
use dockframe_tests::worker::Worker;
use serde_json::json;

#[test]
fn a_cancelled_job_loses_its_container() {
    scenario::run("a_cancelled_job_loses_its_container", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let worker = Worker::start(&scenario, &relay.url()).await?;
        let client = relay.client()?;
        let queue = scenario.queue();

        let id = client.submit(queue, &json!({ "image": BUSYBOX, "command": "sleep 600" })).await?;
        worker.running_container().await?;

        let answer = client.cancel(queue, &id).await?;
        assert_eq!(answer["success"], true, "{answer}");
        worker.no_container().await?;
        assert_eq!(client.result(queue, &id).await?, None);
        assert_eq!(client.state(queue, &id).await?, None, "a cancelled job is in no list");

        // The worker has its room back.
        let next = client.submit(queue, &json!({ "image": BUSYBOX, "command": "echo next" })).await?;
        assert_eq!(client.finished(queue, &next).await?["finished"]["result"]["StatusCode"], 0);
        Ok(())
    });
}

#[test]
fn a_job_cancelled_while_it_waits_never_runs() {
    scenario::run("a_job_cancelled_while_it_waits_never_runs", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let client = relay.client()?;
        let queue = scenario.queue();
        let cancelled = client.submit(queue, &json!({ "image": BUSYBOX, "command": "echo never" })).await?;
        client.reaches(queue, &cancelled, "Queued").await?;
        client.cancel(queue, &cancelled).await?;

        let _worker = Worker::start(&scenario, &relay.url()).await?;
        // Jobs are taken in order: when the later one is done, the earlier one would have been.
        let later = client.submit(queue, &json!({ "image": BUSYBOX, "command": "echo later" })).await?;
        client.finished(queue, &later).await?;
        assert_eq!(client.result(queue, &cancelled).await?, None);
        Ok(())
    });
}
