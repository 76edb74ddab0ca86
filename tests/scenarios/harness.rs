//! The harness itself, without the product: what the other scenarios stand on.

use dockframe_tests::docker;
use dockframe_tests::metapage::{Metapage, Plain};
use dockframe_tests::redis::Redis;
use dockframe_tests::scenario;
use serde_json::json;

#[test]
fn two_plain_metaframes_talk_through_the_host() {
    scenario::run("two_plain_metaframes_talk_through_the_host", async |scenario| {
        let metapage = Metapage::open(&scenario).await?;
        let url = metapage.plain_url();
        metapage
            .load(&json!({
                "left": { "url": url },
                "right": { "url": url, "inputs": [{ "metaframe": "left", "source": "*.csv", "target": "in/" }] },
            }))
            .await?;
        let (left, right) = (Plain::new(metapage.frame("left")), Plain::new(metapage.frame("right")));
        left.send("data.csv", "x,y").await?;
        right.gets("in/data.csv", "x,y").await?;
        assert_eq!(right.shows("data.csv").await?, None);
        assert_eq!(metapage.outputs("left").await?["data.csv"], "x,y");

        let said: Vec<_> = metapage.said_by("right").await?.iter().map(|m| m["method"].clone()).collect();
        assert_eq!(said[0], "SetupIframeClientRequest");
        let heard: Vec<_> = metapage.heard_by("right").await?.iter().map(|m| m["method"].clone()).collect();
        assert_eq!(heard[0], "SetupIframeServerResponse");
        assert!(heard.contains(&json!("InputsUpdate")), "{heard:?}");
        Ok(())
    });
}

#[test]
fn images_for_jobs_can_be_made_without_a_registry() {
    scenario::run("images_for_jobs_can_be_made_without_a_registry", async |scenario| {
        docker::image(docker::Kind::Busybox, docker::BUSYBOX).await?;
        docker::image(docker::Kind::Python, docker::PYTHON).await?;
        let mut command = tokio::process::Command::new("docker");
        command.args(["run", "--rm", docker::PYTHON, "python", "-c", "print(\"help\")"]);
        let run = scenario.output(command).await?;
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), "help\n"), "{}", run.stderr);
        Ok(())
    });
}

#[test]
fn a_redis_of_its_own_answers() {
    scenario::run("a_redis_of_its_own_answers", async |scenario| {
        let redis = Redis::start(scenario.folder()).await?;
        assert!(redis.url().starts_with("redis://127.0.0.1:"));
        Ok(())
    });
}
