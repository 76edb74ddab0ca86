//! The example link of the existing service works unchanged on our page: only the host differs.

use anyhow::Context as _;
use dockframe_tests::docker::{self, Kind, PYTHON};
use dockframe_tests::pages::JobPage;
use dockframe_tests::relay::Relay;
use dockframe_tests::worker::Worker;
use dockframe_tests::{checkout, scenario};
use serde_json::Value;

/// The job's id for the unchanged address.
const ID: &str = "0e43af301efde5067c447c76b6d62220324da99d61f8e7ede84efe16c36e6996";

/// The address as the existing service documents it.
fn example() -> anyhow::Result<String> {
    let vectors = std::fs::read(checkout("shared/tests/vectors/job-definition.json"))?;
    let vectors: Value = serde_json::from_slice(&vectors)?;
    Ok(vectors["vectors"][0]["url"].as_str().context("the first vector has no address")?.to_owned())
}

#[test]
fn the_existing_services_example_runs_on_our_page() {
    scenario::run("the_existing_services_example_runs_on_our_page", async |scenario| {
        docker::image(Kind::Python, PYTHON).await?;
        let relay = Relay::start(&scenario).await?;
        // The existing worker's line, word for word; only the address of the relay is added.
        let worker =
            Worker::start_with(&scenario, &relay.url(), &["--cpus=4", "--gpus=0", "public1"]).await?;

        let example = example()?;
        let rest = example.strip_prefix("https://container.mtfm.io").context("another service")?;
        let address = format!("{}{rest}", relay.url());
        let browser = scenario.browser().await?;
        browser.open(&address).await?;
        let page = JobPage::new(browser.page());

        // Without `autostart` nothing runs by itself.
        page.press("Run Job").await?;
        page.logs("help").await?;
        page.shows("Finished").await?;

        let job = relay.client()?.finished("public1", ID).await?;
        assert_eq!(job["finished"]["result"]["logs"][0][0], "help\n", "{job:#}");
        assert_eq!(job["finished"]["result"]["StatusCode"], 0);
        assert_eq!(job["worker"], worker.id());
        // Looking at a job and running it does not touch its address.
        assert_eq!(browser.address().await?.as_str(), address);
        Ok(())
    });
}
