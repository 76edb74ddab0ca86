//! What ran is gone: no container, no file of a run, no process.

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::relay::Relay;
use dockframe_tests::worker::Worker;
use dockframe_tests::{scenario, wait};
use serde_json::json;

#[test]
fn finished_jobs_leave_no_container() {
    scenario::run("finished_jobs_leave_no_container", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let worker = Worker::start(&scenario, &relay.url()).await?;
        let client = relay.client()?;
        let queue = scenario.queue();
        let mut ids = Vec::new();
        for command in ["true", "false", "sh -c 'exit 42'", "no-such-program"] {
            ids.push(client.submit(queue, &json!({ "image": BUSYBOX, "command": command })).await?);
        }
        for id in &ids {
            client.finished(queue, id).await?;
        }
        worker.no_container().await?;
        let status = worker.process().stop(wait::SOON).await?;
        assert!(status.success(), "an idle worker ends well on SIGTERM: {status}");
        relay.stop().await
    });
}
