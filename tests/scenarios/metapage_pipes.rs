//! Our page and a plain metaframe in a real host, connected by pipes: an input that changes runs the job, and its
//! output arrives at the other end.

use dockframe_tests::docker::{self, BUSYBOX, Kind};
use dockframe_tests::metapage::{Metapage, Plain};
use dockframe_tests::pages::JobPage;
use dockframe_tests::relay::Relay;
use dockframe_tests::worker::Worker;
use dockframe_tests::{hash, scenario};
use serde_json::json;

#[test]
fn a_changed_input_runs_the_job_and_its_output_flows_on() {
    scenario::run("a_changed_input_runs_the_job_and_its_output_flows_on", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let metapage = Metapage::open(&scenario).await?;

        let job = json!({
            "image": BUSYBOX,
            "command": "sh -c 'echo got; tr a-z A-Z < /inputs/input.json > /outputs/data.csv'",
        });
        let parameters = [
            ("autostart", "true"),
            ("job", &hash::json(&job)),
            ("queue", scenario.queue()),
            ("resolverefs", "true"),
        ];
        metapage
            .load(&json!({
                "ours": {
                    "url": format!("{}/{}", relay.url(), hash::hash(&parameters)),
                    "inputs": [{ "metaframe": "plain", "source": "input.json" }],
                },
                "plain": {
                    "url": metapage.plain_url(),
                    "inputs": [{ "metaframe": "ours", "source": "data.csv" }],
                },
            }))
            .await?;
        let (ours, plain) = (JobPage::new(metapage.frame("ours")), Plain::new(metapage.frame("plain")));

        plain.send("input.json", "first").await?;
        plain.gets("data.csv", "FIRST").await?;
        ours.shows("Finished").await?;

        // Longer than what travels inside a job: uploaded, and run again.
        let long = "second ".repeat(100);
        plain.send("input.json", long.trim_end()).await?;
        plain.gets("data.csv", &long.trim_end().to_uppercase()).await?;

        // Back to the first input: the stored result, and the pipe carries it again.
        plain.send("input.json", "first").await?;
        plain.gets("data.csv", "FIRST").await?;
        Ok(())
    });
}

#[test]
fn inputs_that_the_host_holds_before_the_handshake_are_in_the_only_job() {
    scenario::run("inputs_that_the_host_holds_before_the_handshake_are_in_the_only_job", async |scenario| {
        docker::image(Kind::Busybox, BUSYBOX).await?;
        let relay = Relay::start(&scenario).await?;
        let _worker = Worker::start(&scenario, &relay.url()).await?;
        let metapage = Metapage::open(&scenario).await?;
        let job = json!({ "image": BUSYBOX, "command": "cp /inputs/a.txt /outputs/b.txt" });
        let parameters = [("autostart", "true"), ("job", &*hash::json(&job)), ("queue", scenario.queue())];
        let url = format!("{}/{}", relay.url(), hash::hash(&parameters));
        metapage
            .load_with(&json!({ "ours": { "url": url } }), &json!({ "ours": { "a.txt": "early" } }))
            .await?;

        metapage.says("ours", "OutputsUpdate").await?;
        metapage.output_is("ours", "b.txt", &json!({ "type": "base64", "value": "ZWFybHk=" })).await?;
        let jobs = relay.client()?.jobs(scenario.queue()).await?;
        assert_eq!(jobs.as_object().map(serde_json::Map::len), Some(1), "one job, with the inputs: {jobs:#}");
        Ok(())
    });
}
