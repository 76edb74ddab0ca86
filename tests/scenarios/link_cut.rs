//! A link between worker and relay that breaks loses nothing: the job goes on, and its result arrives when the link is
//! back.

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::proxy::Proxy;
use dockframe_tests::relay::Relay;
use dockframe_tests::worker::Worker;
use dockframe_tests::{scenario, wait};
use serde_json::json;

#[test]
fn a_job_that_ends_while_the_link_is_cut_delivers_its_result_later() {
    scenario::run("a_job_that_ends_while_the_link_is_cut_delivers_its_result_later", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let link = Proxy::start(relay.address()).await?;
        let worker = Worker::start(&scenario, &link.url()).await?;
        let client = relay.client()?;
        let queue = scenario.queue();

        let script =
            "until [ -e /tmp/go ]; do sleep 0.1; done; head -c 3000 /dev/zero > /outputs/zeros; echo ended";
        let definition = json!({ "image": BUSYBOX, "command": format!("sh -c \"{script}\"") });
        let id = client.submit(queue, &definition).await?;
        let container = worker.running_container().await?;

        link.cut();
        docker::exec(&container, &["touch", "/tmp/go"]).await?;
        wait::until("the container's end", wait::PATIENT, async || {
            match docker::inspect(&container, "{{.State.Running}}").await {
                // Removed already: it has ended as well.
                Ok(running) if running == "true" => Err(running),
                _ => Ok(()),
            }
        })
        .await?;
        assert_eq!(client.result(queue, &id).await?, None, "nothing can have come through");

        link.mend();
        let job = client.finished(queue, &id).await?;
        let result = &job["finished"]["result"];
        assert_eq!(result["logs"][0][0], "ended\n", "{job:#}");
        let answer = client.get(&format!("/q/{queue}/j/{id}/outputs/zeros")).await?;
        assert_eq!(answer.bytes().await?, vec![0; 3000]);
        Ok(())
    });
}
