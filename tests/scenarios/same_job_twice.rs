//! The same job with the same inputs is answered from its stored result; it does not run again.

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::relay::Relay;
use dockframe_tests::scenario;
use dockframe_tests::worker::Worker;
use serde_json::json;

/// Gives another text at every look.
const UUID: &str = "/proc/sys/kernel/random/uuid";

#[test]
fn the_same_job_twice_runs_once() {
    scenario::run("the_same_job_twice_runs_once", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let worker = Worker::start(&scenario, &relay.url()).await?;
        let client = relay.client()?;
        let queue = scenario.queue();

        // Another text at every run.
        let definition = json!({ "image": BUSYBOX, "command": format!("cat {UUID}") });
        let first = client.submit(queue, &definition).await?;
        let once = client.finished(queue, &first).await?;

        // Nobody could run it any more: only the stored result can answer.
        worker.process().stop(dockframe_tests::wait::PATIENT).await?;
        let second = client.submit(queue, &definition).await?;
        assert_eq!(second, first);
        assert_eq!(client.finished(queue, &second).await?, once);

        // A client that follows the job gets the stored output too, at once, and each time once.
        let url = relay.url();
        let line = once["finished"]["result"]["logs"][0][0].as_str().unwrap_or_default();
        for _ in 0..5 {
            let words = ["job", "run", "--api-address", &url, "-q", queue, BUSYBOX, "--", "cat", UUID];
            let run = scenario.dockframe_output(&words).await?;
            assert_eq!(run.code, Some(0), "{}", run.stderr);
            assert_eq!(run.stdout, line, "{}", run.stderr);
        }
        Ok(())
    });
}

#[test]
fn another_input_makes_another_job() {
    scenario::run("another_input_makes_another_job", async |scenario| {
        let relay = Relay::start(&scenario).await?;
        let client = relay.client()?;
        let job = |text: &str| json!({ "image": BUSYBOX, "command": "cat /inputs/a", "inputs": { "a": { "type": "utf8", "value": text } } });
        let one = client.submit(scenario.queue(), &job("1")).await?;
        let two = client.submit(scenario.queue(), &job("2")).await?;
        assert_ne!(one, two);
        assert_eq!(client.submit(scenario.queue(), &job("1")).await?, one);
        Ok(())
    });
}
